//! Datagram sockets: datagrams from the stack to the application's end, and from it to the stack.
//!
//! What has come waits in the stack's queue of the socket, which is bounded, until the application's end has
//! room.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock_fd::{Details, Errno, Family, SendFlags};
use peersock_stack::Error;

use super::details::{descriptor, hand_over};
use super::ends::{End, Place};
use super::ready::{self, Key};
use super::server::{Entry, Readiness, ServerState};
use super::sockets::{Phase, errno};
use super::transport::{Arrived, Transport};

/// Datagrams that are moved for one socket before others have their turn.
const ROUNDS: usize = 64;

/// Datagrams that an end holds at most, with the kernel's usual buffers: empty ones.
const MOST_HELD: usize = 320;

/// How often it is looked whether the application's end is still open: the kernel does not tell. Longer by a
/// millisecond for each socket that there is, so that many cost no more than a thousand.
const SWEEP: Duration = Duration::from_secs(1);

/// The longest datagram, bytes: a whole IPv4 packet of a raw socket.
pub(super) const LONGEST: usize = 65535;

/// A datagram socket that receives.
pub(super) struct Datagrams {
    pub(super) socket: peersock_fd::Opened,
    pub(super) transport: Arc<dyn Transport>,
    waker: Waker,
    entry: Arc<ready::Entry>,
    /// The node's ends, by what their names say.
    pub(super) ends: HashMap<Place, Key>,
    /// Whom it is connected to, as the application names it.
    pub(super) peer: Option<SocketAddr>,
    /// Taken from the stack, for which the application's end had no room.
    waiting: Option<(Arrived, Vec<u8>)>,
    /// The details that the last datagram to a connected socket had, as a descriptor.
    last_details: Option<(Details, OwnedFd)>,
    sweep: Instant,
}

/// What became of a datagram for the application.
enum Delivery {
    /// It is there, or lost.
    Done,
    /// There is no room now.
    Full,
    /// Nobody has the socket open.
    Closed,
}

impl ServerState {
    /// Gives what has come to the application; `None` once nobody has the socket open.
    pub(super) fn deliver_datagrams(&mut self, key: Key, mut datagrams: Datagrams) -> Option<Datagrams> {
        datagrams.entry.begin();
        let now = Instant::now();
        if datagrams.sweep <= now {
            if !self.is_open(datagrams.socket) {
                self.forget_datagrams(datagrams);
                return None;
            }
            datagrams.sweep = self.next_sweep(now);
            self.set_timer(datagrams.sweep, key);
        }
        let mut buf = std::mem::take(&mut self.buf);
        let mut kept = true;
        for round in 0.. {
            if round == ROUNDS {
                self.set_timer(now, key);
                break;
            }
            let (arrived, data) = match datagrams.waiting.take() {
                Some(waiting) => waiting,
                None => match datagrams.next(&mut buf[..LONGEST]) {
                    Ok(arrived) => (arrived, Vec::new()),
                    Err(Error::WouldBlock) => break,
                    Err(Error::NetworkDown) => {
                        self.take_down(datagrams.socket);
                        break;
                    }
                    Err(error) => {
                        self.fail_datagrams(key, &mut datagrams, errno(error));
                        continue;
                    }
                },
            };
            let bytes = if data.is_empty() { &buf[..arrived.length] } else { &data };
            match self.deliver_datagram(key, &mut datagrams, &arrived, bytes) {
                Delivery::Done => {}
                Delivery::Full => {
                    let data = if data.is_empty() { bytes.to_vec() } else { data };
                    datagrams.waiting = Some((arrived, data));
                    break;
                }
                Delivery::Closed => {
                    kept = false;
                    break;
                }
            }
        }
        self.buf = buf;
        if kept {
            return Some(datagrams);
        }
        self.forget_datagrams(datagrams);
        None
    }

    fn deliver_datagram(
        &mut self,
        key: Key,
        datagrams: &mut Datagrams,
        arrived: &Arrived,
        data: &[u8],
    ) -> Delivery {
        let Some(opened) = self.opened.get(&datagrams.socket.id) else { return Delivery::Closed };
        let (socket, family) = (datagrams.socket, datagrams.socket.family);
        let details = opened.options.details(family, arrived);
        let details = details.map(|details| self.shown_details(family, details));
        let remote = self.shown(family, arrived.remote);
        if Family::of(remote.ip()) != family {
            // There are no more aliases.
            return Delivery::Done;
        }
        // The end that a socket is connected to is the only one that may send to it.
        let is_peer = datagrams.peer.is_some_and(|peer| same(peer, remote));
        let place = if is_peer { (datagrams.peer.unwrap_or(remote), None) } else { (remote, details) };
        let Ok(end) = self.end_of(key, datagrams, place) else { return Delivery::Done };
        let Some(Entry::End(end)) = self.entry(end) else { return Delivery::Done };
        let along = match details {
            Some(details) if is_peer => datagrams.details_fd(details),
            _ => None,
        };
        let send = || hand_over(&end.fd, data, along);
        let sent = match send() {
            // The application has connected elsewhere and back: that is told once.
            Err(Errno::CONNRESET) => send(),
            // When this end was made, the application's was connected to another.
            Err(Errno::NOTCONN) if end.connect(self.tag, socket).is_ok() => send(),
            sent => sent,
        };
        match sent {
            Err(Errno::AGAIN) => Delivery::Full,
            Err(Errno::CONNREFUSED | Errno::NOTCONN) if !self.is_open(socket) => Delivery::Closed,
            // It is connected to somebody else (EPERM), receives no more (EPIPE), or the system lacks memory.
            _ => Delivery::Done,
        }
    }

    /// Tells the application what a datagram has run into.
    fn fail_datagrams(&mut self, key: Key, datagrams: &mut Datagrams, error: Errno) {
        let Some(opened) = self.opened.get_mut(&datagrams.socket.id) else { return };
        opened.error = Some(error);
        match datagrams.peer {
            Some(peer) => {
                if let Ok(end) = self.end_of(key, datagrams, (peer, None)) {
                    // What the application has sent would be lost.
                    self.handle(end, Readiness { readable: true, ..Readiness::default() });
                    if let Some(Entry::End(end)) = self.entry(end) {
                        end.report_error(self.tag, datagrams.socket);
                    }
                }
            }
            // The kernel tells an unconnected socket of nothing, so it is told with a datagram from nobody.
            None => {
                let nobody = datagrams.socket.family.unspecified();
                if let Ok(end) = self.end_of(key, datagrams, ((nobody, 0).into(), None))
                    && let Some(Entry::End(end)) = self.entry(end)
                {
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    let _ = rustix::net::send(&end.fd, &[], flags);
                }
            }
        }
    }

    /// Sends what the application has written to one of the node's ends.
    pub(super) fn send_datagrams(&mut self, key: Key, end: End, readiness: Readiness) -> Option<End> {
        let (owner, place) = (end.owner, end.place);
        if readiness.writable
            && matches!(self.entry(owner), Some(Entry::Datagrams(datagrams)) if datagrams.waiting.is_some())
        {
            // The end must be found while the owner delivers.
            self.insert(key, Entry::End(end));
            self.handle(owner, Readiness::default());
            let Some(Entry::End(end)) = self.remove(key) else { return None };
            return self.send_datagrams(key, end, Readiness { writable: false, ..readiness });
        }
        let (socket, transport) = self.owner_of_end(owner)?;
        let target = at_home(self.meant(place.0), transport.local());
        let options = self.send_options(socket, target.ip(), place.1);
        let mut buf = std::mem::take(&mut self.buf);
        if buf.len() < LONGEST {
            buf.resize(LONGEST, 0);
        }
        // The first leaves at once: mostly it is the only one.
        let mut gso = std::mem::take(&mut self.gso);
        for round in 0.. {
            if round == ROUNDS {
                self.set_timer(Instant::now(), key);
                break;
            }
            match end.receive(socket, &mut buf) {
                // A longer one is no packet's.
                Ok(length) if length.is_none_or(|length| length > LONGEST) => {}
                Ok(length) => {
                    let length = length.unwrap_or(0);
                    let others = (round > 0).then_some(&mut gso);
                    if let Err(error) = transport.send(target, &buf[..length], &options, others) {
                        tracing::trace!(%error, "a datagram was not sent");
                        if error == Error::MessageSize && self.too_long.last() != Some(&(owner, place.0)) {
                            self.too_long.push((owner, place.0));
                        }
                    }
                }
                Err(Errno::CONNRESET | Errno::INTR) => {}
                Err(_) => break,
            }
        }
        if !gso.is_empty()
            && let Some(node) = self.node.upgrade()
        {
            node.driver.datapath.send_gso_and_settle(Instant::now(), &mut gso);
        }
        self.gso = gso;
        if self.buf.is_empty() {
            self.buf = buf;
        }
        end.note_use(&mut self.uses);
        Some(end)
    }

    /// Sends what applications have written until now, as much as an end can hold.
    pub(super) fn send_all_datagrams(&mut self) {
        let is_end = |(_, entry): &(&Key, &Entry)| matches!(entry, Entry::End(_));
        let ends: Vec<Key> = self.entries.iter().filter(is_end).map(|(key, _)| *key).collect();
        for end in ends {
            for _ in 0..MOST_HELD.div_ceil(ROUNDS) {
                self.handle(end, Readiness { readable: true, ..Readiness::default() });
            }
        }
    }

    fn owner_of_end(&self, owner: Key) -> Option<(peersock_fd::Opened, Arc<dyn Transport>)> {
        if let Some(Entry::Datagrams(datagrams)) = self.entry(owner) {
            return Some((datagrams.socket, Arc::clone(&datagrams.transport)));
        }
        // It is being looked at just now.
        let opened = self.opened.values().find(|opened| opened.phase == Phase::Datagrams(owner))?;
        Some((opened.socket, opened.transport.clone()?))
    }

    pub(super) fn next_sweep(&self, now: Instant) -> Instant {
        now + SWEEP + Duration::from_millis(self.opened.len() as u64)
    }

    /// Forgets a socket that nobody has open any more.
    fn forget_datagrams(&mut self, datagrams: Datagrams) {
        datagrams.ends.values().for_each(|end| drop(self.remove(*end)));
        self.opened.remove(&datagrams.socket.id);
    }

    /// Forgets what a key stands for, and a datagram socket's ends with it.
    pub(super) fn forget_entry(&mut self, key: Key) {
        if let Some(Entry::Datagrams(datagrams)) = self.remove(key) {
            datagrams.ends.values().for_each(|end| drop(self.remove(*end)));
        }
    }
}

impl Datagrams {
    pub(super) fn new(
        socket: peersock_fd::Opened,
        transport: Arc<dyn Transport>,
        (waker, entry): (Waker, Arc<ready::Entry>),
        sweep: Instant,
    ) -> Self {
        let (ends, waiting) = (HashMap::new(), None);
        Self { socket, transport, waker, entry, ends, peer: None, waiting, last_details: None, sweep }
    }

    /// The next datagram of the stack's queue.
    fn next(&self, buf: &mut [u8]) -> Result<Arrived, Error> {
        // What comes after a look that found nothing wakes.
        match self.transport.receive(buf) {
            Err(Error::WouldBlock) => {}
            received => return received,
        }
        self.transport.register(&self.waker);
        self.transport.receive(buf)
    }

    /// A descriptor that holds details, the one of the last datagram if they are the same.
    fn details_fd(&mut self, details: Details) -> Option<rustix::fd::BorrowedFd<'_>> {
        if !self.last_details.as_ref().is_some_and(|(last, _)| *last == details) {
            self.last_details = Some((details, descriptor(&details)?));
        }
        self.last_details.as_ref().map(|(_, fd)| fd.as_fd())
    }
}

/// Whether two addresses mean the same, whatever scopes they name.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

/// What to send to the unspecified address means: to this node itself, as in Linux.
pub(super) fn at_home(remote: SocketAddr, local: SocketAddr) -> SocketAddr {
    match remote.ip().is_unspecified() && !local.ip().is_unspecified() {
        true => SocketAddr::new(local.ip(), remote.port()),
        false => remote,
    }
}
