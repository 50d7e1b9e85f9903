//! `peersock receive`

use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use peersock::IdentitySource;
use peersock::blocking::TcpStream;
use peersock_files::{Code, Folder, Options, PORT, Receipt, ReceiveError, WireError};
use zeroize::Zeroizing;

use crate::args::{MemberNetworkArgs, PeerTimeoutArgs, SharedNodeArgs, parse_seconds};
use crate::failure::{Failure, Outcome};
use crate::files::{CODE_VARIABLE, parse_code};
use crate::path;
use crate::receipt::{self, Account};
use crate::receive_members;
use crate::retries::Retries;
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

/// Get the files and folders that `peersock send` offers under a code, or that members of a network send
///
/// With -n, waits as a member of a network, until another member has sent its files with `peersock send -n`.
/// The session proves which member that is. The command asks before it receives anything, so it needs a
/// terminal, --from or --yes.
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
  peersock receive -n team
  peersock receive -n team --from alpha --keep --to ~/Downloads
  peersock receive --to ~/Downloads --root 'TEXT THAT peersock root PRINTED' 0R64E-5YRY4-JQV4Q")]
pub(crate) struct Args {
    /// Code that `peersock send` has printed [default: a line of stdin]
    ///
    /// The process list shows an argument, but not PEERSOCK_CODE.
    #[arg(value_name = "CODE", env = CODE_VARIABLE, hide_env_values = true)]
    code: Option<Zeroizing<String>>,

    /// Write everything into this folder
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    pub(crate) to: PathBuf,

    /// Replace existing files and links that are different
    #[arg(long)]
    pub(crate) overwrite: bool,

    /// List the offered files, and receive nothing
    #[arg(long)]
    pub(crate) list: bool,

    /// Give up if the sender is not found within SECONDS [default: 15, with a DHT 60; with -n never]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,

    /// After the connection breaks, retry until nothing has arrived for SECONDS; with -n, wait for the sender
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "120")]
    pub(crate) retry: Duration,

    /// Receive from the member NAME of the network without asking, and from no other; may be repeated
    ///
    /// A member without a name is given by its address.
    #[arg(long, value_name = "NAME")]
    pub(crate) from: Vec<String>,

    /// Receive from every member of the network without asking
    #[arg(long)]
    pub(crate) yes: bool,

    /// Continue after one member's files have been received, until Ctrl-C
    #[arg(short, long)]
    pub(crate) keep: bool,

    #[command(flatten)]
    pub(crate) network: MemberNetworkArgs,

    #[command(flatten)]
    pub(crate) node: SharedNodeArgs,

    #[command(flatten)]
    pub(crate) silence: PeerTimeoutArgs,

    /// Print only errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    if args.is_from_members()? {
        return receive_members::run(args, folder(args)?);
    }
    args.node.refuse_for_code()?;
    let code = code(args)?;
    let folder = folder(args)?;
    let meeting = code.meeting()?;
    let session = Session::open_as(&args.node, meeting.network, IdentitySource::Ephemeral, |signal, _| {
        stdio::note("stopped; received data is kept, and the same command continues with it");
        128 + signal
    })?;
    let _roots = session.watch_roots()?;
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
        account: Account::new(None, args.list, args.quiet, {
            let node = session.node.clone();
            Box::new(move || path::way_to(&node, meeting.address.into()))
        }),
    };
    let received = receiver.run();
    receiver.account.meter.clear();
    receiver.account.conclude(&received?)?;
    drop(receiver);
    session.close()
}

impl Args {
    /// Returns true if members of a network send the files, and not the sender of a code.
    fn is_from_members(&self) -> Outcome<bool> {
        let of_members = [
            (self.network.is_given(), "-n"),
            (self.network.has_secret(), "--secret-file"),
            (!self.from.is_empty(), "--from"),
            (self.yes, "--yes"),
            (self.keep, "--keep"),
        ];
        let Some((_, option)) = of_members.iter().find(|(is_given, _)| *is_given) else { return Ok(false) };
        // The variable may be set for another command.
        let of_environment = std::env::var(CODE_VARIABLE).ok().map(Zeroizing::new);
        match self.code != of_environment && self.code.is_some() {
            true => Err(Failure::usage(
                format_args!("{option} is for files from members of a network, and a code is given"),
                format_args!("leave {option} out, or leave the code out"),
            )),
            false => Ok(true),
        }
    }
}

fn folder(args: &Args) -> Outcome<Folder> {
    Folder::open(&args.to).map_err(|error| {
        Failure::new(
            format_args!("cannot receive into {}: {error}", args.to.display()),
            "give --to DIR with an existing folder that you may write to",
        )
    })
}

/// Returns the code from the command line or environment, or reads it from stdin.
fn code(args: &Args) -> Outcome<Code> {
    if let Some(text) = args.code.as_deref().filter(|text| !text.is_empty()) {
        return parse_code(text, "peersock send");
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
        text => parse_code(text, "peersock send"),
    }
}

struct Receiver<'a> {
    args: &'a Args,
    session: &'a Session,
    folder: Folder,
    address: IpAddr,
    watch: silence::Watch,
    account: Account,
}

impl Receiver<'_> {
    /// Connects and receives. Reconnects after each break while data arrives in between.
    fn run(&self) -> Outcome<Receipt> {
        let mut stream = self.find()?;
        let mut retries = Retries::new(self.args.retry);
        loop {
            let result = self.attempt(&stream);
            drop(stream);
            let error = match result {
                Ok(receipt) => return Ok(receipt),
                Err(error) if !error.is_worth_another_try() => return Err(self.failure(&error)),
                Err(error) => error,
            };
            self.account.meter.clear();
            // Ends here if a signal has shut down the node.
            signals::leave_to_cleanup();
            retries.note_break(self.account.received(), Instant::now());
            if !self.args.quiet {
                let seconds = retries.left(Instant::now()).as_secs_f64();
                stdio::note(format_args!(
                    "{}; trying again for up to {seconds:.0} s",
                    receipt::broken(&error)
                ));
            }
            stream = loop {
                let left = retries.left(Instant::now());
                if left.is_zero() {
                    return Err(self.failure(&error));
                }
                thread::sleep(RECONNECT_PAUSE.min(left));
                match self.connect(left.max(RECONNECT_PAUSE)) {
                    Ok(stream) => break stream,
                    Err(error) => tracing::info!(%error, "the sender is not there"),
                }
            };
        }
    }

    /// Looks for the sender, and connects once it is found.
    fn find(&self) -> Outcome<TcpStream> {
        let within = self.args.timeout.unwrap_or_else(|| self.args.node.reach_timeout());
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
        let received = peersock_files::receive(stream, &self.folder, options, &self.account);
        drop(watched);
        received
    }

    fn failure(&self, error: &ReceiveError) -> Failure {
        receipt::failure(
            error,
            "if the sender has ended, start it there with `peersock send --code CODE` and the same files",
        )
    }
}
