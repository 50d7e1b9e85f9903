//! TCP connections to other nodes: the driver's tasks, and the owners of open connections.
//!
//! A connection is another way to a node, on which the two send the same sealed datagrams as by UDP. Only
//! such a datagram shows which node is at its other end. Until one has come, a connection begun by the other
//! side is a stranger's: nothing is sent on it, only packets of existing sessions are read from it, and it
//! ends after some seconds. Few exist at a time.
//!
//! Connections without a path are closed: two nodes that have connected to several addresses of each other at
//! once keep one. The node with the smaller ID chooses it.
//!
//! The machine is pure. It says what the driver has to do; the driver reports the results.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::bucket::{Bucket, Rate};
use crate::reach::{Place, SocketIndex};

/// Duration of a round: SYN packets leave at its start, after 1 s and after 3 s.
pub(crate) const ROUND_DURATION: Duration = Duration::from_secs(6);

/// Burst and interval of rounds that this node takes part in.
const ROUND_BURST: u32 = 8;
const START_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of concurrent rounds.
const MAX_ROUNDS: usize = 4;

/// Maximum number of connections of all nodes, and of connections whose owner is unknown.
const MAX_STREAMS: usize = 512;
const MAX_STRANGERS: usize = 8;

/// Time in which a connecting node has to identify itself.
const STRANGER: Duration = Duration::from_secs(5);

/// Time without a path after which a connection is closed.
const PATHLESS_TIMEOUT: Duration = Duration::from_secs(15);

/// Time without a session after which a connection with a path is closed.
const SESSIONLESS_TIMEOUT: Duration = Duration::from_secs(600);

/// Interval of checks of connections in use.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Time for which an answer counts.
const ANSWER_LIFETIME: Duration = Duration::from_secs(20);

/// Task of the driver about TCP connections to other nodes; see
/// [`Endpoint::poll_tcp`](crate::Endpoint::poll_tcp).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TcpAction {
    /// Listen, and connect to a node.
    Punch(TcpPunch),
    /// Close the connection with this index.
    Close(SocketIndex),
}

/// One side of a TCP hole punch. While the driver connects to the addresses of the other node, it listens on
/// the port it connects from, and accepts every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpPunch {
    /// Id for [`Endpoint::tcp_opened`](crate::Endpoint::tcp_opened).
    pub id: u32,
    /// Local port to connect from and to listen on.
    pub port: u16,
    /// Addresses to connect to; six at most.
    pub targets: Vec<TcpTarget>,
    /// Wait before the first connection, from the call that returned this action. Listening begins at once.
    pub after: Duration,
    /// Duration of connecting and listening after that wait: 6 s.
    pub lasts: Duration,
}

/// Address to which a TCP connection is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpTarget {
    /// Address to connect to.
    pub address: SocketAddr,
    /// Maximum number of connection attempts, 1 to 6, if the connection is refused.
    pub tries: u32,
}

/// All TCP connections to other nodes. `K` names the nodes.
#[derive(Debug)]
pub(crate) struct TcpStreams<K> {
    is_on: bool,
    starts: Bucket,
    next_id: u32,
    rounds: Vec<Round<K>>,
    streams: BTreeMap<SocketIndex, Stream<K>>,
    actions: VecDeque<TcpAction>,
}

#[derive(Debug)]
struct Round<K> {
    id: u32,
    node: K,
    ends: Instant,
}

#[derive(Debug)]
struct Stream<K> {
    remote: SocketAddr,
    /// Node at the other end, once a packet has shown it.
    node: Option<K>,
    /// Time when it was opened, or when a path with a session last used it.
    used: Instant,
    /// Time without a path after which it is closed.
    patience: Duration,
    /// Data of the challenge on it, and the time of sending.
    asked: Option<([u8; 8], Instant)>,
}

/// Owner of a connection that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opened<K> {
    /// The connection was begun towards this node.
    To(K),
    /// An unknown node has connected.
    Stranger,
    /// There are too many connections.
    Refused,
}

impl<K: Copy + PartialEq> TcpStreams<K> {
    pub(crate) fn new(is_on: bool, now: Instant) -> Self {
        Self {
            is_on,
            starts: Bucket::new(Rate::every(START_INTERVAL, ROUND_BURST), now),
            next_id: 0,
            rounds: Vec::new(),
            streams: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Returns true if this node takes part in another round.
    pub(crate) fn take_start(&mut self, now: Instant) -> bool {
        self.rounds.retain(|round| now < round.ends);
        // Peers cause rounds, and each round makes the system open connections, so both number and rate are
        // bounded.
        self.rounds.len() < MAX_ROUNDS && self.starts.take(now)
    }

    /// Makes the driver connect to a node, `after` from now.
    pub(crate) fn start(
        &mut self,
        node: K,
        (port, targets): (u16, Vec<TcpTarget>),
        after: Duration,
        now: Instant,
    ) {
        self.next_id = self.next_id.wrapping_add(1);
        // One round for each node. A connection of an older round counts as a stranger's.
        self.rounds.retain(|round| now < round.ends && round.node != node);
        self.rounds.push(Round { id: self.next_id, node, ends: now + after + ROUND_DURATION });
        let punch = TcpPunch { id: self.next_id, port, targets, after, lasts: ROUND_DURATION };
        self.actions.push_back(TcpAction::Punch(punch));
    }

    /// Records a connection that the driver has opened.
    pub(crate) fn opened(
        &mut self,
        id: Option<u32>,
        socket: SocketIndex,
        remote: SocketAddr,
        now: Instant,
    ) -> Opened<K> {
        let strangers = self.streams.values().filter(|stream| stream.node.is_none()).count();
        // Strangers have a smaller limit, because anyone can open connections.
        let is_full = self.streams.len() >= MAX_STREAMS || (id.is_none() && strangers >= MAX_STRANGERS);
        if !self.is_on || is_full || !socket.is_peer_stream() || self.streams.contains_key(&socket) {
            return Opened::Refused;
        }
        let stream = Stream { remote, node: None, used: now, patience: STRANGER, asked: None };
        self.streams.insert(socket, stream);
        let round = self.rounds.iter().find(|round| Some(round.id) == id);
        round.map_or(Opened::Stranger, |round| Opened::To(round.node))
    }

    /// Records the owner of a connection, which a packet has shown.
    pub(crate) fn claim(&mut self, socket: SocketIndex, node: K) {
        // The first owner stays, so that no other node can take over a connection by a packet on it.
        if let Some(stream) = self.streams.get_mut(&socket).filter(|stream| stream.node.is_none()) {
            (stream.node, stream.patience) = (Some(node), PATHLESS_TIMEOUT);
        }
    }

    /// Returns true if the owner of a connection is known.
    pub(crate) fn is_claimed(&self, socket: SocketIndex) -> bool {
        self.streams.get(&socket).is_some_and(|stream| stream.node.is_some())
    }

    /// Returns the challenge for a connection, if none was sent on it.
    pub(crate) fn ask(
        &mut self,
        socket: SocketIndex,
        now: Instant,
        draw: impl FnOnce() -> Option<[u8; 8]>,
    ) -> Option<[u8; 8]> {
        // One challenge is enough, because TCP repeats what is lost.
        let stream = self.streams.get_mut(&socket).filter(|stream| stream.asked.is_none())?;
        let data = draw()?;
        stream.asked = Some((data, now));
        Some(data)
    }

    /// Checks a node's answer at `place`: returns the round-trip time, and the address that the TCP
    /// connection leads to.
    pub(crate) fn answered(
        &self,
        node: K,
        place: &Place,
        data: [u8; 8],
        now: Instant,
    ) -> Option<(Duration, SocketAddr)> {
        let stream = self.streams.get(&place.socket()).filter(|stream| stream.node == Some(node))?;
        let (_, at) = stream.asked.filter(|(asked, at)| *asked == data && now < *at + ANSWER_LIFETIME)?;
        Some((now.saturating_duration_since(at), stream.remote))
    }

    /// Records the end of a connection.
    pub(crate) fn closed(&mut self, socket: SocketIndex) {
        self.streams.remove(&socket);
    }

    /// Closes unused connections and returns them. `paths` lists the connections with a path, and whether
    /// there is a session.
    pub(crate) fn close_unused(&mut self, paths: &[(SocketIndex, bool)], now: Instant) -> Vec<SocketIndex> {
        for (socket, has_session) in paths {
            let Some(stream) = self.streams.get_mut(socket) else { continue };
            // Kept for long once it is a path, because another connection would take the whole search again.
            stream.patience = SESSIONLESS_TIMEOUT;
            if *has_session {
                stream.used = now;
            }
        }
        for (socket, stream) in &mut self.streams {
            if stream.patience == SESSIONLESS_TIMEOUT && paths.iter().all(|(path, _)| path != socket) {
                (stream.patience, stream.used) = (PATHLESS_TIMEOUT, now);
            }
        }
        let is_over = |_: &SocketIndex, stream: &mut Stream<K>| now >= stream.used + stream.patience;
        // The driver is told too, because it owns the file descriptors.
        let closed: Vec<_> = self.streams.extract_if(.., is_over).map(|(socket, _)| socket).collect();
        self.actions.extend(closed.iter().map(|socket| TcpAction::Close(*socket)));
        closed
    }

    /// Returns when to check the connections.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Instant> {
        let ends = self.streams.values().map(|stream| stream.used + stream.patience);
        ends.min().map(|end| end.min(now + CHECK_INTERVAL))
    }

    /// Returns the driver's next task.
    pub(crate) fn poll(&mut self) -> Option<TcpAction> {
        self.actions.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stranger_has_little_time_and_there_are_few() {
        let (mut streams, now) = (streams(), instant());
        let opened = (0..20).map(|number| open(&mut streams, None, number, now));
        assert_eq!(opened.filter(|opened| *opened == Opened::Stranger).count(), MAX_STRANGERS);
        assert_eq!(streams.next_look(now), Some(now + STRANGER));
        streams.claim(SocketIndex::peer_stream(3), 'a');
        let closed = streams.close_unused(&[], now + STRANGER);
        assert_eq!(closed.len(), MAX_STRANGERS - 1);
        assert!(streams.is_claimed(SocketIndex::peer_stream(3)));
        assert_eq!(std::iter::from_fn(|| streams.poll()).count(), MAX_STRANGERS - 1);
    }

    #[test]
    fn of_several_connections_to_a_node_the_one_stays_over_which_the_path_leads() {
        let (mut streams, now) = (streams(), instant());
        let [used, spare] = [0, 1].map(SocketIndex::peer_stream);
        for number in [0, 1] {
            open(&mut streams, None, number, now);
            streams.claim(SocketIndex::peer_stream(number), 'a');
        }
        for second in 1..1000 {
            let closed = streams.close_unused(&[(used, true)], now + SECOND * second);
            // A connection without a path is closed after 15 s.
            assert_eq!(closed, if second == 15 { vec![spare] } else { vec![] }, "{second}");
        }
        // The session ends, and later the path leads elsewhere.
        let later = now + 1000 * SECOND;
        assert!(streams.close_unused(&[(used, false)], later + 500 * SECOND).is_empty());
        assert!(streams.close_unused(&[], later + 500 * SECOND).is_empty());
        assert_eq!(streams.close_unused(&[], later + 515 * SECOND), [used]);
    }

    #[test]
    fn an_answer_counts_once_it_is_known_whose_it_is_and_on_its_own_connection() {
        let (mut streams, now) = (streams(), instant());
        streams.start('a', (4000, Vec::new()), Duration::ZERO, now);
        let Some(TcpAction::Punch(TcpPunch { id, .. })) = streams.poll() else { panic!("a round") };
        assert_eq!(open(&mut streams, Some(id), 0, now), Opened::To('a'));
        assert_eq!(open(&mut streams, Some(id + 1), 1, now), Opened::Stranger);
        let [socket, other] = [0, 1].map(SocketIndex::peer_stream);
        assert_eq!(streams.ask(socket, now, || Some([7; 8])), Some([7; 8]));
        assert_eq!(streams.ask(socket, now, || Some([8; 8])), None, "once");
        let place = |socket: SocketIndex| Place::Direct { socket, remote: socket.stream_end().unwrap() };
        let later = now + SECOND;
        assert_eq!(streams.answered('a', &place(socket), [7; 8], later), None);
        streams.claim(socket, 'a');
        streams.claim(socket, 'b');
        assert_eq!(streams.answered('b', &place(socket), [7; 8], later), None);
        assert_eq!(streams.answered('a', &place(other), [7; 8], later), None);
        assert_eq!(streams.answered('a', &place(socket), [8; 8], later), None);
        assert!(streams.answered('a', &place(socket), [7; 8], later).is_some());
        assert!(streams.answered('a', &place(socket), [7; 8], later + ANSWER_LIFETIME).is_none());
    }

    #[test]
    fn rounds_are_few_at_a_time_and_in_all() {
        let (mut streams, start) = (streams(), instant());
        let mut begun = 0;
        for second in 0..600 {
            let now = start + SECOND * second;
            for node in ['a', 'b', 'c', 'd', 'e', 'f'] {
                if streams.take_start(now) {
                    streams.start(node, (4000, Vec::new()), Duration::ZERO, now);
                    begun += 1;
                }
            }
            assert!(streams.rounds.len() <= MAX_ROUNDS);
        }
        // Eight rounds at once, and one in ten seconds.
        assert!((60..=68).contains(&begun), "{begun}");
    }

    fn streams() -> TcpStreams<char> {
        TcpStreams::new(true, instant())
    }

    fn open(streams: &mut TcpStreams<char>, id: Option<u32>, number: u16, now: Instant) -> Opened<char> {
        streams.opened(id, SocketIndex::peer_stream(number), ([192, 0, 2, 1], 4000).into(), now)
    }
}
