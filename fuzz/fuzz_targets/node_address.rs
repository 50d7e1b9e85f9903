//! See [`peersock_fuzz_targets::node_address`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::node_address(data));
