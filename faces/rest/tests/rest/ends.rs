//! Ends of pipes, tunnels, and the server.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use peersock::blocking::TcpStream;

use crate::client::Client;
use crate::scene::{Scene, TEST_TIMEOUT, TOKEN, large};

/// Time for the server to make a mistake. Without it a test may miss the mistake, but never fails wrongly.
const OBSERVATION_TIME: Duration = Duration::from_millis(300);

/// Opens a tunnel to a pipe.
fn tunnel(scene: &Scene, path: &str) -> Client {
    let mut client = scene.client();
    let fields = [format!("Host: {}", scene.at), format!("Authorization: Bearer {TOKEN}")];
    client.begin("GET", path, &[&fields[0], &fields[1], "Connection: Upgrade", "Upgrade: tcp"], Some(0));
    let head = client.head();
    assert_eq!((head.status, head.field("upgrade")), (101, Some("tcp")), "{head:?}");
    client
}

#[test]
fn a_tunnel_is_the_connection_and_passes_ends_on() {
    let scene = Scene::new();
    for path in ["/v1/pipes/one/tunnel", "/tunnel/one"] {
        let mut there = scene.pipe("one");
        // Earlier data is not lost.
        there.write_all(b"early").expect("room");
        scene.wait_pipe("one", |pipe| pipe["queue"]["messages"] == 1);
        let socket = std::net::TcpStream::connect(scene.at).expect("it listens");
        socket.set_read_timeout(Some(TEST_TIMEOUT)).expect("some time");
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\n\
             Upgrade: tcp\r\n\r\nright behind the head",
            scene.at
        );
        (&socket).write_all(head.as_bytes()).expect("room");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            (&socket).read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        let mut early = [0; 5];
        (&socket).read_exact(&mut early).expect("it was there");
        assert_eq!(&early, b"early");
        let data = large(5 << 20);
        let mut receiving = there.try_clone().expect("another handle");
        let received = std::thread::spawn(move || {
            let mut all = Vec::new();
            receiving.read_to_end(&mut all).map(|_| all)
        });
        (&socket).write_all(&data).expect("room");
        socket.shutdown(Shutdown::Write).expect("it is open");
        let received = received.join().expect("no panic").expect("a clean end");
        assert!(received == [b"right behind the head".as_slice(), &data].concat());
        // The other direction continues.
        there.write_all(&data).expect("room");
        there.shutdown(Shutdown::Write).expect("it is open");
        let mut back = Vec::new();
        (&socket).read_to_end(&mut back).expect("a clean end");
        assert!(back == data);
        // The pipe has ended with the tunnel.
        let begin = std::time::Instant::now();
        while scene.ask("GET", "/v1/pipes/one", b"").status != 404 {
            assert!(begin.elapsed() < TEST_TIMEOUT);
        }
    }
}

#[test]
fn a_tunnel_passes_resets_on() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let mut client = tunnel(&scene, "/tunnel/one");
    there.write_all(b"x").expect("room");
    assert_eq!(client.read::<1>(), *b"x");
    // The member resets.
    there.set_linger(Some(Duration::ZERO)).expect("it is open");
    drop(there);
    let error = client.stream.read(&mut [0]).expect_err("it is no clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // The client resets.
    let mut there = scene.pipe("two");
    let socket = std::net::TcpStream::connect(scene.at).expect("it listens");
    let head = format!(
        "GET /tunnel/two HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\n\
         Upgrade: tcp\r\n\r\nx",
        scene.at
    );
    (&socket).write_all(head.as_bytes()).expect("room");
    let mut byte = [0];
    there.read_exact(&mut byte).expect("the tunnel is there");
    read_a_part(&socket);
    drop(socket);
    let error = there.read(&mut byte).expect_err("it is no clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Leaves a part of the answer unread, so that the connection is reset when it is dropped.
fn read_a_part(mut socket: &std::net::TcpStream) {
    socket.read_exact(&mut [0; 4]).expect("an answer");
}

#[test]
fn a_tunnel_needs_an_upgrade() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    let reply = scene.ask("GET", "/tunnel/one", b"");
    assert_eq!((reply.status, reply.code().as_str()), (426, "upgrade-needed"));
    assert!(reply.field("upgrade").is_some_and(|value| value.contains("tcp")));
    let client = tunnel(&scene, "/tunnel/one");
    let second = scene.client().ask("GET", "/tunnel/one", &["Connection: upgrade", "Upgrade: TCP"], b"");
    assert_eq!((second.status, second.code().as_str()), (409, "busy"));
    drop(client);
}

#[test]
fn a_pipe_that_was_reset_says_so_when_all_before_was_taken() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    there.write_all(b"last words").expect("room");
    scene.wait_pipe("one", |pipe| pipe["queue"]["messages"] == 1);
    there.set_linger(Some(Duration::ZERO)).expect("it is open");
    drop(there);
    let pipe = scene.wait_pipe("one", |pipe| pipe["state"] != "open");
    assert_eq!(pipe["state"], "broken");
    assert!(pipe["error"].as_str().is_some_and(|error| !error.is_empty()), "{pipe}");
    assert_eq!(scene.ask("GET", "/v1/pipes/one/messages?timeout=60", b"").text(), "last words");
    let over = scene.ask("GET", "/v1/pipes/one/messages?timeout=60", b"");
    assert_eq!((over.status, over.code().as_str()), (410, "ended"));
    // A stream breaks off, so that the client does not take it for complete.
    let mut there = scene.pipe("two");
    let mut client = scene.client();
    let fields = [format!("Host: {}", scene.at), format!("Authorization: Bearer {TOKEN}")];
    client.begin("GET", "/v1/pipes/two/stream", &[&fields[0], &fields[1]], Some(0));
    there.write_all(b"part").expect("room");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.next_chunk(), Some(b"part".to_vec()));
    there.set_linger(Some(Duration::ZERO)).expect("it is open");
    drop(there);
    let mut rest = Vec::new();
    let _ = client.stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "that would be the end of a whole body");
}

#[test]
fn closing_delivers_what_was_sent_and_resetting_does_not_hide_it() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    assert_eq!(scene.ask("POST", "/v1/pipes/one/messages", &large(1 << 20)).status, 200);
    assert_eq!(scene.ask("DELETE", "/v1/pipes/one", b"").status, 204);
    let mut all = Vec::new();
    there.read_to_end(&mut all).expect("a clean end");
    assert!(all == large(1 << 20));
    let gone = scene.ask("GET", "/v1/pipes/one", b"");
    assert_eq!((gone.status, gone.code().as_str()), (404, "no-pipe"));
    let mut there = scene.pipe("one");
    assert_eq!(scene.ask("DELETE", "/v1/pipes/one?reset=true", b"").status, 204);
    assert_eq!(there.read(&mut [0]).expect_err("it is no clean end").kind(), ErrorKind::ConnectionReset);
}

#[test]
fn closing_ends_what_waits() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| scene.ask("GET", "/v1/pipes/one/messages?timeout=3600", b""));
        // This request waits for room, because the other end does not read.
        let sending = scope.spawn(|| {
            let mut client = scene.client();
            let fields = [format!("Host: {}", scene.at), format!("Authorization: Bearer {TOKEN}")];
            client.begin("PUT", "/v1/pipes/one/stream", &[&fields[0], &fields[1]], None);
            let piece = large(1 << 20);
            // Until the answer comes, or the server accepts no more data.
            for _ in 0..256 {
                client.chunk(&piece);
            }
        });
        scene.wait_pipe("one", |pipe| pipe["queue"]["waiting"] == 1);
        let begin = std::time::Instant::now();
        let mut last = None;
        // The request is stuck when the count stops growing.
        while begin.elapsed() < TEST_TIMEOUT {
            let sent = scene.ask("GET", "/v1/pipes/one", b"").json()["sent_bytes"].as_u64();
            if sent > Some(0) && sent == last {
                break;
            }
            last = sent;
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(scene.ask("DELETE", "/v1/pipes/one", b"").status, 204);
        let reply = waiting.join().expect("no panic");
        assert_eq!((reply.status, reply.code().as_str()), (410, "ended"));
        sending.join().expect("no panic");
    });
    // A part was sent, and the member does not take it for complete.
    let mut all = Vec::new();
    assert_eq!(
        there.read_to_end(&mut all).expect_err("it is no clean end").kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn a_body_that_breaks_off_does_not_end_the_stream() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let mut client = scene.client();
    let fields = [format!("Host: {}", scene.at), format!("Authorization: Bearer {TOKEN}")];
    client.begin("PUT", "/v1/pipes/one/stream?end=true", &[&fields[0], &fields[1]], None);
    client.chunk(b"part");
    let mut part = [0; 4];
    there.read_exact(&mut part).expect("it is sent as it comes");
    drop(client);
    // Nothing of an incomplete message is sent.
    let mut client = scene.client();
    client.begin("POST", "/v1/pipes/one/messages", &[&fields[0], &fields[1]], Some(100));
    client.write(b"not whole");
    drop(client);
    let begin = std::time::Instant::now();
    // The turn of the stream ends when the server has noticed that its client is gone.
    while scene.ask("POST", "/v1/pipes/one/messages", b"whole").status != 200 {
        assert!(begin.elapsed() < TEST_TIMEOUT);
    }
    let mut whole = [0; 5];
    there.read_exact(&mut whole).expect("it has come");
    assert_eq!(&whole, b"whole");
}

/// Makes a pipe to which a client has sent a part of a body, and then vanished.
fn torn(scene: &Scene, name: &str) -> TcpStream {
    let mut there = scene.pipe(name);
    let mut client = scene.begin("PUT", &format!("/v1/pipes/{name}/stream?end=true"), true);
    client.chunk(b"part");
    let mut part = [0; 4];
    there.read_exact(&mut part).expect("it is sent as it comes");
    drop(client);
    // This request waits until the server has noticed that.
    assert_eq!(scene.ask("POST", &format!("/v1/pipes/{name}/messages"), b"more").status, 200);
    there
}

#[test]
fn a_body_that_has_broken_off_is_not_taken_for_whole_when_the_pipe_is_closed() {
    let scene = Scene::new();
    for path in ["/v1/pipes/one", "/close/one"] {
        let mut there = torn(&scene, "one");
        let method = if path.starts_with("/v1") { "DELETE" } else { "GET" };
        assert!(matches!(scene.ask(method, path, b"").status, 200 | 204));
        let error = there.read_to_end(&mut Vec::new()).expect_err("it is no clean end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_body_without_an_end_is_not_taken_for_whole_when_the_server_ends() {
    let scene = Scene::new();
    let broken = torn(&scene, "one");
    let mut under_way = scene.pipe("two");
    let mut client = scene.begin("PUT", "/v1/pipes/two/stream", true);
    client.chunk(b"part");
    under_way.read_exact(&mut [0; 4]).expect("it is sent as it comes");
    let mut whole = scene.pipe("three");
    assert_eq!(scene.ask("PUT", "/v1/pipes/three/stream", b"whole").status, 200);
    scene.stop(Duration::ZERO);
    for mut there in [broken, under_way] {
        let error = there.read_to_end(&mut Vec::new()).expect_err("it is no clean end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let mut all = Vec::new();
    whole.read_to_end(&mut all).expect("a clean end");
    assert_eq!(all, b"whole");
}

#[test]
fn the_end_is_not_told_in_the_middle_of_a_body() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let mut client = scene.begin("PUT", "/v1/pipes/one/stream", true);
    client.chunk(b"part");
    let mut part = [0; 4];
    there.read_exact(&mut part).expect("it is sent as it comes");
    let mut ending = scene.begin("DELETE", "/v1/pipes/one/stream", false);
    std::thread::sleep(OBSERVATION_TIME);
    client.chunk(b"rest");
    client.chunk(b"");
    let sent = client.reply();
    assert_eq!((sent.status, sent.json()["sent"].as_u64()), (200, Some(8)), "{}", sent.text());
    assert_eq!(ending.head().status, 204);
    let mut rest = Vec::new();
    there.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(rest, b"rest");
}

#[test]
fn nothing_of_others_comes_between_what_a_tunnel_sends() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let socket = std::net::TcpStream::connect(scene.at).expect("it listens");
    let head = format!(
        "GET /tunnel/one HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\n\
         Upgrade: tcp\r\n\r\none",
        scene.at
    );
    (&socket).write_all(head.as_bytes()).expect("room");
    there.read_exact(&mut [0; 3]).expect("the tunnel is there");
    let mut other = scene.begin("PUT", "/v1/pipes/one/stream", true);
    other.chunk(b"other");
    other.chunk(b"");
    std::thread::sleep(OBSERVATION_TIME);
    (&socket).write_all(b"two").expect("room");
    socket.shutdown(Shutdown::Write).expect("it is open");
    let mut rest = Vec::new();
    there.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(rest, b"two");
    let refused = other.reply();
    assert_eq!((refused.status, refused.code().as_str()), (410, "ended"));
}

#[test]
fn closing_delivers_what_was_sent_also_if_something_waits_unread() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let mut sending = there.try_clone().expect("another handle");
    let sent = std::thread::spawn(move || {
        // More than the queue of a pipe holds.
        sending.write_all(&large(2 << 20)).and_then(|()| sending.shutdown(Shutdown::Write))
    });
    scene.wait_pipe("one", |pipe| pipe["queue"]["bytes"].as_u64() >= Some(1 << 20));
    let answer = large(1 << 20);
    assert_eq!(scene.ask("POST", "/v1/pipes/one/messages", &answer).status, 200);
    assert_eq!(scene.ask("DELETE", "/v1/pipes/one", b"").status, 204);
    let mut all = Vec::new();
    there.read_to_end(&mut all).expect("a clean end");
    assert!(all == answer);
    sent.join().expect("no panic").expect("it was read, by nobody");
}

#[test]
fn the_end_of_the_server_ends_what_waits_and_lets_go_on_what_does_not() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let mut client = tunnel(&scene, "/tunnel/one");
    let other = scene.pipe("two");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| scene.ask("GET", "/v1/pipes/two/messages?timeout=3600", b""));
        scene.wait_pipe("two", |pipe| pipe["queue"]["waiting"] == 1);
        let stopping = scope.spawn(|| scene.stop(TEST_TIMEOUT));
        let reply = waiting.join().expect("no panic");
        assert!(matches!(reply.status, 503), "{reply:?}");
        // The tunnel continues.
        there.write_all(b"still here").expect("room");
        assert_eq!(client.read::<10>(), *b"still here");
        there.shutdown(Shutdown::Write).expect("it is open");
        assert_eq!(client.read_to_end(), b"");
        drop(client);
        drop(there);
        assert_eq!(stopping.join().expect("no panic"), 0, "nothing was cut off");
    });
    drop(other);
}
