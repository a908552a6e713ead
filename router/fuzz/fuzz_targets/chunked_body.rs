#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| router::http1::fuzz::chunked_body(data));
