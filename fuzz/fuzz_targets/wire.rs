//! Every message is refused, or means the same when it is written and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cordee_core::fuzz::wire(data));
