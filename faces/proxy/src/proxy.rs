//! A proxy for SOCKS 5 and HTTP on one port.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use peersock::Node;
use tokio::io::AsyncWriteExt as _;

use crate::activation::Activated;
use crate::attempts::Attempts;
use crate::credentials::Credentials;
use crate::error::DialError;
use crate::event::{Event, Tell};
use crate::gate::Gate;
use crate::listener::{Listener, listen};
use crate::place::Place;
pub(crate) use crate::serve::Client;
use crate::serve::{Reception, called};
use crate::slots::Slots;
use crate::stop::{Stop, Stopper};
use crate::target::Target;
use crate::{http, socks};

/// The most UDP associations.
const MOST_ASSOCIATIONS: usize = 64;

/// How a proxy serves.
///
/// ```
/// use peersock_proxy::ProxySettings;
///
/// let settings = ProxySettings::default();
/// assert_eq!(settings.listen[0].to_string(), "127.0.0.1:1080");
/// assert!(!settings.direct && !settings.without_password);
/// ```
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Where clients connect. Default: `127.0.0.1:1080`.
    pub listen: Vec<Place>,
    /// Who may use it. Default: every program that can connect.
    pub credentials: Option<Credentials>,
    /// Whether others than programs of this machine may use it without a password. Default: no.
    pub without_password: bool,
    /// Whether what is no member's is reached by the system. Default: no, it is refused.
    pub direct: bool,
    /// How long connecting to a target may take. Default: 15 s.
    pub timeout: Duration,
    /// The most connections at once; half of them of one member, or of one client on
    /// another machine. Default: 512.
    pub most: usize,
}

impl Default for ProxySettings {
    fn default() -> ProxySettings {
        ProxySettings {
            listen: vec![Place::System { host: crate::Host::parse("127.0.0.1"), port: 1080 }],
            credentials: None,
            without_password: false,
            direct: false,
            timeout: Duration::from_secs(15),
            most: 512,
        }
    }
}

/// A place cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The system or the overlay refuses it.
    #[error("cannot listen at {place}: {source}")]
    Refused {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// Others than programs of this machine could use the proxy without a password.
    #[error("{0} can be reached by others, who could use the proxy without a password")]
    Exposed(String),
}

impl ListenError {
    pub(crate) fn refused(place: &Place, source: io::Error) -> ListenError {
        ListenError::Refused { place: place.to_string(), source }
    }
}

/// What all clients of one proxy share.
pub(crate) struct Shared {
    pub(crate) gate: Gate,
    /// Who may use it; nobody is asked if there is none.
    pub(crate) attempts: Option<Attempts>,
    pub(crate) associations: Slots,
    pub(crate) stop: Stop,
    tell: Tell,
}

impl Shared {
    /// Tells that a target was not reached.
    pub(crate) fn failed(&self, client: &Client, target: &Target, error: &DialError) {
        self.tell_failed(called(client.peer), target, error);
    }

    /// As [`Shared::failed`], of a client with this name.
    pub(crate) fn tell_failed(&self, client: String, target: &Target, error: &DialError) {
        // Who runs the proxy can let it.
        let hint = match error {
            DialError::ForeignAddress | DialError::ForeignName => " (see --direct)",
            _ => "",
        };
        let (target, reason) = (target.to_string(), format!("{error}{hint}"));
        (self.tell)(Event::Failed { client, target, reason });
    }
}

/// A proxy that listens, for SOCKS 5 and HTTP at once: the first byte of a client says which it speaks.
///
/// Members of the node's networks are reached over the overlay, by name or address; all others by the system
/// if [`ProxySettings::direct`] allows it.
///
/// ```
/// use std::sync::Arc;
///
/// use peersock::{IdentitySource, Interfaces, Network, Node};
/// use peersock_proxy::{Activated, Proxy, ProxySettings};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
/// let settings = ProxySettings { listen: vec!["127.0.0.1:0".parse()?], ..ProxySettings::default() };
/// let tell = Arc::new(|event| eprintln!("{event}"));
/// let proxy = Proxy::listen(&node, settings, &mut Activated::none(), tell).await?;
/// println!("socks5h://{}", proxy.places()[0]);
/// let stopper = proxy.stopper();
/// let running = tokio::spawn(proxy.run());
/// # tokio::task::spawn_blocking(move || stopper.stop(std::time::Duration::ZERO)).await?;
/// running.await??;
/// # Ok(())
/// # }
/// ```
pub struct Proxy {
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
    reception: Arc<Reception>,
    stopper: Stopper,
}

impl Proxy {
    /// Listens. Clients are served by [`Proxy::run`]. It needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`ListenError`], and then nothing is listened at.
    pub async fn listen(
        node: &Node,
        settings: ProxySettings,
        activated: &mut Activated,
        tell: Tell,
    ) -> Result<Proxy, ListenError> {
        let mut listeners = Vec::new();
        for place in &settings.listen {
            let found = listen(node, place, activated).await;
            let found = found.map_err(|source| ListenError::refused(place, source))?;
            let needs_password = settings.credentials.is_none() && !settings.without_password;
            if needs_password && found.iter().any(Listener::is_exposed) {
                return Err(ListenError::Exposed(place.to_string()));
            }
            listeners.extend(found);
        }
        let slots = Slots::with_reserve(settings.most);
        let (stopper, stop) = Stopper::new(slots.clone());
        let shared = Arc::new(Shared {
            gate: Gate::new(node, settings.direct, settings.timeout),
            attempts: settings.credentials.map(Attempts::new),
            associations: Slots::with_reserve(MOST_ASSOCIATIONS),
            stop: stop.clone(),
            tell: Arc::clone(&tell),
        });
        let reception = Arc::new(Reception { node: node.clone(), slots, stop, tell, asks_for_proof: true });
        Ok(Proxy { listeners, shared, reception, stopper })
    }

    /// Where clients connect.
    pub fn places(&self) -> Vec<Place> {
        self.listeners.iter().filter_map(Listener::place).collect()
    }

    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves clients until it is stopped.
    ///
    /// # Errors
    /// `NetworkDown` if the node has ended.
    pub async fn run(self) -> io::Result<()> {
        let serve = |listener| {
            let shared = Arc::clone(&self.shared);
            (listener, move |client| serve(client, Arc::clone(&shared)))
        };
        self.reception.accept(self.listeners.into_iter().map(serve).collect()).await?;
        self.reception.stop.cut().await;
        Ok(())
    }
}

/// Serves a client by what it speaks.
async fn serve(mut client: Client, shared: Arc<Shared>) {
    let first = tokio::select! {
        first = client.link.fill() => first,
        () = shared.stop.draining() => return client.link.reset(),
    };
    match first {
        Ok(true) => {}
        Ok(false) => {
            // Somebody has looked whether there is a proxy.
            let _ = client.link.shutdown().await;
            return;
        }
        Err(error) => return tracing::debug!(%error, "a client has gone"),
    }
    match client.link.early().first() {
        Some(&socks::VERSION_5) => {
            let _ = shared.stop.unless_cut(socks::serve(client, &shared)).await;
        }
        Some(&socks::VERSION_4) => socks::refuse_version_4(client.link).await,
        _ => http::serve(client, shared).await,
    }
}
