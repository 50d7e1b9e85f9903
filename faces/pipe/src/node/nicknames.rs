//! Nicknames: connecting to a node by `alice.9f86d081884c7d659a2f.peersock` instead of its address text.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock::{NamedNode, Nickname, NicknameError, NicknameText};
use peersock_primitives::{blocking, sync};

use super::{DEFAULT_FIND_TIMEOUT, P2pNode, WAIT_STEP, find};
use crate::error::of_system;
use crate::{Pipe, PipeError};

/// Timeout of the roots' answers.
const ROOTS_TIMEOUT: Duration = Duration::from_secs(10);

impl P2pNode {
    /// Claims a nickname at the roots of the node. Returns the text for
    /// [`connect_nickname`](Self::connect_nickname), here and in Python. The first claimant has the nickname
    /// while its node exists and an hour longer; closing this node releases it. See
    /// [`Node::nickname`](peersock::Node::nickname).
    ///
    /// # Errors
    /// [`PipeError::Nickname`] if another node has it, or no root has answered in ten seconds; or this node
    /// is closed.
    pub async fn nickname(&self, nickname: &Nickname) -> Result<NicknameText, PipeError> {
        {
            let mut own = sync::lock(&self.own);
            if own.is_closed {
                return Err(PipeError::Closed);
            }
            if !own.nicknames.contains(nickname) {
                own.nicknames.push(nickname.clone());
            }
        }
        let (node, claimed, port) = (self.node.clone(), nickname.clone(), self.port());
        let outcome = in_steps(ROOTS_TIMEOUT, move |step| node.nickname(&claimed, port, step)).await;
        let mut own = sync::lock(&self.own);
        if outcome.is_err() || own.is_closed {
            own.nicknames.retain(|known| known != nickname);
            self.node.release_nickname(nickname);
        }
        match outcome {
            Ok(_) if own.is_closed => Err(PipeError::Closed),
            outcome => outcome,
        }
    }

    /// Connects to the node that has a nickname, as [`connect`](Self::connect) does, in any network that both
    /// nodes are in. It searches for up to 30 seconds.
    ///
    /// A text with the node's 20 digits leads only to that node. `alice.peersock` leads to the node that the
    /// roots name.
    ///
    /// # Errors
    /// [`PipeError::Nickname`], and the errors of [`connect`](Self::connect).
    pub async fn connect_nickname(&self, text: &NicknameText) -> Result<Pipe, PipeError> {
        self.connect_nickname_within(text, DEFAULT_FIND_TIMEOUT).await
    }

    /// Connects as [`connect_nickname`](Self::connect_nickname) does, with this search time; `Duration::MAX`
    /// means no limit.
    ///
    /// # Errors
    /// The errors of [`connect_nickname`](Self::connect_nickname).
    pub async fn connect_nickname_within(
        &self,
        text: &NicknameText,
        timeout: Duration,
    ) -> Result<Pipe, PipeError> {
        if sync::lock(&self.own).is_closed {
            return Err(PipeError::Closed);
        }
        // A deadline beyond the clock's range means no limit.
        let deadline = Instant::now().checked_add(timeout);
        let (node, name) = (self.node.clone(), text.clone());
        let found = in_steps(timeout.min(ROOTS_TIMEOUT), move |step| node.find_nickname(&name, step)).await?;
        let left = deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        let dest = self.place_of(&found, left).await?;
        self.open(dest).await
    }

    /// Returns the address of a node, in the first network in which it is found.
    async fn place_of(&self, found: &NamedNode, timeout: Duration) -> Result<SocketAddr, PipeError> {
        let networks = self.node.networks();
        if networks.is_empty() || found.port == 0 {
            return Err(PipeError::NoCommonNetwork);
        }
        let deadline = Instant::now().checked_add(timeout);
        let id = found.identity.node_id();
        loop {
            for joined in &networks {
                let address = joined.id().address_of(&id).into();
                match find(joined, address, WAIT_STEP).await {
                    Ok(()) => return Ok(SocketAddr::new(address, found.port)),
                    Err(PipeError::NotFound) => {}
                    // The node has left the network, or no member can have the address.
                    Err(error) if networks.len() == 1 => return Err(error),
                    Err(_) => tokio::time::sleep(WAIT_STEP).await,
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(PipeError::NotFound);
            }
        }
    }
}

/// Waits for the roots' answer in steps, so that a cancelled call blocks no thread for longer than one step.
async fn in_steps<T: Send + 'static>(
    timeout: Duration,
    call: impl Fn(Duration) -> Result<T, NicknameError> + Clone + Send + 'static,
) -> Result<T, PipeError> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let (call, step) = (call.clone(), left.min(WAIT_STEP));
        match blocking(move || call(step)).await.map_err(|error| of_system("ask the roots", &error))? {
            Err(NicknameError::NoAnswer | NicknameError::NoRoots) if left > WAIT_STEP => {}
            outcome => return Ok(outcome?),
        }
    }
}
