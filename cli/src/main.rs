//! `peersock`: the program. It translates between the command line and the library, and holds no logic of
//! the overlay's own.
//!
//! One file per command; [`args`] and [`session`] hold what they share.

mod addr;
mod args;
mod clock;
mod datagrams;
mod demo;
mod dial;
mod failure;
mod id;
mod listen;
mod ping;
mod run;
mod session;
mod signals;
mod status;
mod stdio;
mod stream;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use failure::Outcome;

/// Encrypted peer-to-peer sockets: put programs on a private network by its ID.
#[derive(Parser)]
#[command(name = "peersock", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Log more to stderr: -v what happens, -vv why, -vvv every packet. PEERSOCK_LOG takes a filter instead.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

const AFTER_HELP: &str = "\
A NETWORK is 16 hexadecimal digits, or a TOML file for a static network:
  ffSSSSEEEE000000   ad-hoc: whoever knows the ID is in; TCP and UDP ports SSSS to EEEE (hex) are allowed
  office.toml        static: a file that lists members, their keys and addresses

Try it, in two terminals:
  peersock listen --ephemeral -n ff0001ffff000000 7000
  peersock dial --ephemeral -n ff0001ffff000000 '[ADDRESS THAT LISTEN PRINTED]:7000'

Exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C, 141 nobody reads the output any more.
Data goes to stdout, everything else to stderr.";

#[derive(Subcommand)]
enum Command {
    Id(id::Args),
    Addr(addr::Args),
    Listen(listen::Args),
    Dial(dial::Args),
    Ping(ping::Args),
    Run(run::Args),
    Status(status::Args),
    Demo(demo::Args),
    #[command(hide = true)]
    DemoServe(demo::ServeArgs),
    #[command(hide = true)]
    DemoFetch(demo::FetchArgs),
}

fn main() -> ExitCode {
    // First, because the demonstration measures from the start of the process.
    clock::start();
    let cli = Cli::parse();
    log_to_stderr(cli.verbose);
    let outcome = run(&cli.command);
    signals::leave_to_cleanup();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                stdio::note(&failure.message);
            }
            ExitCode::from(failure.status)
        }
    }
}

fn run(command: &Command) -> Outcome {
    match command {
        Command::Id(args) => id::run(args),
        Command::Addr(args) => addr::run(args),
        Command::Listen(args) => listen::run(args),
        Command::Dial(args) => dial::run(args),
        Command::Ping(args) => ping::run(args),
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::run(args),
        Command::Demo(args) => demo::run(args),
        Command::DemoServe(args) => demo::serve(args),
        Command::DemoFetch(args) => demo::fetch(args),
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("PEERSOCK_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.clone().render_help().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }
}
