//! Which endpoint a key belongs to: rendezvous hashing. Pure.
//!
//! ```text
//! key ──hash──▶ one of 65,536 buckets ──▶ its owner: the endpoint that has the best lot of all for this bucket
//!                                          a lot: the hash of bucket and address, by weight
//! ```
//!
//! A lot depends on nothing but the bucket, the address and the weight. So an endpoint that leaves gives up its own buckets
//! and no other changes hands, one that comes takes its share from all of the others, and every process that knows the same
//! endpoints finds the same owner. Owners are found when they are first asked for, and kept: a look at a thousand endpoints
//! for each choice would cost too much.

mod bound;

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

pub(crate) use self::bound::Bound;

/// What a request says of the endpoint that it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Affinity {
    /// Nothing.
    #[default]
    None,
    /// It belongs to the owner of this key, unless that has more than its share.
    Key(u64),
    /// The same of a cookie's token; what its client does lives there, and it goes there in any case.
    Token(u64),
    /// It brought no token, and gets one.
    NewToken,
}

/// Buckets, of which each key has one: many for each of a thousand endpoints.
const BUCKETS: usize = 1 << 16;

/// Of so few endpoints the owner is found as fast as it is looked up.
const FEW: usize = 4;

/// Which endpoint owns each bucket.
#[derive(Debug)]
pub(crate) struct Owners {
    table: Arc<Table>,
    /// The places of the table's endpoints in the list that these owners are of.
    places: Box<[usize]>,
}

/// The same for endpoints in an order of its own, so that it can be kept where an answer has them in another one.
#[derive(Debug)]
struct Table {
    /// Ordered by all that they are.
    contenders: Box<[Contender]>,
    /// All weigh the same, so that the hash alone counts.
    has_one_weight: bool,
    /// The owner of each bucket plus one, or 0 where it has not been found yet. Empty where there are few.
    found: Box<[AtomicU16]>,
}

/// An endpoint, as far as it counts for its lots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Contender {
    id: u64,
    weight: u16,
}

impl Contender {
    fn new(address: SocketAddr, weight: u16) -> Self {
        let mut bytes = [0; 18];
        let (ip, port) = bytes.split_at_mut(16);
        ip.copy_from_slice(&match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        });
        port.copy_from_slice(&address.port().to_be_bytes());
        // One without weight is to be chosen rarely, not never (RFC 2782).
        Self { id: hash(&bytes), weight: weight.max(1) }
    }

    /// Its lot for a bucket with this seed; of endpoints with one weight the highest is the best.
    const fn hash(self, seed: u64) -> u64 {
        mix(seed ^ self.id)
    }

    /// The same by weight; the lowest is the best. The least of several exponential variables is each one's as often as its
    /// rate says.
    #[allow(clippy::cast_precision_loss)] // 53 bits are kept.
    fn cost(self, seed: u64) -> f64 {
        let uniform = ((self.hash(seed) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -uniform.ln() / f64::from(self.weight)
    }

    fn beats(self, other: Self, bucket: u16) -> bool {
        let seed = seed(bucket);
        if self.weight == other.weight {
            return self.hash(seed) > other.hash(seed);
        }
        self.cost(seed) < other.cost(seed)
    }
}

impl Table {
    fn new(contenders: Vec<Contender>) -> Self {
        let has_one_weight = contenders.windows(2).all(|pair| match pair {
            [one, other] => one.weight == other.weight,
            _ => true,
        });
        let buckets = if contenders.len() > FEW { BUCKETS } else { 0 };
        let found = (0..buckets).map(|_| AtomicU16::new(0)).collect();
        Self { contenders: contenders.into(), has_one_weight, found }
    }

    fn owner(&self, bucket: u16) -> usize {
        let Some(found) = self.found.get(usize::from(bucket)) else { return self.find(bucket) };
        match found.load(Ordering::Relaxed) {
            0 => {
                let owner = self.find(bucket);
                // Of more endpoints than can be numbered the last ones are found anew each time.
                found.store(u16::try_from(owner + 1).unwrap_or(0), Ordering::Relaxed);
                owner
            }
            known => usize::from(known) - 1,
        }
    }

    fn find(&self, bucket: u16) -> usize {
        let seed = seed(bucket);
        let all = self.contenders.iter().enumerate();
        let best = if self.has_one_weight {
            all.max_by_key(|(_, one)| one.hash(seed))
        } else {
            all.min_by(|(_, one), (_, other)| one.cost(seed).total_cmp(&other.cost(seed)))
        };
        best.map_or(0, |(place, _)| place)
    }
}

impl Owners {
    /// Of endpoints with these addresses and weights. What `previous` found is kept where they are the same.
    pub(crate) fn new(
        endpoints: impl Iterator<Item = (SocketAddr, u16)>,
        previous: Option<&Self>,
    ) -> Self {
        let mut all: Vec<_> = endpoints
            .enumerate()
            .map(|(place, (address, weight))| (Contender::new(address, weight), place))
            .collect();
        all.sort_unstable();
        let places = all.iter().map(|(_, place)| *place).collect();
        let contenders: Vec<_> = all.into_iter().map(|(contender, _)| contender).collect();
        let same = previous.filter(|previous| *previous.table.contenders == *contenders);
        let table = match same {
            Some(same) => Arc::clone(&same.table),
            None => Arc::new(Table::new(contenders)),
        };
        Self { table, places }
    }

    /// The place of a bucket's owner.
    pub(crate) fn of(&self, bucket: u16) -> usize {
        self.places.get(self.table.owner(bucket)).copied().unwrap_or(0)
    }

    /// Whether an endpoint that is none of these would be the owner of a bucket if it were.
    pub(crate) fn would_lose(&self, bucket: u16, address: SocketAddr, weight: u16) -> bool {
        let owner = self.table.contenders.get(self.table.owner(bucket));
        owner.is_none_or(|owner| Contender::new(address, weight).beats(*owner, bucket))
    }

    /// The places of all in the order in which they would own a bucket, each if those before it were not there.
    pub(crate) fn order(&self, bucket: u16) -> Vec<usize> {
        let seed = seed(bucket);
        let mut all: Vec<_> = self.table.contenders.iter().zip(&self.places).collect();
        if self.table.has_one_weight {
            all.sort_by_key(|(one, _)| Reverse(one.hash(seed)));
        } else {
            all.sort_by(|(one, _), (other, _)| one.cost(seed).total_cmp(&other.cost(seed)));
        }
        all.into_iter().map(|(_, place)| *place).collect()
    }
}

/// The bucket that a key has at an attempt, from 0: as many as are asked for, each as good as drawn.
pub(crate) const fn bucket(key: u64, attempt: u64) -> u16 {
    let [high, low, ..] = mix(key.wrapping_add(attempt.wrapping_mul(GOLDEN))).to_be_bytes();
    u16::from_be_bytes([high, low])
}

const fn seed(bucket: u16) -> u64 {
    mix(bucket as u64)
}

/// The hash of any bytes, the same in each process and each version: another one would move everybody. Who chooses what is
/// hashed can choose the endpoint, too, and needs no luck for that; what one endpoint gets is bounded elsewhere.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    bytes.chunks(8).fold(mix(length), |state, chunk| {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        mix(state ^ u64::from_le_bytes(word))
    })
}

/// 2^64 divided by the golden section.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Each bit depends on each: the finalizer of splitmix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators", 2014).
pub(crate) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(GOLDEN);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests;
