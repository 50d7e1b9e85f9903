//! See [`peersock_fuzz_targets::credentials`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::credentials(data));
