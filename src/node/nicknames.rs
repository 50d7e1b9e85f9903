//! Nicknames: short texts by which others find a node, kept by the roots that both use.

use std::cell::Cell;
use std::time::{Duration, Instant};

use peersock_datapath::Datapath;
use peersock_overlay::{NamedNode, Nickname, NicknameError, NicknameText};

use super::Node;

/// How often it is looked whether the roots have answered.
const LOOK: Duration = Duration::from_millis(20);

impl Node {
    /// Claims a nickname for this node at all its roots, and gives the text by which others find it:
    /// [`Node::find_nickname`]. They are told `port`, at which the node takes connections; 0 says none.
    ///
    /// Whoever comes first has it, for an hour from the last time that it was heard of, so also while it is
    /// restarted; nobody is asked to register. It is renewed until the node ends or
    /// [releases](Self::release_nickname) it. A node has four at most.
    ///
    /// After [`NicknameError::NoAnswer`] and [`NicknameError::NoRoots`] the node goes on trying, and calling
    /// this again goes on waiting.
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
    /// [`NicknameError`]: another node has it, it was released meanwhile, or no root has answered within
    /// `timeout`.
    pub fn nickname(
        &self,
        nickname: &Nickname,
        port: u16,
        timeout: Duration,
    ) -> Result<NicknameText, NicknameError> {
        // Claimed once: who gives it back meanwhile does so for good.
        let is_claimed = Cell::new(false);
        self.wait_for_roots(timeout, |datapath, now| match is_claimed.replace(true) {
            false => datapath.claim_nickname(now, nickname, port),
            true => datapath.nickname_claimed(now, nickname, port),
        })
    }

    /// Asks the roots whose a nickname is, and checks that the node itself has signed it. Its address in a
    /// network follows from its ID: [`NetworkId::address_of`](crate::NetworkId::address_of).
    ///
    /// A text with the node's 20 digits leads to that node or to nobody. Without them, as in
    /// `alice.peersock`, it leads to whomever the roots name; if two name different nodes that is an error.
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
    /// [`NicknameError`]: nobody has it, several have, or no root has answered within `timeout`.
    pub fn find_nickname(&self, text: &NicknameText, timeout: Duration) -> Result<NamedNode, NicknameError> {
        self.wait_for_roots(timeout, |datapath, now| datapath.find_nickname(now, text))
    }

    /// Gives a nickname back, so that others can have it: the roots are told once, and those that do not hear
    /// it forget it within an hour. False if it was not claimed.
    pub fn release_nickname(&self, nickname: &Nickname) -> bool {
        self.inner.driver.datapath.release_nickname(Instant::now(), nickname)
    }

    /// The nicknames that are this node's, sorted.
    pub fn nicknames(&self) -> Vec<Nickname> {
        self.inner.driver.datapath.nicknames()
    }

    fn wait_for_roots<T>(
        &self,
        timeout: Duration,
        look: impl Fn(&Datapath, Instant) -> Option<Result<T, NicknameError>>,
    ) -> Result<T, NicknameError> {
        // The clock may not reach so far: then it is without end.
        let deadline = Instant::now().checked_add(timeout);
        let datapath = &self.inner.driver.datapath;
        // It ends when the node does.
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
                let has_roots = !datapath.roots(now).is_empty();
                return Err(if has_roots { NicknameError::NoAnswer } else { NicknameError::NoRoots });
            }
            let _ = events.next_timeout(left.min(LOOK));
        }
    }
}
