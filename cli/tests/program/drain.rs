//! A relaying root is asked to end: both nodes move to their other root before it is gone.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::flow::{NODES, ROOTS, Record, Scene, assert_all_arrives, write_to_both};
use crate::nats::wait_for_status;

/// Maximum stall. No packet is lost and no failure must be detected, because a working path is exchanged for
/// another; this allows for a busy machine.
const STALL: Duration = Duration::from_secs(2);

#[test]
fn bytes_flow_on_when_the_root_that_relays_them_is_told_to_end() {
    let site = |name: &str| format!("{name}=symmetric:link.delay=5");
    let topology = format!("root1=public root2=public {} {}", site("home"), site("work"));
    let Some(mut scene) = Scene::build("drain", &topology) else { return };
    let mut programs = scene.connect();
    let addresses = ROOTS.map(|root| format!("{}:7420", scene.nats.ip4(root)));
    let root_of = |now: &Value| {
        let path = now["peers"][0]["path"].as_str()?;
        addresses.iter().position(|address| address == path)
    };
    let relayed = wait_for_status(&scene.lab, NODES[0], |now| root_of(now).is_some());
    let first = root_of(&relayed).expect("it was there");
    let writers = write_to_both(&mut programs, 2000, Duration::from_millis(10));
    let record = Record::default();
    let [began, ended] = record.during(&programs, || {
        thread::sleep(Duration::from_secs(1));
        let began = Instant::now();
        let ending = scene.end_root(first);
        for node in NODES {
            wait_for_status(&scene.lab, node, |now| root_of(now) == Some(1 - first));
        }
        ending.finish().success();
        thread::sleep(Duration::from_secs(1));
        [began, Instant::now()]
    });
    for (side, node) in NODES.into_iter().enumerate() {
        let stall = record.stall(side, [began, began, ended]);
        eprintln!("{stall:?} without a byte at the {node}");
        assert!(stall < STALL, "{stall:?} without a byte at the {node}");
    }
    assert_all_arrives(programs, writers);
}

/// Neither few ports nor many connect these two boxes. A round of tries takes 16 s, and ping reports the
/// result at its end.
#[test]
fn ping_says_why_there_is_no_direct_path() {
    let Some(scene) = Scene::build("why", "root1=public root2=public home=symmetric work=symmetric") else {
        return;
    };
    let [mut listening, ping] = scene.listen_and(&["ping", "-c", "1000", "-i", "0.5"]);
    ping.wait_for_state(&scene.lab, NODES[0]);
    let outer = scene.nats.ip4("work").to_string();
    let is_unanswered = |attempt: &Value| {
        let says = |key: &str, what: &str| attempt[key].as_str().is_some_and(|text| text.contains(what));
        says("address", &outer) && says("outcome", "no answer")
    };
    wait_for_status(&scene.lab, NODES[0], |now| {
        let attempts = now["peers"][0]["attempts"].as_array();
        attempts.is_some_and(|attempts| attempts.iter().any(is_unanswered))
    });
    let ping = ping.interrupt();
    let reasons: Vec<&str> =
        ping.text().lines().filter_map(|line| line.strip_prefix("not direct: ")).collect();
    let tried = reasons.iter().find(|reason| reason.contains(&outer) && reason.contains("no answer"));
    assert!(tried.is_some(), "{}", ping.text());
    listening.end_stdin();
}
