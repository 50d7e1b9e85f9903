//! `peersock run`

mod broken_pipe;
mod children;
mod delivery;
mod filter;
mod guard;
mod mode;
mod program;
mod serving_node;
mod watch;

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use peersock::Network;
use peersock_bsd::elf;
use peersock_run_library::Library;
use peersock_seccomp::Supervisor;
use peersock_socket_server::{FdServer, Outstanding};

use self::children::{Ended, Requests};
use self::guard::Guard;
pub(crate) use self::guard::{Args as GuardArgs, run as guard};
use self::mode::{Mode, Taken};
use self::serving_node::ServingNode;
use self::watch::Watch;
use crate::args::{NetworksArgs, SharedNodeArgs};
use crate::failure::{Failure, Outcome};
use crate::managed;
use crate::open_network;
use crate::output;
use crate::secret::SECRET_VARIABLE;
use crate::stdio;

/// Run an unmodified program on a network
///
/// The program's TCP and UDP sockets to addresses of the network go through the overlay, all others to the
/// system as before. Peers reach sockets that listen without an address; --bind changes that. The program's
/// children are on the network too. Names of members are resolved.
///
/// A library that is loaded with the program takes its calls. Static programs and Go programs make system
/// calls themselves. They are reached by a filter with which the kernel asks about their socket calls
/// (seccomp), also if other programs start them; --mode selects one of the two ways. Programs that change
/// their user by a bit in the file system are refused. A program that turns out to run without the library,
/// for example because its environment was cleared, is ended with status 1.
///
/// The kernel refuses io_uring to the program and its children, because io_uring would bypass the networks.
/// For that they give up gaining privileges, so sudo does not work in them. --no-filter turns this off.
///
/// The command ends with the program's exit status, after its last child has ended and all sent data is
/// delivered. Signals are passed on to the program and, after it has ended, to its remaining children. After
/// a second signal, children that still run are left alone, without the network. If data cannot be delivered,
/// because a peer has vanished for 10 seconds or has reset the connection, a line says so and the status is
/// not 0. Another line reports data that was lost while the program ran, if a peer has reset an open
/// connection and no call has reported that. After SIGTERM or Ctrl-C, delivery takes at most 2 seconds, and
/// after a second signal no time.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock run -n ff0001ffff000000 -- curl 'http://[fd00:...]:8080/'
  peersock run -n office.toml -- python3 -m http.server 8080
  peersock run -n office.toml --bind 8080=both -- python3 -m http.server 8080
  peersock run -n office.toml --bind kernel --bind 5432=overlay -- postgres -D data
  peersock run -n office.toml --only -- ssh alpha
  peersock run -n office.toml -- ./server-written-in-go -listen :8080
  peersock run -n office.toml --mode seccomp --only -- sh -c 'busybox wget -O - http://10.77.0.1:8080/'")]
pub(crate) struct Args {
    #[command(flatten)]
    networks: NetworksArgs,

    #[command(flatten)]
    node: SharedNodeArgs,

    /// Way in which socket calls are taken
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,

    /// Refuse addresses outside the networks, this machine's own included
    ///
    /// Programs that cannot be reached are refused these addresses, too.
    #[arg(long)]
    only: bool,

    /// Do not filter system calls: sudo works, and io_uring bypasses the networks
    #[arg(long, conflicts_with = "only")]
    no_filter: bool,

    /// Place where sockets without an address are reached: overlay, kernel (the machine's own network), or
    /// both; may be repeated
    ///
    /// PORT=overlay, PORT=kernel and PORT=both set it for one port.
    #[arg(long, value_name = "WHERE", value_parser = parse_bind)]
    bind: Vec<String>,

    /// Do not print the program's address
    #[arg(short, long)]
    quiet: bool,

    /// Program and its arguments
    #[arg(
        trailing_var_arg = true,
        required = true,
        value_name = "PROGRAM",
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    program: Vec<OsString>,
}

/// Parses `SIDE` or `PORT=SIDE`, and returns a rule for the preloaded library.
fn parse_bind(text: &str) -> Result<String, String> {
    let (port, side) = text.split_once('=').map_or((None, text), |(port, side)| (Some(port), side));
    if !matches!(side, "overlay" | "kernel" | "both") {
        return Err(format!(
            "`{side}` is none of overlay, kernel and both; give one, or a port with one, such as 8080=both"
        ));
    }
    match port.map(str::parse::<u16>) {
        None => Ok(format!("bind={side}")),
        Some(Ok(port)) => Ok(format!("{port}={side}")),
        Some(Err(_)) => Err(format!("`{text}` does not begin with a port from 0 to 65535, as in 8080=both")),
    }
}

/// Runs the program.
pub(crate) fn run(args: &Args) -> Outcome {
    if args.only && args.bind.iter().any(|rule| rule.ends_with("=both")) {
        return Err(Failure::usage(
            "--only restricts the program to the overlay, so it conflicts with --bind both",
            "leave one of them out",
        ));
    }
    check_proc()?;
    let library = Library::provide().map_err(|error| {
        Failure::new(format_args!("{error}"), "name a folder that can be written to in XDG_CACHE_HOME")
    })?;
    let (path, reach) = program::check(Path::new(&args.program[0]))?;
    let is_notified = args.mode.is_notified(args, &path, reach)?;
    let preloads = args.mode.preloads(reach);
    let networks = args.networks.resolve_for(&args.node, &args.node.state)?;
    let node = ServingNode::start(args, networks.clone())?;
    for network in &networks {
        // The program decides by itself what it does without a network.
        managed::on_removal(network.id(), |failure| stdio::note(managed::told(&failure)))?;
    }
    if !args.quiet {
        open_network::tell(&networks);
    }
    output::leave_closed()?;
    let mut command = Command::new(&path);
    command.arg0(&args.program[0]).args(&args.program[1..]);
    broken_pipe::keep(&mut command);
    hide_secret(&mut command, &networks);
    command.env_remove(managed::INVITE_VARIABLE);
    let Taken { filter, supervisor } =
        args.mode.prepare(args, (is_notified, preloads), &mut command, &node, &library)?;
    let requests = Requests::default();
    let guard = Guard::start(&node);
    let mut watch = None;
    let guarding = guard.as_ref().map(Guard::id);
    let Ended { status, left } =
        children::run(command, filter, &requests, guarding, args.quiet, |program| {
            // Raises the limit only now, because the program must get the limit that its user has set.
            FdServer::raise_descriptor_limit();
            if !is_notified {
                let supervised = supervisor.as_ref().map(Supervisor::supervised).unwrap_or_default();
                let watching = Watch::start(program, library.name(), supervised, node.contacts(&requests));
                watch = Some(watching.map_err(|error| refused("pidfd_open", error))?);
            }
            Ok(())
        })?;
    match guard {
        Some(guard) if left.is_empty() => guard.dismiss(),
        // The guard closes the sockets of programs that run on.
        Some(guard) => guard.leave(),
        None => {}
    }
    let is_reached = is_notified || watch.is_some_and(|watch| watch.finish(&path));
    drop(supervisor);
    let (outstanding, was_lost) = (delivery::deliver(&node, &requests), node.was_lost());
    node.end(!left.is_empty(), &requests);
    let Some(outstanding) = outstanding else {
        // A note has said so while the program ran.
        if was_lost {
            return Err(Failure::silent(status.max(1)));
        }
        return Err(Failure::with_status(
            status.max(1),
            format_args!(
                "the node that programs share has ended, or does not answer, before everything that {} has sent \
                 was delivered",
                path.display()
            ),
            "check what the other side has received, and send again",
        ));
    };
    // Only a note: the program went on after the loss, as with the kernel, and its exit status decides.
    if outstanding.lost_before > 0 {
        let what = lost(outstanding.lost_before_bytes);
        let reset = "a peer had reset the connection, and no call has told the program";
        stdio::note(format!("{what} of what {} has sent: {reset}", path.display()));
    }
    match (status, loss(&path, &outstanding)) {
        _ if !is_reached => Err(Failure::silent(1)),
        _ if !left.is_empty() => Err(Failure::with_status(
            status.max(1),
            format_args!("left running, without the network: {}", children::describe(&left)),
            "stop them with `kill`, or with `kill -9` if they ignore that",
        )),
        (0, None) => Ok(()),
        (status, None) => Err(Failure::silent(status)),
        (status, Some(loss)) => Err(Failure::with_status(
            status.max(1),
            format_args!("{loss}"),
            "check with `peersock ping` that the peer runs, and look for its messages about the end of the \
             connection",
        )),
    }
}

/// Checks that /proc shows this process, because it is read later to see if the program has loaded the
/// library. Without it, the errors would look like missing files and old kernels.
fn check_proc() -> Outcome {
    Path::new("/proc/self/fd").metadata().map(drop).map_err(|error| {
        Failure::new(
            format_args!(
                "/proc is not mounted here, or for other processes than this one: /proc/self/fd: {error}"
            ),
            "mount it (`mount -t proc proc /proc`), in a chroot or sandbox too (bwrap: --proc /proc), \
             because `peersock run` checks the program there; `peersock dial` and `peersock listen` do not \
             need it",
        )
    })
}

/// Returns the reason why part of the program's data did not arrive; `None` if all did.
fn loss(path: &Path, left: &Outstanding) -> Option<String> {
    let bytes = left.waiting + left.lost_bytes;
    if (bytes, left.lost) == (0, 0) {
        return None;
    }
    let what = lost(bytes);
    let why = if left.waiting > 0 {
        "the peer does not answer, or does not take them"
    } else {
        "the peer has reset the connection"
    };
    Some(format!("{what} of what {} has sent: {why}", path.display()))
}

fn lost(bytes: u64) -> String {
    match bytes {
        0 => "a peer may not have read everything".to_owned(),
        bytes => format!("{bytes} bytes were not delivered"),
    }
}

/// Names the system calls that a container may forbid, because the bare error looks like one of a file.
fn refused(calls: &str, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => Failure::new(
            format_args!("the system does not let us call {calls}: {error}"),
            "allow that in the container's profile of system calls (Docker: --security-opt seccomp=unconfined)",
        ),
        _ => error.into(),
    }
}

/// Hides the passphrase from the program by an empty one, with which peersock commands that the program
/// starts fail. Without the variable they would silently join a network without a passphrase, open to
/// everyone.
fn hide_secret(command: &mut Command, networks: &[Network]) {
    let is_used = networks.iter().any(|network| network.is_secret() && !network.summary().by_file);
    match is_used || env::var_os(SECRET_VARIABLE).is_some() {
        true => command.env(SECRET_VARIABLE, ""),
        false => command.env_remove(SECRET_VARIABLE),
    };
}

fn rules(args: &Args) -> String {
    let only = args.only.then(|| "only".to_owned());
    only.into_iter().chain(args.bind.iter().cloned()).collect::<Vec<_>>().join(",")
}

/// Returns the libraries to preload. This library is first, because it must take calls before others do,
/// except that a sanitizer must precede it.
fn preload(library: &Path, others: Option<OsString>) -> OsString {
    let own = library.as_os_str().to_owned();
    let Some(others) = others.filter(|others| !others.is_empty()) else { return own };
    let has_sanitizer = elf::preloaded(others.as_bytes()).any(elf::is_sanitizer);
    let (mut libraries, last) = if has_sanitizer { (others, own) } else { (own, others) };
    libraries.push(":");
    libraries.push(last);
    libraries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_the_system_forbids_is_named() {
        let forbidden = refused("pidfd_open", rustix::io::Errno::PERM.into());
        assert!(forbidden.message().contains("pidfd_open"), "{forbidden}");
        assert!(forbidden.hint().is_some_and(|hint| hint.contains("container")), "{forbidden}");
        let short = refused("pidfd_open", rustix::io::Errno::MFILE.into());
        assert!(!short.message().contains("pidfd_open"), "{short}");
    }

    #[test]
    fn only_a_sanitizer_is_loaded_before_our_library() {
        let order = |others: &str| preload(Path::new("/ours.so"), Some(others.into()));
        assert_eq!(preload(Path::new("/ours.so"), None), "/ours.so");
        assert_eq!(order(""), "/ours.so");
        assert_eq!(order("/a.so:/b.so"), "/ours.so:/a.so:/b.so");
        assert_eq!(order("/usr/lib/libasan.so.8 /b.so"), "/usr/lib/libasan.so.8 /b.so:/ours.so");
    }

    #[test]
    fn rules_are_understood_or_refused() {
        assert_eq!(parse_bind("kernel"), Ok("bind=kernel".into()));
        assert_eq!(parse_bind("80=overlay"), Ok("80=overlay".into()));
        assert_eq!(parse_bind("80=both"), Ok("80=both".into()));
        for text in ["", "neither", "80", "none=both", "x=kernel", "80=", "65536=kernel"] {
            parse_bind(text).unwrap_err();
        }
    }
}
