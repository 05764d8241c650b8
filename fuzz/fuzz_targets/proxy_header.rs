//! Bytes at the start of a connection, through the PROXY parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| elbows::fuzzing::proxy_header(bytes));
