//! Calls of the program's callbacks, and their asynchronous work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::{Message, Pipe};

/// The ID of an added callback, for removing it.
///
/// ```
/// use peersock_pipe::{Pipe, Proto};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), peersock_pipe::PipeError> {
/// let pipe = Pipe::listen(Proto::Udp, "127.0.0.1:0").await?;
/// let callback = pipe.add_end_cb(|_| panic!("it was taken away"));
/// assert!(pipe.del_cb(callback) && !pipe.del_cb(callback));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallbackId(u64);

impl CallbackId {
    /// Returns an ID that differs from all earlier ones, because several pipes share a server's callbacks.
    pub(crate) fn next() -> CallbackId {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        CallbackId(NEXT_ID.fetch_add(1, Ordering::Relaxed))
    }
}

/// The part of a callback that must be awaited.
pub(crate) type Later = Pin<Box<dyn Future<Output = ()> + Send>>;
pub(crate) type MessageCallback = Arc<dyn Fn(Message, Pipe) -> Option<Later> + Send + Sync>;
pub(crate) type StateCallback = Arc<dyn Fn(Pipe) -> Option<Later> + Send + Sync>;

pub(crate) type MessageCallbacks = Vec<(CallbackId, MessageCallback)>;
pub(crate) type StateCallbacks = Vec<(CallbackId, StateCallback)>;

pub(crate) fn of_messages(callback: impl Fn(Message, Pipe) + Send + Sync + 'static) -> MessageCallback {
    Arc::new(move |message, pipe| {
        callback(message, pipe);
        None
    })
}

pub(crate) fn async_of_messages<F>(
    callback: impl Fn(Message, Pipe) -> F + Send + Sync + 'static,
) -> MessageCallback
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |message, pipe| Some(Box::pin(callback(message, pipe))))
}

pub(crate) fn of_state(callback: impl Fn(Pipe) + Send + Sync + 'static) -> StateCallback {
    Arc::new(move |pipe| {
        callback(pipe);
        None
    })
}

pub(crate) fn async_of_state<F>(callback: impl Fn(Pipe) -> F + Send + Sync + 'static) -> StateCallback
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |pipe| Some(Box::pin(callback(pipe))))
}

/// Calls a callback, and returns the part to await. A panic is logged, and the pipe continues.
pub(crate) fn call(callback: impl FnOnce() -> Option<Later>) -> Option<Later> {
    catch_unwind(AssertUnwindSafe(callback)).unwrap_or_else(|_| {
        tracing::error!("a callback has panicked");
        None
    })
}

tokio::task_local! {
    static IN_CALLBACK: ();
}

/// Returns true within a callback, where no code may wait for callbacks.
pub(crate) fn is_within() -> bool {
    IN_CALLBACK.try_with(|()| ()).is_ok()
}

/// Awaits the rest of several callbacks in parallel.
pub(crate) async fn finish(later: Vec<Later>) {
    let mut tasks = JoinSet::new();
    for one in later {
        tasks.spawn(IN_CALLBACK.scope((), one));
    }
    while let Some(done) = tasks.join_next().await {
        if done.is_err_and(|error| error.is_panic()) {
            tracing::error!("a callback has panicked");
        }
    }
}
