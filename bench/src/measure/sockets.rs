//! Connections that the kernel has, by the address at which they were accepted.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::{fs, io};

/// How many connections are established at each address of this machine, as far as it is IPv4.
pub(crate) fn established() -> io::Result<BTreeMap<SocketAddr, usize>> {
    Ok(count(&fs::read_to_string("/proc/net/tcp")?))
}

/// The lines of /proc/net/tcp (proc(5)): number, local address, remote address, state.
fn count(table: &str) -> BTreeMap<SocketAddr, usize> {
    const ESTABLISHED: &str = "01";
    let mut counts = BTreeMap::new();
    for line in table.lines() {
        let words: Vec<_> = line.split_whitespace().take(4).collect();
        if let [_, local, _, ESTABLISHED] = words.as_slice()
            && let Some(address) = address(local)
        {
            *counts.entry(address).or_default() += 1;
        }
    }
    counts
}

/// `0100007F:B1B2`: the address as a number of this machine, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::from((Ipv4Addr::from(ip.to_ne_bytes()), port)))
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn only_what_is_established_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue
   0: 0103007F:B1B2 00000000:0000 0A 00000000:00000000
   1: 0103007F:B1B2 0100007F:9C40 01 00000000:00000000
   2: 0103007F:B1B2 0100007F:9C41 01 00000000:00000000
   3: 0103007F:B1B2 0100007F:9C42 08 00000000:00000000
   4: 0203007F:B1B2 0100007F:9C43 01 00000000:00000000
";
        let counts = count(table);
        if cfg!(target_endian = "little") {
            let of = |last| counts.get(&([127, 0, 3, last], 0xb1b2).into()).copied();
            assert_eq!([of(1), of(2)], [Some(2), Some(1)]);
        }
        assert_eq!(counts.values().sum::<usize>(), 3);
    }
}
