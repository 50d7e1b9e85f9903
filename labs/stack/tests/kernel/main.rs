//! Our TCP with the Linux kernel's at the other end of a TUN device: every byte arrives, ends and resets are
//! understood, and the kernel counts nothing against us.
//!
//! Every test makes a network namespace of its own, which vanishes with it. Root and `/dev/net/tun` are
//! needed; without them tests say that they are skipped. Nothing depends on how fast anything is.

mod bulk;
mod ends;
mod lab;
mod stop;
mod urgent;
mod window;
