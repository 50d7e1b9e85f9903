//! A state directory that is in use: what the hints say, and what a shared node's end and files are.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{Finished, PATIENCE, Running, peersock, run, signal, vanish};
use crate::lab::Lab;

impl Lab {
    /// Returns a command with the state directory of alpha alone.
    fn of_alpha(&self, words: &[&str]) -> Command {
        let mut command = peersock(words);
        command.arg("--state").arg(self.path("alpha"));
        command
    }

    /// Starts a command that has its own node in the directory of alpha.
    fn holder(&self, command: &str) -> Running {
        let (words, ready): (&[&str], _) = match command {
            "root" => (&["root", "--listen", "127.0.0.1", "--port", "0"], "listening on"),
            "rest" => (&["rest", "--own-node", "--no-token", "--listen", "127.0.0.1:0"], "by HTTP"),
            "ping" => (&["ping", "--own-node", "beta", "--timeout", "1000"], "looking for"),
            _ => (&["listen", "--own-node", "7000"], "connect with: "),
        };
        let holder = Running::start(match command {
            "root" => self.of_alpha(words),
            _ => self.as_member("alpha", words),
        });
        holder.wait_for_stderr(ready);
        holder
    }
}

fn dial() -> &'static [&'static str] {
    &["dial", "gamma:7000", "--timeout", "0.1"]
}

/// Returns the process that a hint wants to be killed.
fn to_kill(said: &Finished) -> u32 {
    let (_, rest) = said.stderr.split_once("`kill ").unwrap_or_else(|| panic!("{}", said.stderr));
    rest.split_once('`').expect("an end").0.parse().expect("a process")
}

#[test]
fn a_command_runs_once_its_hint_about_a_directory_in_use_was_followed() {
    let Some(lab) = Lab::with("a_command_runs_once_its_hint", &[]) else { return };
    run(lab.of_alpha(&["network", "create", "team"])).success();
    let own_listen = &["listen", "--own-node", "7000", "--receive-only"];
    let controllers: [&[&str]; 2] = [&["controller"], &["controller", "--own-node"]];
    for first in ["root", "rest", "ping", "listen"] {
        for second in [dial(), &["run", "true"], own_listen].into_iter().chain(controllers) {
            let holder = lab.holder(first);
            let command = || match second[0] {
                "run" => lab.command("alpha", &[], &second[1..]),
                "controller" => {
                    let mut command = lab.of_alpha(&[second, &["--interface", "lo"]].concat());
                    command.env("PEERSOCK_PERSIST", "0");
                    command
                }
                _ => lab.as_member("alpha", second),
            };
            let said = run(command());
            let other = format!(
                "state directory {} is in use by process {}",
                lab.path("alpha").display(),
                holder.id()
            );
            said.failure(1, &[&other, "--state DIR"]);
            assert_eq!(to_kill(&said), holder.id(), "{first}, {}", said.stderr);
            let both_share =
                said.stderr.contains("without --own-node") || said.stderr.contains("leave --own-node");
            assert_eq!(both_share, first != "root", "{first}: {}", said.stderr);
            assert!(!said.stderr.contains("`peersock node`"), "it would not share: {}", said.stderr);
            signal(Signal::TERM, to_kill(&said));
            holder.wait_for_end();
            let mut again = Running::start(command());
            match second[0] {
                "listen" | "controller" => {
                    let ready = if second[0] == "listen" { "connect with: " } else { "serving team" };
                    again.wait_for_stderr(ready);
                    drop(again);
                }
                _ => {
                    again.end_stdin();
                    let said = again.wait_for_end();
                    assert!(!said.stderr.contains("in use"), "{first}: {}", said.stderr);
                }
            }
            // A node in the background may leave the directory a moment later.
            lab.wait_for_end(lab.node("alpha"));
        }
    }
    // In a network that anyone may join, no identity is needed.
    let holder = lab.holder("rest");
    let mut open = lab.of_alpha(&["run", "--quiet", "--interface", "lo", "-n", "ff0001ffff000000"]);
    open.args(["--", "true"]);
    run(open).failure(1, &["in use", "or, to keep both, give --ephemeral"]);
    drop(holder);
}

#[test]
fn a_holder_with_low_limits_is_told_from_one_that_wants_its_own_node() {
    let Some(lab) = Lab::with("a_holder_with_low_limits", &["bash"]) else { return };
    let limited = || {
        let listen = lab.as_member("alpha", &["listen", "7000"]);
        let mut command = Command::new("bash");
        command
            .args(["-c", "ulimit -n 512; exec \"$0\" \"$@\""])
            .arg(listen.get_program())
            .args(listen.get_args());
        for (name, value) in listen.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let holder = Running::start(command);
        holder.wait_for_stderr("connect with: ");
        holder
    };
    let holder = limited();
    let said = run(lab.as_member("alpha", dial()));
    said.failure(1, &["start `peersock node` where its limits (`ulimit -a`) are not set", "share that node"]);
    assert!(!said.stderr.contains("OWN_NODE") && !said.stderr.contains("--own-node"), "{}", said.stderr);
    assert_eq!(to_kill(&said), holder.id());
    signal(Signal::TERM, holder.id());
    holder.wait_for_end();
    let kept = lab.keep("alpha");
    let holder = limited();
    run(lab.as_member("alpha", dial())).failure(1, &["has not answered"]);
    drop((holder, kept));
}

#[test]
fn a_command_that_needs_its_own_node_names_what_ends_the_shared_one() {
    let Some(lab) = Lab::with("a_command_that_needs_its_own_node", &[]) else { return };
    let node = || run(lab.of_alpha(&["node"]));
    let listening = lab.listen("alpha", &["7000"]);
    let status = format!("`peersock status --state {}` names them", lab.path("alpha").display());
    node().failure(1, &["is in use by", "end the programs that use it", &status]);
    // The user has asked for a node of the command's own, in one way or the other.
    let mut own = lab.as_member("alpha", dial());
    own.arg("--own-node");
    let said = ["whose node other programs share", "hint: leave --own-node out, to share that node"];
    run(own).failure(1, &said);
    let mut own = lab.command("alpha", &[], &["true"]);
    own.env("PEERSOCK_OWN_NODE", "1");
    run(own).failure(1, &["hint: unset PEERSOCK_OWN_NODE, to share that node"]);
    listening.interrupt();

    let kept = lab.keep("alpha");
    assert_eq!(to_kill(&node()), kept.id());
}

#[test]
fn a_node_that_waits_for_the_next_program_says_so_and_can_be_ended() {
    let Some(lab) = Lab::with("a_node_that_waits_for_the_next_program", &[]) else { return };
    let status = |words: &[&str]| run(lab.of_alpha(&[&["status"], words].concat())).success();
    let end = || run(lab.of_alpha(&["node", "--end"]));
    let listening = lab.listen("alpha", &["7000", "--persist", "1000"]);
    let node = lab.node("alpha");
    assert!(!status(&[]).text().contains("waits"), "a program uses it");
    let listens = format!("programs use the node: peersock listen (process {})", listening.id());
    end().failure(1, &[&listens, &format!("`kill {node}`")]);
    listening.interrupt();
    let said = status(&[]);
    let line = said.text().lines().find(|line| line.contains("waits")).expect("a line");
    assert!(line.starts_with("  programs: none; waits 16 min "), "{line}");
    assert!(line.ends_with(" for the next one (`peersock node --end` ends it)"), "{line}");
    let json: serde_json::Value = serde_json::from_str(status(&["--json"]).text()).unwrap();
    assert!(json["waits_s"].as_f64().is_some_and(|left| left > 900.0), "{json}");
    let ended = end().success();
    assert!(ended.stderr.contains("the node has ended"), "{}", ended.stderr);
    lab.wait_for_end(node);
    let none = end().success();
    assert!(none.stderr.contains("no node that programs share runs with"), "{}", none.stderr);

    let kept = lab.keep("alpha");
    assert!(!status(&[]).text().contains("waits"), "it stays");
    end().failure(1, &["it stays until", &format!("`kill {}`", kept.id())]);
}

#[test]
fn sockets_that_a_cleaner_removes_are_made_again() {
    let Some(lab) = Lab::with("sockets_that_a_cleaner_removes", &[]) else { return };
    let kept = lab.keep("alpha");
    let sockets = ["node.sock", "management.sock"].map(|name| lab.path("alpha").join(name));
    sockets.iter().for_each(|socket| fs::remove_file(socket).unwrap());
    // A program that comes first is told what to do.
    let early = run(lab.command("alpha", &[], &["true"]));
    if !early.status.success() {
        early.failure(1, &["hint: try again in 10 s", &format!("`kill {}`", kept.id())]);
    }
    let begun = Instant::now();
    while !sockets.iter().all(|socket| socket.exists()) {
        assert!(begun.elapsed() < PATIENCE, "a socket is not made again");
        thread::sleep(Duration::from_millis(5));
    }
    run(lab.command("alpha", &[], &["true"])).success();
    let status = run(lab.of_alpha(&["status"])).success();
    assert!(status.text().contains("running for"), "{}", status.text());
    assert_eq!(lab.node("alpha"), kept.id());
    // Nothing is left at the end.
    kept.interrupt();
    assert!(!lab.path("alpha").join("node.sock").exists());
}

/// The node is stopped, so that it sees the end of one program and the start of the other together. A slow
/// machine makes the test weaker, and not wrong.
#[test]
fn a_program_that_was_killed_keeps_no_other_out() {
    let Some(lab) = Lab::with("a_program_that_was_killed_keeps_no_other_out", &[]) else { return };
    for round in 0..5 {
        let first = lab.listen("alpha", &["7000", "--busy-poll", "7"]);
        let node = lab.node("alpha");
        signal(Signal::STOP, node);
        vanish(Signal::KILL, first.id());
        let second = Running::start(lab.as_member("alpha", &["listen", "7000", "--busy-poll", "8"]));
        thread::sleep(Duration::from_millis(100));
        signal(Signal::CONT, node);
        second.wait_for_stderr("connect with: ");
        assert_ne!(lab.node("alpha"), node, "round {round}");
        let last = lab.node("alpha");
        second.interrupt();
        lab.wait_for_end(last);
    }
}

/// A slow machine kills the starter earlier, which makes the test weaker, and not wrong.
#[test]
fn a_starter_that_is_killed_at_any_moment_keeps_no_other_out() {
    let Some(lab) = Lab::with("a_starter_that_is_killed_at_any_moment", &[]) else { return };
    for millis in [0, 1, 3, 10, 20, 30, 45, 60, 80, 99] {
        let start = |port: &str| Running::start(lab.as_member("alpha", &["listen", port]));
        let (starter, beside) = (start("7000"), start("7001"));
        thread::sleep(Duration::from_millis(millis));
        vanish(Signal::KILL, starter.id());
        beside.wait_for_stderr("connect with: ");
        let node = lab.node("alpha");
        let later = lab.listen("alpha", &["7000"]);
        assert_eq!(lab.node("alpha"), node, "killed after {millis} ms");
        beside.interrupt();
        later.interrupt();
        lab.wait_for_end(node);
    }
}

#[test]
fn settings_that_cannot_both_hold_name_the_program_that_has_set_them() {
    let Some(lab) = Lab::with("settings_that_cannot_both_hold", &[]) else { return };
    let first = lab.listen("alpha", &["7000", "--dht=127.0.0.1:9"]);
    let starter = format!("by `peersock listen` (process {})", first.id());
    let network = lab.path("network.toml");
    let refused = |settings: &[&str], own: &str, asked: &str| {
        let words = [&["dial", "gamma:7000", "--timeout", "0.1"], settings].concat();
        let mut dial = lab.of_alpha(&words);
        dial.arg("--network").arg(&network);
        run(dial).failure(1, &[own, &starter, asked, "end the node and its programs"]);
    };
    refused(&["--dht=127.0.0.1:10"], "with --dht 127.0.0.1:9", "asks for --dht 127.0.0.1:10");
    refused(&["--interface", "none0"], "with --interface lo", "asks for --interface none0");
    refused(&["--no-portmap"], "without --no-portmap", "asks for --no-portmap");
    first.interrupt();
}

#[test]
fn the_timeout_of_dial_holds_while_an_earlier_node_ends() {
    let Some(lab) = Lab::with("the_timeout_of_dial_holds", &[]) else { return };
    let listening = lab.listen("alpha", &["7000"]);
    // It waits for its program, which goes on.
    let node = lab.node("alpha");
    signal(Signal::TERM, node);
    // An answer shows that it has begun to end.
    let begun = Instant::now();
    loop {
        let said = run(lab.as_member("alpha", dial()));
        assert!(begun.elapsed() < PATIENCE, "{}", said.stderr);
        if said.stderr.contains("is about to end, and has not ended in time") {
            said.failure(1, &["hint: give a longer --timeout"]);
            break;
        }
    }
    drop(listening);
    lab.wait_for_end(node);
}
