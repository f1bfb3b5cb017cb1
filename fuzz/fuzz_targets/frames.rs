//! However a stream is cut into pieces, it gives the same frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cordee_core::fuzz::frames(data));
