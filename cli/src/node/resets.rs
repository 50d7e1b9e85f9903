//! Questions to a program's launcher about resets.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use peersock_attach::Reply;
use peersock_socket_server::{Launcher, PendingReset};

use super::notes::Notes;

/// Time in which a launcher answers. Afterwards, the node tries to show the reset itself.
const ANSWER: Duration = Duration::from_secs(5);

/// Time in which a launcher shows the end of the node.
const BREAK: Duration = Duration::from_secs(2);

/// The launcher of one program.
pub(super) struct Asked {
    notes: Notes,
    questions: Mutex<Questions>,
    changed: Condvar,
}

#[derive(Default)]
struct Questions {
    last: u64,
    /// Resets that wait for an answer, with their deadlines, in whose order the numbers are.
    resets: BTreeMap<u64, (Instant, PendingReset)>,
    /// Set once the launcher has shown the end of the node.
    is_broken: bool,
    /// Set once the launcher has gone.
    is_over: bool,
}

impl Asked {
    /// Begins to ask through `notes`, until the result is dropped.
    pub(super) fn start(notes: Notes) -> io::Result<Asking> {
        let asked = Arc::new(Asked { notes, questions: Mutex::default(), changed: Condvar::new() });
        let its = Arc::clone(&asked);
        thread::Builder::new().name("resets".into()).spawn(move || its.expire())?;
        Ok(Asking(asked))
    }

    /// Takes an answer about a reset.
    pub(super) fn shown(&self, number: u64, is_shown: bool) {
        // Without the lock, because an end may be searched.
        let answered = self.questions().resets.remove(&number);
        if let Some((_, reset)) = answered {
            reset.answered(is_shown);
        }
    }

    /// Takes the answer that the program sees the end of the node.
    pub(super) fn broken(&self) {
        self.questions().is_broken = true;
        self.changed.notify_all();
    }

    /// Ends with the launcher: the node shows the remaining resets itself.
    pub(super) fn end(&self) {
        let mut questions = self.questions();
        questions.is_over = true;
        let left = std::mem::take(&mut questions.resets);
        drop(questions);
        self.changed.notify_all();
        drop(left);
    }

    /// Gives up questions without an answer.
    fn expire(&self) {
        let mut questions = self.questions();
        while !questions.is_over {
            let now = Instant::now();
            let due = questions.resets.first_key_value().map(|(_, (due, _))| *due);
            match due {
                Some(due) if due <= now => {
                    let expired = questions.resets.pop_first();
                    drop(questions);
                    drop(expired);
                    questions = self.questions();
                }
                Some(due) => {
                    let waited = self.changed.wait_timeout(questions, due - now);
                    questions = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => {
                    questions = self.changed.wait(questions).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks until it is dropped.
pub(super) struct Asking(pub(super) Arc<Asked>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Launcher for Asked {
    fn show(&self, reset: PendingReset) {
        let Some(shown) = reset.shown() else { return };
        let mut questions = self.questions();
        if questions.is_over {
            drop(questions);
            return drop(reset);
        }
        questions.last += 1;
        let number = questions.last;
        let was_empty = questions.resets.is_empty();
        questions.resets.insert(number, (Instant::now() + ANSWER, reset));
        let is_asked = self.notes.send(Reply::Show { number, shown });
        let unasked = if is_asked { None } else { questions.resets.remove(&number) };
        drop(questions);
        drop(unasked);
        if was_empty {
            self.changed.notify_all();
        }
    }

    fn break_all(&self) -> bool {
        let questions = self.questions();
        if questions.is_over || !self.notes.send(Reply::Break) {
            return false;
        }
        let is_waited_for = |questions: &mut Questions| !questions.is_broken && !questions.is_over;
        let waited = self.changed.wait_timeout_while(questions, BREAK, is_waited_for);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_broken
    }
}
