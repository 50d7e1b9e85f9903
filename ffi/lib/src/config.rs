//! The configuration of a node to start.

use std::path::PathBuf;

use libc::{c_char, size_t};
use peersock::{IdentitySource, NodeBuilder, Seed};
use serde_json::Value;

use crate::boundary::{answer, guarded_or};
use crate::registry::defaults;
use crate::result::{Answer, Failure, peersock_result};
use crate::text;

/// Settings of a node. Only one thread at a time may use them; a started node has its own copy.
pub struct peersock_config {
    pub(crate) settings: NodeBuilder,
}

/// Makes default settings: the identity in the default state directory, all interfaces, a UDP port that the
/// system chooses, and discovery on. Returns NULL if memory is exhausted. Free the settings with
/// `peersock_config_free()`.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_config_new() -> *mut peersock_config {
    guarded_or(std::ptr::null_mut(), || Box::into_raw(Box::new(peersock_config { settings: defaults() })))
}

/// Frees settings. NULL is allowed.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_free(config: *mut peersock_config) {
    if !config.is_null() {
        // SAFETY: the caller's.
        guarded_or((), || drop(unsafe { Box::from_raw(config) }));
    }
}

/// Keeps the identity in this directory, which is created if missing and used by one node at a time. NULL
/// selects the default directory, `peersock` under `$XDG_STATE_HOME` or `~/.local/state`.
///
/// # Safety
/// `path` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_state_dir(
    config: *mut peersock_config,
    path: *const c_char,
) -> peersock_result {
    answer(|| {
        let identity = match path.is_null() {
            true => IdentitySource::Default,
            // SAFETY: the caller's.
            false => IdentitySource::StateDir(PathBuf::from(unsafe { text::read(path, "the path") }?)),
        };
        // SAFETY: the caller's.
        unsafe { change(config, |settings| Ok(settings.identity(identity))) }
    })
}

/// Uses a new identity that is never written anywhere.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_ephemeral(config: *mut peersock_config) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { change(config, |settings| Ok(settings.identity(IdentitySource::Ephemeral))) })
}

/// Uses the identity of this secret seed of `PEERSOCK_SEED_SIZE` bytes.
///
/// # Safety
/// `seed` is NULL or points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_seed(
    config: *mut peersock_config,
    seed: *const u8,
    size: size_t,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let seed = unsafe { read_seed(seed, size) }?;
        // SAFETY: the caller's.
        unsafe { change(config, |settings| Ok(settings.identity(IdentitySource::Seed(seed)))) }
    })
}

/// Sets the network interfaces that the node may use: `"all"` (the default), `"loopback"`, or names separated
/// by commas, such as `"eth0,wlan0"`.
///
/// # Safety
/// `interfaces` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_interfaces(
    config: *mut peersock_config,
    interfaces: *const c_char,
) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { set(config, "interfaces", text::read(interfaces, "the interfaces")?) })
}

/// Sets the UDP port of the node; with 0, the default, the system chooses.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_port(config: *mut peersock_config, port: u16) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { set(config, "port", port) })
}

/// Sets whether the node finds peers on this machine and on the local networks, and is found there. The
/// default is true.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_discovery(
    config: *mut peersock_config,
    on: bool,
) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { set(config, "discovery", on) })
}

/// Sets the UDP port of discovery, which must be the same on all nodes that find each other. The default is
/// 7473.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_discovery_port(
    config: *mut peersock_config,
    port: u16,
) -> peersock_result {
    answer(|| match port {
        0 => Err(Failure::invalid("discovery needs a port")),
        // SAFETY: the caller's.
        port => unsafe { set(config, "discovery_port", port) },
    })
}

/// Sets the roots at which peers find the node, and which relay for it, in the form of `PEERSOCK_ROOTS`:
/// texts separated by white space. Each text is a line that `peersock root` prints (with `?token=TEXT`
/// appended if the root requires a token), `dns:DOMAIN` for the roots in the DNS, `lan` for the roots
/// announced on the local network, or `@` and the path of a file with such texts. An empty text means no
/// roots. NULL, the default, uses the variable `PEERSOCK_ROOTS`.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`; `roots` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_roots(
    config: *mut peersock_config,
    roots: *const c_char,
) -> peersock_result {
    answer(|| {
        if roots.is_null() {
            // SAFETY: the caller's.
            return unsafe { change(config, |settings| Ok(settings.roots_of_environment())) };
        }
        // SAFETY: the caller's.
        unsafe { set(config, "roots", text::read(roots, "the roots")?) }
    })
}

/// Sets the TURN servers that relay to the node if no direct path opens, in the form of `PEERSOCK_TURN`:
/// texts separated by white space. Each text is `turn:USER:PASSWORD@HOST:PORT`, with `?transport=tcp`
/// appended for TCP, `turns:USER:PASSWORD@HOST:PORT` for TLS, or `@` and the path of a file of mode 0600 with
/// such texts. An empty text means no servers. NULL, the default, uses the variable `PEERSOCK_TURN`. At most
/// four servers are asked. docs/use/TURN.md says more; `peersock_status()` shows the result.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`; `servers` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_turn(
    config: *mut peersock_config,
    servers: *const c_char,
) -> peersock_result {
    answer(|| {
        if servers.is_null() {
            // SAFETY: the caller's.
            return unsafe { change(config, |settings| Ok(settings.turn_of_environment())) };
        }
        // SAFETY: the caller's.
        unsafe { set(config, "turn", text::read(servers, "the TURN servers")?) }
    })
}

/// Sets the maximum sizes in bytes of the send and the receive buffer of each TCP socket. The default is 64
/// MiB each.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_tcp_buffers(
    config: *mut peersock_config,
    send: size_t,
    receive: size_t,
) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { set(config, "tcp_buffers", vec![send, receive]) })
}

/// Reads a seed of the caller.
///
/// # Safety
/// `seed` is null or points to `size` bytes.
pub(crate) unsafe fn read_seed(seed: *const u8, size: size_t) -> Answer<Seed> {
    if seed.is_null() || size != 32 {
        return Err(Failure::invalid("a seed has 32 bytes"));
    }
    // SAFETY: the caller says so.
    Ok(Seed(unsafe { seed.cast::<[u8; 32]>().read() }))
}

/// Sets one setting of the table in docs/reference/SETTINGS.md.
///
/// # Safety
/// `config` is null or comes from `peersock_config_new()`.
unsafe fn set(config: *mut peersock_config, name: &str, value: impl Into<Value>) -> Answer {
    // SAFETY: the caller's.
    unsafe { change(config, |settings| Ok(settings.set(name, value)?)) }
}

/// # Safety
/// `config` is null or comes from `peersock_config_new()`.
unsafe fn change(
    config: *mut peersock_config,
    change: impl FnOnce(NodeBuilder) -> Answer<NodeBuilder>,
) -> Answer {
    // SAFETY: the caller's.
    let config = unsafe { config.as_mut() }.ok_or_else(|| Failure::invalid("the configuration is NULL"))?;
    config.settings = change(config.settings.clone())?;
    Ok(())
}
