//! Two programs behind NATs lose the path that carries their data: UDP, the direct path, or all roots. The
//! data is back within a second and two round trips, counted from the loss, or from the return of what was
//! lost if there is no other path. Needs root and `natlab`.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::flow::{NODES, ROOTS, Record, SITES, Scene, assert_all_arrives, write_to_both};
use crate::nats::wait_for_status;

/// Allowances for a busy machine: the number of measurements, an addition for the best of them, and one for
/// each. The simulator needs none.
const MEASUREMENTS: usize = 3;
const PAUSES: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(3);

/// Duration of a fault, and time in which data is awaited after it.
const FAULT_TIME: Duration = Duration::from_secs(6);
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(3);

/// Amount of data in one write, in bytes, and pause between two writes.
const CHUNK_BYTES: usize = 2000;
const CHUNK_INTERVAL: Duration = Duration::from_millis(10);

/// Rule that drops all UDP that a box forwards, and the rule's removal.
const NO_UDP: [&str; 2] = [
    "table inet no_udp { chain passing { type filter hook forward priority 0; meta l4proto udp drop; }; }",
    "delete table inet no_udp",
];

/// One-way delays of the links of sites, roots, and roots far away, in milliseconds.
const SITE: u64 = 5;
const NEAR: u64 = 5;
const FAR: u64 = 50;

/// Returns the words for some roots, with this one-way delay in milliseconds, and two sites of one kind.
fn topology(roots: &[&str], far: u64, kind: &str) -> String {
    let roots = roots.iter().map(|root| format!("{root}=public:link.delay={far} ")).collect::<String>();
    roots + &SITES.map(|site| format!("{site}={kind}:link.delay={SITE}")).join(" ")
}

/// Returns the promised time: a second, and two round trips by a root with this delay.
fn promised(far: u64) -> Duration {
    Duration::from_millis(1000 + 2 * 4 * (SITE + far))
}

// Nodes return to UDP some ten seconds after they can, so each scene has a test. The simulator has the one
// without UDP between nodes at both sites.
#[test]
fn bytes_flow_again_within_a_second_when_udp_to_the_roots_is_dropped_at_one_site() {
    drop_udp("udp-relayed", "symmetric", &SITES[..1]);
}

#[test]
fn bytes_flow_again_within_a_second_when_udp_to_the_roots_is_dropped_at_both_sites() {
    drop_udp("udps-relayed", "symmetric", &SITES);
}

#[test]
fn bytes_flow_again_within_a_second_when_udp_between_the_nodes_is_dropped_at_one_site() {
    drop_udp("udp-direct", "port-restricted", &SITES[..1]);
}

fn drop_udp(name: &str, kind: &str, sites: &[&str]) {
    let Some(mut scene) = Scene::with_streams(name, &topology(&ROOTS, NEAR, kind)) else { return };
    let stalls = measure(&mut scene, kind == "port-restricted", |scene| {
        let begin = Instant::now();
        sites.iter().for_each(|site| scene.nft(site, NO_UDP[0]));
        let cut = Instant::now();
        thread::sleep(FAULT_TIME);
        let end = Instant::now();
        sites.iter().for_each(|site| scene.nft(site, NO_UDP[1]));
        [begin, cut, end]
    });
    assert_is_back(&format!("no UDP at {}", sites.join(" and ")), &stalls, promised(NEAR));
}

#[test]
fn bytes_flow_by_roots_far_away_within_a_second_when_the_direct_path_is_cut() {
    let Some(mut scene) = Scene::build("far-roots", &topology(&ROOTS, FAR, "port-restricted")) else {
        return;
    };
    let [home, work] = scene.outer();
    let ways = [(home, work), (work, home)];
    let stalls = measure(&mut scene, true, |scene| {
        let begin = Instant::now();
        ways.iter().for_each(|(from, to)| scene.block(SITES[0], *from, *to));
        let cut = Instant::now();
        thread::sleep(FAULT_TIME);
        let end = Instant::now();
        ways.iter().for_each(|(from, to)| scene.unblock(SITES[0], *from, *to));
        [begin, cut, end]
    });
    assert_is_back("no direct path", &stalls, promised(FAR));
}

#[test]
fn bytes_flow_again_within_a_second_when_all_roots_were_killed_and_one_is_back() {
    for roots in [&ROOTS[..1], &ROOTS] {
        let words = topology(roots, NEAR, "symmetric");
        let Some(mut scene) = Scene::build(&format!("killed-{}", roots.len()), &words) else { return };
        let stalls = measure(&mut scene, false, |scene| {
            let killed = Instant::now();
            (0..roots.len()).for_each(|number| scene.kill_root(number));
            thread::sleep(FAULT_TIME);
            scene.start_root(0);
            let back = Instant::now();
            (1..roots.len()).for_each(|number| scene.start_root(number));
            thread::sleep(RECOVERY_TIMEOUT);
            [killed, back, Instant::now()]
        });
        assert_is_back(&format!("{} killed", roots.join(" and ")), &stalls, promised(NEAR));
    }
}

/// Returns the longest time without a byte at either side, for each of some faults. The fault returns when it
/// began, from when the time counts, and until when data was awaited.
fn measure(scene: &mut Scene, is_direct: bool, fault: impl Fn(&mut Scene) -> [Instant; 3]) -> Vec<Duration> {
    let mut programs = scene.connect();
    let writers = write_to_both(&mut programs, CHUNK_BYTES, CHUNK_INTERVAL);
    let record = Record::default();
    let stalls = record.during(&programs, || {
        let mut stalls = Vec::new();
        for _ in 0..MEASUREMENTS {
            for node in NODES {
                wait_for_status(&scene.lab, node, |now| is_whole(now, is_direct));
            }
            thread::sleep(Duration::from_secs(1));
            let times = fault(scene);
            stalls.push((0..NODES.len()).map(|side| record.stall(side, times)).max().expect("two sides"));
        }
        stalls
    });
    assert_all_arrives(programs, writers);
    stalls
}

/// Returns true if the path is direct or relayed, as wanted, and every root is reached by UDP.
fn is_whole(now: &Value, is_direct: bool) -> bool {
    let peer = &now["peers"][0];
    let is_by_udp = |root: &Value| root["state"] == "registered" && root["stream"].is_null();
    peer["path"].is_string()
        && peer["root"].is_null() == is_direct
        && now["roots"].as_array().is_some_and(|all| all.iter().all(is_by_udp))
}

fn assert_is_back(what: &str, stalls: &[Duration], promised: Duration) {
    eprintln!("{what}: {stalls:?} without a byte, {promised:?} are promised");
    assert!(stalls.iter().min().is_some_and(|stall| *stall <= promised + PAUSES), "{what}: {stalls:?}");
    assert!(stalls.iter().all(|stall| *stall <= promised + SLACK), "{what}: {stalls:?}");
}
