//! See [`peersock_fuzz_targets::file_texts`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::file_texts(data));
