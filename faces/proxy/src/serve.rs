//! Accepts clients and has each served by a task of its own, as many as there is room for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock::Node;
use tokio::task::JoinSet;

use crate::event::{Event, Tell};
use crate::listener::{Accepted, Listener};
use crate::owner::Owner;
use crate::slots::Slots;
use crate::stop::Stop;
use crate::stream::Link;

/// How long nothing is accepted after that has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A client that has connected.
pub struct Client {
    /// The connection.
    pub link: Link,
    /// Its address; none at a Unix domain socket.
    pub peer: Option<SocketAddr>,
    /// The own address; none at a Unix domain socket.
    pub local: Option<SocketAddr>,
    /// Whether it came over the overlay.
    pub is_overlay: bool,
    /// Whose it is; nobody's if it is a program of this machine.
    pub(crate) owner: Option<Owner>,
}

/// What clients are served by.
pub struct Reception {
    /// Knows which members have connected.
    pub node: Node,
    /// Room for connections.
    pub slots: Slots,
    /// When it ends.
    pub stop: Stop,
    /// Is told what goes wrong.
    pub tell: Tell,
}

impl Reception {
    /// Accepts clients at all listeners until it is stopped; what serves them goes on after that.
    ///
    /// # Errors
    /// A listener has failed for good: the node is down.
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
                    tokio::time::sleep(PAUSE).await;
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
        let owner = peer.and_then(|peer| Owner::of_client(&self.node, is_overlay, peer.ip()));
        match self.slots.take(owner) {
            Some(slot) => {
                link.hold(slot);
                tokio::spawn(serve(Client { link, peer, local, is_overlay, owner }));
            }
            None => {
                (self.tell)(Event::Full { client: called(peer) });
                link.reset();
            }
        }
    }
}

/// What a client is called.
pub fn called(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "a local program".to_owned(), |peer| peer.to_string())
}
