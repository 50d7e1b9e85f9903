//! Text that people write: identifiers, roots and files.

use std::fmt::{Debug, Display};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::str::FromStr;

use peersock::state::StateDir;
use peersock::{Network, RootSource};
use peersock_overlay::{NetworkConfig, NetworkId, NodeId, PublicIdentity};

/// Checks names of roots and their lists, network IDs, node IDs and public identities. Each has one spelling,
/// which parses again (hexadecimal also in capitals).
pub fn identifiers(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        spelled_once::<NetworkId>(text, &text.to_ascii_lowercase());
        spelled_once::<NodeId>(text, &text.to_ascii_lowercase());
        spelled_once::<PublicIdentity>(text, text);
        root_source(text);
    }
    if let Some(bytes) = data.first_chunk()
        && let Ok(id) = NetworkId::new(u64::from_be_bytes(*bytes))
    {
        assert_eq!(id.to_string().parse(), Ok(id));
        if let Ok(config) = NetworkConfig::by_id(id) {
            assert_eq!(config.validate(), Ok(()));
            assert!(!config.policy().ports().is_empty());
        }
    }
    if let Some(bytes) = data.first_chunk()
        && let Ok(identity) = PublicIdentity::from_bytes(bytes)
    {
        assert_eq!(identity.to_bytes(), *bytes);
        assert_eq!(identity.to_string().parse(), Ok(identity));
    }
}

/// Checks roots and lists of roots. The written form parses to the same value, except for tokens, which are
/// not written.
fn root_source(text: &str) {
    let Ok(source) = text.parse::<RootSource>() else { return };
    let again: RootSource = source.to_string().parse().expect("its own form");
    match (source, again) {
        (RootSource::Address(source), RootSource::Address(again)) => {
            assert!(again.token().is_none() && source.token().is_none_or(|token| token.len() <= 255));
            assert_eq!((source.identity(), source.endpoints()), (again.identity(), again.endpoints()));
        }
        (source, again) => assert_eq!(source, again),
    }
}

fn spelled_once<T: FromStr + Display + Debug>(text: &str, canonical: &str) {
    if let Ok(id) = text.parse::<T>() {
        assert_eq!(id.to_string(), canonical);
    }
}

/// Checks the TOML file of a static network. The core accepts whatever the parser accepts.
pub fn network_file(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if text.contains("passphrase") {
        // Stretching a passphrase takes tens of milliseconds, as intended.
        return;
    }
    if let Ok(network) = Network::parse_toml(text) {
        assert!(!network.members().is_empty());
        for member in network.members() {
            let name = member.name.as_deref().unwrap_or("a");
            assert!(!name.is_empty() && name.len() <= 63 && name == name.to_ascii_lowercase());
        }
        assert_eq!(network.into_config().validate(), Ok(()));
    }
}

/// Checks the identity file. Any content is read or refused, and never replaced.
pub fn identity_file(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("identity.key");
    fs::write(&file, data)
        .and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o600)))
        .expect("a file");
    if let Ok(identity) = StateDir::peek_identity(folder.path()) {
        assert!(identity.is_some(), "there is a file");
    }
    assert_eq!(fs::read(&file).expect("the same file"), data);
}
