//! Opening of pipes: connections and UDP sockets to members.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_proxy::serving::{Connection, Datagrams as Socket};
use peersock_proxy::{Host, Overlay, Protocol};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::timeout;

use super::send::Sender;
use super::table::Reserved;
use super::{Datagrams, Pipe, Receivers, echo, receive};
use crate::problem::{Kind, Problem};

/// Number of attempts to choose a port that is free at all addresses.
const FREE_PORT_ATTEMPTS: usize = 16;

/// Number of allowed ports that are tried one by one after that.
const MAX_PORTS_TRIED: usize = 64;

/// The destination of a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An echo inside this node.
    Echo,
    /// A port of this node.
    Own(Protocol, u16),
    /// A member's port.
    Member(Protocol, peersock_proxy::Target),
}

/// Parses `self`, `self:PORT`, `ADDRESS:PORT` and `NAME:PORT`, with an optional prefix `tcp:` or `udp:`.
pub(crate) fn parse_target(text: &str) -> Result<Target, Problem> {
    let wrong = || {
        Kind::BadRequest.because(format_args!(
            "`{text}` leads nowhere: write [IPV6]:PORT, IPV4:PORT, NAME:PORT or self:PORT, with udp: in \
             front for datagrams, or self for an echo of this node"
        ))
    };
    let (protocol, rest) = match (text.strip_prefix("udp:"), text.strip_prefix("tcp:")) {
        (Some(rest), _) => (Protocol::Udp, rest),
        (None, rest) => (Protocol::Tcp, rest.unwrap_or(text)),
    };
    if rest == "self" && protocol == Protocol::Tcp {
        return Ok(Target::Echo);
    }
    let target = peersock_proxy::Target::parse(rest).filter(|target| target.port != 0).ok_or_else(wrong)?;
    Ok(match &target.host {
        Host::Name(name) if name == "self" => Target::Own(protocol, target.port),
        _ => Target::Member(protocol, target),
    })
}

/// Opens a pipe to a target.
pub(crate) async fn open(
    node: &Overlay,
    reserved: Reserved,
    target: &Target,
    patience: Duration,
) -> Result<Arc<Pipe>, Problem> {
    let (protocol, addresses) = match target {
        Target::Echo => {
            let (stream, peer) = timeout(patience, echo::connect(node))
                .await
                .map_err(|_| no_answer(patience))?
                .map_err(|error| Problem::of_io(&error, "this node cannot connect to itself"))?;
            return connected(reserved, stream, peer);
        }
        Target::Own(protocol, port) => (*protocol, own_addresses(node, *port)?),
        Target::Member(protocol, member) => (*protocol, addresses_of(node, member)?),
    };
    match protocol {
        Protocol::Tcp => {
            let connecting = node.connect(&addresses);
            let connected_to = timeout(patience, connecting).await.map_err(|_| no_answer(patience))?;
            let (stream, _) = connected_to.map_err(|error| Problem::of_io(&error, "no node was reached"))?;
            let peer = stream.peer_addr().map_err(|error| Problem::of_io(&error, "it has broken at once"))?;
            connected(reserved, stream, peer)
        }
        Protocol::Udp => {
            let to = addresses[0];
            let wrong = |error: io::Error| Problem::of_io(&error, "a UDP socket was not opened");
            let socket = node.client(to.ip()).await.map_err(wrong)?;
            socket.connect(to).await.map_err(wrong)?;
            bound(reserved, vec![socket], Some(to))
        }
    }
}

/// Opens a pipe that takes datagrams from all members at a port.
pub(crate) async fn open_port(node: &Overlay, reserved: Reserved, port: u16) -> Result<Arc<Pipe>, Problem> {
    let sockets = bind_all(node, port, |at| node.bind(at), Socket::local_addr).await?;
    bound(reserved, sockets, None)
}

/// Binds sockets with one port at all addresses of the node.
pub(super) async fn bind_all<T, F: Future<Output = io::Result<T>>>(
    node: &Overlay,
    port: u16,
    bind: impl Fn(SocketAddr) -> F,
    address: impl Fn(&T) -> io::Result<SocketAddr>,
) -> Result<Vec<T>, Problem> {
    check_port(node, port)?;
    if port != 0 {
        return bind_at(node, port, &bind, &address).await;
    }
    let mut failed = Kind::Down.because("the node is in no network");
    // A port that the node chooses may be in use at another address; in a short range this may repeat.
    let allowed = node.allowed_ports().into_iter().flatten().take(MAX_PORTS_TRIED);
    for port in std::iter::repeat_n(0, FREE_PORT_ATTEMPTS).chain(allowed) {
        match bind_at(node, port, &bind, &address).await {
            Err(problem) => failed = problem,
            bound => return bound,
        }
    }
    Err(failed)
}

/// Binds sockets with one port; 0 lets the node choose it.
async fn bind_at<T, F: Future<Output = io::Result<T>>>(
    node: &Overlay,
    port: u16,
    bind: &impl Fn(SocketAddr) -> F,
    address: &impl Fn(&T) -> io::Result<SocketAddr>,
) -> Result<Vec<T>, Problem> {
    let wrong = |error: io::Error| Problem::of_io(&error, &format!("port {port} cannot be had"));
    let (mut sockets, mut chosen) = (Vec::new(), port);
    for at in own_addresses(node, port)? {
        // If the first socket has picked a port, the others get the same.
        let socket = bind(SocketAddr::new(at.ip(), chosen)).await.map_err(wrong)?;
        chosen = address(&socket).map_err(wrong)?.port();
        sockets.push(socket);
        check_port(node, chosen)?;
    }
    Ok(sockets)
}

/// Checks that the networks allow a port. 0 passes, because it is chosen later.
fn check_port(node: &Overlay, port: u16) -> Result<(), Problem> {
    match node.check_port(port) {
        Err(refusal) if port != 0 && refusal.kind() == io::ErrorKind::PermissionDenied => {
            Err(Kind::NotAllowed.because(refusal))
        }
        _ => Ok(()),
    }
}

/// Makes a pipe of a connection.
pub(super) fn connected(
    reserved: Reserved,
    stream: Connection,
    peer: SocketAddr,
) -> Result<Arc<Pipe>, Problem> {
    stream.prepare();
    let local = stream.local_addr();
    let local = local.map_err(|error| Problem::of_io(&error, "the connection has broken at once"))?;
    let identity = stream.peer();
    let (reading, writing) = stream.into_split();
    let sender = Sender::Tcp(AsyncMutex::new(Some(writing)));
    let pipe = Arc::new(Pipe::new(&reserved, sender, (local, Some(peer)), identity));
    let (open, closed) = oneshot::channel();
    let receiving = tokio::spawn(receive::connection(Arc::downgrade(&pipe), reading, peer, closed));
    let receivers = Receivers { tasks: vec![receiving.abort_handle()], open: Some(open) };
    *pipe.receivers.lock().expect("no panic under this lock") = receivers;
    Ok(reserved.fill(pipe))
}

/// Makes a pipe of UDP sockets.
fn bound(reserved: Reserved, sockets: Vec<Socket>, to: Option<SocketAddr>) -> Result<Arc<Pipe>, Problem> {
    let local = sockets[0].local_addr();
    let local = local.map_err(|error| Problem::of_io(&error, "the socket has failed at once"))?;
    let datagrams = Arc::new(Datagrams { sockets, is_connected: to.is_some() });
    let sender = Sender::Udp(Arc::clone(&datagrams));
    let pipe = Arc::new(Pipe::new(&reserved, sender, (local, to), None));
    let receiving = (0..datagrams.sockets.len()).map(|socket| {
        let receive = receive::datagrams(Arc::downgrade(&pipe), Arc::clone(&datagrams), socket);
        tokio::spawn(receive).abort_handle()
    });
    let receivers = Receivers { tasks: receiving.collect(), open: None };
    *pipe.receivers.lock().expect("no panic under this lock") = receivers;
    Ok(reserved.fill(pipe))
}

fn no_answer(patience: Duration) -> Problem {
    let seconds = patience.as_secs_f64();
    Kind::NoAnswer.because(format_args!(
        "the member has not answered within {seconds} s: check that it runs and listens"
    ))
}

/// Returns the node's addresses.
fn own_addresses(node: &Overlay, port: u16) -> Result<Vec<SocketAddr>, Problem> {
    let own = node.addresses();
    match own.is_empty() {
        true => Err(Kind::Down.because("the node is in no network")),
        false => Ok(own.into_iter().map(|address| SocketAddr::new(address, port)).collect()),
    }
}

/// Returns the addresses of a member; other hosts are refused.
pub(crate) fn addresses_of(
    node: &Overlay,
    target: &peersock_proxy::Target,
) -> Result<Vec<SocketAddr>, Problem> {
    let ended = |error: io::Error| Problem::of_io(&error, "the node has ended");
    node.check_up().map_err(ended)?;
    let addresses = match &target.host {
        Host::Ip(address) if node.contains(*address) => vec![*address],
        Host::Ip(address) => {
            return Err(
                Kind::NotAllowed.because(format_args!("{address} is no address of the node's networks"))
            );
        }
        Host::Name(name) => match node.addresses_named(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            found => found.map_err(ended)?,
        },
    };
    match addresses.is_empty() {
        true => Err(Kind::NotAllowed
            .because(format_args!("no member of the node's networks is called {}", target.host))),
        false => Ok(addresses.into_iter().map(|address| SocketAddr::new(address, target.port)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_are_understood_or_refused() {
        let member =
            |protocol, text| Target::Member(protocol, peersock_proxy::Target::parse(text).expect("a target"));
        for (text, target) in [
            ("self", Target::Echo),
            ("tcp:self", Target::Echo),
            ("self:7", Target::Own(Protocol::Tcp, 7)),
            ("udp:self:7", Target::Own(Protocol::Udp, 7)),
            ("alpha:80", member(Protocol::Tcp, "alpha:80")),
            ("udp:[fd00::1]:53", member(Protocol::Udp, "[fd00::1]:53")),
        ] {
            assert_eq!(parse_target(text).expect(text), target);
        }
        for text in
            ["", "udp:self", "self:0", "alpha", "fd00::1", "[fd00::1]", "udp:", "http://alpha:1", "a b:1"]
        {
            assert_eq!(parse_target(text).map_err(|problem| problem.kind()), Err(Kind::BadRequest), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,40}") {
            let _ = parse_target(&text);
        }
    }
}
