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
fn refusals_have_the_length_that_they_say() {
    for answer in [BAD_REQUEST, REQUEST_TIMEOUT] {
        let text = str::from_utf8(answer).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
    }
}

#[test]
fn every_request_of_a_connection_gets_the_fields() {
    let sent = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n\r\n\
        HEAD /b HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\nGET /d HTTP/1.0\r\n\r\n";
    let wanted = format!(
        "GET / HTTP/1.1\r\n{SET}Host: a\r\nConnection: keep-alive\r\n\r\n\
         HEAD /b HTTP/1.1\r\n{SET}Content-Length: 0\r\nConnection: close\r\n\r\n\
         GET /d HTTP/1.0\r\n{SET}\r\n"
    );
    for piece in [1, 2, 3, 7, 1000] {
        assert_eq!(pass(sent, piece), Ok(wanted.clone()), "{piece}");
    }
}

#[test]
fn a_request_with_a_body_is_the_last_one() {
    let close = format!("{SET}Connection: close\r\n");
    for (sent, wanted) in [
        ("Content-Length: 3\r\n\r\nabc", "Content-Length: 3\r\n\r\nabc"),
        // Some services compare the whole value of the first field.
        (
            "Connection: keep-alive\r\nExpect: 100-continue\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\na",
            "Expect: 100-continue\r\nContent-Length: 1\r\n\r\na",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n00\r\nPeersock-Member: x\r\nA: b\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        for version in if sent.contains("chunked") { &["1.1"][..] } else { &["1.1", "1.0"] } {
            let sent = format!("GET / HTTP/1.1\r\n\r\nPOST /a HTTP/{version}\r\n{sent}");
            let wanted = format!("GET / HTTP/1.1\r\n{SET}\r\nPOST /a HTTP/{version}\r\n{close}{wanted}");
            for (piece, rest) in [(1, ""), (3, "\r\n"), (1000, "GET /b HTTP/1.1\r\n\r\n"), (7, "\r\nx")] {
                let (mut requests, mut out) = (requests(), Vec::new());
                for piece in format!("{sent}{rest}").as_bytes().chunks(piece) {
                    requests.pass(piece, &mut out).expect("certain");
                }
                assert_eq!(String::from_utf8_lossy(&out), wanted, "{rest:?}");
                // An empty line is no request.
                assert_eq!(requests.has_ended(), rest.trim() != "", "{rest:?}");
            }
        }
    }
}

#[test]
fn each_byte_of_a_head_is_looked_at_once() {
    for begin in [
        "",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    ] {
        let (mut requests, mut out) = (requests(), Vec::new());
        requests.pass(begin.as_bytes(), &mut out).expect("a request");
        for count in 1..1000 {
            requests.pass(b"1", &mut out).expect("a part");
            assert_eq!((requests.searched, requests.pending.len()), (count, count), "{begin:?}");
        }
    }
}

#[test]
fn a_later_head_that_is_refused_ends_the_requests() {
    for later in ["BAD\n", "GET\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n", "GET /b HTTP/1.1\r\nA : b\r\n\r\n"]
    {
        for piece in [1, 1000] {
            let (mut requests, mut out) = (requests(), Vec::new());
            let text = format!("GET / HTTP/1.1\r\n\r\n{later}GET /c HTTP/1.1\r\n\r\n");
            for piece in text.as_bytes().chunks(piece) {
                requests.pass(piece, &mut out).expect("no refusal");
            }
            assert!(requests.has_ended());
            assert_eq!(String::from_utf8_lossy(&out), format!("GET / HTTP/1.1\r\n{SET}\r\n"), "{later}");
        }
    }
}

#[test]
fn an_open_head_is_told_from_the_next_one() {
    let (mut requests, mut out) = (requests(), Vec::new());
    for (bytes, open) in [
        ("", None),
        ("\r\n", None),
        ("GET / HT", Some(0)),
        ("TP/1.1\r\n\r\nGET", Some(1)),
        (" / HTTP/1.1\r\n\r\n", None),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", None),
        ("a\r", None),
    ] {
        requests.pass(bytes.as_bytes(), &mut out).expect("certain");
        assert_eq!(requests.open_head(), open, "{bytes:?}");
    }
}

#[test]
fn what_the_client_says_of_itself_is_removed_in_every_spelling() {
    for name in
        ["Peersock-Member", "peersock-tags", "PEERSOCK_MEMBER", "Peersock_Tags", "peersock.node", "Peersock"]
    {
        let sent = format!("GET / HTTP/1.1\r\n{name}: x\r\nA: b\r\n{name}: y\r\n\r\n");
        assert_eq!(pass(&sent, 5), Ok(format!("GET / HTTP/1.1\r\n{SET}A: b\r\n\r\n")), "{name}");
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
    for body in [
        "x\r\n",
        "+1\r\n",
        "1\nab",
        "1\r\nabc",
        "1 \r\na\r\n",
        "\r\n",
        "0x1\r\n",
        "1\r\na\n\r",
        "fffffffffffffffff\r\n",
        "-1\r\n",
        "1;a\nb\r\n",
        "0\r\nA: b\n",
        "0\r\n\rA",
    ] {
        assert_eq!(pass(&format!("{chunked}{body}"), 1000), Err(Refused), "{body:?}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(pass(old, 1000), Err(Refused));
    let long = "a".repeat(MAX_HEAD);
    assert_eq!(pass(&format!("GET / HTTP/1.1\r\nA: {long}"), 1000), Err(Refused));
    assert_eq!(pass(&format!("{chunked}1;{long}"), 1000), Err(Refused));
    assert_eq!(pass(&format!("{chunked}0\r\n{}", "A: b\r\n".repeat(MAX_HEAD / 6 + 1)), 1000), Err(Refused));
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
        assert_eq!(pass(&sent, 9), Ok(format!("GET / HTTP/1.1\r\n{SET}Host: a\r\n\r\n")), "{other}");
    }
    let posted = "POST / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na";
    assert!(!pass(posted, 9).expect("a request").contains("websocket"));
    for sent in ["CONNECT a:1 HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        assert_eq!(pass(sent, 9), Err(Refused), "{sent}");
    }
}

/// Reads requests as a naive service does: lines, a length, or chunks. A careless one leaves bodies unread,
/// and only ends the connection if it is told so. Returns the field lines of all.
fn naive(mut text: &str, is_careless: bool) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        text = rest;
        let fields: Vec<_> = head.split("\r\n").skip(1).map(str::to_ascii_lowercase).collect();
        let is_last = fields.iter().any(|line| line == "connection: close");
        if is_careless {
            // Nothing of a body is skipped.
        } else if fields.iter().any(|line| line == "transfer-encoding: chunked") {
            text = text.split_once("0\r\n\r\n").map_or("", |(_, rest)| rest);
        } else if let Some(size) = fields.iter().find_map(|line| line.strip_prefix("content-length: ")) {
            text = text.get(size.parse().unwrap_or(0)..).unwrap_or("");
        }
        lines.extend(fields);
        if is_careless && is_last {
            break;
        }
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
                "Connection: keep-alive\r\n", "Expect: 100-continue\r\n",
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
        let out = String::from_utf8_lossy(&out);
        for is_careless in [false, true] {
            let seen = naive(&out, is_careless);
            let forged = seen.iter().any(|line| line.starts_with("peersock") && line.contains("forged"));
            prop_assert!(!forged, "{:?} became {:?}", text, out);
        }
    }
}
