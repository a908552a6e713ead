#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| router::http1::fuzz::request_head(data));
