//! `PEERSOCK_INVITE` of commands that use a network, as in a container: the machine joins first.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::common::{Finished, Running, run, signal, wait_until};
use crate::machines::Machines;

fn invited(machines: &Machines, machine: &str, invite: &str, words: &[&str]) -> Command {
    let mut command = machines.command(machine, words);
    command.env("PEERSOCK_INVITE", invite);
    command
}

fn text(finished: &Finished) -> String {
    String::from_utf8_lossy(&finished.stdout).into_owned()
}

#[test]
fn a_program_runs_in_a_network_that_its_machine_has_not_joined_before() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    let invite = machines.invite(&["--name", "beta"]);
    let shown = "echo \"invite [$PEERSOCK_INVITE]\"";
    let words = ["run", "-q", "--", "sh", "-c", shown];
    let first = run(invited(&machines, "beta", &invite, &words)).success();
    assert_eq!(text(&first), "invite []\n", "{}", first.stderr);
    assert!(first.stderr.contains("joined team as beta, 10.77.0.2"), "{}", first.stderr);
    // The machine is a member already, also without the controller.
    drop(serving);
    let again = run(invited(&machines, "beta", &invite, &words)).success();
    assert_eq!(text(&again), "invite []\n");
    assert!(!again.stderr.contains("joined"), "{}", again.stderr);
    let named = ["run", "-n", "team", "-q", "--", "sh", "-c", shown];
    run(invited(&machines, "beta", &invite, &named)).success();
    assert!(machines.ok("beta", &["networks"]).contains("10.77.0.2"));
}

#[test]
fn each_command_with_a_network_joins_by_the_variable() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let invite = || machines.invite(&[]);
    let beta = machines.invite(&["--name", "beta"]);
    let words = ["listen", "-k", "7000", "--exec", "env"];
    let listening = Running::start(invited(&machines, "beta", &beta, &words));
    let how = listening.wait_for_stderr("connect with: peersock dial ");
    assert!(how.starts_with(&format!("-n {id} ")), "{how}");
    let mut dial = invited(&machines, "gamma", &invite(), &["dial", "beta:7000"]);
    dial.env("PEERSOCK_OWN_NODE", "1");
    let dialed = run(dial).success();
    let environment = text(&dialed);
    assert!(environment.contains("PEERSOCK_PEER_NETWORK="), "{environment}");
    assert!(!environment.contains("PEERSOCK_INVITE"), "{environment}");
    for (machine, words, ready) in [
        ("epsilon", &["proxy", "--listen", "0"][..], "a proxy for"),
        ("zeta", &["receive", "--yes"], "waiting for files"),
    ] {
        let running = Running::start(invited(&machines, machine, &invite(), words));
        running.wait_for_stderr(ready);
    }
    let words = ["forward", "0", "beta:7000"];
    Running::start(invited(&machines, "delta", &invite(), &words)).wait_for_stdout("\n");
    assert_eq!(machines.members().len(), 6);
}

#[test]
fn who_is_not_admitted_starts_no_program() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let used = machines.invite(&["--name", "beta"]);
    machines.ok("beta", &["join", &used]);
    let place = machines.directory("started");
    let started = format!("touch '{}'", place.display());
    let words = ["run", "-q", "--", "sh", "-c", &started];
    for (invite, said) in [
        (&*used, "as often as it may be"),
        ("peersock://nonsense/AAAA", "correct or unset PEERSOCK_INVITE"),
        ("-", "stdin belongs to the command"),
        ("no/such/file", "correct or unset PEERSOCK_INVITE"),
    ] {
        let refused = run(invited(&machines, "gamma", invite, &words));
        assert!(!refused.status.success() && refused.stderr.contains(said), "{invite}: {}", refused.stderr);
    }
    let ephemeral = ["run", "-q", "--ephemeral", "--", "sh", "-c", &started];
    let mut refused = invited(&machines, "gamma", &machines.invite(&[]), &ephemeral);
    refused.env_remove("PEERSOCK_STATE");
    run(refused).failure(2, &["PEERSOCK_INVITE is for a machine that is found again"]);
    assert!(!place.exists());
    assert_eq!(machines.ok("gamma", &["networks"]), "");
    // Another network needs no invite, and a name that leads to none does not use the invite up.
    run(invited(&machines, "gamma", "nonsense", &["run", "-q", "-n", "ff0001ffff000000", "--", "true"]))
        .success();
    let unnamed = machines.invite(&["--name", "gamma"]);
    let other = run(invited(&machines, "gamma", &unnamed, &["run", "-q", "-n", "office", "--", "true"]));
    other.failure(2, &["`office` is neither a network"]);
    assert_eq!(machines.ok("gamma", &["networks"]), "");
    run(invited(&machines, "gamma", &unnamed, &["run", "-q", "-n", "team", "--", "true"])).success();
    // A machine that was removed is one again by another invite.
    machines.ok("alpha", &["network", "revoke", "beta"]);
    let again = machines.invite(&["--name", "beta"]);
    run(invited(&machines, "beta", &again, &["run", "-q", "-n", &id, "--", "true"])).success();
}

#[test]
fn a_join_ends_with_the_command_that_waits_for_it() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let waiting = Running::start(invited(&machines, "beta", &id, &["run", "--", "true"]));
    waiting.wait_for_stderr("waiting for approval");
    let own = waiting.id();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).expect("a process has it");
    let joining: u32 = children.split_whitespace().next().expect("it joins").parse().expect("a number");
    signal(Signal::TERM, own);
    drop(waiting.finish());
    // A process that has ended may be one of a parent that does not ask for it.
    let is_gone = || {
        let status = fs::read_to_string(format!("/proc/{joining}/stat"));
        status.map_or(true, |status| status.contains(") Z "))
    };
    wait_until("the join goes on alone", is_gone);
    assert_eq!(machines.ok("beta", &["networks"]).matches("not admitted yet").count(), 1);
}
