//! Members connect to ports of the server.

use std::io::{Read as _, Write as _};

use peersock::blocking::TcpStream;
use serde_json::json;

use crate::scene::{PATIENCE, Scene};

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
