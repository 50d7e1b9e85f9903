//! Causes of ended connections, for applications that ask after the node has dropped the connection, and
//! losses that no call has reported.
//!
//! The library reports failed calls to the node when it asks what the error means. The kernel does not report
//! them. A copy of the application's descriptor would show a pending error (POLLERR). But while a copy
//! exists, closing the descriptor does not remove it from the program's epoll(7) sets.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use peersock_fd::{Errno, SocketId};

/// Number of connections remembered; beyond it the oldest is forgotten. Most applications never ask.
const MAX_CONNECTIONS: usize = 4096;

/// Age up to which a connection closed before a drain counts as closed by the process's exit. The kernel
/// closes a process's descriptors before it reports the process's end.
const EXIT_TIME: Duration = Duration::from_secs(1);

/// Record of a broken connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) error: Errno,
    /// Bytes that the peer has not acknowledged, if anything was lost. Zero is possible, for example if the
    /// peer closed without reading.
    pub(crate) lost: Option<u64>,
    pub(crate) when: When,
    /// True if the application connected it, false if it accepted it.
    pub(crate) is_own_attempt: bool,
    /// True if a call of the application has failed with this error.
    pub(crate) is_noticed: bool,
    /// True if the kernel has not reported the error, so that SO_ERROR must.
    pub(crate) is_untold: bool,
}

/// Phase in which a connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// The application had its descriptor open.
    Open,
    /// The application had closed its descriptor.
    Closed,
    /// The node was draining.
    Draining,
}

/// The most recently broken connections.
#[derive(Default)]
pub(crate) struct Endings {
    known: HashMap<SocketId, Ending>,
    /// Connections that broke most recently after they were closed, with their times.
    closed_last: VecDeque<(Instant, SocketId)>,
    order: VecDeque<SocketId>,
    /// Losses before a drain that no call has reported. These are losses of connections open when they broke,
    /// and lost bytes of connections that the application had connected and closed.
    before: Losses,
    /// Losses of other connections the application had closed, because a server's clients may go away at any
    /// time.
    closed: Losses,
    /// Losses during a drain.
    draining: Losses,
}

/// Sum of the losses of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Losses {
    pub(crate) connections: usize,
    pub(crate) bytes: u64,
}

impl Losses {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.connections += 1;
        self.bytes += bytes;
    }

    fn take_back(&mut self, bytes: u64) {
        self.connections -= 1;
        self.bytes -= bytes;
    }
}

impl Endings {
    pub(crate) fn note(&mut self, now: Instant, id: SocketId, ending: Ending) {
        self.forget_closed(now);
        if ending.when == When::Closed && ending.lost.is_some_and(|bytes| bytes > 0) {
            self.closed_last.push_back((now, id));
        }
        if self.order.len() == MAX_CONNECTIONS
            && let Some(oldest) = self.order.pop_front()
        {
            // A later failed call can no longer be attributed to it.
            self.known.remove(&oldest);
        }
        if self.known.insert(id, ending).is_none() {
            self.order.push_back(id);
        }
        if let Some((losses, bytes)) = self.counted(ending) {
            losses.add(bytes);
        }
    }

    fn forget_closed(&mut self, now: Instant) {
        while let Some((at, _)) = self.closed_last.front()
            && (now.duration_since(*at) > EXIT_TIME || self.closed_last.len() > MAX_CONNECTIONS)
        {
            self.closed_last.pop_front();
        }
    }

    /// Begins a drain. Bytes lost by connections closed a moment ago count as lost at the drain.
    pub(crate) fn begin_drain(&mut self, now: Instant) {
        self.forget_closed(now);
        for (_, id) in std::mem::take(&mut self.closed_last) {
            let Some(ending) = self.known.get_mut(&id) else { continue };
            let before = *ending;
            (ending.when, ending.is_noticed) = (When::Draining, false);
            let after = *ending;
            if let Some((losses, bytes)) = self.counted(before) {
                losses.take_back(bytes);
            }
            if let Some((losses, bytes)) = self.counted(after) {
                losses.add(bytes);
            }
        }
    }

    /// Returns the sum in which an ending is counted, if any.
    fn counted(&mut self, ending: Ending) -> Option<(&mut Losses, u64)> {
        let bytes = ending.lost.filter(|_| !ending.is_noticed)?;
        let losses = match ending.when {
            When::Open => &mut self.before,
            When::Closed if ending.is_own_attempt && bytes > 0 => &mut self.before,
            When::Closed => &mut self.closed,
            When::Draining => &mut self.draining,
        };
        Some((losses, bytes))
    }

    /// Notes that a call of the application has failed because of the connection's end, past or imminent.
    pub(crate) fn note_noticed(&mut self, id: SocketId) {
        let Some(ending) = self.known.get_mut(&id) else { return };
        let before = *ending;
        ending.is_noticed = true;
        if let Some((losses, bytes)) = self.counted(before) {
            losses.take_back(bytes);
        }
    }

    /// Notes that the kernel has not reported the connection's end as a reset.
    pub(crate) fn note_untold(&mut self, id: SocketId) {
        if let Some(ending) = self.known.get_mut(&id) {
            ending.is_untold = true;
        }
    }

    /// Returns the losses before a drain that deserve a report.
    pub(crate) fn lost_before(&self) -> Losses {
        self.before
    }

    /// Returns the losses at the drain.
    pub(crate) fn lost_at_drain(&self) -> Losses {
        self.draining
    }

    /// Returns true if anything was lost that no call has reported.
    pub(crate) fn has_losses(&self) -> bool {
        self.before.connections + self.closed.connections + self.draining.connections > 0
    }

    /// Returns the cause of a connection's end for SO_ERROR, once, if the kernel does not report it to the
    /// application.
    pub(crate) fn take_error(&mut self, id: SocketId) -> Option<Errno> {
        let ending = self.known.get_mut(&id).filter(|ending| ending.is_untold)?;
        ending.is_untold = false;
        Some(ending.error)
    }

    /// Returns the cause of a connection's end, once, if the kernel reports a different error. The end of the
    /// network is returned every time.
    pub(crate) fn take_meaning(&mut self, id: SocketId) -> Option<Errno> {
        if self.is_down(id) {
            return Some(Errno::NETDOWN);
        }
        let ending = self.known.get_mut(&id)?;
        let is_new = ending.is_untold && !matches!(ending.error, Errno::CONNRESET | Errno::PIPE);
        ending.is_untold &= !is_new;
        is_new.then_some(ending.error)
    }

    /// Returns the record of a broken connection.
    pub(crate) fn get(&self, id: SocketId) -> Option<Ending> {
        self.known.get(&id).copied()
    }

    /// Returns true if a connection has ended with its network.
    pub(crate) fn is_down(&self, id: SocketId) -> bool {
        self.known.get(&id).is_some_and(|ending| ending.error == Errno::NETDOWN)
    }

    /// Returns the cause of a connection's end, if it has lost something.
    pub(crate) fn loss(&self, id: SocketId) -> Option<Errno> {
        self.known.get(&id).filter(|ending| ending.lost.is_some()).map(|ending| ending.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(error: Errno, lost: Option<u64>) -> Ending {
        Ending { error, lost, when: When::Open, is_own_attempt: false, is_noticed: false, is_untold: true }
    }

    #[test]
    fn losses_that_a_call_has_told_of_are_not_counted() {
        let mut endings = Endings::default();
        let reset = |lost| ending(Errno::CONNRESET, lost);
        let [unread, nothing, noticed, closed, acknowledged, attempt] = [1, 2, 3, 4, 5, 6].map(SocketId::new);
        endings.note(Instant::now(), nothing, reset(None));
        endings.note(Instant::now(), noticed, Ending { is_noticed: true, ..reset(Some(7)) });
        assert!(!endings.has_losses());
        let own = |lost| Ending { when: When::Closed, is_own_attempt: true, ..reset(Some(lost)) };
        endings.note(Instant::now(), acknowledged, own(0));
        endings.note(Instant::now(), attempt, own(9));
        assert_eq!(endings.lost_before(), Losses { connections: 1, bytes: 9 });
        endings.note_noticed(attempt);
        endings.note_noticed(acknowledged);
        endings.note(Instant::now(), closed, Ending { when: When::Closed, ..reset(Some(5)) });
        assert_eq!((endings.lost_before(), endings.has_losses()), (Losses::default(), true));
        endings.note(Instant::now(), unread, reset(Some(0)));
        assert_eq!(endings.lost_before(), Losses { connections: 1, bytes: 0 });
        for id in [unread, unread, nothing, noticed, closed] {
            endings.note_noticed(id);
        }
        assert!(!endings.has_losses());
    }

    #[test]
    fn what_broke_just_before_a_drain_is_lost_at_the_drain() {
        let mut endings = Endings::default();
        let begin = Instant::now();
        let closed = |lost| Ending { when: When::Closed, ..ending(Errno::CONNRESET, Some(lost)) };
        let [long_ago, acknowledged, now, unseen] = [1, 2, 3, 4].map(SocketId::new);
        endings.note(begin, long_ago, closed(1));
        let later = begin + 2 * EXIT_TIME;
        endings.note(later, acknowledged, closed(0));
        endings.note(later, now, closed(5));
        endings.note(later, unseen, Ending { is_noticed: true, ..closed(7) });
        assert_eq!(endings.lost_at_drain(), Losses::default());
        endings.begin_drain(later + EXIT_TIME / 2);
        assert_eq!(endings.lost_at_drain(), Losses { connections: 2, bytes: 12 });
        assert_eq!(endings.closed, Losses { connections: 2, bytes: 1 });
    }

    #[test]
    fn each_error_is_told_once_and_the_oldest_is_forgotten() {
        let mut endings = Endings::default();
        for bits in 0..=MAX_CONNECTIONS as u64 {
            let lost = (bits % 2 == 1).then_some(bits);
            endings.note(Instant::now(), SocketId::new(bits), ending(Errno::PIPE, lost));
        }
        assert_eq!(endings.take_error(SocketId::new(0)), None);
        assert_eq!(endings.take_error(SocketId::new(1)), Some(Errno::PIPE));
        assert_eq!(endings.take_error(SocketId::new(1)), None);
        assert_eq!(endings.loss(SocketId::new(1)), Some(Errno::PIPE));
        assert_eq!(endings.loss(SocketId::new(2)), None);
        assert_eq!((endings.order.len(), endings.known.len()), (MAX_CONNECTIONS, MAX_CONNECTIONS));
    }

    #[test]
    fn what_the_kernel_calls_a_reset_is_told_once_and_the_networks_end_always() {
        let errors = [Errno::TIMEDOUT, Errno::NETDOWN, Errno::PIPE];
        let mut endings = Endings::default();
        for (bits, error) in (0..).zip(errors) {
            endings.note(Instant::now(), SocketId::new(bits), ending(error, Some(0)));
        }
        let [overdue, down, reset] = [0, 1, 2].map(SocketId::new);
        assert_eq!([0, 1].map(|_| endings.take_meaning(overdue)), [Some(Errno::TIMEDOUT), None]);
        assert_eq!(endings.take_error(overdue), None);
        assert_eq!([0, 1].map(|_| endings.take_meaning(down)), [Some(Errno::NETDOWN); 2]);
        // The kernel reports this error already.
        assert_eq!(endings.take_meaning(reset), None);
        assert_eq!(endings.take_error(reset), Some(Errno::PIPE));
    }
}
