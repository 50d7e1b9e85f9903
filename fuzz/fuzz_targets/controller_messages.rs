//! See [`peersock_fuzz_targets::controller_messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::controller_messages(data));
