//! `ping`, `status` and `demo`.

use crate::common::{Lab, PORT, Running, peersock, run};
use serde_json::Value;

#[test]
fn ping_prints_replies_and_a_summary() {
    let lab = Lab::new();
    let listening = lab.listen(&[&PORT.to_string()]);
    let address = listening.target.rsplit_once(':').unwrap().0.trim_matches(['[', ']']).to_owned();
    let ping = run(lab.node("pinger", &["ping", "-c", "3", "-i", "0.01", &address])).success();
    for words in ["seq=1 ", "seq=3 ", "3 requests transmitted, 3 replies received, 0% loss", "round trip"] {
        assert!(ping.text().contains(words), "{words:?} is not in: {}", ping.text());
    }

    let ping = run(lab.node("pinger", &["ping", "--json", "-c", "2", "-i", "0.01", &address])).success();
    let json: Value = serde_json::from_str(ping.text()).unwrap();
    assert_eq!((&json["transmitted"], &json["received"]), (&Value::from(2), &Value::from(2)));
    assert!(json["median_ms"].as_f64().unwrap() > 0.0);

    let endless = Running::start(lab.node("pinger", &["ping", "-i", "0.01", &address]));
    endless.wait_for_stdout("seq=2 ");
    let endless = endless.interrupt();
    endless.failure(130, &[]);
    assert!(endless.text().contains("ping statistics"), "{}", endless.text());
}

#[test]
fn ping_of_nobody_fails() {
    let lab = Lab::new();
    let absent = run(lab.command("absent", &["addr", &lab.network])).success().text().trim().to_owned();
    run(lab.node("pinger", &["ping", "--timeout", "0.5", &absent])).failure(1, &["nobody", &absent]);
    run(lab.node("pinger", &["ping", "somewhere"])).failure(2, &["somewhere"]);
}

#[test]
fn status_shows_the_running_node_and_its_peers() {
    let lab = Lab::new();
    run(lab.command("listener", &["status"])).failure(1, &["no node is running"]);

    let mut listening = lab.listen(&[&PORT.to_string()]);
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");

    let status = run(lab.command("listener", &["status"])).success();
    let node_id = |node: &str| {
        let id = run(lab.command(node, &["id", "--json"])).success();
        serde_json::from_str::<Value>(id.text()).unwrap()["node_id"].as_str().unwrap().to_owned()
    };
    for words in [&node_id("listener"), &node_id("dialer"), &lab.network, "127.0.0.1", "session over"] {
        assert!(status.text().contains(words), "{words:?} is not in: {}", status.text());
    }
    let json = run(lab.command("listener", &["status", "--json"])).success();
    let json: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(json["peers"][0]["id"], node_id("dialer").as_str());
    assert_eq!(json["peers"][0]["connected"], true);

    dialing.end_stdin();
    listening.running.end_stdin();
    dialing.finish().success();
    listening.running.finish().success();
    run(lab.command("listener", &["status"])).failure(1, &["no node is running"]);
    run(peersock(&["status", "--ephemeral"])).failure(2, &["ephemeral"]);
}

#[test]
fn the_demonstration_reports_everything_it_promises() {
    let demo = run(peersock(&["demo", "--size", "3MiB"])).success();
    for words in [
        "server       node ",
        "client       node ",
        "at   fd",
        "path ",
        "127.0.0.1:",
        "cipher suite ",
        "first byte ",
        "throughput ",
        "p50 ",
        "p99 ",
        "verified",
    ] {
        assert!(demo.text().contains(words), "{words:?} is not in: {}", demo.text());
    }
    assert_eq!(demo.stderr, "");
}

#[test]
fn the_demonstration_speaks_json() {
    let demo = run(peersock(&["demo", "--size", "100k", "--json"])).success();
    let json: Value = serde_json::from_str(demo.text()).unwrap();
    assert_eq!(json["verified"], true);
    assert_eq!(json["size"], 102_400);
    assert_ne!(json["server"]["node_id"], json["client"]["node_id"]);
    for field in ["throughput_bits_per_second", "first_byte_ms", "ping_pong_p50_us", "ping_pong_p99_us"] {
        assert!(json[field].as_f64().unwrap() > 0.0, "{field}");
    }
}

#[test]
fn an_interrupted_demonstration_leaves_nothing_behind() {
    // Too much to be finished before the interrupt, and not enough to matter if it is not touched.
    let demo = Running::start(peersock(&["demo", "--size", "2GiB"]));
    let parent = demo.id();
    let children = wait_for_children(parent);
    demo.interrupt().failure(130, &[]);
    for child in children {
        assert!(!std::path::Path::new(&format!("/proc/{child}")).exists(), "process {child} is left");
    }
}

#[test]
fn a_killed_demonstration_takes_its_processes_with_it() {
    let demo = Running::start(peersock(&["demo", "--size", "2GiB"]));
    let children = wait_for_children(demo.id());
    // Dropping kills the parent, which then has no chance to tell its children.
    drop(demo);
    let deadline = std::time::Instant::now() + crate::common::PATIENCE;
    while children.iter().any(|child| is_running(*child)) {
        assert!(std::time::Instant::now() < deadline, "the children outlive their parent");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The two processes that a demonstration starts.
fn wait_for_children(parent: u32) -> Vec<u32> {
    let deadline = std::time::Instant::now() + crate::common::PATIENCE;
    loop {
        let mut children = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{parent}/task")).unwrap() {
            let list = task.unwrap().path().join("children");
            let list = std::fs::read_to_string(list).unwrap_or_default();
            children.extend(list.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
        if children.len() == 2 {
            return children;
        }
        assert!(std::time::Instant::now() < deadline, "the demonstration starts no processes");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A process that has ended but that nobody has waited for does not count.
fn is_running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
