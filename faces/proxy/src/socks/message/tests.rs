use proptest::prelude::*;

use super::*;

#[test]
fn requests_are_understood_or_refused() {
    let parse = |bytes: &[u8]| Request::parse(bytes).map(|found| found.map(|it| it.target.to_string()));
    assert_eq!(parse(b"\x05\x01\0\x01\x7f\0\0\x01\0\x50"), Ok(Some("127.0.0.1:80".into())));
    assert_eq!(parse(b"\x05\x01\0\x03\x09127.0.0.1\0\x50"), Ok(Some("127.0.0.1:80".into())));
    let mapped = b"\x05\x01\0\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01\0\x50";
    assert_eq!(parse(mapped), Ok(Some("127.0.0.1:80".into())));
    for (bytes, error) in [
        (&b"\x04"[..], SocksError::Version(4)),
        (b"\x05\x01\0\x02", SocksError::AddressType(2)),
        (b"\x05\x01\0\x03\0\0\0", SocksError::Name),
        (b"\x05\x01\0\x03\x02\xff\xff\0\0", SocksError::Name),
        (b"\x05\x01\0\x03\x02a\0\0\0", SocksError::Name),
    ] {
        assert_eq!(parse(bytes), Err(error), "{bytes:?}");
    }
    let unknown = Request::parse(b"\x05\x09\0\x01\x7f\0\0\x01\0\x50").unwrap().unwrap();
    assert_eq!(unknown.command, Command::Unknown(9));
}

#[test]
fn replies_have_the_form_of_the_standard() {
    let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
    assert_eq!(Reply::Succeeded.emit(address), b"\x05\0\0\x01\xc0\0\x02\x01\0\x50");
    assert_eq!(Reply::AddressTypeNotSupported.emit_refusal(), b"\x05\x08\0\x01\0\0\0\0\0\0");
    let v6 = Reply::Refused.emit("[fd00::1]:258".parse().unwrap());
    assert_eq!((v6.len(), &v6[..5], &v6[20..]), (22, &b"\x05\x05\0\x04\xfd"[..], &b"\x01\x02"[..]));
}

#[test]
fn headers_of_datagrams_are_complete_or_refused() {
    let source: SocketAddr = "[fd00::1]:53".parse().unwrap();
    let header = DatagramHeader::emit(source);
    let parsed = DatagramHeader::parse(&header).unwrap();
    assert_eq!((parsed.target, parsed.fragment, parsed.length), (source.into(), 0, header.len()));
    for length in 0..header.len() {
        assert_eq!(DatagramHeader::parse(&header[..length]), Err(SocksError::Short));
    }
    assert_eq!(DatagramHeader::parse(b"\0\0\x07\x01\x7f\0\0\x01\0\x50").unwrap().fragment, 7);
}

proptest! {
    /// For any bytes, a complete message is complete without later bytes, and not with fewer.
    #[test]
    fn messages_end_where_they_say(bytes in proptest::collection::vec(any::<u8>(), 0..600), first in 0u8..6) {
        let mut bytes = bytes;
        bytes.insert(0, first);
        check(&bytes, |bytes| Greeting::parse(bytes).ok().flatten().map(|it| it.length));
        check(&bytes, |bytes| Login::parse(bytes).ok().flatten().map(|it| it.length));
        check(&bytes, |bytes| Request::parse(bytes).ok().flatten().map(|it| it.length));
        let _ = DatagramHeader::parse(&bytes);
    }
}

fn check(bytes: &[u8], length: impl Fn(&[u8]) -> Option<usize>) {
    if let Some(end) = length(bytes) {
        assert!(end <= 513 && length(&bytes[..end]) == Some(end));
        assert!((0..end).all(|cut| length(&bytes[..cut]).is_none()));
    }
}
