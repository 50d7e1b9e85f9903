//! The state that the node reports.

use crate::scene::{Scene, TEST_TIMEOUT, TOKEN};

#[test]
fn the_state_is_that_of_the_node() {
    let scene = Scene::new();
    let get = |path: &str| {
        let reply = scene.ask("GET", path, b"");
        assert_eq!((reply.status, reply.field("content-type")), (200, Some("application/json")), "{path}");
        assert_eq!(reply.field("cache-control"), Some("no-store"));
        reply.json()
    };
    assert_eq!(get("/v1/version")["api"], "v1");
    assert_eq!(get("/v1/node")["public_key"], scene.here.0.public_identity().to_string());
    assert_eq!(get("/v1/status")["node_id"], scene.here.0.id().to_string());
    assert_eq!(get("/v1/networks")[0]["id"], scene.here.1.id().to_string());
    let peers = get("/v1/peers");
    assert!(peers.to_string().contains(&scene.there.1.address().to_string()), "{peers}");
    let interfaces = get("/v1/interfaces");
    let names: Vec<_> =
        interfaces.as_array().expect("a list").iter().map(|one| one["name"].as_str()).collect();
    assert!(names.contains(&Some("lo")), "{names:?}");
    assert_eq!(get("/v1/openapi.json")["openapi"], "3.1.0");
    let metrics = scene.ask("GET", "/v1/metrics", b"");
    assert_eq!(metrics.field("content-type"), Some("text/plain; version=0.0.4"));
    assert!(metrics.text().contains("# TYPE peersock_node_uptime_seconds gauge\n"));
}

#[test]
fn events_are_told_as_they_happen() {
    let scene = Scene::new();
    let mut client = scene.client();
    let fields = [format!("Host: {}", scene.at), format!("Authorization: Bearer {TOKEN}")];
    client.begin("GET", "/v1/events", &[&fields[0], &fields[1]], Some(0));
    let head = client.head();
    assert_eq!((head.status, head.field("content-type")), (200, Some("text/event-stream")));
    assert_eq!(client.next_chunk(), Some(b": events\n\n".to_vec()));
    // The other member says goodbye once it has heard that the session is established.
    scene.there.1.wait_peer(scene.here.1.address().into(), TEST_TIMEOUT).expect("they find each other");
    scene.there.1.leave();
    let lost = format!("event: peer-lost\ndata: {{\"id\":\"{}\"}}\n\n", scene.there.0.id());
    loop {
        let chunk = client.next_chunk().expect("events go on");
        if chunk == lost.as_bytes() {
            break;
        }
    }
    assert_eq!(scene.stop(TEST_TIMEOUT), 0, "they end with the server");
    assert_eq!(client.next_chunk(), None);
}
