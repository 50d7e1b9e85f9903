//! See [`peersock_fuzz_targets::forward_places`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::forward_places(data));
