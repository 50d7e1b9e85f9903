//! A node from settings in one JSON text, for other languages that can convert their objects to JSON.

use std::path::PathBuf;

use libc::c_char;
use peersock::interfaces::{load_stun_servers, load_turn_servers};
use peersock::overlay::ParseNetworkIdError;
use peersock::{Dht, IdentitySource, Network, NetworkId, Node, NodeBuilder, RootSource, Seed};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::boundary::answer;
use crate::config::named_interfaces;
use crate::networks::join;
use crate::node::peersock_stop;
use crate::registry::{self, PEERSOCK_DEFAULT, peersock_node};
use crate::result::{Answer, Failure, peersock_result};
use crate::text;

/// Starts a node with settings from a JSON object, such as `{"network": "ff00500050000000"}`, and joins the
/// network that they name. All settings are optional:
///
/// - `network`: the ID of an ad-hoc network, 16 hexadecimal digits; or the path of a static network's TOML
///   file, which `peersock network new` makes and docs/use/NETWORKS.md describes field by field;
/// - `secret`: the passphrase of the ad-hoc network in `network`;
/// - `state`: the directory that keeps the identity, see `peersock_config_state_dir()`;
/// - `seed`: 64 hexadecimal digits from which the identity is made; without `seed` and `state`, the identity
///   is new and never written anywhere;
/// - `stun`: STUN servers, `HOST:PORT` separated by white space, in the form of `PEERSOCK_STUN`;
/// - `dht`: `off`, `public`, or nodes of another DHT, `IPV4:PORT` separated by commas, in the form of
///   `PEERSOCK_DHT`;
/// - `interfaces`, `roots`, `turn`: as for `peersock_config_interfaces()` and so on;
/// - `port`, `discovery_port`: numbers, as for `peersock_config_port()` and so on; 0 is the default;
/// - `discovery`, `port_mapping`, `birthday`, `tcp_punch`: true or false; they control discovery on the local
///   network, port forwarding by routers, and the search for direct paths by many ports and by TCP.
///
/// With NULL for `node`, it is the default node of the process; otherwise `*node` becomes the handle of
/// another node. If this function fails, no new node runs. An unknown setting, or one of another type, is
/// `PEERSOCK_E_INVALID`. So is a text with U+FFFD, because JSON writers put it in place of invalid UTF-8.
///
/// # Safety
/// `settings` is NULL or a C string; `node` is NULL or has room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_open(settings: *const c_char, node: *mut peersock_node) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let Opening { settings, network } = read(unsafe { text::read(settings, "the text of settings") }?)?;
        let handle = match node.is_null() {
            true => registry::start_default(settings).map(|()| PEERSOCK_DEFAULT)?,
            false => registry::start(settings)?,
        };
        if let Some(network) = network {
            join(handle, network).inspect_err(|_| {
                let _ = peersock_stop(handle, 0);
            })?;
        }
        if !node.is_null() {
            // SAFETY: the caller's.
            unsafe { node.write(handle) };
        }
        Ok(())
    })
}

/// The settings and the network in a text.
struct Opening {
    settings: NodeBuilder,
    network: Option<Network>,
}

/// Setter of a boolean setting.
type Switch = fn(NodeBuilder, bool) -> NodeBuilder;

/// Boolean settings.
const SWITCHES: [(&str, Switch); 4] = [
    ("discovery", NodeBuilder::discovery),
    ("port_mapping", NodeBuilder::port_mapping),
    ("birthday", NodeBuilder::birthday),
    ("tcp_punch", NodeBuilder::tcp_punch),
];

fn read(text: &str) -> Answer<Opening> {
    let parsed =
        serde_json::from_str(text).map_err(|error| Failure::invalid(format!("settings: {error}")))?;
    let Value::Object(mut object) = parsed else {
        return Err(Failure::invalid("settings are a JSON object"));
    };
    let mut settings = Node::builder().identity(identity(&mut object)?);
    if let Some(names) = take_text(&mut object, "interfaces")? {
        settings = settings.interfaces(named_interfaces(&names)?);
    }
    if let Some(text) = take_text(&mut object, "roots")? {
        settings =
            settings.roots(RootSource::load(&text).map_err(|error| Failure::invalid(error.to_string()))?);
    }
    if let Some(text) = take_text(&mut object, "turn")? {
        settings =
            settings.turn(load_turn_servers(&text).map_err(|error| Failure::invalid(error.to_string()))?);
    }
    settings = settings.port(take_port(&mut object, "port")?);
    match take_port(&mut object, "discovery_port")? {
        0 => {}
        port => settings = settings.discovery_port(port),
    }
    if let Some(text) = take_text(&mut object, "stun")? {
        settings =
            settings.stun(load_stun_servers(&text).map_err(|error| Failure::invalid(error.to_string()))?);
    }
    if let Some(text) = take_text(&mut object, "dht")? {
        settings = settings.dht(text.parse::<Dht>().map_err(|error| Failure::invalid(error.to_string()))?);
    }
    for (name, turn) in SWITCHES {
        if let Some(on) = object.remove(name) {
            settings = turn(settings, on.as_bool().ok_or_else(|| wrong(name, "true or false"))?);
        }
    }
    let (network, secret) = (take_text(&mut object, "network")?, take_secret(&mut object, "secret")?);
    if let Some(name) = object.keys().next() {
        return Err(Failure::invalid(format!("the setting '{name}' does not exist")));
    }
    let secret = secret.as_ref().map(|secret| secret.as_str());
    if network.is_none() && secret.is_some() {
        return Err(Failure::invalid("'secret' is that of a network, and none is named"));
    }
    let network = network.map(|network| named_network(&network, secret)).transpose()?;
    Ok(Opening { settings, network })
}

fn identity(object: &mut Map<String, Value>) -> Answer<IdentitySource> {
    match (take_text(object, "state")?, take_secret(object, "seed")?) {
        (None, None) => Ok(IdentitySource::Ephemeral),
        (Some(path), None) => Ok(IdentitySource::StateDir(PathBuf::from(path))),
        (None, Some(digits)) => Ok(IdentitySource::Seed(seed(&digits)?)),
        (Some(_), Some(_)) => Err(Failure::invalid("an identity is that of a seed or of a state directory")),
    }
}

fn seed(digits: &str) -> Answer<Seed> {
    let is_seed = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let wrong = || Failure::invalid("a seed has 32 bytes, which are 64 hexadecimal digits");
    let mut seed = Seed([0; 32]);
    if !is_seed {
        return Err(wrong());
    }
    for (at, byte) in seed.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(seed)
}

/// Returns the network named by an ID or by the path of a file.
pub(crate) fn named_network(name: &str, secret: Option<&str>) -> Answer<Network> {
    let id = name.parse::<NetworkId>();
    if matches!(id, Err(ParseNetworkIdError::Length(_) | ParseNetworkIdError::Digit(_))) {
        return match secret {
            None => Ok(Network::from_file(name)?),
            Some(_) => {
                Err(Failure::invalid("'secret' is for ad-hoc networks: a static one has its own file"))
            }
        };
    }
    let network = Network::by_id(id.map_err(|error| Failure::invalid(error.to_string()))?)?;
    Ok(match secret {
        Some(secret) => network.with_passphrase(secret),
        None => network,
    })
}

/// Removes and returns a text. Rejects U+FFFD, which JSON's writers substitute for invalid UTF-8, because the
/// result would be another path or passphrase. Rejects zeros, because C strings cannot contain them.
fn take_text(object: &mut Map<String, Value>, name: &str) -> Answer<Option<String>> {
    match object.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.contains('\u{fffd}') => Err(wrong(name, "a text in UTF-8")),
        Some(Value::String(text)) if text.contains('\0') => Err(wrong(name, "a text without zeros")),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(name, "a text")),
    }
}

/// Does the same for a secret, which is cleared when dropped.
fn take_secret(object: &mut Map<String, Value>, name: &str) -> Answer<Option<Zeroizing<String>>> {
    Ok(take_text(object, name)?.map(Zeroizing::new))
}

fn take_port(object: &mut Map<String, Value>, name: &str) -> Answer<u16> {
    let number = object.remove(name).map_or(Some(0), |value| value.as_u64());
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| wrong(name, "a number from 0 to 65535"))
}

fn wrong(name: &str, wanted: &str) -> Failure {
    Failure::invalid(format!("'{name}' is not {wanted}"))
}
