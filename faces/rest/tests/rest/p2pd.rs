//! The routes of P2PD, as its examples use them.

use std::io::{Read as _, Write as _};

use serde_json::json;

use crate::scene::{Scene, large};

#[test]
fn the_examples_of_p2pd() {
    let scene = Scene::with(|_| {});
    let get = |path: &str| {
        let reply = scene.client().ask_bare("GET", path, &[], b"");
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply
    };
    let version = get("/version").json();
    assert_eq!((&version["title"], &version["error"]), (&json!("peersock"), &json!(0)));
    assert_eq!(get("/addr").json(), json!({"addr": scene.here.1.address().to_string(), "error": 0}));
    let interfaces = get("/ifs").json();
    assert!(interfaces["ifs"][0]["name"].is_string() && interfaces["error"] == 0, "{interfaces}");
    let opened = get("/open/con_name/self").json();
    assert_eq!((&opened["name"], &opened["error"]), (&json!("con_name"), &json!(0)));
    assert!(opened["raddr"][0].is_string() && opened["laddr"][1].is_u64(), "{opened}");
    assert_eq!(get("/info/con_name").json(), opened);
    let sent = get("/send/con_name/long_p2pd_test_string_abcd123").json();
    assert_eq!(sent, json!({"name": "con_name", "sent": 29, "error": 0}));
    let received = get("/recv/con_name").json();
    assert_eq!((&received["data"], &received["error"]), (&json!("long_p2pd_test_string_abcd123"), &json!(0)));
    assert_eq!(received["client_tup"], opened["raddr"]);
    let posted = scene.client().ask_bare(
        "POST",
        "/binary/con_name",
        &["Content-Type: application/octet-stream"],
        b"\0\x01\xff",
    );
    assert_eq!(posted.json(), json!({"name": "con_name", "sent": 3, "error": 0}));
    let binary = get("/binary/con_name");
    assert_eq!(
        (&binary.body[..], binary.field("content-type")),
        (&b"\0\x01\xff"[..], Some("application/octet-stream"))
    );
    assert_eq!(get("/recv/con_name/timeout/0").json()["error"], 5);
    let subscribed = get("/sub/con_name/name/sub_name/msg_p/%5BhH%5De%5Bl%5D%2Bo").json();
    assert_eq!(subscribed, json!({"name": "con_name", "sub": ["[hH]e[l]+o", null], "error": 0}));
    get("/send/con_name/hello%20w%C3%B6rld/and%2Fmore");
    let matched = get("/recv/con_name/name/sub_name").json();
    assert_eq!(matched["data"], "hello w\u{f6}rld/and/more");
    assert_eq!(get("/binary/con_name/name/sub_name/timeout/0").json()["error"], 5);
    let removed = scene.client().ask_bare("DELETE", "/sub/con_name/name/sub_name", &[], b"");
    assert_eq!(removed.json(), json!({"name": "con_name", "unsub": "sub_name", "error": 0}));
    assert_eq!(get("/close/con_name").json(), json!({"closed": "con_name", "error": 0}));
}

#[test]
fn what_is_wrong_has_a_number() {
    let scene = Scene::new();
    let _there = scene.pipe("one");
    for (path, status, number) in [
        ("/open/one/self", 409, 2),
        ("/open/two/nowhere", 400, 1),
        ("/open/two/192.0.2.1:1", 403, 3),
        ("/open/two/there:9", 502, 3),
        ("/open/a%20b/self", 400, 1),
        ("/open/%ff/self", 400, 1),
        ("/info/none", 404, 1),
        ("/send/none/x", 404, 1),
        ("/send/one/%ff", 400, 1),
        ("/recv/none", 404, 1),
        ("/recv/one/nonsense", 400, 1),
        ("/recv/one/name/none", 404, 1),
        ("/close/none", 404, 1),
        ("/version?x=1", 400, 1),
    ] {
        let reply = scene.ask("GET", path, b"");
        assert_eq!(
            (reply.status, &reply.json()["error"]),
            (status, &json!(number)),
            "{path}: {}",
            reply.text()
        );
        assert!(reply.json()["msg"].as_str().is_some_and(|text| text.len() > 10), "{path}");
    }
}

#[test]
fn large_bodies_are_streamed_to_members() {
    let scene = Scene::new();
    let mut there = scene.pipe("one");
    let data = large(8 << 20);
    std::thread::scope(|scope| {
        let posting = scope.spawn(|| scene.ask("POST", "/binary/one", &data));
        let mut received = vec![0; data.len()];
        there.read_exact(&mut received).expect("it has come");
        assert!(received == data);
        assert_eq!(posting.join().expect("no panic").json()["sent"], data.len());
    });
    there.write_all(b"back").expect("room");
    assert_eq!(scene.ask("GET", "/binary/one/timeout/60", b"").text(), "back");
}
