//! Properties of the machine's network.

use libc::c_char;
use peersock::interfaces::load_stun_servers;
use peersock::netcheck::NetcheckError;
use peersock_socket_server::Host;

use crate::boundary::answer;
use crate::config::peersock_config;
use crate::registry::defaults;
use crate::result::{Failure, PEERSOCK_E_NOT_FOUND, peersock_result};
use crate::text;

/// Checks the network of this machine, and returns the result as JSON, in the form that `peersock netcheck
/// --json` prints. docs/use/NETCHECK.md explains the fields. Free the text with `peersock_string_free()`. No
/// node is needed.
///
/// The check takes up to six seconds. Lists of roots take extra time first: up to four seconds for
/// `dns:DOMAIN`, and six for `lan`.
///
/// The interfaces, roots, TURN servers and discovery port come from `config`, whose other settings are
/// ignored; NULL means the default settings. `stun` has the STUN servers, `HOST:PORT` separated by white
/// space. An empty text means no servers, and NULL uses the variable `PEERSOCK_STUN`. Only named servers are
/// asked.
///
/// PEERSOCK_E_NOT_FOUND means that no usable interface is up. A network that blocks everything is no failure.
///
/// # Safety
/// `config` is NULL or comes from `peersock_config_new()`; `stun` is NULL or a C string; `json` is NULL or
/// has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_netcheck(
    config: *const peersock_config,
    stun: *const c_char,
    json: *mut *mut c_char,
) -> peersock_result {
    answer(|| {
        if json.is_null() {
            return Err(Failure::invalid("the place for the text is NULL"));
        }
        // SAFETY: the caller's.
        let settings = unsafe { config.as_ref() }.map_or_else(defaults, |config| config.settings.clone());
        let mut check = settings.netcheck();
        if !stun.is_null() {
            // SAFETY: the caller's.
            let servers = unsafe { text::read(stun, "the STUN servers") }?;
            let servers = load_stun_servers(servers).map_err(|error| Failure::invalid(error.to_string()))?;
            check = check.stun(servers);
        }
        let report = Host::without_node(move || check.run().map(|report| report.to_json()))??;
        // SAFETY: the caller's.
        unsafe { text::give(report, json) }
    })
}

impl From<NetcheckError> for Failure {
    fn from(error: NetcheckError) -> Failure {
        match error {
            NetcheckError::Io(error) => error.into(),
            NetcheckError::NoInterface(_) => Failure::new(PEERSOCK_E_NOT_FOUND, error.to_string()),
            error => Failure::invalid(error.to_string()),
        }
    }
}
