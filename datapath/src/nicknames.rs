//! Nickname calls of the node, which roots answer.

use std::time::Instant;

use peersock_overlay::{NamedNode, Nickname, NicknameError, NicknameText};
use peersock_stack::Batch;

use crate::Datapath;

impl Datapath {
    /// Claims a nickname, or returns the outcome ([`Endpoint::claim_nickname`]).
    ///
    /// [`Endpoint::claim_nickname`]: peersock_overlay::Endpoint::claim_nickname
    pub fn claim_nickname(
        &self,
        now: Instant,
        nickname: &Nickname,
        port: u16,
    ) -> Option<Result<NicknameText, NicknameError>> {
        self.about_nicknames(now, |endpoint, now| endpoint.claim_nickname(now, nickname, port))
    }

    /// Returns the outcome of a claim ([`Endpoint::nickname_claimed`]).
    ///
    /// [`Endpoint::nickname_claimed`]: peersock_overlay::Endpoint::nickname_claimed
    pub fn nickname_claimed(
        &self,
        now: Instant,
        nickname: &Nickname,
        port: u16,
    ) -> Option<Result<NicknameText, NicknameError>> {
        self.about_nicknames(now, |endpoint, now| endpoint.nickname_claimed(now, nickname, port))
    }

    /// Looks up the owner of a nickname, or returns the outcome ([`Endpoint::find_nickname`]).
    ///
    /// [`Endpoint::find_nickname`]: peersock_overlay::Endpoint::find_nickname
    pub fn find_nickname(
        &self,
        now: Instant,
        text: &NicknameText,
    ) -> Option<Result<NamedNode, NicknameError>> {
        self.about_nicknames(now, |endpoint, now| endpoint.find_nickname(now, text))
    }

    /// Releases a nickname. Returns false if it was not claimed.
    pub fn release_nickname(&self, now: Instant, nickname: &Nickname) -> bool {
        self.about_nicknames(now, |endpoint, now| endpoint.release_nickname(now, nickname))
    }

    /// Returns the nicknames of the node.
    pub fn nicknames(&self) -> Vec<Nickname> {
        self.control().nicknames()
    }

    fn about_nicknames<T>(
        &self,
        now: Instant,
        call: impl FnOnce(&mut peersock_overlay::Endpoint, Instant) -> T,
    ) -> T {
        let mut batch = Batch::default();
        let result = self.with_control(now, &mut batch, call);
        self.settle(now, &mut batch);
        result
    }
}
