//! Node in the background, started by its first program.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use peersock::state::{StateDir, StateError};
use peersock_attach::{Connection, Reply, Setting, Wish};

use super::host::{Host, check_version, refusal};
use super::notes::Log;
use crate::args::NodeArgs;
use crate::failure::{Failure, Outcome};

/// Serves the program at standard input, and others, until the last one has ended.
pub(super) fn run(args: &NodeArgs) -> Outcome {
    peersock_socket_server::unblock_signals();
    // Descriptors that the program has inherited belong to its user.
    peersock_socket_server::leave_descriptors()?;
    // Fails only for the leader of a process group, which is no terminal's, either.
    let _ = rustix::process::setsid();
    let first = take_stdin()?;
    let log = Log::of_stderr()?;
    let first = Connection::new(first)?;
    // Before the answer also because closing with unread data would be a reset.
    let wish = first.wish()?;
    match start(args, &wish, log) {
        Ok(host) => host.serve_from(first, wish),
        Err(reply) => {
            let _ = first.send(&reply);
            Ok(())
        }
    }
}

/// Starts the node with the settings of its first program.
fn start(args: &NodeArgs, wish: &Wish, log: Log) -> Result<Host, Reply> {
    let refused = |failure| Reply::Refused(refusal(&failure));
    check_version(wish).map_err(refused)?;
    let path = args.state.path().map_err(refused)?;
    let state = StateDir::open(&path).map_err(|error| match error {
        StateError::InUse { holder, .. } => Reply::InUse { holder },
        error => refused(error.into()),
    })?;
    // The program's roots come with the program.
    let host = Host::start(settings(args, wish).map_err(refused)?, Vec::new(), state, Some(log));
    let host = host.map_err(refused)?;
    match args.roots_with_tokens() {
        Err(failure) if wish.lacks_roots => return Err(refused(failure)),
        // The first program has other roots, and has told what is wrong with these, if it has read them.
        roots => host.set_roots_of_user(roots.unwrap_or_default()),
    }
    // No program may keep a file system busy by having started the node.
    let _ = env::set_current_dir("/");
    Ok(host)
}

/// Returns the settings of the first program, and those of the user's file, which this process has read as
/// `args`, if the program has not read it.
fn settings(args: &NodeArgs, wish: &Wish) -> Outcome<Vec<Setting>> {
    let mut settings = wish.settings.clone();
    if wish.lacks_settings {
        let is_named = |one: &Setting| wish.settings.iter().any(|named| named.option == one.option);
        settings.extend(args.named_settings()?.into_iter().filter(|one| !is_named(one)));
    }
    Ok(settings)
}

/// Takes the connection at standard input, and leaves an empty file there.
fn take_stdin() -> Outcome<UnixStream> {
    let stdin = io::stdin();
    let first = stdin.as_fd().try_clone_to_owned()?;
    if rustix::net::sockopt::socket_type(&first) != Ok(rustix::net::SocketType::STREAM) {
        return Err(Failure::usage(
            "--background is for programs that start a node, with a socket as stdin",
            "leave it out",
        ));
    }
    rustix::stdio::dup2_stdin(File::open("/dev/null")?).map_err(io::Error::from)?;
    Ok(first.into())
}

/// Starts the process that belongs to no terminal and no program. It has this one's standard input.
pub(super) fn start_detached() -> Outcome {
    let arguments = env::args_os().skip(1).map(|word| match word == *"--background" {
        true => "--detached".into(),
        false => word,
    });
    let mut command = Command::new("/proc/self/exe");
    command.arg0("peersock").args(arguments).spawn()?;
    // Its parent ends now, so that no program waits for it.
    Ok(())
}
