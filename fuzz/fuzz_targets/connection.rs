//! Any course of events, through the connection machine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| elbows::fuzzing::connection(bytes));
