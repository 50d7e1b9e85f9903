//! `peersock listen`

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use peersock_proxy::Ticket;

use crate::args::{NetworkArgs, PeerTimeoutArgs, SharedNodeArgs, parse_port, parse_seconds};
use crate::clients::{self, Service, Streams};
use crate::datagrams::{self, Partner};
use crate::exec::Program;
use crate::failure::{Failure, Outcome};
use crate::managed;
use crate::member::Member;
use crate::names;
use crate::open_network;
use crate::progress::Progress;
use crate::session;
use crate::silence;
use crate::sockets::{Listener, Stream};
use crate::stdio::{self, Stdin};
use crate::stream::{self, AfterPeer, Input};
use crate::tickets::{self, Lead};

/// Accept a connection from a network: received data goes to stdout, stdin is sent back
///
/// Ends after one connection, when both sides have finished; the end of stdin closes only this direction. If
/// stdin is a terminal, the peer's end is enough. Other clients are refused meanwhile. The exit status is 0
/// only if the peer has acknowledged everything and has not closed with data unread. A peer that owes an
/// answer and stays silent for 25 s counts as dead (see --peer-timeout). A line on stderr reports the silence
/// after a third of that time, and its end if the peer answers again.
///
/// With --receive-only, this direction is closed when all received data is written, so that a `dial` that
/// ends with status 0 knows of that. Use it where stdin is empty, as in services: if stdin ends first, the
/// peer does not learn that its last bytes were not written. With --udp, each line of stdin, and each 1024
/// bytes of a longer line, is one datagram to the first peer that sent one.
///
/// With -k, clients are served until Ctrl-C, up to 256 at once and 64 of one peer. Others wait for their
/// turn, up to 64 of each peer, and a line on stderr says so. A peer without a served client may exceed this,
/// up to 512 clients in all. A client is done when it has closed its side; a slow or dead client delays no
/// other. The data of a single client appears as it arrives. The data of several is mixed by lines: a line
/// appears when it is complete, or 64 KiB long. Stdin goes to the client that has been connected longest, and
/// then to the next. With -k and --udp, the datagrams of all peers are shown, and stdin goes to the latest
/// sender.
///
/// With --exec, each connection is the stdin and stdout of a separate program, as inetd does it; stderr is
/// this command's. The variables PEERSOCK_PEER_NETWORK, _NODE, _MACHINE, _NAME, _LABEL, _TAGS (with commas),
/// _CLAIMS (hexadecimal), _GATEWAY (1, or unset), _ADDRESS and _PORT tell it who has connected. A variable
/// without a value is unset. The connection ends when the program has ended. If the connection breaks, the
/// program gets SIGTERM, and SIGKILL 3 s later. On Ctrl-C, programs may continue for 5 s before that.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock listen -n ff0001ffff000000 7000
  peersock listen --ticket --dht     # prints the `dial` for the other end
  peersock listen --code             # the same, short enough to be read out
  peersock listen -n ff0001ffff000000 7000 | tar x
  peersock listen -k --receive-only -n office.toml 7000 >> log
  peersock listen -k -n office.toml 7000 --exec /usr/sbin/sshd -i")]
pub(crate) struct Args {
    /// Port to listen on; 0 picks a free one
    #[arg(value_parser = parse_port, required_unless_present_any = ["ticket", "code"])]
    port: Option<u16>,

    /// Print a ticket, with which `peersock dial TICKET` connects from anywhere
    ///
    /// Listens in a separate secret network instead of -n, with a separate identity. The ticket ends with the
    /// command. It is a secret: who has it can connect. It holds the roots and the use of the DHT that the
    /// options name.
    #[arg(long, conflicts_with_all = ["port", "bind", "state"])]
    ticket: bool,

    /// Print a code of 15 letters and digits, with which `peersock dial CODE` connects
    ///
    /// As --ticket, but short enough to be typed. It holds neither roots nor the use of the DHT, so both
    /// commands need the same --root or --dht, except on one LAN.
    #[arg(long, conflicts_with_all = ["port", "bind", "state", "ticket"])]
    code: bool,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: SharedNodeArgs,

    /// Listen only on this address [default: all addresses of this node; with --udp its own IPv6 address]
    #[arg(long, value_name = "ADDR")]
    bind: Option<IpAddr>,

    /// Receive datagrams instead of a connection
    #[arg(short, long)]
    udp: bool,

    /// Keep listening after a client has finished
    #[arg(short, long)]
    keep: bool,

    /// With --udp: exit when nothing has arrived for SECONDS after the end of stdin [default: never]
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = parse_seconds, requires = "udp")]
    idle: Option<Duration>,

    #[command(flatten)]
    silence: PeerTimeoutArgs,

    /// Show no progress on the terminal
    #[arg(short, long)]
    quiet: bool,

    /// Only receive; do not read stdin
    #[arg(long)]
    receive_only: bool,

    /// Start PROGRAM for each connection, which is its stdin and stdout; all further words are its own
    #[arg(long, value_names = ["PROGRAM", "ARGUMENT"], num_args = 1.., allow_hyphen_values = true)]
    #[arg(conflicts_with_all = ["udp", "receive_only"])]
    exec: Vec<OsString>,
}

impl Args {
    fn port(&self) -> u16 {
        self.port.unwrap_or(Ticket::PORT)
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    if !args.exec.is_empty() {
        return execute(args);
    }
    let stdin = (!args.receive_only).then(Stdin::open).transpose()?;
    let stdout = stdio::stdout()?;
    let (lead, member) = open(args, || {})?;
    let lead = lead.as_ref();
    let result = match (args.udp, args.keep) {
        (true, _) => datagrams(args, &member, lead, stdin.as_ref(), &stdout),
        (false, true) => listeners(args, &member, lead).and_then(|listeners| {
            let service = Service::Streams(Streams::new(stdin, stdout));
            clients::serve(&member, listeners, service, args.silence.peer_timeout)
        }),
        (false, false) => one_connection(args, &member, lead, stdin.as_ref(), &stdout),
    };
    // Closes the session in any case, because earlier clients may have data in flight.
    result.and(member.close())
}

/// Serves connections by programs.
fn execute(args: &Args) -> Outcome {
    let program = Arc::new(Program::find(&args.exec)?);
    let ending = Arc::clone(&program);
    let (lead, member) = open(args, move || ending.end())?;
    let listeners = listeners(args, &member, lead.as_ref());
    let result = listeners.and_then(|listeners| {
        if args.keep {
            let service = Service::Program(program);
            return clients::serve(&member, listeners, service, args.silence.peer_timeout);
        }
        let (stream, client) = accept_one(&member, listeners)?;
        tracing::info!(%client, "connected");
        let watch = silence::Watch::start(member.heard(), args.silence.peer_timeout, true)?;
        let _watched = watch.add(&stream, client.ip())?;
        program.serve(&stream, client).map_err(|failure| member.explained(failure))
    });
    // Closes the session in any case, because earlier clients may have data in flight.
    result.and(member.close())
}

/// Becomes a member, by a ticket or a code if one is asked for. On Ctrl-C, `farewell` runs first.
fn open(args: &Args, farewell: impl FnOnce() + Send + 'static) -> Outcome<(Option<Lead>, Member)> {
    if args.ticket || args.code {
        return with_lead(args, farewell);
    }
    let network = args.network.resolve_for(&args.node, &args.node.state)?;
    // A mistake in the port starts no node. Binding a UDP socket would succeed, because a client may use any
    // port, but no peer could reach a server there.
    if args.port() != 0 {
        session::check_port(&network, args.port())?;
    }
    let member = Member::open_in_until("listen", &args.node, network, farewell)?;
    member.warn_of_other_port(args.node.overlay_port);
    Ok((None, member))
}

/// Issues a ticket or a code, and becomes the member that it leads to.
fn with_lead(args: &Args, farewell: impl FnOnce() + Send + 'static) -> Outcome<(Option<Lead>, Member)> {
    let option = if args.code { "--code" } else { "--ticket" };
    if args.network.is_given() {
        return Err(Failure::usage(
            format_args!("{option} makes a separate network, and another one is named"),
            format_args!("leave -n and --secret-file out, or leave {option} out"),
        ));
    }
    let (lead, member) = match args.code {
        true => tickets::issue_code(&args.node, farewell)?,
        false => tickets::issue(&args.node, farewell)?,
    };
    Ok((Some(lead), member))
}

fn one_connection(
    args: &Args,
    member: &Member,
    lead: Option<&Lead>,
    stdin: Option<&Stdin>,
    stdout: &File,
) -> Outcome {
    let (stream, client) = accept_one(member, listeners(args, member, lead)?)?;
    tracing::info!(%client, "connected");
    let watch = silence::Watch::start(member.heard(), args.silence.peer_timeout, true)?;
    let _watched = watch.add(&stream, client.ip())?;
    let input = stdin.map_or(Input::EmptyAtEnd, |stdin| Input::Stdin { stdin, turn: None });
    let progress = Progress::start(input.is_stdin(), args.quiet);
    let run = stream::run(&stream, &input, &mut &*stdout, AfterPeer::Continue, &progress);
    run.map_err(|failure| member.explained(failure))
}

/// Opens one listener for the given address, or one for each of this node's addresses.
fn listeners(args: &Args, member: &Member, lead: Option<&Lead>) -> Outcome<Vec<Listener>> {
    let addresses = args.bind.map_or_else(|| member.addresses(), |address| vec![address]);
    let mut port = args.port();
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let local = SocketAddr::new(address, port);
        let listener = member.listen(local).map_err(|error| explain(member, local, error))?;
        // If the first listener picked a port, the others use the same.
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    // Announces only after all listeners are open, because readers of the line may connect to any address.
    for listener in &listeners {
        announce(member, listener.local_addr()?);
    }
    if let Some(listener) = listeners.first() {
        announce_command(args, member, listener.local_addr()?, lead);
    }
    Ok(listeners)
}

/// Accepts the first client of all listeners. Later clients are refused, and reset if they are already
/// connected, because no other client will be served.
fn accept_one(member: &Member, listeners: Vec<Listener>) -> Outcome<(Stream, SocketAddr)> {
    let (clients, first) = mpsc::channel::<Outcome<(Stream, SocketAddr)>>();
    let clients = Arc::new(clients);
    // It outlives this call.
    let waiting = Arc::downgrade(&clients);
    managed::on_removal(member.network().id(), move |failure| {
        if let Some(clients) = waiting.upgrade() {
            let _ = clients.send(Err(failure));
        }
    })?;
    let close_all = || listeners.iter().for_each(Listener::close);
    thread::scope(|scope| {
        for listener in &listeners {
            let clients = Arc::clone(&clients);
            let waiting = thread::Builder::new().spawn_scoped(scope, move || {
                // The listener is closed once another one has a client.
                let accepted = listener.accept();
                let _ = clients.send(accepted.map_err(Failure::from));
            });
            // Ends the threads that already wait.
            waiting.inspect_err(|_| close_all())?;
        }
        let accepted = first.recv().expect("`clients` is still here");
        close_all();
        drop(clients);
        for (other, _) in first.iter().flatten() {
            // Resets the connection, because the end of an empty stream might look like an answer.
            other.give_up()?;
        }
        accepted
    })
}

fn datagrams(
    args: &Args,
    member: &Member,
    lead: Option<&Lead>,
    stdin: Option<&Stdin>,
    stdout: &File,
) -> Outcome {
    let address = args.bind.unwrap_or(member.addresses()[0]);
    let local = SocketAddr::new(address, args.port());
    let socket = member.datagrams(local).map_err(|error| explain(member, local, error))?;
    managed::on_removal(member.network().id(), |failure| stdio::note(managed::told(&failure)))?;
    announce(member, socket.local_addr()?);
    announce_command(args, member, socket.local_addr()?, lead);
    let partner = if args.keep { Partner::Latest } else { Partner::First };
    datagrams::run(&socket, stdin, stdout, partner, args.idle).map(drop)
}

/// Prints this node's address on stderr, and if everybody can join. Scripts use `peersock addr` instead.
fn announce(member: &Member, local: SocketAddr) {
    stdio::note(format_args!("listening on {local} in network {}", member.network().id()));
    open_network::tell([member.network()]);
}

/// Prints the command for the other end.
fn announce_command(args: &Args, member: &Member, local: SocketAddr, lead: Option<&Lead>) {
    let udp = if args.udp { "--udp " } else { "" };
    if let Some(lead) = lead {
        stdio::note(format_args!("connect with: peersock dial {udp}{}", lead.words(&args.node).as_str()));
        return tickets::announce(&args.node, lead);
    }
    // An open network needs no lasting identity; with --ephemeral the command also works here.
    let identity = if member.network().summary().closed { "" } else { "--ephemeral " };
    let network = args.network.as_options(member.network());
    let node = args.node.as_options();
    let target = own_name(member, local.ip()).map_or_else(
        // Quotes the address, because brackets are special to shells.
        || format!("'{local}'"),
        |name| format!("{name}:{}", local.port()),
    );
    stdio::note(format_args!("connect with: peersock dial {identity}{udp}{network}{node} {target}"));
}

/// Returns the name of this node in a static network, if it maps to `address`.
fn own_name(member: &Member, address: IpAddr) -> Option<&str> {
    names::name_of(member.network(), address).filter(|_| address == member.addresses()[0])
}

fn explain(member: &Member, local: SocketAddr, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            let own: Vec<_> = member.addresses().iter().map(ToString::to_string).collect();
            Failure::usage(
                format_args!("{} is not an address of this node; it has {}", local.ip(), own.join(" and ")),
                "give one of those to --bind, or leave --bind out",
            )
        }
        io::ErrorKind::PermissionDenied => member.port_outside(local.port()),
        _ => Failure::new(
            format_args!("cannot listen on {local}: {error}"),
            "choose another port, or 0 for a free one",
        ),
    }
}
