//! Nicknames at the roots: claims of this node, and look-ups of other nodes' nicknames.

use std::sync::Arc;
use std::time::Instant;

use super::Endpoint;
use crate::id::{Nickname, NicknameText, NodeId};
use crate::link::{PeerKey, Timer};
use crate::roots::{Answered, NamedNode, NicknameError, is_current};
use crate::wire::{NicknameMessage, NicknameOwner, NotFound, RootMessage};

impl Endpoint {
    /// Claims a nickname for this node at all its roots, or returns the outcome; `None` while the roots have
    /// not answered. Call this again until it returns an outcome; [`Self::poll_timeout`] says when one may
    /// exist. `port` is told to nodes that look up the nickname.
    ///
    /// The nickname is this node's if a root says so and none says that it is another node's. From then on it
    /// is renewed until it is released or the node shuts down; an absent node keeps it for an hour. After an
    /// error it is no longer claimed.
    ///
    /// # Errors
    /// Returns [`NicknameError::Taken`], [`NicknameError::TooMany`], [`NicknameError::Full`] or
    /// [`NicknameError::Refused`].
    pub fn claim_nickname(
        &mut self,
        now: Instant,
        nickname: &Nickname,
        port: u16,
    ) -> Option<Result<NicknameText, NicknameError>> {
        if let Err(error) = self.roots.claims.want(nickname, port, now) {
            return Some(Err(error));
        }
        let roots = self.own_roots();
        self.wake_roots(now, &roots);
        self.nickname_claimed(now, nickname, port)
    }

    /// Returns the outcome of a claim so far, as [`Self::claim_nickname`] does, without claiming again.
    ///
    /// # Errors
    /// Returns the errors of [`Self::claim_nickname`], and [`NicknameError::GivenBack`] if the nickname is no
    /// longer claimed with that port.
    pub fn nickname_claimed(
        &mut self,
        now: Instant,
        nickname: &Nickname,
        port: u16,
    ) -> Option<Result<NicknameText, NicknameError>> {
        if !self.roots.claims.is_wanted(nickname, port) {
            return Some(Err(NicknameError::GivenBack));
        }
        let roots = self.own_roots();
        match self.roots.claims.outcome(nickname, &roots, now) {
            None => {
                self.wake_roots(now, &roots);
                None
            }
            Some(Ok(())) => Some(Ok(NicknameText::of(nickname.clone(), &self.own_id))),
            Some(Err(error)) => {
                self.release_nickname(now, nickname);
                Some(Err(error))
            }
        }
    }

    /// Gives a nickname back: the roots are told once, and a root that misses the message forgets it within
    /// an hour. Returns false if it was not claimed.
    pub fn release_nickname(&mut self, now: Instant, nickname: &Nickname) -> bool {
        let is_ours = self.roots.claims.has(nickname);
        let roots = self.roots.claims.release(nickname);
        self.say_released(now, nickname, roots);
        is_ours
    }

    fn say_released(&mut self, now: Instant, nickname: &Nickname, roots: Vec<PeerKey>) {
        let (identity, unix_time) = (Arc::clone(&self.core.identity), self.core.clock.unix_time(now));
        for key in roots {
            let Some(root) = self.roots.get(key).map(|root| root.identity.node_id()) else { continue };
            let message = self.roots.claims.say_released(nickname, &identity, &root, unix_time);
            self.tell_root(now, key, &RootMessage::Nickname(message));
        }
    }

    /// Returns this node's nicknames, sorted.
    pub fn nicknames(&self) -> Vec<Nickname> {
        self.roots.claims.ours()
    }

    /// Asks all roots for the owner of a nickname, or returns their answer; `None` while there is none. Call
    /// this again until it returns an answer; [`Self::poll_timeout`] says when one may exist. The search
    /// continues for ten seconds after the last call.
    /// Returns [`NicknameError::NotFound`] or [`NicknameError::Ambiguous`].
    pub fn find_nickname(
        &mut self,
        now: Instant,
        text: &NicknameText,
    ) -> Option<Result<NamedNode, NicknameError>> {
        let id = u32::from_be_bytes(self.core.random());
        self.roots.questions.want(text, id, now);
        let roots = self.own_roots();
        let outcome = self.roots.questions.outcome(text, &roots, now);
        if outcome.is_none() {
            self.wake_roots(now, &roots);
        }
        outcome
    }

    /// Sends a root the due messages about nicknames, and returns when to check again.
    pub(super) fn step_nicknames(&mut self, now: Instant, key: PeerKey) -> Option<Instant> {
        let (identity, unix_time) = (Arc::clone(&self.core.identity), self.core.clock.unix_time(now));
        let node = self.askable(now, key)?;
        let claims = self.roots.claims.due(key, &identity, &node, unix_time, now);
        let questions = self.roots.questions.due(key, now);
        for message in claims.into_iter().chain(questions) {
            self.core.counters.root_nicknames_sent.increment();
            self.tell_root(now, key, &RootMessage::Nickname(message));
        }
        let next = [self.roots.claims.next(key, now), self.roots.questions.next(key, now)];
        next.into_iter().flatten().min()
    }

    /// Handles a root's message about nicknames.
    pub(super) fn on_nickname(&mut self, now: Instant, key: PeerKey, message: NicknameMessage) {
        let is_good = match message {
            NicknameMessage::Claimed { sequence, result } => {
                match self.roots.claims.answered(key, sequence, result, now) {
                    Answered::Unasked => false,
                    Answered::Noted => true,
                    Answered::Lost(nickname, roots) => {
                        self.say_released(now, &nickname, roots);
                        true
                    }
                    Answered::TakenOver(nickname) => {
                        tracing::warn!(%nickname, "a root has given this node's nickname to another node");
                        true
                    }
                }
            }
            // The question will be repeated.
            NicknameMessage::Found { result: Err(NotFound::Limited), .. } => true,
            NicknameMessage::Found { id, result } => {
                let Some(text) = self.roots.questions.asked(key, id).cloned() else {
                    return self.core.counters.root_answers_refused.increment();
                };
                let owner = result.ok();
                let is_good = owner.is_none_or(|owner| self.is_signed(now, key, &text, &owner));
                // Another node with the same nickname is not the one that the text names.
                let owner = owner.filter(|owner| is_good && text.matches(&owner.identity.node_id()));
                self.roots.questions.answered(key, &text, owner, now);
                is_good
            }
            // Only roots get the other messages.
            _ => return self.core.counters.control_unknown.increment(),
        };
        if !is_good {
            self.core.counters.root_answers_refused.increment();
        }
    }

    /// Returns true if a node has signed for this root, recently enough, that it owns the nickname.
    fn is_signed(&self, now: Instant, key: PeerKey, text: &NicknameText, owner: &NicknameOwner) -> bool {
        let Some(root) = self.roots.get(key) else { return false };
        is_current(&owner.claim, self.core.clock.unix_time(now))
            && owner.claim.verify(&owner.identity, &root.identity.node_id(), &text.nickname)
    }

    /// Returns the roots this node was given, or those from lists if there are no others.
    fn own_roots(&self) -> Vec<PeerKey> {
        // Guests know other nicknames.
        let own = || self.roots.list.iter().filter(|(_, root)| root.guest.is_none());
        // An attacker who placed a root in a list could otherwise deny every nickname.
        let has_named = own().any(|(_, root)| !root.is_listed);
        own().filter(|(_, root)| !(has_named && root.is_listed)).map(|(key, _)| *key).collect()
    }

    /// Returns the ID of one of these roots if it can be told something now. The others follow once this node
    /// is registered there.
    fn askable(&self, now: Instant, key: PeerKey) -> Option<NodeId> {
        let root = self.roots.get(key).filter(|root| !root.is_unreachable)?;
        if !self.own_roots().contains(&key) {
            return None;
        }
        root.registering.standing(now).map(|_| root.identity.node_id())
    }

    /// Schedules a step for each of these roots at which something is due.
    fn wake_roots(&mut self, now: Instant, roots: &[PeerKey]) {
        for key in roots.iter().filter(|key| self.askable(now, **key).is_some()).copied().collect::<Vec<_>>()
        {
            let next = [self.roots.claims.next(key, now), self.roots.questions.next(key, now)];
            if let Some(at) = next.into_iter().flatten().min() {
                self.core.timers.set_earlier(Timer::Root(key), at);
            }
        }
    }
}
