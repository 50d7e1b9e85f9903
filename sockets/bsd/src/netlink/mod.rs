//! Routing sockets (rtnetlink(7)): a program's requests about interfaces and addresses, and the networks'
//! additions to the answers of the kernel.
//!
//! The kernel answers a dump with datagrams of many messages. The last message is NLMSG_DONE; it may come
//! alone or behind others. The messages about the networks come right before it, in separate datagrams, so
//! that they fit the buffers of programs. For that the program reads the last kernel datagram in parts.

mod answer;
mod pending;
mod question;

use answer::{Answer, Outcome};
pub use pending::{PendingAnswers, SharedAnswers, is_routing_socket, note, receive};
use question::{Question, questions};

/// Length of a `struct nlmsghdr`, bytes.
const HEADER: usize = 16;

/// One message.
#[derive(Debug, Clone, Copy)]
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// The port of the requesting socket, or 0.
    port: u32,
    body: &'a [u8],
    /// Its offset in the datagram.
    at: usize,
}

/// Returns the messages of a datagram, up to the first malformed one.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = datagram.get(at..)?;
        let length = u32_at(rest, 0)? as usize;
        let message = Message {
            kind: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            sequence: u32_at(rest, 8)?,
            port: u32_at(rest, 12)?,
            body: rest.get(HEADER..length)?,
            at,
        };
        at += length.next_multiple_of(4);
        Some(message)
    })
}

/// Returns the types and values of a message's attributes, up to the first malformed one.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    // The two highest bits describe the encoding of the value.
    const TYPE: u16 = 0x3fff;
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..)?;
        let length = usize::from(u16_at(rest, 0)?);
        let attribute = (u16_at(rest, 2)? & TYPE, rest.get(4..length)?);
        at += length.next_multiple_of(4);
        Some(attribute)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Encodes a message, whose port is not known yet.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

/// Appends an attribute.
fn put(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend(((4 + value.len()) as u16).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::interface::tests::networks;

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            asked in prop::collection::vec(any::<u8>(), 0..80),
            datagram in prop::collection::vec(any::<u8>(), 0..200),
            (kind, length) in (prop::sample::select(vec![2_u16, 3, 16, 18, 22]), 0..90_u32),
        ) {
            let mut asked = asked;
            if asked.len() >= 8 {
                asked[..4].copy_from_slice(&length.to_ne_bytes());
                asked[4..6].copy_from_slice(&kind.to_ne_bytes());
            }
            for question in questions(&asked, || true) {
                let answer = question.answer(&networks());
                if let Some(answer) = answer {
                    let _ = answer.in_place_of(&datagram);
                    let _ = answer.in_place_of(&asked);
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut body = vec![1, 0, 0, 0];
        put(&mut body, 3, b"ps1\0");
        put(&mut body, 9 | 0x8000, b"x");
        let bytes = [message(16, 2, 7, &body), message(3, 2, 7, &[0; 4])].concat();
        let [first, second] = messages(&bytes).collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!((first.kind, first.flags, first.sequence, first.at), (16, 2, 7, 0));
        let found: Vec<_> = attributes(&first.body[4..]).collect();
        assert_eq!(found, [(3, &b"ps1\0"[..]), (9, b"x")]);
        assert_eq!((second.kind, second.at), (3, bytes.len() - 20));
        // Lengths shorter than the header are invalid.
        for length in [0_u32, 4, 15] {
            assert_eq!(messages(&[&length.to_ne_bytes()[..], &[0; 20]].concat()).count(), 0);
        }
    }
}
