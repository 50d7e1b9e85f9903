//! Messages of a proxy's clients, and the texts that name places and users.

use data_encoding::BASE64URL_NOPAD;
use peersock_proxy::{Credentials, Forward, Place, Target, Ticket};
use peersock_streams::socks::{Address, DatagramHeader, Greeting, Login, Reply, Request};

/// Length of the longest SOCKS message, a login.
const MAX_MESSAGE_BYTES: usize = 513;

/// Checks messages of SOCKS 5, of both sides. A complete message needs no bytes after its end, and no prefix
/// of it is complete. A written message reads as intended.
pub fn socks_messages(data: &[u8]) {
    ends_where_it_says(data, |data| Some(Greeting::parse(data).ok()??.length));
    ends_where_it_says(data, |data| Some(Login::parse(data).ok()??.length));
    ends_where_it_says(data, |data| Some(Request::parse(data).ok()??.length));
    ends_where_it_says(data, |data| Some(Reply::parse(data).ok()??.1));
    let Ok(header) = DatagramHeader::parse(data) else { return };
    assert!(header.length <= data.len());
    match header.address {
        Address::Ip(source) => {
            let written = DatagramHeader::emit(source);
            let again = DatagramHeader::parse(&written).expect("it was written so");
            assert_eq!((again.address, again.fragment), (header.address, 0));
        }
        Address::Name(name, port) => {
            let Ok(name) = str::from_utf8(name) else { return };
            let Some(written) = Request::emit_connect(name, port) else { return };
            let again = Request::parse(&written).expect("it was written so").expect("complete");
            assert!(again.address == header.address || matches!(again.address, Address::Ip(_)));
        }
    }
}

fn ends_where_it_says(data: &[u8], length: impl Fn(&[u8]) -> Option<usize>) {
    let Some(end) = length(data) else { return };
    assert!(end <= MAX_MESSAGE_BYTES && end <= data.len());
    assert_eq!(length(&data[..end]), Some(end));
    assert_eq!(length(&data[..end - 1]), None);
}

/// Checks texts of places, forwards, hosts and users. Each parsed text parses again from its written form.
pub fn forward_places(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (local, remote) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(place) = local.parse::<Place>() {
        assert_eq!(place.to_string().parse(), Ok(place));
    }
    if let Some(target) = Target::parse(local) {
        assert_eq!(Target::parse(&target.to_string()), Some(target));
    }
    if let Ok(forward) = Forward::parse(local, remote) {
        let text = forward.to_string();
        // A path may contain a space.
        let again =
            text.match_indices(' ').find_map(|(at, _)| Forward::parse(&text[..at], &text[at + 1..]).ok());
        assert!(again.is_some(), "{text}");
    }
    if let Ok(credentials) = Credentials::parse(text) {
        let line = text.lines().find(|line| !line.is_empty()).expect("a user");
        let (user, password) = line.split_once(':').expect("both");
        assert!(credentials.admit(user.as_bytes(), password.as_bytes()));
    }
}

/// Checks tickets: the text of one, or its content without the sum. Each parsed ticket has the same text
/// again.
pub fn tickets(data: &[u8]) {
    let parse = |text: &str| {
        let Ok(ticket) = text.parse::<Ticket>() else { return };
        assert_eq!(*ticket.to_text(), text.trim());
        assert!(text.trim().len() <= Ticket::MAX_LEN && ticket.network().is_secret());
    };
    if let Ok(text) = str::from_utf8(data) {
        parse(text);
    }
    parse(&format!("peersock://{}", BASE64URL_NOPAD.encode(&Ticket::with_sum(data))));
}
