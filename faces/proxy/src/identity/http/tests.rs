use proptest::prelude::*;

use super::*;

const SET: &str = "Peersock-Member: beta\r\n";

fn requests() -> Requests {
    Requests::new(&[("Peersock-Member", "beta".to_owned())])
}

/// Passes a text in pieces of this length.
fn pass(text: &str, piece: usize) -> Result<String, Refused> {
    let (mut requests, mut out) = (requests(), Vec::new());
    for piece in text.as_bytes().chunks(piece) {
        requests.pass(piece, &mut out)?;
    }
    Ok(String::from_utf8(out).expect("text"))
}

#[test]
fn every_request_of_a_connection_gets_the_fields() {
    let sent = "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\r\n\
        POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nPeersock-Member: x\r\n\
        \r\nGET /d HTTP/1.0\r\n\r\n";
    let wanted = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{SET}\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n{SET}\r\nabc\
         POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{SET}\r\n3\r\nabc\r\n0\r\n\r\n\
         GET /d HTTP/1.0\r\n{SET}\r\n"
    );
    for piece in [1, 2, 3, 7, 1000] {
        assert_eq!(pass(sent, piece), Ok(wanted.clone()), "{piece}");
    }
}

#[test]
fn what_the_client_says_of_itself_is_removed_in_every_spelling() {
    for name in
        ["Peersock-Member", "peersock-tags", "PEERSOCK_MEMBER", "Peersock_Tags", "peersock.node", "Peersock"]
    {
        let sent = format!("GET / HTTP/1.1\r\n{name}: x\r\nA: b\r\n{name}: y\r\n\r\n");
        assert_eq!(pass(&sent, 5), Ok(format!("GET / HTTP/1.1\r\nA: b\r\n{SET}\r\n")), "{name}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for fields in [
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length:",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer_Encoding: chunked",
        "Content_Length: 3",
        "A: b\r\n Peersock-Member: x",
        "A: b\r\n\tPeersock-Member: x",
        "Peersock-Member : x",
        "A: b\nPeersock-Member: x",
        "A: b\rPeersock-Member: x",
        "A: b\0",
        "Connection: close, Peersock-Member",
    ] {
        let sent = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        assert_eq!(pass(&sent, 1000), Err(Refused), "{fields}");
    }
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["x\r\n", "+1\r\n", "1\nab", "1\r\nabc", "1 \r\na\r\n", "\r\n", "0x1\r\n", "1\r\na\n\r"] {
        assert_eq!(pass(&format!("{chunked}{body}"), 1000), Err(Refused), "{body:?}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(pass(old, 1000), Err(Refused));
    let long = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD));
    assert_eq!(pass(&long, 1000), Err(Refused));
}

#[test]
fn another_protocol_passes_untouched_once_the_service_has_agreed() {
    let upgrade = "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let forged = "GET /b HTTP/1.1\r\nPeersock-Member: x\r\n\r\n";
    for (answers, is_agreed) in [
        (&["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 10", "1 S\r\n\r\n"][..], true),
        (&["HTTP/1.1 200 OK\r\n\r\n"], false),
    ] {
        let (mut requests, mut out) = (requests(), Vec::new());
        requests.pass(format!("{upgrade}{forged}").as_bytes(), &mut out).expect("a request");
        assert!(requests.waits_for_answer());
        assert!(!String::from_utf8_lossy(&out).contains("/b"), "nothing passes before the answer");
        out.clear();
        let freed = answers.iter().map(|answer| requests.answered(answer.as_bytes()));
        assert_eq!(freed.last(), Some(Ok(true)));
        requests.pass(b"", &mut out).expect("certain");
        let wanted = format!("GET /b HTTP/1.1\r\n{SET}\r\n");
        assert_eq!(String::from_utf8_lossy(&out), if is_agreed { forged } else { &wanted });
    }
}

#[test]
fn only_a_first_request_may_become_a_websocket() {
    let sent = "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    assert!(!pass(sent, 9).expect("requests").contains("websocket"));
    for other in ["h2c", "websocket, h2c", "TLS/1.0"] {
        let sent = format!("GET / HTTP/1.1\r\nUpgrade: {other}\r\nHost: a\r\n\r\n");
        assert_eq!(pass(&sent, 9), Ok(format!("GET / HTTP/1.1\r\nHost: a\r\n{SET}\r\n")), "{other}");
    }
    let posted = "POST / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na";
    assert!(!pass(posted, 9).expect("a request").contains("websocket"));
    for sent in ["CONNECT a:1 HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        assert_eq!(pass(sent, 9), Err(Refused), "{sent}");
    }
}

/// Reads requests as a naive service does: lines, a length, or chunks. Returns the field lines of all.
fn naive(mut text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        text = rest;
        let fields: Vec<_> = head.split("\r\n").skip(1).map(str::to_ascii_lowercase).collect();
        if fields.iter().any(|line| line == "transfer-encoding: chunked") {
            text = text.split_once("0\r\n\r\n").map_or("", |(_, rest)| rest);
        } else if let Some(size) = fields.iter().find_map(|line| line.strip_prefix("content-length: ")) {
            text = text.get(size.parse().unwrap_or(0)..).unwrap_or("");
        }
        lines.extend(fields);
    }
    lines
}

proptest! {
    #[test]
    fn no_service_sees_a_forged_field(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\n", "\r\n", "\n", "\r", " ", "3\r\n", "0\r\n",
                "abc", "Content-Length: 3\r\n", "Content-Length: 30\r\n", "A: b\r\n",
                "Transfer-Encoding: chunked\r\n", "Peersock-Member: forged\r\n",
                "peersock_member: forged\r\n", "\r\n\r\n", "Upgrade: websocket\r\n",
            ]),
            0..24,
        ),
        piece in 1usize..40,
    ) {
        let (mut requests, mut out) = (requests(), Vec::new());
        let text = parts.concat();
        let mut refused = false;
        for piece in text.as_bytes().chunks(piece) {
            refused = refused || requests.pass(piece, &mut out).is_err();
        }
        let (mut again, mut whole) = (self::requests(), Vec::new());
        let is_refused = again.pass(text.as_bytes(), &mut whole).is_err();
        prop_assert_eq!((refused, &out), (is_refused, &whole), "pieces make no difference");
        let seen = naive(&String::from_utf8_lossy(&out));
        let forged = seen.iter().any(|line| line.starts_with("peersock") && line.contains("forged"));
        prop_assert!(!forged, "{:?} became {:?}", text, String::from_utf8_lossy(&out));
    }
}
