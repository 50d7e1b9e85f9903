//! `peersock dial`

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::args::{NetworkArgs, PeerTimeoutArgs, SharedNodeArgs, parse_seconds};
use crate::datagrams::{self, Partner};
use crate::failure::{Failure, Outcome};
use crate::member::Member;
use crate::output::note;
use crate::progress::Progress;
use crate::reach;
use crate::silence;
use crate::sockets::Stream;
use crate::stdio::{self, Stdin};
use crate::stream::{self, AfterPeer, Input};
use crate::tickets::{self, Lead, TICKET_VARIABLE};

/// Default time that `--udp` waits for an answer after the end of stdin.
const UDP_IDLE: Duration = Duration::from_secs(1);

/// Connect to a program in a network: stdin is sent, received data goes to stdout
///
/// The end of stdin closes only this direction; the connection ends when the peer has finished, too. The exit
/// status is 0 only if the peer has acknowledged everything and has not closed with data unread. A peer that
/// owes an answer and stays silent for 25 s counts as dead (see --peer-timeout). A line on stderr reports the
/// silence after a third of that time, and its end if the peer answers again. With --udp, each line of stdin,
/// and each 1024 bytes of a longer line, is one datagram. At the end a line on stderr says whether the path
/// was direct, unless --quiet.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock dial -n ff0001ffff000000 '[fd12:3456:789a:…]:7000'
  peersock dial 'peersock://TEXT THAT listen --ticket PRINTED'
  peersock dial 0R64E-5YRY4-JQV4Q    # the code that listen --code has printed
  tar c . | peersock dial -n ff0001ffff000000 '[fd12:3456:789a:…]:7000'
  echo status | peersock dial --udp -n office.toml alpha:7000")]
pub(crate) struct Args {
    #[arg(
        help = "Target: '[IPV6]:PORT', IPV4:PORT, or NAME:PORT in a static or managed network; or a ticket of \
                  `share` or `listen --ticket`, a code of `listen --code`, @FILE with one, or - for a line of \
                  stdin before the data"
    )]
    // A ticket in the variable is not in the process list.
    #[arg(env = TICKET_VARIABLE, hide_env_values = true)]
    target: String,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: SharedNodeArgs,

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
    let lead = tickets::named(&args.target)?;
    let stdin = (!args.receive_only).then(Stdin::open).transpose()?;
    let stdout = stdio::stdout()?;
    let begin = Instant::now();
    let reach_timeout = |lead: &Lead| tickets::reach_timeout(&args.node, lead);
    let reach_timeout = lead.as_ref().map_or_else(|| args.node.reach_timeout(), reach_timeout);
    let timeout = args.timeout.unwrap_or(reach_timeout);
    let (member, targets) = match &lead {
        Some(lead) => by_lead(args, lead, timeout)?,
        None => by_address(args, timeout)?,
    };
    let target = targets[0];

    if args.udp {
        let local = SocketAddr::new(member.address_like(target.ip()), 0);
        let socket = member.datagrams(local)?;
        socket.connect(target).map_err(|error| explain(&member, target, error))?;
        let idle = args.idle.unwrap_or(UDP_IDLE);
        let is_unanswered =
            datagrams::run(&socket, stdin.as_ref(), &stdout, Partner::Fixed(target), Some(idle))?;
        if is_unanswered && !member.carries_datagrams(target.ip()) {
            return Err(reach::carries_too_little("datagrams did not arrive", ""));
        }
    } else {
        let explained = |failure| member.explained(failure);
        let stream = connect(&member, &targets, begin + timeout).map_err(explained)?;
        let watch = silence::Watch::start(member.heard(), args.silence.peer_timeout, true)?;
        let _watched = watch.add(&stream, stream.peer_addr()?.ip())?;
        let input = stdin.as_ref().map_or(Input::EmptyAtEnd, |stdin| Input::Stdin { stdin, turn: None });
        let progress = Progress::start(input.is_stdin(), args.quiet);
        stream::run(&stream, &input, &mut &stdout, AfterPeer::Continue, &progress).map_err(explained)?;
    }
    if !args.quiet
        && let Some(way) = member.way_to(target.ip())
    {
        note(format_args!("{target} was reached: {way}"));
    }
    member.close()
}

/// Finds the target in a network that both ends name.
fn by_address(args: &Args, timeout: Duration) -> Outcome<(Member, Vec<SocketAddr>)> {
    let network = args.network.resolve_for(&args.node, &args.node.state)?;
    Member::open_to("dial", &args.node, network, &args.target, (timeout, args.quiet), || {})
}

/// Finds the program of a ticket or a code.
fn by_lead(args: &Args, lead: &Lead, timeout: Duration) -> Outcome<(Member, Vec<SocketAddr>)> {
    if args.network.is_given() {
        return Err(Failure::usage(
            format_args!("a {} has its own network, and another one is named", lead.kind()),
            "leave -n and --secret-file out",
        ));
    }
    let member = tickets::find(&args.node, lead, Some(timeout), args.quiet, || {})?;
    Ok((member, vec![lead.ticket.address()]))
}

/// Connects to the first of a member's addresses that accepts.
fn connect(member: &Member, targets: &[SocketAddr], until: Instant) -> Outcome<Stream> {
    let mut refused = Vec::new();
    for target in targets {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match member.connect(*target, left) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                refused.push(target.to_string())
            }
            other => return other.map_err(|error| explain(member, *target, error)),
        }
    }
    Err(Failure::new(
        format_args!("nothing listens on {}", refused.join(" or ")),
        "start `peersock listen` there, or check the port; if it serves another client now, use `listen -k` \
         for several",
    ))
}

fn explain(member: &Member, target: SocketAddr, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied => member.port_outside(target.port()),
        _ => Failure::new(
            format_args!("cannot connect to {target}: {error}"),
            "check that the program at the other end still runs; -v shows what was tried",
        ),
    }
}
