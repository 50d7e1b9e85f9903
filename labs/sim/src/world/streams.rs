//! Streams between nodes and roots, for places where no UDP passes.
//!
//! The model of a stream is its promise: datagrams arrive whole, once and in order, each after the delay of
//! the path. A stream opens after the round trips of its kind: one for TCP, three for TLS with a WebSocket in
//! it. It ends with the node or the root, and survives faults of links.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peersock_overlay::{NodeId, RecvMeta, SocketIndex, WantedStream};
use peersock_root::Source;

use super::{Event, RootPlace, Violation, World, describe, wakeup_latency};
use crate::net::TcpWay;
use crate::wire::Sender;

/// A stream that is open, or about to be.
#[derive(Debug)]
pub(super) struct Stream {
    node: Sender,
    /// Socket index that represents the stream at the node.
    socket: SocketIndex,
    root: NodeId,
    place: RootPlace,
    /// The node's end, as the root sees it.
    remote: SocketAddr,
    delay: Duration,
    is_open: bool,
}

/// Event of a stream.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// The node tries to open a stream.
    Try { node: Sender, socket: SocketIndex, root: NodeId },
    /// The stream is open.
    Open(u64),
    /// A datagram reaches the root.
    ToRoot(u64, Vec<u8>),
    /// A datagram reaches the node.
    ToNode(u64, Vec<u8>),
    /// The node learns that the stream has ended.
    Broken(u64),
    /// The root learns that the stream has ended.
    Ended(Source, RootPlace),
}

/// The web's port, on which every root takes streams, too.
const WEB: u16 = 443;
/// Round trips until a stream is open: TCP to the root's own port, and TLS with a WebSocket in it.
const ROUND_TRIPS: [(bool, u32); 2] = [(false, 1), (true, 3)];
/// Time without an answer before the next way is tried, and then the first one again.
const NEXT_WAY_DELAY: Duration = Duration::from_millis(500);
/// Pause between two failed attempts.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl World {
    /// Sets the node's streams. All others end.
    pub(super) fn want_streams(&mut self, number: usize, wanted: &[WantedStream]) -> Result<(), Violation> {
        let node = self.machines[number].sender();
        let is_kept =
            |stream: &Stream| stream.node == node && wanted.iter().any(|one| one.socket == stream.socket);
        let has_ended = self.end_streams(|stream| stream.node.node == number && !is_kept(stream));
        for WantedStream { root, socket, .. } in wanted {
            let mut known = self.streams.values();
            if !known.any(|stream| stream.node == node && stream.socket == *socket) {
                self.try_stream(node, *socket, *root);
            }
        }
        if has_ended { self.settle(number) } else { Ok(()) }
    }

    /// Ends the streams of a node that is killed.
    pub(super) fn end_streams_of(&mut self, number: usize) {
        self.end_streams(|stream| stream.node.node == number);
    }

    /// Breaks the streams to a root that is killed. Its nodes learn of it and try again.
    pub(super) fn break_streams_to(&mut self, place: RootPlace) {
        for (number, stream) in self.streams.iter().filter(|(_, stream)| stream.place == place) {
            self.queue.push(self.now + stream.delay, Event::Stream(StreamEvent::Broken(*number)));
        }
    }

    /// Ends streams from the node's side and tells the root later. Returns true if any stream was open.
    fn end_streams(&mut self, is_one: impl Fn(&Stream) -> bool) -> bool {
        let at = self.instant();
        let mut were_open = false;
        let ended: Vec<_> = self.streams.extract_if(.., |_, stream| is_one(stream)).collect();
        for (number, stream) in ended {
            let source = Source::Stream { number, remote: stream.remote };
            let ended = StreamEvent::Ended(source, stream.place);
            self.queue.push(self.now + stream.delay, Event::Stream(ended));
            if let Some(node) = self.running(stream.node).filter(|_| stream.is_open) {
                node.set_stream(at, &stream.root, false);
                were_open = true;
            }
        }
        were_open
    }

    fn try_stream(&mut self, node: Sender, socket: SocketIndex, root: NodeId) {
        let (now, host) = (self.now, self.machines[node.node].config.host);
        let place = self.roots.iter().find(|(_, machine)| machine.id() == root).map(|(place, _)| *place);
        let mut waited = Duration::ZERO;
        let ways = place.into_iter().flat_map(|place| ROUND_TRIPS.map(|(web, trips)| (place, web, trips)));
        for (place, is_web, round_trips) in ways {
            let port = if is_web { WEB } else { place.1 };
            if let Some(TcpWay { seen, delay }) = self.way_to(host, place, port) {
                let number = self.next_stream;
                self.next_stream += 1;
                let remote = SocketAddr::new(seen, FIRST_PORT + (number % 10_000) as u16);
                let stream = Stream { node, socket, root, place, remote, delay, is_open: false };
                self.streams.insert(number, stream);
                let takes = waited + delay * 2 * round_trips;
                return self.queue.push(now + takes, Event::Stream(StreamEvent::Open(number)));
            }
            waited += NEXT_WAY_DELAY;
        }
        self.queue.push(now + RETRY_PAUSE, Event::Stream(StreamEvent::Try { node, socket, root }));
    }

    fn way_to(&self, host: crate::net::HostId, place: RootPlace, port: u16) -> Option<TcpWay> {
        let cards = self.net.attachments(place.0);
        let addresses = cards
            .iter()
            .flat_map(|card| card.ipv4.map(IpAddr::V4).into_iter().chain(card.ipv6.map(IpAddr::V6)));
        let reached = |address| {
            let to = SocketAddr::new(address, port);
            self.net.tcp_way(host, self.net.nat64(host).map_or(to, |prefix| prefix.synthesize(to)))
        };
        addresses.into_iter().find_map(reached)
    }

    /// Sends a node's datagram by a stream.
    pub(super) fn send_by_stream(&mut self, node: Sender, socket: SocketIndex, payload: Vec<u8>) {
        let mut streams = self.streams.iter();
        let found = streams.find(|(_, stream)| stream.node == node && stream.socket == socket);
        if let Some((number, stream)) = found.filter(|(_, stream)| stream.is_open) {
            let event = StreamEvent::ToRoot(*number, payload);
            self.queue.push(self.now + stream.delay, Event::Stream(event));
        }
    }

    /// Sends a root's datagram by a stream.
    pub(super) fn answer_by_stream(&mut self, number: u64, payload: Vec<u8>) {
        if let Some(stream) = self.streams.get(&number) {
            let event = StreamEvent::ToNode(number, payload);
            self.queue.push(self.now + stream.delay, Event::Stream(event));
        }
    }

    /// Returns the root that a node's stream leads to, by its number for the observer of the wire.
    pub(super) fn root_behind(&self, node: Sender, socket: SocketIndex) -> Option<usize> {
        let mut streams = self.streams.values();
        let stream = streams.find(|stream| stream.node == node && stream.socket == socket)?;
        self.roots.get(&stream.place).map(super::roots::RootMachine::number)
    }

    pub(super) fn on_stream(&mut self, event: StreamEvent) -> Result<(), Violation> {
        let at = self.instant();
        match event {
            StreamEvent::Try { node, socket, root } => {
                let is_wanted = self.running(node).is_some_and(|node| node.wants_stream(socket));
                let mut known = self.streams.values();
                if is_wanted && !known.any(|one| one.node == node && one.socket == socket) {
                    self.try_stream(node, socket, root);
                }
                Ok(())
            }
            StreamEvent::Open(number) => {
                let Some(stream) = self.streams.get_mut(&number) else { return Ok(()) };
                stream.is_open = true;
                let (node, root) = (stream.node, stream.root);
                let Some(running) = self.running(node) else { return Ok(()) };
                running.set_stream(at, &root, true);
                self.settle(node.node)
            }
            StreamEvent::ToRoot(number, payload) => {
                let Some(stream) = self.streams.get(&number) else { return Ok(()) };
                let source = Source::Stream { number, remote: stream.remote };
                self.root_hears(stream.place, source, &payload);
                Ok(())
            }
            StreamEvent::ToNode(number, payload) => {
                let Some(stream) = self.streams.get(&number) else { return Ok(()) };
                let (sender, socket) = (stream.node, stream.socket);
                let (now, soon) = (self.now, wakeup_latency(&mut self.random));
                let machine = &mut self.machines[sender.node];
                let Some(remote) = socket.stream_end().filter(|_| machine.sender() == sender) else {
                    return Ok(());
                };
                let Some(node) = &mut machine.node else { return Ok(()) };
                let what = describe(&payload);
                let line = format_args!("{} receives {what} by a stream", sender.node);
                self.trace.note(now, line, &payload);
                let meta = RecvMeta { remote, socket, multicast: false, relay: None };
                if node.enqueue(meta, payload) && !machine.receives {
                    machine.receives = true;
                    self.queue.push(now + soon, Event::Receive(sender));
                }
                Ok(())
            }
            StreamEvent::Broken(number) => {
                let Some(stream) = self.streams.remove(&number) else { return Ok(()) };
                let Stream { node, socket, root, is_open, .. } = stream;
                let again = StreamEvent::Try { node, socket, root };
                self.queue.push(self.now + RETRY_PAUSE, Event::Stream(again));
                let Some(running) = self.running(node).filter(|_| is_open) else { return Ok(()) };
                running.set_stream(at, &root, false);
                self.settle(node.node)
            }
            StreamEvent::Ended(source, place) => {
                self.root_loses(place, source);
                Ok(())
            }
        }
    }
}

/// First outer port of streams.
const FIRST_PORT: u16 = 40_000;
