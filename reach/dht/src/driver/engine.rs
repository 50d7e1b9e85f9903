//! The driver thread: runs operations as futures of `mainline`, without a runtime.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use futures_lite::{FutureExt, StreamExt};
use mainline::MutableItem;
use mainline::async_dht::AsyncDht;
use mainline::errors::PutMutableError;

use super::{Shared, moment};
use crate::item::Item;
use crate::rendezvous::{Answer, Event, Operation, OperationId, Outcome};

/// Timeout of one operation, independent of `mainline`.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Wakes the thread for new work, for an answer, and for its end.
#[derive(Debug, Default)]
pub(super) struct Bell {
    thread: OnceLock<Thread>,
    rang: AtomicBool,
    stopped: AtomicBool,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.rang.store(true, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.ring();
    }

    /// Waits until the bell rings, or until the deadline.
    fn wait(&self, deadline: Instant) {
        while !self.rang.swap(false, Ordering::AcqRel) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

type Answers = Rc<RefCell<VecDeque<(OperationId, Answer)>>>;

struct Task {
    id: OperationId,
    future: Pin<Box<dyn Future<Output = Outcome>>>,
    until: Instant,
}

/// Runs until the bell is stopped.
pub(super) fn run(shared: &Shared, dht: &AsyncDht, mut on_event: impl FnMut(Event)) {
    let _ = shared.bell.thread.set(std::thread::current());
    let waker = Waker::from(shared.bell.clone());
    let answers = Answers::default();
    let mut tasks: Vec<Task> = Vec::new();
    while !shared.bell.stopped.load(Ordering::Acquire) {
        let (events, operations, deadline) = step(shared, &answers);
        events.into_iter().for_each(&mut on_event);
        for (id, operation) in operations {
            let future = begin(dht, id, operation, &answers);
            tasks.push(Task { id, future, until: Instant::now() + OPERATION_TIMEOUT });
        }
        poll(&mut tasks, &waker, &answers);
        if answers.borrow().is_empty() {
            let patience = tasks.iter().map(|task| task.until).fold(deadline, Instant::min);
            shared.bell.wait(patience);
        }
    }
}

/// Runs one step of the machine: answers go in; events, operations and the next deadline come out.
fn step(shared: &Shared, answers: &Answers) -> (Vec<Event>, Vec<(OperationId, Operation)>, Instant) {
    let mut rendezvous = shared.lock();
    let now = moment();
    for (id, answer) in answers.borrow_mut().drain(..) {
        rendezvous.handle_answer(now, id, answer);
    }
    if rendezvous.poll_timeout() <= now.instant {
        rendezvous.handle_timeout(now);
    }
    let events = std::iter::from_fn(|| rendezvous.poll_event()).collect();
    let operations = std::iter::from_fn(|| rendezvous.poll_operation()).collect();
    (events, operations, rendezvous.poll_timeout())
}

/// Polls every task; there are few. Finished ones leave an answer.
fn poll(tasks: &mut Vec<Task>, waker: &Waker, answers: &Answers) {
    let mut context = Context::from_waker(waker);
    let now = Instant::now();
    tasks.retain_mut(|task| {
        let outcome = match task.future.poll(&mut context) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending if task.until <= now => Outcome::Failed,
            Poll::Pending => return true,
        };
        answers.borrow_mut().push_back((task.id, Answer::Finished(outcome)));
        false
    });
}

fn begin(
    dht: &AsyncDht,
    id: OperationId,
    operation: Operation,
    answers: &Answers,
) -> Pin<Box<dyn Future<Output = Outcome>>> {
    match operation {
        Operation::Get { key } => {
            let mut items = dht.get_mutable(&key, None, None);
            let answers = answers.clone();
            async move {
                while let Some(item) = items.next().await {
                    answers.borrow_mut().push_back((id, Answer::Value(from_mainline(&item))));
                }
                Outcome::Done
            }
            .boxed_local()
        }
        Operation::Put(item) => {
            let dht = dht.clone();
            async move {
                // Look up the nearest nodes first. Otherwise the library would write to the result of its
                // last look-up, when it may have known few nodes.
                dht.get_closest_nodes(MutableItem::target_from_key(&item.key, None)).await;
                match dht.put_mutable(to_mainline(&item), None).await {
                    Ok(_) => Outcome::Done,
                    Err(PutMutableError::Concurrency(_)) => Outcome::Taken,
                    Err(PutMutableError::Query(error)) => {
                        tracing::debug!(%error, "an item could not be stored in the DHT");
                        Outcome::Failed
                    }
                }
            }
            .boxed_local()
        }
    }
}

fn from_mainline(item: &MutableItem) -> Item {
    Item {
        key: *item.key(),
        sequence: item.seq(),
        value: item.value().to_vec(),
        signature: *item.signature(),
    }
}

fn to_mainline(item: &Item) -> MutableItem {
    MutableItem::new_signed_unchecked(item.key, item.signature, &item.value, item.sequence, None)
}
