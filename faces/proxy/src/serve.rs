//! Accepts clients and serves each in a separate task, up to the limit.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::event::{Event, Tell};
use crate::listener::{Accepted, Listener};
use crate::overlay::Overlay;
use crate::owner::Owner;
use crate::slots::{Slots, Standing};
use crate::stop::Stop;
use crate::stream::Link;

/// Pause after a failure to accept.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Timeout for a client to prove that it may use a server that asks for that: to send its whole request, and
/// its password or token. Longer than the turns of password guessers take.
const PROOF: Duration = Duration::from_secs(10);

/// A client that has connected.
pub struct Client {
    /// The connection.
    pub link: Link,
    /// The client's address; `None` at a Unix domain socket.
    pub peer: Option<SocketAddr>,
    /// The local address; `None` at a Unix domain socket.
    pub local: Option<SocketAddr>,
    /// True if the client came over the overlay.
    pub is_overlay: bool,
    /// The client's owner; `None` for a program of this machine.
    pub(crate) owner: Option<Owner>,
    /// The client's place, which it keeps only once it is [proven](Standing::prove).
    pub standing: Standing,
}

/// The means of serving clients.
pub struct Reception {
    /// The node, which knows the members that have connected.
    pub overlay: Overlay,
    /// Room for connections.
    pub slots: Slots,
    /// The signal that serving ends.
    pub stop: Stop,
    /// The receiver of events.
    pub tell: Tell,
    /// True if clients must prove within `PROOF` that they may use the server. Otherwise they may be silent
    /// as long as there is room.
    pub asks_for_proof: bool,
}

impl Reception {
    /// Accepts clients at all listeners until stopped; clients already accepted are still served then.
    ///
    /// # Errors
    /// If a listener has failed permanently, because the node is down.
    pub async fn accept<S, F>(self: &Arc<Self>, listeners: Vec<(Listener, S)>) -> io::Result<()>
    where
        S: Fn(Client) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for (listener, serve) in listeners {
            let reception = Arc::clone(self);
            tasks.spawn(async move {
                tokio::select! {
                    error = reception.accept_at(&listener, serve) => Err(error),
                    () = reception.stop.draining() => Ok(()),
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    }

    async fn accept_at<S, F>(&self, listener: &Listener, serve: S) -> io::Error
    where
        S: Fn(Client) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            match listener.accept().await {
                Ok(accepted) => self.begin(accepted, &serve),
                Err(error) if error.kind() == io::ErrorKind::NetworkDown => return error,
                Err(error) => {
                    let place = listener.place().map(|place| place.to_string()).unwrap_or_default();
                    (self.tell)(Event::NotAccepted { place, reason: error.to_string() });
                    tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
                }
            }
        }
    }

    fn begin<S, F>(&self, accepted: Accepted, serve: &S)
    where
        S: Fn(Client) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let Accepted { mut link, peer, local, is_overlay } = accepted;
        let owner = peer.and_then(|peer| Owner::of_client(&self.overlay, is_overlay, peer.ip()));
        match self.slots.take_unproven(owner) {
            Some(slot) => {
                let standing = slot.standing().clone();
                link.hold(slot);
                let client = Client { link, peer, local, is_overlay, owner, standing: standing.clone() };
                let (serving, patience) = (serve(client), self.asks_for_proof.then_some(PROOF));
                tokio::spawn(async move {
                    tokio::select! {
                        () = serving => {}
                        // Dropping resets the connection.
                        () = lost(&standing, patience) => tracing::debug!("a client has lost its place"),
                    }
                });
            }
            None => {
                (self.tell)(Event::Full { client: called(peer) });
                link.reset();
            }
        }
    }
}

/// Waits until a client has lost its place to another one, or has failed to prove itself in time.
async fn lost(standing: &Standing, patience: Option<Duration>) {
    let Some(patience) = patience else { return standing.evicted().await };
    if timeout(patience, standing.evicted()).await.is_err() && standing.is_proven() {
        // The client keeps its place from now on.
        pending().await
    }
}

/// Returns the name of a client.
pub fn called(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "a local program".to_owned(), |peer| peer.to_string())
}
