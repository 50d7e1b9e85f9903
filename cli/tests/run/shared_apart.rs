//! Programs at a shared node learn nothing of each other, and people see each program's use of the node.

use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{io, thread};

use peersock::{Event, Network};
use peersock_attach::{Attached, Wish};
use serde_json::Value;

use crate::common::{PATIENCE, peersock, run};
use crate::lab::{ALPHA, Lab};

/// Client of a server, which says how its attempts end.
const TRIES: &str = "
import socket, sys
for line in sys.stdin:
    try: socket.create_connection((line.strip(), 7000)); print('connected', flush=True)
    except OSError as error: print('error', error.errno, flush=True)";

impl Lab {
    /// Attaches this process to a member's node, as a program with one network.
    fn attach(&self, member: &str, network: &Network) -> Attached {
        let mut wish = Wish::new("curious");
        wish.networks = vec![network.to_portable().to_string()];
        Attached::open(&self.path(member), None, wish, |_| {}).expect("it shares the node")
    }

    fn programs(&self, member: &str) -> Vec<Value> {
        let mut status = peersock(&["status", "--json", "--state"]);
        status.arg(self.path(member));
        let status: Value = serde_json::from_slice(&run(status).stdout).expect("a status");
        status["programs"].as_array().expect("a list").clone()
    }
}

#[test]
fn a_program_of_another_version_is_refused_and_told_of_both() {
    let Some(lab) = Lab::with("a_program_of_another_version", &[]) else { return };
    let kept = lab.keep("alpha");
    let attach = |change: fn(&mut Wish)| {
        let mut wish = Wish::new("other");
        change(&mut wish);
        Attached::open(&lab.path("alpha"), None, wish, |_| {})
    };
    let versions: [fn(&mut Wish); 2] =
        [|wish| wish.package = "9.9.9".to_owned(), |wish| wish.version = u32::MAX];
    for change in versions {
        let said = attach(change).expect_err("it is of another version").to_string();
        assert!(said.contains(&format!("is of peersock {}", env!("CARGO_PKG_VERSION"))), "{said}");
    }
    let said = attach(versions[0]).expect_err("it is of another version").to_string();
    assert!(said.contains("this program is of 9.9.9"), "{said}");
    assert!(attach(|_| ()).is_ok(), "the node serves on");
    drop(kept);
}

/// An attacker at the shared node asks for everything about a network that it has not named.
#[test]
fn a_program_learns_nothing_of_networks_that_it_has_not_named() {
    let Some(lab) = Lab::with("a_program_learns_nothing_of_networks", &["python3"]) else { return };
    let kept = lab.keep("beta");
    let (serving, beside) = (lab.echo("alpha", "7000"), lab.echo("beta", "7001"));
    let named: Network = Network::ad_hoc(lab.ad_hoc().parse().expect("an ID"));
    let members = Network::from_file(lab.path("network.toml")).expect("the lab's network");
    let (curious, member) = (lab.attach("beta", &named), lab.attach("beta", &members));
    let (told, events) = mpsc::channel();
    let (leaked, leaks) = mpsc::channel::<Event>();
    member.subscribe(move |event| told.send(event.clone()).is_ok()).expect("the node runs");
    curious.subscribe(move |event| leaked.send(event.clone()).is_ok()).expect("the node runs");
    let alpha: IpAddr = ALPHA.parse().expect("an address");
    let own: IpAddr = "10.77.0.2".parse().expect("an address");
    member.find(alpha, PATIENCE).expect("it is a member");
    for address in [alpha, own] {
        let absent = |found: io::Result<()>| {
            assert_eq!(found.expect_err("it is not its network").kind(), io::ErrorKind::AddrNotAvailable);
        };
        absent(curious.find(address, Duration::ZERO));
        absent(curious.check_path(address));
        assert_eq!(curious.member_at(address), None);
        assert_eq!(curious.advice(address).as_deref(), Some(""));
    }
    assert!(member.member_at(alpha).is_some());
    assert!(curious.heard(vec![alpha, own]).is_empty());
    assert!(!member.heard(vec![alpha]).is_empty());
    events.recv_timeout(PATIENCE).expect("an event about alpha");
    let status = curious.status().expect("the node runs");
    for secret in ["alpha", "10.77.0", "fd77:", &members.id().to_string(), "python3"] {
        assert!(!status.contains(secret), "{secret} in {status}");
    }
    assert!(member.status().expect("the node runs").contains(ALPHA));
    // All that was sent before the status has come.
    assert!(leaks.try_recv().is_err(), "an event about a member of a foreign network");
    assert_eq!(curious.leave(members.id()), Some(false), "it cannot take a network from others");
    drop((curious, member, serving, beside, kept));
}

#[test]
fn a_line_about_a_silent_member_is_for_programs_that_have_tried_it() {
    let Some(lab) = Lab::with("a_line_about_a_silent_member", &["python3"]) else { return };
    let mut trying = lab.shared("alpha", &["python3", "-c", TRIES]);
    let mut beside = lab.shared("alpha", &["python3", "-c", TRIES]);
    trying.send(b"10.77.0.3\n");
    trying.wait_for_stderr("gamma (10.77.0.3) does not answer");
    // The later line shows that the earlier one would have come, too.
    beside.send(b"10.77.0.2\n");
    beside.wait_for_stderr("beta (10.77.0.2) does not answer");
    assert!(!beside.said().contains("10.77.0.3"), "{}", beside.said());
    assert!(!trying.said().contains("10.77.0.2"), "{}", trying.said());
}

#[test]
fn the_status_has_the_sockets_and_bytes_of_each_program() {
    let Some(lab) = Lab::with("the_status_has_the_sockets_and_bytes", &["python3"]) else { return };
    let serving = lab.echo("alpha", "7000");
    let idle = lab.shared("alpha", &["sleep", "1000"]);
    let mut dial = lab.dial("beta", &["alpha:7000"]);
    dial.send(&[b'x'; 10_000]);
    dial.send(b"\n");
    dial.wait_for_stdout("\n");
    let begun = Instant::now();
    let of = |process: u32| lab.programs("alpha").into_iter().find(|one| one["process"] == process);
    // The last acknowledgement may come later than the data.
    let served = loop {
        let served = of(serving.id()).expect("it is attached");
        if served["sent_bytes"] == 10_001 {
            break served;
        }
        assert!(begun.elapsed() < PATIENCE, "{served}");
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(served["received_bytes"], 10_001);
    assert_eq!(served["streams"], 1);
    assert_eq!(served["listeners"], serde_json::json!([7000]));
    assert_eq!(served["peers"], serde_json::json!(["10.77.0.2"]));
    let begun = Instant::now();
    let unused = loop {
        match of(idle.id()) {
            Some(unused) => break unused,
            None => assert!(begun.elapsed() < PATIENCE, "it is not attached"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!((&unused["sent_bytes"], &unused["streams"]), (&0.into(), &0.into()));
    let mut status = peersock(&["status", "--state"]);
    status.arg(lab.path("alpha"));
    let line =
        format!("python3 (process {}): 1 stream, listens on 7000; 9.8 KiB in, 9.8 KiB out", serving.id());
    let shown = run(status).success();
    assert!(shown.text().contains(&line), "{}", shown.text());
    // Bytes stay counted once a connection has ended.
    dial.finish().success();
    let begun = Instant::now();
    while of(serving.id()).expect("it is attached")["streams"] != 0 {
        assert!(begun.elapsed() < PATIENCE, "the connection stays");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(of(serving.id()).expect("it is attached")["sent_bytes"], 10_001);
}
