//! Values that are no records: numbers, text, bytes, lists, addresses and moments.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Encode, Reader, RecordFault, Writer, encode_variants};
use crate::clock::{Since, Stamp};
use crate::peer::Peer;

/// Bytes as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

macro_rules! encode_number {
    ($($type:ty),*) => {
        $(impl Encode for $type {
            fn write(&self, to: &mut Writer) {
                to.bytes(&self.to_be_bytes());
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
                from.array().map(Self::from_be_bytes)
            }
        })*
    };
}
encode_number!(u8, u16, u32, u64, u128);

impl Encode for bool {
    fn write(&self, to: &mut Writer) {
        u8::from(*self).write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        match from.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(RecordFault::Malformed),
        }
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn write(&self, to: &mut Writer) {
        to.bytes(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        from.array()
    }
}

impl Encode for Bytes {
    fn write(&self, to: &mut Writer) {
        let Self(bytes) = self;
        to.bytes(bytes);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        Ok(Self(from.rest().to_vec()))
    }
}

impl Encode for String {
    fn write(&self, to: &mut Writer) {
        to.bytes(self.as_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        from.text().map(Self::from)
    }
}

impl<T: Encode> Encode for Option<T> {
    fn write(&self, to: &mut Writer) {
        self.is_some().write(to);
        if let Some(value) = self {
            value.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        bool::read(from)?.then(|| T::read(from)).transpose()
    }
}

/// Each with its length. Memory is taken for those that came, as they are read.
impl<T: Encode> Encode for Vec<T> {
    fn write(&self, to: &mut Writer) {
        for value in self {
            to.with_length(|to| value.write(to));
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        let mut values = Self::new();
        while let Some(value) = from.with_length()? {
            values.push(value.whole()?);
        }
        Ok(values)
    }
}

encode_variants!(Peer { 0 Client, 1 Upstream });

impl Encode for Stamp {
    fn write(&self, to: &mut Writer) {
        let Self(micros) = self;
        micros.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        Encode::read(from).map(Self)
    }
}

/// The port, then the 4 or 16 bytes of the address.
impl Encode for SocketAddr {
    fn write(&self, to: &mut Writer) {
        self.port().write(to);
        match self.ip() {
            IpAddr::V4(ip) => to.bytes(&ip.octets()),
            IpAddr::V6(ip) => to.bytes(&ip.octets()),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        let port = u16::read(from)?;
        let ip = from.rest();
        let ip: IpAddr = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
            (Ok(octets), _) => octets.into(),
            (_, Ok(octets)) => octets.into(),
            _ => return Err(RecordFault::Malformed),
        };
        Ok((ip, port).into())
    }
}

/// Its age in microseconds.
impl Encode for Since {
    fn write(&self, to: &mut Writer) {
        let age = to.elapsed.map(|elapsed| self.age(elapsed)).unwrap_or_default();
        u64::try_from(age.as_micros()).unwrap_or(u64::MAX).write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, RecordFault> {
        let age = Duration::from_micros(u64::read(from)?);
        let elapsed = from.elapsed.ok_or(RecordFault::Malformed)?;
        Ok(Self::ago(age, elapsed))
    }
}
