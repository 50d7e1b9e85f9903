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
use netlink_packet_core::{DefaultNla, Emitable as _, NetlinkBuffer, NlaBuffer, NlasIterator};
pub use pending::{PendingAnswers, SharedAnswers, is_routing_socket, note, receive};
use question::{Question, questions};

/// Length of a message's header, bytes.
const HEADER: usize = size_of::<libc::nlmsghdr>();

/// Returns the messages of a datagram with their offsets, up to the first malformed one.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (usize, NetlinkBuffer<&[u8]>)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let at = next;
        let rest = datagram.get(at..).filter(|rest| !rest.is_empty())?;
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        next += (message.length() as usize).next_multiple_of(4);
        Some((at, message))
    })
}

/// Returns the attributes of a message, up to the first malformed one.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(|attribute| attribute.ok())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Encodes a message, whose port is not known yet.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = HEADER + body.len();
    let mut bytes = vec![0; length.next_multiple_of(4)];
    let mut message = NetlinkBuffer::new(&mut bytes);
    message.set_length(length as u32);
    message.set_message_type(kind);
    message.set_flags(flags);
    message.set_sequence_number(sequence);
    message.payload_mut().copy_from_slice(body);
    bytes
}

/// Appends an attribute.
fn put(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let (at, attribute) = (to.len(), DefaultNla::new(kind, value.to_vec()));
    to.resize(at + attribute.buffer_len(), 0);
    attribute.emit(&mut to[at..]);
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
        let all: Vec<_> = messages(&bytes).collect();
        let [(0, first), (at, second)] = &all[..] else { panic!() };
        assert_eq!((first.message_type(), first.flags(), first.sequence_number()), (16, 2, 7));
        let found: Vec<_> =
            attributes(&first.payload()[4..]).map(|one| (one.kind(), one.value().to_vec())).collect();
        assert_eq!(found, [(3, b"ps1\0".to_vec()), (9, b"x".to_vec())]);
        assert_eq!((second.message_type(), *at), (3, bytes.len() - 20));
        // Lengths shorter than the header are invalid.
        for length in [0_u32, 4, 15] {
            assert_eq!(messages(&[&length.to_ne_bytes()[..], &[0; 20]].concat()).count(), 0);
        }
    }
}
