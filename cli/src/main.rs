//! `peersock`: the program. It translates between the command line and the library, and contains no logic of
//! the overlay.
//!
//! One file per command; [`args`] and [`session`] hold what they share.

mod addr;
mod admission;
mod args;
mod arrivals;
mod asked_node;
mod attachment;
mod background;
mod clients;
mod completions;
mod config;
mod datagrams;
mod dial;
mod duplicate_networks;
mod events;
mod exec;
mod files;
mod forward;
mod id;
mod in_use;
mod line_limit;
mod listen;
mod log;
mod managed;
mod manual;
mod member;
mod members;
mod names;
mod netcheck;
mod network;
mod nickname_limits;
mod node;
mod open;
mod open_network;
mod path;
mod ping;
mod progress;
mod proxy;
mod qr;
mod reach;
mod receipt;
mod receive;
mod receive_members;
mod rest;
mod retries;
mod root;
mod root_controller;
mod root_line;
mod root_look;
mod root_watch;
mod run;
mod running;
mod secret;
mod send;
mod send_member;
mod servers;
mod serving;
mod session;
mod share;
mod shared;
mod silence;
mod sockets;
mod standing;
mod status;
mod stdio;
mod stream;
mod tickets;
mod top;
mod unanswered;
mod up;
mod usage;
mod waiting;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use peersock_demo as demo;
use peersock_terminal::{clock, failure, output, signals, style};

use failure::{Failure, Outcome};

/// Encrypted peer-to-peer sockets: put programs on a private network by its ID.
#[derive(Parser)]
#[command(name = "peersock", version, after_help = AFTER_HELP, max_term_width = 100, styles = style::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Log to stderr: -v attempts and their results (interfaces, ports, beacons, endpoints, answers), -vv all
    /// decisions, -vvv every packet; PEERSOCK_LOG takes a filter instead
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

const AFTER_HELP: &str = "\
A NETWORK is 16 hexadecimal digits, or a TOML file for a static network:
  ffSSSSEEEE000000   ad-hoc: everybody can join unless it has a passphrase; TCP and UDP ports SSSS to EEEE (hex)
  office.toml        static: a file that lists members, their keys and addresses; `peersock network new` makes one
Environment variables hold defaults of options: PEERSOCK_NETWORK of -n, PEERSOCK_STATE of --state, PEERSOCK_ROOTS of
--root, PEERSOCK_DHT of --dht, PEERSOCK_TURN of --turn, PEERSOCK_STUN of --stun (HOST:PORT, separated by spaces),
PEERSOCK_BUSY_POLL of --busy-poll, PEERSOCK_INTERFACE of --interface (separated by commas), PEERSOCK_OWN_NODE of
--own-node, PEERSOCK_AS of --as, PEERSOCK_PERSIST of --persist. PEERSOCK_SECRET holds a passphrase, PEERSOCK_TICKET a ticket.
PEERSOCK_INVITE has an invite, by which run, listen, dial, forward, proxy, rest, send and receive join first; without
-n they use its network.
~/.config/peersock/config.toml holds defaults that variables replace, and names for networks (docs/reference/SETTINGS.md);
PEERSOCK_CONFIG has another path of this file, and empty has it left out.

Try it, in two terminals:
  peersock listen --ephemeral -n ff0001ffff000000 7000
  peersock dial --ephemeral -n ff0001ffff000000 '[ADDRESS THAT LISTEN PRINTED]:7000'

Exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C, 143 by SIGTERM, 141 the reader
of the output is gone. `run` ends with its program's status.
Data goes to stdout, everything else to stderr.";

#[derive(Subcommand)]
enum Command {
    Id(id::Args),
    Addr(addr::Args),
    Network(network::Args),
    Join(managed::JoinArgs),
    Leave(managed::LeaveArgs),
    Networks(managed::NetworksArgs),
    Why(managed::WhyArgs),
    Controller(managed::ControllerArgs),
    Listen(listen::Args),
    Dial(dial::Args),
    Ping(ping::Args),
    Run(run::Args),
    Proxy(proxy::Args),
    Forward(forward::Args),
    Share(share::Args),
    Open(open::Args),
    Send(send::Args),
    Receive(receive::Args),
    Rest(rest::Args),
    Root(root::Args),
    Up(up::Args),
    Node(node::Args),
    #[command(hide = true)]
    RunGuard(run::GuardArgs),
    Status(status::Args),
    Top(top::Args),
    Events(events::Args),
    Members(members::Args),
    Netcheck(netcheck::Args),
    Demo(demo::Args),
    Completions(completions::Args),
    Man(manual::Args),
    #[command(hide = true)]
    DemoServe(demo::ServeArgs),
    #[command(hide = true)]
    DemoFetch(demo::FetchArgs),
}

fn main() -> ExitCode {
    // Starts the clock first, because the demonstration measures from the start of the process.
    clock::start();
    output::end(start())
}

/// Parses the command line, and runs its command. A negative number counts as a value, so that its option
/// reports the error.
fn start() -> Outcome {
    let program = with_negative_numbers(Cli::command());
    let parsed = match program.clone().try_get_matches() {
        Ok(matches) => match config::apply(program, &matches)? {
            Some(mut program) => program.try_get_matches_from_mut(std::env::args_os()),
            None => Ok(matches),
        },
        Err(answer) => Err(answer),
    };
    let noted = parsed.inspect(args::note_state);
    match noted.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => run(&cli).map_err(config::with_origin),
        Err(answer) => show(&answer),
    }
}

fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let takes_one = |argument: &clap::Arg| argument.get_action().takes_values();
    let command = command.mut_args(|argument| match takes_one(&argument) {
        true => argument.allow_negative_numbers(true),
        false => argument,
    });
    command.mut_subcommands(with_negative_numbers)
}

/// Shows the parser's answer instead of running a command: an error, or the requested help.
fn show(answer: &clap::Error) -> Outcome {
    if answer.use_stderr() {
        usage::report(answer, &Cli::command(), std::env::args_os());
        return Err(Failure::silent(2));
    }
    output::check_open()?;
    answer.print().and_then(|()| io::stdout().flush()).map_err(Failure::output)
}

fn run(cli: &Cli) -> Outcome {
    log::to_stderr(cli.verbose)?;
    match &cli.command {
        Command::Id(args) => id::run(args),
        Command::Addr(args) => addr::run(args),
        Command::Network(args) => network::run(args),
        Command::Join(args) => managed::join(args),
        Command::Leave(args) => managed::leave(args),
        Command::Networks(args) => managed::networks(args),
        Command::Why(args) => managed::why(args),
        Command::Controller(args) => managed::serve(args),
        Command::Listen(args) => listen::run(args),
        Command::Dial(args) => dial::run(args),
        Command::Ping(args) => ping::run(args),
        Command::Run(args) => run::run(args),
        Command::Proxy(args) => proxy::run(args),
        Command::Forward(args) => forward::run(args),
        Command::Share(args) => share::run(args),
        Command::Open(args) => open::run(args),
        Command::Send(args) => send::run(args),
        Command::Receive(args) => receive::run(args),
        Command::Rest(args) => rest::run(args),
        Command::Root(args) => root::run(args),
        Command::Up(args) => up::run(args),
        Command::Node(args) => node::run(args),
        Command::RunGuard(args) => run::guard(args),
        Command::Status(args) => status::run(args),
        Command::Top(args) => top::run(args),
        Command::Events(args) => events::run(args),
        Command::Members(args) => members::run(args),
        Command::Netcheck(args) => netcheck::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => manual::run(args),
        Command::DemoServe(args) => demo::serve(args),
        Command::DemoFetch(args) => demo::fetch(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The last keepalive may be sent just before the timeout, and its interval is a ninth of that.
    #[test]
    fn dial_and_listen_give_up_a_silent_peer_within_thirty_seconds() {
        let cli = Cli::command();
        for name in ["dial", "listen"] {
            let command = cli.find_subcommand(name).expect("a command");
            let find = |argument: &&clap::Arg| argument.get_id() == "peer_timeout";
            let argument = command.get_arguments().find(find).expect("an argument");
            let seconds: f64 = argument.get_default_values()[0].to_str().unwrap().parse().unwrap();
            assert!(seconds > 0.0 && seconds * 10.0 / 9.0 <= 30.0, "{name}: {seconds}");
        }
    }

    #[test]
    fn every_command_shows_examples() {
        for command in commands() {
            let help = command.clone().render_help().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }

    #[test]
    fn the_options_of_a_command_precede_those_of_its_node() {
        let mut seen = 0;
        for mut command in commands() {
            let help = command.render_long_help().to_string();
            let Some((own, of_node)) = help.split_once("\nOptions of the node:\n") else { continue };
            seen += 1;
            let name = command.get_name();
            assert!(own.contains("\nOptions:\n"), "{name}: {help}");
            let options = of_node.lines().map(str::trim_start).filter(|line| line.starts_with("--"));
            let options: Vec<_> = options.filter_map(|line| line.split([' ', '[']).next()).collect();
            // Its identity comes first, which commands for tickets lack, and those of a shared node last.
            let has_state = options.starts_with(&["--state", "--ephemeral"]);
            let is_shared = options.ends_with(&["--own-node", "--as", "--persist"]);
            let count = 11 + if has_state { 2 } else { 0 } + if is_shared { 3 } else { 0 };
            assert_eq!(options.len(), count, "{name}: {options:?}");
            assert!(has_state || matches!(name, "share" | "open"), "{name}: {options:?}");
            for option in ["--state <", "--ephemeral\n", "--no-portmap"] {
                assert!(!own.contains(option), "{name}: {option}");
            }
        }
        assert!(seen >= 9, "{seen}");
    }

    /// The top of a help says which network is used, and then what the command does there.
    #[test]
    fn the_options_of_a_command_precede_those_that_all_commands_have() {
        for mut command in commands() {
            let help = command.render_long_help().to_string();
            let names = |heading: &str| {
                let (_, options) = help.split_once(&format!("\n{heading}:\n"))?;
                let lines = options.lines().take_while(|line| line.is_empty() || line.starts_with(' '));
                let names = lines.filter_map(|line| {
                    let option = line.trim_start().split(", ").find(|part| part.starts_with("--"))?;
                    line.trim_start().starts_with('-').then(|| option.split([' ', '[', '.']).next())?
                });
                Some(names.map(str::to_owned).collect::<Vec<_>>())
            };
            let name = command.get_name();
            let own = names("Options").unwrap_or_default();
            assert!(own.ends_with(&["--help".to_owned()]), "{name}: {own:?}");
            let headings = help.lines().filter(|line| line.starts_with("Options")).count();
            assert!(
                headings <= 2 && (headings == 1) == names(args::NODE_HEADING).is_none(),
                "{name}: {help}"
            );
            // A command that asks or changes a node by its directory has that after its own options.
            let place = |option: &str| own.iter().position(|one| one == option);
            let last_own = own
                .iter()
                .rposition(|one| !matches!(&one[..], "--state" | "--ephemeral" | "--verbose" | "--help"));
            if let (Some(state), Some(last_own)) = (place("--state"), last_own) {
                assert!(state > last_own, "{name}: {own:?}");
            }
        }
    }

    #[test]
    fn every_help_that_takes_a_network_s_file_says_how_to_make_one() {
        let mut seen = 0;
        for mut command in commands() {
            let help =
                command.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            if help.contains("TOML file") {
                seen += 1;
                assert!(help.contains("peersock network new"), "{}", command.get_name());
                assert!(help.contains("docs/use/NETWORKS.md"), "{}", command.get_name());
            }
            if command.get_arguments().any(|argument| argument.get_long() == Some("network")) {
                assert!(help.contains("[env: PEERSOCK_NETWORK]"), "{}", command.get_name());
            }
            if command.get_arguments().any(|argument| argument.get_long() == Some("interface")) {
                assert!(help.contains("[env: PEERSOCK_INTERFACE]"), "{}", command.get_name());
            }
            if command.get_arguments().any(|argument| argument.get_long() == Some("state")) {
                assert!(help.contains("[env: PEERSOCK_STATE]"), "{}", command.get_name());
            }
        }
        assert!(seen >= 6, "{seen}");
    }

    /// Returns the visible commands and their subcommands.
    fn commands() -> Vec<clap::Command> {
        let mut found: Vec<_> = Cli::command().get_subcommands().cloned().collect();
        let inner: Vec<_> = found.iter().flat_map(clap::Command::get_subcommands).cloned().collect();
        found.extend(inner);
        found.retain(|command| !command.is_hide_set());
        found
    }
}
