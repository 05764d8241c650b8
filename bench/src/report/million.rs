//! What a million tunnels need: what was measured of one, and the arithmetic.

use std::fmt::Write as _;

use super::Table;
use super::table::number;
use crate::measure::kernel::sysctl;

const MILLION: f64 = 1e6;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// The kernel's settings that matter, and what a million tunnels want of them.
const SETTINGS: [(&str, &str); 8] = [
    ("fs.nr_open", "2,100,000 or more: the largest limit that a process may be given"),
    ("fs.file-max", "4,000,000 or more: of the whole machine"),
    (
        "net.ipv4.ip_local_port_range",
        "`1024 65535`, without the ports that services of the machine listen on",
    ),
    ("net.core.somaxconn", "4096, which elbows asks for; it bounds how many wait for accept(2)"),
    ("net.ipv4.tcp_max_syn_backlog", "4096 or more"),
    (
        "net.ipv4.tcp_mem",
        "its last number, in pages of 4 KiB, above what is buffered: 16 GiB are 4,194,304",
    ),
    ("net.ipv4.tcp_rmem", "the first number is what each socket may keep even under pressure"),
    (
        "net.netfilter.nf_conntrack_max",
        "2,100,000 or more, or no connection tracking for these ports",
    ),
];

/// The section's text. `table` has a row with elbows and one without.
pub(crate) fn text(table: &Table, [with, without]: &[&str; 2]) -> String {
    let of = |row, column| table.get(row, column).unwrap_or_default().median;
    let kernel = of(with, 0) - of(without, 0);
    let process = of(with, 1);
    let descriptors = of(with, 2);
    let gib = |bytes: f64| number(bytes * MILLION / GIB, 1);
    let range = sysctl("net.ipv4.ip_local_port_range");
    let ports = ports(&range);
    let endpoints = (MILLION / ports).ceil();
    let wide = 65_535.0 - 1_024.0 + 1.0;
    let mut settings = String::new();
    for (name, wants) in SETTINGS {
        // Writing to a string cannot fail.
        let _ = writeln!(settings, "| `{name}` | {} | {wants} |", sysctl(name));
    }
    format!(
        "**Measured** (table below): the memory of the whole machine's kernel (`Slab` of `/proc/meminfo` and TCP's \
buffers) with 9,000 silent connections, once through elbows and once without a proxy. The difference is what elbows' two \
sockets of a tunnel take: **{kernel} bytes** of the kernel's memory. elbows itself takes **{process} bytes** and \
**{descriptors} descriptors** for each.

**Arithmetic** for a million tunnels:

| what | each | a million |
|---|---|---|
| the kernel's memory | {kernel} B | {kernel_gib} GiB |
| elbows' memory | {process} B | {process_gib} GiB |
| descriptors | {descriptors} | {all_descriptors} |
| Pings at the default of 50 s, if all are silent | | {pings} a second |

Buffers come on top for what is on its way and not yet read: `tcp_rmem` and `tcp_wmem` bound them for each socket, \
`tcp_mem` for all.

**Descriptors**: elbows raises its soft limit to the hard one, so that `--ulimit nofile=2100000:2100000` (Docker), \
`LimitNOFILE=2100000` (systemd) or `\"ulimits\"` of a task (ECS) is all that it needs; the kernel allows no more than \
`fs.nr_open`.

**Ports.** A connection from elbows to the application takes a port of this machine for each address and port of the \
application: with the range of this machine ({range}) that is **{ports} tunnels** to one of them, and the next \
gets 503. Several ways lead beyond, and they multiply:

- More addresses of the application. Each has the whole range for itself: a million tunnels take {endpoints}. elbows binds no \
source address, so that the kernel picks the port when it connects (connect(2)), and one port serves a connection to each address.
- A wider range: `net.ipv4.ip_local_port_range = 1024 65535` is {wide} ports, and a million tunnels take {wide_endpoints} addresses.
- More elbows, each in a network namespace (a container) with an address of its own, on one machine or on several.
- More source addresses on this machine. elbows does not bind one. A program that does has to set \
`IP_BIND_ADDRESS_NO_PORT` (ip(7)), or bind(2) takes the port for all destinations at once.

Towards elbows the ports are the load balancer's: its addresses times its ports must be a million and more, too.

**Kernel settings** (`sysctl`):

| setting | here | for a million |
|---|---|---|
{settings}
",
        kernel = number(kernel, 0),
        process = number(process, 0),
        descriptors = number(descriptors, 0),
        kernel_gib = gib(kernel),
        process_gib = gib(process),
        all_descriptors = number(descriptors * MILLION, 0),
        pings = number(MILLION / 50.0, 0),
        ports = number(ports, 0),
        endpoints = number(endpoints, 0),
        wide = number(wide, 0),
        wide_endpoints = number((MILLION / wide).ceil(), 0),
    )
}

/// How many ports a range `FIRST LAST` has.
fn ports(range: &str) -> f64 {
    let mut bounds = range.split(' ').filter_map(|word| word.parse::<f64>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) => last - first + 1.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn both_ends_of_a_range_count() {
        assert!((ports("32768 60999") - 28_232.0).abs() < 1e-9);
    }
}
