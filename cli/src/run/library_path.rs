//! `peersock run-library`: gives the preloaded library to launchers other than `peersock run`, such as that
//! of the Python package.

use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use super::library::Library;
use crate::failure::{Failure, Outcome};

/// What a launcher asks.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The version of the launcher's node: the library of another one may not understand it
    #[arg(value_parser = [env!("CARGO_PKG_VERSION")])]
    version: String,
}

/// Puts the library where programs can load it, and prints its path.
///
/// The file may be removed once it was not provided for a month, unless the launcher holds a shared lock
/// on it or a program has it loaded.
pub(crate) fn run(_: &Args) -> Outcome {
    let library = Library::provide_file()?;
    let line = [library.path().as_os_str().as_bytes(), b"\n"].concat();
    io::stdout().write_all(&line).map_err(Failure::output)
}
