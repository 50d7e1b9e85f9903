//! Two machines on one cable, on which nodes find each other by beacon, with disturbances of the cable.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::cable::{Cable, ip};
use crate::common::{Lab, PATIENCE, PORT, Running, vanish};

#[test]
fn nodes_on_one_cable_find_each_other_over_ipv4() {
    let Some(cable) = Cable::lay("v4", &["10.98.7.1/24", "10.98.7.2/24"]) else { return };
    carries_a_conversation(&cable);
}

#[test]
fn nodes_on_one_cable_find_each_other_with_nothing_but_link_local_ipv6() {
    let Some(cable) = Cable::lay("v6", &[]) else { return };
    carries_a_conversation(&cable);
}

/// The inner node uses kernel sockets, although the launcher intercepts sockets of programs.
#[test]
fn a_program_under_run_has_a_node_of_its_own_that_others_reach() {
    let Some(cable) = Cable::lay("inner", &["10.98.7.1/24", "10.98.7.2/24"]) else { return };
    let lab = Lab::new();
    let (state, port) = (lab.state("inner"), PORT.to_string());
    let state = state.to_str().expect("a path of the test's own");
    let words =
        [env!("CARGO_BIN_EXE_peersock"), "listen", &port, "--state", state, "--network", &lab.network];
    let listener = cable.run(0, &lab, "launcher", &[], &words);
    let target = listener.wait_for_target();
    let patience = PATIENCE.as_secs().to_string();
    let mut dialer = cable.inside(1, &lab, "dialer", &["dial", &target, "--timeout", &patience]);
    dialer.send(b"over the cable");
    dialer.end_stdin();
    assert_eq!(listener.finish().success().text(), "over the cable");
    dialer.finish().success();
}

#[test]
fn a_stream_outlives_new_addresses_a_dead_cable_and_a_path_that_shrinks() {
    let Some(cable) = Cable::with_filter("moves") else { return };
    cable.takes_datagrams_one_by_one();
    let lab = Lab::new();
    let (listener, mut dialer) = cable.talk(&lab);
    dialer.send(b"at first\n");
    listener.wait_for_stdout("at first\n");

    let mut say = |what: &str| dialer.send(&[&[b'.'; 100_000], what.as_bytes(), b"\n"].concat());
    let hear = |what: &str, since: Instant| {
        listener.wait_for_stdout(what);
        let waited = since.elapsed();
        eprintln!("{what}: {waited:?}");
        assert!(waited < RECOVERY_TIMEOUT, "{what}: {waited:?}");
    };
    let changes = [["10.98.7.1/24", "10.98.7.11/24"], ["10.98.7.2/24", "10.98.7.12/24"]];
    for ([old, new], end) in changes.into_iter().zip(&cable.ends) {
        assert!(ip(["-n", end, "addr", "del", old, "dev", "eth0"]));
        assert!(ip(["-n", end, "addr", "add", new, "dev", "eth0"]));
        say(new);
        hear(new, Instant::now());
    }
    assert!(ip(["-n", &cable.ends[0], "link", "set", "eth0", "down"]));
    say("while the cable was dead");
    // Waits until TCP's retransmission timer has backed off far.
    thread::sleep(Duration::from_secs(14));
    assert!(ip(["-n", &cable.ends[0], "link", "set", "eth0", "up"]));
    hear("while the cable was dead", Instant::now());
    cable.carries_at_most(1300);
    say("over less");
    hear("over less", Instant::now());
}

/// Segments of the connection are lost for three times the peer timeout, while the nodes' own packets pass.
/// The peer is alive, and gets all data when segments pass again.
#[test]
fn a_peer_that_is_there_is_not_given_up_because_segments_are_lost() {
    let Some(cable) = Cable::with_filter("lossy") else { return };
    cable.takes_datagrams_one_by_one();
    for (keep, sends) in [(&[][..], true), (&[][..], false), (&["-k"][..], false)] {
        let lab = Lab::new();
        let port = PORT.to_string();
        let words = [&["listen", &port, "--peer-timeout", "3"], keep].concat();
        let listener = cable.inside(0, &lab, "listener", &words);
        let target = listener.wait_for_target();
        let words = ["dial", &target, "--peer-timeout", "3", "--timeout", "100"];
        let mut dialer = cable.inside(1, &lab, "dialer", &words);
        dialer.send(b"at first\n");
        listener.wait_for_stdout("at first\n");
        cable.loses_segments();
        if sends {
            dialer.send(b"lost at first\n");
        }
        thread::sleep(Duration::from_secs(9));
        if sends {
            dialer.wait_for_stderr("although the peer is alive: it is lost on the way");
        }
        assert_eq!(listener.received(), "at first\n".len(), "the rule finds segments");
        cable.carries(true);
        dialer.send(b"at last\n");
        listener.wait_for_stdout("at last\n");
        if sends {
            dialer.wait_for_stderr("sent data arrives again");
        }
        if keep.is_empty() {
            dialer.interrupt();
            listener.wait_for_end();
        } else {
            assert!(!listener.said().contains("broke"), "{}", listener.said());
            // The peer vanishes, which is detected as before.
            vanish(Signal::STOP, dialer.id());
            listener.wait_for_stderr("the connection broke: the peer does not answer any more");
            listener.interrupt();
        }
    }
}

/// A root on the same cable proves nothing about a NAT, because there is none in between.
#[test]
fn a_root_on_the_cable_says_nothing_about_a_nat() {
    let Some(cable) = Cable::lay("lan", &["10.98.7.1/24", "10.98.7.2/24"]) else { return };
    let lab = Lab::new();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &cable.ends[0], env!("CARGO_BIN_EXE_peersock"), "root", "--announce"]);
    command.arg("--state").arg(lab.state("root"));
    let _root = Running::start(command);
    let listener = cable.inside(1, &lab, "listener", &["listen", "--root", "lan", &PORT.to_string()]);
    listener.wait_for_target();
    let status = || -> Value {
        let status = crate::common::run(lab.command("listener", &["status", "--json"])).success();
        serde_json::from_str(status.text()).expect("JSON")
    };
    let since = Instant::now();
    while status()["roots"][0]["state"] != "registered" {
        assert!(since.elapsed() < PATIENCE, "{}", status());
        thread::sleep(Duration::from_millis(50));
    }
    // Waits longer than a probe of the root takes.
    thread::sleep(Duration::from_secs(6));
    let contact = &status()["contact"];
    assert!(contact["nat"].is_null() && contact["mapping"].is_null(), "{contact}");
    assert!(contact["candidates"].as_array().is_some_and(|all| !all.is_empty()), "{contact}");
    let shown = crate::common::run(lab.command("listener", &["status"])).success();
    assert!(shown.text().contains("\n  NAT: not known (roots and STUN servers beyond"), "{}", shown.text());
}

/// Maximum time without data: the promised second, plus allowance for a busy machine.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(5);

fn carries_a_conversation(cable: &Cable) {
    let lab = Lab::new();
    let (listener, mut dialer) = cable.talk(&lab);
    dialer.send(b"over the cable");
    dialer.end_stdin();
    assert_eq!(listener.finish().success().text(), "over the cable");
    dialer.finish().success();
}
