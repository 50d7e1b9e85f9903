//! Messages of `listen`, `dial` and `ping` about their roots while they run.

use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::Identity;
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Lab, PATIENCE, PORT, Running, run, signal, write_file};
use crate::root::Root;

#[test]
fn a_listener_says_once_that_a_root_is_lost_and_that_it_is_back() {
    let lab = Lab::new();
    let state = lab.state("root");
    let state = state.to_str().unwrap();
    let root = Root::start_with(&["--state", state, "--port", "0"]);
    let mut command = lab.node("listener", &["listen", "-v", &PORT.to_string()]);
    command.args(["--root", &root.text()]);
    let listening = Running::start(command);
    let line = |words: &str| format!("peersock: the root at {} {words}", root.address);
    let registered_s = || {
        let status = run(lab.command("listener", &["status", "--json"]));
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["roots"][0]["registered_s"].as_f64()
    };
    let deadline = Instant::now() + PATIENCE;
    while registered_s() < Some(0.5) {
        assert!(Instant::now() < deadline, "it is not registered: {}", listening.said());
        thread::sleep(Duration::from_millis(20));
    }
    let (identity, address) = (root.identity, root.address);
    signal(Signal::TERM, root.running.id());
    let lost = line("is lost");
    root.running.finish();
    listening.wait_for_stderr(&lost);
    assert_eq!(registered_s(), None, "it is not registered where nobody answers");
    assert!(
        listening.said().contains(&format!("peer={} (a root)", identity.node_id())),
        "{}",
        listening.said()
    );

    let begin = Instant::now();
    let back = Root::start_with(&["--state", state, "--port", &address.port().to_string()]);
    assert_eq!(back.identity, identity);
    listening.wait_for_stderr("takes this node again");
    let seconds = registered_s().expect("it is registered");
    assert!(seconds <= begin.elapsed().as_secs_f64(), "{seconds} s, with the time before the outage");
    let said = listening.interrupt().stderr;
    for words in [&lost, "takes this node again"] {
        assert_eq!(said.matches(words).count(), 1, "{words}: {said}");
    }
}

#[test]
fn dial_and_ping_say_that_a_root_is_lost_as_a_listener_does() {
    let lab = Lab::new();
    let root = Root::start(&[]);
    let with_root = |mut command: Command| {
        command.args(["--root", &root.text()]);
        Running::start(command)
    };
    let listening = with_root(lab.node("listener", &["listen", &PORT.to_string()]));
    let target = listening.wait_for_target();
    let mut dialing = with_root(lab.node("dialer", &["dial", &target]));
    dialing.send(b"x");
    listening.wait_for_stdout("x");
    let address = target.rsplit_once(':').unwrap().0.trim_matches(['[', ']']).to_owned();
    let pinging = with_root(lab.node("pinger", &["ping", "-i", "0.1", &address]));
    pinging.wait_for_stdout("seq=2 ");
    for node in ["dialer", "pinger"] {
        let deadline = Instant::now() + PATIENCE;
        while !run(lab.command(node, &["status"])).text().contains(": registered for ") {
            assert!(Instant::now() < deadline, "{node} is not registered");
            thread::sleep(Duration::from_millis(20));
        }
    }
    // Waits until the root was seen registered.
    thread::sleep(Duration::from_secs(2));
    signal(Signal::KILL, root.running.id());
    let lost = format!("peersock: the root at {} is lost", root.address);
    dialing.wait_for_stderr(&lost);
    pinging.wait_for_stderr(&lost);
    dialing.send(b"y");
    listening.wait_for_stdout("xy");
    pinging.interrupt().failure(0, &[]);
    dialing.interrupt().failure(130, &[]);
    listening.wait_for_end();
}

#[test]
fn a_listener_says_that_a_root_refuses_it_or_does_not_answer() {
    let lab = Lab::new();
    let token = lab.dir.path().join("token");
    write_file(&token, "open sesame\n", 0o600);
    let root = Root::start(&["--access-token-file", token.to_str().unwrap()]);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = Identity::from_seed(&[77; 32]);
    let mut command = lab.node("listener", &["listen", &PORT.to_string(), "--root", &root.text()]);
    command.args(["--root", &format!("{}@{}", other.public(), silent.local_addr().unwrap())]);
    let listening = Running::start(command);
    let refused = listening.wait_for_stderr(&format!("the root at {} refuses this node", root.address));
    assert!(refused.contains("token"), "{refused}");
    listening.wait_for_stderr(&format!("the root at {} does not answer", silent.local_addr().unwrap()));
    listening.interrupt();
}

#[test]
fn the_cause_of_a_silent_root_is_said_once() {
    let lab = Lab::new();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let root = format!("{}@{}", Identity::from_seed(&[78; 32]).public(), silent.local_addr().unwrap());
    let printed = run(lab.command("other", &["addr", "-n", &lab.network]));
    let target = printed.text().trim();
    let end = format!("[{target}]:{PORT}");
    let silence = format!("the root at {} ", silent.local_addr().unwrap());
    // A note comes first if the timeout is long. The node may be the program's own or shared.
    let cases = ["dial", "ping"].into_iter().flat_map(|command| {
        [("10", false), ("10", true), ("0.5", false)]
            .map(|(timeout, is_shared)| (command, timeout, is_shared))
    });
    let start = |(command, timeout, is_shared)| {
        let whom = if command == "dial" { &end[..] } else { target };
        let case = format!("{command}-{timeout}-{is_shared}");
        let mut command = lab.node(&case, &[command, whom]);
        command.args(["--root", &root, "--timeout", timeout]);
        if is_shared {
            command.env_remove("PEERSOCK_OWN_NODE");
        }
        (case, Running::start(command))
    };
    for (case, running) in cases.map(start).collect::<Vec<_>>() {
        let said = running.finish().stderr;
        for cause in ["check that it runs", "wss:"] {
            assert_eq!(said.matches(cause).count(), 1, "{case}: {said}");
        }
        let (before, hint) = said.split_once("hint: ").expect("advice");
        assert!(hint.starts_with(&silence), "{case}: {said}");
        let is_noted = before.contains("check that it runs");
        assert_eq!(hint.contains("as said above"), is_noted, "{case}: {said}");
    }
}
