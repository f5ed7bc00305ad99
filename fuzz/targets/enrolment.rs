//! Gives libFuzzer's inputs to the target `enrolment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::enrolment(data));
