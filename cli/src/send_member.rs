//! `peersock send` to a member of a network.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peersock_files::{Observer, PORT, SendError, Sent, Source, WireError};

use crate::args::{has_port, managed_state};
use crate::background::Background;
use crate::failure::{Failure, Outcome};
use crate::files::{Meter, moved, summary};
use crate::member::Member;
use crate::retries::Retries;
use crate::send::{Args, check_all_sent, scan, tell_left_out};
use crate::sockets::Stream;
use crate::{managed, names, signals, silence, stdio, waiting};

/// Pause before another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Default time without progress after which a transfer that broke off is given up.
const RETRY: Duration = Duration::from_secs(120);

/// Sends files to a member, which is named as in the last word of the command line.
pub(crate) fn run(args: &Args, paths: &[PathBuf], to: &str) -> Outcome {
    let target = target(to)?;
    let source = scan(paths)?;
    let network = args.network.resolve_for(&args.node, &args.node.state)?;
    let within = args.timeout.unwrap_or_else(|| args.node.reach_timeout());
    let begin = Instant::now();
    let farewell = || stdio::note("stopped; the same command continues if the receiver still waits");
    let receive = format!("peersock receive {}", args.network.as_options(&network));
    let opened = Member::open_to("send", &args.node, network, &target, (within, args.quiet), farewell);
    let (member, targets) = opened.map_err(|failure| match failure.status() {
        // Its machine may be a member whose programs have all ended.
        1 => failure.and([format!("run `{receive}` there first")]),
        _ => failure,
    })?;
    let name = to.strip_suffix(':').filter(|name| name.parse::<IpAddr>().is_err()).unwrap_or(to);
    let called = match name.parse::<IpAddr>() {
        Ok(address) => names::called(member.network(), address),
        Err(_) => name.to_owned(),
    };
    if !args.quiet {
        stdio::note(format_args!("sends {} to {called}", summary(source.manifest())));
    }
    tell_left_out(&source);
    let sending = Sending {
        args,
        member: &member,
        targets: &targets,
        called,
        receive,
        source: &source,
        watch: silence::Watch::start(member.heard(), args.silence.peer_timeout, true)?,
        meter: Meter::new(args.quiet),
        waiting: Mutex::default(),
        moved: AtomicU64::new(0),
    };
    let left = within.saturating_sub(begin.elapsed()).max(Duration::from_millis(1));
    let sent = sending.run(left);
    sending.meter.clear();
    signals::leave_to_cleanup();
    drop(sending);
    sent.map_err(|failure| member.explained(failure)).and(member.close())?;
    check_all_sent(&source)
}

/// Returns the member of the last word as a target. Its colon is optional.
fn target(to: &str) -> Outcome<String> {
    let bare = to.strip_prefix('[').and_then(|to| to.strip_suffix(']')).unwrap_or(to);
    let host = match bare.parse::<IpAddr>() {
        Ok(_) => bare,
        Err(_) => to.strip_suffix(':').unwrap_or(to),
    };
    match host.parse() {
        Ok(address) => Ok(SocketAddr::new(address, PORT).to_string()),
        Err(_) if has_port(host) => Err(Failure::usage(
            format_args!("`{host}` has a port, and files are sent to a member"),
            "leave the port out",
        )),
        Err(_) => Ok(format!("{host}:{PORT}")),
    }
}

struct Sending<'a> {
    args: &'a Args,
    member: &'a Member,
    targets: &'a [SocketAddr],
    /// Name of the receiver for people.
    called: String,
    /// Command to receive there.
    receive: String,
    source: &'a Source,
    watch: silence::Watch,
    meter: Meter,
    /// Line about the receiver's decision, until that is known.
    waiting: Mutex<Option<Background>>,
    /// Bytes sent in all attempts.
    moved: AtomicU64,
}

impl Sending<'_> {
    /// Connects and sends. Reconnects after each break while data moves in between.
    fn run(&self, within: Duration) -> Outcome {
        let begin = Instant::now();
        let mut retries = Retries::new(self.args.retry.unwrap_or(RETRY));
        let mut stream = self.connect(within).map_err(|error| self.unreached(&error))?;
        loop {
            let result = self.attempt(&stream);
            let address = stream.peer_addr()?.ip();
            drop(stream);
            self.waiting.lock().expect("no panic under this lock").take();
            let error = match result {
                Ok(Sent::Received { bytes, files }) => {
                    let had = if bytes < self.source.manifest().bytes() { "; it had the rest" } else { "" };
                    if !self.args.quiet {
                        let moved = moved(files, bytes, begin, self.member.way_to(address));
                        self.meter.note(format_args!("{} has everything: {moved}{had}", self.called));
                    }
                    return Ok(());
                }
                Ok(Sent::Listed) => {
                    return Err(Failure::new(
                        format_args!("{} has listed the files, and received none", self.called),
                        "ask there for `peersock receive -n` without --list",
                    ));
                }
                Err(error) => error,
            };
            self.meter.clear();
            // Ends here if a signal has shut down the node.
            signals::leave_to_cleanup();
            if !matches!(error, SendError::Busy | SendError::Wire(WireError::Stream(_))) {
                return Err(self.failure(&error));
            }
            if let Some(removal) = managed::removal(&managed_state(), self.member.network().id()) {
                return Err(removal);
            }
            let has_moved = retries.note_break(self.moved.load(Ordering::Relaxed), Instant::now());
            if has_moved && !self.args.quiet {
                let seconds = retries.left(Instant::now()).as_secs_f64();
                stdio::note(format_args!("{}; trying again for up to {seconds:.0} s", self.why(&error)));
            }
            stream = loop {
                let left = retries.left(Instant::now());
                if left.is_zero() {
                    return Err(self.failure(&error));
                }
                thread::sleep(RETRY_PAUSE.min(left));
                match self.connect(left.max(RETRY_PAUSE)) {
                    Ok(stream) => break stream,
                    Err(error) => tracing::info!(%error, "the receiver is not there"),
                }
                signals::leave_to_cleanup();
            };
        }
    }

    /// Connects to the first of the member's addresses at which something listens.
    fn connect(&self, within: Duration) -> io::Result<Stream> {
        let until = Instant::now() + within;
        let mut refused = io::ErrorKind::ConnectionRefused.into();
        for target in self.targets {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            match self.member.connect(*target, left) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused = error,
                other => return other,
            }
        }
        Err(refused)
    }

    fn attempt(&self, stream: &Stream) -> Result<Sent, SendError> {
        let address = stream.peer_addr()?.ip();
        let _watched = self.watch.add(stream, address)?;
        if !self.args.quiet {
            let text = format!("waiting until {} receives it", self.called);
            let waiting = waiting::start(move || text)?;
            *self.waiting.lock().expect("no panic under this lock") = Some(waiting);
        }
        peersock_files::send(stream, self.source, self)
    }

    fn unreached(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::new(
                format_args!("{} receives no files now", self.called),
                format_args!("run `{}` there first", self.receive),
            ),
            io::ErrorKind::PermissionDenied => self.member.port_outside(PORT),
            _ => Failure::new(
                format_args!("cannot connect to {}: {error}", self.called),
                "check that its machine still runs; -v shows what was tried",
            ),
        }
    }

    /// Returns the reason why the transfer does not go on at once.
    fn why(&self, error: &SendError) -> String {
        match error {
            SendError::Busy => format!("{} receives from another member now", self.called),
            error => format!("the connection broke: {error}"),
        }
    }

    fn failure(&self, error: &SendError) -> Failure {
        let called = &self.called;
        match error {
            SendError::Busy | SendError::Wire(WireError::Stream(_)) => Failure::new(
                format_args!("{called} does not have everything: {}", self.why(error)),
                "run the same command again while the receiver waits: it continues with what is there",
            ),
            SendError::Receiver { reason } => Failure::new(
                format_args!("{called} has not received the files: {reason}"),
                "ask there, and run the same command again",
            ),
            SendError::Wire(WireError::Magic) => Failure::new(
                format_args!("another program listens on port {PORT} of {called}"),
                "end that program, and start `peersock receive -n` there",
            ),
            SendError::Wire(WireError::Version(_)) => {
                Failure::new(format_args!("{error}"), "install the same version of peersock on both machines")
            }
            SendError::Changed { .. } => {
                Failure::new(format_args!("{error}"), "run the same command again: the rest continues")
            }
            SendError::Local { .. } => Failure::new(
                format_args!("{error}"),
                "check the file and who may read it; then run the same command again",
            ),
            error => Failure::new(
                format_args!("{called} does not have everything: {error}"),
                "look what the receiver does, and run the same command again",
            ),
        }
    }
}

impl Observer for Sending<'_> {
    fn begins(&self, bytes: u64, _: u32) {
        self.waiting.lock().expect("no panic under this lock").take();
        self.meter.expect(bytes);
    }

    fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.meter.advance(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_named_with_or_without_a_colon() {
        for (to, wanted) in [
            ("beta", "beta:7421"),
            ("beta:", "beta:7421"),
            ("10.77.0.2", "10.77.0.2:7421"),
            ("10.77.0.2:", "10.77.0.2:7421"),
            ("fd00::", "[fd00::]:7421"),
            ("fd00::1:", "[fd00::1]:7421"),
            ("[fd00::1]", "[fd00::1]:7421"),
        ] {
            assert_eq!(target(to).unwrap(), wanted, "{to}");
        }
        assert_eq!(target("beta:7000").unwrap_err().status(), 2);
    }
}
