//! Gives libFuzzer's inputs to the target `pcap`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::pcap(data));
