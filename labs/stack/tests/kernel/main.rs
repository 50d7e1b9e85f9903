//! Tests of our TCP against Linux over a TUN device: every byte arrives, ends and resets are understood, and
//! the kernel counts no complaint.
//!
//! Every test creates a network namespace, which vanishes with the test. Without root and `/dev/net/tun`,
//! tests report that they are skipped. Nothing depends on speed.

mod bulk;
mod ends;
mod lab;
mod stop;
mod urgent;
mod window;
