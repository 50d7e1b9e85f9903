//! One node: both real cores, joined by the real data path, with the programs that use it.

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

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The seed of its identity.
    pub identity: [u8; 32],
    /// The seed of everything random in it; differs at each start.
    pub seed: [u8; 32],
    /// The wall clock at its start.
    pub unix_time: Duration,
    /// Bytes of its UDP receive buffer.
    pub receive_buffer: u32,
    /// Whether it has the portable ciphers only, and so no AES.
    pub portable: bool,
    /// The most datagrams of one batch (UDP GSO), at least 1.
    pub max_segments: usize,
    /// Bounds on its memory and work.
    pub limits: Limits,
    /// Connections that wait for its programs at most.
    pub backlog: usize,
}

impl NodeConfig {
    /// A node as most are: with all ciphers, Linux's usual buffers and batches, and the usual bounds.
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

/// A running node. What it sends is taken with [`Node::take_sent`] after every call.
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
    /// The extra sockets that are open.
    extra: Vec<SocketIndex>,
    /// The streams to roots that it wants.
    streams: Vec<WantedStream>,
    /// Bytes of the datagrams that it has taken in.
    received: u64,
    /// Datagrams that it has taken in since the world asked last.
    moved: usize,
    overlay: Arc<Counters>,
    /// The most networks that it was in at a time.
    most_networks: u64,
    backlog: usize,
}

/// A datagram that a node has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// From which socket.
    pub socket: SocketIndex,
    /// Where to.
    pub to: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// What runs on a node.
#[derive(Default)]
struct Programs {
    listeners: Vec<Arc<Listener>>,
    conversations: Vec<Conversation>,
    echo_servers: Vec<EchoServer>,
    echo_clients: Vec<EchoClient>,
    /// Connections that their programs have closed.
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

    /// The junction of its cores.
    pub fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// Its sockets or their addresses have changed.
    pub fn set_sockets(&mut self, at: Instant, sockets: Vec<SocketInfo>) {
        self.datapath.set_sockets(at, sockets, &mut self.batch);
    }

    /// Opens and closes the extra sockets as the overlay wants them.
    pub(crate) fn serve_extra_sockets(&mut self, at: Instant) {
        loop {
            let Some(wanted) = self.outbox.wanted.lock().expect("one thread").take() else { return };
            self.extra = wanted.iter().map(|one| one.index).collect();
            let info = |one: &WantedSocket| SocketInfo {
                index: one.index,
                // As the world has them.
                ipv4: one.like == SocketIndex(0),
                loopback: false,
                max_datagram: 65_507,
                beacon_targets: Vec::new(),
            };
            let open = wanted.iter().map(info).collect();
            self.datapath.set_extra_sockets(at, open, &mut self.batch);
        }
    }

    /// The extra sockets that are open.
    pub(crate) fn extra_sockets(&self) -> &[SocketIndex] {
        &self.extra
    }

    /// The streams to roots that it wants, if that has changed.
    pub(crate) fn take_wanted_streams(&mut self) -> Option<Vec<WantedStream>> {
        let wanted = self.outbox.streams.lock().expect("one thread").take()?;
        self.streams.clone_from(&wanted);
        Some(wanted)
    }

    /// Whether it wants a stream that this stands for.
    pub(crate) fn wants_stream(&self, socket: SocketIndex) -> bool {
        self.streams.iter().any(|stream| stream.socket == socket)
    }

    /// There is a stream to a root, or none any more.
    pub(crate) fn set_stream(&mut self, at: Instant, root: &NodeId, is_open: bool) {
        self.datapath.set_stream(at, root, is_open, None, &mut self.batch);
    }

    /// Joins a network, and listens on the ports given.
    ///
    /// # Errors
    /// What the overlay says.
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

    /// Leaves a network: its programs there end.
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

    /// A network that it has joined.
    pub fn network(&self, id: NetworkId) -> Option<JoinedNetwork> {
        self.datapath.network(id)
    }

    /// Lets a program run here that has a connection.
    pub(crate) fn add_conversation(&mut self, conversation: Conversation) {
        self.programs.conversations.push(conversation);
    }

    /// Lets a program run here that sends UDP datagrams.
    pub(crate) fn add_echo_client(&mut self, client: EchoClient) {
        self.programs.echo_clients.push(client);
    }

    /// Sends what a connection has to send.
    pub(crate) fn pump(&mut self, at: Instant, flow: &Arc<Flow>) {
        self.datapath.pump(at, flow, &mut self.batch);
    }

    /// A datagram has come to a socket. False if the receive buffer is full and it is lost.
    pub fn enqueue(&mut self, meta: RecvMeta, payload: Vec<u8>) -> bool {
        self.inbox.push(meta, payload)
    }

    /// Returns the number of X25519 operations that it has done.
    pub(crate) fn x25519(&self) -> u64 {
        self.overlay.handshake_x25519.get()
    }

    /// Returns the number of datagrams that it has taken in since the last call.
    pub(crate) fn take_moved(&mut self) -> usize {
        std::mem::take(&mut self.moved)
    }

    /// Whether there is anything to [receive](Self::receive).
    pub fn has_received(&self) -> bool {
        !self.inbox.queue.is_empty()
    }

    /// Takes in what has come, in batches as a kernel's UDP GRO would make them, and as many at a time as a
    /// driver does.
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

    /// Takes in one datagram past the receive buffer. [`Node::receive`] ends the batch.
    pub(crate) fn take_in(&mut self, at: Instant, meta: RecvMeta, datagram: &[u8]) {
        self.received += datagram.len() as u64;
        self.datapath.receive(at, &mut self.ingress, meta, datagram, datagram.len(), false);
    }

    /// Bytes of the datagrams that it has taken in, and the most networks that it was in at a time.
    pub(crate) fn burden(&self) -> (u64, u64) {
        (self.received, self.most_networks)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, at: Instant) {
        self.datapath.handle_timeout(at, &mut self.batch);
    }

    /// Lets the programs run until none can go on; gives those clients that could not connect.
    ///
    /// # Errors
    /// A program has seen what must not be.
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

    /// When the data path wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.datapath.poll_timeout()
    }

    /// When a program wants to run.
    pub(crate) fn next_wake(&self) -> Option<Time> {
        let conversations = self.programs.conversations.iter().filter_map(Conversation::next_wake);
        let clients = self.programs.echo_clients.iter().filter_map(EchoClient::next_wake);
        conversations.chain(clients).min()
    }

    /// How many conversations its programs hold.
    pub fn conversations(&self) -> usize {
        self.programs.conversations.len()
    }

    /// How far this node's ends of a conversation got.
    pub fn describe(&self, conversation: u64) -> Vec<String> {
        let all = self.programs.conversations.iter().map(Conversation::describe);
        all.filter(|(id, _)| *id == Some(conversation)).map(|(_, text)| text).collect()
    }

    /// The connections that their programs have closed and that are not gone.
    pub fn lingering(&self) -> Vec<Arc<Flow>> {
        self.programs.closed.iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes the datagrams that it has sent.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut *self.outbox.sent.lock().expect("one thread"))
    }

    /// Takes the next event that its overlay has reported.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.try_next()
    }
}

/// Closed connections remembered before those that are gone are dropped.
const MAX_CLOSED: usize = 64;

fn seeded(seed: &[u8; 32]) -> Random {
    let words = seed.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    Random::from_seed(words.fold(0, |all, word| all.rotate_left(17) ^ word))
}

/// Buffers of different sizes, small ones too, so that windows fill.
fn stack_config(random: &mut Random) -> Config {
    let sizes = [16 << 10, 64 << 10, 256 << 10, 1 << 20];
    Config { send_buffer: *random.pick(&sizes), receive_buffer: *random.pick(&sizes), ..Config::default() }
}

/// Keeps what the data path sends until the world takes it.
struct Outbox {
    sent: Mutex<Vec<Sent>>,
    /// The extra sockets that are wanted, if that has changed.
    wanted: Mutex<Option<Vec<WantedSocket>>>,
    /// The streams to roots that are wanted, if that has changed.
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
    /// Bytes that the queue holds, as a kernel would account them.
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

    /// Takes datagrams of one source and one size, the last of which may be shorter; gives their origin and
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

/// Batches that are taken in before timers and programs have their turn.
const BATCHES: usize = 16;

/// Bytes of one GRO batch.
const MAX_GRO: usize = 65_507;

/// What Linux charges for a datagram: its memory, which is more than its bytes.
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
