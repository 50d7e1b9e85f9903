//! See [`peersock_fuzz_targets::root_directory`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::root_directory(data));
