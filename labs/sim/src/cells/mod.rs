//! The table of cells: two nodes, each connected in one of many ways, and two roots on the open Internet.
//!
//! The two nodes have nothing else in common: no LAN, and neither knows an endpoint of the other. For every
//! pair of [`Kind`]s and every seed, a run measures whether the nodes' programs can talk, over which path in
//! the end, and how soon ([`Outcome`]). [`Expected`] predicts what the boxes between them allow. Other cells
//! have two nodes behind one box ([`Shared`], [`Together`]). `cargo run --release -p peersock-sim -- cells`
//! measures all cells and writes `docs/measured/CELLS.md`.

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
