//! The root's view of this node in the address family that its path to the root does not use.
//!
//! A node with IPv4 and IPv6, or with IPv6 and a NAT64, reaches a root by one of them, and the voucher of its
//! registration is for that one. Peers with only the other family need a voucher for that, because without it
//! they send there only a few packets and do not search by many ports. So this node asks the root for another
//! voucher from there after each answer to a registration.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::id::{NodeId, PublicIdentity};
use crate::wire::Voucher;

/// Number of questions; the wait doubles with each.
const MAX_QUESTIONS: u32 = 4;
const FIRST_ANSWER_WAIT: Duration = Duration::from_millis(500);

/// Voucher of the other family, and the question for it.
#[derive(Debug, Default)]
pub(crate) struct OtherView {
    /// Number of unanswered questions, their last destination, and the time of the next.
    asking: Option<(u32, Option<SocketAddr>, Instant)>,
    /// Address at which the root was asked, and its answer.
    answer: Option<(SocketAddr, Voucher)>,
}

impl OtherView {
    /// Begins asking.
    pub(crate) fn ask(&mut self, now: Instant) {
        self.asking = Some((0, None, now));
    }

    /// Forgets the answer, because there is no such way to the root, or this node is not registered there.
    /// Returns true if that changes anything.
    pub(crate) fn forget(&mut self) -> bool {
        self.asking = None;
        self.answer.take().is_some()
    }

    /// Returns when to ask, or to give up.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.asking.map(|(.., next)| next)
    }

    /// Returns the number of the question that is due, from 0. Returns `None` when the last question was not
    /// answered in time, so that this way no longer works.
    pub(crate) fn due(&self, now: Instant) -> Option<u32> {
        self.asking.filter(|(tries, _, next)| *tries < MAX_QUESTIONS && now >= *next).map(|(tries, ..)| tries)
    }

    /// Records that a question went to `at`.
    pub(crate) fn asked(&mut self, at: SocketAddr, now: Instant) {
        if let Some((tries, to, next)) = &mut self.asking {
            (*to, *next) = (Some(at), now + FIRST_ANSWER_WAIT * 2u32.pow(*tries));
            *tries += 1;
        }
    }

    /// Handles an answer, which must match the question and its family. Returns false otherwise.
    pub(crate) fn answered(&mut self, voucher: Voucher, root: &PublicIdentity, own: &NodeId) -> bool {
        let Some((_, Some(at), _)) = self.asking else { return false };
        let is_newer = self.answer.is_none_or(|(_, known)| voucher.time >= known.time);
        let address = voucher.address;
        // Answers may overtake each other, and the older one names a mapping that may be gone.
        let fits = address.is_ipv4() == at.is_ipv4() && address.port() != 0 && is_newer;
        if !fits || !voucher.verify(root, own) {
            return false;
        }
        (self.asking, self.answer) = (None, Some((at, voucher)));
        true
    }

    /// Returns where the root was asked, and the voucher that it gave.
    pub(crate) fn get(&self) -> Option<(SocketAddr, Voucher)> {
        self.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Identity;
    use crate::testing::instant;

    const AT: &str = "198.51.100.1:7420";

    #[test]
    fn it_is_asked_for_four_times_and_lost_without_an_answer() {
        let (mut view, mut now) = (OtherView::default(), instant());
        assert_eq!((view.due(now), view.next()), (None, None));
        view.ask(now);
        let mut waits = Vec::new();
        while let Some(tries) = view.due(now) {
            assert_eq!(tries as usize, waits.len());
            view.asked(AT.parse().unwrap(), now);
            let next = view.next().unwrap();
            assert_eq!(view.due(now), None, "it is waited for");
            waits.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(waits, [500, 1000, 2000, 4000]);
        assert_eq!(view.next(), Some(now), "then it is given up");
        assert!(!view.forget(), "there was nothing");
        assert_eq!(view.next(), None);
    }

    #[test]
    fn an_answer_counts_if_it_was_asked_for_and_is_the_roots_own_word_of_that_family() {
        let [root, other, node] = [1, 2, 3].map(|seed| Identity::from_seed(&[seed; 32]));
        let own = node.node_id();
        let now = instant();
        let sign = |by: &Identity, of: &Identity, address: &str, time| {
            Voucher::sign(by, &of.node_id(), time, address.parse().unwrap())
        };
        let good = sign(&root, &node, "203.0.113.9:5000", 5);
        let mut view = OtherView::default();
        assert!(!view.answered(good, root.public(), &own), "nobody has asked");
        view.ask(now);
        assert!(!view.answered(good, root.public(), &own), "nothing was sent yet");
        view.asked(AT.parse().unwrap(), now);
        for wrong in [
            sign(&other, &node, "203.0.113.9:5000", 5),
            sign(&root, &other, "203.0.113.9:5000", 5),
            sign(&root, &node, "[2001:db8::9]:5000", 5),
            sign(&root, &node, "203.0.113.9:0", 5),
        ] {
            assert!(!view.answered(wrong, root.public(), &own), "{wrong:?}");
        }
        assert!(view.answered(good, root.public(), &own));
        assert_eq!((view.get(), view.next()), (Some((AT.parse().unwrap(), good)), None));
        assert!(!view.answered(good, root.public(), &own), "one answer for one question");
        view.ask(now);
        view.asked(AT.parse().unwrap(), now);
        let old = sign(&root, &node, "203.0.113.9:5000", 4);
        assert!(!view.answered(old, root.public(), &own), "it was held back");
        assert!(view.answered(sign(&root, &node, "203.0.113.9:5001", 6), root.public(), &own));
        // A root whose clock was set back repeats that each time. Its earlier answer ends with the question.
        view.ask(now);
        while view.due(now + FIRST_ANSWER_WAIT * 100).is_some() {
            view.asked(AT.parse().unwrap(), now);
            assert!(!view.answered(old, root.public(), &own));
        }
        assert!(view.forget());
        assert_eq!(view.get(), None);
        view.ask(now);
        view.asked(AT.parse().unwrap(), now);
        assert!(view.answered(old, root.public(), &own));
    }
}
