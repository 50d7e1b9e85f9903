//! Nicknames: short texts by which others find a node, kept by the roots that both use.

use std::cell::Cell;
use std::time::{Duration, Instant};

use peersock_datapath::Datapath;
use peersock_overlay::{NamedNode, Nickname, NicknameError, NicknameText};

use super::Node;

/// Interval of the checks for the roots' answers.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Node {
    /// Claims a nickname for this node at all its roots, and returns the text by which others find it with
    /// [`Node::find_nickname`]. They also get `port`, at which the node accepts connections; 0 means none.
    ///
    /// The first claim wins, without any registration. It lasts for an hour after the node's last renewal, so
    /// it survives a restart. The node renews it until it ends or [releases](Self::release_nickname) it. A
    /// node has at most four.
    ///
    /// After [`NicknameError::NoAnswer`] and [`NicknameError::NoRoots`] the node keeps trying, and another
    /// call continues to wait.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// let node = peersock::node()?;
    /// let text = node.nickname(&"alice".parse()?, 10001, Duration::from_secs(10))?;
    /// println!("others find me as {text}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns a [`NicknameError`] if another node has it, if it was released meanwhile, or if no root has
    /// answered within `timeout`.
    pub fn nickname(
        &self,
        nickname: &Nickname,
        port: u16,
        timeout: Duration,
    ) -> Result<NicknameText, NicknameError> {
        // Claimed only once, so that a concurrent release is final.
        let is_claimed = Cell::new(false);
        self.wait_for_roots(timeout, |datapath, now| match is_claimed.replace(true) {
            false => datapath.claim_nickname(now, nickname, port),
            true => datapath.nickname_claimed(now, nickname, port),
        })
    }

    /// Asks the roots for the owner of a nickname, and checks that this node has signed it. Its address in a
    /// network follows from its ID: [`NetworkId::address_of`](crate::NetworkId::address_of).
    ///
    /// A text with the node's 20 digits leads to that node or fails. Without them, as in `alice.peersock`, it
    /// leads to the node that the roots name; if two roots name different nodes, that is an error.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// let node = peersock::node()?;
    /// let found = node.find_nickname(&"alice.peersock".parse()?, Duration::from_secs(10))?;
    /// for network in node.networks() {
    ///     println!("[{}]:{}", network.id().address_of(&found.identity.node_id()), found.port);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns a [`NicknameError`] if the nickname has no owner or several, or if no root has answered within
    /// `timeout`.
    pub fn find_nickname(&self, text: &NicknameText, timeout: Duration) -> Result<NamedNode, NicknameError> {
        self.wait_for_roots(timeout, |datapath, now| datapath.find_nickname(now, text))
    }

    /// Releases a nickname, so that others can have it. The roots are told once; a root that misses the
    /// message forgets it within an hour. Returns false if it was not claimed.
    pub fn release_nickname(&self, nickname: &Nickname) -> bool {
        self.inner.driver.datapath.release_nickname(Instant::now(), nickname)
    }

    /// Returns this node's nicknames, sorted.
    pub fn nicknames(&self) -> Vec<Nickname> {
        self.inner.driver.datapath.nicknames()
    }

    fn wait_for_roots<T>(
        &self,
        timeout: Duration,
        look: impl Fn(&Datapath, Instant) -> Option<Result<T, NicknameError>>,
    ) -> Result<T, NicknameError> {
        // A timeout beyond the clock's range means no deadline.
        let deadline = Instant::now().checked_add(timeout);
        let datapath = &self.inner.driver.datapath;
        // The subscription ends with the node.
        let events = datapath.subscribe();
        loop {
            if self.inner.is_down() {
                return Err(NicknameError::Stopped);
            }
            let now = Instant::now();
            if let Some(outcome) = look(datapath, now) {
                return outcome;
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
            if left.is_zero() {
                // Two errors, because without roots waiting longer does not help.
                let has_roots = !datapath.roots(now).is_empty();
                return Err(if has_roots { NicknameError::NoAnswer } else { NicknameError::NoRoots });
            }
            let _ = events.next_timeout(left.min(POLL_INTERVAL));
        }
    }
}
