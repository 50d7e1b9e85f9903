//! `peersock receive`

use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use peersock::IdentitySource;
use peersock::blocking::TcpStream;
use peersock_files::{
    Code, Folder, Kind, Manifest, Observer, Options, PORT, Receipt, ReceiveError, WireError,
};
use zeroize::Zeroizing;

use crate::args::{PeerTimeoutArgs, UnderlayArgs, parse_seconds};
use crate::failure::{Failure, Outcome};
use crate::files::{CODE_VARIABLE, Meter, count, hidden, moved, parse_code, shown, summary};
use crate::path;
use crate::root_watch;
use crate::session::Session;
use crate::signals;
use crate::silence;
use crate::sockets::Stream;
use crate::stdio;
use crate::waiting;

/// Pause of a receiver before it reconnects.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// Maximum length of a line with a code, in bytes.
const LONGEST_LINE: u64 = 1024;

/// Get the files and folders that `peersock send` offers under a code
///
/// Writes only into the current folder, or into that of --to. A file gets its name when its hash is verified;
/// until then it is called .NAME.peersock-part. The next run continues that part, even if this program or the
/// sender was killed. If the connection breaks, this command reconnects by itself. An existing file counts as
/// received if it is the same; if one is different, nothing is transferred without --overwrite. Names that
/// begin with a dot are reported, because `ls` hides them. A connected sender that sends nothing for ten
/// minutes is given up. The exit status is 0 only if everything is verified and on the disk.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock receive 0R64E-5YRY4-JQV4Q
  peersock receive --list 0R64E-5YRY4-JQV4Q
  peersock receive --to ~/Downloads --root 'TEXT THAT peersock root PRINTED' 0R64E-5YRY4-JQV4Q")]
pub(crate) struct Args {
    /// Code that `peersock send` has printed [default: a line of stdin]
    ///
    /// The process list shows an argument, but not PEERSOCK_CODE.
    #[arg(value_name = "CODE", env = CODE_VARIABLE, hide_env_values = true)]
    code: Option<Zeroizing<String>>,

    /// Write everything into this folder
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    to: PathBuf,

    /// Replace existing files and links that are different
    #[arg(long)]
    overwrite: bool,

    /// List the offered files, and receive nothing
    #[arg(long)]
    list: bool,

    /// Give up if the sender is not found within SECONDS [default: 15, with a DHT 60]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,

    /// After the connection breaks, retry until nothing has arrived for SECONDS
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "120")]
    retry: Duration,

    #[command(flatten)]
    underlay: UnderlayArgs,

    #[command(flatten)]
    silence: PeerTimeoutArgs,

    /// Print only errors
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let code = code(args)?;
    let folder = Folder::open(&args.to).map_err(|error| {
        Failure::new(
            format_args!("cannot receive into {}: {error}", args.to.display()),
            "give --to DIR with an existing folder that you may write to",
        )
    })?;
    let meeting = code.meeting()?;
    let session =
        Session::open_as(&args.underlay, meeting.network, IdentitySource::Ephemeral, |signal, _| {
            stdio::note("stopped; received data is kept, and the same command continues with it");
            128 + signal
        })?;
    let _roots = root_watch::start(&session.node)?;
    let receiver = Receiver {
        args,
        session: &session,
        folder,
        address: meeting.address.into(),
        watch: silence::Watch::start(
            silence::Heard::Own(session.joined.clone()),
            args.silence.peer_timeout,
            true,
        )?,
        meter: Meter::new(args.quiet),
        is_announced: AtomicBool::new(false),
        announced: AtomicU64::new(0),
        has_begun: AtomicBool::new(false),
        files: OnceLock::new(),
        unprinted: Mutex::default(),
        moved: AtomicU64::new(0),
        compared: AtomicU64::new(0),
        way: Mutex::new((Instant::now(), None)),
    };
    let begin = Instant::now();
    let received = receiver.run();
    receiver.meter.clear();
    let receipt = received?;
    if let Some(failure) = receiver.unprinted.lock().expect("no panic under this lock").take() {
        return Err(failure);
    }
    if !args.quiet && !args.list {
        // Files that an earlier attempt of this run has received are not there already.
        let files = receiver.files.get().copied().unwrap_or_default().max(receipt.files);
        let there = match (receipt.there + receipt.files).saturating_sub(files) {
            0 => String::new(),
            there => format!("; {} there already", count(there.into(), "file")),
        };
        // The sender may have left already.
        let way = path::way_to(&session.node, receiver.address).or(receiver.way().1);
        let moved = moved(files, receiver.moved.load(Ordering::Relaxed), begin, way);
        stdio::note(format_args!("received {moved}{there}; all is verified"));
    }
    drop(receiver);
    session.close()
}

/// Returns the code from the command line or environment, or reads it from stdin.
fn code(args: &Args) -> Outcome<Code> {
    if let Some(text) = args.code.as_deref().filter(|text| !text.is_empty()) {
        return parse_code(text);
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        stdio::note("type the code that `peersock send` has printed:");
    }
    let mut line = Zeroizing::new(String::with_capacity(LONGEST_LINE as usize));
    stdin.lock().take(LONGEST_LINE).read_line(&mut line).map_err(|error| {
        Failure::new(
            format_args!("cannot read a code from stdin: {error}"),
            "give the code on the command line or in PEERSOCK_CODE",
        )
    })?;
    match line.trim() {
        "" => Err(Failure::usage(
            "there is no code",
            "give the code that `peersock send` has printed, on the command line, in PEERSOCK_CODE, or as a \
             line of stdin",
        )),
        text => parse_code(text),
    }
}

struct Receiver<'a> {
    args: &'a Args,
    session: &'a Session,
    folder: Folder,
    address: IpAddr,
    watch: silence::Watch,
    meter: Meter,
    is_announced: AtomicBool,
    /// Bytes of all files, received or not.
    announced: AtomicU64,
    has_begun: AtomicBool,
    /// Number of files that were not there when the first attempt began.
    files: OnceLock<u32>,
    /// Error that prevented printing the list.
    unprinted: Mutex<Option<Failure>>,
    /// Bytes received in all attempts.
    moved: AtomicU64,
    /// Existing bytes that were read for comparison.
    compared: AtomicU64,
    /// Way of the data when it was last looked at.
    way: Mutex<(Instant, Option<&'static str>)>,
}

/// Interval of looks at the way of the data.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Number of existing bytes whose comparison takes long enough to be announced.
const LONG_COMPARISON: u64 = 1 << 30;

impl Receiver<'_> {
    /// Connects and receives. Reconnects after each break while data arrives in between.
    fn run(&self) -> Outcome<Receipt> {
        let mut stream = self.find()?;
        let mut before = 0;
        // Time of the first break since data last arrived.
        let mut since = None;
        loop {
            let result = self.attempt(&stream);
            drop(stream);
            let error = match result {
                Ok(receipt) => return Ok(receipt),
                Err(error) if !error.is_worth_another_try() => return Err(self.failure(&error)),
                Err(error) => error,
            };
            self.meter.clear();
            // Ends here if a signal has shut down the node.
            signals::leave_to_cleanup();
            let moved = self.moved.load(Ordering::Relaxed);
            if moved != before {
                (before, since) = (moved, None);
            }
            let since = *since.get_or_insert_with(Instant::now);
            let retry = self.args.retry;
            if !self.args.quiet {
                let seconds = retry.saturating_sub(since.elapsed()).as_secs_f64();
                stdio::note(format_args!("{}; trying again for up to {seconds:.0} s", broken(&error)));
            }
            stream = loop {
                if since.elapsed() >= retry {
                    return Err(self.failure(&error));
                }
                thread::sleep(RECONNECT_PAUSE.min(retry));
                let left = retry.saturating_sub(since.elapsed()).max(RECONNECT_PAUSE);
                match self.connect(left) {
                    Ok(stream) => break stream,
                    Err(error) => tracing::info!(%error, "the sender is not there"),
                }
            };
        }
    }

    /// Looks for the sender, and connects once it is found.
    fn find(&self) -> Outcome<TcpStream> {
        let within = self.args.timeout.unwrap_or_else(|| self.args.underlay.patience());
        let begin = Instant::now();
        let waiting = match self.args.quiet {
            true => None,
            false => Some(waiting::start(self.session.looking_for("the sender", within))?),
        };
        let found = loop {
            let left = within.saturating_sub(begin.elapsed()).max(Duration::from_millis(1));
            match self.connect(left) {
                // The sender's node is reachable before its program listens.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused && begin.elapsed() < within => {
                    thread::sleep(RECONNECT_PAUSE / 10);
                }
                other => break other,
            }
        };
        drop(waiting);
        found.map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => Failure::new(
                "the sender of this code has ended, or is about to",
                "start it there again, `peersock send --code CODE FILE`, with --keep if several receive",
            ),
            ErrorKind::TimedOut | ErrorKind::HostUnreachable => {
                self.session.log_silence(self.address, within);
                let seconds = within.as_secs_f64();
                Failure::new(
                    format_args!("no sender with this code has answered within {seconds} s"),
                    self.what_to_check(),
                )
            }
            _ => Failure::from(error),
        })
    }

    /// Returns the advice for a sender that was not found.
    fn what_to_check(&self) -> String {
        let (servers, root) = self.session.servers_to_check();
        let both = match root {
            Some(root) => {
                format!("it has the same --root: {root} was reached, and no such sender found there")
            }
            None => "both machines are on the same LAN or have the same --root or --dht".to_owned(),
        };
        format!(
            "{servers}check the code, that `peersock send` still runs there, and that {both}; -v shows what was \
             tried"
        )
    }

    fn connect(&self, within: Duration) -> io::Result<TcpStream> {
        let begin = Instant::now();
        self.session.joined.wait_peer(self.address, within)?;
        let left = within.saturating_sub(begin.elapsed()).max(Duration::from_millis(1));
        TcpStream::connect_timeout_on(&self.session.node, &SocketAddr::new(self.address, PORT), left)
    }

    fn attempt(&self, stream: &TcpStream) -> Result<Receipt, ReceiveError> {
        let watched = Stream::own(stream).and_then(|stream| self.watch.add(&stream, self.address));
        let watched = watched.map_err(WireError::from)?;
        let options = Options { overwrite: self.args.overwrite, list_only: self.args.list };
        let received = peersock_files::receive(stream, &self.folder, options, self);
        drop(watched);
        received
    }

    fn way(&self) -> MutexGuard<'_, (Instant, Option<&'static str>)> {
        self.way.lock().expect("no panic under this lock")
    }

    /// Looks at the way of the data, now and then.
    fn look_at_way(&self) {
        let mut way = self.way();
        if way.1.is_none() || way.0.elapsed() >= LOOK_INTERVAL {
            *way = (Instant::now(), path::way_to(&self.session.node, self.address).or(way.1));
        }
    }

    fn failure(&self, error: &ReceiveError) -> Failure {
        signals::leave_to_cleanup();
        match error {
            ReceiveError::Wire(WireError::Stream(_)) => Failure::new(
                format_args!("{}", broken(error)),
                "received data is kept: give the same command again to continue; if the sender has ended, \
                 start it there with `peersock send --code CODE` and the same files",
            ),
            ReceiveError::Wire(WireError::Version(_)) => {
                Failure::new(format_args!("{error}"), "install the same version of peersock on both machines")
            }
            ReceiveError::Wire(_) => Failure::new(
                format_args!("the sender has sent invalid data: {error}"),
                "ask the sender which program it uses; only verified data was kept",
            ),
            ReceiveError::Sender { .. } => Failure::new(
                format_args!("{error}"),
                "ask the sender to check it; then give the same command again: received data is kept",
            ),
            ReceiveError::Silent(_) => Failure::new(
                format_args!("{error}"),
                "ask the sender whether the program still runs there; then give the same command again: \
                 received data is kept",
            ),
            ReceiveError::Conflicts { .. } => Failure::new(
                format_args!("nothing was received: {error}"),
                "give --to DIR with another folder, or --overwrite to replace what is there",
            ),
            ReceiveError::Room { needed, free } => Failure::new(
                format_args!(
                    "the disk has room for {}, and {} are still to be received",
                    HumanBytes(*free),
                    HumanBytes(*needed)
                ),
                "make room, or give --to DIR on another disk; then give the same command again",
            ),
            ReceiveError::Local { source, .. } if source.kind() == ErrorKind::ResourceBusy => Failure::new(
                format_args!("{error}"),
                "wait until the other program has ended, or give --to DIR with another folder; then give the \
                 same command again to continue",
            ),
            ReceiveError::Hash { .. } => Failure::new(
                format_args!("{error}"),
                "give the same command again; if it fails again, check the disks and memory of both machines",
            ),
            _ => Failure::new(
                format_args!("{error}"),
                "check the disk and who may write to the folder, then give the same command again to \
                 continue",
            ),
        }
    }
}

fn broken(error: &ReceiveError) -> String {
    match error {
        ReceiveError::Wire(WireError::Stream(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            "the connection broke: the sender has closed it".to_owned()
        }
        ReceiveError::Wire(WireError::Stream(error)) => format!("the connection broke: {error}"),
        error => error.to_string(),
    }
}

impl Observer for Receiver<'_> {
    fn announced(&self, manifest: &Manifest, left_out: u32) {
        self.announced.store(manifest.bytes(), Ordering::Relaxed);
        if self.is_announced.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.args.list {
            *self.unprinted.lock().expect("no panic under this lock") = stdio::print(list(manifest)).err();
        } else if !self.args.quiet {
            stdio::note(format_args!("receives {}", summary(manifest)));
            if let Some(text) = hidden(manifest) {
                stdio::note(text);
            }
        }
        if left_out > 0 {
            let entries = if left_out == 1 { "1 entry" } else { &format!("{left_out} entries") };
            stdio::note(format_args!("the sender has left out {entries}, and has listed them there"));
        }
    }

    fn begins(&self, bytes: u64, files: u32) {
        let _ = self.files.set(files);
        self.look_at_way();
        let here = self.announced.load(Ordering::Relaxed).saturating_sub(bytes);
        if here > 0 && bytes > 0 && !self.has_begun.swap(true, Ordering::Relaxed) && !self.args.quiet {
            self.meter.note(format_args!("continuing: {} are here already", HumanBytes(here)));
        }
        self.meter.expect(bytes);
    }

    fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.look_at_way();
        self.meter.advance(bytes);
    }

    fn compared(&self, bytes: u64) {
        let before = self.compared.fetch_add(bytes, Ordering::Relaxed);
        let is_long = before < LONG_COMPARISON && before + bytes >= LONG_COMPARISON;
        if is_long && !self.args.quiet {
            self.meter.note("reading existing files, to continue with those that are the same");
        }
    }
}

/// Returns a line for each entry, with its size and path.
fn list(manifest: &Manifest) -> String {
    let line = |entry: &peersock_files::Entry| match &entry.kind {
        Kind::Link { target } => format!("{:>12}  {} -> {}", "link", entry.path, target.as_str()),
        Kind::Folder => format!("{:>12}  {}", "folder", shown(entry)),
        _ => format!("{:>12}  {}", entry.size(), entry.path),
    };
    manifest.entries().iter().map(line).collect::<Vec<_>>().join("\n")
}
