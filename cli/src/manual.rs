//! `peersock man`

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::Cli;
use crate::failure::{Failure, Outcome};

/// Write the manual pages, one for each command
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder to write to, which is made if need be
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes the pages.
pub(crate) fn run(args: &Args) -> Outcome {
    let failed = |error| {
        Failure::new(
            format_args!("cannot write to {}: {error}", args.out.display()),
            "give a folder that can be written to with --out",
        )
    };
    fs::create_dir_all(&args.out).map_err(failed)?;
    // Without `help`, which says nothing that the pages do not say.
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &args.out).map_err(failed)
}
