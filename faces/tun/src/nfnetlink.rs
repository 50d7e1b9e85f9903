//! Batches of nfnetlink, which configure the packet filter of the kernel.
//!
//! The layout is that of linux/netfilter/nfnetlink.h. Messages between the two marks of a batch take effect
//! together, or not at all.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::netlink::open;

/// A message of a batch: its type within nf_tables, its flags and its attributes.
pub(crate) type Message = (u16, u16, Attributes);

/// Sends a batch for nf_tables to the kernel. Returns the socket.
///
/// # Errors
/// The error of the kernel for the first message that it refuses.
pub(crate) fn send(messages: &[Message]) -> io::Result<Socket> {
    let socket = open(NETLINK_NETFILTER)?;
    exchange(&socket, messages)?;
    Ok(socket)
}

/// Sends a batch over a socket, which may own a table that is changed.
/// Fails with the errors of [`send`].
pub(crate) fn exchange(socket: &Socket, messages: &[Message]) -> io::Result<()> {
    let (batch, last) = batch(messages);
    socket.send(&batch, 0)?;
    let mut failed = None;
    // The kernel answers each message; if it refuses the whole batch, it answers only the beginning.
    loop {
        let (received, _) = socket.recv_from_full()?;
        for answer in Answers(&received) {
            failed = failed.or(answer.error);
            if answer.sequence == last || answer.sequence == FIRST {
                return match failed {
                    Some(code) => Err(io::Error::from_raw_os_error(code)),
                    None => Ok(()),
                };
            }
        }
    }
}

/// Encodes all messages with the marks around them. Also returns the sequence number of the last answered
/// one.
pub(crate) fn batch(messages: &[Message]) -> (Vec<u8>, u32) {
    let mut bytes = Vec::new();
    message(&mut bytes, NFNL_MSG_BATCH_BEGIN, 0, FIRST, NFNL_SUBSYS_NFTABLES, &[]);
    let mut sequence = FIRST;
    for (kind, flags, attributes) in messages {
        sequence += 1;
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        message(&mut bytes, kind, flags | NLM_F_ACK, sequence, 0, &attributes.0);
    }
    message(&mut bytes, NFNL_MSG_BATCH_END, 0, sequence + 1, NFNL_SUBSYS_NFTABLES, &[]);
    (bytes, sequence)
}

/// Netlink attributes: each has its length, its type and its value, and begins at a multiple of four bytes.
#[derive(Debug, Default)]
pub(crate) struct Attributes(pub(crate) Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Attributes {
        let length = u16::try_from(4 + value.len()).expect("a rule has some hundred bytes");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a number in network byte order, as nf_tables uses it except for values compared with packets.
    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Attributes {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Attributes {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn nested(&mut self, kind: u16, value: &Attributes) -> &mut Attributes {
        self.bytes(NLA_F_NESTED | kind, &value.0)
    }
}

/// Appends a message: netlink's header, nfnetlink's, and attributes.
fn message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, resource: u16, attributes: &[u8]) {
    let length = (HEADER + 4 + attributes.len()) as u32;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    // The sender's address, which the kernel knows.
    bytes.extend_from_slice(&[0; 4]);
    // The marks of a batch name its subsystem, and belong to no family.
    let family = if resource == 0 { NFPROTO_INET } else { 0 };
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    bytes.extend_from_slice(attributes);
}

/// The answers in one datagram from the kernel.
struct Answers<'a>(&'a [u8]);

/// The result of one message.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    sequence: u32,
    error: Option<i32>,
}

impl Iterator for Answers<'_> {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        loop {
            let number = |at: usize| self.0.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
            let (length, sequence, code) = (number(0)? as usize, number(8)?, number(HEADER));
            let kind = u16::from_ne_bytes([self.0[4], self.0[5]]);
            self.0 = self.0.get(length.next_multiple_of(4).max(HEADER)..).unwrap_or_default();
            if let (NLMSG_ERROR, Some(code)) = (kind, code) {
                let code = code.cast_signed().wrapping_neg();
                return Some(Answer { sequence, error: (code != 0).then_some(code) });
            }
        }
    }
}

/// Length of netlink's header in bytes.
const HEADER: usize = 16;

/// The sequence number of a batch's beginning.
pub(crate) const FIRST: u32 = 1;

const NLA_F_NESTED: u16 = 0x8000;

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFPROTO_INET: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whatever_is_around_them() {
        let answer = |kind: u16, sequence: u32, code: i32| {
            let mut bytes = 20_u32.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(&sequence.to_ne_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes
        };
        let all = [answer(NLMSG_ERROR, 2, 0), answer(3, 3, 0), answer(NLMSG_ERROR, 4, -95)].concat();
        let read = |bytes: &[u8]| Answers(bytes).map(|one| (one.sequence, one.error)).collect::<Vec<_>>();
        assert_eq!(read(&all), [(2, None), (4, Some(95))]);
        for length in 0..all.len() {
            assert!(read(&all[..length]).len() < 2, "{length}");
        }
        // A length of zero must not cause an endless loop.
        assert!(read(&[0; 40]).is_empty());
    }
}
