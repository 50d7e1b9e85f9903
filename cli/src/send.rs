//! `peersock send`

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{IdentitySource, Node};
use peersock_files::{Code, Observer, PORT, ScanError, SendError, Sent, Source, WireError, greet, refuse};
use peersock_proxy::serving::{Owner, Slot, Slots};
use zeroize::Zeroizing;

use crate::args::{MemberNetworkArgs, PeerTimeoutArgs, SharedNodeArgs, parse_seconds};
use crate::failure::{Failure, Outcome};
use crate::files::{Meter, SEND_CODE_VARIABLE, count, moved, parse_code, summary};
use crate::line_limit::LineLimit;
use crate::path;
use crate::send_member;
use crate::session::Session;
use crate::silence;
use crate::sockets::Stream;
use crate::stdio;
use crate::tickets::NO_MEETING_PLACE;

/// Maximum number of receivers served at once, half of them of one member; others are told to come back.
const MAX_SERVED: usize = 32;

/// Maximum number of receivers told so at once, half of them of one member; others are just closed.
const MAX_REFUSED: usize = 32;

/// Maximum number of left-out entries that are named.
const MAX_NAMED_ENTRIES: usize = 10;

/// Send files and folders to every receiver that types the printed code, or to a member of a network
///
/// With -n, the last word is the member, by its name or address, and `peersock receive -n` has to wait there.
/// A colon after it is optional. With PEERSOCK_NETWORK alone, the colon makes the last word a member. The
/// session proves to each side who the other one is. A transfer that broke off continues by itself.
///
/// `peersock receive CODE` on the other machine gets them: on the same LAN without any settings, elsewhere if
/// both give the same --root (or PEERSOCK_ROOTS). Everything is encrypted and verified from end to end.
/// Everyone who has the code gets the files, so give it only to the receivers; it cannot be guessed. A broken
/// transfer continues where it stopped: the receiver reconnects by itself, and a sender that has ended is
/// started again with the same --code.
///
/// The command ends when one receiver has confirmed that everything is verified and written, and the
/// receivers served at that time have ended. The status is then 0, or 1 if something was left out. With
/// --keep it continues until Ctrl-C. Folders are sent with their contents: empty folders, times, permissions
/// (within the receiver's umask), and symbolic links that stay inside. Other links, pipes, devices, sockets,
/// and names with backslashes or control characters (including those that change the direction of text) are
/// left out and reported. A file that changes while it is sent is an error at both ends, and no part of it
/// counts as complete.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock send photos notes.txt
  peersock send --keep release.tar
  peersock send -n team photos notes.txt beta
  peersock send --root 'TEXT THAT peersock root PRINTED' photos")]
pub(crate) struct Args {
    /// Files and folders, each sent under the last name of its path; with -n, the last word is the member
    #[arg(value_name = "FILE", required = true, value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<PathBuf>,

    /// Code of a sender that has ended, to continue its transfer [default: a new code]
    ///
    /// Never make up a code. The process list shows this option, but not PEERSOCK_SEND_CODE.
    // Not the variable of `receive`, because a receiver would then send under the sender's code.
    #[arg(long, value_name = "CODE", env = SEND_CODE_VARIABLE, hide_env_values = true)]
    code: Option<Zeroizing<String>>,

    /// Continue after a receiver has everything, until Ctrl-C
    #[arg(short, long)]
    keep: bool,

    /// With -n: give up if the member is not found within SECONDS [default: 15, with a DHT 60]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,

    /// With -n: after the connection breaks, or while the member receives from another one, retry until
    /// nothing has been sent for SECONDS [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) retry: Option<Duration>,

    #[command(flatten)]
    pub(crate) network: MemberNetworkArgs,

    #[command(flatten)]
    pub(crate) node: SharedNodeArgs,

    #[command(flatten)]
    pub(crate) silence: PeerTimeoutArgs,

    /// Print only the code and errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl Args {
    /// Returns the files, and the member that they are sent to; `None` for a member if receivers need a code.
    fn member(&self) -> Outcome<(&[PathBuf], Option<&str>)> {
        let is_member = |last: &Path| last.to_str().is_some_and(|text| text.ends_with(':')) && !last.exists();
        let Some((last, files)) = self.paths.split_last() else { return Ok((&[], None)) };
        if !self.network.is_given() && !is_member(last) {
            let of_members = [
                (self.network.has_secret(), "--secret-file"),
                (self.timeout.is_some(), "--timeout"),
                (self.retry.is_some(), "--retry"),
            ];
            return match of_members.iter().find(|(is_given, _)| *is_given) {
                None => Ok((&self.paths, None)),
                Some((_, option)) => Err(Failure::usage(
                    format_args!("{option} is for files to a member of a network, and no network is named"),
                    format_args!("leave {option} out, or name the network with -n, and the member last"),
                )),
            };
        }
        // The variable may be set for another command.
        let of_environment = std::env::var(SEND_CODE_VARIABLE).ok().map(Zeroizing::new);
        let has_code = self.code.is_some() && self.code != of_environment;
        if let Some((_, option)) =
            [(has_code, "--code"), (self.keep, "--keep")].iter().find(|(given, _)| *given)
        {
            return Err(Failure::usage(
                format_args!("{option} is for receivers with a code, and the files go to a member"),
                format_args!("leave {option} out, or leave -n out"),
            ));
        }
        match last.to_str() {
            Some(member) if !files.is_empty() => Ok((files, Some(member))),
            _ => Err(Failure::usage(
                "no member is named to which the files are sent",
                "name the files, and then the member, as in `peersock send -n team notes.txt beta`",
            )),
        }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    if let (files, Some(member)) = args.member()? {
        return send_member::run(args, files, member);
    }
    args.node.refuse_for_code()?;
    let source = scan(&args.paths)?;
    let code = match args.code.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => parse_code(text, "peersock send")?,
        None => Code::generate().map_err(Failure::no_randomness)?,
    };
    let meeting = code.meeting()?;
    let identity = IdentitySource::Seed(meeting.seed.clone());
    // Kept as a code, because that is erased on drop.
    let again = code.clone();
    let session = Session::open_as(&args.node, meeting.network, identity, move |signal, _| {
        stdio::note(format_args!(
            "stopped; `peersock send --code {}` with the same files, or that code in {SEND_CODE_VARIABLE}, \
             lets incomplete receivers continue",
            again.to_text().as_str()
        ));
        128 + signal
    })?;
    let local = SocketAddr::new(meeting.address.into(), PORT);
    let listener = TcpListener::bind_on(&session.node, local)?;
    let _roots = session.watch_roots()?;
    announce(args, &source, &code)?;
    let watch =
        silence::Watch::start(silence::Heard::Own(session.joined.clone()), args.silence.peer_timeout, false)?;
    let server = Arc::new(Server {
        paths: args.paths.clone(),
        source: Mutex::new(Arc::new(source)),
        meter: Meter::new(args.quiet),
        watch,
        quiet: args.quiet,
        node: session.node.clone(),
        count: AtomicUsize::new(0),
        served: Slots::new(MAX_SERVED),
        refused: Slots::new(MAX_REFUSED),
    });
    server.serve(&listener, args.keep)?;
    server.meter.clear();
    session.close()?;
    let source = server.source.lock().expect("no panic under this lock");
    check_all_sent(&source)
}

/// Fails if the receiver has less than the named files.
pub(crate) fn check_all_sent(source: &Source) -> Outcome {
    match source.left_out_count() {
        0 => Ok(()),
        count => Err(Failure::new(
            format_args!("not everything was sent: {count} left out, as listed at the start"),
            "give what is left out another name or another place, or send an archive (tar)",
        )),
    }
}

pub(crate) fn scan(paths: &[PathBuf]) -> Outcome<Source> {
    let stdin = Path::new("-");
    if paths.iter().any(|path| path == stdin) && !stdin.exists() {
        return Err(Failure::usage(
            "`-` is no file, and stdin is not sent",
            "use `peersock listen` and `peersock dial` for what a program writes, or write it to a file first",
        ));
    }
    Source::scan(paths).map_err(|error| match &error {
        ScanError::Local { .. } => Failure::new(
            format_args!("{error}"),
            "check that it exists and who may read it, or leave it out; nothing is sent without it",
        ),
        ScanError::Manifest(_) => Failure::new(
            format_args!("{error}"),
            "send fewer folders at once, or make an archive of them (tar) and send that",
        ),
        ScanError::SameName { .. } => Failure::usage(
            format_args!("{error}"),
            "send one after the other, or the folder that both are in",
        ),
        ScanError::Special { .. } => Failure::usage(
            format_args!("{error}"),
            "write what comes out of it to a file first, or use `peersock listen` and `peersock dial`",
        ),
        _ => Failure::usage(format_args!("{error}"), "name a folder in it, or give it another name"),
    })
}

/// Returns true if the error only says that the peer has disconnected.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Prints the code, and describes which files are sent and which are not.
fn announce(args: &Args, source: &Source, code: &Code) -> Outcome {
    if !args.quiet {
        stdio::note(format_args!("sends {}", summary(source.manifest())));
    }
    tell_left_out(source);
    let text = code.to_text();
    stdio::print(text.as_str())?;
    if !args.quiet {
        let options = args.node.as_options();
        stdio::note(format_args!("receive with: peersock receive{options} {}", text.as_str()));
        if !args.node.names_meeting_place() {
            stdio::note(NO_MEETING_PLACE);
        }
    }
    Ok(())
}

/// Tells which files are not sent.
pub(crate) fn tell_left_out(source: &Source) {
    for left_out in source.left_out().iter().take(MAX_NAMED_ENTRIES) {
        stdio::note(format_args!("{} is left out: {}", left_out.path, left_out.why));
    }
    let more = (source.left_out_count() as usize).saturating_sub(MAX_NAMED_ENTRIES);
    if more > 0 {
        stdio::note(format_args!("{more} more are left out for such reasons"));
    }
}

struct Server {
    paths: Vec<PathBuf>,
    /// Files at the time of the last receiver.
    source: Mutex<Arc<Source>>,
    meter: Meter,
    watch: silence::Watch,
    quiet: bool,
    node: Node,
    /// Number of receivers so far.
    count: AtomicUsize,
    /// Slots of receivers being served.
    served: Slots,
    /// Slots of receivers being told to come back.
    refused: Slots,
}

/// An event from a thread of the server.
enum Event {
    /// A receiver has ended; `has_all` is true if it has everything.
    Ended { has_all: bool },
    /// Accepting connections has failed.
    Closed(io::Error),
}

/// A receiver being served. Dropping it reports the end, also if its thread panicked or never started.
struct Serving {
    place: Option<Slot>,
    events: Sender<Event>,
    has_all: bool,
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Releases the slot first, so that it is free when the event arrives.
        self.place = None;
        let _ = self.events.send(Event::Ended { has_all: self.has_all });
    }
}

impl Server {
    /// Serves receivers, each on a separate thread, until one has everything and no other is being served.
    fn serve(self: &Arc<Self>, listener: &TcpListener, keep: bool) -> Outcome {
        let (events, event) = mpsc::channel();
        let (server, accepting) = (Arc::clone(self), listener.try_clone()?);
        thread::Builder::new().name("accept".into()).spawn(move || {
            let error = server.accept(&accepting, &events);
            let _ = events.send(Event::Closed(error));
        })?;
        let (mut is_done, mut last) = (false, usize::MAX);
        loop {
            match event.recv().expect("the accepting thread says when it ends") {
                Event::Ended { has_all } => {
                    is_done |= has_all && !keep;
                    if self.served() == 0 {
                        self.meter.clear();
                    }
                }
                Event::Closed(_) if is_done => {}
                Event::Closed(error) => return Err(error.into()),
            }
            if !is_done {
                continue;
            }
            listener.close();
            match self.served() {
                0 => return Ok(()),
                // One more may have begun as another ended.
                served if served >= last => {}
                served => {
                    last = served;
                    self.say(format_args!("ends when {} more has ended", count(served as u64, "receiver")))
                }
            }
        }
    }

    fn served(&self) -> usize {
        self.served.taken()
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, events: &Sender<Event>) -> io::Error {
        let mut limit = LineLimit::default();
        loop {
            let (mut stream, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => return error,
            };
            let owner = Some(Owner::of_member(&(&self.node).into(), address.ip()));
            let Some(place) = self.served.take(owner) else {
                let line = || {
                    format!(
                        "a receiver must come back later: {MAX_SERVED} are served at once, half of them of \
                         one member"
                    )
                };
                if let Some(line) = limit.pass(Instant::now(), line) {
                    self.meter.note(line);
                }
                // Uses a separate thread, because the receiver may read slowly while others want to connect.
                let Some(place) = self.refused.take(owner) else { continue };
                let refusal = thread::Builder::new().name("refusal".into()).spawn(move || {
                    refuse(&mut stream, "it serves as many receivers as it can", true);
                    drop(place);
                });
                if let Err(error) = refusal {
                    tracing::warn!(receiver = %address, %error, "there is no thread to refuse this receiver");
                }
                continue;
            };
            let serving = Serving { place: Some(place), events: events.clone(), has_all: false };
            let server = Arc::clone(self);
            let started = thread::Builder::new().name("receiver".into()).spawn(move || {
                // Moves the whole value; a captured field would leave the rest in the accepting thread.
                let mut serving = serving;
                serving.has_all = server.serve_one(stream, address);
            });
            if let Err(error) = started {
                tracing::warn!(receiver = %address, %error, "there is no thread for this receiver");
            }
        }
    }

    /// Serves a receiver. Returns true if it has everything in the end.
    fn serve_one(&self, stream: TcpStream, address: SocketAddr) -> bool {
        let address = address.ip();
        // Each receiver has a new identity, so its address says nothing.
        let receiver = format!("receiver {}", self.count.fetch_add(1, Ordering::Relaxed) + 1);
        tracing::info!(%receiver, %address, "connected");
        let watched = Stream::own(&stream).and_then(|stream| self.watch.add(&stream, address));
        let _watched = match watched {
            Ok(watched) => watched,
            Err(error) => {
                tracing::warn!(%receiver, %error, "the connection cannot be watched");
                return false;
            }
        };
        let failed = |error: SendError| {
            let why = match &error {
                SendError::Wire(WireError::Stream(error)) if is_end(error) => "it has gone away".to_owned(),
                error => error.to_string(),
            };
            let line = format!("{receiver} does not have everything: {why}; it can continue with the code");
            self.meter.note(line);
            false
        };
        // Greets first, because the receiver's timeout for the greeting is limited and the scan of all files
        // can take longer.
        let greeted = match greet(&stream) {
            Ok(greeted) => greeted,
            Err(error) => return failed(error),
        };
        let source = match self.current_source() {
            Ok(source) => source,
            Err(error) => {
                greeted.refuse(&error.to_string(), false);
                self.meter.note(format_args!("{receiver} gets nothing: {error}"));
                return false;
            }
        };
        let (begin, way) = (Instant::now(), path::way_to(&self.node, address));
        match greeted.send(&source, self) {
            Ok(Sent::Received { bytes, files }) => {
                let had = if bytes < source.manifest().bytes() { "; it had the rest" } else { "" };
                // The receiver may have left already.
                let way = path::way_to(&self.node, address).or(way);
                let moved = moved(files, bytes, begin, way);
                self.say(format_args!("{receiver} has everything: {moved}{had}"));
                true
            }
            Ok(Sent::Listed) => {
                self.say(format_args!("{receiver} has listed the files"));
                false
            }
            Err(error) => failed(error),
        }
    }

    /// Returns the files to send now, because they may have changed since the last receiver.
    fn current_source(&self) -> Result<Arc<Source>, ScanError> {
        let now = Source::scan(&self.paths)?;
        let mut last = self.source.lock().expect("no panic under this lock");
        // Shares an unchanged source between receivers, because it may be large.
        if !last.is_same(&now) {
            *last = Arc::new(now);
        }
        Ok(Arc::clone(&last))
    }

    /// Prints a message that is not an error.
    fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            self.meter.note(text);
        }
    }
}

impl Observer for Server {
    fn begins(&self, bytes: u64, _: u32) {
        self.meter.expect(bytes);
    }

    fn moved(&self, bytes: u64) {
        self.meter.advance(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(served: &Slots, events: &Sender<Event>) -> Serving {
        Serving { place: served.take(None), events: events.clone(), has_all: false }
    }

    /// Panics without a message on stderr.
    fn panic_with(_serving: Serving) {
        std::panic::resume_unwind(Box::new(()));
    }

    #[test]
    fn a_receiver_has_ended_however_its_thread_ends() {
        let (served, (events, event)) = (Slots::new(1), mpsc::channel());
        let mut good = begin(&served, &events);
        assert!(served.take(None).is_none(), "there is one place");
        good.has_all = true;
        drop(good);
        assert!(matches!(event.try_recv(), Ok(Event::Ended { has_all: true })));
        let panics = begin(&served, &events);
        thread::spawn(move || panic_with(panics)).join().unwrap_err();
        // A closure for a thread that cannot be started is dropped.
        let never_began = begin(&served, &events);
        drop(move || drop(never_began));
        for _ in 0..2 {
            assert!(matches!(event.try_recv(), Ok(Event::Ended { has_all: false })));
        }
        assert_eq!(served.taken(), 0);
    }
}
