//! `cargo xtask test`.

use crate::Result;
use clap::Args;

/// Shown by `--help`.
pub(crate) const EXAMPLES: &str = "";

/// Options of `test`.
#[derive(Args)]
pub(crate) struct Options {}

pub(crate) fn run(_: &Options) -> Result<bool> {
    Ok(true)
}
