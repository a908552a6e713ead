#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodeguard::bpf::fuzz::frame(data));
