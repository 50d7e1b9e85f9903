//! See [`peersock_fuzz_targets::turn_frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peersock_fuzz_targets::turn_frames(data));
