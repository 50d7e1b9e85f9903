//! Addresses that a round sends to: the plan's, the ones at which the node is heard meanwhile, and the ones
//! left out, with the reason.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Punching;
use super::bounds::{UNVOUCHED_SHOTS, Word};
use crate::contact::{Candidate, CandidateKind, Contact, DirectAttempt, DirectOutcome, HolePunch, NotTried};
use crate::reach::{Place, SocketIndex};

/// Times of challenges from a TURN allocation, from the beginning of a round on.
const TURN_CHALLENGE_TIMES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_millis(1500),
    Duration::from_millis(3500),
    Duration::from_millis(7500),
    Duration::from_millis(11500),
];

/// Maximum number of addresses that get packets from all TURN allocations.
pub(super) const MAX_BY_TURN: usize = 8;

/// Times of packets to an address at which the node was heard without having named it.
const HEARD_SHOTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(400)];

/// Maximum number of such addresses in one round.
pub(super) const MAX_HEARD_ADDRESSES: usize = 4;

/// Address that gets packets.
#[derive(Debug)]
pub(super) struct Target {
    /// TURN allocation that the packets leave from; `None` for a UDP socket.
    pub(super) turn: Option<SocketIndex>,
    pub(super) address: SocketAddr,
    pub(super) kind: CandidateKind,
    pub(super) predicted: bool,
    /// True if a challenge of the node in this round showed the address.
    pub(super) heard: bool,
    pub(super) vouched: Word,
    /// Data of the challenges sent there.
    pub(super) data: [u8; 8],
    pub(super) sent: u32,
    pub(super) last: Option<Instant>,
    /// True if the node has answered from there, or a path found otherwise leads there.
    pub(super) answered: bool,
    /// True if a path made further packets there unnecessary.
    pub(super) spared: bool,
}

impl Target {
    pub(super) fn is_at(&self, place: &Place) -> bool {
        let turn = Some(place.socket()).filter(|socket| socket.is_turn());
        // A TCP connection is a different way to the same address.
        !place.socket().is_stream() && self.turn == turn && self.address == place.remote()
    }

    fn outcome(&self, is_due: bool) -> DirectOutcome {
        match () {
            () if self.answered => DirectOutcome::Answered,
            () if is_due => DirectOutcome::Trying,
            () if self.sent == 0 && self.spared => DirectOutcome::NotTried(NotTried::NotNeeded),
            () if self.sent == 0 => DirectOutcome::NotTried(NotTried::Unvouched),
            () => DirectOutcome::Silent,
        }
    }
}

impl Punching {
    /// Creates the targets and packets of a plan that begins at `start`.
    pub(super) fn aim(
        &mut self,
        own: &Contact,
        plan: &HolePunch,
        start: Instant,
        mut draw: impl FnMut() -> Option<[u8; 8]>,
    ) {
        let is_neighbour = self.vouched.is_neighbour(own);
        let known = plan.targets().iter().map(|candidate| (None, *candidate, false));
        let guess =
            |address: &SocketAddr| (None, Candidate { kind: CandidateKind::Mapped, address: *address }, true);
        let by_turn = self.by_turn(plan).into_iter().map(|(turn, candidate)| (Some(turn), candidate, false));
        let all = known.chain(plan.predicted().iter().map(guess)).chain(by_turn);
        let target = |(turn, candidate, predicted): (Option<SocketIndex>, Candidate, bool)| {
            let Candidate { kind, address } = candidate;
            let is_inside = is_neighbour && !candidate.is_global();
            Some(Target {
                turn,
                address,
                kind,
                predicted,
                heard: false,
                // A root sees both nodes behind one address, so an inside address concerns only their own
                // network.
                vouched: if is_inside { Word::Root } else { self.vouched.word_on(&address.ip()) },
                data: draw()?,
                sent: 0,
                last: None,
                answered: false,
                spared: false,
            })
        };
        self.targets = all.filter_map(target).collect();
        self.left_out = plan.left_out().to_vec();
        self.shots.clear();
        let mut shots = vec![0; self.targets.len()];
        for shot in plan.shots() {
            let is_it = |target: &Target| target.turn.is_none() && target.address == shot.to;
            let Some(at) = self.targets.iter().position(is_it) else { continue };
            shots[at] += 1;
            let Target { kind, address, vouched, .. } = self.targets[at];
            // Only the node itself claims to be on this LAN.
            let is_met = self.initiates && Candidate { kind, address }.is_global();
            if is_met || vouched != Word::Own || shots[at] <= UNVOUCHED_SHOTS {
                self.shots.push_back((start + shot.after, at));
            }
        }
        let by_turn = self.targets.iter().enumerate().filter(|(_, target)| target.turn.is_some());
        let by_turn = by_turn.flat_map(|(at, _)| TURN_CHALLENGE_TIMES.map(|after| (start + after, at)));
        let mut shots: Vec<_> = self.shots.drain(..).chain(by_turn).collect();
        // Stable, so that packets of one moment keep their order of preference.
        shots.sort_by_key(|(when, _)| *when);
        self.shots = shots.into();
    }

    /// Returns the addresses that get packets from TURN allocations: the plan's, and the ones of a family
    /// that only the TURN server has.
    fn by_turn(&self, plan: &HolePunch) -> Vec<(SocketIndex, Candidate)> {
        let is_far = |why: &NotTried| *why == NotTried::OtherFamily;
        let far = plan.left_out().iter().filter(|(candidate, why)| is_far(why) && candidate.is_global());
        let all = plan.targets().iter().chain(far.map(|(candidate, _)| candidate));
        // Seen from the TURN server, a loopback address is another host.
        let all = all.filter(|candidate| !candidate.address.ip().is_loopback());
        // Seen from the TURN server, a private address belongs to the server's network, at which a meeting
        // must not aim.
        let all = all.filter(|candidate| candidate.is_global() || !self.initiates);
        let ways = all.flat_map(|candidate| {
            let leads = |turn: &&(SocketIndex, bool)| turn.1 == candidate.address.is_ipv4();
            self.turns.iter().filter(leads).map(|(turn, _)| (*turn, *candidate))
        });
        // Each takes a permission at the server, whose number is limited too.
        ways.take(MAX_BY_TURN).collect()
    }

    /// Handles a packet of the node from `remote` during the search. If the node has not named that address,
    /// its NAT box has mapped this destination to another port, and packets go there at once (RFC 8445,
    /// 7.3.1.4).
    pub(crate) fn heard(
        &mut self,
        remote: SocketAddr,
        now: Instant,
        mut draw: impl FnMut() -> Option<[u8; 8]>,
    ) -> bool {
        let heard = self.targets.iter().filter(|target| target.heard).count();
        // That requires a root's voucher for the IP address. Returns true if something is due now.
        let word = self.vouched.word_on(&remote.ip());
        if self.shots.is_empty()
            || heard >= MAX_HEARD_ADDRESSES
            || word == Word::Own
            || self.targets.iter().any(|target| target.address == remote)
        {
            return false;
        }
        let Some(data) = draw() else { return false };
        let at = self.targets.len();
        self.targets.push(Target {
            turn: None,
            address: remote,
            kind: CandidateKind::Mapped,
            predicted: true,
            heard: true,
            vouched: word,
            data,
            sent: 0,
            last: None,
            answered: false,
            spared: false,
        });
        self.shots.extend(HEARD_SHOTS.map(|after| (now + after, at)));
        self.shots.make_contiguous().sort_by_key(|(when, _)| *when);
        true
    }

    /// Returns the attempts of the last round, and the addresses left out.
    pub(crate) fn attempts(&self) -> Vec<DirectAttempt> {
        let direct = self.targets.iter().enumerate().filter(|(_, target)| target.turn.is_none());
        let tried = direct.map(|(at, target)| DirectAttempt {
            address: target.address,
            kind: target.kind,
            predicted: target.predicted,
            by_many_ports: false,
            by_tcp: false,
            vouched: target.vouched != Word::Own,
            sent: target.sent,
            tried: target.last,
            outcome: target.outcome(self.shots.iter().any(|(_, other)| *other == at)),
        });
        let left_out = self.left_out.iter().map(|(candidate, why)| DirectAttempt {
            address: candidate.address,
            kind: candidate.kind,
            predicted: false,
            by_many_ports: false,
            by_tcp: false,
            vouched: self.vouched.word_on(&candidate.address.ip()) != Word::Own,
            sent: 0,
            tried: None,
            outcome: DirectOutcome::NotTried(*why),
        });
        tried.chain(left_out).chain(self.birthday.attempt()).chain(self.tcp.attempts()).collect()
    }
}
