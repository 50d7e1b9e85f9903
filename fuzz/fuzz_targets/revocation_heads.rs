//! See [`peersock_fuzz_targets::revocation_heads`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::revocation_heads(data));
