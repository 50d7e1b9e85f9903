//! `PEERSOCK_INVITE` of commands that use a network: the machine joins first, as in a container.

use std::env;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use peersock::overlay::membership::MemberName;
use peersock::settings::{LABEL_VARIABLE, TURN_VARIABLE};
use peersock::{Invite, NetworkId};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

use crate::args::{OWN_NODE, StateArgs, UnderlayArgs};
use crate::failure::{Failure, Outcome};
use crate::log;

/// Environment variable with an invite, a file that has one, or the ID of a network. It is a secret.
pub(crate) const INVITE_VARIABLE: &str = "PEERSOCK_INVITE";

/// Longest wait, as of `join --wait`.
const WAIT: &str = "60s";

/// Returns the network that the variable leads to, with the name that an invite suggests for it, if the
/// variable is set.
pub(crate) fn invited() -> Outcome<Option<(NetworkId, Option<MemberName>)>> {
    match env::var(INVITE_VARIABLE).ok().filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) if text == "-" => Err(Failure::usage(
            format_args!("{INVITE_VARIABLE} is `-`, and stdin belongs to the command"),
            "give the invite in it, or a file that has one",
        )),
        Some(text) => {
            let described = super::join::described(&text);
            let of_invite = |invite: Option<Invite>| invite.and_then(|invite| invite.name().cloned());
            described
                .map(|(id, invite)| Some((id, of_invite(invite))))
                .map_err(|failure| failure.and([format!("correct or unset {INVITE_VARIABLE}")]))
        }
    }
}

/// Joins by the variable, which leads to `network`. Another process does so: its threads and signals do not
/// outlast it, and it reads nothing.
pub(crate) fn join_invited(network: NetworkId, node: &UnderlayArgs, state: &StateArgs) -> Outcome {
    if state.ephemeral {
        return Err(Failure::usage(
            format_args!(
                "{INVITE_VARIABLE} is for a machine that is found again, and --ephemeral forgets it"
            ),
            "leave --ephemeral out, or give --state DIR",
        ));
    }
    tracing::info!(%network, "joins by {INVITE_VARIABLE}");
    let mut named = std::ffi::OsString::from("--state=");
    named.push(state.path()?);
    let mut command = Command::new("/proc/self/exe");
    command.arg0("peersock").args(["join", "--wait", WAIT]).arg(named).args(node.as_arguments());
    command.args((0..log::verbosity()).map(|_| "-v"));
    // The command's own node ends with it, unless one runs here already.
    command.env(OWN_NODE.1, "1").env_remove(LABEL_VARIABLE);
    if let Some(turn) = node.turn_as_variable() {
        command.env(TURN_VARIABLE, turn.as_str());
    }
    // What it prints is no output of this command.
    let stdout = io::stderr().as_fd().try_clone_to_owned()?;
    end_with_this(&mut command);
    let status = command.stdin(Stdio::null()).stdout(stdout).status()?;
    match status.success() {
        true => Ok(()),
        // It has said why.
        false => Err(Failure::silent(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1))),
    }
}

/// Makes a command get SIGTERM when this process ends, so that nothing of a command that was ended goes on.
#[allow(unsafe_code)]
fn end_with_this(command: &mut Command) {
    let own = getpid();
    let prepare = move || {
        // The calling thread waits for the command, so it ends with the process alone.
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // The process may have ended before.
        if getppid() == Some(own) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: the closure makes two system calls, takes no lock and allocates nothing, as signal-safety(7)
    // demands after a fork.
    unsafe { command.pre_exec(prepare) };
}
