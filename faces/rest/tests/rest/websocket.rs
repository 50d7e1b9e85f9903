//! A pipe as a WebSocket.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use crate::scene::{ORIGIN, Scene, TEST_TIMEOUT, TOKEN, large};

fn request(scene: &Scene, name: &str, query: &str) -> Request {
    let url = format!("ws://{}/v1/pipes/{name}/websocket{query}", scene.at);
    url.into_client_request().expect("a URL")
}

fn open(scene: &Scene, request: Request) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(scene.at).expect("it listens");
    stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("some time");
    client(request, stream).expect("it is accepted").0
}

fn with_token(scene: &Scene, name: &str) -> WebSocket<TcpStream> {
    open(scene, request(scene, name, &format!("?token={TOKEN}")))
}

#[test]
fn each_message_is_one() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    there.write_all(b"early").expect("room");
    let mut socket = with_token(&scene, "one");
    assert_eq!(socket.read().expect("a message"), Message::Binary(b"early".as_slice().into()));
    socket.send(Message::Text("text".into())).expect("room");
    socket.send(Message::Binary(large(1 << 20).into())).expect("room");
    let mut received = vec![0; 4 + (1 << 20)];
    there.read_exact(&mut received).expect("it has come");
    assert!(received == [b"text".as_slice(), &large(1 << 20)].concat());
    there.write_all(&large(1 << 20)).expect("room");
    let mut back = Vec::new();
    while back.len() < 1 << 20 {
        back.extend(socket.read().expect("a message").into_data());
    }
    assert!(back == large(1 << 20));
    // The pipe stays when the client has gone, and its next client gets later data.
    socket.close(None).expect("it is open");
    while socket.read().is_ok() {}
    there.write_all(b"later").expect("room");
    let mut next = with_token(&scene, "one");
    assert_eq!(next.read().expect("a message"), Message::Binary(b"later".as_slice().into()));
    // The end of the pipe is reported.
    drop(there);
    let Message::Close(Some(frame)) = next.read().expect("a message") else { panic!("no reason") };
    assert_eq!(frame.code, CloseCode::Normal);
}

#[test]
fn much_goes_both_ways_at_once() {
    let scene = Scene::new();
    let opened = scene.ask_json("POST", "/v1/pipes", &json!({"name": "echo", "to": "self"}));
    assert_eq!(opened.status, 201, "{opened:?}");
    // Everything is written before anything is read: the server must receive and send at once, or both ends
    // block.
    let url = request(&scene, "echo", &format!("?token={TOKEN}"));
    let stream = TcpStream::connect(scene.at).expect("it listens");
    stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("some time");
    let reading = stream.try_clone().expect("another handle");
    let (mut socket, _) = client(url, stream).expect("it is accepted");
    let count = 200;
    let receiving = std::thread::spawn(move || {
        use tokio_tungstenite::tungstenite::protocol::Role;
        let mut socket = WebSocket::from_raw_socket(reading, Role::Client, None);
        let mut received = Vec::new();
        while received.len() < count << 16 {
            received.extend(socket.read().expect("a message").into_data());
        }
        received
    });
    for _ in 0..count {
        socket.send(Message::Binary(large(1 << 16).into())).expect("room");
    }
    let received = receiving.join().expect("no panic");
    assert!(received.chunks(1 << 16).all(|piece| piece == large(1 << 16)));
}

#[test]
fn what_a_client_sends_before_it_hears_of_the_end_still_goes_there() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let mut socket = with_token(&scene, "one");
    there.shutdown(Shutdown::Write).expect("it is open");
    // The frame is there, and the client has not read it.
    assert_eq!(socket.get_ref().peek(&mut [0]).expect("it comes"), 1);
    socket.send(Message::Binary(b"late".as_slice().into())).expect("room");
    let mut late = [0; 4];
    there.read_exact(&mut late).expect("it has come");
    assert_eq!(&late, b"late");
    let Message::Close(Some(frame)) = socket.read().expect("a message") else { panic!("no reason") };
    assert_eq!(frame.code, CloseCode::Normal);
}

/// Tests that the server gives up such a client, because its pongs would fill the server's memory.
#[test]
fn a_client_that_pings_and_reads_nothing_is_given_up() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    let mut socket = with_token(&scene, "one");
    socket.get_ref().set_write_timeout(Some(TEST_TIMEOUT)).expect("some time");
    let ping = Message::Ping(vec![7; 125].into());
    // More than the buffers of the system and the server hold together, in both directions.
    let most = 2 * (largest_buffer("rmem") + largest_buffer("wmem")) + (16 << 20);
    let mut sent = 0;
    let error = loop {
        match socket.send(ping.clone()) {
            Ok(()) => sent += 127,
            Err(error) => break error,
        }
        assert!(sent < most, "{sent} bytes of pings were taken");
    };
    let Error::Io(error) = error else { panic!("{error}") };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
}

/// Returns the largest buffer in bytes that the system keeps for a connection in one direction.
fn largest_buffer(which: &str) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{which}")).unwrap_or_default();
    limits.split_whitespace().last().and_then(|most| most.parse().ok()).unwrap_or(64 << 20)
}

/// Tests that a client that takes some pongs is not given up. Only the last ping needs an answer (RFC 6455,
/// 5.5.3).
#[test]
fn a_client_that_reads_may_ping_as_it_likes() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    let mut socket = with_token(&scene, "one");
    for round in 0..100_u8 {
        for _ in 0..20 {
            socket.send(Message::Ping(vec![round; 125].into())).expect("room");
        }
        while socket.read().expect("a pong") != Message::Pong(vec![round; 125].into()) {}
    }
}

#[test]
fn a_page_shows_its_token_as_a_protocol() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    let with = |fields: &[(&'static str, &str)]| {
        let mut request = request(&scene, "one", "");
        for (name, value) in fields {
            request.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        let stream = TcpStream::connect(scene.at).expect("it listens");
        client(request, stream).ok().map(|(_, response)| response)
    };
    let protocols = format!("peersock, token.{TOKEN}");
    let page = with(&[("origin", ORIGIN), ("sec-websocket-protocol", &protocols)]).expect("it is accepted");
    assert_eq!(
        page.headers().get("sec-websocket-protocol").map(|value| value.as_bytes()),
        Some(&b"peersock"[..])
    );
    assert!(with(&[("origin", "https://evil.example"), ("sec-websocket-protocol", &protocols)]).is_none());
    assert!(with(&[("origin", ORIGIN), ("sec-websocket-protocol", "peersock, token.wrong")]).is_none());
    assert!(with(&[]).is_none());
}

#[test]
fn what_is_no_websocket_is_told_so() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    for fields in [
        &[][..],
        &["Connection: upgrade", "Upgrade: websocket"],
        &[
            "Connection: upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 12",
            "Sec-WebSocket-Key: eA==",
        ],
        &["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="],
    ] {
        let reply = scene.client().ask("GET", "/v1/pipes/one/websocket", fields, b"");
        assert_eq!((reply.status, reply.code().as_str()), (426, "upgrade-needed"), "{fields:?}");
    }
}

#[test]
fn messages_that_are_too_large_end_it() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    let mut socket = with_token(&scene, "one");
    let _ = socket.send(Message::Binary(large((1 << 20) + 1).into()));
    let mut last = None;
    while let Ok(message) = socket.read() {
        last = Some(message);
    }
    assert!(matches!(last, Some(Message::Close(Some(frame))) if frame.code == CloseCode::Size));
    assert_eq!(scene.ask("GET", "/v1/pipes/one", b"").json()["sent_bytes"], 0);
}
