//! What idle tunnels cost, and that it is given back: measured as the kernel counts it, in a process
//! of its own, where nothing else takes memory.

use super::*;

/// Enough for the engine's own pages to weigh nothing, few enough for the descriptors: each takes
/// four.
const TUNNELS: usize = 4000;

/// "Hello", masked (RFC 6455, section 5.7).
const HELLO: [u8; 11] = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

#[test]
fn an_idle_tunnel_costs_512_bytes_at_most_and_gives_them_back() {
    const NAME: &str = "memory::an_idle_tunnel_costs_512_bytes_at_most_and_gives_them_back";
    if env::var_os(ALONE).is_none() {
        return in_a_process_of_its_own(NAME);
    }
    raise_descriptor_limit();
    let options = Options { ping_interval: Some(Duration::from_secs(50)), ..Options::default() };
    let threads = NonZeroUsize::new(2).unwrap();
    let relay = Workers::start(threads, &options, |tunnel, _, _| drop(tunnel)).unwrap();
    let mut ends = Vec::with_capacity(TUNNELS);
    let mut before = 0;
    for number in 0..TUNNELS {
        let (tunnel, far) = tunnel_with(Protocol::WebSocket, Vec::new(), Vec::new());
        relay.adopt(tunnel);
        (&far.client).write_all(&HELLO).unwrap();
        expect(&far.upstream, &HELLO);
        ends.push(far);
        // The first ones wake the threads.
        if number == TUNNELS / 10 {
            before = pss();
        }
    }
    let grown = pss().saturating_sub(before);
    drop(ends);
    until(|| relay.open() == 0);
    let after = pss();

    let each = grown / (TUNNELS - TUNNELS / 10);
    assert!(each <= 512, "{each} bytes each");
    let kept = after.saturating_sub(before);
    assert!(kept <= grown / 10, "grown by {grown} bytes, {kept} of them kept");
    println!("{each} bytes each, {kept} of {grown} kept");
    relay.stop();
}

/// Without the pages of files: those are the binary, and shared with other tests.
fn pss() -> usize {
    usize::try_from(anonymous_memory(getpid())).unwrap()
}
