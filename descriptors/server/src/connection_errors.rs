//! Why connections have ended, for applications that ask when the node has nothing else of them any more, and
//! what was lost without any call having said so.
//!
//! The node hears of the calls that fail through the library, which asks what the error means. The kernel
//! does not tell: a copy of the application's descriptor would show an error that nobody has taken (POLLERR),
//! but as long as there is one, closing the descriptor does not take it out of the program's epoll(7).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use peersock_fd::{Errno, SocketId};

/// Connections that are remembered; beyond it the oldest is forgotten. Most applications never ask.
const MOST: usize = 4096;

/// What was closed so short a time before a drain was closed by the end of the process that it is for: the
/// kernel closes a process's descriptors before it tells anybody that the process has ended.
const EXIT: Duration = Duration::from_secs(1);

/// What a connection leaves behind that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) error: Errno,
    /// The peer has not had everything: bytes that are not acknowledged. They may be none, as of a peer that
    /// closes without reading.
    pub(crate) lost: Option<u64>,
    pub(crate) when: When,
    /// The application has connected it, and not accepted it.
    pub(crate) is_own_attempt: bool,
    /// A call of the application's has failed by it.
    pub(crate) is_noticed: bool,
    /// The application has not been told by the kernel: SO_ERROR has to.
    pub(crate) is_untold: bool,
}

/// When a connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// The application had its descriptor open.
    Open,
    /// The application had closed it.
    Closed,
    /// The node was draining.
    Draining,
}

/// The connections that broke last.
#[derive(Default)]
pub(crate) struct Endings {
    known: HashMap<SocketId, Ending>,
    /// Those that broke last after they were closed, and when.
    closed_last: VecDeque<(Instant, SocketId)>,
    order: VecDeque<SocketId>,
    /// Lost before a drain, and no call has told of it: by connections that were open when they broke, and
    /// bytes of those that the application had connected itself and closed.
    before: Losses,
    /// Lost by others that the application had closed. Who serves has clients that go away as they like.
    closed: Losses,
    /// Lost at a drain.
    draining: Losses,
}

/// What connections have lost.
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
        if self.order.len() == MOST
            && let Some(oldest) = self.order.pop_front()
        {
            // Whether it is noticed later is not known any more.
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
            && (now.duration_since(*at) > EXIT || self.closed_last.len() > MOST)
        {
            self.closed_last.pop_front();
        }
    }

    /// A drain begins: bytes that were lost a moment ago by connections that are closed are lost at the drain.
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

    /// Where an ending is counted, if it is.
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

    /// A call of the application's has failed by what has ended the connection, or will.
    pub(crate) fn note_noticed(&mut self, id: SocketId) {
        let Some(ending) = self.known.get_mut(&id) else { return };
        let before = *ending;
        ending.is_noticed = true;
        if let Some((losses, bytes)) = self.counted(before) {
            losses.take_back(bytes);
        }
    }

    /// What was lost before a drain, and is worth a word.
    pub(crate) fn lost_before(&self) -> Losses {
        self.before
    }

    /// What was lost at the drain.
    pub(crate) fn lost_at_drain(&self) -> Losses {
        self.draining
    }

    /// Whether anything was lost that no call has told of.
    pub(crate) fn has_losses(&self) -> bool {
        self.before.connections + self.closed.connections + self.draining.connections > 0
    }

    /// SO_ERROR: what broke a connection, if the application does not hear of it from the kernel; once.
    pub(crate) fn take_error(&mut self, id: SocketId) -> Option<Errno> {
        let ending = self.known.get_mut(&id).filter(|ending| ending.is_untold)?;
        ending.is_untold = false;
        Some(ending.error)
    }

    /// What broke a connection, if the kernel tells its application another error: once, and of the end of
    /// its network always.
    pub(crate) fn take_meaning(&mut self, id: SocketId) -> Option<Errno> {
        if self.is_down(id) {
            return Some(Errno::NETDOWN);
        }
        let ending = self.known.get_mut(&id)?;
        let is_new = ending.is_untold && !matches!(ending.error, Errno::CONNRESET | Errno::PIPE);
        ending.is_untold &= !is_new;
        is_new.then_some(ending.error)
    }

    /// Whether a connection has ended with its network.
    pub(crate) fn is_down(&self, id: SocketId) -> bool {
        self.known.get(&id).is_some_and(|ending| ending.error == Errno::NETDOWN)
    }

    /// What broke a connection that has lost something.
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
        let later = begin + 2 * EXIT;
        endings.note(later, acknowledged, closed(0));
        endings.note(later, now, closed(5));
        endings.note(later, unseen, Ending { is_noticed: true, ..closed(7) });
        assert_eq!(endings.lost_at_drain(), Losses::default());
        endings.begin_drain(later + EXIT / 2);
        assert_eq!(endings.lost_at_drain(), Losses { connections: 2, bytes: 12 });
        assert_eq!(endings.closed, Losses { connections: 2, bytes: 1 });
    }

    #[test]
    fn each_error_is_told_once_and_the_oldest_is_forgotten() {
        let mut endings = Endings::default();
        for bits in 0..=MOST as u64 {
            let lost = (bits % 2 == 1).then_some(bits);
            endings.note(Instant::now(), SocketId::new(bits), ending(Errno::PIPE, lost));
        }
        assert_eq!(endings.take_error(SocketId::new(0)), None);
        assert_eq!(endings.take_error(SocketId::new(1)), Some(Errno::PIPE));
        assert_eq!(endings.take_error(SocketId::new(1)), None);
        assert_eq!(endings.loss(SocketId::new(1)), Some(Errno::PIPE));
        assert_eq!(endings.loss(SocketId::new(2)), None);
        assert_eq!((endings.order.len(), endings.known.len()), (MOST, MOST));
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
        // That is what it is.
        assert_eq!(endings.take_meaning(reset), None);
        assert_eq!(endings.take_error(reset), Some(Errno::PIPE));
    }
}
