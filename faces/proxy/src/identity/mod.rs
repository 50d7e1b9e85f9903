//! The member at the other end, told to a service of the system: by fields of HTTP or by a header of the
//! PROXY protocol.

pub(crate) mod http;
pub(crate) mod proxy_v2;
pub(crate) mod relay;

use peersock::PeerIdentity;

/// Form in which a service learns which member has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Introduction {
    /// Fields of each request of HTTP/1.1.
    Http,
    /// A header of the PROXY protocol, version 2, before the first byte.
    ProxyV2,
}

/// Returns the name by which services know a member: its node ID in networks without names.
fn name(peer: &PeerIdentity) -> String {
    peer.full_name().unwrap_or_else(|| peer.node.to_string())
}

/// Returns the fields that tell a service of HTTP about a member.
pub(crate) fn fields(peer: &PeerIdentity) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("Peersock-Member", name(peer)),
        ("Peersock-Network", peer.network.to_string()),
        ("Peersock-Node", peer.node.to_string()),
    ];
    if !peer.tags.is_empty() {
        fields.push(("Peersock-Tags", peer.tags.join(",")));
    }
    if peer.gateway {
        fields.push(("Peersock-Gateway", "1".to_owned()));
    }
    fields
}
