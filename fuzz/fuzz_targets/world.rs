//! Whatever fails, once all is healed everyone agrees and nothing acknowledged is lost.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cordee_sim::fuzz::world(data));
