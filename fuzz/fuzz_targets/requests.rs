//! Bytes behind the PROXY header, through the reader of requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| elbows::fuzzing::requests(bytes));
