//! `peersock-demo`: the demonstration as a program of its own, which builds in a fraction of the time that the
//! whole program takes.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use peersock_terminal::failure::{Failure, Outcome};
use peersock_terminal::{clock, output, signals, style};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The demonstration of peersock: two processes on this machine find each other and talk.
#[derive(Parser)]
#[command(name = "peersock-demo", version, max_term_width = 100, styles = style::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Log to stderr: -v what is tried, -vv all decisions, -vvv every packet
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    Demo(peersock_demo::Args),
    #[command(hide = true)]
    DemoServe(peersock_demo::ServeArgs),
    #[command(hide = true)]
    DemoFetch(peersock_demo::FetchArgs),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
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
            output::report(&failure);
            ExitCode::from(failure.status())
        }
    }
}

fn run(command: &Command) -> Outcome {
    match command {
        Command::Demo(args) => peersock_demo::run(args),
        Command::DemoServe(args) => peersock_demo::serve(args),
        Command::DemoFetch(args) => peersock_demo::fetch(args),
        Command::Other(words) => Err(is_elsewhere(words)),
    }
}

/// Leads to the whole program, which `cargo run` in the workspace's root does not build.
fn is_elsewhere(words: &[OsString]) -> Failure {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    Failure::usage(
        format_args!("`{}` is no part of the demonstration", words[0]),
        format_args!(
            "run `cargo run --release --package peersock-cli -- {}`, or install the whole program with `cargo \
             install --locked --path cli`",
            words.join(" ")
        ),
    )
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // The STUN library's spans hold keys, as in the whole program's log.
    let targets = Targets::new().with_default(level).with_target("stun_types", LevelFilter::OFF);
    let format =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(style::is_on(&io::stderr()));
    tracing_subscriber::registry().with(targets).with(format).init();
}
