//! The table of cells: two nodes, each connected in one of many ways, and two roots on the open Internet.
//!
//! Nothing else is common to these two: no LAN, no endpoint that one knows of the other. For every pair of
//! [`Kind`]s and every seed it is measured whether their programs can talk, over which path in the end, and
//! how soon ([`Outcome`]); what the boxes between them allow is said beforehand ([`Expected`]).
//! Other cells are of two nodes behind one box ([`Shared`], [`Together`]).
//! `cargo run --release -p peersock-sim -- cells` measures all, and writes `docs/CELLS.md`.

mod expectation;
mod home;
mod kind;
mod run;
mod shared;
mod table;

pub use expectation::Expected;
pub use kind::Kind;
pub use run::{Cell, Outcome, PathKind, Together};
pub use shared::{Shared, SharedBox};
pub use table::{Summary, Table};
