//! What counts as one client: an IPv4 address, or an IPv6 /64. Pure.

use std::net::IpAddr;

/// One client, for its limits.
///
/// Of IPv6 the first 64 bits: whoever has one address of a /64 has all of them (RFC 4291, section
/// 2.5.4; RFC 6177), and could take a new one for each connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Network {
    bits: u64,
    is_v6: bool,
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self { bits: address.to_bits().into(), is_v6: false },
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                let bits = [a, b, c, d].iter().fold(0, |bits, part| bits << 16 | u64::from(*part));
                Self { bits, is_v6: true }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn network(text: &str) -> Network {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn ipv4_is_one_address_and_ipv6_a_64() {
        assert_eq!(network("192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db9:1:2::1"));
        // The same bits in both families are two.
        assert_ne!(network("0.0.0.1"), network("0:0:0:1::"));
    }
}
