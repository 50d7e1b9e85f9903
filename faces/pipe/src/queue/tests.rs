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

fn message(text: &str) -> Message {
    Message::new(text, ([127, 0, 0, 1], 1).into())
}

fn polled(future: Pin<&mut impl Future<Output = Result<Message, PipeError>>>, count: &Arc<Count>) -> bool {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(count)))).is_ready()
}

#[test]
fn who_gives_up_after_it_was_woken_wakes_the_next() {
    let queue = Queue::new(&Options::new());
    let (one, two) = (Arc::<Count>::default(), Arc::<Count>::default());
    let mut second = pin!(queue.take(|| ()));
    {
        let mut first = pin!(queue.take(|| ()));
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
    let queue = Queue::new(&Options::new());
    queue.put(message("a"), false);
    queue.end(PipeError::Ended);
    queue.end(PipeError::Closed);
    let mut number = None;
    let waker = Waker::noop();
    let mut take = || queue.poll_take(&Context::from_waker(waker), &mut number, || ());
    assert_eq!(take(), Poll::Ready(Ok(message("a"))));
    assert_eq!(take(), Poll::Ready(Err(PipeError::Ended)));
}

#[test]
fn a_message_larger_than_the_queue_is_held_alone() {
    let mut buffer = Buffer::new(&Options::new().max_qbytes(10), "the queue");
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
