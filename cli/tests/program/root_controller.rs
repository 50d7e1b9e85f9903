//! One process that is root and controller of a network.

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Running, run, signal, wait_until};
use crate::machines::Machines;

/// Command of a root that is a controller, too.
const ROOT: [&str; 8] = ["root", "--listen", "127.0.0.1", "--port", "0", "--drain", "0", "--controller"];

/// Runs the root and controller on the machine `alpha`. Returns what nodes need to find the root.
fn serve(machines: &Machines, options: &[&str]) -> (Running, String) {
    let serving = Running::start(machines.command("alpha", &[&ROOT, options].concat()));
    serving.wait_for_stderr("serving team");
    let root = serving.wait_for_stdout("\n");
    (serving, root.lines().next().expect("the root's line").to_owned())
}

#[test]
fn one_process_is_root_and_controller_and_keeps_both_identities() {
    let machines = Machines::new();
    machines.create(&[]);
    let (serving, root) = serve(&machines, &["team"]);
    for machine in ["beta", "gamma"] {
        // The invite names the controller's root by itself.
        let made = run(machines.command("alpha", &["network", "invite", "--name", machine]));
        let part = root.split(',').next().expect("an endpoint");
        assert!(made.stderr.contains(&format!("by root {part}")), "{}", made.stderr);
        let invite = made.text().trim().to_owned();
        machines.ok(machine, &["join", &invite]);
    }
    // The invite's root is used without being named again.
    let (_listening, _) = machines.listen("beta", "7000");
    let registered = |machine| {
        let status: Value = serde_json::from_str(&machines.ok(machine, &["status", "--json"])).expect("JSON");
        status["roots"].as_array().is_some_and(|roots| roots.iter().any(|root| root["state"] == "registered"))
    };
    wait_until("the member is not registered", || registered("beta"));
    let reached = machines.dial("gamma", "beta:7000");
    assert!(reached.status.success(), "{}", reached.stderr);
    // The programs of this machine share the node of the process, which uses the root.
    wait_until("the controller is not registered", || registered("alpha"));

    signal(Signal::TERM, serving.id());
    assert_eq!(serving.finish().status.code(), Some(0));
    // The store and both identities are as before.
    let (_serving, again) = serve(&machines, &["team"]);
    assert_eq!(again.split('@').next(), root.split('@').next());
    assert_eq!(machines.members().len(), 3);
}

#[test]
fn a_token_from_a_pipe_is_read_once() {
    let machines = Machines::new();
    machines.create(&[]);
    let words = [&ROOT[..], &["team", "--access-token-file", "/dev/stdin"]].concat();
    let mut serving = Running::start(machines.command("alpha", &words));
    serving.send(b"a token of more than 22 bytes\n");
    serving.end_stdin();
    serving.wait_for_stderr("serving team");
    // The controller's node has shown the token.
    let is_registered = || machines.ok("alpha", &["status"]).contains("registered");
    wait_until("the controller is not registered", is_registered);
}

#[test]
fn a_root_whose_network_has_no_controller_here_ends_and_says_so() {
    let machines = Machines::new();
    let said = machines.refused("alpha", &[&ROOT[..], &["team"]].concat());
    assert!(said.contains("team") && said.contains("hint: "), "{said}");
    // A directory that may be a root's is not taken for the machine's.
    machines.ok("beta", &["id"]);
    let other = machines.refused("beta", &[&ROOT[..], &["team"]].concat());
    assert!(other.contains("it may be a root's"), "{other}");
    let alone = machines.refused("alpha", &["root", "--approve-hook", "/bin/true"]);
    assert!(alone.contains("--controller"), "{alone}");
}
