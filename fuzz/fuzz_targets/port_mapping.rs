//! See [`peersock_fuzz_targets::port_mapping`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::port_mapping(data));
