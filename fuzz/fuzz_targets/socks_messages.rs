//! See [`peersock_fuzz_targets::socks_messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::socks_messages(data));
