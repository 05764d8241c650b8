//! What rendezvous hashing promises: few move, and each has its share.

#![allow(clippy::indexing_slicing, clippy::cast_precision_loss)]

use proptest::prelude::*;

use super::*;

type Found = (SocketAddr, u16);

fn found(number: u16, weight: u16) -> Found {
    let [high, low] = number.to_be_bytes();
    (SocketAddr::from(([10, 0, high, low], 3000)), weight)
}

/// The address that owns each of some buckets, once looked at and once as it is kept.
fn owners(all: &[Found]) -> Vec<SocketAddr> {
    let owners = Owners::new(all.iter().copied(), None);
    let look = || -> Vec<_> { (0..2_000).map(|bucket| all[owners.of(bucket)].0).collect() };
    let first = look();
    assert_eq!(first, look(), "what was found is what is kept");
    first
}

/// How many buckets each owns, of all.
fn shares(all: &[Found]) -> Vec<f64> {
    let owners = Owners::new(all.iter().copied(), None);
    let mut shares = vec![0.0; all.len()];
    for bucket in 0..=u16::MAX {
        shares[owners.of(bucket)] += 1.0 / BUCKETS as f64;
    }
    shares
}

fn different() -> impl Strategy<Value = Vec<Found>> {
    prop::collection::btree_map(0_u16..500, 0_u16..6, 1..40)
        .prop_map(|all| all.into_iter().map(|(number, weight)| found(number, weight)).collect())
}

fn of_one_weight() -> impl Strategy<Value = Vec<Found>> {
    prop::collection::btree_set(0_u16..500, 1..40)
        .prop_map(|all| all.into_iter().map(|number| found(number, 1)).collect())
}

fn any_endpoints() -> impl Strategy<Value = Vec<Found>> {
    prop_oneof![different(), of_one_weight()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Another process has the same endpoints in another order.
    #[test]
    fn owner_does_not_depend_on_the_order(mut all in any_endpoints(), turn in 0_usize..40) {
        let before = owners(&all);
        let turn = turn % all.len();
        all.rotate_left(turn);
        all.reverse();
        prop_assert_eq!(before, owners(&all));
    }

    #[test]
    fn only_what_an_endpoint_owned_moves_when_it_leaves(all in any_endpoints(), which: prop::sample::Index) {
        prop_assume!(all.len() > 1);
        let before = owners(&all);
        let mut left = all;
        let (gone, weight) = left.remove(which.index(left.len()));
        let after = owners(&left);
        for (one, other) in before.iter().zip(&after) {
            prop_assert!(one == other || *one == gone, "{one} gives to {other}");
        }
        // And only it gets something when it comes: the same the other way round.
        let rest = Owners::new(left.iter().copied(), None);
        for (bucket, one) in (0..).zip(&before) {
            prop_assert_eq!(rest.would_lose(bucket, gone, weight), *one == gone, "{}", bucket);
        }
    }

    #[test]
    fn order_is_who_owns_it_next_when_those_before_have_left(all in any_endpoints(), bucket: u16) {
        let mut left = all.clone();
        let order = Owners::new(all.iter().copied(), None).order(bucket);
        prop_assert_eq!(order.len(), all.len());
        for place in order {
            let owners = Owners::new(left.iter().copied(), None);
            prop_assert_eq!(left[owners.of(bucket)], all[place]);
            left.retain(|one| *one != all[place]);
        }
    }

    #[test]
    fn what_was_found_is_kept_where_endpoints_are_the_same(mut all in any_endpoints(), turn in 0_usize..40) {
        let first = Owners::new(all.iter().copied(), None);
        let turn = turn % all.len();
        all.rotate_left(turn);
        let same = Owners::new(all.iter().copied(), Some(&first));
        prop_assert!(Arc::ptr_eq(&first.table, &same.table));
        let kept: Vec<_> = (0..2_000).map(|bucket| all[same.of(bucket)].0).collect();
        prop_assert_eq!(kept, owners(&all));
        all.push(found(600, 1));
        let other = Owners::new(all.iter().copied(), Some(&first));
        prop_assert!(!Arc::ptr_eq(&first.table, &other.table));
    }

    #[test]
    fn hash_depends_on_each_byte(bytes in prop::collection::vec(any::<u8>(), 0..40), at: prop::sample::Index) {
        let mut other = bytes.clone();
        other.push(0);
        prop_assert_ne!(hash(&bytes), hash(&other));
        other.pop();
        if !other.is_empty() {
            let at = at.index(other.len());
            other[at] ^= 1;
            prop_assert_ne!(hash(&bytes), hash(&other));
        }
    }
}

#[test]
fn shares_are_equal_or_as_weights_say() {
    for weights in
        [vec![1; 3], vec![1; 5], vec![7; 20], vec![1, 2], vec![1, 2, 3, 10], vec![0, 1, 1, 0, 2]]
    {
        let all: Vec<_> =
            (1..).zip(&weights).map(|(number, weight)| found(number, *weight)).collect();
        let total: f64 = weights.iter().map(|weight| f64::from((*weight).max(1))).sum();
        for (share, weight) in shares(&all).iter().zip(&weights) {
            let expected = f64::from((*weight).max(1)) / total;
            // Four standard deviations of as many draws as there are buckets.
            let most = 4.0 * (expected / BUCKETS as f64).sqrt();
            assert!((share - expected).abs() < most, "{share} for {expected} of {weights:?}");
        }
    }
}

#[test]
fn each_of_a_thousand_owns_something() {
    let all: Vec<_> = (0..1_000).map(|number| found(number, 1)).collect();
    let shares = shares(&all);
    // The mean is 65.5 buckets, and their standard deviation 8.
    let bounds = 30.0 / BUCKETS as f64..110.0 / BUCKETS as f64;
    assert!(shares.iter().all(|share| bounds.contains(share)), "{shares:?}");
}

#[test]
fn attempts_of_a_key_lead_everywhere() {
    let owners = Owners::new((0..10).map(|number| found(number, 1)), None);
    for key in 0..1_000 {
        let places: std::collections::BTreeSet<_> =
            (0..100).map(|attempt| owners.of(bucket(key, attempt))).collect();
        assert_eq!(places.len(), 10, "{key}");
    }
}

/// Processes of all versions agree: another hash would move everybody at once.
#[test]
fn hash_stays_what_it_is() {
    assert_eq!(hash(b""), 0xe220_a839_7b1d_cdaf);
    assert_eq!([bucket(0, 0), bucket(1, 0), bucket(1, 1)], [57_888, 37_130, 48_875]);
    assert_eq!(hash(b"203.0.113.7"), 0x52bc_edb3_cfe6_ea52);
    let ten: Vec<_> = (1..=10).map(|number| found(number, 1)).collect();
    let owned: Vec<_> = owners(&ten)
        .iter()
        .take(12)
        .map(|one| match one.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => 0,
        })
        .collect();
    assert_eq!(owned, [7, 3, 6, 3, 8, 9, 5, 3, 8, 5, 5, 3]);
    let mapped = Contender::new("[::ffff:10.0.0.1]:3000".parse().unwrap_or(ten[0].0), 1);
    assert_eq!(mapped, Contender::new(SocketAddr::from(([10, 0, 0, 1], 3000)), 1));
}
