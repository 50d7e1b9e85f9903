//! Log records of the library, by callback.

use std::ffi::CString;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, Once, mpsc};
use std::thread;

use libc::{c_char, c_int, c_void};
use peersock_primitives::sync;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::boundary::{answer, guarded_or};
use crate::result::{Failure, peersock_result};

/// Log level without records.
pub const PEERSOCK_LOG_OFF: c_int = 0;
/// Log level of failures.
pub const PEERSOCK_LOG_ERROR: c_int = 1;
/// Log level of warnings.
pub const PEERSOCK_LOG_WARN: c_int = 2;
/// Log level of changes of paths and memberships.
pub const PEERSOCK_LOG_INFO: c_int = 3;
/// Log level of decisions. Addresses and names appear at this level and above.
pub const PEERSOCK_LOG_DEBUG: c_int = 4;
/// Log level of packets.
pub const PEERSOCK_LOG_TRACE: c_int = 5;

/// Maximum number of records that wait for the callback; further ones are dropped.
const QUEUE: usize = 1024;

/// Callback for log records, with their level and text. It runs on a library thread that shares the
/// descriptors of the process, for one record after the other. `text` is valid during the call.
pub type peersock_log_callback =
    Option<unsafe extern "C" fn(level: c_int, text: *const c_char, context: *mut c_void)>;

/// Calls `callback` for log records up to `level` (`PEERSOCK_LOG_ERROR` to `PEERSOCK_LOG_TRACE`) of all nodes
/// of the process; NULL stops logging. When this function returns, an earlier callback no longer runs, unless
/// that callback is the caller.
///
/// # Safety
/// `callback` may be called with `context` from another thread until this function is called again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_on_log(
    level: c_int,
    callback: peersock_log_callback,
    context: *mut c_void,
) -> peersock_result {
    answer(|| {
        let level = u8::try_from(level).ok().filter(|level| *level <= PEERSOCK_LOG_TRACE as u8);
        let level = level.ok_or_else(|| Failure::invalid("the log level does not exist"))?;
        let target = callback.map(|callback| Target { callback, context });
        LEVEL.store(if target.is_some() { level } else { 0 }, Ordering::SeqCst);
        if thread::current().name() == Some(THREAD) {
            // The caller is the callback itself, whose thread holds the lock.
            *sync::lock(&PENDING) = Some(target);
        } else {
            *sync::lock(&TARGET) = target;
        }
        START.call_once(start);
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    })
}

const THREAD: &str = "peersock-log";

static LEVEL: AtomicU8 = AtomicU8::new(0);
static START: Once = Once::new();
/// Locked while the callback runs.
static TARGET: Mutex<Option<Target>> = Mutex::new(None);
/// A replacement that the callback itself has set.
static PENDING: Mutex<Option<Option<Target>>> = Mutex::new(None);

struct Target {
    callback: unsafe extern "C" fn(c_int, *const c_char, *mut c_void),
    context: *mut c_void,
}

// SAFETY: the caller who passes the context declares that it may be used on another thread.
unsafe impl Send for Target {}

/// One line.
struct Message {
    level: Level,
    text: String,
}

fn start() {
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    // A thread of the process starts it, so it sees the process's descriptors, unlike the node's own threads.
    let spawned = thread::Builder::new().name(THREAD.into()).spawn(move || serve(&receiver));
    if spawned.is_ok() {
        // This fails if the process has a subscriber already, which in a shared library can only be its own.
        let _ = tracing::subscriber::set_global_default(Log { sender });
    }
}

fn serve(receiver: &mpsc::Receiver<Message>) {
    for message in receiver {
        let Ok(text) = CString::new(message.text.replace('\0', " ")) else { continue };
        let mut target = sync::lock(&TARGET);
        if let Some(target) = &*target {
            let level = c_int::from(number(message.level));
            // SAFETY: the caller who passed the callback declares that it may be called with this context.
            guarded_or((), || unsafe { (target.callback)(level, text.as_ptr(), target.context) });
        }
        if let Some(new) = sync::lock(&PENDING).take() {
            *target = new;
        }
    }
}

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        _ => 5,
    }
}

struct Log {
    sender: mpsc::SyncSender<Message>,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The STUN library warns of each malformed datagram, which anyone can send, and has keys in its
        // spans.
        let is_ours = !metadata.target().starts_with("stun_types");
        is_ours && number(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        // A full queue must not delay a node.
        let _ = self.sender.try_send(Message { level: *event.metadata().level(), text: text.0 });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message, then the fields.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => {
                let fields = std::mem::take(&mut self.0);
                write!(self.0, "{value:?}{fields}")
            }
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
