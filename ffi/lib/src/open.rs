//! A node from settings in one JSON text, for other languages that can convert their objects to JSON.

use libc::c_char;
use peersock::overlay::ParseNetworkIdError;
use peersock::settings::{self, SettingError};
use peersock::{IdentitySource, Invite, Network, NetworkId, Node, NodeBuilder, ParseInviteError};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::boundary::answer;
use crate::networks::join;
use crate::node::peersock_stop;
use crate::registry::{self, PEERSOCK_DEFAULT, peersock_node};
use crate::result::{Answer, Failure, peersock_result};
use crate::text;

/// Starts a node with settings from a JSON object, such as `{"network": "ff00500050000000"}`, and joins the
/// network that they name. All are optional:
///
/// - `network`: the ID of an ad-hoc or managed network, 16 hexadecimal digits; an invite to a managed
///   network, as `peersock network invite` prints it; or the path of a static network's TOML file, which
///   `peersock network new` makes and docs/use/NETWORKS.md describes field by field;
/// - `secret`: the passphrase of the ad-hoc network in `network`;
/// - the settings of the node in docs/reference/SETTINGS.md. Without `seed` and `state`, the identity is new
///   and never written anywhere.
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

fn read(text: &str) -> Answer<Opening> {
    let parsed =
        serde_json::from_str(text).map_err(|error| Failure::invalid(format!("settings: {error}")))?;
    let Value::Object(mut object) = parsed else {
        return Err(Failure::invalid("settings are a JSON object"));
    };
    let (network, secret) = (take_text(&mut object, "network")?, take_text(&mut object, "secret")?);
    let settings = Node::builder().identity(IdentitySource::Ephemeral).settings(object)?;
    let secret = secret.as_ref().map(|secret| secret.as_str());
    if network.is_none() && secret.is_some() {
        return Err(Failure::invalid("'secret' is that of a network, and none is named"));
    }
    let network = network.map(|network| named_network(&network, secret)).transpose()?;
    Ok(Opening { settings, network })
}

/// Returns the network named by an ID, an invite, or the path of a file.
pub(crate) fn named_network(name: &str, secret: Option<&str>) -> Answer<Network> {
    if Invite::is_claimed_by(name) {
        return match secret {
            None => by_invite(name),
            Some(_) => Err(Failure::invalid("'secret' is for ad-hoc networks: a managed one has none")),
        };
    }
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
        Some(secret) => network.with_passphrase(secret)?,
        None => network,
    })
}

/// Returns the managed network of an invite.
pub(crate) fn by_invite(text: &str) -> Answer<Network> {
    let invite: Invite =
        text.parse().map_err(|error: ParseInviteError| Failure::invalid(error.to_string()))?;
    Ok(invite.network())
}

/// Removes and returns a text of the settings that only this function has.
fn take_text(object: &mut Map<String, Value>, name: &str) -> Answer<Option<Zeroizing<String>>> {
    let refused = |reason| SettingError { setting: name.to_owned(), reason };
    object
        .remove(name)
        .map(|value| settings::text(value).map_err(|reason| refused(reason).into()))
        .transpose()
}

#[cfg(test)]
mod tests {
    use peersock::settings::SETTINGS;

    /// Go and Node.js give this library their settings as JSON.
    #[test]
    fn go_and_node_js_have_each_setting() {
        let [go, node] =
            [include_str!("../../../bindings/go/node.go"), include_str!("../../../bindings/node/index.d.ts")];
        for setting in SETTINGS {
            let name = setting.name;
            assert!(go.contains(&format!("json:\"{name}")), "Go has no setting {name}");
            let mut words = name.split('_');
            let first = words.next().unwrap_or_default().to_owned();
            let camel = words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..]);
            assert!(node.contains(&format!("\n  {camel}?:")), "Node.js has no setting {camel}");
        }
    }
}
