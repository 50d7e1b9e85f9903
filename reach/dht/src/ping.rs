//! Ping (BEP 5) of nodes of the DHT, whose answer names the endpoint they see of a socket (BEP 42).
//!
//! A ping replaces STUN for a node that knows no STUN server. Its answer is as unproven as a STUN answer.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Limit of the nesting of values; a ping's answer is a dictionary in a dictionary.
const MAX_DEPTH: usize = 8;

/// Encodes a ping as a datagram. `transaction` and `id`, the asker's node ID for this one request, must be
/// unpredictable.
///
/// The ping is marked as read-only (BEP 43), so that no node stores the socket's address.
pub fn ping_question(transaction: [u8; 4], id: [u8; 20]) -> Vec<u8> {
    [&b"d1:ad2:id20:"[..], &id, b"e1:q4:ping2:roi1e1:t4:", &transaction, b"1:y1:qe"].concat()
}

/// The answer of a node of the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingAnswer {
    /// The transaction of the question.
    pub transaction: [u8; 4],
    /// The endpoint from which the question came.
    pub seen: SocketAddrV4,
}

impl PingAnswer {
    /// Parses an answer; `None` if it is none, or does not contain the endpoint of the question.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let mut rest = datagram.strip_prefix(b"d")?;
        let (mut transaction, mut seen, mut is_answer) = (None, None, false);
        while rest.first() != Some(&b'e') {
            let (key, value) = string(rest)?;
            rest = skip(value, MAX_DEPTH)?;
            match key {
                b"t" => transaction = string(value)?.0.try_into().ok(),
                b"y" => is_answer = string(value)?.0 == b"r",
                b"ip" => seen = string(value)?.0.try_into().ok().map(endpoint),
                _ => {}
            }
        }
        Some(Self { transaction: transaction.filter(|_| is_answer)?, seen: seen? })
    }
}

fn endpoint(bytes: [u8; 6]) -> SocketAddrV4 {
    let [a, b, c, d, high, low] = bytes;
    SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))
}

/// Reads a byte string. Returns it and the bytes after it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().take(6).position(|byte| *byte == b':')?;
    let length = bytes[..colon].iter().try_fold(0usize, |length, digit| {
        digit.is_ascii_digit().then(|| length * 10 + usize::from(digit - b'0'))
    })?;
    (colon > 0).then(|| bytes[colon + 1..].split_at_checked(length))?
}

/// Returns the bytes after one value of any type.
fn skip(bytes: &[u8], depth: usize) -> Option<&[u8]> {
    match bytes.first()? {
        b'i' => {
            let end = bytes.iter().position(|byte| *byte == b'e')?;
            Some(&bytes[end + 1..])
        }
        // Skip a dictionary as a list whose elements are keys and values.
        b'l' | b'd' => {
            let depth = depth.checked_sub(1)?;
            let mut rest = &bytes[1..];
            while rest.first() != Some(&b'e') {
                rest = skip(rest, depth)?;
            }
            Some(&rest[1..])
        }
        _ => Some(string(bytes)?.1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &[u8] =
        b"d2:ip6:\xcb\0\x71\x07\x1c\xfc1:rd2:id20:abcdefghij01234567895:nodesl1:a1:be1:xi-7ee\
        1:t4:abcd1:v4:RS\0\x011:y1:re";

    #[test]
    fn an_answer_says_what_the_other_sees() {
        let answer = PingAnswer::parse(ANSWER).expect("an answer");
        assert_eq!(answer, PingAnswer { transaction: *b"abcd", seen: "203.0.113.7:7420".parse().unwrap() });
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for length in 0..ANSWER.len() {
            assert_eq!(PingAnswer::parse(&ANSWER[..length]), None, "{length} bytes");
        }
        assert_eq!(PingAnswer::parse(&ping_question(*b"abcd", [7; 20])), None, "a question");
        let without = b"d1:rd2:id20:abcdefghij0123456789e1:t4:aaaa1:y1:re";
        assert_eq!(PingAnswer::parse(without), None, "it does not say what it sees");
        let of_ipv6 = b"d2:ip18:abcdefghijklmnopqr1:t4:aaaa1:y1:re";
        assert_eq!(PingAnswer::parse(of_ipv6), None);
        let deep = [b"d1:a".to_vec(), vec![b'l'; 1000], vec![b'e'; 1000], ANSWER[1..].to_vec()].concat();
        assert_eq!(PingAnswer::parse(&deep), None);
        assert_eq!(PingAnswer::parse(b"d2:ip99999:"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PingAnswer::parse(&bytes);
        }

        #[test]
        fn a_changed_answer_is_survived(at in 0..ANSWER.len(), byte in any::<u8>()) {
            let mut bytes = ANSWER.to_vec();
            bytes[at] = byte;
            let _ = PingAnswer::parse(&bytes);
        }
    }
}
