//! Roots, which are killed, restarted and cut off like nodes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peersock_overlay::{Identity, NodeId};
use peersock_root::Source;
use peersock_testnet::{RealRoot, TestRoot};

use super::{Event, World, describe};
use crate::Time;
use crate::net::HostId;

/// A place where a root runs, is killed, and is restarted.
pub(super) struct RootMachine {
    root: TestRoot,
    /// The root's number for the observer of the wire.
    number: usize,
    runs: bool,
    /// Time of the root's next alarm.
    alarm: Option<Time>,
}

impl RootMachine {
    pub(super) fn id(&self) -> NodeId {
        self.root.identity().node_id()
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }
}

/// Place of a root: its host and UDP port.
pub type RootPlace = (HostId, u16);

impl World {
    /// Starts the root that serves nodes, with these keys and this wall clock.
    pub fn add_root(&mut self, place: RootPlace, identity: Identity, unix_time: Duration) {
        let root = RealRoot::new(identity, self.instant(), unix_time, self.random.fork());
        self.add_any_root(place, root.into());
    }

    /// Starts a root that may lie.
    pub fn add_any_root(&mut self, place: RootPlace, root: TestRoot) {
        self.trace.note(self.now, format_args!("a root starts at {place:?}"), &[]);
        // Give each root a number, by which the observer of the wire tells the roots' sessions apart.
        let number = usize::MAX - self.roots.len();
        for card in self.net.attachments(place.0) {
            let addresses = card.ipv4.map(IpAddr::V4).into_iter().chain(card.ipv6.map(IpAddr::V6));
            self.owners.extend(addresses.map(|address| (SocketAddr::new(address, place.1), number)));
        }
        self.roots.insert(place, RootMachine { root, number, runs: true, alarm: None });
    }

    /// Kills a root without notice to its nodes.
    pub fn kill_root(&mut self, place: RootPlace) {
        self.trace.note(self.now, format_args!("the root at {place:?} is killed"), &[]);
        if let Some(machine) = self.roots.get_mut(&place) {
            machine.runs = false;
        }
        self.break_streams_to(place);
    }

    /// Restarts a root, whether it runs or not. It keeps its keys and forgets all nodes.
    pub fn restart_root(&mut self, place: RootPlace) {
        let at = self.instant();
        self.trace.note(self.now, format_args!("the root at {place:?} starts again"), &[]);
        if let Some(machine) = self.roots.get_mut(&place) {
            machine.root.restart(at);
            machine.runs = true;
        }
        self.break_streams_to(place);
    }

    /// Returns the root at a place, running or not.
    pub fn root(&self, place: RootPlace) -> Option<&TestRoot> {
        self.roots.get(&place).map(|machine| &machine.root)
    }

    /// Returns the root at a place, for changes.
    pub fn root_mut(&mut self, place: RootPlace) -> Option<&mut TestRoot> {
        self.roots.get_mut(&place).map(|machine| &mut machine.root)
    }

    /// Gives a datagram to the root at a place. Returns false if there is none.
    pub(super) fn root_receives(&mut self, place: RootPlace, from: SocketAddr, payload: &[u8]) -> bool {
        let is_root = self.roots.contains_key(&place);
        if is_root {
            self.root_hears(place, Source::Udp { socket: 0, remote: from }, payload);
        }
        is_root
    }

    /// Gives a root a datagram that came by UDP or by a stream.
    pub(super) fn root_hears(&mut self, place: RootPlace, from: Source, payload: &[u8]) {
        let at = self.instant();
        let Some(machine) = self.roots.get_mut(&place).filter(|machine| machine.runs) else { return };
        let sent = machine.root.hear(at, from, payload);
        self.settle_root(place, sent);
    }

    /// Tells a root that a stream has ended.
    pub(super) fn root_loses(&mut self, place: RootPlace, source: Source) {
        if let Some(machine) = self.roots.get_mut(&place).filter(|machine| machine.runs) {
            machine.root.lose(source);
        }
    }

    /// Handles a root's alarm.
    pub(super) fn root_alarm(&mut self, place: RootPlace) {
        let (now, at) = (self.now, self.instant());
        let Some(machine) = self.roots.get_mut(&place) else { return };
        if machine.alarm.is_none_or(|alarm| alarm > now) {
            return;
        }
        machine.alarm = None;
        if machine.runs {
            let is_due = machine.root.next_timeout().is_some_and(|timeout| timeout <= at);
            let sent = if is_due { machine.root.pass_time(at) } else { Vec::new() };
            self.settle_root(place, sent);
        }
    }

    /// Sends a root's datagrams and sets its alarm.
    fn settle_root(&mut self, place: RootPlace, sent: Vec<(Source, Vec<u8>)>) {
        let now = self.now;
        for (to, payload) in sent {
            let what = describe(&payload);
            self.trace.note(now, format_args!("the root at {place:?} sends {what} to {to}"), &payload);
            match to {
                Source::Udp { remote, .. } => self.net.send(now, place.0, place.1, remote, payload),
                Source::Stream { number, .. } => self.answer_by_stream(number, payload),
            }
        }
        let Some(machine) = self.roots.get_mut(&place) else { return };
        let timeout = machine.root.next_timeout().map(|at| at.saturating_duration_since(self.base));
        if let Some(wake) = timeout.map(|timeout| timeout.max(now))
            && machine.alarm.is_none_or(|alarm| wake < alarm)
        {
            machine.alarm = Some(wake);
            self.queue.push(wake, Event::RootAlarm(place));
        }
    }
}
