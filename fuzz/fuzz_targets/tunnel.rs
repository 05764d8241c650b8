//! What happens to the two sockets of a tunnel, in any order, to its state.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| elbows::fuzzing::tunnel(bytes));
