//! Gives libFuzzer's inputs to the target `session_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::session_messages(data));
