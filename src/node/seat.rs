//! Seat of a network's controller at a node: who holds it answers the questions of members.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use peersock_overlay::membership::{
    Answer, Credentials, NetworkKey, Question, Refusal, Revocations, UnixTime,
};
use peersock_overlay::{JoinError, NetworkId, Peer, PublicIdentity};
use peersock_stack::Batch;

use super::managed::{Shared, check_key};
use super::{Inner, Joined};
use crate::sync;

/// Receiver of members' questions, on a thread of the node. It must not wait for long, because the node keeps
/// what it learns of the network on the same thread.
pub type Answerer = dyn FnMut(MemberQuestion) + Send;

/// Question of a node to the controller of its network. A node repeats a question that is dropped.
#[must_use]
pub struct MemberQuestion {
    node: Weak<Inner>,
    peer: Arc<Peer>,
    number: u32,
    asker: PublicIdentity,
    question: Box<Question>,
}

impl MemberQuestion {
    pub(super) fn new(node: &Weak<Inner>, peer: &Arc<Peer>, number: u32, question: Box<Question>) -> Self {
        // A program looks up members as its machine, which the controller knows. It has no certificates of a
        // controller.
        let machine = peer.machine().filter(|_| !matches!(*question, Question::Certify(_)));
        let asker = machine.unwrap_or(*peer.identity());
        MemberQuestion { node: Weak::clone(node), peer: Arc::clone(peer), number, asker, question }
    }

    /// Returns the member that asks. A program with its own keys looks up members as its machine.
    pub fn asker(&self) -> &PublicIdentity {
        &self.asker
    }

    /// Returns the address where the asking node is reached now.
    pub fn source(&self) -> Option<IpAddr> {
        self.peer.path().map(|path| path.remote().ip())
    }

    /// Returns the question.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// Answers it, unless the node has ended.
    pub fn answer(self, answer: &Answer) {
        let Some(node) = self.node.upgrade() else { return };
        let (now, mut batch) = (Instant::now(), Batch::default());
        node.driver.datapath.answer_member(now, &self.peer, self.number, answer, &mut batch);
        node.driver.kick();
    }
}

impl fmt::Debug for MemberQuestion {
    /// Leaves out the question, which can contain the token of an invite.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberQuestion").field("asker", &self.asker).finish_non_exhaustive()
    }
}

/// Reason why no controller can serve a network at a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeatError {
    /// A controller serves the network here already.
    #[error("a controller serves network {0} at this node already")]
    Taken(NetworkId),

    /// The network was left, or is no managed one.
    #[error("{0} is no managed network of this node")]
    NotJoined(NetworkId),

    /// The controller's key is not the network's.
    #[error(transparent)]
    Key(JoinError),

    /// The controller's credentials do not count at this node.
    #[error("the controller's credentials do not count: {0}")]
    Credentials(Refusal),
}

/// Seat of a network's controller at a node. When it is dropped, the node is an ordinary member again, with
/// the controller's last credentials.
#[must_use]
pub struct Seat {
    joined: Joined,
    shared: Arc<Shared>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("network", &self.joined.id()).finish_non_exhaustive()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.seat.leave();
        self.joined.set_controller(false);
    }
}

/// The answerer of the controller that holds the seat.
#[derive(Default)]
pub(super) struct Holder(Mutex<Option<Box<Answerer>>>);

impl Holder {
    pub(super) fn is_there(&self) -> bool {
        sync::lock(&self.0).is_some()
    }

    /// Puts a question to the holder; without one it is dropped.
    pub(super) fn ask(&self, question: MemberQuestion) {
        if let Some(answerer) = sync::lock(&self.0).as_mut() {
            answerer(question);
        }
    }

    fn take(&self, answerer: Box<Answerer>) -> bool {
        let mut holder = sync::lock(&self.0);
        let is_free = holder.is_none();
        if is_free {
            *holder = Some(answerer);
        }
        is_free
    }

    fn leave(&self) {
        let answerer = sync::lock(&self.0).take();
        // Without the lock, because it may drop questions.
        drop(answerer);
    }
}

impl Joined {
    /// Makes this node a controller of the managed network, until the result is dropped. `credentials` are
    /// the controller's own, which name the network's key. Members' questions go to `answerer`.
    ///
    /// # Errors
    /// Returns a [`SeatError`]; the node's membership is as before.
    pub fn take_seat(&self, credentials: &Credentials, answerer: Box<Answerer>) -> Result<Seat, SeatError> {
        let shared = self.shared().ok_or(SeatError::NotJoined(self.id()))?;
        let is_known = self.check_controller_key(credentials.key())?;
        self.check_own(credentials).map_err(SeatError::Credentials)?;
        if !shared.seat.take(answerer) {
            return Err(SeatError::Taken(self.id()));
        }
        let seat = Seat { joined: self.clone(), shared };
        let (inner, mut batch) = (&self.node().inner, Batch::default());
        if !is_known {
            let key = *credentials.key();
            inner.driver.datapath.set_network_key(Instant::now(), self.index(), key, &mut batch);
        }
        // Before its credentials, so that it does not ask for others.
        self.set_controller(true);
        self.set_credentials(credentials).map_err(SeatError::Credentials)?;
        Ok(seat)
    }

    /// Returns true while a controller serves the network at this node.
    pub fn is_served(&self) -> bool {
        self.shared().is_some_and(|shared| shared.seat.is_there())
    }

    fn set_controller(&self, is_controller: bool) {
        let (inner, mut batch) = (&self.node().inner, Batch::default());
        inner.driver.datapath.set_controller(Instant::now(), self.index(), is_controller, &mut batch);
        inner.driver.kick();
    }

    /// Checks a controller's network key. Returns true if the node knows it.
    fn check_controller_key(&self, key: &NetworkKey) -> Result<bool, SeatError> {
        let datapath = &self.node().inner.driver.datapath;
        match datapath.membership(self.index(), |known| known.key().copied()) {
            None => Err(SeatError::NotJoined(self.id())),
            Some(Some(known)) if known == *key => Ok(true),
            Some(Some(_)) => Err(SeatError::Key(JoinError::OtherKey(self.id()))),
            Some(None) => check_key(key, self.id()).map(|()| false).map_err(SeatError::Key),
        }
    }

    /// Checks that credentials are those of this node, that it has issued them, and that they have not ended.
    pub(super) fn check_own(&self, credentials: &Credentials) -> Result<(), Refusal> {
        let (key, inner) = (credentials.key(), &self.node().inner);
        let admission = credentials.authenticate(key, self.id(), &inner.identity.node_id())?;
        if *admission.issuer() != inner.identity {
            return Err(Refusal::Issuer);
        }
        // By the system's clock, as the controller. Removals by others do not count against its own node. A
        // clock that was ahead before may have signed a little later, and members accept that.
        let now = UnixTime::from(std::time::UNIX_EPOCH.elapsed().unwrap_or_default());
        admission.check(now.for_statement(admission.signed_time()), &Revocations::default())
    }
}
