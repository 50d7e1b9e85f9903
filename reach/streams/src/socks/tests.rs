use proptest::prelude::*;

use super::*;

#[test]
fn requests_are_understood_or_refused() {
    let parse = |bytes: &'static [u8]| Request::parse(bytes).map(|found| found.map(|it| it.address));
    let local = Address::Ip(([127, 0, 0, 1], 80).into());
    assert_eq!(parse(b"\x05\x01\0\x01\x7f\0\0\x01\0\x50"), Ok(Some(local)));
    assert_eq!(parse(b"\x05\x01\0\x03\x02\xff\0\0\x50"), Ok(Some(Address::Name(b"\xff\0", 80))));
    let mapped = b"\x05\x01\0\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01\0\x50";
    assert_eq!(parse(mapped), Ok(Some(local)));
    assert_eq!(parse(b"\x04"), Err(SocksError::Version(4)));
    assert_eq!(parse(b"\x05\x01\0\x02"), Err(SocksError::AddressType(2)));
    let unknown = Request::parse(b"\x05\x09\0\x01\x7f\0\0\x01\0\x50").unwrap().unwrap();
    assert_eq!(unknown.command, Command::Unknown(9));
}

#[test]
fn requests_have_addresses_as_such() {
    assert_eq!(Request::emit_connect("192.0.2.1", 80), Some(vec![5, 1, 0, 1, 192, 0, 2, 1, 0, 80]));
    assert_eq!(Request::emit_connect("::1", 80).map(|request| (request[3], request.len())), Some((4, 22)));
    assert_eq!(Request::emit_connect("a.b", 443), Some(b"\x05\x01\0\x03\x03a.b\x01\xbb".to_vec()));
    assert_eq!(Request::emit_connect("", 80), None);
    assert_eq!(Request::emit_connect(&"a".repeat(256), 80), None);
}

#[test]
fn replies_have_the_form_of_the_standard() {
    let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
    assert_eq!(Reply::SUCCEEDED.emit(address), b"\x05\0\0\x01\xc0\0\x02\x01\0\x50");
    assert_eq!(Reply::ADDRESS_TYPE_NOT_SUPPORTED.emit_refusal(), b"\x05\x08\0\x01\0\0\0\0\0\0");
    let v6 = Reply::REFUSED.emit("[fd00::1]:258".parse().unwrap());
    assert_eq!((v6.len(), &v6[..5], &v6[20..]), (22, &b"\x05\x05\0\x04\xfd"[..], &b"\x01\x02"[..]));
    assert_eq!(Reply::parse(&v6[..2]), Ok(Some((Reply::REFUSED, 2))));
}

#[test]
fn headers_of_datagrams_are_complete_or_refused() {
    let source: SocketAddr = "[fd00::1]:53".parse().unwrap();
    let header = DatagramHeader::emit(source);
    let parsed = DatagramHeader { fragment: 0, address: Address::Ip(source), length: header.len() };
    assert_eq!(DatagramHeader::parse(&header), Ok(parsed));
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
        check(&bytes, |bytes| Reply::parse(bytes).ok().flatten().map(|it| it.1));
        let _ = DatagramHeader::parse(&bytes);
    }

    #[test]
    fn each_side_reads_the_messages_of_the_other(text in ".{0,90}", ip: IpAddr, port: u16) {
        if let Some(message) = Login::emit(&text, "pw") {
            let login = Login { user: text.as_bytes(), password: b"pw", length: message.len() };
            prop_assert_eq!(Login::parse(&message), Ok(Some(login)));
        }
        let place = Address::Ip((ip.to_canonical(), port).into());
        for (host, address) in [(ip.to_string(), place), (text.clone(), Address::Name(text.as_bytes(), port))] {
            let Some(message) = Request::emit_connect(&host, port) else { continue };
            let request = Request { command: Command::Connect, address, length: message.len() };
            prop_assert_eq!(Request::parse(&message), Ok(Some(request)));
        }
        let message = Reply::SUCCEEDED.emit((ip, port).into());
        prop_assert_eq!(Reply::parse(&message), Ok(Some((Reply::SUCCEEDED, message.len()))));
    }
}

fn check(bytes: &[u8], length: impl Fn(&[u8]) -> Option<usize>) {
    if let Some(end) = length(bytes) {
        assert!(end <= 513 && length(&bytes[..end]) == Some(end));
        assert!((0..end).all(|cut| length(&bytes[..cut]).is_none()));
    }
}
