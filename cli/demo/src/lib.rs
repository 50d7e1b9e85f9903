//! `peersock demo`: the whole path on one machine, measured and verified.
//!
//! The library is what the program `peersock` calls; the program `peersock-demo` has the demonstration alone.
//!
//! ```text
//!                    parent: starts both, passes the address on, prints the report
//!          stdin, stdout /                                     \ stdin, stdout
//!   server process ------ encrypted overlay on loopback (UDP) ------ client process
//! ```
//!
//! Both processes are nodes of their own with ephemeral identities and join the same ad-hoc network. They
//! find each other by discovery; the parent only tells the client which overlay address to ask for. A child
//! whose stdin ends has lost its parent, and ends too.

mod child;
mod content;
mod fetch;
mod parent;
mod report;
mod serve;
mod wire;

pub use fetch::{FetchArgs, run as fetch};
pub use parent::{Args, run};
pub use serve::{ServeArgs, run as serve};
