//! Gives libFuzzer's inputs to the target `pcapng`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::pcapng(data));
