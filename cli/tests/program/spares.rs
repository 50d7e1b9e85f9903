//! A member that renews certificates while the controller is lost.

use std::fs;

use serde_json::Value;

use crate::clock_jumps::{Clock, build_library};
use crate::common::{Running, lacks, wait_until};
use crate::machines::Machines;

/// Time after which a certificate is renewed as soon as the node starts, and twice that.
const HOUR: i64 = 3600;

fn networks(machines: &Machines, machine: &str) -> Value {
    let listed: Value = serde_json::from_str(&machines.ok(machine, &["networks", "--json"])).expect("JSON");
    listed[0].clone()
}

/// Listens on a machine with its own node, by a clock.
fn listen_by(clock: &Clock, machines: &Machines, machine: &str) -> Running {
    let mut command = clock.given_to(machines.command(machine, &["listen", "-k", "-n", "team", "7000"]));
    command.env("PEERSOCK_OWN_NODE", "1");
    let listening = Running::start(command);
    listening.wait_for_stderr("listening on ");
    listening
}

#[test]
fn members_go_on_by_a_spare_after_the_controller_is_lost() {
    if lacks("members_go_on_by_a_spare_after_the_controller_is_lost", &["cc"]) {
        return;
    }
    let machines = Machines::new();
    machines.create(&["--outlive", "1h"]);
    let folder = machines.directory("clocks");
    fs::create_dir(&folder).expect("room for a folder");
    let library = build_library(&folder);
    let clock = Clock::new(&folder, &library, "all");
    let serve = || {
        let mut command = clock.given_to(machines.command("alpha", &["controller", "-n", "team"]));
        command.env("PEERSOCK_OWN_NODE", "1");
        let serving = Running::start(command);
        serving.wait_for_stderr("serving team");
        serving
    };
    let serving = serve();
    machines.admit("beta");
    machines.admit("gamma");
    let changed = machines.ok("alpha", &["network", "change", "beta", "--spare", "yes"]);
    assert!(changed.contains("spare"), "{changed}");
    assert!(machines.members().iter().any(|one| one["name"] == "beta" && one["spare"] == true));
    let own = machines.refused("alpha", &["network", "change", "alpha", "--spare", "yes"]);
    assert!(own.contains("the controller's own node"), "{own}");
    assert_eq!(networks(&machines, "beta")["spare"], false);
    machines.wait_for_end_of_node("beta");
    machines.wait_for_end_of_node("gamma");
    drop(serving);

    // It gets the right with its next certificate.
    clock.set(HOUR);
    let serving = serve();
    let (beta, gamma) = (listen_by(&clock, &machines, "beta"), listen_by(&clock, &machines, "gamma"));
    wait_until("the spare has no right", || networks(&machines, "beta")["spare"] == true);
    let status = machines.ok("beta", &["status"]);
    assert!(status.contains("this node renews certificates while no controller answers"), "{status}");
    let end = |machine: &str| networks(&machines, machine)["certificate_ends"].as_u64().expect("a time");
    wait_until("gamma is not renewed", || end("gamma") > end("beta") - 600);
    let before = [end("beta"), end("gamma")];
    drop((serving, beta, gamma));

    // The controller is lost.
    clock.set(2 * HOUR);
    let _beta = listen_by(&clock, &machines, "beta");
    let _gamma = listen_by(&clock, &machines, "gamma");
    let is_later = |machine: &str, before: u64| end(machine) > before + 1800;
    let begun = std::time::Instant::now();
    while !is_later("beta", before[0]) || !is_later("gamma", before[1]) {
        assert!(begun.elapsed().as_secs() < 100, "no spare renews certificates");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    assert_eq!(networks(&machines, "gamma")["member"], "gamma");
}
