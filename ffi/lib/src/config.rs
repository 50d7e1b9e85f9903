//! The configuration of a node to start.

use std::path::PathBuf;

use libc::{c_char, size_t};
use peersock::interfaces::load_turn_servers;
use peersock::{IdentitySource, Interfaces, NodeBuilder, RootSource, Seed};

use crate::boundary::{answer, guarded_or};
use crate::registry::defaults;
use crate::result::{Answer, Failure, peersock_result};
use crate::text;

/// Settings of a node. One thread at a time may use it; a started node has its own copy.
pub struct peersock_config {
    pub(crate) settings: NodeBuilder,
}

/// Settings as they are by default: the identity in the default state directory, all interfaces, a UDP port
/// of the system's choice, discovery on. NULL if there is no memory. Give it to `peersock_config_free()` at
/// last.
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

/// Keeps the identity in this directory, which is made if it is missing and used by one process at a time.
/// NULL: the default directory, `peersock` under `$XDG_STATE_HOME` or `~/.local/state`.
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
        unsafe { change(config, |settings| settings.identity(identity)) }
    })
}

/// Takes a fresh identity that is never written anywhere.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_ephemeral(config: *mut peersock_config) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { change(config, |settings| settings.identity(IdentitySource::Ephemeral)) })
}

/// Takes the identity of this secret seed, which is `PEERSOCK_SEED_SIZE` bytes long.
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
        unsafe { change(config, |settings| settings.identity(IdentitySource::Seed(seed))) }
    })
}

/// The network interfaces that the node may use, for everything: `"all"` (the default), `"loopback"`, or
/// names with commas between them, as `"eth0,wlan0"`.
///
/// # Safety
/// `interfaces` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_interfaces(
    config: *mut peersock_config,
    interfaces: *const c_char,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let interfaces = named_interfaces(unsafe { text::read(interfaces, "the interfaces") }?)?;
        // SAFETY: the caller's.
        unsafe { change(config, |settings| settings.interfaces(interfaces)) }
    })
}

/// The UDP port of the node; 0, the default, lets the system choose.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_port(config: *mut peersock_config, port: u16) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { change(config, |settings| settings.port(port)) })
}

/// Whether to find, and be found by, peers on this machine and on the local networks. By default it is so.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_discovery(
    config: *mut peersock_config,
    on: bool,
) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { change(config, |settings| settings.discovery(on)) })
}

/// The UDP port of discovery, the same on all nodes that should find each other. 7473 by default.
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
        port => unsafe { change(config, |settings| settings.discovery_port(port)) },
    })
}

/// The roots at which the node can be found, and which relay for it, as `PEERSOCK_ROOTS` has them: texts with
/// white space between them, each one that `peersock root` prints (with `?token=TEXT` behind it, if the root
/// wants one), `dns:DOMAIN` for those that the DNS lists, or `lan` for those that announce themselves on the
/// local network; or `@` and the path of a file with such texts. An empty text: none. NULL, the default: what
/// the variable `PEERSOCK_ROOTS` has.
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
            return unsafe { change(config, NodeBuilder::roots_of_environment) };
        }
        // SAFETY: the caller's.
        let text = unsafe { text::read(roots, "the roots") }?;
        let sources = RootSource::load(text).map_err(|error| Failure::invalid(error.to_string()))?;
        // SAFETY: the caller's.
        unsafe { change(config, |settings| settings.roots(sources)) }
    })
}

/// The TURN servers that relay to the node where no direct path opens, as `PEERSOCK_TURN` has them: texts
/// with white space between them, each one `turn:USER:PASSWORD@HOST:PORT`, with `?transport=tcp` behind it
/// for TCP, or `turns:USER:PASSWORD@HOST:PORT` for TLS; or `@` and the path of a file of mode 0600 with such
/// texts. An empty text: none. NULL, the default: what the variable `PEERSOCK_TURN` has. docs/use/TURN.md says
/// more; `peersock_status()` tells what came of it. At most four are asked.
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
            return unsafe { change(config, NodeBuilder::turn_of_environment) };
        }
        // SAFETY: the caller's.
        let text = unsafe { text::read(servers, "the TURN servers") }?;
        let servers = load_turn_servers(text).map_err(|error| Failure::invalid(error.to_string()))?;
        // SAFETY: the caller's.
        unsafe { change(config, |settings| settings.turn(servers)) }
    })
}

/// The most that the send and the receive buffer of each TCP socket may hold, bytes. 64 MiB each by default.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_config_tcp_buffers(
    config: *mut peersock_config,
    send: size_t,
    receive: size_t,
) -> peersock_result {
    answer(|| match send.min(receive) {
        0 => Err(Failure::invalid("a buffer of no bytes")),
        // SAFETY: the caller's.
        _ => unsafe { change(config, |settings| settings.tcp_buffers(send, receive)) },
    })
}

/// Parses the interfaces named in a text.
pub(crate) fn named_interfaces(names: &str) -> Answer<Interfaces> {
    Ok(match names {
        "" => return Err(Failure::invalid("no interface is named")),
        "all" => Interfaces::All,
        "loopback" => Interfaces::Loopback,
        names => Interfaces::Named(names.split(',').map(|name| name.trim().to_owned()).collect()),
    })
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

/// # Safety
/// `config` is null or comes from `peersock_config_new()`.
unsafe fn change(config: *mut peersock_config, change: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Answer {
    // SAFETY: the caller's.
    let config = unsafe { config.as_mut() }.ok_or_else(|| Failure::invalid("the configuration is NULL"))?;
    config.settings = change(config.settings.clone());
    Ok(())
}
