//! `peersock node`: the node that the programs of a user share.

mod about;
mod background;
mod events;
mod host;
mod networks;
mod notes;
mod program;
mod resets;
mod roots;
mod seat;
mod settings;

use peersock::state::{StateDir, StateError};
use peersock_attach::{Attached, Launch};

use crate::args::{NodeArgs, StateArgs};
use crate::failure::{Failure, Outcome};
use crate::output::escape;
use crate::running::RunningNode;
use crate::{in_use, log, stdio};
pub(crate) use host::{Beside, Host, start_node};
pub(crate) use program::used;
pub(crate) use seat::{connected, has_expired, seat_failure};

/// Keep the node that the programs of this user share
///
/// Programs under `peersock run` with the same state directory use this node, and so do `dial`, `listen`,
/// `forward`, `proxy`, `rest`, `ping` and `members`, and programs in C, Python, Go and Node.js that name the
/// directory: one identity, one set of addresses and names. It stays until Ctrl-C or SIGTERM; programs that
/// run then have no network. Without it, the first program starts a node in the background, which ends 5
/// seconds after the last (see --persist there).
///
/// Each program has the networks that it names, and sees no others.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock node                                     # in a terminal, or as a unit of systemd
  peersock node --root \"$(cat root.txt)\" --dht
  peersock run -n office.toml -- nginx              # in others: these share it
  peersock run -n office.toml -- redis-server
  peersock node --end                               # instead of waiting until it ends by itself")]
pub(crate) struct Args {
    #[command(flatten)]
    node: NodeArgs,

    /// End the node in the background that waits for the next program
    ///
    /// A node that programs use is not ended: the error names them, and the node ends after the last one.
    #[arg(long)]
    end: bool,

    /// Serve the program at the other end of stdin first, in the background, and end with the last program
    #[arg(long, hide = true)]
    background: bool,

    /// As --background, in the process that goes on
    #[arg(long, hide = true)]
    detached: bool,
}

/// Keeps the node.
pub(crate) fn run(args: &Args) -> Outcome {
    if args.node.state.ephemeral {
        return Err(Failure::usage(
            "a node with an ephemeral identity is not shared, because programs find it by its state directory",
            "leave --ephemeral out, or give --state DIR",
        ));
    }
    match (args.background, args.detached) {
        (true, _) => return background::start_detached(),
        (_, true) => return background::run(&args.node),
        _ => {}
    }
    if args.end {
        return end(&args.node.state);
    }
    let state = in_use::open(&args.node.state.path()?)?;
    let host = Host::start(args.node.named_settings()?, args.node.roots_with_tokens()?, state, None)?;
    stdio::note(format_args!("node {}: programs under `peersock run` share it", host.node_id()));
    host.serve()
}

/// Ends the node in the background, unless programs use it.
fn end(state: &StateArgs) -> Outcome {
    let path = state.path_to_ask()?;
    if !Attached::is_offered(&path) {
        stdio::note(format_args!("no node that programs share runs with {}", path.display()));
        return Ok(());
    }
    let holder = match StateDir::open(&path) {
        Ok(_) => {
            stdio::note("the node has ended");
            return Ok(());
        }
        Err(StateError::InUse { holder, .. }) => holder,
        Err(error) => return Err(error.into()),
    };
    let programs =
        RunningNode::find_quietly(state).map(|running| running.status.programs).unwrap_or_default();
    let named: Vec<_> =
        programs.iter().map(|one| format!("{} (process {})", escape(&one.name), one.process)).collect();
    let process = holder.map(|process| process.to_string()).unwrap_or_else(|| "PROCESS".to_owned());
    Err(match &named[..] {
        [] => Failure::new(
            "the node waits for no program: it stays until its own end",
            format_args!("end it with Ctrl-C where `peersock node` runs, or by `kill {process}`"),
        ),
        named => Failure::new(
            format_args!("programs use the node: {}", named.join(", ")),
            format_args!("end them first, or by `kill {process}` the node, after which they have no network"),
        ),
    })
}

/// Returns the command that starts a shared node in the background. It has the settings of the first message.
pub(crate) fn launch(args: &NodeArgs) -> Outcome<Launch> {
    let mut launch = Launch::new("/proc/self/exe".into(), &args.state.path()?);
    launch.arguments.extend((0..log::verbosity()).map(|_| "-v".into()));
    Ok(launch)
}
