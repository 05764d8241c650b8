//! What an upstream says, through the reader of responses.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| elbows::fuzzing::responses(bytes));
