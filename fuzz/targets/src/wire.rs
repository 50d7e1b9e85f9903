//! The overlay's messages: layouts, and hellos, which are the only messages sealed as a whole.

use arbitrary::Arbitrary;
use peersock_overlay::wire::{
    Announcement, Beacon, Candidates, Control, CookieReply, Data, Hello, Initiation, MessageType, ParseError,
    Response, StaleReply, UnknownSession,
};
use peersock_overlay::{DATA_HEADER, DiscoveryKey, Identity, NetworkId, SuiteSet, data_index};

use crate::input::{Damage, damaged, one};

/// Length of MAC1 and MAC2 behind a handshake's Noise message.
const MACS: usize = 32;

/// Checks every type of datagram. A parsed message is written back byte by byte and has the type of its first
/// byte.
pub fn wire(data: &[u8]) {
    let written = [
        (MessageType::Initiation, initiation(data)),
        (MessageType::Response, response(data)),
        (MessageType::CookieReply, cookie_reply(data)),
        (MessageType::Data, sealed_data(data)),
        (MessageType::Beacon, beacon(data)),
        (MessageType::UnknownSession, unknown_session(data)),
        (MessageType::StaleReply, stale_reply(data)),
        (MessageType::Announcement, announcement(data)),
    ];
    for (kind, bytes) in written {
        if let Some(bytes) = bytes {
            assert_eq!(MessageType::of(data), Some(kind));
            assert_eq!(bytes, data);
        }
    }
    assert_eq!(data_index(data), Data::parse(data).ok().map(|data| data.receiver));
    assert!(Hello::open(&discovery_key(80), data).is_err(), "no other holder has the key");
}

fn initiation(data: &[u8]) -> Option<Vec<u8>> {
    let message = Initiation::parse(data).ok()?;
    Some([&Initiation::header(message.sender), message.noise, &data[data.len() - MACS..]].concat())
}

fn response(data: &[u8]) -> Option<Vec<u8>> {
    let message = Response::parse(data).ok()?;
    let header = Response::header(message.suite, message.receiver, message.sender);
    Some([&header, message.noise, &data[data.len() - MACS..]].concat())
}

fn cookie_reply(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    CookieReply::parse(data).ok()?.emit(&mut out);
    Some(out)
}

fn stale_reply(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    StaleReply::parse(data).ok()?.emit(&mut out);
    Some(out)
}

fn sealed_data(data: &[u8]) -> Option<Vec<u8>> {
    let message = Data::parse(data).ok()?;
    let mut out = [&[0; DATA_HEADER], message.sealed].concat();
    Data::write_header(&mut out, message.receiver, message.counter);
    Some(out)
}

/// Writes an announcement back. Its padding is ignored, and written as zeros.
fn announcement(data: &[u8]) -> Option<Vec<u8>> {
    let announcement = Announcement::parse(data).ok()?;
    let mut out = Vec::new();
    announcement.emit(&mut out);
    assert_eq!(Announcement::parse(&out), Ok(announcement));
    assert_eq!(out[..66], data[..66]);
    data[66..].iter().all(|byte| *byte == 0).then_some(out)
}

/// Writes a beacon back. Beacons are written in order, but an unordered one keeps its tags too.
fn beacon(data: &[u8]) -> Option<Vec<u8>> {
    let beacon = Beacon::parse(data).ok()?;
    assert!(beacon.tags().iter().all(|tag| beacon.contains(tag)));
    let mut out = Vec::new();
    Beacon::emit(beacon.salt, beacon.tags(), |filler| assert!(filler.is_empty()), &mut out);
    let again = Beacon::parse(&out).expect("its own form");
    let mut tags = beacon.tags().to_vec();
    tags.sort_unstable();
    assert_eq!((again.salt, again.tags()), (beacon.salt, &tags[..]));
    beacon.tags().is_sorted().then_some(out)
}

/// Writes an answer back, which is the head of a data packet under another type.
fn unknown_session(data: &[u8]) -> Option<Vec<u8>> {
    let message = UnknownSession::parse(data).ok()?;
    let mut packet = [&[0; DATA_HEADER], &message.echo[..]].concat();
    Data::write_header(&mut packet, message.index, message.counter);
    let mut out = Vec::new();
    assert!(UnknownSession::answer(&packet, &mut out));
    Some(out)
}

/// Checks control messages. A parsed message parses again from its written form.
pub fn control(data: &[u8]) {
    if Candidates::is_one(data) {
        let Ok(message) = Candidates::parse(data) else { return };
        let mut out = Vec::new();
        message.emit(&mut out);
        // Impossible candidates are left out.
        assert!(out.len() <= data.len());
        assert_eq!(Candidates::parse(&out), Ok(message));
        return;
    }
    let Ok(message) = Control::parse(data) else { return };
    let mut out = Vec::new();
    message.emit(&mut out);
    assert_eq!(Control::parse(&out), Ok(message));
    assert!(out.len() <= data.len());
    match message {
        Control::Probe { .. } => assert_eq!(out.len(), data.len(), "its size is what it is for"),
        // One of the flags is known, and the padding is ignored.
        Control::Challenge { .. } => assert_eq!(out[..9], data[..9]),
        // The same applies to these flags, which may be missing.
        Control::Birthday { .. } => assert_eq!(out[..6], data[..6]),
        _ => assert_eq!(out, data[..out.len()]),
    }
}

#[derive(Debug, Arbitrary)]
struct Introduction {
    seed: u8,
    instance: u64,
    reply_wanted: bool,
    suites: u8,
    nonce: [u8; 24],
    echo: [u8; 24],
    damages: Vec<Damage>,
}

/// Checks hellos. They open as sealed, and not at all if altered or under another network's key.
pub fn hello(data: &[u8]) {
    let Some(input) = one::<Introduction>(data) else { return };
    let hello = Hello {
        identity: *Identity::from_seed(&[input.seed; 32]).public(),
        instance: input.instance,
        reply_wanted: input.reply_wanted,
        suites: SuiteSet::from_wire(input.suites),
        echo: input.echo,
    };
    let mut sealed = Vec::new();
    hello.seal(&discovery_key(80), input.nonce, &mut sealed);
    assert_eq!(sealed.len(), Hello::LEN);
    assert_eq!(Hello::open(&discovery_key(80), &sealed), Ok(hello));
    assert_eq!(Hello::open(&discovery_key(81), &sealed), Err(ParseError::Unauthentic));
    let altered = damaged(&sealed, &input.damages);
    if altered != sealed {
        assert!(Hello::open(&discovery_key(80), &altered).is_err());
    }
}

fn discovery_key(port: u16) -> DiscoveryKey {
    DiscoveryKey::new(NetworkId::ad_hoc(port..=port).expect("a range"), None, None)
}
