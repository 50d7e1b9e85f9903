use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::Identity;
use peersock_overlay::wire::Relayed;
use peersock_root::{Config, Root, Source};

use crate::Random;

/// The root that serves nodes, driven as its server drives it, with one UDP socket. Its random numbers follow
/// from a seed.
pub struct RealRoot {
    config: Config,
    root: Root,
    random: Random,
    began: Instant,
    unix_time: Duration,
    /// Relayed datagrams and bytes of earlier starts.
    relayed_before: (u64, u64),
}

impl RealRoot {
    /// Makes a root with these keys and no registered nodes. `unix_time` is its wall clock at `now`.
    pub fn new(identity: Identity, now: Instant, unix_time: Duration, random: Random) -> Self {
        Self::with_config(Config::new(Arc::new(identity)), now, unix_time, random)
    }

    /// Makes the same root with any settings.
    pub fn with_config(config: Config, now: Instant, unix_time: Duration, mut random: Random) -> Self {
        let root = Root::new(config.clone(), &random.bytes(), now, unix_time);
        Self { config, root, random, began: now, unix_time, relayed_before: (0, 0) }
    }

    /// Returns the state machine.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Handles a datagram. Returns the answers and the relayed datagrams.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        to_remotes(self.hear(now, Source::Udp { socket: 0, remote: from }, datagram))
    }

    /// Handles a datagram that may come by a stream. The results may go by a stream, too.
    pub fn hear(&mut self, now: Instant, from: Source, datagram: &[u8]) -> Vec<(Source, Vec<u8>)> {
        self.root.handle_datagram(now, from, datagram);
        self.drain()
    }

    /// Tells the root that a stream has ended.
    pub fn lose(&mut self, source: Source) {
        self.root.handle_disconnect(source);
    }

    /// Does the work that is due, and returns the resulting datagrams.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        to_remotes(self.pass_time(now))
    }

    /// Does the work that is due, and returns the datagrams with their sockets or streams.
    pub fn pass_time(&mut self, now: Instant) -> Vec<(Source, Vec<u8>)> {
        self.root.handle_timeout(now);
        self.drain()
    }

    /// Replaces the root's process by a new one, which has its keys and no registered nodes.
    pub fn restart(&mut self, now: Instant) {
        self.relayed_before = self.relayed();
        let unix_time = self.unix_time + now.saturating_duration_since(self.began);
        self.root = Root::new(self.config.clone(), &self.random.bytes(), now, unix_time);
    }

    /// Returns the number of datagrams relayed by all starts, and their bytes without the relay header.
    pub fn relayed(&self) -> (u64, u64) {
        let counters = self.root.counters();
        let (frames, bytes) = (counters.relayed.get(), counters.relayed_bytes.get());
        let inside = bytes - frames * Relayed::LEN as u64;
        (self.relayed_before.0 + frames, self.relayed_before.1 + inside)
    }

    fn drain(&mut self) -> Vec<(Source, Vec<u8>)> {
        let mut out = Vec::new();
        let next = || Some((self.root.poll_transmit(&mut out)?, out.clone()));
        std::iter::from_fn(next).collect()
    }
}

fn to_remotes(sent: Vec<(Source, Vec<u8>)>) -> Vec<(SocketAddr, Vec<u8>)> {
    sent.into_iter().map(|(to, datagram)| (to.remote(), datagram)).collect()
}
