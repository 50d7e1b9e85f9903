//! Nodes that reach each other by a TURN server, coturn, where no other path exists. Needs the prerequisites
//! of tests behind NATs, and coturn.

use std::thread;
use std::time::{Duration, Instant};

use peersock_testnet::{Lab as Nats, LocalDht, find_in_path};
use serde_json::Value;

use crate::common::{Lab, PATIENCE, PORT, Running};
use crate::nats::{FIRST, NODES, add_dht_addresses, start, start_root, wait_for_status};

/// Account of the lab's coturn.
const ACCOUNT: &str = "natlab:natlab";

fn entries(dht: &LocalDht) -> String {
    let entries: Vec<_> = dht.entries().iter().map(ToString::to_string).collect();
    format!("--dht={}", entries.join(","))
}

fn build(test: &str) -> Option<Nats> {
    if find_in_path("turnserver").is_none() {
        eprintln!("SKIP {test}: there is no turnserver (coturn)");
        return None;
    }
    // Both NATs map each destination to a new random port, so that punching is impossible.
    Nats::build(test, "relay=turn root=public home=symmetric work=symmetric")
}

/// Returns the relayed address in a node's status.
pub(crate) fn relayed(status: &Value) -> Option<&str> {
    status["turn"].as_array()?.iter().find_map(|turn| turn["relayed"].as_str())
}

/// Sends more than a few packets, and waits until all have arrived.
pub(crate) fn send_much(from: &mut Running, to: &Running) {
    let line = [b'x'; 1023];
    for _ in 0..1000 {
        from.send(&line);
        from.send(b"\n");
    }
    from.send(b"end\n");
    to.wait_for_stdout("end\n");
}

/// Tests that nodes meet if only one side has a TURN server: the listener or the dialer.
fn meets_by_turn(test: &str, listener_has_it: bool) {
    let Some(nats) = build(test) else { return };
    add_dht_addresses(&nats, NODES);
    let dht = nats.within("root", || LocalDht::on_addresses(FIRST, NODES));
    let server = format!("turn:{ACCOUNT}@{}:3478", nats.ip4("relay"));
    let lab = Lab::new();
    let node = |name: &str, words: &[&str], has_turn: bool| {
        let mut command = lab.command(name, words);
        command.args(["--network", &lab.network, &entries(&dht)]);
        if has_turn {
            command.env("PEERSOCK_TURN", &server);
        }
        command
    };
    let listening = node("listener", &["listen", &PORT.to_string()], listener_has_it);
    let mut listening = start(&nats, "home1", listening);
    let target = listening.wait_for_target();
    let (with_turn, without) = if listener_has_it { ("listener", "dialer") } else { ("dialer", "listener") };
    if listener_has_it {
        wait_for_status(&lab, with_turn, |now| relayed(now).is_some());
    }
    let since = Instant::now();
    let mut dialing = start(&nats, "work1", node("dialer", &["dial", &target], !listener_has_it));
    dialing.send(b"by TURN\n");
    listening.wait_for_stdout("by TURN\n");
    eprintln!("first byte {:?} after the start of dial", since.elapsed());
    listening.send(b"and back\n");
    dialing.wait_for_stdout("and back\n");

    // The status of both nodes: the node without a TURN server reaches the other one at the server.
    let here = wait_for_status(&lab, with_turn, |now| now["peers"][0]["turn"] == true);
    let relay = relayed(&here).expect("an address on the server").to_owned();
    assert!(relay.starts_with(&format!("{}:", nats.ip4("relay"))), "{here:#}");
    let kinds = here["contact"]["candidates"].as_array().expect("some").iter();
    assert!(kinds.clone().any(|one| one["kind"] == "relayed" && one["address"] == *relay), "{here:#}");
    let there = wait_for_status(&lab, without, |now| now["peers"][0]["turn"] == true);
    assert_eq!(there["peers"][0]["path"], *relay, "{there:#}");
    assert!(!format!("{here}").contains("natlab:"), "the password is not told: {here:#}");

    // The data then goes through a channel.
    send_much(&mut dialing, &listening);
    dialing.end_stdin();
    listening.finish().success();
    dialing.finish().success();
}

#[test]
fn who_listens_behind_a_bad_nat_is_reached_by_its_turn_server() {
    meets_by_turn("turn-listens", true);
}

#[test]
fn who_dials_from_behind_a_bad_nat_does_so_by_its_turn_server() {
    meets_by_turn("turn-dials", false);
}

/// The root is nearer, and answers all requests, but relays only 2 kB/s.
#[test]
fn a_turn_server_carries_what_a_root_does_not_relay() {
    let Some(nats) = build("turn-off") else { return };
    let (root, address) = start_root(&nats, &["--no-relay"]);
    let lab = Lab::new();
    let node = |name: &str, words: &[&str]| {
        let mut command = lab.command(name, words);
        // Prevents TCP connections between the nodes.
        command.args(["--network", &lab.network, "--root", &address, "--no-tcp-punch"]);
        command
    };
    let listening = node("listener", &["listen", &PORT.to_string()]);
    let listening = start(&nats, "home1", listening);
    let target = listening.wait_for_target();
    let mut dialing = node("dialer", &["dial", &target]);
    dialing.env("PEERSOCK_TURN", format!("turn:{ACCOUNT}@{}:3478", nats.ip4("relay")));
    let mut dialing = start(&nats, "work1", dialing);
    dialing.send(b"first by the root\n");
    listening.wait_for_stdout("first by the root\n");
    for name in ["dialer", "listener"] {
        let now = wait_for_status(&lab, name, |now| now["peers"][0]["turn"] == true);
        assert_eq!(now["roots"][0]["relays"], false, "{now:#}");
    }

    // The root would take eight minutes for this data.
    send_much(&mut dialing, &listening);
    for name in ["dialer", "listener"] {
        wait_for_status(&lab, name, |now| now["peers"][0]["turn"] == true);
    }
    dialing.end_stdin();
    listening.finish().success();
    dialing.finish().success();
    root.interrupt();
}

#[test]
fn a_server_that_refuses_is_named_and_the_allocation_is_given_back_at_the_end() {
    let Some(nats) = build("turn-refuses") else { return };
    add_dht_addresses(&nats, NODES);
    let dht = nats.within("root", || LocalDht::on_addresses(FIRST, NODES));
    let lab = Lab::new();
    let node = |name: &str, account: &str| {
        let mut command = lab.command(name, &["listen", "-k", "0"]);
        command.args(["--network", &lab.network, &entries(&dht)]);
        command.arg(format!("--turn=turn:{account}@{}", nats.ip4("relay")));
        command
    };
    let wrong = start(&nats, "home1", node("wrong", "natlab:guessed"));
    wrong.wait_for_target();
    let refused = wait_for_status(&lab, "wrong", |now| now["turn"][0]["error"].is_string());
    let error = refused["turn"][0]["error"].as_str().expect("an error");
    assert_eq!(error, "the server does not accept the user name or the password");
    wrong.interrupt();

    let right = start(&nats, "home1", node("right", ACCOUNT));
    right.wait_for_target();
    let granted = wait_for_status(&lab, "right", |now| relayed(now).is_some());
    let relay = relayed(&granted).expect("an address").to_owned();
    let port = relay.rsplit(':').next().expect("a port").to_owned();
    let is_open = || {
        let sockets = nats.natlab(&["exec", "relay", "--", "ss", "-Hnul"]);
        sockets.lines().any(|line| line.contains(&format!(":{port} ")))
    };
    assert!(is_open(), "coturn has the port open");
    right.interrupt();
    let deadline = Instant::now() + PATIENCE;
    while is_open() {
        assert!(Instant::now() < deadline, "the allocation was not given back");
        thread::sleep(Duration::from_millis(100));
    }
}
