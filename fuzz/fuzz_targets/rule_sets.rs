//! See [`peersock_fuzz_targets::rule_sets`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::rule_sets(data));
