//! See [`peersock_fuzz_targets::dns_names`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::dns_names(data));
