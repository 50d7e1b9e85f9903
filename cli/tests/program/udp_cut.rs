//! A site starts to drop all UDP while data flows: the data moves to a stream to a root, and back to UDP when
//! that works again. Needs root and `natlab`.

use std::thread;
use std::time::{Duration, Instant};

use crate::flow::{NODES, Record, SITES, Scene, assert_all_arrives, write_to_both};
use crate::nats::wait_for_status;

/// Promised time: a second, and two round trips by the root.
const PROMISED: Duration = Duration::from_millis(1000 + 2 * 40);

/// Allowances for a busy machine: the number of measurements, an addition for the best of them, and one for
/// each. The simulator needs none.
const TRIES: usize = 3;
const PAUSES: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(3);

/// Pause between two writes.
const PAUSE: Duration = Duration::from_millis(10);

#[test]
fn bytes_flow_again_within_a_second_when_all_udp_is_dropped() {
    // The path is relayed from the beginning, or direct.
    for (kind, name) in [("symmetric", "udp-cut-relayed"), ("port-restricted", "udp-cut-direct")] {
        let sites = SITES.map(|site| format!("{site}={kind}:link.delay=5")).join(" ");
        let topology = format!("root1=public:link.delay=5 root2=public:link.delay=5 {sites}");
        let Some(scene) = Scene::with_streams(name, &topology) else { return };
        let stalls = measure(&scene, kind == "port-restricted");
        eprintln!("{kind}: {stalls:?} without a byte");
        assert!(stalls.iter().min().is_some_and(|stall| *stall <= PROMISED + PAUSES), "{kind}: {stalls:?}");
        assert!(stalls.iter().all(|stall| *stall <= PROMISED + SLACK), "{kind}: {stalls:?}");
    }
}

/// Returns the longest time without a byte at either side, for each time that UDP is dropped.
fn measure(scene: &Scene, is_direct: bool) -> Vec<Duration> {
    let by_udp = |node: &str| {
        wait_for_status(&scene.lab, node, |now| {
            let is_relayed = now["peers"][0]["root"].is_string();
            is_relayed != is_direct && now["roots"].as_array().is_some_and(|all| all.iter().all(is_by_udp))
        });
    };
    let mut programs = scene.connect();
    let writers = write_to_both(&mut programs, 2000, PAUSE);
    let record = Record::default();
    let mut stalls = Vec::new();
    record.during(&programs, || {
        for _ in 0..TRIES {
            NODES.iter().for_each(|node| by_udp(node));
            thread::sleep(Duration::from_secs(1));
            scene.nft(
                SITES[0],
                "table inet no_udp { chain passing { type filter hook forward priority 0; \
                   meta l4proto udp drop; }; }",
            );
            let cut = Instant::now();
            thread::sleep(Duration::from_secs(6));
            let end = Instant::now();
            let stall = (0..NODES.len()).map(|side| record.stall(side, [cut, cut, end]));
            stalls.push(stall.max().expect("two sides"));
            scene.nft(SITES[0], "delete table inet no_udp");
        }
    });
    assert_all_arrives(programs, writers);
    stalls
}

fn is_by_udp(root: &serde_json::Value) -> bool {
    root["state"] == "registered" && root["stream"].is_null()
}
