//! Starting and stopping a node, and information about it.

use std::ffi::CString;
use std::time::Duration;

use libc::{c_char, c_int, size_t};

use crate::boundary::{answer, guarded_or};
use crate::config::peersock_config;
use crate::registry::{self, defaults, find, peersock_node};
use crate::result::{Answer, Failure, PEERSOCK_E_NOT_FOUND, PEERSOCK_E_TIMEOUT, peersock_result};
use crate::text;

/// Bytes of a node ID as text, with the final zero.
pub const PEERSOCK_ID_SIZE: size_t = 65;

/// Bytes of a public key as text, with the final zero.
pub const PEERSOCK_KEY_SIZE: size_t = 87;

/// The library's version, as `"0.1.0"`.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Starts a node. With NULL for `node` it is the process's default node, `PEERSOCK_DEFAULT`; otherwise one
/// more, and `*node` becomes its handle. NULL for `config` means the default settings. A node that was
/// stopped can be started again.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`; `node` is NULL or has room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_start(
    config: *const peersock_config,
    node: *mut peersock_node,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let settings = unsafe { config.as_ref() }.map_or_else(defaults, |config| config.settings.clone());
        if node.is_null() {
            return registry::start_default(settings);
        }
        let handle = registry::start(settings)?;
        // SAFETY: the caller's.
        unsafe { text::put(handle, node, "the place for the handle") }
    })
}

/// Stops a node: what was written until now is taken, and up to `linger_ms` milliseconds pass until
/// everything is delivered; `PEERSOCK_E_TIMEOUT` says that something was not. Connections that are still open
/// are reset after that. Open descriptors stay open until they are closed, but lead nowhere: what waits on
/// them, and later calls, fail with ENETDOWN, those on connections once. The handle is not valid any more; the
/// default node can be started again, but does not start by itself.
///
/// A process that returns from `main`, or calls exit(3) or quick_exit(3), delivers for as long as peers take
/// what was written. One that takes nothing has 30 seconds, one that answers nothing ten and a round trip,
/// and all together have ten minutes. What it has not closed ends in order, as the kernel does it. What is
/// lost is a line on stderr; the exit status stays. A process that is killed or calls _exit(2) delivers
/// nothing more.
///
/// Nor does one that executes another program in its own place, because exec(3) ends all its threads, and
/// the node with them: peers see a reset, and sockets that the new program has inherited lead nowhere. Close
/// the sockets and call this function before exec(3), unless in a child after fork(2), which leaves the
/// parent's node alone, as vfork(2), posix_spawn(3), system(3) and popen(3) do.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_stop(node: peersock_node, linger_ms: c_int) -> peersock_result {
    answer(|| {
        let node = match registry::known(node)? {
            // In a child, this process must not stop the parent's node.
            Some(known) if !known.host.is_here() => return Err(Failure::down()),
            _ => registry::take(node)?,
        };
        let delivered = node.host.stop(timeout(linger_ms));
        node.finish_callback();
        match delivered {
            true => Ok(()),
            false => Err(Failure::new(PEERSOCK_E_TIMEOUT, "not everything was delivered in time")),
        }
    })
}

/// Whether a node runs in this process. It starts none.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_is_running(node: peersock_node) -> bool {
    guarded_or(false, || matches!(registry::known(node), Ok(Some(node)) if node.host.is_running()))
}

/// The node's ID: `PEERSOCK_ID_SIZE` bytes with the final zero.
///
/// # Safety
/// `id` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_id(node: peersock_node, id: *mut c_char, size: size_t) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { text::write(&find(node)?.run(|node| node.id().to_string())?, id, size) })
}

/// The node's public key, as the file of a static network lists it: `PEERSOCK_KEY_SIZE` bytes with the final
/// zero.
///
/// # Safety
/// `key` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_key(
    node: peersock_node,
    key: *mut c_char,
    size: size_t,
) -> peersock_result {
    answer(|| {
        let text = find(node)?.run(|node| node.public_identity().to_string())?;
        // SAFETY: the caller's.
        unsafe { text::write(&text, key, size) }
    })
}

/// The UDP port at which the node is reached.
///
/// # Safety
/// `port` is NULL or has room for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_udp_port(node: peersock_node, port: *mut u16) -> peersock_result {
    answer(|| {
        let endpoints = find(node)?.run(|node| node.status().endpoints)?;
        let found = endpoints.first().map_or(0, std::net::SocketAddr::port);
        // SAFETY: the caller's.
        unsafe { text::put(found, port, "the place for the port") }
    })
}

/// Everything about the node as JSON, in the form that `peersock status --json` prints. Give the text to
/// `peersock_string_free()`.
///
/// # Safety
/// `json` is NULL or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_status(node: peersock_node, json: *mut *mut c_char) -> peersock_result {
    answer(|| {
        let status = find(node)?.run(|node| serde_json::to_string(&node.status()))?;
        let status = status.map_err(|error| Failure::invalid(error.to_string()))?;
        // SAFETY: the caller's.
        unsafe { text::give(status, json) }
    })
}

/// Frees a text of the library's. NULL is allowed.
///
/// # Safety
/// `text` is NULL, or comes from a function that says that it is to be freed so, and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: the caller's.
        guarded_or((), || drop(unsafe { CString::from_raw(text) }));
    }
}

/// One of the node's counters, by the name that `peersock_status()` shows. Counters only grow.
///
/// # Safety
/// `name` is NULL or a C string; `value` is NULL or has room for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_counter(
    node: peersock_node,
    name: *const c_char,
    value: *mut u64,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let name = unsafe { text::read(name, "the name") }?;
        let counters = find(node)?.run(|node| node.status().counters)?;
        let unknown = || Failure::new(PEERSOCK_E_NOT_FOUND, format!("there is no counter {name}"));
        // SAFETY: the caller's.
        unsafe { text::put(*counters.get(name).ok_or_else(unknown)?, value, "the place for the value") }
    })
}

/// What the environment variable `PEERSOCK_NODE` has to be for child processes that shall use this node, such
/// as those of `peersock run`. It is a secret. It needs 64 bytes.
///
/// # Safety
/// `text` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_environment(
    node: peersock_node,
    text: *mut c_char,
    size: size_t,
) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| -> Answer { unsafe { text::write(&find(node)?.host.environment(), text, size) } })
}

/// Converts a time in milliseconds from C; a negative one means forever.
pub(crate) fn timeout(ms: c_int) -> Duration {
    const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    u64::try_from(ms).map_or(FOR_EVER, Duration::from_millis)
}
