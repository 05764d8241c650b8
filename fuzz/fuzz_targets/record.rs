//! Any bytes as the record of a tunnel.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| elbows::fuzzing::record(bytes));
