//! Bytes behind a 101, in any pieces, through the scanner.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| elbows::fuzzing::frames(bytes));
