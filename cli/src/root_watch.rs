//! Messages about roots that are lost, refuse this node, or cannot ask for nodes of other roots, and about
//! their recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peersock::overlay::NodeId;
use peersock::{Node, RootChanges, RootState, RootStatus};

use crate::background::Background;
use crate::reach::are_private;
use crate::root_look::{self, Found};
use crate::stdio;

/// Delay after a root's change before the roots are checked; changes that end sooner are not reported.
const CHECK_DELAY: Duration = Duration::from_millis(500);

/// The roots whose trouble a user has read of, with its cause. Notes and the advice of failures share it, so
/// that a cause is said once.
#[derive(Clone, Default)]
pub(crate) struct ToldRoots(Arc<Mutex<BTreeSet<NodeId>>>);

impl ToldRoots {
    pub(crate) fn has(&self, root: NodeId) -> bool {
        self.roots().contains(&root)
    }

    /// Remembers a root. Called after its cause is printed: two threads may then say it at the same time,
    /// and neither relies on a line that the other has yet to print.
    pub(crate) fn add(&self, root: NodeId) {
        self.roots().insert(root);
    }

    fn forget(&self, root: NodeId) {
        self.roots().remove(&root);
    }

    fn roots(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch on roots; it ends when dropped.
pub(crate) struct RootWatch {
    changes: Arc<RootChanges>,
    _thread: Background,
}

/// Watches the roots of a node until the result is dropped. Skips roots that other roots have named, because
/// the user has not asked for them.
pub(crate) fn start(node: &Node, told: ToldRoots) -> io::Result<RootWatch> {
    start_for(node, told, stdio::note)
}

/// Watches the roots as [`start`] does, and passes each line to `tell`.
pub(crate) fn start_for(
    node: &Node,
    told: ToldRoots,
    tell: impl Fn(String) + Send + 'static,
) -> io::Result<RootWatch> {
    let node = node.clone();
    let changes = Arc::new(node.root_changes());
    let seen = Arc::clone(&changes);
    let thread = Background::start("root-watch", move |is_over| {
        let mut messages = RootMessages::default();
        // The first pass covers changes before the watch began.
        let mut goes_on = true;
        while goes_on && is_over.recv_timeout(CHECK_DELAY) == Err(RecvTimeoutError::Timeout) {
            for root in node.roots().iter().filter(|root| !root.guest) {
                match messages.tell(root.id, root.state, || Trouble::of(root), || name(root)) {
                    Some(Message::Change(line)) => tell(line),
                    Some(Message::Cause(line)) if !told.has(root.id) => {
                        tell(line);
                        told.add(root.id);
                    }
                    Some(Message::Cause(_)) | None => {}
                }
                if let RootState::Registered | RootState::Draining = root.state {
                    told.forget(root.id);
                }
                let line = messages.tell_directory(root.id, root.directory_away, || name(root));
                line.into_iter().for_each(&tell);
            }
            goes_on = seen.wait();
        }
    })?;
    Ok(RootWatch { changes, _thread: thread })
}

impl Drop for RootWatch {
    /// Ends the wait for changes before the thread is joined.
    fn drop(&mut self) {
        self.changes.end();
    }
}

/// Returns a root's name for people: its location.
pub(crate) fn name(root: &RootStatus) -> String {
    // The node changes their order as they answer.
    let mut endpoints = root.endpoints.clone();
    endpoints.sort();
    let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    match (&root.stream, &endpoints[..]) {
        (Some(stream), _) => format!("the root at {stream}"),
        (None, []) => format!("root {}", root.id),
        (None, endpoints) => format!("the root at {}", endpoints.join(" or ")),
    }
}

/// Filter of root messages: each change is printed once.
#[derive(Default)]
struct RootMessages {
    known: BTreeMap<NodeId, Known>,
    without_directory: BTreeSet<NodeId>,
}

/// A line about a root.
enum Message {
    Change(String),
    /// It says why the node is not registered there, as far as that is known.
    Cause(String),
}

/// The likeliest reason why a root does not answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing is known. TCP, TLS or WebSocket are tried, too.
    Unknown,
    /// Nothing is known, and only UDP is tried.
    UdpAlone,
    /// Only machines of the root's network reach its addresses.
    PrivateAddresses,
    /// This machine has no route to it.
    NoRoute,
    /// Something answers there, but not with its key.
    OtherKey,
}

impl Trouble {
    /// Looks for the reason, for a second at most.
    fn of(root: &RootStatus) -> Trouble {
        // A stream that failed would have left an error.
        if root.stream.is_some() || root.stream_error.is_some() {
            return Trouble::Unknown;
        }
        match root_look::look(&root.endpoints) {
            Found::StunServer => Trouble::OtherKey,
            Found::NoRoute => Trouble::NoRoute,
            Found::Nothing if are_private(&root.endpoints) => Trouble::PrivateAddresses,
            Found::Nothing => Trouble::UdpAlone,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The node is registered at the root.
    Registered,
    Unreachable,
    Refused,
}

impl RootMessages {
    /// Returns the message about a root's state.
    fn tell(
        &mut self,
        root: NodeId,
        state: RootState,
        trouble: impl FnOnce() -> Trouble,
        name: impl Fn() -> String,
    ) -> Option<Message> {
        let now = match state {
            RootState::Registered | RootState::Draining => Known::Registered,
            RootState::Unreachable => Known::Unreachable,
            RootState::Refused => Known::Refused,
            // The result is not known yet.
            _ => return None,
        };
        let before = self.known.insert(root, now);
        if before == Some(now) {
            return None;
        }
        let cause = |text: &str| Some(Message::Cause(format!("{} {text}", name())));
        let change = |text| Some(Message::Change(format!("{} {text}", name())));
        let text = match (before, now) {
            (None, Known::Registered) => return None,
            (Some(_), Known::Registered) => return change("takes this node again: it can be found there"),
            (Some(Known::Registered), Known::Unreachable) => {
                return change(
                    "is lost: it does not answer any more, and no peer finds this node there; it is tried \
                     again until it answers",
                );
            }
            (_, Known::Unreachable) => {
                let check =
                    "check that it runs, has the key that --root names, and that firewalls let it pass";
                let check = match trouble() {
                    Trouble::OtherKey => {
                        return cause(
                            "answers, but not with the key that --root names: give the line that `peersock \
                             root` prints there; it is tried again",
                        );
                    }
                    Trouble::PrivateAddresses => {
                        "its address is private, so if it is not in this network, start it with --advertise \
                         and the public address of its machine"
                            .to_owned()
                    }
                    Trouble::NoRoute => "this machine has no route to it".to_owned(),
                    Trouble::Unknown => check.to_owned(),
                    Trouble::UdpAlone => format!(
                        "{check}; it is tried by UDP alone: where that is blocked, --root has to name tcp: \
                         or wss: as well"
                    ),
                };
                format!("does not answer; it is tried again until it does: {check}")
            }
            (_, Known::Refused) => {
                "refuses this node: most likely it requires a token; give that with --root-token-file"
                    .to_owned()
            }
        };
        cause(&text)
    }

    /// Returns the message about a root's directory. `is_away`: the shared directory does not answer.
    fn tell_directory(
        &mut self,
        root: NodeId,
        is_away: bool,
        name: impl FnOnce() -> String,
    ) -> Option<String> {
        let is_news = match is_away {
            true => self.without_directory.insert(root),
            false => self.without_directory.remove(&root),
        };
        let text = match is_away {
            true => {
                "says that the directory which it shares with other roots does not answer: nodes at other \
                 roots are not found until it does; the operator of the root finds the reason in its log"
            }
            false => "again reaches the directory that it shares with other roots",
        };
        is_news.then(|| format!("{} {text}", name()))
    }
}

#[cfg(test)]
mod tests {
    use peersock::overlay::Identity;

    use super::*;

    fn text(message: Message) -> String {
        match message {
            Message::Change(text) | Message::Cause(text) => text,
        }
    }

    #[test]
    fn each_change_of_a_root_is_told_once() {
        let [one, other] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]).node_id());
        let mut messages = RootMessages::default();
        let mut tell = |root, state| {
            let message = messages.tell(root, state, || Trouble::Unknown, || "the root".to_owned());
            message.map(text).unwrap_or_default()
        };
        assert_eq!(tell(one, RootState::Connecting), "");
        assert_eq!(tell(one, RootState::Registered), "", "all is as it should be");
        assert!(tell(other, RootState::Unreachable).contains("the root does not answer"));
        assert_eq!(tell(one, RootState::Connecting), "", "it may be there in a moment");
        assert!(tell(one, RootState::Unreachable).contains("the root is lost"));
        assert_eq!(tell(one, RootState::Unreachable), "");
        assert_eq!(tell(one, RootState::Connected), "", "it has not answered yet");
        assert!(tell(one, RootState::Registered).contains("takes this node again"));
        assert_eq!(tell(one, RootState::Draining), "");
        let refused = tell(one, RootState::Refused);
        assert!(refused.contains("refuses") && refused.contains("--root-token-file"), "{refused}");
        assert_eq!(tell(one, RootState::Refused), "");
        assert!(tell(other, RootState::Registered).contains("takes this node again"));
    }

    #[test]
    fn a_directory_that_is_away_is_told_once_and_so_is_its_return() {
        let root = Identity::from_seed(&[1; 32]).node_id();
        let mut messages = RootMessages::default();
        let mut tell =
            |is_away| messages.tell_directory(root, is_away, || "the root".to_owned()).unwrap_or_default();
        assert_eq!(tell(false), "");
        assert!(tell(true).contains("does not answer"));
        assert_eq!(tell(true), "");
        assert!(tell(false).contains("again"));
        assert_eq!(tell(false), "");
    }

    #[test]
    fn the_likeliest_reason_of_a_silent_root_is_told() {
        let root = Identity::from_seed(&[1; 32]).node_id();
        for (trouble, words) in [
            (Trouble::UdpAlone, "wss:"),
            (Trouble::Unknown, "firewalls let it pass"),
            (Trouble::PrivateAddresses, "until it does: its address is private"),
            (Trouble::NoRoute, "no route to it"),
            (Trouble::OtherKey, "not with the key that --root names"),
        ] {
            let name = || "the root".to_owned();
            let told = RootMessages::default().tell(root, RootState::Unreachable, || trouble, name);
            let told = text(told.expect("a text"));
            assert!(
                told.contains(words) && told.contains("wss:") == (trouble == Trouble::UdpAlone),
                "{told}"
            );
        }
    }
}
