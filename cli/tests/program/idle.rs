//! Cost of waiting programs: the number of wake-ups of their threads.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Lab, PATIENCE, PORT, Running, run};
use crate::root::Root;

/// Time for which they are watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Time after which the start of a program or a connection has settled.
const SETTLE_TIME: Duration = Duration::from_secs(3);

#[test]
fn a_listener_without_connections_wakes_for_nothing() {
    let lab = Lab::new();
    let root = Root::start(&[]);
    let mut command = lab.node("listener", &["listen", "-k", &PORT.to_string()]);
    command.args(["--root", &root.text()]);
    let listening = Running::start(command);
    listening.wait_for_target();
    let deadline = Instant::now() + PATIENCE;
    while !run(lab.command("listener", &["status"])).text().contains(": registered for ") {
        assert!(Instant::now() < deadline, "it is not registered: {}", listening.said());
        thread::sleep(Duration::from_millis(20));
    }
    let woken = woken(listening.id());
    for thread in ["root-watch", "silence", "signals", "main"] {
        let times = woken.get(thread).unwrap_or_else(|| panic!("no thread {thread}: {woken:?}"));
        assert!(*times <= 3, "{woken:?}");
    }
    listening.interrupt();
}

#[test]
fn an_idle_connection_is_looked_at_now_and_then() {
    let lab = Lab::new();
    let listening = lab.listen(&[&PORT.to_string()]);
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");
    let woken = woken(dialing.id());
    assert!(woken["root-watch"] <= 3, "{woken:?}");
    // The thread wakes every two seconds.
    assert!(woken["silence"] <= 10, "{woken:?}");
    dialing.interrupt();
    listening.running.wait_for_end();
}

/// Returns how often each thread of a process wakes within [`WATCHED`], except the engine's, which beacons of
/// other tests' nodes wake.
fn woken(process: u32) -> BTreeMap<String, u64> {
    thread::sleep(SETTLE_TIME);
    let before = switches(process);
    thread::sleep(WATCHED);
    let since = |(name, after): (String, u64)| {
        let before = before.get(&name).copied().unwrap_or_default();
        (name, after - before)
    };
    switches(process).into_iter().map(since).collect()
}

/// Returns each thread's number of voluntary context switches (proc_pid_status(5)).
fn switches(process: u32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let switches = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |key| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let is_main = task.file_name().to_str() == Some(&process.to_string());
        let name = if is_main { "main" } else { field("Name:")? };
        Some((name.to_owned(), field("voluntary_ctxt_switches:")?.parse().ok()?))
    };
    tasks.flatten().filter_map(switches).collect()
}
