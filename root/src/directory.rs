use peersock_overlay::NodeId;
use peersock_overlay::wire::{Entry, LookUpKey, Referral};

/// What a root shares with others of its set, so that each finds the nodes of all.
///
/// The calls return at once and tell nothing: a root never waits for it. The answer to a question comes when
/// it comes, through [`Root::handle_answer`](crate::Root::handle_answer); a question without one is answered
/// after two seconds by [`NotFound::Partial`](peersock_overlay::wire::NotFound::Partial). A directory that is
/// away costs a root nothing but that: it goes on with its own nodes. When it is there again, and may have
/// forgotten, [`Root::handle_directory_back`](crate::Root::handle_directory_back) tells it all of them again.
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
    /// A node is registered here, or again. It carries its own signature, and the lifetime that the node has
    /// asked for; the root keeps it for `lifetime` seconds from now, which is what counts: at least 1.
    fn registered(&mut self, entry: &Entry, lifetime: u32);

    /// A node is not registered here any more. A root that ends in order says this of all its nodes; one that
    /// is killed says nothing, and then lifetimes count.
    fn gone(&mut self, node: &NodeId);

    /// Asks for a node that is not registered here. False if the question cannot be asked now.
    fn ask(&mut self, question: QuestionId, key: &LookUpKey) -> bool;
}

/// Which question an answer is for.
///
/// ```
/// use peersock_root::QuestionId;
///
/// assert!(QuestionId(1) < QuestionId(2));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub u64);

/// What a shared directory says.
///
/// ```
/// use peersock_root::Answer;
///
/// assert_ne!(Answer::Nobody, Answer::Unavailable);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The node is registered at another root of the set. The directory has checked both signatures: that
    /// takes time which the state machine does not have. Whoever asked checks them again.
    Found(Box<Referral>),
    /// No root of the set has it.
    Nobody,
    /// It cannot say.
    Unavailable,
}
