//! Switches a network device's offloads over Linux's ethtool netlink interface (Linux
//! `Documentation/networking/ethtool-netlink.rst`), without any other program.

use std::io;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// One offload by its kernel name, and its wanted state.
pub(crate) type Feature<'a> = (&'a str, bool);

// <linux/netlink.h>
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;
// <linux/genetlink.h>
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
// <linux/ethtool_netlink.h>
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_OMIT_REPLY: u32 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// Size of nlmsghdr and genlmsghdr in bytes.
const HEADER: usize = 16 + 4;
/// Size of nlattr in bytes.
const ATTRIBUTE: usize = 4;

/// Switches offloads of a device of the current network namespace.
/// Errors: Linux's error: no such device or feature, not permitted, or no ethtool netlink (before Linux 5.6).
pub(crate) fn set_features(device: &str, features: &[Feature<'_>]) -> io::Result<()> {
    let family = ethtool_family()?;
    request(family, ETHTOOL_MSG_FEATURES_SET, &features_message(device, features)).map(|_| ())
}

fn features_message(device: &str, features: &[Feature<'_>]) -> Vec<u8> {
    let mut header = Vec::new();
    put(&mut header, ETHTOOL_A_HEADER_DEV_NAME, &c_string(device));
    put(&mut header, ETHTOOL_A_HEADER_FLAGS, &ETHTOOL_FLAG_OMIT_REPLY.to_ne_bytes());
    let mut bits = Vec::new();
    for (name, on) in features {
        let mut bit = Vec::new();
        put(&mut bit, ETHTOOL_A_BITSET_BIT_NAME, &c_string(name));
        if *on {
            put(&mut bit, ETHTOOL_A_BITSET_BIT_VALUE, &[]);
        }
        put(&mut bits, ETHTOOL_A_BITSET_BITS_BIT | NLA_F_NESTED, &bit);
    }
    let mut wanted = Vec::new();
    put(&mut wanted, ETHTOOL_A_BITSET_BITS | NLA_F_NESTED, &bits);
    let mut message = Vec::new();
    put(&mut message, ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, &header);
    put(&mut message, ETHTOOL_A_FEATURES_WANTED | NLA_F_NESTED, &wanted);
    message
}

/// Looks up the number of the ethtool family, which generic netlink assigns at run time.
fn ethtool_family() -> io::Result<u16> {
    let mut name = Vec::new();
    put(&mut name, CTRL_ATTR_FAMILY_NAME, &c_string("ethtool"));
    let reply = request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name)?;
    attributes(&reply)
        .find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)
        .and_then(|(_, value)| Some(u16::from_ne_bytes(value.try_into().ok()?)))
        .ok_or_else(|| io::Error::other("the kernel does not know the ethtool netlink family"))
}

/// Sends one request and returns the attributes of its answer, or no bytes if the answer is a bare
/// acknowledgement.
fn request(family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::GENERIC))?;
    let mut message = Vec::new();
    message.extend(((HEADER + attributes.len()) as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend([0; 8]); // sequence number and sender: one question at a time
    message.extend([command, 1, 0, 0]); // version 1
    message.extend(attributes);
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;

    let mut buffer = [0; 8192];
    let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    let answer = &buffer[..length.min(buffer.len())];
    let Some((header, body)) = answer.split_at_checked(HEADER) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    if u16::from_ne_bytes([header[4], header[5]]) == NLMSG_ERROR {
        // nlmsgerr has the code in the place of a genlmsghdr; 0 acknowledges.
        let code = i32::from_ne_bytes([header[16], header[17], header[18], header[19]]);
        return if code == 0 { Ok(Vec::new()) } else { Err(io::Error::from_raw_os_error(-code)) };
    }
    Ok(body.to_vec())
}

/// Appends an attribute, padded to 4 bytes.
fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = rest.split_at_checked(ATTRIBUTE)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = rest.get(ATTRIBUTE..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn c_string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let mut out = Vec::new();
        put(&mut out, 7, b"abc");
        put(&mut out, 8 | NLA_F_NESTED, &[]);
        assert_eq!(out.len(), 8 + 4);
        assert_eq!(attributes(&out).collect::<Vec<_>>(), [(7, &b"abc"[..]), (8, &[][..])]);
    }

    #[test]
    fn broken_attributes_end_the_list() {
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 1]).count(), 0);
    }
}
