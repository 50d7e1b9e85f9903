//! Bounded channels between the state machine and the thread of a shared directory. Neither side waits for
//! the other.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use peersock_overlay::NodeId;
use peersock_overlay::wire::{Entry, LookUpKey};
use tokio::sync::mpsc;

use crate::{Answer, Directory, QuestionId};

/// Capacity of each channel; further messages are dropped.
const MAX_QUEUED: usize = 16_384;

peersock_primitives::counters! {
    /// Traffic to and from a directory that roots share.
    pub struct DirectoryTraffic {
        /// Nodes written to the directory, or removed from it.
        pub directory_writes,
        /// Queries sent to the directory.
        pub directory_questions,
        /// Times that the directory was unreachable, refused a request, or took too long.
        pub directory_failures,
        /// Entries of the directory that their node and its root have not signed.
        pub directory_forged,
        /// Writes and queries dropped because too many were waiting.
        pub directory_dropped,
    }
}

/// Message to the directory.
#[derive(Debug)]
pub(super) enum Told {
    /// Registered node, with the seconds for which the root keeps it.
    Registered(Entry, u32),
    Gone(NodeId),
    Asked(QuestionId, LookUpKey),
}

/// Message from the directory.
#[derive(Debug)]
pub(super) enum Heard {
    /// The directory is reachable, perhaps again, and may be empty.
    Back,
    Answer(QuestionId, Answer),
}

/// State machine's end of the channels.
pub(super) struct Plug {
    told: mpsc::Sender<Told>,
    shared: Arc<Shared>,
}

/// Keeper's end of the channels.
pub(super) struct Socket {
    pub(super) told: mpsc::Receiver<Told>,
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) shared: Arc<Shared>,
}

/// State that both ends share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// True while the directory is reachable.
    pub(super) is_there: AtomicBool,
    /// True if a message to the directory was lost.
    pub(super) has_missed: AtomicBool,
    /// Nodes whose removal could not be sent, at most [`MAX_QUEUED`]; the claims of further ones expire.
    gone: Mutex<BTreeSet<NodeId>>,
    pub(super) traffic: Arc<DirectoryTraffic>,
}

/// Makes both ends, and the driver's receiver.
pub(super) fn channels() -> (Plug, Socket, mpsc::Receiver<Heard>) {
    let (told, asked) = mpsc::channel(MAX_QUEUED);
    let (heard, hears) = mpsc::channel(MAX_QUEUED);
    let shared = Arc::<Shared>::default();
    (Plug { told, shared: shared.clone() }, Socket { told: asked, heard, shared }, hears)
}

impl Shared {
    /// Records a removal that could not be sent.
    pub(super) fn note_gone(&self, node: NodeId) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.len() < MAX_QUEUED {
            gone.insert(node);
        } else {
            self.traffic.directory_dropped.increment();
        }
        self.has_missed.store(true, Ordering::Relaxed);
    }

    /// Takes the recorded removals, to send them now. Nodes that have returned since must be written
    /// afterwards.
    pub(super) fn take_gone(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut *self.gone.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Plug {
    /// Queues a message; returns false if the queue is full.
    fn tell(&self, what: Told) -> bool {
        // Never waits, because the task that relays calls it.
        let is_told = self.told.try_send(what).is_ok();
        if !is_told {
            self.shared.traffic.directory_dropped.increment();
        }
        is_told
    }

    /// Returns true if the directory is reachable. Until then no messages are needed, because all nodes are
    /// written when it comes back.
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
