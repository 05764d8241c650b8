//! A request and a response, in any pieces, through the connection machine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| elbows::fuzzing::exchange(bytes));
