//! See [`peersock_fuzz_targets::router_errors`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::router_errors(data));
