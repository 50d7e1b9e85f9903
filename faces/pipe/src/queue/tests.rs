//! Waiting for a queue, and cancelling.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn limits(messages: usize, bytes: usize, budget: Option<&Budget>) -> Limits {
    Limits { messages, bytes, budget: budget.cloned(), what: "the queue" }
}

fn message(text: &str) -> Message {
    Message::new(text, ([127, 0, 0, 1], 1).into())
}

fn polled(future: Pin<&mut impl Future<Output = Result<Message, PipeError>>>, count: &Arc<Count>) -> bool {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(count)))).is_ready()
}

#[test]
fn who_gives_up_after_it_was_woken_wakes_the_next() {
    let queue = Queue::new(limits(1024, 1 << 20, None));
    let (one, two) = (Arc::<Count>::default(), Arc::<Count>::default());
    let mut second = pin!(queue.wait(Buffer::pop, || ()));
    {
        let mut first = pin!(queue.wait(Buffer::pop, || ()));
        assert!(!polled(first.as_mut(), &one) && !polled(second.as_mut(), &two) && queue.is_awaited());
        queue.put(message("a"), false);
        assert_eq!((one.0.load(Ordering::Relaxed), two.0.load(Ordering::Relaxed)), (1, 0));
        assert!(!queue.is_awaited(), "the one that was woken has yet to take it");
    }
    assert_eq!(two.0.load(Ordering::Relaxed), 1);
    assert!(polled(second.as_mut(), &two));
    assert_eq!(queue.len(), 0);
}

#[test]
fn the_last_words_come_before_the_end() {
    let queue = Queue::new(limits(1024, 1 << 20, None));
    queue.put(message("a"), false);
    queue.end(PipeError::Ended);
    queue.end(PipeError::Closed);
    let mut number = None;
    let waker = Waker::noop();
    let mut take = || queue.poll(&Context::from_waker(waker), &mut number, Buffer::pop, || ());
    assert_eq!(take(), Poll::Ready(Ok(message("a"))));
    assert_eq!(take(), Poll::Ready(Err(PipeError::Ended)));
}

#[test]
fn a_message_larger_than_the_queue_is_held_alone() {
    let mut buffer = Buffer::new(limits(1024, 10, None));
    for text in ["aaaa", "bbbb", "cccc"] {
        buffer.put(message(text), true);
    }
    assert_eq!((buffer.items.len(), buffer.dropped()), (2, 1));
    buffer.put(message(&"d".repeat(100)), true);
    assert_eq!((buffer.items.len(), buffer.dropped()), (1, 3));
    // A stream loses nothing, because reading stops instead.
    buffer.put(message("e"), false);
    assert_eq!((buffer.items.len(), buffer.dropped(), buffer.is_full()), (2, 3, true));
}

#[test]
fn who_only_looks_leaves_the_message_to_the_next() {
    let queue = Queue::new(limits(1024, 1 << 20, None));
    let (one, two) = (Arc::<Count>::default(), Arc::<Count>::default());
    let mut looks = pin!(queue.wait(|buffer| buffer.first().cloned(), || ()));
    let mut takes = pin!(queue.wait(Buffer::pop, || ()));
    assert!(!polled(looks.as_mut(), &one) && !polled(takes.as_mut(), &two));
    assert_eq!(queue.waiting(), 2);
    queue.put(message("a"), false);
    assert_eq!((one.0.load(Ordering::Relaxed), two.0.load(Ordering::Relaxed)), (1, 0));
    assert!(polled(looks.as_mut(), &one));
    assert_eq!((two.0.load(Ordering::Relaxed), queue.len()), (1, 1));
    assert!(!queue.remove_first(|first| &first[..] == b"b"));
    assert!(polled(takes.as_mut(), &two));
    assert!(queue.is_empty() && !queue.remove_first(|_| true));
}

#[test]
fn the_oldest_messages_go_when_there_is_no_room() {
    let budget = Budget::new(1000);
    let mut buffer = Buffer::new(limits(3, 1000, Some(&budget)));
    (0..5).for_each(|number| buffer.put(message(&number.to_string()), true));
    assert_eq!((buffer.items.len(), buffer.dropped()), (3, 2));
    assert_eq!(buffer.first().map(|first| &first[..]), Some(&b"2"[..]));
    drop(buffer);
    assert_eq!(budget.0.used.load(Ordering::Relaxed), 0, "what is dropped is given back");
}

#[test]
fn messages_that_come_back_are_in_their_order() {
    let queue = Queue::<Message, ()>::new(limits(1024, 1 << 20, None));
    (1..=4).for_each(|number| queue.put(message(&number.to_string()), false));
    let taken: Vec<_> = (1..=3).filter_map(|_| queue.pop()).collect();
    let number = |message: &Message| u64::from(message[0]);
    [0, 2, 1].into_iter().for_each(|at: usize| queue.put_back(taken[at].clone(), number));
    let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|message| message[0]).collect();
    assert_eq!(order, *b"1234");
}

#[test]
fn all_queues_share_what_there_is_and_each_may_have_one_message() {
    let budget = Budget::new(100);
    budget.take(100);
    let queue = Queue::<Message, ()>::new(limits(1024, 1 << 20, Some(&budget)));
    assert!(!queue.is_full());
    queue.put(message("one"), true);
    assert!(queue.is_full());
    queue.put(message("two"), true);
    assert_eq!((queue.len(), queue.dropped()), (1, 1));
    let taken = queue.pop().expect("it is there");
    queue.put_back(taken.clone(), |_| 1);
    assert_eq!(queue.pop(), Some(taken));
    assert_eq!(budget.0.used.load(Ordering::Relaxed), 100);
}
