//! Any bytes as what comes to the admin port.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| elbows::fuzzing::admin(bytes));
