//! Requests of local programs: names by DNS, and requests and WebSockets of `rest`.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use arbitrary::Arbitrary;
use peersock_rest::fuzzing::{self, Came};
use peersock_tun::Names;

use crate::input::{Damage, damaged, one, sequence};

/// Token that inputs may contain.
const TOKEN: &str = "first-token-of-the-target";

/// Checks that a DNS message gets a reply to the same question, or none.
pub fn dns_names(data: &[u8]) {
    let address = |text: &str| text.parse().expect("an address");
    let alpha = ("alpha", vec![address("fd77::1"), address("10.77.0.1")]);
    let mut names = Names::new("ff0001ffff000000", [alpha, ("Beta", vec![address("fd77::2")])]);
    names.add("ff0002ffff000000", Some("office"), [("beta", vec![address("fd88::2")])]);
    let Some(reply) = names.reply(data) else { return };
    assert!(reply.len() >= 12 && reply[..2] == data[..2], "it has the query's number");
    assert_eq!((data[2] & 0x80, reply[2] & 0x80), (0, 0x80), "queries get replies, and replies nothing");
    // The answer to one question fits into a TCP message.
    assert!(reply.len() <= 512 + data.len(), "{} bytes for {}", reply.len(), data.len());
    assert_eq!(names.reply(&reply), None, "two servers that answer each other would do so for ever");
}

/// Checks an HTTP request and its parts. No request without the token is served, and names stay within their
/// place.
pub fn rest_requests(data: &[u8]) {
    let head = data.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut lines = head.take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fields: Vec<_> = lines
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
        .collect();
    // No input contains its own hash.
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    let unknown = format!("{:016x}", hasher.finish());
    for came in [Came::Loopback, Came::Socket] {
        fuzzing::serves(TOKEN, came, method, target, &fields);
        let served = fuzzing::serves(&unknown, came, method, target, &fields);
        assert_ne!(served, Some(true), "served without the token");
    }
    let (query, body) = data.split_at(data.len() / 2);
    fuzzing::parts(&String::from_utf8_lossy(query), body);
    fuzzing::parts(&String::from_utf8_lossy(target), data);
    for text in String::from_utf8_lossy(data).split(['?', '\n']) {
        let (_, _, subscription) = fuzzing::texts(text);
        for name in [fuzzing::name(text), subscription].into_iter().flatten() {
            assert!(!name.contains(['/', '%', '?', '\0', '\n']) && name != "..", "{name:?} leads elsewhere");
        }
    }
}

#[derive(Debug, Arbitrary)]
struct Frame {
    is_text: bool,
    mask: [u8; 4],
    message: Vec<u8>,
}

/// Checks the frames of a WebSocket's client. Whole messages arrive as sent, whatever follows them.
pub fn websocket_messages(data: &[u8]) {
    assert!(fuzzing::websocket(data).iter().map(Vec::len).sum::<usize>() <= data.len());
    let Some((frames, damages)) = one::<(Vec<Frame>, Vec<Damage>)>(data) else { return };
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for frame in frames.iter().take(16) {
        let is_text = frame.is_text && str::from_utf8(&frame.message).is_ok();
        sent.extend(masked(if is_text { 1 } else { 2 }, frame.mask, &frame.message));
        expected.push(frame.message.clone());
    }
    assert_eq!(fuzzing::websocket(&sent), expected);
    let behind = [&sent[..], &damaged(&sent, &damages), &sequence::<u8>(data, 64)].concat();
    assert!(fuzzing::websocket(&behind).starts_with(&expected), "what came before is whole");
}

/// Makes a whole message in one frame (RFC 6455, 5.2).
fn masked(opcode: u8, mask: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match message.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend((long as u16).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(message.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
