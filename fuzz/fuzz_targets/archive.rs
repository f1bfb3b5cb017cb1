//! Archives hold what a naive model says, whatever order entries, floors and questions come in.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cordee_sim::fuzz::archive(data));
