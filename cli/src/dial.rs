//! `peersock dial`

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock::blocking::{TcpStream, UdpSocket};

use crate::args::{NetworkArgs, NodeArgs, PeerTimeoutArgs, parse_seconds, parse_targets};
use crate::datagrams::{self, Partner};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::reach;
use crate::root_watch;
use crate::session::Session;
use crate::silence;
use crate::stdio::{self, Stdin};
use crate::stream::{self, AfterPeer, Input};

/// Default time that `--udp` waits for an answer after the end of stdin.
const UDP_IDLE: Duration = Duration::from_secs(1);

/// Connect to a program in a network: stdin is sent, received data goes to stdout
///
/// The end of stdin closes only this direction; the connection ends when the peer has finished, too. The exit
/// status is 0 only if the peer has acknowledged everything and has not closed with data unread. A peer that
/// owes an answer and stays silent for 25 s counts as dead (see --peer-timeout). A line on stderr reports the
/// silence after a third of that time, and its end if the peer answers again. With --udp, each line of stdin,
/// and each 1024 bytes of a longer line, is one datagram.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock dial -n ff0001ffff000000 '[fd12:3456:789a:…]:7000'
  tar c . | peersock dial -n ff0001ffff000000 '[fd12:3456:789a:…]:7000'
  echo status | peersock dial --udp -n office.toml alpha:7000")]
pub(crate) struct Args {
    #[arg(help = "Target: '[IPV6]:PORT', IPV4:PORT, or NAME:PORT in a static network")]
    target: String,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: NodeArgs,

    /// Send datagrams instead of opening a connection
    #[arg(short, long)]
    udp: bool,

    /// Give up if there is no connection after SECONDS [default: 15, with a DHT 60]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,

    /// With --udp: exit when nothing has arrived for SECONDS after the end of stdin [default: 1]
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = parse_seconds, requires = "udp")]
    idle: Option<Duration>,

    #[command(flatten)]
    silence: PeerTimeoutArgs,

    /// Show no progress on the terminal, and do not report the search for the peer
    #[arg(short, long)]
    quiet: bool,

    /// Only receive: do not read stdin, and close this side after the peer has closed its own
    ///
    /// With `</dev/null` instead, this side is closed at once.
    #[arg(long)]
    receive_only: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let stdin = (!args.receive_only).then(Stdin::open).transpose()?;
    let stdout = stdio::stdout()?;
    let begin = Instant::now();
    let timeout = args.timeout.unwrap_or_else(|| args.node.patience());
    let session = Session::open(&args.node, &args.network)?;
    let targets = parse_targets(&session.network, &args.target)?;
    let target = targets[0];
    if !session.joined.allowed_ports().contains(&target.port()) {
        return Err(session.port_outside(target.port()));
    }
    let _roots = root_watch::start(&session.node)?;
    session.wait_peer(target.ip(), timeout, args.quiet)?;

    if args.udp {
        let socket = UdpSocket::bind_on(&session.node, own_address(&session, target))?;
        socket.connect(target).map_err(|error| explain(&session, target, error))?;
        let idle = args.idle.unwrap_or(UDP_IDLE);
        let is_unanswered =
            datagrams::run(&socket, stdin.as_ref(), &stdout, Partner::Fixed(target), Some(idle))?;
        if is_unanswered && session.joined.check_path(target.ip(), reach::CHECK).is_err() {
            return Err(reach::carries_too_little("datagrams did not arrive", ""));
        }
    } else {
        let stream = connect(&session, &targets, begin + timeout)?;
        let watch = silence::Watch::start(&session.joined, args.silence.peer_timeout, true)?;
        let _watched = watch.add(&stream, stream.peer_addr()?.ip())?;
        let input = stdin.as_ref().map_or(Input::EmptyAtEnd, |stdin| Input::Stdin { stdin, turn: None });
        let progress = Progress::start(input.is_stdin(), args.quiet);
        stream::run(&stream, &input, &mut &stdout, AfterPeer::Continue, &progress)?;
    }
    session.close()
}

/// Connects to the first of a member's addresses that accepts.
fn connect(session: &Session, targets: &[SocketAddr], until: Instant) -> Outcome<TcpStream> {
    let mut refused = Vec::new();
    for target in targets {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout_on(&session.node, target, left) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                refused.push(target.to_string())
            }
            other => return other.map_err(|error| explain(session, *target, error)),
        }
    }
    Err(Failure::new(
        format_args!("nothing listens on {}", refused.join(" or ")),
        "start `peersock listen` there, or check the port; if it serves another client now, use `listen -k` \
         for several",
    ))
}

fn explain(session: &Session, target: SocketAddr, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied => session.port_outside(target.port()),
        _ => Failure::new(
            format_args!("cannot connect to {target}: {error}"),
            "check that the program at the other end still runs; -v shows what was tried",
        ),
    }
}

/// Returns this node's address of the family of `target`, with any port.
fn own_address(session: &Session, target: SocketAddr) -> SocketAddr {
    let own = session.joined.addresses().into_iter().find(|own| own.is_ipv4() == target.is_ipv4());
    SocketAddr::new(own.unwrap_or(session.joined.address().into()), 0)
}
