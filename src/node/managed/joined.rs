//! Calls of programs about a managed network that they have joined.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::membership::{
    Credentials, Head, MemberName, NetworkKey, Question, Refusal, Revocations, SignedRules, Token,
};
use peersock_overlay::{JoinError, Membership, PublicIdentity};
use peersock_stack::Batch;

use super::super::Joined;
use super::{MembershipStatus, Progress, Shared, Standing, check_key};
use crate::management::JoinRequest;
use crate::sync;

impl Joined {
    pub(in super::super) fn shared(&self) -> Option<Arc<Shared>> {
        sync::lock(&self.node().inner.managed).get(&self.id()).cloned()
    }

    /// Returns an error once a controller has said that this node is no member any more.
    pub(in super::super) fn check_not_removed(&self) -> io::Result<()> {
        match self.shared().is_some_and(|shared| shared.is_removed()) {
            true => {
                let message =
                    format!("this machine was removed from network {} by its controller", self.id());
                Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
            }
            false => Ok(()),
        }
    }

    /// Returns the state of this node's membership; `None` if the network is no managed one.
    pub fn membership(&self) -> Option<MembershipStatus> {
        let shared = self.shared()?;
        let standing = sync::lock(&shared.progress).standing.clone();
        let heard = shared.heard();
        let datapath = &self.node().inner.driver.datapath;
        let unix_time = datapath.unix_time(Instant::now());
        let read = |known: &Membership| MembershipStatus {
            standing,
            key: known.key().copied(),
            grant: known.credentials().map(|own| own.certificate().grant().clone()),
            end: known.credentials().map(Credentials::end),
            time: known.time(unix_time),
            controllers: known.controllers().to_vec(),
            heard,
            revocations: known.newest_head().map(|head| (head.epoch(), head.time())),
            is_up_to_date: known.is_up_to_date(),
        };
        datapath.membership(self.index(), read)
    }

    /// Waits until this node is a member of the managed network, and returns its standing then, or when
    /// `timeout` has passed. Returns at once in other networks, whose members need no admission. `told` hears
    /// each change while this waits.
    ///
    /// # Errors
    /// Returns `NetworkDown` if the network was left.
    pub fn wait_admitted(&self, timeout: Duration, told: impl FnMut(&Standing)) -> io::Result<Standing> {
        self.wait_standing(timeout, told, |standing| *standing == Standing::Member)
    }

    /// Waits until a controller has told this run of the node its newest revocations, and the node has kept
    /// them, or until `timeout` has passed. Returns false in that case: this node may then accept a member
    /// that was removed before. Returns true at once in networks without a controller.
    ///
    /// # Errors
    /// Returns `NetworkDown` if the network was left.
    pub fn wait_up_to_date(&self, timeout: Duration) -> io::Result<bool> {
        if self.shared().is_none() {
            return Ok(true);
        }
        self.wait_word(timeout, |_| (), |_, is_up_to_date| is_up_to_date).map(|word| word.1)
    }

    /// Waits until a controller has answered in this run of the node, for a time at most.
    pub(in super::super) fn wait_heard(&self, timeout: Duration) {
        let Some(shared) = self.shared() else { return };
        let progress = sync::lock(&shared.progress);
        drop(sync::wait_timeout_while(&shared.changed, progress, timeout, |now| now.heard.is_none()));
    }

    /// Waits like [`wait_admitted`](Joined::wait_admitted), but until `is_wanted`.
    pub(in super::super) fn wait_standing(
        &self,
        timeout: Duration,
        told: impl FnMut(&Standing),
        is_wanted: impl Fn(&Standing) -> bool,
    ) -> io::Result<Standing> {
        self.wait_word(timeout, told, |standing, _| is_wanted(standing)).map(|word| word.0)
    }

    /// Does the same where it also matters whether the node has kept a controller's newest revocations.
    /// Returns that, too.
    pub(in super::super) fn wait_word(
        &self,
        timeout: Duration,
        mut told: impl FnMut(&Standing),
        is_wanted: impl Fn(&Standing, bool) -> bool,
    ) -> io::Result<(Standing, bool)> {
        let Some(shared) = self.shared() else { return Ok((Standing::Member, true)) };
        let deadline = Instant::now().checked_add(timeout);
        let mut last = Standing::Asking;
        let mut progress = sync::lock(&shared.progress);
        loop {
            if progress.standing != last {
                last = progress.standing.clone();
                drop(progress);
                told(&last);
                progress = sync::lock(&shared.progress);
                continue;
            }
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            let is_up_to_date = progress.is_up_to_date;
            if is_wanted(&last, is_up_to_date) || left.is_zero() {
                return Ok((last, is_up_to_date));
            }
            drop(progress);
            self.check_joined()?;
            progress = sync::lock(&shared.progress);
            let pause = left.min(Duration::from_millis(500));
            let is_same = |now: &mut Progress| now.standing == last && now.is_up_to_date == is_up_to_date;
            progress = sync::wait_timeout_while(&shared.changed, progress, pause, is_same);
        }
    }

    /// Fixes the network's key, which an invite has, if the network was joined by its ID alone.
    ///
    /// # Errors
    /// Returns [`JoinError::OtherKey`] if another key is known, and [`JoinError::WrongKey`].
    pub(in super::super) fn set_key(&self, key: NetworkKey) -> Result<(), JoinError> {
        let known = self.node().inner.driver.datapath.membership(self.index(), |known| known.key().copied());
        let is_known = match known.flatten() {
            Some(known) => known == key,
            None => {
                check_key(&key, self.id())?;
                self.shared().is_none_or(|shared| shared.set_key(&self.node().inner, key))
            }
        };
        if is_known { Ok(()) } else { Err(JoinError::OtherKey(self.id())) }
    }

    /// Asks the controllers again, with another invite or wished name, unless this node is a member.
    pub(in super::super) fn ask_again(&self, token: Option<Token>, wish: Option<MemberName>) {
        let Some(shared) = self.shared().filter(|shared| shared.word() != "member") else { return };
        if let (Some(record), Some(wish)) = (&mut sync::lock(&shared.kept).record, &wish) {
            record.wish = Some(wish.clone());
        }
        // The last word was about the earlier request.
        shared.set(Standing::Asking, false);
        let (now, mut batch) = (Instant::now(), Batch::default());
        let inner = &self.node().inner;
        inner.driver.datapath.ask_again(now, self.index(), (token, wish), &mut batch);
        inner.driver.kick();
    }

    /// Keeps the names and roots of a request in the state directory, with the membership: once a controller
    /// has admitted this node, or lets it wait.
    pub fn keep_names(&self, request: &JoinRequest) {
        let Some(shared) = self.shared() else { return };
        let mut kept = sync::lock(&shared.kept);
        if kept.record.as_mut().is_some_and(|record| request.note_in(record)) {
            *sync::lock(&shared.local_name) = kept.local_name();
            kept.hurry();
        }
        // The person who asks may have made room on a disk that was full.
        if kept.has_failed {
            kept.hurry();
        }
        kept.write_if_due(&self.node().inner);
    }

    /// Replaces this node's credentials, which the network's controller at this node has made.
    ///
    /// # Errors
    /// Returns the reason if they are not this node's, another issuer has made them, or they have ended.
    pub fn set_credentials(&self, credentials: &Credentials) -> Result<(), Refusal> {
        self.check_own(credentials)?;
        let (now, mut batch) = (Instant::now(), Batch::default());
        let inner = &self.node().inner;
        inner.driver.datapath.set_credentials(now, self.index(), credentials, &mut batch)?;
        inner.driver.kick();
        if let Some(shared) = self.shared() {
            shared.set_granted(inner, false);
        }
        Ok(())
    }

    /// Spreads revocations that the network's controller at this node has signed.
    ///
    /// # Errors
    /// Returns the reason if they do not count.
    pub fn set_revocations(&self, head: &Head, set: &Revocations) -> Result<(), Refusal> {
        let (now, mut batch) = (Instant::now(), Batch::default());
        let inner = &self.node().inner;
        inner.driver.datapath.set_revocations(now, self.index(), head, set, &mut batch)?;
        inner.driver.kick();
        Ok(())
    }

    /// Spreads access rules that the network's controller at this node has signed, and enforces them here.
    ///
    /// # Errors
    /// Returns the reason if they do not count.
    pub fn set_rules(&self, rules: &SignedRules) -> Result<(), Refusal> {
        let (now, mut batch) = (Instant::now(), Batch::default());
        let inner = &self.node().inner;
        inner.driver.datapath.set_rules(now, self.index(), rules.clone(), &mut batch)?;
        inner.driver.kick();
        // At once, because other commands of this machine read the record next.
        if let Some(shared) = self.shared() {
            let mut kept = sync::lock(&shared.kept);
            kept.hurry();
            kept.write_if_due(inner);
        }
        Ok(())
    }

    /// Returns the access rules that count in the network, as an issuer has signed them.
    pub fn rules(&self) -> Option<SignedRules> {
        let read = |known: &Membership| known.rules().cloned();
        self.node().inner.driver.datapath.membership(self.index(), read).flatten()
    }

    /// Begins sessions with members to which the network's controller at this node may be unknown, because it
    /// has another key now. Looks for the first [`MAX_VISITS`](peersock_overlay::Endpoint::MAX_VISITS) of
    /// them.
    pub fn visit_members(&self, members: &[PublicIdentity]) {
        let (now, mut batch) = (Instant::now(), Batch::default());
        let inner = &self.node().inner;
        inner.driver.datapath.visit_members(now, self.index(), members, &mut batch);
        inner.driver.kick();
    }

    /// Returns the newest head of each issuer that this node knows, with the bytes of its set.
    pub fn revocations(&self) -> Vec<(Head, Arc<[u8]>)> {
        let read = |known: &Membership| known.heads().cloned().collect();
        self.node().inner.driver.datapath.membership(self.index(), read).unwrap_or_default()
    }

    /// Asks the network's controllers for a member. The member then can be reached, by its name and
    /// addresses, if there is one. Returns false if the question cannot be asked now.
    pub fn find_member(&self, question: &Question) -> bool {
        let inner = &self.node().inner;
        let (now, mut batch) = (Instant::now(), Batch::default());
        let asked = inner.driver.datapath.find_member(now, self.index(), question, &mut batch);
        inner.driver.kick();
        asked
    }
}
