#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| config::fuzz_parse(text));
