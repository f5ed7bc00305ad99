//! Gives libFuzzer's inputs to the target `compressed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::compressed(data));
