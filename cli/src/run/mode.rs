//! Interception of the program's socket calls: by a preloaded library, or by seccomp notifications.

use std::env;
use std::io;
use std::path::Path;
use std::process::Command;

use peersock_bsd::Rules;
use peersock_run_library::Library;
use peersock_seccomp::Supervisor;

use super::children::Filter;
use super::program::{Bypass, Reach};
use super::serving_node::ServingNode;
use super::{Args, preload, rules};
use crate::failure::{Failure, Outcome};
use crate::stdio;

/// Value of `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Mode {
    /// Use seccomp for programs that are linked statically, written in Go, or built with AddressSanitizer,
    /// and preload for all others
    Auto,
    /// Load a library with the program; refuse programs that cannot load it
    Preload,
    /// Let the kernel ask about each socket call, of any program
    Seccomp,
}

/// The handlers of the program's calls, while it runs.
pub(super) struct Taken {
    pub(super) filter: Filter,
    /// Supervisor of programs that the preloaded library cannot reach but its programs start.
    pub(super) supervisor: Option<Supervisor>,
}

impl Mode {
    /// Returns true if seccomp notifications are used.
    /// Fails if the program cannot be reached in this mode.
    pub(super) fn is_notified(self, args: &Args, path: &Path, reach: Reach) -> Outcome<bool> {
        let notified = match (self, reach) {
            (Self::Auto | Self::Preload, Reach::Library) => false,
            (Self::Auto, Reach::Kernel(_)) | (Self::Seccomp, _) => true,
            (Self::Preload, Reach::Kernel(bypass)) => return Err(passed_by(path, bypass)),
        };
        if notified && args.no_filter {
            let why = match reach {
                Reach::Kernel(bypass) => bypass.text(),
                Reach::Library => "runs in seccomp mode",
            };
            return Err(Failure::usage(
                format_args!(
                    "{} {why}, and its socket calls are taken by filtering its system calls",
                    path.display()
                ),
                "leave --no-filter out",
            ));
        }
        Ok(notified)
    }

    /// Returns true if programs that the library cannot reach are admitted to a supervisor. With --only the
    /// filter denies them sockets instead; under notifications they inherit them.
    fn admits(self, args: &Args, is_notified: bool) -> bool {
        self == Self::Auto && !is_notified && !args.no_filter && !args.only
    }

    /// Returns true if the library is preloaded into the program, or at least into its descendants.
    pub(super) fn preloads(self, reach: Reach) -> bool {
        self != Self::Seccomp && reach != Reach::Kernel(Bypass::Sanitizer)
    }

    /// Prepares the program's environment and the handlers of its calls.
    pub(super) fn prepare(
        self,
        args: &Args,
        (is_notified, preloads): (bool, bool),
        command: &mut Command,
        node: &ServingNode,
        library: &Library,
    ) -> Outcome<Taken> {
        let admits = self.admits(args, is_notified);
        if preloads {
            // Set for static programs, too, because they may start programs that load the library.
            command.env(peersock_socket_server::ENVIRONMENT, node.environment());
            let mut words = rules(args);
            if admits {
                words.push_str(",admits");
            }
            command.env("PEERSOCK_RULES", words);
            command.env("LD_PRELOAD", preload(library.path(), env::var_os("LD_PRELOAD")));
        }
        if !is_notified {
            let filter = match (args.no_filter, args.only) {
                (true, _) => Filter::None,
                (false, false) => Filter::Bypasses,
                (false, true) => Filter::Internet,
            };
            let supervisor = admits.then(|| supervise_others(args, node, library)).transpose();
            let supervisor = supervisor.unwrap_or_else(|error| {
                say_not_admitted(&error);
                None
            });
            return Ok(Taken { filter, supervisor });
        }
        // The supervisor handles calls that make connections, not calls that use them.
        node.note_unseen_calls();
        let client = node.client()?;
        let library = preloads.then(|| library.name().to_owned());
        let mut supervisor =
            Supervisor::new(Rules::new(client, &rules(args)), library).map_err(not_supervised)?;
        Ok(Taken { filter: Filter::Notified(supervisor.filter()), supervisor: Some(supervisor) })
    }
}

/// Creates the supervisor of descendants that the library cannot reach.
fn supervise_others(args: &Args, node: &ServingNode, library: &Library) -> io::Result<Supervisor> {
    let rules = Rules::new(node.client()?, &rules(args));
    let supervisor = Supervisor::new(rules, Some(library.name().to_owned()))?;
    supervisor.admit()?;
    node.note_unseen_calls();
    Ok(supervisor)
}

/// Warns about programs that the library cannot reach, with a remedy.
fn say_not_admitted(error: &io::Error) {
    const EFFECT: &str = "static programs and those of Go that this one starts may fail to start, or use the \
                          system's network";
    match error.kind() {
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => stdio::note(format_args!(
            "{EFFECT}: the kernel has no notices of system calls (seccomp: {error}), which need Linux 5.14; \
             use --only, or --mode preload to hide this line"
        )),
        io::ErrorKind::PermissionDenied => stdio::note(format_args!(
            "{EFFECT}: the system does not let us take their calls ({error}); set kernel.yama.ptrace_scope \
             to 0 or 1, allow a container seccomp, pidfd_getfd and process_vm_readv (Docker: --security-opt \
             seccomp=unconfined --cap-add SYS_PTRACE), use --only, or --mode preload to hide this line"
        )),
        io::ErrorKind::ResourceBusy => stdio::note(format_args!(
            "{EFFECT}, because another program already takes the calls of this process, such as another \
             `peersock run` or a container; run it outside, use --only, or --mode preload to hide this line"
        )),
        io::ErrorKind::AddrInUse => stdio::note(format_args!(
            "another process has the name by which programs ask to be taken along (`ss -xlp` shows it, \
             ending in /exec): {EFFECT}; end that process and start again, or use --only"
        )),
        _ => stdio::note(format_args!(
            "{EFFECT}: {error}; start again when the system has descriptors and threads, or use --only"
        )),
    }
}

fn not_supervised(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(
            "the system does not let us look into the programs that we start (ptrace), as taking their \
             socket calls needs",
            "set kernel.yama.ptrace_scope to 0 or 1, allow a container CAP_SYS_PTRACE (Docker: --cap-add \
             SYS_PTRACE), or use `peersock dial` and `peersock listen`",
        ),
        _ => error.into(),
    }
}

fn passed_by(path: &Path, bypass: Bypass) -> Failure {
    let hint = match bypass {
        Bypass::Go => "leave --mode preload out, or use `peersock dial` and `peersock listen`",
        Bypass::Static => {
            "leave --mode preload out, use a dynamically linked build of it, or `peersock dial` and \
             `peersock listen`"
        }
        Bypass::Sanitizer => "leave --mode preload out, or use a build of it without the sanitizer",
        Bypass::Capabilities => "leave --mode preload out, or run a copy of it, which has no capabilities",
    };
    let message =
        format!("{} {}, and its sockets cannot be put on the overlay", path.display(), bypass.text());
    Failure::new(format_args!("{message} by a preloaded library"), hint)
}
