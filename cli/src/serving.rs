//! Shared code of `proxy`, `forward` and `rest`: a node, a runtime, problem reports, and a graceful end.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::panic;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use peersock::Network;
use peersock_proxy::{Activated, Event, Introduction, ListenError, Overlay, Stopper, Tell};
use rustix::process::Resource;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::args::{NetworkArgs, SharedNodeArgs, UnderlayArgs, parse_seconds};
use crate::failure::{Failure, Outcome};
use crate::line_limit::LineLimit;
use crate::member::{Member, node_has_ended};
use crate::{managed, signals, stdio};

/// Number of file descriptors reserved for other uses than connections.
const OTHER_DESCRIPTORS: u64 = 256;

/// Time that the stopped server gets to end.
const SERVER_END: Duration = Duration::from_secs(2);

/// Limits on served clients, and the end of serving.
#[derive(clap::Args)]
pub(crate) struct ServingArgs {
    /// Give up connecting to a client's target after SECONDS [default: 15, with a DHT 60]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,

    /// Serve NUMBER connections at once, and NUMBER flows of datagrams
    ///
    /// One member, or one client on another machine, may use half of them.
    #[arg(long, value_name = "NUMBER", default_value = "512", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_connections: u32,

    /// Let connections continue for SECONDS after Ctrl-C or SIGTERM; then reset them
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "5")]
    linger: Duration,
}

impl ServingArgs {
    pub(crate) fn timeout(&self, node: &UnderlayArgs) -> Duration {
        self.timeout.unwrap_or_else(|| node.reach_timeout())
    }

    /// Returns the timeout if an option sets it.
    pub(crate) fn given_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    pub(crate) fn most(&self) -> usize {
        self.max_connections as usize
    }
}

/// Introduction of members to services of this machine.
#[derive(clap::Args)]
pub(crate) struct IdentityArgs {
    /// Tell services of this machine which member has connected
    ///
    /// With http, each request of HTTP/1.1 gets the fields Peersock-Member (its full name, or the node ID in
    /// networks without names), Peersock-Network, Peersock-Node, Peersock-Tags (with commas) and
    /// Peersock-Gateway (1 if the member forwards for another machine). Fields of the client whose names
    /// are Peersock, or begin with it and a sign that is no letter or digit, are removed. An ambiguous or
    /// incomplete request is refused, and one with a body gets `Connection: close`. With proxy-v2, a header
    /// of the PROXY protocol, version 2, precedes the data of any TCP service.
    #[arg(long, value_name = "FORM")]
    identity: Option<Form>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Form {
    Http,
    ProxyV2,
}

impl IdentityArgs {
    /// Returns the form in which services learn of members.
    pub(crate) fn introduction(&self) -> Option<Introduction> {
        self.identity.map(|form| match form {
            Form::Http => Introduction::Http,
            Form::ProxyV2 => Introduction::ProxyV2,
        })
    }
}

/// A node that serves clients.
pub(crate) struct Serving {
    pub(crate) member: Member,
    /// Sockets inherited at the start of the program (socket activation).
    pub(crate) activated: Activated,
    runtime: Runtime,
    ending: Arc<OnceLock<Ending>>,
    linger: Duration,
}

/// The end of serving after a signal.
struct Ending {
    stopper: Stopper,
    /// Delivers data of closed connections.
    finish: Box<dyn Fn(Duration) + Send + Sync>,
    linger: Duration,
    /// Disconnected when the server has ended.
    served: Mutex<Receiver<()>>,
}

impl Serving {
    /// Attaches to the node that programs share, or starts one. `command` is the name for other users of it.
    pub(crate) fn open(
        command: &str,
        args: &ServingArgs,
        node: &SharedNodeArgs,
        network: &NetworkArgs,
    ) -> Outcome<Serving> {
        let serving =
            Serving::open_with(args, |farewell| Member::open_until(command, node, network, farewell))?;
        serving.member.warn_of_other_port(node.overlay_port);
        Ok(serving)
    }

    /// Opens a node in a network that is known already; see [`open`](Self::open).
    pub(crate) fn open_in(
        command: &str,
        args: &ServingArgs,
        node: &SharedNodeArgs,
        network: Network,
    ) -> Outcome<Serving> {
        let open = |farewell| Member::open_in_until(command, node, network, farewell);
        let serving = Serving::open_with(args, open)?;
        serving.member.warn_of_other_port(node.overlay_port);
        Ok(serving)
    }

    /// Serves clients as the member that `open` makes, whose argument runs at the end by a signal.
    pub(crate) fn open_with(
        args: &ServingArgs,
        open: impl FnOnce(Box<dyn FnOnce() + Send>) -> Outcome<Member>,
    ) -> Outcome<Serving> {
        // Runs before a second thread exists, because it removes environment variables.
        let activated = Activated::from_environment();
        // Each connection uses a kernel socket, and may need a second one for its target.
        raise_descriptors(2 * u64::from(args.max_connections) + OTHER_DESCRIPTORS);
        let ending = Arc::<OnceLock<Ending>>::default();
        let at_signal = Arc::clone(&ending);
        let farewell = move || {
            if let Some(ending) = at_signal.get() {
                ending.run();
            }
        };
        let member = open(Box::new(farewell))?;
        let runtime = runtime()?;
        Ok(Serving { member, activated, runtime, ending, linger: args.linger })
    }

    /// Runs a function on the runtime, which may take inherited sockets.
    pub(crate) fn begin<T>(&mut self, listen: impl AsyncFnOnce(Overlay, &mut Activated) -> T) -> T {
        self.runtime.block_on(listen(self.member.overlay(), &mut self.activated))
    }

    /// Prints the lines about listening places, and serves clients until a signal ends the program, or the
    /// machine is removed from the network.
    pub(crate) fn run(
        self,
        lines: &[String],
        stopper: Stopper,
        served: impl Future<Output = io::Result<()>>,
    ) -> Outcome {
        let (finish, linger) = (self.member.finisher(), self.linger);
        let (removal, removed) = oneshot::channel();
        managed::on_removal(self.member.network().id(), move |failure| drop(removal.send(failure)))?;
        let (serves, served_until) = mpsc::channel();
        let served_until = Mutex::new(served_until);
        // A signal that came earlier has no server to wait for.
        let _ = self.ending.set(Ending { stopper, finish, linger, served: served_until });
        if !lines.is_empty() {
            stdio::print(lines.join("\n"))?;
        }
        let result = self.runtime.block_on(async {
            tokio::select! {
                result = served => Ok(result),
                () = self.member.lost() => Err(node_has_ended("no client can connect any more")),
                Ok(failure) = removed => Err(failure),
            }
        });
        drop(serves);
        signals::leave_to_cleanup();
        result?.map_err(|error| {
            Failure::new(
                format_args!("no client can connect any more: {error}"),
                "start the command again, unless the machine has left the network: the node has ended otherwise",
            )
        })
    }
}

/// Starts tokio's runtime. It panics if it cannot start its first thread; this becomes an error. It works
/// without further threads.
fn runtime() -> io::Result<Runtime> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let built = panic::catch_unwind(|| tokio::runtime::Builder::new_multi_thread().enable_all().build());
    panic::set_hook(hook);
    built.unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EAGAIN)))
}

impl Ending {
    fn run(&self) {
        let begin = Instant::now();
        let open = self.stopper.open();
        if open > 0 && !self.linger.is_zero() {
            let seconds = self.linger.as_secs_f64();
            stdio::note(format_args!(
                "{} still open, for {seconds} s at most; one more signal ends the program at once",
                connections(open, "is", "are")
            ));
        }
        let left = self.stopper.stop(self.linger);
        // The server then removes its Unix domain sockets.
        let _ = self.served.lock().expect("no panic under this lock").recv_timeout(SERVER_END);
        if left > 0 {
            stdio::note(format_args!("{} cut off", connections(left, "was", "were")));
        }
        // Data of connections that have ended may still be in flight.
        (self.finish)(self.linger.saturating_sub(begin.elapsed()));
    }
}

fn connections(count: usize, one: &str, several: &str) -> String {
    if count == 1 { format!("1 connection {one}") } else { format!("{count} connections {several}") }
}

/// Returns a function that prints problems on stderr now and then. Each kind of event has a separate limit.
pub(crate) fn tell() -> Tell {
    let limits = Mutex::new(HashMap::<_, LineLimit>::new());
    Arc::new(move |event: Event| {
        let mut limits = limits.lock().expect("no panic under this lock");
        let limit = limits.entry(mem::discriminant(&event)).or_default();
        if let Some(line) = limit.pass(Instant::now(), || format!("warning: {event}")) {
            stdio::note(line);
        }
    })
}

/// The part of the command line that names listening places.
#[derive(Clone, Copy)]
pub(crate) enum Said {
    /// The option --listen, or its default.
    Listen,
    /// The first of two places.
    Local,
}

impl Said {
    /// Returns advice on how to give another place.
    fn with(self, place: &str) -> String {
        match self {
            Said::Listen => format!("with `--listen {place}`"),
            Said::Local => format!("with `{place}` as LOCAL"),
        }
    }
}

/// Returns the failure if clients cannot connect.
pub(crate) fn listen_failure(error: ListenError, said: Said) -> Failure {
    match error {
        ListenError::Exposed(place) => Failure::usage(
            format_args!("{place} can be reached by others, who could use the proxy without a password"),
            "give users and passwords with --auth-file FILE, or --no-password if everybody may use it",
        ),
        ListenError::Refused { place, source } => {
            let hint = refused_hint(&place.to_string(), source.kind(), said);
            Failure::new(format_args!("cannot listen at {place}: {source}"), hint)
        }
        error => Failure::new(
            format_args!("cannot listen: {error}"),
            "choose another place; --help says how places are written",
        ),
    }
}

fn refused_hint(place: &str, kind: io::ErrorKind, said: Said) -> String {
    match kind {
        io::ErrorKind::AddrInUse if place.starts_with("unix:") => {
            let other = said.with("unix:PATH");
            format!(
                "remove the file that has this path, if no program needs it, or choose another path {other}"
            )
        }
        io::ErrorKind::AddrInUse => {
            let places = [place_with(place, "PORT"), place_with(place, "0")];
            let [other, free] = places.map(|place| said.with(&place));
            format!("another program has this port: choose another one {other}, or a free one {free}")
        }
        io::ErrorKind::AddrNotAvailable => {
            let other = said.with("ADDRESS:PORT");
            format!("give an address of this node or machine {other}; `peersock addr` prints the node's")
        }
        io::ErrorKind::PermissionDenied if place.starts_with("unix:") => {
            let other = said.with("unix:PATH");
            format!("choose a path in a folder that can be written to {other}")
        }
        io::ErrorKind::PermissionDenied => {
            let other = said.with(&place_with(place, "PORT"));
            match place.starts_with("overlay:") {
                true => format!("choose a port that the network allows {other}"),
                false => format!("choose a port that every user may have, from 1024 on, {other}"),
            }
        }
        io::ErrorKind::NotFound => {
            "check that it is spelled like this; systemd:NAME needs a socket unit with that name".to_owned()
        }
        _ => "choose another place; --help says how places are written".to_owned(),
    }
}

/// Returns a place in the command's format, with another port.
fn place_with(place: &str, port: &str) -> String {
    let before = place.rsplit_once(':').map_or("", |(before, _)| before);
    match before {
        // These hosts are the default of a bare port.
        "" | "127.0.0.1" => port.to_owned(),
        "overlay:*" => format!("overlay:{port}"),
        _ => format!("{before}:{port}"),
    }
}

/// Raises the process's limit of file descriptors, as far as the user's limit allows.
fn raise_descriptors(wanted: u64) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let Some(now) = limit.current.filter(|now| *now < wanted) else { return };
    let current = limit.maximum.map_or(wanted, |most| most.min(wanted)).max(now);
    let raised = rustix::process::Rlimit { current: Some(current), maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of descriptors stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use io::ErrorKind;

    use super::*;

    #[test]
    fn hints_name_the_option_that_there_is() {
        for (place, kind, said, words) in [
            ("127.0.0.1:1080", ErrorKind::AddrInUse, Said::Listen, &["`--listen PORT`", "`--listen 0`"][..]),
            (
                "[::1]:80",
                ErrorKind::AddrInUse,
                Said::Listen,
                &["`--listen [::1]:PORT`", "`--listen [::1]:0`"],
            ),
            ("127.0.0.1:80", ErrorKind::PermissionDenied, Said::Listen, &["1024", "`--listen PORT`"]),
            (
                "overlay:*:3",
                ErrorKind::PermissionDenied,
                Said::Listen,
                &["allows", "`--listen overlay:PORT`"],
            ),
            ("unix:/root/x", ErrorKind::PermissionDenied, Said::Listen, &["folder", "`--listen unix:PATH`"]),
            ("unix:/tmp/x", ErrorKind::AddrInUse, Said::Local, &["remove the file", "`unix:PATH` as LOCAL"]),
            ("127.0.0.1:80", ErrorKind::AddrInUse, Said::Local, &["`PORT` as LOCAL", "`0` as LOCAL"]),
            ("192.0.2.1:80", ErrorKind::AddrNotAvailable, Said::Listen, &["`--listen ADDRESS:PORT`"]),
        ] {
            let hint = refused_hint(place, kind, said);
            assert!(words.iter().all(|word| hint.contains(word)), "{place}: {hint}");
        }
    }
}
