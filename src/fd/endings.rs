//! Why connections have ended, for applications that ask when the node has nothing else of them any more.

use std::collections::{HashMap, VecDeque};

use peersock_fd::{Errno, SocketId};

use super::stream::Broken;

/// Connections that are remembered; beyond it the oldest is forgotten. Most applications never ask.
const MOST: usize = 4096;

/// The connections that broke last.
#[derive(Default)]
pub(super) struct Endings {
    known: HashMap<SocketId, Broken>,
    order: VecDeque<SocketId>,
}

impl Endings {
    pub(super) fn note(&mut self, id: SocketId, broken: Broken) {
        if self.order.len() == MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        if self.known.insert(id, broken).is_none() {
            self.order.push_back(id);
        }
    }

    /// SO_ERROR: what broke a connection, if the application does not hear of it from the kernel; once.
    pub(super) fn take_error(&mut self, id: SocketId) -> Option<Errno> {
        let broken = self.known.get_mut(&id).filter(|broken| broken.is_untold)?;
        broken.is_untold = false;
        Some(broken.error)
    }

    /// What broke a connection, if the kernel tells its application another error: once, and of the end of its
    /// network always.
    pub(super) fn take_meaning(&mut self, id: SocketId) -> Option<Errno> {
        if self.is_down(id) {
            return Some(Errno::NETDOWN);
        }
        let broken = self.known.get_mut(&id)?;
        let is_new = broken.is_untold && !matches!(broken.error, Errno::CONNRESET | Errno::PIPE);
        broken.is_untold &= !is_new;
        is_new.then_some(broken.error)
    }

    /// Whether a connection has ended with its network.
    pub(super) fn is_down(&self, id: SocketId) -> bool {
        self.known.get(&id).is_some_and(|broken| broken.error == Errno::NETDOWN)
    }

    /// What broke a connection that has lost something.
    pub(super) fn loss(&self, id: SocketId) -> Option<Errno> {
        self.known.get(&id).filter(|broken| broken.is_lost).map(|broken| broken.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_told_once_and_the_oldest_is_forgotten() {
        let mut endings = Endings::default();
        for bits in 0..=MOST as u64 {
            let broken = Broken { error: Errno::PIPE, not_taken: 0, is_untold: true, is_lost: bits % 2 == 1 };
            endings.note(SocketId::new(bits), broken);
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
            let broken = Broken { error, not_taken: 0, is_untold: true, is_lost: true };
            endings.note(SocketId::new(bits), broken);
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
