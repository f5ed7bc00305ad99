//! Gives libFuzzer's inputs to the target `batch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::batch(data));
