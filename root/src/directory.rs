use peersock_overlay::NodeId;
use peersock_overlay::wire::{Entry, LookUpKey, Referral};

/// Directory that a root shares with others of its set, so that each finds the nodes of all.
///
/// The calls return at once and without a result, because a root never waits for the directory. The answer to
/// a question comes later through [`Root::handle_answer`](crate::Root::handle_answer). After two seconds
/// without one, the root answers with [`NotFound::Partial`](peersock_overlay::wire::NotFound::Partial). While
/// the directory is away, the root goes on with its own nodes. When the directory is back, and may be empty,
/// [`Root::handle_directory_back`](crate::Root::handle_directory_back) writes all of them again.
///
/// ```
/// use peersock_overlay::NodeId;
/// use peersock_overlay::wire::{Entry, LookUpKey};
/// use peersock_root::{Directory, QuestionId};
///
/// /// Writes down what it is asked, for another thread to answer.
/// #[derive(Default)]
/// struct Asked(Vec<(QuestionId, LookUpKey)>);
///
/// impl Directory for Asked {
///     fn registered(&mut self, _entry: &Entry, _lifetime: u32) {}
///     fn gone(&mut self, _node: &NodeId) {}
///     fn ask(&mut self, question: QuestionId, key: &LookUpKey) -> bool {
///         self.0.push((question, *key));
///         true
///     }
/// }
/// ```
pub trait Directory: Send {
    /// Registers or renews a node. The entry carries the node's signature, and the lifetime that the node has
    /// asked for. The root keeps it for `lifetime` seconds from now, at least 1, which is what counts.
    fn registered(&mut self, entry: &Entry, lifetime: u32);

    /// Removes a node that is not registered here any more. A root that ends in order removes all its nodes;
    /// a killed root's nodes expire.
    fn gone(&mut self, node: &NodeId);

    /// Asks for a node that is not registered here. Returns false if the question cannot be asked now.
    fn ask(&mut self, question: QuestionId, key: &LookUpKey) -> bool;
}

/// ID of a question, for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub u64);

/// Answer of a shared directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Node registered at another root of the set. The directory has verified both signatures, because that
    /// takes time which the state machine does not have. The asker verifies them again.
    Found(Box<Referral>),
    /// No root of the set has the node.
    Nobody,
    /// The directory cannot answer.
    Unavailable,
}
