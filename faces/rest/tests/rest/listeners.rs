//! Members connect to ports of the server.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use peersock::blocking::TcpStream;
use peersock::{IdentitySource, Interfaces, Network, Node};
use peersock_proxy::Activated;
use peersock_rest::{Rest, RestSettings};
use serde_json::json;

use crate::client::Client;
use crate::scene::{PATIENCE, Scene, TOKEN};

#[test]
fn each_connection_becomes_a_pipe() {
    let scene = Scene::new();
    let opened = scene.ask_json("POST", "/v1/listeners", &json!({"name": "web", "port": 0}));
    assert_eq!(opened.status, 201, "{opened:?}");
    let port = opened.json()["port"].as_u64().expect("a port") as u16;
    let none = scene.ask("GET", "/v1/listeners/web/next?timeout=0", b"");
    assert_eq!(none.status, 204);
    for number in 1..=2 {
        let mut there = TcpStream::connect_on(&scene.there.0, ("10.78.0.1", port)).expect("it listens");
        there.set_read_timeout(Some(PATIENCE)).expect("it is open");
        let pipe = scene.ask("GET", "/v1/listeners/web/next?timeout=60", b"");
        let name = format!("web.{number}");
        assert_eq!((pipe.status, &pipe.json()["name"]), (200, &json!(name)));
        assert_eq!(pipe.json()["remote"], there.local_addr().expect("it is open").to_string());
        there.write_all(b"hello").expect("room");
        assert_eq!(scene.ask("GET", &format!("/v1/pipes/{name}/messages?timeout=60"), b"").text(), "hello");
        assert_eq!(scene.ask("POST", &format!("/v1/pipes/{name}/messages"), b"back").status, 200);
        let mut back = [0; 4];
        there.read_exact(&mut back).expect("it has come");
    }
    let all = scene.ask("GET", "/v1/listeners", b"").json();
    assert_eq!((&all[0]["name"], &all[0]["accepted"]), (&json!("web"), &json!(2)));
    let twice = scene.ask_json("POST", "/v1/listeners", &json!({"name": "web", "port": 0}));
    assert_eq!((twice.status, twice.code().as_str()), (409, "name-taken"));
    assert_eq!(scene.ask("DELETE", "/v1/listeners/web", b"").status, 204);
    assert_eq!(scene.ask("GET", "/v1/listeners/web/next", b"").status, 404);
    // Its pipes stay.
    assert_eq!(scene.ask("GET", "/v1/pipes/web.1", b"").status, 200);
    let long = json!({"name": "x".repeat(60), "port": 0});
    assert_eq!(scene.ask_json("POST", "/v1/listeners", &long).status, 400);
}

#[test]
fn who_waits_at_a_listener_that_is_closed_is_told() {
    let scene = Scene::new();
    scene.ask_json("POST", "/v1/listeners", &json!({"name": "web", "port": 0}));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| scene.ask("GET", "/v1/listeners/web/next?timeout=3600", b""));
        scene.ask("DELETE", "/v1/listeners/web", b"");
        assert!(matches!(waiting.join().expect("no panic").status, 404 | 410));
    });
}

#[test]
fn a_client_that_has_vanished_takes_no_connection() {
    let scene = Scene::new();
    let opened = scene.ask_json("POST", "/v1/listeners", &json!({"name": "web", "port": 0}));
    let port = opened.json()["port"].as_u64().expect("a port") as u16;
    let mut client = scene.client();
    let request = format!(
        "GET /v1/listeners/web/next?timeout=3600 HTTP/1.1\r\nHost: {}\r\n\
         Authorization: Bearer {TOKEN}\r\n\r\n",
        scene.at
    );
    // With the begin of another request behind it, the server does not look for the end of the connection.
    client.write((request + "GET").as_bytes());
    // Time for the server to take the request, and the connection: without it the test may miss what is
    // wrong, and never fails.
    std::thread::sleep(Duration::from_millis(300));
    drop(client);
    let _connected = TcpStream::connect_on(&scene.there.0, ("10.78.0.1", port)).expect("it listens");
    let begin = std::time::Instant::now();
    while scene.ask("GET", "/v1/listeners", b"").json()[0]["accepted"] != 1 {
        assert!(begin.elapsed() < PATIENCE);
    }
    std::thread::sleep(Duration::from_millis(300));
    let next = scene.ask("GET", "/v1/listeners/web/next?timeout=60", b"");
    assert_eq!(next.status, 200, "somebody else has got it");
    assert_eq!(next.json()["name"], "web.1");
}

#[test]
fn a_port_is_chosen_that_the_network_allows() {
    // Twelve ports, and not those that a node chooses by itself. Each run has a network of its own.
    let first = 5000 + RandomState::new().hash_one(()) % 20_000;
    let range = first..first + 12;
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.start().expect("a node on loopback");
    let id = format!("ff{first:04x}{:04x}000000", range.end - 1).parse().expect("the ID of a network");
    node.join(Network::ad_hoc(id)).expect("it is joined once");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let listen = vec!["127.0.0.1:0".parse().expect("a place")];
    let settings = RestSettings { listen, ..RestSettings::default() };
    let mut activated = Activated::none();
    let listening = Rest::listen(&node, settings, &mut activated, Arc::new(|_| {}));
    let rest = runtime.block_on(listening).expect("free places");
    let at = rest.places()[0].to_string().parse().expect("an address");
    let stopper = rest.stopper();
    runtime.spawn(rest.run());
    for (path, body) in [
        ("/v1/listeners", json!({"name": "tcp", "port": 0})),
        ("/v1/pipes", json!({"name": "udp", "udp_port": 0})),
    ] {
        let body = body.to_string();
        let fields = ["Content-Type: application/json"];
        let opened = Client::connect(at).ask_bare("POST", path, &fields, body.as_bytes());
        assert_eq!(opened.status, 201, "{}", opened.text());
        let opened = opened.json();
        let local = opened["local"].as_str().and_then(|local| local.rsplit_once(':')?.1.parse().ok());
        let port = opened["port"].as_u64().or(local).expect("a port");
        assert!(range.contains(&port), "{port}");
    }
    stopper.stop(Duration::ZERO);
}

#[test]
fn more_than_a_few_wait_until_somebody_takes_them() {
    let scene = Scene::new();
    let opened = scene.ask_json("POST", "/v1/listeners", &json!({"name": "web", "port": 0}));
    let port = opened.json()["port"].as_u64().expect("a port") as u16;
    let connect = || TcpStream::connect_on(&scene.there.0, ("10.78.0.1", port)).expect("it listens");
    let connected: Vec<_> = (0..20).map(|_| connect()).collect();
    let begin = std::time::Instant::now();
    while scene.ask("GET", "/v1/listeners", b"").json()[0]["waiting"] != 16 {
        assert!(begin.elapsed() < PATIENCE);
    }
    for _ in &connected {
        assert_eq!(scene.ask("GET", "/v1/listeners/web/next?timeout=60", b"").status, 200);
    }
    assert_eq!(scene.ask("GET", "/v1/listeners/web/next?timeout=0", b"").status, 204);
}
