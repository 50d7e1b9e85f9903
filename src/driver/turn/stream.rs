//! Allocations over TCP and TLS: the thread of each also runs its connection.

use std::io;
use std::net::SocketAddr;
use std::slice;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_nat::turn::{Client, TurnServer, TurnTransport};
use peersock_streams::{
    ConnectOptions, Connection, Connector, ProxySettings, Receiver, Timing, TurnTarget, TurnTls, Way,
};
use tokio::runtime::Builder;
use tokio::time::sleep_until;

use super::keeper::{self, Ended, Keeper};
use super::udp::is_another;
use super::{Allocation, Link};
use crate::driver::interfaces::source_towards;
use crate::driver::stream_io::{self, BATCH};
use crate::sync;
use peersock_datapath::Ingress;

/// Idle time in either direction after which a connection counts as dead. The client sends a request every 10
/// s and gives up after 36 s, so this only matters for servers that send partial messages.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

impl Keeper {
    /// Connects, requests an allocation and serves it until it ends.
    pub(super) fn allocate_by_stream(&self, way: keeper::Way, elsewhere: Option<SocketAddr>) -> Ended {
        match Builder::new_current_thread().enable_all().max_blocking_threads(2).build() {
            Ok(runtime) => {
                let ended = runtime.block_on(self.connect_and_serve(way, elsewhere));
                // A look-up of a name may hang in the system's resolver.
                runtime.shutdown_background();
                ended.unwrap_or_else(|error| Ended::Local(error.to_string()))
            }
            Err(error) => Ended::Local(error.to_string()),
        }
    }

    async fn connect_and_serve(
        &self,
        (device, nat64): keeper::Way,
        elsewhere: Option<SocketAddr>,
    ) -> io::Result<Ended> {
        let connection = tokio::select! {
            connected = connect(&self.server, (device.clone(), nat64), elsewhere) => match connected {
                Ok(connection) => connection,
                Err(error) => return Ok(Ended::Local(error)),
            },
            ended = self.interrupted() => return Ok(ended),
        };
        let (remote, local) = (connection.remote_addr(), connection.local_addr().ip());
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let now = Instant::now();
        let mut client = Client::new(&self.server, self.is_ipv4, seed, now).over_stream(now);
        if connection.proxy().is_none() {
            client = client.at(nat64.map_or(remote, |prefix| prefix.restore(remote)));
        }
        // `stop` waits until all data has left, because the connection lives in this thread.
        let opening = self.turn.begin_opening();
        let (sender, receiver) = connection.split();
        let (client, link) = (Mutex::new(client), Link::Stream(sender.clone()));
        let allocation = Arc::new(Allocation { client, link, bell: Arc::clone(&self.bell) });
        let has_moved = || source_towards(remote, device.as_deref()).ok() != Some(local);
        let (ended, receiver) = self.serve_by_stream(&allocation, receiver, has_moved).await;
        if let Some(receiver) = receiver {
            allocation.give_back();
            stream_io::drain(slice::from_ref(&sender)).await;
            drop(receiver);
        }
        drop(opening);
        Ok(ended)
    }

    /// Requests the allocation, and then reads from the server. Returns the receiver if the connection is
    /// still open.
    async fn serve_by_stream(
        &self,
        allocation: &Arc<Allocation>,
        mut receiver: Receiver,
        has_moved: impl Fn() -> bool,
    ) -> (Ended, Option<Receiver>) {
        let (mut ingress, mut messages, mut stop_at) = (Ingress::default(), Vec::new(), None);
        loop {
            allocation.flush();
            if let Err(ended) = self.take_events(allocation) {
                return (ended, Some(receiver));
            }
            let until = match self.next_look(allocation, true, &mut stop_at) {
                Ok(until) => until,
                Err(ended) => return (ended, Some(receiver)),
            };
            tokio::select! {
                received = receiver.recv_many(&mut messages, BATCH) => match received {
                    Ok(_) => {
                        self.deliver(allocation, messages.iter().map(|message| &message[..]), &mut ingress);
                        messages.clear();
                    }
                    Err(reason) => {
                        return (Ended::Local(format!("{}: {reason}", self.server.target())), None);
                    }
                },
                () = self.bell.rung() => {}
                () = sleep_until(until.into()) => {}
            }
            if let Some(ended) = self.heed_news(&has_moved) {
                return (ended, Some(receiver));
            }
            sync::lock(&allocation.client).handle_timeout(Instant::now());
        }
    }

    /// Waits for an event that makes connecting pointless.
    async fn interrupted(&self) -> Ended {
        loop {
            if !self.is_wanted() {
                return Ended::Stopped;
            }
            // Changes of interfaces are handled after the connection is established, because only then its
            // interface is known.
            if self.bell.take_suspended() {
                return Ended::Suspended;
            }
            self.bell.rung().await;
        }
    }
}

/// Connects to a server, through the proxy of the environment if there is one.
pub(super) async fn connect(
    server: &TurnServer,
    (device, nat64): keeper::Way,
    elsewhere: Option<SocketAddr>,
) -> Result<Connection, String> {
    if elsewhere.is_some_and(|elsewhere| !is_another(&elsewhere)) {
        return Err("the server names no other one".to_owned());
    }
    let options = ConnectOptions {
        proxy: ProxySettings::from_environment().map_err(|error| error.to_string())?,
        way: Way { interface: device },
        timing: Timing { dead_after: IDLE_TIMEOUT, ..Timing::default() },
        ..ConnectOptions::default()
    };
    let place = server.target();
    let mut target = TurnTarget::new(place.host.clone(), place.port);
    let is_direct = options.proxy.proxy_for(&place.host, place.port).is_none();
    let at = match nat64.filter(|_| is_direct) {
        Some(prefix) => {
            // A name resolves to an IPv6 address already, because the DNS of a network with NAT64 synthesizes
            // it.
            let literal = place.host.parse().ok().map(|ip| SocketAddr::new(ip, place.port));
            elsewhere.or(literal).map(|address| prefix.synthesize(address))
        }
        None => elsewhere,
    };
    if let Some(at) = at {
        target = target.at(at);
    }
    if server.transport() == TurnTransport::Tls {
        target =
            target.with_tls(server.fingerprint().map_or(TurnTls::Names, |one| TurnTls::Fingerprint(*one)));
    }
    Connector::new(options).connect_turn(&target).await.map_err(|error| error.to_string())
}
