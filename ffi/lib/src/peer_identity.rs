//! The other end of a connection.

use std::os::fd::RawFd;

use libc::{c_char, c_int, size_t, socklen_t};
use peersock::PeerIdentity;
use peersock_bsd::{Errno, either};
use peersock_fd::option_table::{PEERSOCK_PEER, SOL_PEERSOCK};

use crate::boundary::posix;
use crate::bsd::overlay;
use crate::node::PEERSOCK_ID_SIZE;
use crate::text;

/// Size of a member's name, or of a program's label, with its final zero.
pub const PEERSOCK_NAME_SIZE: usize = 64;

/// Size of a member's tags as one text, with its final zero.
pub const PEERSOCK_TAGS_SIZE: usize = 128;

/// Size of the largest claims.
pub const PEERSOCK_CLAIMS_SIZE: usize = 128;

/// Other end of a connection, as its network describes it. Later versions may add members at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct peersock_identity {
    /// ID of the network.
    pub network: u64,
    /// ID of the node, which is the hash of its public keys.
    pub node: [c_char; PEERSOCK_ID_SIZE],
    /// ID of the machine's node: another one than `node` if that is a program with its own keys.
    pub machine: [c_char; PEERSOCK_ID_SIZE],
    /// Name of the machine; empty in networks without names.
    pub name: [c_char; PEERSOCK_NAME_SIZE],
    /// Label of such a program, under which it alone is addressed; mostly empty.
    pub label: [c_char; PEERSOCK_NAME_SIZE],
    /// Tags of the machine in ascending order, with a comma between two.
    pub tags: [c_char; PEERSOCK_TAGS_SIZE],
    /// Bytes for programs that the network's controller has signed.
    pub claims: [u8; PEERSOCK_CLAIMS_SIZE],
    /// Number of these bytes.
    pub claims_length: u32,
    /// True if the other end is a machine without peersock, for which this member forwards packets.
    pub gateway: bool,
}

/// Size of an identity in the first version of the library that had one, bytes.
const FIRST_IDENTITY: size_t = 536;

/// Tells who is at the other end of a connection, as of when it was established, also after its end. On a
/// datagram socket it is about the address to which the socket is connected. `size` is
/// `sizeof(peersock_identity)`; members that this library does not know are zeros.
///
/// Returns 0, or -1 and `errno`: ENOTCONN if the socket has never been connected, EOPNOTSUPP or ENOPROTOOPT
/// on a socket of the system, EINVAL for a wrong size.
///
/// # Safety
/// `identity` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_identify(
    fd: RawFd,
    identity: *mut peersock_identity,
    size: size_t,
) -> c_int {
    posix(|| {
        if identity.is_null() {
            return Err(Errno::FAULT);
        }
        let mut json = [0_u8; PeerIdentity::MAX_JSON];
        let mut length = json.len() as socklen_t;
        let (socket, value) = (overlay(fd)?, json.as_mut_ptr().cast());
        // SAFETY: the value is as long as the given length.
        unsafe {
            either::getsockopt(socket.as_ref(), fd, SOL_PEERSOCK, PEERSOCK_PEER, value, &raw mut length)
        }?;
        let peer = json.get(..length as usize).map(PeerIdentity::from_json);
        let peer = peer.and_then(Result::ok).ok_or(Errno::PROTO)?;
        let mut count = 0;
        // SAFETY: the caller's, and a local variable.
        unsafe { text::put_sized(&[describe(&peer)], identity, (size, FIRST_IDENTITY), 1, &raw mut count) }
            .map_err(|_| Errno::INVAL)?;
        Ok(0)
    })
}

fn describe(peer: &PeerIdentity) -> peersock_identity {
    let mut claims = [0; PEERSOCK_CLAIMS_SIZE];
    let length = peer.claims.len().min(claims.len());
    claims[..length].copy_from_slice(&peer.claims[..length]);
    peersock_identity {
        network: peer.network.as_u64(),
        node: text::fixed(&peer.node.to_string()),
        machine: text::fixed(&peer.machine.to_string()),
        name: text::fixed(peer.name.as_deref().unwrap_or_default()),
        label: text::fixed(peer.label.as_deref().unwrap_or_default()),
        tags: text::fixed(&peer.tags.join(",")),
        claims,
        claims_length: length as u32,
        gateway: peer.gateway,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_identity_keeps_its_size() {
        assert_eq!(size_of::<peersock_identity>(), FIRST_IDENTITY);
    }

    #[test]
    fn the_longest_texts_fit() {
        // Each tag takes a byte for its length in the certificate, where a comma or the final zero is here.
        let tags: Vec<String> = (0..64).map(|number| char::from(b'0' + number).to_string()).collect();
        let id = "0".repeat(64);
        let json = serde_json::json!({
            "network": "8056c2e21c000001", "node": id, "machine": id, "gateway": true,
            "name": "n".repeat(63), "label": "l".repeat(63), "tags": tags, "claims": "00ff".repeat(64),
        });
        let json = json.to_string();
        let peer = PeerIdentity::from_json(json.as_bytes()).expect("an identity");
        let described = describe(&peer);
        let text = |chars: &[c_char]| chars.iter().map(|c| *c as u8 as char).collect::<String>();
        assert_eq!(text(&described.name), format!("{}\0", "n".repeat(63)));
        assert_eq!(text(&described.label), format!("{}\0", "l".repeat(63)));
        assert_eq!(text(&described.tags), format!("{}\0", tags.join(",")));
        assert_eq!((described.claims_length, described.claims[127]), (128, 255));
    }
}
