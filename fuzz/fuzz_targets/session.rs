//! A server answers its clients as a naive model says, whatever they do.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cordee_sim::fuzz::session(data));
