//! `peersock completions`

use std::io::{self, Write as _};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::Cli;
use crate::failure::{Failure, Outcome};

/// Print what a shell needs to complete this program's commands and options
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock completions bash > ~/.local/share/bash-completion/completions/peersock
  peersock completions zsh > ~/.zfunc/_peersock
  peersock completions fish > ~/.config/fish/completions/peersock.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Args) -> Outcome {
    let mut command = listed(&Cli::command());
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    io::stdout().write_all(&script).map_err(Failure::output)
}

/// The program without the commands that it has for itself and that its help does not list.
fn listed(program: &Command) -> Command {
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new(env!("CARGO_BIN_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments())
        .subcommands(commands)
}
