//! A proxy for SOCKS 5 and HTTP on one port.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use crate::activation::Activated;
use crate::attempts::Attempts;
use crate::credentials::Credentials;
use crate::error::DialError;
use crate::event::{Event, Tell};
use crate::gate::Gate;
use crate::listener::{Listener, listen};
use crate::overlay::Overlay;
use crate::place::Place;
pub(crate) use crate::serve::Client;
use crate::serve::{Reception, called};
use crate::slots::Slots;
use crate::stop::{Stop, Stopper};
use crate::target::Target;
use crate::{http, socks};

/// Limit of UDP associations.
const MAX_ASSOCIATIONS: usize = 64;

/// Settings of a proxy.
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
    /// The places to listen at. Default: `127.0.0.1:1080`.
    pub listen: Vec<Place>,
    /// The users. Default: every program that can connect.
    pub credentials: Option<Credentials>,
    /// True if clients on other machines may use the proxy without a password. Default: no.
    pub without_password: bool,
    /// True if hosts that are no members are reached by the system. Default: no, they are refused.
    pub direct: bool,
    /// Timeout of connecting to a target. Default: 15 s.
    pub timeout: Duration,
    /// Limit of simultaneous connections; one member, or one client on another machine, gets half of them.
    /// Default: 512.
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

/// Error: the proxy cannot listen at a place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The system or the overlay refuses the place.
    #[error("cannot listen at {place}: {source}")]
    Refused {
        /// The place.
        place: String,
        /// The reason.
        source: io::Error,
    },
    /// Clients on other machines could use the proxy without a password.
    #[error("{0} can be reached by others, who could use the proxy without a password")]
    Exposed(String),
}

impl ListenError {
    pub(crate) fn refused(place: &Place, source: io::Error) -> ListenError {
        ListenError::Refused { place: place.to_string(), source }
    }
}

/// State shared by all clients of one proxy.
pub(crate) struct Shared {
    pub(crate) gate: Gate,
    /// The password check; `None` if no password is needed.
    pub(crate) attempts: Option<Attempts>,
    pub(crate) associations: Slots,
    pub(crate) stop: Stop,
    tell: Tell,
}

impl Shared {
    /// Reports that a target was not reached.
    pub(crate) fn failed(&self, client: &Client, target: &Target, error: &DialError) {
        self.tell_failed(called(client.peer), target, error);
    }

    /// Reports as [`Shared::failed`] does, for a client with this name.
    pub(crate) fn tell_failed(&self, client: String, target: &Target, error: &DialError) {
        // The operator of the proxy can allow it.
        let hint = match error {
            DialError::ForeignAddress | DialError::ForeignName => " (see --direct)",
            _ => "",
        };
        let (target, reason) = (target.to_string(), format!("{error}{hint}"));
        (self.tell)(Event::Failed { client, target, reason });
    }
}

/// A listening proxy for SOCKS 5 and HTTP: the first byte of a client shows its protocol.
///
/// Members of the node's networks are reached over the overlay, by name or address; all other hosts by the
/// system if [`ProxySettings::direct`] allows it.
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
    /// Listens. [`Proxy::run`] serves the clients. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`ListenError`]; then no listener stays open.
    pub async fn listen(
        overlay: impl Into<Overlay>,
        settings: ProxySettings,
        activated: &mut Activated,
        tell: Tell,
    ) -> Result<Proxy, ListenError> {
        let overlay = &overlay.into();
        let mut listeners = Vec::new();
        for place in &settings.listen {
            let found = listen(overlay, place, activated).await;
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
            gate: Gate::new(overlay, settings.direct, settings.timeout),
            attempts: settings.credentials.map(Attempts::new),
            associations: Slots::with_reserve(MAX_ASSOCIATIONS),
            stop: stop.clone(),
            tell: Arc::clone(&tell),
        });
        let reception =
            Arc::new(Reception { overlay: overlay.clone(), slots, stop, tell, asks_for_proof: true });
        Ok(Proxy { listeners, shared, reception, stopper })
    }

    /// Returns the places at which clients connect.
    pub fn places(&self) -> Vec<Place> {
        self.listeners.iter().filter_map(Listener::place).collect()
    }

    /// Returns a handle that ends the proxy.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves clients until stopped.
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

/// Serves a client by its protocol.
async fn serve(mut client: Client, shared: Arc<Shared>) {
    let first = tokio::select! {
        first = client.link.fill() => first,
        () = shared.stop.draining() => return client.link.reset(),
    };
    match first {
        Ok(true) => {}
        Ok(false) => {
            // The client has only checked if there is a proxy.
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
