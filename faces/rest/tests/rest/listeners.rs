//! Connections of members to ports of the server.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::time::Duration;

use peersock::blocking::TcpStream;
use peersock::{IdentitySource, Interfaces, Network, Node};
use peersock_proxy::Activated;
use peersock_rest::{Rest, RestSettings, Token};
use serde_json::json;

use crate::client::Client;
use crate::scene::{Scene, TEST_TIMEOUT, TOKEN};

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
        there.set_read_timeout(Some(TEST_TIMEOUT)).expect("it is open");
        let pipe = scene.ask("GET", "/v1/listeners/web/next?timeout=60", b"");
        let name = format!("web.{number}");
        assert_eq!((pipe.status, &pipe.json()["name"]), (200, &json!(name)));
        assert_eq!(pipe.json()["remote"], there.local_addr().expect("it is open").to_string());
        let peer = &pipe.json()["peer"];
        assert_eq!((&peer["name"], &peer["node"]), (&json!("there"), &json!(scene.there.0.id().to_string())));
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
    // The listener's pipes stay.
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
    // With the beginning of another request after it, the server does not check for the end of the
    // connection.
    client.write((request + "GET").as_bytes());
    // Time for the server to take the request, and the connection. Without it the test may miss a fault, but
    // never fails wrongly.
    std::thread::sleep(Duration::from_millis(300));
    drop(client);
    let _connected = TcpStream::connect_on(&scene.there.0, ("10.78.0.1", port)).expect("it listens");
    let begin = std::time::Instant::now();
    while scene.ask("GET", "/v1/listeners", b"").json()[0]["accepted"] != 1 {
        assert!(begin.elapsed() < TEST_TIMEOUT);
    }
    std::thread::sleep(Duration::from_millis(300));
    let next = scene.ask("GET", "/v1/listeners/web/next?timeout=60", b"");
    assert_eq!(next.status, 200, "somebody else has got it");
    assert_eq!(next.json()["name"], "web.1");
}

#[test]
fn a_port_is_chosen_that_the_network_allows() {
    // Twelve ports, outside those that a node chooses by default. Each run has a separate network.
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
    let scene = Scene::with(|settings| {
        settings.token = Some(Token::parse(TOKEN).expect("a token"));
        settings.most_of_member = 256;
    });
    let port = listen(&scene);
    let connect = || TcpStream::connect_on(&scene.there.0, ("10.78.0.1", port)).expect("it listens");
    let connected: Vec<_> = (0..132).map(|_| connect()).collect();
    wait_listener(&scene, "waiting", 128);
    for _ in &connected {
        assert_eq!(scene.ask("GET", "/v1/listeners/web/next?timeout=60", b"").status, 200);
    }
    assert_eq!(scene.ask("GET", "/v1/listeners/web/next?timeout=0", b"").status, 204);
}

/// Tests that a member's connections are counted together at all its addresses. It may have 64 pipes, and
/// further connections are reset, so that others find places.
#[test]
fn no_member_takes_all_places() {
    let scene = Scene::new();
    let port = listen(&scene);
    let hosts = ["10.78.0.1".parse().expect("an address"), IpAddr::from(scene.here.1.address())];
    let connect = |number: usize| -> std::io::Result<TcpStream> {
        let greedy = TcpStream::connect_on(&scene.there.0, (hosts[number % 2], port))?;
        greedy.set_read_timeout(Some(TEST_TIMEOUT))?;
        Ok(greedy)
    };
    let is_refused = |number| {
        // The reset may come before the client sees the connection.
        let read = connect(number).and_then(|mut refused| refused.read(&mut [0]));
        let error = read.expect_err("nothing is sent");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "a reset, and no end");
    };
    let mut greedy: Vec<_> = (0..64).map(|number| connect(number).expect("it listens")).collect();
    wait_listener(&scene, "waiting", 64);
    (0..2).for_each(is_refused);
    let third = scene.third();
    let other = TcpStream::connect_on(&third.0, (hosts[0], port)).expect("it listens");
    wait_listener(&scene, "waiting", 65);
    for _ in 0..65 {
        assert_eq!(scene.ask("GET", "/v1/listeners/web/next?timeout=60", b"").status, 200);
    }
    let remote = other.local_addr().expect("it is open").to_string();
    assert_eq!(scene.ask("GET", "/v1/pipes/web.65", b"").json()["remote"], remote);
    // Connections that a client has taken count as well, while they last.
    is_refused(0);
    wait_listener(&scene, "refused", 3);
    let own = |stream: &TcpStream| stream.local_addr().expect("it is open").to_string();
    let name_of = |address: &str| {
        let pipes = scene.ask("GET", "/v1/pipes", b"").json();
        let pipe = pipes.as_array().expect("a list").iter().find(|pipe| pipe["remote"] == address);
        pipe.expect("it is a pipe")["name"].as_str().expect("a name").to_owned()
    };
    // One was reset, and one ended in an orderly way and was closed by a client.
    let (reset, ended) = (greedy.pop().expect("there are 64"), greedy.pop().expect("there are 64"));
    let names = [own(&reset), own(&ended)].map(|address| name_of(&address));
    reset.set_linger(Some(Duration::ZERO)).expect("it is open");
    drop(reset);
    scene.wait_pipe(&names[0], |pipe| pipe["state"] == "broken");
    ended.shutdown(Shutdown::Write).expect("it is open");
    scene.wait_pipe(&names[1], |pipe| pipe["state"] == "ended");
    assert_eq!(scene.ask("DELETE", &format!("/v1/pipes/{}", names[1]), b"").status, 204);
    greedy.extend([0, 1].map(|number| connect(number).expect("there is room again")));
    wait_listener(&scene, "waiting", 2);
    is_refused(0);
}

/// Opens a listener `web`, and returns its port.
fn listen(scene: &Scene) -> u16 {
    let opened = scene.ask_json("POST", "/v1/listeners", &json!({"name": "web", "port": 0}));
    opened.json()["port"].as_u64().expect("a port") as u16
}

/// Waits until a count of the listener `web` has this value.
fn wait_listener(scene: &Scene, count: &str, wanted: u64) {
    let begin = std::time::Instant::now();
    loop {
        let listener = scene.ask("GET", "/v1/listeners", b"").json()[0].clone();
        if listener[count] == wanted {
            return;
        }
        assert!(begin.elapsed() < TEST_TIMEOUT, "{count}: {wanted} is wanted of {listener}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
