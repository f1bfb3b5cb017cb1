//! Whatever sources do, the scheduler of a fetch asks as it may, and all is stored in the end.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cordee_sim::fuzz::blocks(data));
