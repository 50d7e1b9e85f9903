//! The plug for a directory that several roots share: what the state machine says goes to whoever keeps it,
//! and what that one says comes back, by bounded channels. Nobody waits for anybody.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use peersock_overlay::NodeId;
use peersock_overlay::wire::{Entry, LookUpKey};
use tokio::sync::mpsc;

use crate::{Answer, Directory, QuestionId};

/// What waits for the directory; more is dropped.
const MAX_QUEUED: usize = 16_384;

peersock_primitives::counters! {
    /// What goes to and from a directory that roots share.
    ///
    /// ```
    /// assert_eq!(peersock_root::server::DirectoryTraffic::default().directory_failures.get(), 0);
    /// ```
    pub struct DirectoryTraffic {
        /// Nodes written to it, or taken out.
        pub directory_writes,
        /// Questions asked.
        pub directory_questions,
        /// Times that it was not there, or took too long.
        pub directory_failures,
        /// Entries that were not what their node and its root have signed.
        pub directory_forged,
        /// What was not said to it because too much waited.
        pub directory_dropped,
    }
}

/// For the directory.
#[derive(Debug)]
pub(super) enum Told {
    /// With the seconds for which the root keeps it.
    Registered(Entry, u32),
    Gone(NodeId),
    Asked(QuestionId, LookUpKey),
}

/// From the directory.
#[derive(Debug)]
pub(super) enum Heard {
    /// It is there, perhaps again, and may know nothing.
    Back,
    Answer(QuestionId, Answer),
}

/// The state machine's end.
pub(super) struct Plug {
    told: mpsc::Sender<Told>,
    shared: Arc<Shared>,
}

/// The keeper's end.
pub(super) struct Socket {
    pub(super) told: mpsc::Receiver<Told>,
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) shared: Arc<Shared>,
}

/// What both ends see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Whether it is there.
    pub(super) is_there: AtomicBool,
    /// Whether something was not said to it.
    pub(super) has_missed: AtomicBool,
    /// Nodes that have left while that could not be said, at most [`MAX_QUEUED`]; of more the claims end with
    /// their lifetimes.
    gone: Mutex<BTreeSet<NodeId>>,
    pub(super) traffic: Arc<DirectoryTraffic>,
}

/// Both ends, and what the driver hears.
pub(super) fn channels() -> (Plug, Socket, mpsc::Receiver<Heard>) {
    let (told, asked) = mpsc::channel(MAX_QUEUED);
    let (heard, hears) = mpsc::channel(MAX_QUEUED);
    let shared = Arc::<Shared>::default();
    (Plug { told, shared: shared.clone() }, Socket { told: asked, heard, shared }, hears)
}

impl Shared {
    /// A node has left, and that could not be said.
    pub(super) fn note_gone(&self, node: NodeId) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.len() < MAX_QUEUED {
            gone.insert(node);
        } else {
            self.traffic.directory_dropped.increment();
        }
        self.has_missed.store(true, Ordering::Relaxed);
    }

    /// The nodes that have left, for it to be said now. Those of them that have returned are to be told after
    /// that.
    pub(super) fn take_gone(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut *self.gone.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Plug {
    /// Says it, unless too much waits.
    fn tell(&self, what: Told) -> bool {
        let is_told = self.told.try_send(what).is_ok();
        if !is_told {
            self.shared.traffic.directory_dropped.increment();
        }
        is_told
    }

    /// All nodes are told again when the directory comes back, so until then nothing needs to be said.
    fn is_there(&self) -> bool {
        self.shared.is_there.load(Ordering::Relaxed)
    }
}

impl Directory for Plug {
    fn registered(&mut self, entry: &Entry, lifetime: u32) {
        if self.is_there() && !self.tell(Told::Registered(*entry, lifetime)) {
            self.shared.has_missed.store(true, Ordering::Relaxed);
        }
    }

    fn gone(&mut self, node: &NodeId) {
        if !self.is_there() || !self.tell(Told::Gone(*node)) {
            self.shared.note_gone(*node);
        }
    }

    fn ask(&mut self, question: QuestionId, key: &LookUpKey) -> bool {
        self.is_there() && self.tell(Told::Asked(question, *key))
    }
}
