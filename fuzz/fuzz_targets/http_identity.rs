//! See [`peersock_fuzz_targets::http_identity`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::http_identity(data));
