//! `peersock listen`

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use peersock::blocking::{TcpListener, TcpStream, UdpSocket};

use crate::args::{NetworkArgs, NodeArgs, parse_seconds};
use crate::datagrams::{self, Partner};
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::stdio::{self, Stdin};
use crate::stream::{self, AfterPeer};

/// Wait for a connection from a network: what comes in goes to stdout, stdin is sent back
///
/// Ends after one connection, when both sides have finished: the end of stdin closes this direction only. If
/// stdin is a terminal, the peer's end is enough. With --udp each line of stdin, and each 1024 bytes of a
/// longer line, is one datagram to the first peer that sent one.
///
/// With -k clients are served one after the other, for ever; a client is done when it has closed its side.
/// Stdin goes to whoever is connected. With -k and --udp the datagrams of everyone are shown, and stdin goes
/// to who sent last.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock listen -n ff0001ffff000000 7000
  peersock listen -n ff0001ffff000000 7000 | tar x
  peersock listen -k --receive-only -n office.toml 7000 >> log")]
pub(crate) struct Args {
    /// Port to listen on; 0 picks a free one
    port: u16,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: NodeArgs,

    /// Listen on this address only [default: all of this node's; with --udp its own IPv6 address]
    #[arg(long, value_name = "ADDR")]
    bind: Option<IpAddr>,

    /// Receive datagrams instead of a connection
    #[arg(short, long)]
    udp: bool,

    /// Keep listening when a client has finished
    #[arg(short, long)]
    keep: bool,

    /// With --udp: end when nothing has come for so many seconds after the end of stdin [default: never]
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = parse_seconds, requires = "udp")]
    idle: Option<Duration>,

    /// Do not read stdin; only receive
    #[arg(long)]
    receive_only: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let stdin = (!args.receive_only).then(Stdin::open).transpose()?;
    let stdout = stdio::stdout()?;
    let session = Session::open(&args.node, &args.network)?;
    let result = match args.udp {
        true => datagrams(args, &session, stdin.as_ref(), &stdout),
        false => connections(args, &session, stdin.as_ref(), &stdout),
    };
    // Even a client that failed may have others before it whose data is still on its way.
    result.and(session.close())
}

fn connections(args: &Args, session: &Session, stdin: Option<&Stdin>, stdout: &File) -> Outcome {
    let clients = accept_from_all(listeners(args, session)?);
    while let Ok(accepted) = clients.recv() {
        let (stream, client) = accepted?;
        tracing::info!(%client, "connected");
        if !args.keep {
            // Nobody else is going to be served, and who tries nevertheless should not wait for it.
            drop(clients);
            return stream::run(&stream, stdin, stdout, AfterPeer::Continue);
        }
        match stream::run(&stream, stdin, stdout, AfterPeer::Stop) {
            Ok(()) => tracing::info!(%client, "finished"),
            Err(failure) if failure.status == Failure::output_closed().status => return Err(failure),
            Err(failure) => tracing::warn!(%client, "{}", failure.message),
        }
    }
    Err(Failure::new("nobody can connect any more"))
}

/// One listener for the address that was asked for, or one for each of this node's.
fn listeners(args: &Args, session: &Session) -> Outcome<Vec<TcpListener>> {
    let addresses = args.bind.map_or_else(|| session.joined.addresses(), |address| vec![address]);
    let mut port = args.port;
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let local = SocketAddr::new(address, port);
        let listener =
            TcpListener::bind_on(&session.node, local).map_err(|error| explain(session, local, error))?;
        // If the first one picked a port, the others get the same.
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    // Whoever reads that we listen may connect to any of the addresses.
    for listener in &listeners {
        announce(session, listener.local_addr()?);
    }
    Ok(listeners)
}

/// The clients of all listeners, one at a time. The listeners are closed at the next client after the
/// receiver was dropped; that client's connection, too.
fn accept_from_all(listeners: Vec<TcpListener>) -> Receiver<io::Result<(TcpStream, SocketAddr)>> {
    let (clients, receiver) = mpsc::sync_channel(0);
    for listener in listeners {
        let clients = clients.clone();
        thread::spawn(move || {
            loop {
                let accepted = listener.accept();
                let failed = accepted.is_err();
                if clients.send(accepted).is_err() || failed {
                    return;
                }
            }
        });
    }
    receiver
}

fn datagrams(args: &Args, session: &Session, stdin: Option<&Stdin>, stdout: &File) -> Outcome {
    let address = args.bind.unwrap_or(session.joined.address().into());
    let local = SocketAddr::new(address, args.port);
    let socket = UdpSocket::bind_on(&session.node, local).map_err(|error| explain(session, local, error))?;
    announce(session, socket.local_addr()?);
    let partner = if args.keep { Partner::Latest } else { Partner::First };
    datagrams::run(&socket, stdin, stdout, partner, args.idle)
}

/// Says on stderr where peers find us. Scripts know it from `peersock addr`.
fn announce(session: &Session, local: SocketAddr) {
    stdio::note(format_args!("listening on {local} in network {}", session.network.id()));
}

fn explain(session: &Session, local: SocketAddr, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            let own: Vec<_> = session.joined.addresses().iter().map(ToString::to_string).collect();
            Failure::usage(format_args!(
                "{} is not an address of this node; it has {}",
                local.ip(),
                own.join(" and ")
            ))
        }
        io::ErrorKind::PermissionDenied => {
            let ports = session.joined.allowed_ports();
            Failure::usage(format_args!(
                "port {} is outside the range {}-{} that network {} allows",
                local.port(),
                ports.start(),
                ports.end(),
                session.network.id()
            ))
        }
        _ => Failure::new(format_args!("cannot listen on {local}: {error}")),
    }
}
