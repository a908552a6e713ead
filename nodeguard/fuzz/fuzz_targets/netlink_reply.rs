#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodeguard::nft::fuzz::netlink_reply(data));
