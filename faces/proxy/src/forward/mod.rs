//! Forwards: clients of one place are connected to another place.

mod udp;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::activation::Activated;
use crate::datagrams::Datagrams;
use crate::error::DialError;
use crate::event::{Event, Tell};
use crate::gate::{Gate, dial_system};
use crate::identity::http::Requests;
use crate::identity::relay::{HEAD, relay_requests};
use crate::identity::{Introduction, fields, proxy_v2};
use crate::listener::{Listener, bind, listen, place_of};
use crate::overlay::Overlay;
use crate::place::{Forward, Place, Protocol, with_protocol};
use crate::proxy::ListenError;
use crate::relay::relay;
use crate::serve::{Client, Reception, called};
use crate::slots::Slots;
use crate::stop::Stopper;
use crate::stream::Link;
use crate::target::Target;

/// Settings of forwards.
///
/// ```
/// use std::time::Duration;
///
/// use peersock_proxy::ForwardSettings;
///
/// assert_eq!(ForwardSettings::default().udp_idle, Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct ForwardSettings {
    /// Timeout of connecting to the remote place. Default: 15 s.
    pub timeout: Duration,
    /// Idle time after which a flow of datagrams ends. Default: 60 s.
    pub udp_idle: Duration,
    /// Limit of simultaneous connections, and of simultaneous flows of datagrams; one member, or one client
    /// on another machine, gets half of them. Default: 512.
    pub most: usize,
    /// Form in which services of the system learn which member has connected; `None` for not at all. A
    /// connection from an unknown member is refused then. Default: `None`.
    pub introduction: Option<Introduction>,
}

impl Default for ForwardSettings {
    fn default() -> ForwardSettings {
        let second = Duration::from_secs(1);
        ForwardSettings { timeout: 15 * second, udp_idle: 60 * second, most: 512, introduction: None }
    }
}

/// The destination of a forward.
#[derive(Debug, Clone)]
enum Lead {
    Overlay(Target),
    System(Target),
    Path(PathBuf),
}

/// Forwards that listen.
///
/// ```
/// use std::sync::Arc;
///
/// use peersock::{IdentitySource, Interfaces, Network, Node};
/// use peersock_proxy::{Activated, Forward, ForwardSettings, Forwards};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// let home = node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
/// let forward = Forward::parse("127.0.0.1:0", &format!("[{}]:80", home.address()))?;
/// let tell = Arc::new(|event| eprintln!("{event}"));
/// let settings = ForwardSettings::default();
/// let forwards = Forwards::listen(&node, &[forward], settings, &mut Activated::none(), tell).await?;
/// for line in forwards.lines() {
///     println!("{line}");
/// }
/// let stopper = forwards.stopper();
/// let running = tokio::spawn(forwards.run());
/// # tokio::task::spawn_blocking(move || stopper.stop(std::time::Duration::ZERO)).await?;
/// running.await??;
/// # Ok(())
/// # }
/// ```
pub struct Forwards {
    connections: Vec<(Listener, Lead)>,
    datagrams: Vec<(Datagrams, Lead)>,
    lines: Vec<String>,
    settings: ForwardSettings,
    gate: Gate,
    reception: Arc<Reception>,
    stopper: Stopper,
}

impl Forwards {
    /// Listens. [`Forwards::run`] serves the clients. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`ListenError`]; then no listener stays open.
    pub async fn listen(
        overlay: impl Into<Overlay>,
        forwards: &[Forward],
        settings: ForwardSettings,
        activated: &mut Activated,
        tell: Tell,
    ) -> Result<Forwards, ListenError> {
        let overlay = &overlay.into();
        let (mut connections, mut datagrams, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for forward in forwards {
            let refused = |source| ListenError::refused(&forward.local, source);
            let lead = lead(&forward.remote);
            let mut places = Vec::new();
            if forward.protocol == Protocol::Tcp {
                for listener in listen(overlay, &forward.local, activated).await.map_err(refused)? {
                    places.push(listener.place());
                    connections.push((listener, lead.clone()));
                }
            } else {
                for socket in bind(overlay, &forward.local, activated).await.map_err(refused)? {
                    let is_overlay = socket.is_overlay();
                    places.push(socket.local_addr().ok().map(|at| place_of(is_overlay, at)));
                    datagrams.push((socket, lead.clone()));
                }
            }
            let remote = with_protocol(forward.protocol, &forward.remote);
            lines.extend(places.into_iter().map(|place| {
                let local = place.as_ref().unwrap_or(&forward.local);
                format!("{} {remote}", with_protocol(forward.protocol, local))
            }));
        }
        let slots = Slots::with_reserve(settings.most);
        let (stopper, stop) = Stopper::new(slots.clone());
        let gate = Gate::new(overlay, false, settings.timeout);
        let reception =
            Arc::new(Reception { overlay: overlay.clone(), slots, stop, tell, asks_for_proof: false });
        Ok(Forwards { connections, datagrams, lines, settings, gate, reception, stopper })
    }

    /// Returns a line for each listener: its place with the actual port, and its destination, in the form
    /// that [`Forward::parse`] accepts.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Returns a handle that ends the forwards.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves clients until stopped.
    ///
    /// # Errors
    /// `NetworkDown` if the node has ended.
    pub async fn run(self) -> io::Result<()> {
        let Forwards { connections, datagrams, settings, gate, reception, .. } = self;
        let (mut flows, slots) = (JoinSet::new(), Slots::with_reserve(settings.most));
        for (socket, lead) in datagrams {
            let (gate, stop) = (gate.clone(), reception.stop.clone());
            let limits = udp::Limits {
                slots: slots.clone(),
                idle: settings.udp_idle,
                tell: Arc::clone(&reception.tell),
            };
            flows.spawn(async move {
                tokio::select! {
                    error = udp::forward(Arc::new(socket), lead, &gate, &limits) => Err(error),
                    () = stop.draining() => Ok(()),
                }
            });
        }
        let (timeout, introduction) = (settings.timeout, settings.introduction);
        let serve = |(listener, lead): (Listener, Lead)| {
            let (gate, reception) = (gate.clone(), Arc::clone(&reception));
            let serve = move |client: Client| {
                let (lead, gate, reception) = (lead.clone(), gate.clone(), Arc::clone(&reception));
                async move {
                    let introduction = introduction.filter(|_| !matches!(lead, Lead::Overlay(_)));
                    connect(client, &lead, &gate, &reception, timeout, introduction).await;
                }
            };
            (listener, serve)
        };
        let accepting = reception.accept(connections.into_iter().map(serve).collect());
        let passing = async {
            while let Some(ended) = flows.join_next().await {
                ended.map_err(io::Error::other)??;
            }
            io::Result::Ok(())
        };
        tokio::try_join!(accepting, passing)?;
        reception.stop.cut().await;
        Ok(())
    }
}

/// Converts a place that was checked to be a destination.
fn lead(place: &Place) -> Lead {
    let target = |host: &Option<crate::Host>, port: &u16| Target {
        host: host.clone().unwrap_or(crate::Host::Name("localhost".into())),
        port: *port,
    };
    match place {
        Place::Overlay { host, port } => Lead::Overlay(target(host, port)),
        Place::System { host, port } => Lead::System(target(host, port)),
        Place::Unix(path) => Lead::Path(path.clone()),
        Place::Activated(name) => Lead::Path(name.into()),
    }
}

/// Connects a client to the forward's destination.
async fn connect(
    client: Client,
    lead: &Lead,
    gate: &Gate,
    reception: &Reception,
    timeout: Duration,
    introduction: Option<Introduction>,
) {
    let Client { mut link, peer, local, .. } = client;
    link.prove_by_bytes();
    let dialed = reception.stop.unless_cut(dial(lead, gate, timeout)).await;
    match dialed {
        Ok(Ok(other)) => match introduction {
            None => relay(link, other, &reception.stop).await,
            Some(introduction) => introduce(introduction, link, other, (peer, local), reception).await,
        },
        Ok(Err(error)) => {
            let event =
                Event::Failed { client: called(peer), target: lead.to_string(), reason: error.to_string() };
            (reception.tell)(event);
            // Do not pass on even the end of an empty stream, because the client might take it for an answer.
            link.reset();
        }
        Err(_) => link.reset(),
    }
}

/// Relays a connection of a member to a service that learns which one it is.
async fn introduce(
    introduction: Introduction,
    link: Link,
    mut other: Link,
    (peer, local): (Option<SocketAddr>, Option<SocketAddr>),
    reception: &Reception,
) {
    let (Some(peer), Some(local), Some(member)) = (peer, local, link.peer()) else {
        // Without a name the service could take the client for a program of this machine.
        other.reset();
        return link.reset();
    };
    match introduction {
        Introduction::Http => {
            let requests = Requests::new(&fields(&member));
            relay_requests(link, other, requests, HEAD, &reception.stop).await
        }
        Introduction::ProxyV2 => {
            let header = proxy_v2::header(peer, local, &member);
            let written = reception.stop.unless_cut(other.write_all(&header)).await;
            match written {
                Ok(Ok(())) => relay(link, other, &reception.stop).await,
                _ => {
                    other.reset();
                    link.reset();
                }
            }
        }
    }
}

async fn dial(lead: &Lead, gate: &Gate, timeout: Duration) -> Result<Link, DialError> {
    let connected = async {
        match lead {
            Lead::Overlay(target) => Ok(gate.dial(target).await?.link),
            Lead::System(target) => Ok(dial_system(None, target).await?.link),
            Lead::Path(path) => Ok(Link::new(UnixStream::connect(path).await?)),
        }
    };
    tokio::time::timeout(timeout, connected).await.map_err(|_| DialError::TimedOut)?
}

impl std::fmt::Display for Lead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lead::Overlay(target) | Lead::System(target) => target.fmt(f),
            Lead::Path(path) => path.display().fmt(f),
        }
    }
}

/// Returns the first address of a datagram destination.
async fn datagram_place(lead: &Lead, gate: &Gate) -> Result<SocketAddr, DialError> {
    match lead {
        Lead::Overlay(target) => match gate.route(target)? {
            crate::gate::Route::Overlay(addresses) => Ok(addresses[0]),
            crate::gate::Route::System => Err(DialError::ForeignName),
        },
        Lead::System(target) => {
            let found = tokio::time::timeout(gate.timeout(), target.resolve()).await;
            let found = found.map_err(|_| DialError::TimedOut)?;
            found.map_err(|_| DialError::UnknownName)?.first().copied().ok_or(DialError::UnknownName)
        }
        Lead::Path(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
    }
}
