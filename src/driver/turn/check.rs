//! Check of TURN servers: requests one allocation from each and releases it at once.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::slice;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use peersock_nat::turn::{Client, Event, Failure, TurnServer, TurnTransport};
use peersock_primitives::beside;
use peersock_streams::{Receiver, Sender};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::stream;
use super::udp::connect;
use crate::driver::interfaces::source_towards;
use crate::driver::stream_io;
use crate::interfaces::TurnCheck;

/// Timeout of one server.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit of servers that are asked.
const MAX_SERVERS: usize = 16;

/// Checks the servers, as [`crate::interfaces::check_turn`] describes.
pub(crate) fn check_turn(servers: &[TurnServer], only: &[String]) -> Vec<TurnCheck> {
    thread::scope(|scope| {
        let asked = servers.iter().take(MAX_SERVERS).map(|server| beside(scope, move || check(server, only)));
        let asked: Vec<_> = asked.collect();
        // The threads do not panic.
        asked.into_iter().filter_map(|one| one.join().ok()).collect()
    })
}

fn check(server: &TurnServer, only: &[String]) -> TurnCheck {
    let deadline = Instant::now() + SERVER_TIMEOUT;
    let mut check = TurnCheck {
        server: server.to_string(),
        proxy: None,
        reached: false,
        rtt_ms: None,
        relayed: None,
        error: None,
        what_to_do: None,
    };
    let asked = ask(server, only, true, &mut check, deadline).or_else(|problem| match problem {
        // The server may only have IPv6 addresses.
        Problem::Refused(Failure::NoFamily) => ask(server, only, false, &mut check, deadline),
        problem => Err(problem),
    });
    match asked {
        Ok(relayed) => check.relayed = Some(relayed),
        Err(problem) => {
            let is_udp = server.transport() == TurnTransport::Udp;
            check.what_to_do = problem.what_to_do(is_udp, check.reached).map(str::to_owned);
            check.error = Some(problem.text());
        }
    }
    check
}

/// Reason why there is no allocation.
enum Problem {
    /// The server's name has no address.
    Name(String),
    /// No permitted interface has a route to the server.
    NoWay(String),
    /// The connection failed. The text includes the advice.
    Connect(String),
    /// The transport of the messages has ended.
    Broken(String),
    Refused(Failure),
}

impl Problem {
    fn text(&self) -> String {
        match self {
            Self::Name(text) | Self::NoWay(text) | Self::Connect(text) | Self::Broken(text) => text.clone(),
            Self::Refused(why) => why.to_string(),
        }
    }

    fn what_to_do(&self, is_udp: bool, is_reached: bool) -> Option<&'static str> {
        match self {
            Self::Name(_) => Some("check the name, or give the server's IP address"),
            Self::NoWay(_) => Some("connect the machine to a network that leads there"),
            Self::Connect(_) => None,
            Self::Broken(_) if is_udp => {
                Some("check host and port; a server that takes TCP alone is written with ?transport=tcp")
            }
            Self::Broken(_) => Some("check that the port is one of a TURN server, for turns: one with TLS"),
            Self::Refused(Failure::Silent) if !is_reached && is_udp => Some(
                "check host and port; if the network lets no UDP out, write ?transport=tcp behind the port, \
                 or turns: for TLS",
            ),
            Self::Refused(Failure::Silent) => Some("check that the port is one of a TURN server"),
            Self::Refused(Failure::Unauthorized) => Some("correct the user name or the password in its text"),
            Self::Refused(Failure::Elsewhere(_)) => {
                Some("name that server, or leave it: nodes ask the other one")
            }
            Self::Refused(Failure::NoFamily | Failure::Refused(508, _)) => {
                Some("ask who runs the server for relay addresses and ports")
            }
            Self::Refused(Failure::Refused(486, _)) => {
                Some("end other nodes of this user, or ask who runs the server for a higher quota")
            }
            Self::Refused(Failure::Nonsense) => Some(
                "check the port; a server on the Internet must relay at an address of the Internet (coturn: \
                 external-ip)",
            ),
            Self::Refused(_) => Some("ask who runs the server"),
        }
    }
}

/// Requests one allocation and releases it.
fn ask(
    server: &TurnServer,
    only: &[String],
    is_ipv4: bool,
    check: &mut TurnCheck,
    deadline: Instant,
) -> Result<SocketAddr, Problem> {
    let local = |error: io::Error| Problem::NoWay(error.to_string());
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Problem::NoWay(error.to_string()))?;
    let (mut wire, place) = Wire::open(server, only, deadline)?;
    let now = Instant::now();
    let mut client = Client::new(server, is_ipv4, seed, now);
    if let Wire::Stream { proxy, .. } = &wire {
        client = client.over_stream(now);
        check.proxy.clone_from(proxy);
    }
    if check.proxy.is_none() {
        client = client.at(place);
    }
    let mut sent = now;
    let result = loop {
        while let Some(message) = client.poll_transmit() {
            sent = Instant::now();
            wire.send(&message).map_err(local)?;
        }
        match client.poll_event() {
            Some(Event::Allocated(relayed)) => break Ok(relayed),
            Some(Event::Ended(why)) => break Err(Problem::Refused(why)),
            None => {}
        }
        let now = Instant::now();
        if deadline <= now {
            break Err(Problem::Refused(Failure::Silent));
        }
        let until = client.poll_timeout(now).map_or(deadline, |next| next.min(deadline));
        match wire.receive(until.saturating_duration_since(now)) {
            Some(Ok(message)) => {
                let rtt = sent.elapsed().as_secs_f64() * 1e3;
                client.handle(Instant::now(), &message);
                if is_stun(&message) {
                    check.reached = true;
                    check.rtt_ms = Some(check.rtt_ms.map_or(rtt, |least| least.min(rtt)));
                }
            }
            Some(Err(error)) => break Err(Problem::Broken(error)),
            None => client.handle_timeout(Instant::now()),
        }
    };
    // Otherwise the server would keep the allocation for minutes.
    client.close();
    if let Some(last) = client.poll_transmit() {
        let _ = wire.send(&last);
    }
    wire.close();
    result
}

/// Transport of messages to a server and back.
enum Wire {
    Udp(UdpSocket),
    Stream { runtime: Runtime, sender: Sender, receiver: Receiver, proxy: Option<String> },
}

impl Wire {
    /// Opens a transport; also returns the server's address.
    fn open(server: &TurnServer, only: &[String], deadline: Instant) -> Result<(Self, SocketAddr), Problem> {
        let left = || deadline.saturating_duration_since(Instant::now());
        if server.transport() != TurnTransport::Udp {
            return Self::connect(server, only, left());
        }
        let address = resolve(server, left()).map_err(Problem::Name)?;
        let device = match only {
            [] => None,
            names => {
                let leads = |name: &&String| source_towards(address, Some(name)).is_ok();
                let no_way = || Problem::NoWay(format!("no interface that was named leads to {address}"));
                Some(names.iter().find(leads).ok_or_else(no_way)?)
            }
        };
        let socket = connect(address, device.map(String::as_str));
        let socket = socket.map_err(|error| Problem::NoWay(format!("{address}: {error}")))?;
        Ok((Self::Udp(socket), address))
    }

    fn connect(server: &TurnServer, only: &[String], left: Duration) -> Result<(Self, SocketAddr), Problem> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Problem::NoWay(error.to_string()))?;
        let devices = if only.is_empty() { vec![None] } else { only.iter().cloned().map(Some).collect() };
        let connecting = async {
            let mut last = String::new();
            for device in devices {
                match stream::connect(server, (device, None), None).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let connected = runtime.block_on(async { timeout(left, connecting).await });
        let connection = match connected {
            Ok(Ok(connection)) => connection,
            failed => {
                // A look-up of a name may hang in the system's resolver.
                runtime.shutdown_background();
                let late = format!("{} does not take the connection in time", server.target());
                return Err(match failed {
                    Ok(Err(error)) => Problem::Connect(error),
                    _ => Problem::Broken(late),
                });
            }
        };
        let (place, proxy) = (connection.remote_addr(), connection.proxy().map(str::to_owned));
        let (sender, receiver) = connection.split();
        Ok((Self::Stream { runtime, sender, receiver, proxy }, place))
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => match socket.send(message) {
                // The error belongs to an earlier datagram (ICMP); the next call returns its own.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                sent => sent.map(drop),
            },
            // If the stream has ended, receiving returns the reason.
            Self::Stream { sender, .. } => {
                let _ = sender.send(message.to_vec());
                Ok(())
            }
        }
    }

    /// Returns the next message; `None` after a timeout.
    fn receive(&mut self, patience: Duration) -> Option<Result<Vec<u8>, String>> {
        // A timeout of 0 would mean no timeout.
        let patience = patience.max(Duration::from_millis(1));
        match self {
            Self::Udp(socket) => {
                let mut buffer = vec![0; 2048];
                let read = socket.set_read_timeout(Some(patience)).and_then(|()| socket.recv(&mut buffer));
                match read {
                    Ok(length) => {
                        buffer.truncate(length);
                        Some(Ok(buffer))
                    }
                    Err(error) => match error.kind() {
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {
                            None
                        }
                        _ => Some(Err(error.to_string())),
                    },
                }
            }
            Self::Stream { runtime, receiver, .. } => {
                let received = runtime.block_on(async { timeout(patience, receiver.recv()).await });
                received.ok().map(|one| one.map(Vec::from).map_err(|reason| reason.to_string()))
            }
        }
    }

    /// Flushes the sent messages and closes the transport.
    fn close(self) {
        if let Self::Stream { runtime, sender, receiver, .. } = self {
            runtime.block_on(stream_io::drain(slice::from_ref(&sender)));
            drop(receiver);
            runtime.shutdown_background();
        }
    }
}

/// Returns true if a message looks like a STUN answer (RFC 8489, 5).
fn is_stun(message: &[u8]) -> bool {
    message.get(4..8) == Some(&[0x21, 0x12, 0xa4, 0x42])
}

/// Resolves the server's name to its first address. A hanging resolver blocks a separate thread, not the
/// caller.
fn resolve(server: &TurnServer, patience: Duration) -> Result<SocketAddr, String> {
    let (sender, receiver) = mpsc::channel();
    let name = (server.target().host.clone(), server.target().port);
    let look_up = move || {
        let found = name.to_socket_addrs().map(|mut found| found.next()).map_err(|error| error.to_string());
        let _ = sender.send(found);
    };
    thread::Builder::new().name("resolver".into()).spawn(look_up).map_err(|error| error.to_string())?;
    let found = receiver.recv_timeout(patience).unwrap_or_else(|_| Err("it was not resolved in time".into()));
    let found = found.and_then(|found| found.ok_or_else(|| "it has no address".to_owned()));
    found.map_err(|error| format!("the name {} is not resolved: {error}", server.target().host))
}
