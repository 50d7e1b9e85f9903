//! Requests that are invalid, too large, or too slow.

use std::io::ErrorKind;
use std::time::Duration;

use peersock_rest::Token;
use proptest::prelude::*;
use serde_json::json;

use crate::client::Client;
use crate::scene::{Scene, TEST_TIMEOUT, TOKEN};

#[test]
fn what_makes_no_sense_is_answered() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    for (method, path, status, code) in [
        ("GET", "/", 404, "no-route"),
        ("GET", "/v1", 404, "no-route"),
        ("GET", "/v1/nothing", 404, "no-route"),
        ("GET", "/v1//pipes", 404, "no-route"),
        ("GET", "//v1/pipes", 404, "no-route"),
        ("GET", "/v1/../version", 404, "no-route"),
        ("GET", "/v1/%2e%2e/version", 404, "no-route"),
        ("DELETE", "/v1/version", 405, "no-method"),
        ("PATCH", "/v1/pipes", 405, "no-method"),
        ("TRACE", "/v1/version", 405, "no-method"),
        ("GET", "/v1/version?x=1", 400, "bad-request"),
        ("GET", "/v1/pipes/none", 404, "no-pipe"),
        ("GET", "/v1/pipes/%ff", 400, "bad-request"),
        ("GET", "/v1/pipes/a%2fb", 404, "no-pipe"),
        ("GET", "/v1/pipes/one%00", 404, "no-pipe"),
        ("GET", "/v1/pipes/%", 404, "no-pipe"),
        ("GET", "/v1/pipes/one/messages?timeout=-1", 400, "bad-request"),
        ("GET", "/v1/pipes/one/messages?timeout=NaN", 400, "bad-request"),
        ("GET", "/v1/pipes/one/messages?timeout=1e9", 400, "bad-request"),
        ("GET", "/v1/pipes/one/messages?timeout=1&timeout=2", 400, "bad-request"),
        ("GET", "/v1/pipes/one/messages?keep=perhaps", 400, "bad-request"),
        ("GET", "/v1/pipes/one/messages?subscription=..", 400, "bad-request"),
        ("GET", "/v1/pipes/one/messages?subscription=none", 404, "no-subscription"),
        ("DELETE", "/v1/pipes/one/messages/x", 400, "bad-request"),
        ("DELETE", "/v1/pipes/one/messages/99999999999999999999", 400, "bad-request"),
        ("POST", "/v1/pipes/one/messages?to=there:1", 409, "wrong-protocol"),
        ("POST", "/v1/pipes/one/messages?to=x", 400, "bad-request"),
        ("DELETE", "/v1/listeners/none", 404, "no-listener"),
    ] {
        let reply = scene.ask(method, path, b"");
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{method} {path}: {}",
            reply.text()
        );
        assert_eq!(reply.field("content-type"), Some("application/problem+json"), "{method} {path}");
        assert!(reply.json()["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{method} {path}");
    }
    for (body, field) in [
        ("", "Content-Type: application/json"),
        ("{", "Content-Type: application/json"),
        ("[]", "Content-Type: application/json"),
        (r#"{"name": "x"}"#, "Content-Type: application/json"),
        (r#"{"name": "x", "to": "self", "udp_port": 1}"#, "Content-Type: application/json"),
        (r#"{"name": "x", "to": "self", "more": 1}"#, "Content-Type: application/json"),
        (r#"{"name": "a/b", "to": "self"}"#, "Content-Type: application/json"),
        (r#"{"name": "x", "to": "nowhere"}"#, "Content-Type: application/json"),
        (r#"{"name": "x", "udp_port": 65536}"#, "Content-Type: application/json"),
        (r#"{"name": "x", "to": "self"}"#, "Content-Type: text/plain"),
    ] {
        let reply = scene.client().ask("POST", "/v1/pipes", &[field], body.as_bytes());
        assert_eq!((reply.status, reply.code().as_str()), (400, "bad-request"), "{body}: {}", reply.text());
    }
    let taken = scene.ask_json("POST", "/v1/pipes", &json!({"name": "one", "to": "self"}));
    assert_eq!((taken.status, taken.code().as_str()), (409, "name-taken"));
    // HEAD takes nothing.
    let mut client = scene.client();
    let fields = [format!("Host: {}", scene.at), format!("Authorization: Bearer {TOKEN}")];
    client.begin("HEAD", "/v1/version", &[&fields[0], &fields[1]], Some(0));
    assert_eq!(client.head().status, 405);
}

#[test]
fn what_is_no_http_is_answered_and_ends_the_connection() {
    let scene = Scene::new();
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(200));
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
    for (request, statuses) in [
        ("NONSENSE\r\n\r\n", &[400][..]),
        ("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", &[421]),
        ("GET /\x01 HTTP/1.1\r\n\r\n", &[400]),
        ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", &[400]),
        (&many, &[431]),
        (&long, &[431]),
        (&path, &[414, 431]),
    ] {
        let mut client = scene.client();
        client.write(request.as_bytes());
        let reply = client.head();
        assert!(statuses.contains(&reply.status), "{request:.60}: {}", reply.status);
    }
}

#[test]
fn bodies_are_bounded() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    let fields = [format!("Host: {}", scene.at), format!("Authorization: Bearer {TOKEN}")];
    // An announced large body is not read; an unannounced one is read up to the limit.
    let mut announced = scene.client();
    announced.begin("POST", "/v1/pipes/one/messages", &[&fields[0], &fields[1]], Some((1 << 20) + 1));
    let reply = announced.reply();
    assert_eq!((reply.status, reply.code().as_str()), (413, "too-large"));
    let mut chunked = scene.client();
    chunked.begin("POST", "/v1/pipes/one/messages", &[&fields[0], &fields[1]], None);
    for _ in 0..17 {
        chunked.chunk(&[b'x'; 1 << 16]);
    }
    assert_eq!(chunked.reply().status, 413);
    let pipe = scene.ask("GET", "/v1/pipes/one", b"").json();
    assert_eq!(pipe["sent_bytes"], 0, "of a message that is too large nothing is sent");
    assert_eq!(scene.ask("POST", "/v1/pipes/one/messages", &vec![b'x'; 1 << 20]).status, 200);
    let pattern = json!({"name": "x", "pattern": "x".repeat(2000)});
    assert_eq!(scene.ask_json("POST", "/v1/pipes/one/subscriptions", &pattern).status, 400);
}

#[test]
fn there_are_only_so_many_connections() {
    let scene = Scene::with(|settings| settings.most = 2);
    let mut held: Vec<_> = (0..2).map(|_| scene.client()).collect();
    for client in &mut held {
        assert_eq!(client.ask_bare("GET", "/v1/version", &[], b"").status, 200);
    }
    let mut third = scene.client();
    third.write(format!("GET /v1/version HTTP/1.1\r\nHost: {}\r\n\r\n", scene.at).as_bytes());
    let mut answer = Vec::new();
    let read = std::io::Read::read_to_end(&mut third.stream, &mut answer);
    assert!(read.is_err() || answer.is_empty(), "it is refused");
    held.clear();
    let begin = std::time::Instant::now();
    loop {
        let mut client = scene.client();
        client.write(format!("GET /v1/version HTTP/1.1\r\nHost: {}\r\n\r\n", scene.at).as_bytes());
        let mut first = [0];
        if std::io::Read::read(&mut client.stream, &mut first).is_ok_and(|count| count == 1) {
            return;
        }
        assert!(begin.elapsed() < TEST_TIMEOUT, "there is no room again");
    }
}

#[test]
fn who_has_no_token_keeps_out_nobody_who_has_it() {
    let most = 16;
    let scene = Scene::with(|settings| {
        settings.token = Some(Token::parse(TOKEN).expect("a token"));
        settings.most = most;
    });
    let mut user = scene.client();
    assert_eq!(user.ask("GET", "/v1/version", &[], b"").status, 200);
    let mut held = Vec::new();
    for turn in 0..4 * most {
        let mut client = scene.client();
        match turn % 4 {
            0 => {}
            1 => client.write(b"GET /v1/version HTT"),
            2 => client.begin("POST", "/v1/pipes", &["Host: x"], Some(100_000)),
            _ => assert_eq!(client.ask_bare("GET", "/v1/version", &[], b"").status, 401),
        }
        held.push(client);
        // A new client with the token is served, and so is an earlier one.
        if turn % most == most - 1 {
            assert_eq!(scene.ask("GET", "/v1/version", b"").status, 200);
            assert_eq!(user.ask("GET", "/v1/version", &[], b"").status, 200);
            let mut local = Client::connect_path(&scene.folder.path().join("socket"));
            assert_eq!(local.ask_bare("GET", "/v1/version", &[], b"").status, 200);
        }
    }
    // Clients that have made room are closed, and at most as many are open as there are places.
    let closed = held.iter_mut().filter_map(|client| {
        client.stream.get_mut().set_patience(Duration::from_millis(1));
        let mut rest = Vec::new();
        let read = std::io::Read::read_to_end(&mut client.stream, &mut rest);
        (!read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)).then_some(())
    });
    assert!(closed.count() >= 3 * most);
}

#[test]
fn who_shows_no_token_is_not_waited_for() {
    let scene = Scene::new();
    let mut silent = scene.client();
    let mut refused = scene.client();
    assert_eq!(refused.ask_bare("GET", "/v1/version", &[], b"").status, 401);
    let mut user = scene.client();
    assert_eq!(user.ask("GET", "/v1/version", &[], b"").status, 200);
    for client in [&mut silent, &mut refused] {
        // Its end or a reset, before the test's patience ends.
        let read = std::io::Read::read(&mut client.stream, &mut [0]);
        assert!(!read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    }
    assert_eq!(user.ask("GET", "/v1/version", &[], b"").status, 200, "it has shown who it is");
}

#[test]
fn no_path_or_body_is_too_strange() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    // Without a pipe of that name no request waits.
    let part = "(v1|pipes|messages|recv|send|sub|open|name|msg_p|%2[eEfF]|%[0-9a-f]{0,2}|[a-z.?=&;#]{0,4})";
    let config = ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() };
    proptest!(config, |(parts in prop::collection::vec(part, 0..7), body in ".{0,40}")| {
        let path = format!("/{}", parts.join("/"));
        // Each request is answered, and the connection can be used again or is closed; the server continues.
        let reply = scene.ask("GET", &path, body.as_bytes());
        prop_assert!(reply.status < 500, "{path}: {}", reply.status);
    });
    assert_eq!(scene.ask("GET", "/v1/version", b"").status, 200);
}
