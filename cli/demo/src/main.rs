//! `peersock-demo`: the demonstration as a separate program, which builds much faster than the whole program.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use peersock_terminal::failure::{Failure, Outcome};
use peersock_terminal::log::{Note, SILENT, VARIABLE};
use peersock_terminal::{clock, output, style};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Demonstration of peersock: two processes on this machine find each other and talk.
#[derive(Parser)]
#[command(name = "peersock-demo", version, max_term_width = 100, styles = style::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Log to stderr: -v attempts and their results, -vv all decisions, -vvv every packet; PEERSOCK_LOG takes
    /// a filter instead
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
    // Starts the clock first, because the demonstration measures from the start of the process.
    clock::start();
    let outcome = Cli::try_parse().map_or_else(|answer| show(&answer), |cli| run(&cli));
    output::end(outcome)
}

/// Shows the parser's answer instead of running a command: an error, or the requested help.
fn show(answer: &clap::Error) -> Outcome {
    if !answer.use_stderr() {
        output::check_open()?;
    }
    let shown = answer.print().and_then(|()| io::stdout().flush());
    match answer.use_stderr() {
        true => Err(Failure::silent(2)),
        false => shown.map_err(Failure::output),
    }
}

fn run(cli: &Cli) -> Outcome {
    log_to_stderr(cli.verbose)?;
    match &cli.command {
        Command::Demo(args) => peersock_demo::run(args),
        Command::DemoServe(args) => peersock_demo::serve(args),
        Command::DemoFetch(args) => peersock_demo::fetch(args),
        Command::Other(words) => Err(is_elsewhere(words)),
    }
}

/// Returns a failure that names the whole program, which `cargo run` in the workspace's root does not build.
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

/// Logs as the whole program does, except that the variable's filter has only levels and targets.
fn log_to_stderr(verbose: u8) -> Outcome {
    let of_variable = env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let is_asked_for = of_variable.is_some() || verbose > 0;
    let targets: Targets = match (of_variable, verbose) {
        (Some(text), _) => text.parse().map_err(|error| {
            Failure::usage(
                format_args!("{VARIABLE} holds `{text}`, which is no filter: {error}"),
                "give a level (error, warn, info, debug, trace), or TARGET=LEVEL as in peersock_overlay=debug",
            )
        })?,
        (None, 0) => Targets::new().with_target("peersock", LevelFilter::WARN),
        (None, 1) => {
            Targets::new().with_default(LevelFilter::INFO).with_target("peersock_overlay", LevelFilter::DEBUG)
        }
        (None, 2) => Targets::new().with_default(LevelFilter::DEBUG),
        (None, _) => Targets::new().with_default(LevelFilter::TRACE),
    };
    let registry = tracing_subscriber::registry().with(targets.with_target(SILENT, LevelFilter::OFF));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(style::is_on(&io::stderr()));
    match is_asked_for {
        true => registry.with(lines).init(),
        false => registry.with(lines.event_format(Note)).init(),
    }
    Ok(())
}
