//! Gives libFuzzer's inputs to the target `aggregator`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::aggregator(data));
