//! A node with its programs: both real cores, joined by the real data path.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use peersock_datapath::{Datapath, Ingress, JoinedNetwork, Sink, Subscription, Transmit};
use peersock_overlay::{
    Counters, Endpoint, EndpointConfig, Event, Identity, Limits, NetworkConfig, NodeId, Portable, RecvMeta,
    SocketIndex, SocketInfo, WantedSocket, WantedStream, default_provider,
};
use peersock_overlay::{JoinError, NetworkId};
use peersock_stack::{Batch, Config, Flow, Listener, Stack, TcpOptions, UdpOptions};

use crate::apps::{Context, Conversation, EchoClient, EchoServer, Ledger, Outcome, Violation};
use crate::net::split_segments;
use crate::{Random, Time};

/// Configuration for the start of a node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Seed of the node's identity.
    pub identity: [u8; 32],
    /// Seed of the node's random numbers, different at each start.
    pub seed: [u8; 32],
    /// Wall clock at the start.
    pub unix_time: Duration,
    /// Size of the node's UDP receive buffer in bytes.
    pub receive_buffer: u32,
    /// True if the node has only the portable ciphers, and so no AES.
    pub portable: bool,
    /// Maximum number of datagrams in one batch (UDP GSO), at least 1.
    pub max_segments: usize,
    /// Bounds on the node's memory and work.
    pub limits: Limits,
    /// Maximum number of connections that wait for the node's programs.
    pub backlog: usize,
}

impl NodeConfig {
    /// Returns the usual configuration: all ciphers, Linux's usual buffers and batches, and the usual bounds.
    pub fn usual(identity: [u8; 32]) -> Self {
        Self {
            identity,
            seed: [0; 32],
            unix_time: Duration::ZERO,
            receive_buffer: 212_992,
            portable: false,
            max_segments: 64,
            limits: Limits::default(),
            backlog: 32,
        }
    }
}

/// A running node. Take its datagrams with [`Node::take_sent`] after every call.
pub struct Node {
    number: usize,
    datapath: Datapath,
    outbox: Arc<Outbox>,
    events: Arc<Subscription>,
    ingress: Ingress,
    batch: Batch,
    inbox: Inbox,
    random: Random,
    programs: Programs,
    scratch: Vec<u8>,
    /// Extra sockets that are open.
    extra: Vec<SocketIndex>,
    /// Streams to roots that the node wants.
    streams: Vec<WantedStream>,
    /// Bytes of the datagrams that the node has taken in.
    received: u64,
    /// Datagrams taken in since the last `take_moved`.
    moved: usize,
    overlay: Arc<Counters>,
    /// Maximum number of networks that the node was in at one time.
    most_networks: u64,
    backlog: usize,
}

/// A datagram that a node has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Socket that sent the datagram.
    pub socket: SocketIndex,
    /// Destination.
    pub to: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// Programs that run on a node.
#[derive(Default)]
struct Programs {
    listeners: Vec<Arc<Listener>>,
    conversations: Vec<Conversation>,
    echo_servers: Vec<EchoServer>,
    echo_clients: Vec<EchoClient>,
    /// Connections closed by their programs.
    closed: Vec<Weak<Flow>>,
}

impl Node {
    /// Starts the node that the world calls `number`, with these sockets, in no network.
    pub fn start(number: usize, config: &NodeConfig, at: Instant, sockets: Vec<SocketInfo>) -> Self {
        let mut random = seeded(&config.seed);
        let mut endpoint = EndpointConfig::new(Arc::new(Identity::from_seed(&config.identity)));
        endpoint.receive_buffer = config.receive_buffer;
        endpoint.limits = config.limits;
        endpoint.provider = if config.portable { Arc::new(Portable) } else { default_provider() };
        let endpoint = Endpoint::new(endpoint, random.bytes(), at, config.unix_time);
        let stack = Stack::new(stack_config(&mut random), random.bytes(), at);
        let overlay = endpoint.counters().clone();
        let outbox = Arc::new(Outbox {
            sent: Mutex::default(),
            wanted: Mutex::default(),
            streams: Mutex::default(),
            max_segments: config.max_segments,
        });
        let datapath = Datapath::new(endpoint, stack, outbox.clone());
        let events = datapath.subscribe();
        let mut node = Self {
            number,
            datapath,
            outbox,
            events,
            ingress: Ingress::default(),
            batch: Batch::new(),
            inbox: Inbox { limit: config.receive_buffer as usize, ..Inbox::default() },
            random,
            programs: Programs::default(),
            scratch: vec![0; 64 * 1024],
            extra: Vec::new(),
            streams: Vec::new(),
            received: 0,
            moved: 0,
            overlay,
            most_networks: 0,
            backlog: config.backlog,
        };
        node.set_sockets(at, sockets);
        node
    }

    /// Returns the data path, which joins the node's cores.
    pub fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// Tells the node that its sockets or their addresses have changed.
    pub fn set_sockets(&mut self, at: Instant, sockets: Vec<SocketInfo>) {
        self.datapath.set_sockets(at, sockets, &mut self.batch);
    }

    /// Opens and closes extra sockets as the overlay requests.
    pub(crate) fn serve_extra_sockets(&mut self, at: Instant) {
        loop {
            let Some(wanted) = self.outbox.wanted.lock().expect("one thread").take() else { return };
            self.extra = wanted.iter().map(|one| one.index).collect();
            let info = |one: &WantedSocket| SocketInfo {
                index: one.index,
                // Same properties as the world's sockets.
                ipv4: one.like == SocketIndex(0),
                loopback: false,
                max_datagram: 65_507,
                beacon_targets: Vec::new(),
            };
            let open = wanted.iter().map(info).collect();
            self.datapath.set_extra_sockets(at, open, &mut self.batch);
        }
    }

    /// Returns the extra sockets that are open.
    pub(crate) fn extra_sockets(&self) -> &[SocketIndex] {
        &self.extra
    }

    /// Returns the streams to roots that the node wants, if their set has changed.
    pub(crate) fn take_wanted_streams(&mut self) -> Option<Vec<WantedStream>> {
        let wanted = self.outbox.streams.lock().expect("one thread").take()?;
        self.streams.clone_from(&wanted);
        Some(wanted)
    }

    /// Returns true if the node wants the stream that this socket represents.
    pub(crate) fn wants_stream(&self, socket: SocketIndex) -> bool {
        self.streams.iter().any(|stream| stream.socket == socket)
    }

    /// Tells the node that a stream to a root has opened or closed.
    pub(crate) fn set_stream(&mut self, at: Instant, root: &NodeId, is_open: bool) {
        self.datapath.set_stream(at, root, is_open, None, &mut self.batch);
    }

    /// Joins a network, and listens on the given ports.
    /// Fails with the overlay refuses the network.
    pub fn join(
        &mut self,
        at: Instant,
        config: NetworkConfig,
        ports: &[u16],
    ) -> Result<JoinedNetwork, JoinError> {
        let network = self.datapath.join(at, config, &mut self.batch)?;
        self.most_networks = self.most_networks.max(self.datapath.networks().len() as u64);
        let stack = self.datapath.stack();
        for &port in ports {
            let local = SocketAddr::new(network.addresses[0], port);
            let options = TcpOptions { reuse_address: true, ..TcpOptions::default() };
            let listener = stack.tcp_listen(at, Some(network.interface), local, self.backlog, options);
            self.programs.listeners.push(listener.expect("the port is free and allowed"));
            let socket = stack.udp_bind(Some(network.interface), local, UdpOptions::default());
            let socket = socket.expect("the port is free");
            self.programs.echo_servers.push(EchoServer { socket, node: self.number });
        }
        Ok(network)
    }

    /// Leaves a network and ends the node's programs there.
    pub fn leave(&mut self, at: Instant, id: NetworkId) {
        let Some(network) = self.network(id) else { return };
        let here = Some(network.interface);
        self.programs.listeners.retain(|listener| {
            let stays = listener.interface() != here;
            if !stays {
                listener.close(at);
            }
            stays
        });
        self.programs.echo_servers.retain(|server| {
            let stays = server.socket.interface() != here;
            if !stays {
                server.socket.close();
            }
            stays
        });
        self.programs.echo_clients.retain(|client| {
            let stays = client.network != id;
            if !stays {
                client.socket.close();
            }
            stays
        });
        self.datapath.leave(at, id, &mut self.batch);
    }

    /// Returns a network that the node has joined.
    pub fn network(&self, id: NetworkId) -> Option<JoinedNetwork> {
        self.datapath.network(id)
    }

    /// Adds a program that has a connection.
    pub(crate) fn add_conversation(&mut self, conversation: Conversation) {
        self.programs.conversations.push(conversation);
    }

    /// Adds a program that sends UDP datagrams.
    pub(crate) fn add_echo_client(&mut self, client: EchoClient) {
        self.programs.echo_clients.push(client);
    }

    /// Sends the connection's pending segments.
    pub(crate) fn pump(&mut self, at: Instant, flow: &Arc<Flow>) {
        self.datapath.pump(at, flow, &mut self.batch);
    }

    /// Enqueues a datagram for a socket. Returns false if the receive buffer is full and the datagram is
    /// lost.
    pub fn enqueue(&mut self, meta: RecvMeta, payload: Vec<u8>) -> bool {
        self.inbox.push(meta, payload)
    }

    /// Returns the number of the node's X25519 operations so far.
    pub(crate) fn x25519(&self) -> u64 {
        self.overlay.handshake_x25519.get()
    }

    /// Returns the number of datagrams taken in since the last call.
    pub(crate) fn take_moved(&mut self) -> usize {
        std::mem::take(&mut self.moved)
    }

    /// Returns true if there is a datagram to [receive](Self::receive).
    pub fn has_received(&self) -> bool {
        !self.inbox.queue.is_empty()
    }

    /// Takes in queued datagrams, in batches as UDP GRO in a kernel would make them. It takes as many at a
    /// time as a driver does.
    pub fn receive(&mut self, at: Instant) {
        let mut batch = Vec::new();
        for _ in 0..BATCHES {
            let Some((meta, stride)) = self.inbox.pop_batch(&mut batch) else { break };
            self.received += batch.len() as u64;
            self.moved += batch.len().div_ceil(stride.max(1));
            self.datapath.receive(at, &mut self.ingress, meta, &batch, stride, false);
            if self.random.chance(0.3) {
                self.datapath.finish_receive(at, &mut self.ingress);
            }
        }
        self.datapath.finish_receive(at, &mut self.ingress);
    }

    /// Takes in one datagram, bypassing the receive buffer. [`Node::receive`] ends the batch.
    pub(crate) fn take_in(&mut self, at: Instant, meta: RecvMeta, datagram: &[u8]) {
        self.received += datagram.len() as u64;
        self.datapath.receive(at, &mut self.ingress, meta, datagram, datagram.len(), false);
    }

    /// Returns the bytes of all datagrams taken in, and the maximum number of networks at one time.
    pub(crate) fn burden(&self) -> (u64, u64) {
        (self.received, self.most_networks)
    }

    /// Does all work that is due.
    pub fn handle_timeout(&mut self, at: Instant) {
        self.datapath.handle_timeout(at, &mut self.batch);
    }

    /// Runs the programs until none can make progress. Returns the clients that could not connect.
    /// Fails if a program has observed a violation.
    pub(crate) fn run_programs(
        &mut self,
        now: Time,
        at: Instant,
        ledger: &mut Ledger,
    ) -> Result<Vec<(u64, peersock_stack::Error)>, Violation> {
        let Self { programs, datapath, batch, scratch, number, .. } = self;
        let networks = datapath.networks();
        for listener in &programs.listeners {
            while let Ok(flow) = listener.accept(at) {
                let network = networks.iter().find(|network| network.interface == flow.interface());
                let Some(network) = network else { continue };
                programs.conversations.push(Conversation::server(flow, network.id, *number));
            }
        }
        let mut context = Context { now, at, datapath, batch, ledger, scratch };
        let mut unconnected = Vec::new();
        let mut problem = None;
        let closed = &mut programs.closed;
        programs.conversations.retain_mut(|conversation| {
            match conversation.run(&mut context) {
                Ok(Outcome::Going) => return true,
                Ok(Outcome::Done | Outcome::Failed) => {}
                Ok(Outcome::Unconnected(id, error)) => unconnected.push((id, error)),
                Err(violation) => drop(problem.get_or_insert(violation)),
            }
            closed.push(Arc::downgrade(conversation.flow()));
            false
        });
        if closed.len() > MAX_CLOSED {
            closed.retain(|flow| flow.strong_count() > 0);
        }
        for server in &programs.echo_servers {
            server.run(&mut context)?;
        }
        for client in &mut programs.echo_clients {
            client.run(&mut context)?;
        }
        programs.echo_clients.retain(|client| {
            let done = client.is_done(&context);
            if done {
                client.socket.close();
            }
            !done
        });
        datapath.settle(at, batch);
        problem.map_or(Ok(unconnected), Err)
    }

    /// Returns the data path's next timeout.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.datapath.poll_timeout()
    }

    /// Returns the time of the next run of a program.
    pub(crate) fn next_wake(&self) -> Option<Time> {
        let conversations = self.programs.conversations.iter().filter_map(Conversation::next_wake);
        let clients = self.programs.echo_clients.iter().filter_map(EchoClient::next_wake);
        conversations.chain(clients).min()
    }

    /// Returns the number of conversations that the programs hold.
    pub fn conversations(&self) -> usize {
        self.programs.conversations.len()
    }

    /// Describes the progress of this node's ends of a conversation.
    pub fn describe(&self, conversation: u64) -> Vec<String> {
        let all = self.programs.conversations.iter().map(Conversation::describe);
        all.filter(|(id, _)| *id == Some(conversation)).map(|(_, text)| text).collect()
    }

    /// Returns the connections that their programs have closed and that still exist.
    pub fn lingering(&self) -> Vec<Arc<Flow>> {
        self.programs.closed.iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes the datagrams that the node has sent.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut *self.outbox.sent.lock().expect("one thread"))
    }

    /// Takes the next event that the overlay has reported.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.try_next()
    }
}

/// Number of closed connections remembered before the ones that no longer exist are dropped.
const MAX_CLOSED: usize = 64;

fn seeded(seed: &[u8; 32]) -> Random {
    let words = seed.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    Random::from_seed(words.fold(0, |all, word| all.rotate_left(17) ^ word))
}

/// Draws buffer sizes, including small ones so that windows fill.
fn stack_config(random: &mut Random) -> Config {
    let sizes = [16 << 10, 64 << 10, 256 << 10, 1 << 20];
    Config { send_buffer: *random.pick(&sizes), receive_buffer: *random.pick(&sizes), ..Config::default() }
}

/// Queue of the data path's datagrams until the world takes them.
struct Outbox {
    sent: Mutex<Vec<Sent>>,
    /// Wanted extra sockets, if their set has changed.
    wanted: Mutex<Option<Vec<WantedSocket>>>,
    /// Wanted streams to roots, if their set has changed.
    streams: Mutex<Option<Vec<WantedStream>>>,
    max_segments: usize,
}

impl Sink for Outbox {
    fn send(&self, transmit: &Transmit<'_>) {
        let mut sent = self.sent.lock().expect("one thread");
        let datagrams = split_segments(transmit.contents, transmit.segment_size);
        let (socket, to) = (transmit.socket, transmit.remote);
        sent.extend(datagrams.map(|payload| Sent { socket, to, payload: payload.to_vec() }));
    }

    fn max_segments(&self, _socket: SocketIndex) -> usize {
        self.max_segments
    }

    fn want_extra_sockets(&self, wanted: Vec<WantedSocket>) {
        *self.wanted.lock().expect("one thread") = Some(wanted);
    }

    fn want_streams(&self, wanted: Vec<WantedStream>) {
        *self.streams.lock().expect("one thread") = Some(wanted);
    }
}

/// A UDP receive buffer.
#[derive(Default)]
struct Inbox {
    queue: VecDeque<(RecvMeta, Vec<u8>)>,
    /// Bytes charged for the queue, by a kernel's accounting.
    held: usize,
    limit: usize,
}

impl Inbox {
    fn push(&mut self, meta: RecvMeta, payload: Vec<u8>) -> bool {
        let room = self.held + charge(&payload) <= self.limit;
        if room {
            self.held += charge(&payload);
            self.queue.push_back((meta, payload));
        }
        room
    }

    /// Takes datagrams of one source and one size, the last of which may be shorter. Returns their origin and
    /// size.
    fn pop_batch(&mut self, batch: &mut Vec<u8>) -> Option<(RecvMeta, usize)> {
        let (meta, first) = self.queue.pop_front()?;
        self.held -= charge(&first);
        batch.clear();
        batch.extend_from_slice(&first);
        let stride = first.len();
        while let Some((next, payload)) = self.queue.front() {
            let fits = *next == meta && payload.len() <= stride && batch.len() + payload.len() <= MAX_GRO;
            if !fits || payload.is_empty() {
                break;
            }
            let (_, payload) = self.queue.pop_front()?;
            self.held -= charge(&payload);
            batch.extend_from_slice(&payload);
            if payload.len() < stride {
                break;
            }
        }
        Some((meta, stride))
    }
}

/// Maximum number of batches taken in before timers and programs run.
const BATCHES: usize = 16;

/// Maximum size of one GRO batch in bytes.
const MAX_GRO: usize = 65_507;

/// Returns the memory that Linux charges for a datagram, which exceeds its length.
fn charge(payload: &[u8]) -> usize {
    payload.len() + 768
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_of_one_source_and_size() {
        let meta = |port| RecvMeta {
            remote: SocketAddr::from(([192, 0, 2, 1], port)),
            socket: SocketIndex(0),
            multicast: false,
            relay: None,
        };
        let mut inbox = Inbox { limit: 1 << 20, ..Inbox::default() };
        for (port, len) in [(1, 100), (1, 100), (1, 30), (1, 100), (2, 100), (2, 101), (2, 101)] {
            assert!(inbox.push(meta(port), vec![port as u8; len]));
        }
        let mut batch = Vec::new();
        let mut batches = Vec::new();
        while let Some((meta, stride)) = inbox.pop_batch(&mut batch) {
            batches.push((meta.remote.port(), stride, batch.len()));
        }
        assert_eq!(batches, [(1, 100, 230), (1, 100, 100), (2, 100, 100), (2, 101, 202)]);
        assert_eq!(inbox.held, 0);
    }

    #[test]
    fn a_full_buffer_drops_the_newest() {
        let meta = RecvMeta {
            remote: SocketAddr::from(([192, 0, 2, 1], 1)),
            socket: SocketIndex(0),
            multicast: false,
            relay: None,
        };
        let mut inbox = Inbox { limit: 2000, ..Inbox::default() };
        assert!(inbox.push(meta, vec![0; 1000]));
        assert!(!inbox.push(meta, vec![0; 1000]));
    }
}
