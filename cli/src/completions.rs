//! `peersock completions`

use std::io::{self, Write as _};

use clap::{Arg, Command, CommandFactory as _, ValueHint};
use clap_complete::Shell;

use crate::Cli;
use crate::failure::{Failure, Outcome};
use crate::output::check_open;

/// Print the completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock completions bash > ~/.local/share/bash-completion/completions/peersock
  peersock completions zsh > ~/.zfunc/_peersock
  peersock completions fish > ~/.config/fish/completions/peersock.fish")]
pub(crate) struct Args {
    /// Shell that reads the script
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Args) -> Outcome {
    let mut command = listed(&Cli::command());
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    if args.shell == Shell::Bash {
        script.extend(bash_additions(&command).into_bytes());
    }
    check_open()?;
    io::stdout().write_all(&script).map_err(Failure::output)
}

/// Returns the program without hidden commands.
fn listed(program: &Command) -> Command {
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new(env!("CARGO_BIN_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments())
        .subcommands(commands)
}

/// Returns completions that clap's bash script lacks, unlike those for zsh and fish: files as arguments, and
/// the program of `run` with its arguments.
fn bash_additions(program: &Command) -> String {
    let takes_value = |arg: &&Arg| !arg.is_positional() && arg.get_action().takes_values();
    let run = program.get_subcommands().filter(|command| command.get_name() == "run");
    let options = run.flat_map(Command::get_arguments).filter(takes_value);
    let options: Vec<_> = options
        .flat_map(|arg| {
            let short = arg.get_short().map(|short| format!("-{short}"));
            short.into_iter().chain(arg.get_long().map(|long| format!("--{long}")))
        })
        .collect();
    let takes_file =
        |command: &&Command| command.get_positionals().any(|arg| arg.get_value_hint() == ValueHint::AnyPath);
    let inner = program.get_subcommands().flat_map(|outer| {
        outer
            .get_subcommands()
            .filter(takes_file)
            .map(move |inner| format!("\"{} {}\"", outer.get_name(), inner.get_name()))
    });
    let files: Vec<_> = inner.collect();
    let outer = program.get_subcommands().filter(takes_file).map(Command::get_name);
    let outer: Vec<_> = outer.collect();
    include_str!("completions.bash")
        .replace("@OPTIONS@", &options.join("|"))
        .replace("@OUTER_FILES@", &outer.join("|"))
        .replace("@FILES@", &files.join("|"))
}
