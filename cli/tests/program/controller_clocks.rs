//! Controllers and machines whose clocks are wrong.

use std::fs;

use serde_json::Value;

use crate::clock_jumps::{Clock, build_library};
use crate::common::{Running, lacks, run, wait_until};
use crate::machines::Machines;

/// Returns machines whose network `team` exists, and a clock for programs of `alpha`.
fn with_clock() -> (Machines, Clock) {
    let machines = Machines::new();
    machines.create(&[]);
    let folder = machines.directory("clocks");
    fs::create_dir(&folder).expect("room for a folder");
    let clock = Clock::new(&folder, &build_library(&folder), "alpha");
    (machines, clock)
}

/// Starts the controller of `alpha` in one process with its node, by a clock.
fn serve_by(clock: &Clock, machines: &Machines) -> Running {
    let mut command = clock.given_to(machines.command("alpha", &["controller", "-n", "team"]));
    command.env("PEERSOCK_OWN_NODE", "1");
    Running::start(command)
}

#[test]
fn a_controller_waits_until_its_clock_is_set() {
    if lacks("a_controller_waits_until_its_clock_is_set", &["cc"]) {
        return;
    }
    let (machines, clock) = with_clock();
    let seconds = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs().cast_signed();
    // As a machine without a clock starts, and then twenty hours behind.
    clock.set(60 - seconds);
    let serving = serve_by(&clock, &machines);
    serving.wait_for_stderr("behind what this controller has signed");
    clock.set(-72_000);
    // Three looks at the clock.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!serving.said().contains("serving team"), "{}", serving.said());
    clock.set(-300);
    serving.wait_for_stderr("serving team");
    machines.admit("beta");
}

#[test]
fn a_controller_whose_clock_was_two_hours_ahead_serves_at_once_when_it_is_right() {
    if lacks("a_controller_whose_clock_was_two_hours_ahead_serves_at_once_when_it_is_right", &["cc"]) {
        return;
    }
    let (machines, clock) = with_clock();
    let serving = serve_by(&clock, &machines);
    serving.wait_for_stderr("serving team");
    machines.admit("beta");
    drop(serving);
    clock.set(7200);
    let serving = serve_by(&clock, &machines);
    serving.wait_for_stderr("serving team");
    machines.admit("gamma");
    drop(serving);
    clock.set(0);
    let serving = serve_by(&clock, &machines);
    serving.wait_for_stderr("serving team");
    machines.admit("delta");
    // Those of before, meanwhile and later reach each other. A removal ends what was signed meanwhile.
    let (_beta, address) = machines.listen("beta", "7000");
    for machine in ["gamma", "delta"] {
        let reached = machines.dial(machine, &format!("{address}:7000"));
        assert!(reached.status.success(), "{machine}: {}", reached.stderr);
    }
    let (_gamma, other) = machines.listen("gamma", "7001");
    let reached = machines.dial("delta", &format!("{other}:7001"));
    assert!(reached.status.success(), "{}", reached.stderr);
    machines.ok("alpha", &["network", "revoke", "gamma"]);
    wait_until("the removed machine still gets through", || {
        let words = ["dial", "-n", "team", "--timeout", "2", &format!("{address}:7000")];
        !run(machines.command("gamma", &words)).status.success()
    });
}

#[test]
fn a_controller_whose_clock_is_far_ahead_signs_nothing_until_it_is_right_or_confirmed() {
    if lacks("a_controller_whose_clock_is_far_ahead_signs_nothing_until_it_is_right_or_confirmed", &["cc"]) {
        return;
    }
    let (machines, clock) = with_clock();
    for days in [40, 7300] {
        clock.set(days * 86_400);
        let serving = serve_by(&clock, &machines);
        serving.wait_for_stderr("after the last time of team's controller, and may be ahead");
        let invite = machines.command("alpha", &["network", "invite"]);
        run(clock.given_to(invite)).failure(1, &["may be ahead", "network accept-clock -n team"]);
        assert!(!serving.said().contains("serving team"), "{}", serving.said());
        clock.set(0);
        serving.wait_for_stderr("serving team");
        machines.admit(&format!("machine-{days}"));
        // While it serves.
        clock.set(days * 86_400);
        serving.wait_for_stderr("may be ahead");
        clock.set(0);
    }
    // It was off for 40 days.
    clock.set(40 * 86_400);
    let serving = serve_by(&clock, &machines);
    serving.wait_for_stderr("may be ahead");
    let accept = || clock.given_to(machines.command("alpha", &["network", "accept-clock"]));
    let accepted = run(accept()).success();
    assert!(accepted.text().contains("team goes on 40d"), "{}", accepted.text());
    serving.wait_for_stderr("serving team");
    assert!(run(accept()).success().stderr.contains("has no doubt"));
    clock.set(0);
    run(accept()).failure(1, &["behind what the controller of team has signed"]);
}

#[test]
fn a_machine_whose_clock_is_wrong_is_told() {
    if lacks("a_machine_whose_clock_is_wrong_is_told", &["cc"]) {
        return;
    }
    let (machines, clock) = with_clock();
    let id = machines.membership("alpha")["network"].as_str().expect("an ID").to_owned();
    let _serving = machines.serve("alpha");
    for (machine, ahead, said) in [("beta", -7400, "2h 3m behind"), ("gamma", 3740, "1h 2m ahead of")] {
        clock.set(ahead);
        let words =
            format!("this machine's clock is {said} the controller's, as it has answered last: correct");
        let by_clock = |words: &[&str]| clock.given_to(machines.command(machine, words));
        let mut join = by_clock(&["join", &id, "--as", "team", "--name", machine]);
        join.env("PEERSOCK_OWN_NODE", "1");
        let joining = Running::start(join);
        joining.wait_for_stderr("waiting for approval, code ");
        // The controller has answered its node, which waits for a person.
        let status = || run(by_clock(&["status"])).success().text().to_owned();
        wait_until("the status does not tell", || status().contains(&words));
        let status = run(by_clock(&["status", "--json"])).success();
        let status: Value = serde_json::from_str(status.text()).expect("JSON");
        let behind = status["networks"][0]["clock_behind_s"].as_f64().expect("a number");
        assert!((behind + ahead as f64).abs() < 30.0, "{behind}");
        let waiting = machines.admin_json(&["members"])["pending"][0]["code"].clone();
        machines.admin(&["approve", waiting.as_str().expect("a code")]).success();
        let joined = joining.finish().success();
        assert!(joined.stderr.contains(&words), "{}", joined.stderr);
        let listed = run(by_clock(&["networks"])).success();
        assert!(listed.text().contains(&words), "{}", listed.text());
    }
    // A clock that is right enough is no word worth.
    let right = run(machines.command("delta", &["join", &machines.invite(&[]), "--as", "team"])).success();
    assert!(!right.stderr.contains("clock"), "{}", right.stderr);
}
