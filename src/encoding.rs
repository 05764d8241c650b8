//! Plain data as bytes, and back: so that another process can go on with it.
//!
//! Each value is written in the order of its fields, and each writer takes its value apart in full: a field
//! that is forgotten does not compile. A tick is written as its distance from now, since another process may
//! count others; a stamp stays as it is, so that a Pong is known for which another process sent the Ping: whoever
//! reads it counts its own stamps on from there. An instant is written as its age. What
//! is read is checked as a peer's bytes are: it allocates no more than came.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::clock::Stamp;
use crate::peer::Peer;

/// What can be written and read back.
pub(crate) trait Encode: Sized {
    fn write(&self, to: &mut Writer);
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// The bytes are no state of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not the state of a tunnel")]
pub struct Malformed;

/// Bytes that are written.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    tick: u32,
    instant: Instant,
}

/// Bytes that are read.
pub(crate) struct Reader<'b> {
    rest: &'b [u8],
    tick: u32,
    instant: Instant,
}

impl Writer {
    pub(crate) const fn new(tick: u32, instant: Instant) -> Self {
        Self { bytes: Vec::new(), tick, instant }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// A tick, before or behind now.
    pub(crate) fn tick(&mut self, tick: u32) {
        tick.wrapping_sub(self.tick).write(self);
    }

    /// So many bytes as `bytes` has; it has less than 4 GiB.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        length.write(self);
        self.bytes.extend(bytes.iter().take(length as usize));
    }

    /// Which of `all` the value is.
    pub(crate) fn place_of<T: PartialEq>(&mut self, value: &T, all: &[T]) {
        let place = all.iter().position(|one| one == value);
        self.u8(place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX));
    }
}

impl<'b> Reader<'b> {
    pub(crate) const fn new(bytes: &'b [u8], tick: u32, instant: Instant) -> Self {
        Self { rest: bytes, tick, instant }
    }

    /// Nothing may be left.
    pub(crate) const fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn tick(&mut self) -> Result<u32, Malformed> {
        u32::read(self).map(|distance| self.tick.wrapping_add(distance))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'b [u8], Malformed> {
        let length = u32::read(self)? as usize;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn text(&mut self) -> Result<&'b str, Malformed> {
        str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> Result<T, Malformed> {
        let place = self.u8()?;
        all.get(usize::from(place)).copied().ok_or(Malformed)
    }
}

macro_rules! encode_number {
    ($($type:ty),*) => {
        $(impl Encode for $type {
            fn write(&self, to: &mut Writer) {
                to.bytes.extend(self.to_be_bytes());
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.array().map(Self::from_be_bytes)
            }
        })*
    };
}
encode_number!(u8, u16, u32, u64);

impl Encode for bool {
    fn write(&self, to: &mut Writer) {
        to.u8((*self).into());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match from.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }
}

impl<T: Encode> Encode for Option<T> {
    fn write(&self, to: &mut Writer) {
        self.is_some().write(to);
        if let Some(value) = self {
            value.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        bool::read(from)?.then(|| T::read(from)).transpose()
    }
}

/// Says of a struct how it is written: field by field, each by its type or as a tick.
macro_rules! encode_fields {
    ($type:ident { $($field:ident $(: $as:ident)?),* $(,)? }) => {
        impl Encode for $type {
            fn write(&self, to: &mut Writer) {
                let Self { $($field),* } = self;
                $(encode_fields!(@write to, $field $(, $as)?);)*
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                // In the order of their names here, as they are written.
                $(let $field = encode_fields!(@read from $(, $as)?);)*
                Ok(Self { $($field),* })
            }
        }
    };
    (@write $to:ident, $field:ident) => { $field.write($to) };
    (@write $to:ident, $field:ident, tick) => { $to.tick(*$field) };
    (@read $from:ident) => { Encode::read($from)? };
    (@read $from:ident, tick) => { $from.tick()? };
}
pub(crate) use encode_fields;

/// Says of an enum without fields which byte each of its values is.
macro_rules! encode_words {
    ($type:ident { $($value:ident = $byte:literal),* $(,)? }) => {
        impl Encode for $type {
            fn write(&self, to: &mut Writer) {
                to.u8(match self { $(Self::$value => $byte),* });
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                match from.u8()? {
                    $($byte => Ok(Self::$value),)*
                    _ => Err(Malformed),
                }
            }
        }
    };
}
pub(crate) use encode_words;

encode_words!(Peer { Client = 0, Upstream = 1 });
impl Encode for Stamp {
    fn write(&self, to: &mut Writer) {
        let Self(micros) = self;
        micros.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Encode::read(from).map(Self)
    }
}

impl Encode for SocketAddr {
    fn write(&self, to: &mut Writer) {
        match self.ip() {
            IpAddr::V4(ip) => to.bytes(&ip.octets()),
            IpAddr::V6(ip) => to.bytes(&ip.octets()),
        }
        self.port().write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let ip = from.bytes()?;
        let ip: IpAddr = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
            (Ok(octets), _) => octets.into(),
            (_, Ok(octets)) => octets.into(),
            _ => return Err(Malformed),
        };
        Ok((ip, u16::read(from)?).into())
    }
}

impl Encode for Instant {
    fn write(&self, to: &mut Writer) {
        let age = to.instant.saturating_duration_since(*self);
        age.as_secs().write(to);
        age.subsec_nanos().write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (seconds, nanos) = (u64::read(from)?, u32::read(from)?);
        let age = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into()));
        // A machine that has not been up for so long cannot tell.
        Ok(from.instant.checked_sub(age).unwrap_or(from.instant))
    }
}
