//! TCP streams of a root's clients, their proxies and TURN servers.

use peersock_streams::{
    ConnectAnswer, FrameReader, FrameTooLong, MAX_DATAGRAM, NotTurn, Proxy, ProxySettings, TurnReader,
    UpgradeRequest,
};

/// Checks frames in a stream. Any cut yields the same frames, and they equal the stream's content.
pub fn frames(data: &[u8]) {
    let [cut, stream @ ..] = data else { return };
    let (whole, found) = read([stream]);
    let (pieces, found_in_pieces) = read(stream.chunks(usize::from(*cut).max(1)));
    assert_eq!(whole, pieces);
    assert_eq!(found, found_in_pieces);
    let written: Vec<u8> =
        found.iter().flat_map(|frame| [&(frame.len() as u16).to_be_bytes()[..], frame].concat()).collect();
    match whole {
        Ok(pending) => {
            assert!(pending <= 2 + MAX_DATAGRAM);
            assert_eq!(written, stream[..stream.len() - pending]);
        }
        Err(FrameTooLong(length)) => {
            assert!(length > MAX_DATAGRAM);
            assert!(stream[written.len()..].starts_with(&(length as u16).to_be_bytes()));
        }
    }
}

/// Reads the frames of a stream that arrives in these pieces. Returns the length of the rest and the frames.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Result<usize, FrameTooLong>, Vec<Vec<u8>>) {
    let (mut reader, mut found) = (FrameReader::default(), Vec::new());
    for piece in pieces {
        if let Err(error) = reader.read(piece, |frame| found.push(frame.to_vec())) {
            return (Err(error), found);
        }
    }
    (Ok(reader.pending()), found)
}

/// Maximum length of a TURN server's message: a header of 20 bytes and attributes.
const MAX_TURN: usize = 20 + 0xffff + 1;

/// Checks TURN messages in a stream. Any cut yields the same messages, they equal the stream's content, and
/// little is kept.
pub fn turn_frames(data: &[u8]) {
    let [cut, stream @ ..] = data else { return };
    let (whole, found) = read_turn([stream]);
    let (pieces, found_in_pieces) = read_turn(stream.chunks(usize::from(*cut).max(1)));
    assert_eq!(whole, pieces);
    // A wrong byte is detected on arrival, after all messages before it were found.
    assert_eq!(found, found_in_pieces);
    let found = found.concat();
    assert!(stream.starts_with(&found));
    if let Ok(pending) = whole {
        assert_eq!(found.len() + pending, stream.len());
        assert!(pending < MAX_TURN);
    }
}

/// Reads TURN messages, as [`read`] reads frames.
fn read_turn<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Result<usize, NotTurn>, Vec<Vec<u8>>) {
    let (mut reader, mut found) = (TurnReader::default(), Vec::new());
    for piece in pieces {
        if let Err(error) = reader.read(piece, |message| found.push(message.to_vec())) {
            return (Err(error), found);
        }
    }
    (Ok(reader.pending()), found)
}

/// Checks answers of proxies, HTTP requests, and the texts that name proxies. A complete message needs no
/// bytes after its end, and no prefix of it is complete.
pub fn proxy_answers(data: &[u8]) {
    ends_where_it_says(data, ConnectAnswer::parse, |answer| answer.length);
    ends_where_it_says(data, UpgradeRequest::parse, |request| request.length);
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(proxy) = text.parse::<Proxy>() {
        let shown: Proxy = proxy.to_string().parse().expect("what is shown is a proxy");
        assert_eq!(shown.to_string(), proxy.to_string());
    }
    let (proxy, exceptions) = text.split_once('\n').unwrap_or((text, ""));
    let settings = ProxySettings::from_variables(|name| match name {
        "https_proxy" => Some(proxy.to_owned()),
        "no_proxy" => Some(exceptions.to_owned()),
        _ => None,
    });
    if let Ok(settings) = settings {
        assert!(settings.proxy_for("127.0.0.1", 443).is_none());
        settings.proxy_for("root.example.org", 443);
    }
}

fn ends_where_it_says<T: PartialEq + std::fmt::Debug>(
    data: &[u8],
    parse: impl Fn(&[u8]) -> Result<Option<T>, String>,
    length: impl Fn(&T) -> usize,
) {
    if let Ok(Some(message)) = parse(data) {
        let length = length(&message);
        assert_eq!(parse(&data[..length]), Ok(Some(message)));
        for short in [length - 1, length / 2, 0] {
            assert_eq!(parse(&data[..short]), Ok(None), "after {short} of {length} bytes");
        }
    }
}
