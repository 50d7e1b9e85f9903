//! `peersock demo`: the whole path on one machine, measured and verified.
//!
//! The program `peersock` calls this library; the program `peersock-demo` contains only the demonstration.
//!
//! ```text
//!                    parent: starts both, passes the address on, prints the report
//!          stdin, stdout /                                     \ stdin, stdout
//!   server process ------ encrypted overlay on loopback (UDP) ------ client process
//! ```
//!
//! Both processes are separate nodes with ephemeral identities and join the same ad-hoc network. They find
//! each other by discovery; the parent only tells the client the overlay address to contact. A child whose
//! stdin ends has lost its parent, and ends too.

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
