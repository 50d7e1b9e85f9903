//! Access checks.

use peersock::blocking::TcpStream;
use peersock_proxy::{Activated, Place};
use peersock_rest::{Rest, RestError, RestSettings};

use crate::client::{Client, Reply};
use crate::scene::{ORIGIN, Scene, TOKEN};

fn ask(scene: &Scene, fields: &[&str]) -> Reply {
    scene.client().ask_bare("GET", "/v1/version", fields, b"")
}

#[test]
fn every_request_shows_the_token() {
    let scene = Scene::new();
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(ask(&scene, &[&bearer]).status, 200);
    let basic = data_encoding(&format!("anybody:{TOKEN}"));
    assert_eq!(ask(&scene, &[&format!("Authorization: Basic {basic}")]).status, 200);
    let in_query = scene.client().ask_bare("GET", &format!("/v1/version?token={TOKEN}"), &[], b"");
    assert_eq!(in_query.status, 200);
    for fields in [&[][..], &["Authorization: Bearer a-token-of-the-testz"], &["Authorization: Bearer "]] {
        let reply = ask(&scene, fields);
        assert_eq!((reply.status, reply.code().as_str()), (401, "no-token"), "{fields:?}");
        // A browser that is offered Basic would keep the token and add it to the requests of any page.
        let challenges: Vec<_> = reply
            .fields
            .iter()
            .filter(|(name, _)| name == "www-authenticate")
            .map(|(_, value)| value)
            .collect();
        assert_eq!(challenges, ["Bearer realm=\"peersock\""]);
        assert!(!reply.text().contains(TOKEN));
    }
    let wrong = scene.client().ask_bare("GET", "/v1/version?token=wrong", &[], b"");
    assert_eq!(wrong.status, 401);
    // The same for paths that do not exist, so that no client learns which pipes exist.
    assert_eq!(scene.client().ask_bare("GET", "/v1/pipes/some", &[], b"").status, 401);
    assert_eq!(scene.client().ask_bare("GET", "/nowhere", &[], b"").status, 401);
}

#[test]
fn what_a_browser_adds_to_the_requests_of_all_pages_shows_nothing() {
    let scene = Scene::new();
    let basic = format!("Authorization: Basic {}", data_encoding(&format!(":{TOKEN}")));
    for (field, status, code) in [
        // A form or a script in a frame that a foreign page has sandboxed.
        ("Origin: null", 401, "no-token"),
        (&format!("Origin: {ORIGIN}"), 401, "no-token"),
        ("Origin: https://evil.example", 403, "foreign-origin"),
        ("Sec-Fetch-Site: cross-site", 403, "foreign-origin"),
        ("Sec-Fetch-Site: same-origin", 401, "no-token"),
        ("Sec-Fetch-Site: none", 401, "no-token"),
    ] {
        let reply = ask(&scene, &[&basic, field]);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{field}");
    }
    let form = ["Origin: null", "Content-Type: text/plain", "Sec-Fetch-Site: cross-site", &basic];
    let opened = scene.client().ask_bare("GET", "/open/one/self", &form, b"");
    assert_eq!(opened.status, 401);
    assert_eq!(scene.ask("GET", "/v1/pipes", b"").text(), "[]");
    // A holder of the token can send it otherwise.
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(ask(&scene, &[&bearer, "Origin: null"]).status, 200);
    let in_query =
        scene.client().ask_bare("GET", &format!("/v1/version?token={TOKEN}"), &["Sec-Fetch-Site: none"], b"");
    assert_eq!(in_query.status, 200);
}

/// Encodes a text in Base64, by hand, because the library's encoding is under test.
fn data_encoding(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits =
            three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            encoded.push(if at <= three.len() { letter.into() } else { '=' });
        }
    }
    encoded
}

#[test]
fn only_this_machine_is_asked_for() {
    let scene = Scene::new();
    let (bearer, port) = (format!("Authorization: Bearer {TOKEN}"), scene.at.port());
    let with_host = |fields: &[&str]| {
        let mut client = scene.client();
        client.begin("GET", "/v1/version", &[&[bearer.as_str()], fields].concat(), Some(0));
        client.reply()
    };
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        assert_eq!(with_host(&[&format!("Host: {host}:{port}")]).status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "10.78.0.1", "[fd00::1]", "localhost.evil.example"]
    {
        let reply = with_host(&[&format!("Host: {host}:{port}")]);
        assert_eq!((reply.status, reply.code().as_str()), (421, "foreign-host"), "{host}");
    }
    assert_eq!(with_host(&["Host: localhost"]).status, 421, "another port");
    assert_eq!(with_host(&["Host: localhost:1"]).status, 421, "another port");
    assert_eq!(with_host(&[]).status, 400);
    let twice = [format!("Host: localhost:{port}"), "Host: evil.example".to_owned()];
    assert_eq!(with_host(&[&twice[0], &twice[1]]).status, 400);
    // A whole URI in the first line names the host, too.
    let mut client = scene.client();
    let host = format!("Host: localhost:{port}");
    client.begin("GET", &format!("http://evil.example:{port}/v1/version"), &[&host, &bearer], Some(0));
    assert_eq!(client.reply().status, 421);
}

#[test]
fn pages_are_served_if_their_origin_is_allowed() {
    let scene = Scene::new();
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let allowed = ask(&scene, &[&bearer, &format!("Origin: {ORIGIN}"), "Sec-Fetch-Site: cross-site"]);
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.field("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(allowed.field("vary"), Some("origin"));
    // The origin alone is not enough.
    assert_eq!(ask(&scene, &[&format!("Origin: {ORIGIN}")]).status, 401);
    let own = format!("http://{}", scene.at);
    for origin in
        ["https://evil.example", "https://app.example.evil.example", "http://app.example", &own, "x"]
    {
        let reply = ask(&scene, &[&bearer, &format!("Origin: {origin}")]);
        assert_eq!((reply.status, reply.code().as_str()), (403, "foreign-origin"), "{origin}");
        assert_eq!(reply.field("access-control-allow-origin"), None);
    }
    let twice = ask(&scene, &[&bearer, &format!("Origin: {ORIGIN}"), "Origin: https://evil.example"]);
    assert_eq!(twice.status, 400);
    // A page opened as a file needs the token.
    assert_eq!(ask(&scene, &[&bearer, "Origin: null"]).status, 200);
    assert_eq!(ask(&scene, &["Origin: null"]).status, 401);
    // Pictures and forms come without Origin.
    for (site, status) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)] {
        assert_eq!(ask(&scene, &[&bearer, &format!("Sec-Fetch-Site: {site}")]).status, status, "{site}");
    }
}

#[test]
fn browsers_may_ask_beforehand_for_allowed_pages() {
    let scene = Scene::new();
    let preflight = |origin: &str| {
        let fields = [&format!("Origin: {origin}")[..], "Access-Control-Request-Method: PUT"];
        scene.client().ask_bare("OPTIONS", "/v1/pipes", &fields, b"")
    };
    let allowed = preflight(ORIGIN);
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.field("access-control-allow-origin"), Some(ORIGIN));
    assert!(allowed.field("access-control-allow-methods").is_some_and(|value| value.contains("DELETE")));
    assert!(
        allowed.field("access-control-allow-headers").is_some_and(|value| value.contains("authorization"))
    );
    let foreign = preflight("https://evil.example");
    assert_eq!((foreign.status, foreign.field("access-control-allow-origin")), (403, None));
}

#[test]
fn without_a_token_pages_are_refused_all_the_same() {
    let scene = Scene::with(|_| {});
    assert_eq!(ask(&scene, &[]).status, 200);
    for fields in [&["Origin: null"][..], &["Origin: https://evil.example"], &["Sec-Fetch-Site: cross-site"]]
    {
        assert_eq!(ask(&scene, fields).status, 403, "{fields:?}");
    }
    assert_eq!(ask(&scene, &[&format!("Origin: {ORIGIN}")]).status, 200);
}

#[test]
fn an_own_unix_domain_socket_needs_no_token() {
    let scene = Scene::new();
    let path = scene.folder.path().join("socket");
    let reply = Client::connect_path(&path).ask_bare("GET", "/v1/node", &[], b"");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["node_id"], scene.here.0.id().to_string());
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn it_listens_nowhere_else_than_on_this_machine() {
    let node = peersock::Node::builder().identity(peersock::IdentitySource::Ephemeral);
    let node = node.interfaces(peersock::Interfaces::Loopback).start().expect("a node");
    for place in ["*:0", "0.0.0.0:0", "[::]:0", "overlay:80"] {
        let listen = vec![place.parse::<Place>().expect("a place")];
        let settings = RestSettings { listen, ..RestSettings::default() };
        let tell = std::sync::Arc::new(|_| {});
        let refused = Rest::listen(&node, settings, &mut Activated::none(), tell).await;
        assert!(matches!(refused.map(drop), Err(RestError::Exposed(_))), "{place}");
    }
}

#[test]
fn nothing_else_than_members_is_reached() {
    let scene = Scene::new();
    let here = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = here.local_addr().expect("it listens").port();
    for to in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        "192.0.2.1:80".into(),
    ] {
        let reply = scene.ask_json("POST", "/v1/pipes", &serde_json::json!({"name": "x", "to": to}));
        assert_eq!((reply.status, reply.code().as_str()), (403, "not-allowed"), "{to}");
    }
    // The pipe's name is free again.
    let other: TcpStream = scene.pipe("x");
    drop(other);
}
