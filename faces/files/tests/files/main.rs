//! Receipts over streams that break, and with ends that lie.

mod common;
mod honest;
mod hostile;
mod interrupted;
mod patience;
mod private;
mod properties;
mod together;
