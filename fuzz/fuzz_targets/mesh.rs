//! Servers stay consistent and bounded whatever a stranger among their peers says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cordee_sim::fuzz::mesh(data));
