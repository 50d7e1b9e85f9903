//! See [`peersock_fuzz_targets::rule_files`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::rule_files(data));
