//! Messages, subscriptions, streams.

use std::io::{Read as _, Write as _};

use peersock::blocking::UdpSocket;
use serde_json::json;

use crate::client::Reply;
use crate::scene::{PEER_ADDRESS, Scene, TEST_TIMEOUT, large};

fn take(scene: &Scene, name: &str, query: &str) -> Reply {
    scene.ask("GET", &format!("/v1/pipes/{name}/messages?timeout=60{query}"), b"")
}

#[test]
fn messages_go_there_and_back() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let sent = scene.ask("POST", "/v1/pipes/one/messages", b"hello");
    assert_eq!((sent.status, sent.json()["sent"].as_u64()), (200, Some(5)));
    let mut hello = [0; 5];
    there.read_exact(&mut hello).expect("it has come");
    assert_eq!(&hello, b"hello");
    there.write_all(b"back\0\xff").expect("room");
    let back = take(&scene, "one", "");
    assert_eq!((back.status, &back.body[..]), (200, &b"back\0\xff"[..]));
    assert_eq!(back.field("peersock-message"), Some("1"));
    assert_eq!(
        back.field("peersock-from"),
        Some(there.local_addr().expect("it is open").to_string().as_str())
    );
    let none = scene.ask("GET", "/v1/pipes/one/messages?timeout=0", b"");
    assert_eq!((none.status, none.body.len()), (204, 0));
    let pipe = scene.ask("GET", "/v1/pipes/one", b"").json();
    assert_eq!(
        (&pipe["sent_bytes"], &pipe["received_bytes"], &pipe["state"]),
        (&json!(5), &json!(6), &json!("open"))
    );
    assert_eq!(scene.ask("GET", "/v1/pipes", b"").json().as_array().map(Vec::len), Some(1));
}

#[test]
fn a_message_that_is_kept_goes_when_it_was_confirmed() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    there.write_all(b"first").expect("room");
    for _ in 0..2 {
        let kept = take(&scene, "one", "&keep");
        assert_eq!((kept.text().as_str(), kept.field("peersock-message")), ("first", Some("1")));
    }
    let wrong = scene.ask("DELETE", "/v1/pipes/one/messages/2", b"");
    assert_eq!((wrong.status, wrong.code().as_str()), (404, "no-message"));
    assert_eq!(scene.ask("DELETE", "/v1/pipes/one/messages/1", b"").status, 204);
    assert_eq!(scene.ask("GET", "/v1/pipes/one/messages?timeout=0", b"").status, 204);
}

#[test]
fn a_client_that_vanishes_while_it_waits_takes_nothing() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let authorization = format!("Authorization: Bearer {}", crate::scene::TOKEN);
    for number in 0..4 {
        let mut client = scene.client();
        let host = format!("Host: {}", scene.at);
        client.begin("GET", "/v1/pipes/one/messages?timeout=3600", &[&host, &authorization], Some(0));
        // Some vanish before the server has seen their request, and some while they wait.
        if number % 2 == 0 {
            scene.wait_pipe("one", |pipe| pipe["queue"]["waiting"] != 0);
        }
        drop(client);
    }
    there.write_all(b"for whoever is there").expect("room");
    scene.wait_pipe("one", |pipe| pipe["received_bytes"] == 20);
    assert_eq!(take(&scene, "one", "").text(), "for whoever is there");
}

#[test]
fn each_subscription_has_its_own_queue() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    for (name, pattern) in [("greetings", "(?i)hel+o"), ("numbers", r"\d+")] {
        let made =
            scene.ask_json("POST", "/v1/pipes/one/subscriptions", &json!({"name": name, "pattern": pattern}));
        assert_eq!(made.status, 201, "{made:?}");
    }
    // Each text is a separate message: the next one is sent when the last has arrived.
    for (at, text) in ["Hello", "42", "neither", "HELLO 7"].iter().enumerate() {
        there.write_all(text.as_bytes()).expect("room");
        scene.wait_pipe("one", |pipe| pipe["queue"]["messages"] == at + 1);
    }
    for (query, texts) in [
        ("&subscription=numbers", &["42", "HELLO 7"][..]),
        ("&subscription=greetings", &["Hello", "HELLO 7"]),
        ("", &["Hello", "42", "neither", "HELLO 7"]),
    ] {
        for text in texts {
            assert_eq!(take(&scene, "one", query).text(), *text, "{query}");
        }
    }
    let twice =
        scene.ask_json("POST", "/v1/pipes/one/subscriptions", &json!({"name": "numbers", "pattern": ""}));
    assert_eq!((twice.status, twice.code().as_str()), (409, "name-taken"));
    assert_eq!(scene.ask("DELETE", "/v1/pipes/one/subscriptions/numbers", b"").status, 204);
    let gone = scene.ask("GET", "/v1/pipes/one/messages?subscription=numbers", b"");
    assert_eq!((gone.status, gone.code().as_str()), (404, "no-subscription"));
    for number in 1.. {
        let more = json!({"name": format!("more-{number}"), "pattern": "x"});
        let made = scene.ask_json("POST", "/v1/pipes/one/subscriptions", &more);
        if made.status != 201 {
            assert_eq!((made.status, made.code().as_str(), number), (503, "too-many", 8));
            break;
        }
    }
}

#[test]
fn who_waits_at_a_subscription_is_told_that_it_is_removed() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    scene.ask_json("POST", "/v1/pipes/one/subscriptions", &json!({"name": "some", "pattern": "x"}));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| take(&scene, "one", "&subscription=some"));
        scene.wait_pipe("one", |pipe| pipe["subscriptions"][0]["waiting"] == 1);
        scene.ask("DELETE", "/v1/pipes/one/subscriptions/some", b"");
        let told = waiting.join().expect("no panic");
        assert_eq!((told.status, told.code().as_str()), (404, "no-subscription"));
    });
}

#[test]
fn who_waits_elsewhere_makes_room_in_a_queue_that_nobody_takes_from() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    scene.ask_json("POST", "/v1/pipes/one/subscriptions", &json!({"name": "end", "pattern": "the end"}));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| take(&scene, "one", "&subscription=end"));
        // Much more than a queue holds.
        there.write_all(&vec![b'.'; 8 << 20]).expect("it is received");
        there.write_all(b"the end").expect("it is received");
        let end = waiting.join().expect("no panic");
        assert!(end.text().ends_with("the end"), "{}", end.status);
    });
    let pipe = scene.ask("GET", "/v1/pipes/one", b"").json();
    assert!(pipe["queue"]["dropped"].as_u64().is_some_and(|dropped| dropped > 0), "{pipe}");
    assert!(pipe["queue"]["bytes"].as_u64().is_some_and(|bytes| bytes < 2 << 20), "{pipe}");
}

#[test]
fn a_stream_is_whole_and_in_order_and_its_sender_waits_for_its_reader() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let data = large(20 << 20);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            there.write_all(&data).expect("it is received in the end");
            there.shutdown(std::net::Shutdown::Write).expect("it is open");
        });
        // No client reads: a queue of 1 MiB and the buffers of TCP fill, and nothing is dropped.
        let full = scene.wait_pipe("one", |pipe| pipe["queue"]["bytes"].as_u64() >= Some(1 << 20));
        assert_eq!(full["queue"]["dropped"], 0);
        assert!(full["queue"]["bytes"].as_u64() < Some(2 << 20), "{full}");
        let reply = scene.ask("GET", "/v1/pipes/one/stream", b"");
        assert_eq!(reply.status, 200);
        assert!(reply.body == data, "{} bytes", reply.body.len());
        sending.join().expect("no panic");
    });
    // The other direction is still open.
    let mut client = scene.client();
    let authorization = format!("Authorization: Bearer {}", crate::scene::TOKEN);
    client.begin(
        "PUT",
        "/v1/pipes/one/stream?end=true",
        &[&format!("Host: {}", scene.at), &authorization],
        None,
    );
    let receiving = std::thread::spawn(move || {
        let mut received = Vec::new();
        there.read_to_end(&mut received).map(|_| received)
    });
    for piece in data.chunks(1 << 20) {
        client.chunk(piece);
    }
    client.chunk(b"");
    let reply = client.reply();
    assert_eq!((reply.status, reply.json()["sent"].as_u64()), (200, Some(data.len() as u64)));
    assert!(receiving.join().expect("no panic").expect("a clean end") == data);
    let more = scene.ask("POST", "/v1/pipes/one/messages", b"more");
    assert_eq!((more.status, more.code().as_str()), (410, "ended"));
    let over = scene.ask("GET", "/v1/pipes/one/messages?timeout=60", b"");
    assert_eq!((over.status, over.code().as_str()), (410, "ended"));
}

#[test]
fn one_client_alone_reads_a_stream() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    there.write_all(b"piece").expect("room");
    let mut first = scene.client();
    let authorization = format!("Authorization: Bearer {}", crate::scene::TOKEN);
    first.begin("GET", "/v1/pipes/one/stream", &[&format!("Host: {}", scene.at), &authorization], Some(0));
    assert_eq!(first.head().status, 200);
    assert_eq!(first.next_chunk(), Some(b"piece".to_vec()));
    let second = scene.ask("GET", "/v1/pipes/one/stream", b"");
    assert_eq!((second.status, second.code().as_str()), (409, "busy"));
    drop(first);
    // Data that arrives after a reader has gone is for the next one.
    scene_reads_again(&scene, &mut there);
}

fn scene_reads_again(scene: &Scene, there: &mut peersock::blocking::TcpStream) {
    let begin = std::time::Instant::now();
    let authorization = format!("Authorization: Bearer {}", crate::scene::TOKEN);
    loop {
        let mut next = scene.client();
        next.begin("GET", "/v1/pipes/one/stream", &[&format!("Host: {}", scene.at), &authorization], Some(0));
        if next.head().status == 200 {
            there.write_all(b"next").expect("room");
            assert_eq!(next.next_chunk(), Some(b"next".to_vec()));
            return;
        }
        assert!(begin.elapsed() < TEST_TIMEOUT, "the first reader is not gone");
    }
}

#[test]
fn datagrams_keep_their_bounds() {
    let scene = Scene::new();
    let there = UdpSocket::bind_on(&scene.there.0, (scene.there.1.address(), 0)).expect("a free port");
    there.set_read_timeout(Some(TEST_TIMEOUT)).expect("it is open");
    let port = there.local_addr().expect("it is bound").port();
    let opened =
        scene.ask_json("POST", "/v1/pipes", &json!({"name": "d", "to": format!("udp:there:{port}")}));
    assert_eq!((opened.status, opened.json()["protocol"].as_str()), (201, Some("udp")), "{opened:?}");
    let mut room = vec![0; 1 << 16];
    for message in [&b"one"[..], b"", &large(20_000)] {
        let sent = scene.ask("POST", "/v1/pipes/d/messages", message);
        assert_eq!(
            (sent.status, sent.json()["sent"].as_u64()),
            (200, Some(message.len() as u64)),
            "{sent:?}"
        );
        let (length, from) = there.recv_from(&mut room).expect("it has come");
        assert_eq!(&room[..length], message);
        there.send_to(message, from).expect("room");
        let back = take(&scene, "d", "");
        assert_eq!((back.status, &back.body[..]), (200, message));
    }
    let long = scene.ask("POST", "/v1/pipes/d/messages", &large(65_508));
    assert_eq!((long.status, long.code().as_str()), (413, "too-large"));
    for (method, path) in [("GET", "stream"), ("PUT", "stream"), ("DELETE", "stream"), ("GET", "tunnel")] {
        let reply = scene.ask(method, &format!("/v1/pipes/d/{path}"), b"");
        assert_eq!((reply.status, reply.code().as_str()), (409, "wrong-protocol"), "{method} {path}");
    }
}

#[test]
fn a_udp_port_takes_datagrams_of_all_and_says_whose_they_are() {
    let scene = Scene::new();
    let opened = scene.ask_json("POST", "/v1/pipes", &json!({"name": "port", "udp_port": 0}));
    assert_eq!(opened.status, 201, "{opened:?}");
    let local = opened.json()["local"].as_str().expect("an address").to_owned();
    let port: u16 = local.rsplit_once(':').expect("a port").1.parse().expect("a number");
    let there = UdpSocket::bind_on(&scene.there.0, (PEER_ADDRESS, 0)).expect("a free port");
    there.set_read_timeout(Some(TEST_TIMEOUT)).expect("it is open");
    there.send_to(b"ping", ("10.78.0.1", port)).expect("room");
    let ping = take(&scene, "port", "");
    let from = ping.field("peersock-from").expect("a sender").to_owned();
    assert_eq!(
        (ping.text().as_str(), &from),
        ("ping", &there.local_addr().expect("it is bound").to_string())
    );
    let sent = scene.ask("POST", &format!("/v1/pipes/port/messages?to={from}"), b"pong");
    assert_eq!(sent.status, 200, "{sent:?}");
    let mut room = [0; 10];
    assert_eq!(there.recv(&mut room).expect("it has come"), 4);
    let nowhere = scene.ask("POST", "/v1/pipes/port/messages", b"x");
    assert_eq!((nowhere.status, nowhere.code().as_str()), (400, "bad-request"));
    let foreign = scene.ask("POST", "/v1/pipes/port/messages?to=127.0.0.1:53", b"x");
    assert_eq!((foreign.status, foreign.code().as_str()), (403, "not-allowed"));
}

#[test]
fn datagrams_that_nobody_takes_push_out_the_oldest() {
    let scene = Scene::new();
    let opened = scene.ask_json("POST", "/v1/pipes", &json!({"name": "port", "udp_port": 0}));
    let local = opened.json()["local"].as_str().expect("an address").to_owned();
    let port: u16 = local.rsplit_once(':').expect("a port").1.parse().expect("a number");
    let there = UdpSocket::bind_on(&scene.there.0, (PEER_ADDRESS, 0)).expect("a free port");
    let begin = std::time::Instant::now();
    // Some datagrams may be lost, so send as many as it takes.
    for number in 0_u64.. {
        there.send_to(&number.to_be_bytes(), ("10.78.0.1", port)).expect("room");
        if number % 256 == 0 {
            let pipe = scene.ask("GET", "/v1/pipes/port", b"").json();
            assert!(pipe["queue"]["messages"].as_u64() <= Some(1024), "{pipe}");
            if pipe["queue"]["dropped"].as_u64() > Some(0) {
                break;
            }
        }
        assert!(begin.elapsed() < TEST_TIMEOUT);
    }
    let first = take(&scene, "port", "");
    assert!(first.field("peersock-dropped").and_then(|dropped| dropped.parse::<u64>().ok()) > Some(0));
    let number: u64 = first.field("peersock-message").expect("a number").parse().expect("a number");
    assert!(number > 1, "the oldest is gone");
}
