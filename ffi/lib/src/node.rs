//! Starting and stopping a node, and information about it.

use std::ffi::CString;
use std::time::Duration;

use libc::{c_char, c_int, size_t};

use crate::boundary::{answer, guarded_or};
use crate::config::peersock_config;
use crate::registry::{self, defaults, find, peersock_node};
use crate::result::{Answer, Failure, PEERSOCK_E_NOT_FOUND, PEERSOCK_E_TIMEOUT, peersock_result};
use crate::text;

/// Size of a node ID as text in bytes, with the final zero.
pub const PEERSOCK_ID_SIZE: size_t = 65;

/// Size of a public key as text in bytes, with the final zero.
pub const PEERSOCK_KEY_SIZE: size_t = 87;

/// Returns the library's version, such as `"0.1.0"`.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Starts a node. With NULL for `node`, it is the default node of the process, `PEERSOCK_DEFAULT`; otherwise
/// `*node` becomes the handle of another node. NULL for `config` means the default settings. A default node
/// that was stopped can be started again.
///
/// If a shared node runs in the state directory, as that of `peersock node` and of the programs under
/// `peersock run`, this program uses it: it has the same identity and addresses, its ports are that node's,
/// and the networks are those that it joins itself. Settings that differ from the shared node's are
/// `PEERSOCK_E_INVALID`, with a text that names the program that has set them. When the shared node ends, all
/// calls fail with ENETDOWN (`PEERSOCK_E_DOWN`), and the default node can be started again.
///
/// If no node runs there, this program starts one by the installed program `peersock`: the one that the
/// variable `PEERSOCK_PROGRAM` names, or else the first in `PATH`. That node ends some seconds after its last
/// program. If none can be started, without a state directory, or with the variable `PEERSOCK_OWN_NODE` not
/// empty, the node is in this process. `peersock_process()` tells which it is.
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

/// Stops a node. Delivers the data written so far for up to `linger_ms` milliseconds, and returns
/// `PEERSOCK_E_TIMEOUT` if some of it was not delivered. Then connections that are still open are reset. Open
/// descriptors stay open until they are closed, but are useless: waiting and later calls fail with ENETDOWN,
/// once on each connection. The handle becomes invalid. The default node can be started again, but does not
/// start by itself.
///
/// A process that returns from `main`, or calls exit(3) or quick_exit(3), delivers data while peers accept
/// it. A peer that accepts nothing has 30 seconds, a peer that answers nothing has ten seconds and a round
/// trip, and all peers together have ten minutes. Sockets that are still open are closed in order, as the
/// kernel does. A line on stderr reports lost data; the exit status is unchanged. A process that is killed or
/// calls _exit(2) delivers nothing more.
///
/// A process that executes another program in its own place also delivers nothing more, because exec(3) ends
/// all its threads and the node. Peers see a reset, and sockets that the new program inherits are useless.
/// Close the sockets and call this function before exec(3). A child after fork(2) need not, because its
/// exec(3) does not affect the parent's node; the same holds for vfork(2), posix_spawn(3), system(3) and
/// popen(3).
#[unsafe(no_mangle)]
pub extern "C" fn peersock_stop(node: peersock_node, linger_ms: c_int) -> peersock_result {
    answer(|| {
        let node = match registry::known(node)? {
            // In a child, this process must not stop the parent's node.
            Some(known) if !known.node.is_here() => return Err(Failure::down()),
            _ => registry::take(node)?,
        };
        let delivered = node.node.stop(timeout(linger_ms));
        node.finish_callback();
        match delivered {
            true => Ok(()),
            false => Err(Failure::new(PEERSOCK_E_TIMEOUT, "not everything was delivered in time")),
        }
    })
}

/// Returns true if the node runs, and this process uses it. Starts no node.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_is_running(node: peersock_node) -> bool {
    guarded_or(false, || matches!(registry::known(node), Ok(Some(running)) if running.node.is_running()))
}

/// Gets the number of the process that holds the node: this one, or that of a shared node. See
/// `peersock_start()`.
///
/// # Safety
/// `process` is NULL or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_process(node: peersock_node, process: *mut u32) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { text::put(find(node)?.node.process(), process, "the place for the process") })
}

/// Copies the node ID as text: `PEERSOCK_ID_SIZE` bytes with the final zero.
///
/// # Safety
/// `id` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_id(node: peersock_node, id: *mut c_char, size: size_t) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { text::write(&find(node)?.node.id()?.to_string(), id, size) })
}

/// Copies the public key of the node, in the form that the file of a static network lists:
/// `PEERSOCK_KEY_SIZE` bytes with the final zero.
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
        let text = find(node)?.node.public_key()?;
        // SAFETY: the caller's.
        unsafe { text::write(&text, key, size) }
    })
}

/// Gets the UDP port of the node.
///
/// # Safety
/// `port` is NULL or has room for a port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_udp_port(node: peersock_node, port: *mut u16) -> peersock_result {
    answer(|| {
        let endpoints = find(node)?.node.status()?.endpoints;
        let found = endpoints.first().map_or(0, std::net::SocketAddr::port);
        // SAFETY: the caller's.
        unsafe { text::put(found, port, "the place for the port") }
    })
}

/// Gets the state of the node as JSON, as `peersock status --json` prints it. Free the text with
/// `peersock_string_free()`.
///
/// # Safety
/// `json` is NULL or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_status(node: peersock_node, json: *mut *mut c_char) -> peersock_result {
    answer(|| {
        let status = find(node)?.node.status_text()?;
        // SAFETY: the caller's.
        unsafe { text::give(status, json) }
    })
}

/// Frees a text that the library has returned. NULL is allowed.
///
/// # Safety
/// `text` is NULL, or comes from a function that names `peersock_string_free()`, and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: the caller's.
        guarded_or((), || drop(unsafe { CString::from_raw(text) }));
    }
}

/// Gets a counter of the node by the name that `peersock_status()` shows. Counters only grow.
///
/// # Safety
/// `name` is NULL or a C string; `value` is NULL or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_counter(
    node: peersock_node,
    name: *const c_char,
    value: *mut u64,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let name = unsafe { text::read(name, "the name") }?;
        let counters = find(node)?.node.status()?.counters;
        let unknown = || Failure::new(PEERSOCK_E_NOT_FOUND, format!("counter {name} does not exist"));
        // SAFETY: the caller's.
        unsafe { text::put(*counters.get(name).ok_or_else(unknown)?, value, "the place for the value") }
    })
}

/// Copies the value that the environment variable `PEERSOCK_NODE` needs in child processes that use this
/// node, such as programs under `peersock run`. It is a secret of 64 bytes.
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
    answer(|| -> Answer { unsafe { text::write(&find(node)?.node.environment(), text, size) } })
}

/// Converts a time in milliseconds from C; a negative one means forever.
pub(crate) fn timeout(ms: c_int) -> Duration {
    const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    u64::try_from(ms).map_or(FOR_EVER, Duration::from_millis)
}
