//! A system without threads or memory left for a program: it reports that, or works without, and does not
//! panic.

use std::process::Command;

use rustix::process::geteuid;

use crate::common::{lacks, run, without_variables};

/// Commands that start a node or threads.
const COMMANDS: [&[&str]; 11] = [
    &["listen", "--receive-only", "--ephemeral", "7000"],
    &["listen", "--keep", "--ephemeral", "7000"],
    &["root", "--ephemeral", "--listen", "127.0.0.1", "--port", "0"],
    &["proxy", "--ephemeral", "--no-password", "--listen", "127.0.0.1:0"],
    &["rest", "--ephemeral", "--no-token", "--listen", "127.0.0.1:0"],
    &["forward", "--ephemeral", "127.0.0.1:0", "[fd9b:599b:f077::1]:1"],
    &["ping", "-c", "1", "--timeout", "1", "--ephemeral", "fd9b:599b:f077::1"],
    &["dial", "--timeout", "1", "--ephemeral", "[fd9b:599b:f077::1]:1"],
    &["netcheck"],
    &["send", "/proc/self/cmdline"],
    &["receive", "--timeout", "1", "--to", "/proc/self", CODE],
];

/// A code that no sender uses.
const CODE: &str = "00000-00000-00000";

/// The limit counts all threads of a user (RLIMIT_NPROC), so each is refused in turn; root has no limit.
#[test]
fn a_thread_that_cannot_be_started_is_an_error_with_a_hint() {
    const TEST: &str = "a_thread_that_cannot_be_started";
    if lacks(TEST, &["setpriv", "prlimit", "timeout"]) {
        return;
    }
    if !geteuid().is_root() {
        eprintln!("SKIP {TEST}: other users need root");
        return;
    }
    // Users with these IDs have no other processes.
    let first = 1_900_000_000 + std::process::id() % 1_000_000 * 100;
    std::thread::scope(|scope| {
        for (at, words) in (0..).zip(COMMANDS) {
            scope.spawn(move || {
                for limit in 1..=8 {
                    let mut command = Command::new("timeout");
                    // Commands with enough threads run until then.
                    command.args(["3", "setpriv", "--reuid", &(first + 10 * at + limit).to_string()]);
                    command.args(["--clear-groups", "prlimit", &format!("--nproc={limit}")]);
                    command.arg(env!("CARGO_BIN_EXE_peersock")).args(words);
                    match words[0] {
                        "root" => {}
                        "netcheck" | "send" | "receive" => _ = command.args(["--interface", "lo"]),
                        _ => {
                            let network = ["--network", "ff0001ffff000000", "--no-portmap"];
                            command.args(["--interface", "lo"]).args(network);
                        }
                    }
                    without_variables(&mut command);
                    let ended = run(command);
                    let what = format!("{words:?} with {limit}: {}", ended.stderr);
                    assert!(!ended.stderr.contains("panicked"), "{what}");
                    match ended.status.code() {
                        Some(0 | 124) => {}
                        Some(1) if ["ping", "dial", "receive"].contains(&words[0]) => {}
                        Some(1) => assert!(ended.stderr.contains("ulimit"), "{what}"),
                        other => panic!("{other:?} {what}"),
                    }
                }
            });
        }
    });
}

/// Stretching a code takes 64 MiB (RLIMIT_AS).
#[test]
fn memory_that_is_refused_for_a_code_is_an_error_with_a_hint() {
    const TEST: &str = "memory_that_is_refused_for_a_code";
    if lacks(TEST, &["prlimit"]) {
        return;
    }
    for words in [&["send", "/proc/self/cmdline"][..], &["receive", "--to", "/tmp", CODE]] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--as={}", 64 << 20)).arg(env!("CARGO_BIN_EXE_peersock")).args(words);
        command.args(["--interface", "lo"]);
        without_variables(&mut command);
        let ended = run(command);
        assert_eq!(ended.status.code(), Some(1), "{words:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("no memory to stretch a code"), "{}", ended.stderr);
        assert!(ended.stderr.contains("ulimit -v"), "{}", ended.stderr);
    }
}

/// Returns a command with an address space of `space` MiB (RLIMIT_AS), which ends after a second at the
/// latest.
fn within(space: u64, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["1", "prlimit", &format!("--as={}", space << 20), env!("CARGO_BIN_EXE_peersock")]);
    command.args(words);
    without_variables(&mut command);
    command
}

/// Messages with which Rust's and C's libraries end a program that gets no memory: for an allocation, for the
/// second stack of a thread that starts, and for a thread's variables. The program cannot do otherwise.
const NO_MEMORY: [&str; 3] =
    ["memory allocation of", "failed to allocate an alternative stack", "failed to register TLS destructor"];

/// From the least space with which the program is loaded to one in which the commands run.
#[test]
fn an_address_space_that_ends_at_a_start_is_an_error_with_a_hint() {
    const TEST: &str = "an_address_space_that_ends_at_a_start";
    if lacks(TEST, &["prlimit", "timeout"]) {
        return;
    }
    let is_loaded = |space: &u64| run(within(*space, &["--version"])).status.success();
    let least = (8..4096).find(is_loaded).expect("it is loaded at last");
    let commands =
        COMMANDS.iter().filter(|words| ["listen", "proxy", "rest", "netcheck"].contains(&words[0]));
    std::thread::scope(|scope| {
        for words in commands {
            scope.spawn(move || {
                let mut refusals = 0;
                for space in least..least + 14 {
                    let mut command = within(space, words);
                    command.args(["--interface", "lo"]);
                    if words[0] != "netcheck" {
                        command.args(["--network", "ff0001ffff000000", "--no-portmap"]);
                    }
                    let ended = run(command);
                    let what = format!("{words:?} with {space} MiB: {}", ended.stderr);
                    let mut panics = ended.stderr.lines().filter(|line| line.contains("panicked at"));
                    assert!(panics.all(|line| line.contains("/library/std/src/sys/")), "{what}");
                    match ended.status.code() {
                        Some(0 | 124) => {}
                        Some(1) => {
                            assert!(ended.stderr.contains("ulimit"), "{what}");
                            refusals += 1;
                        }
                        _ => assert!(NO_MEMORY.iter().any(|text| ended.stderr.contains(text)), "{what}"),
                    }
                }
                assert!(refusals > 0 || words[0] == "netcheck", "{words:?} was refused nothing");
            });
        }
    });
}
