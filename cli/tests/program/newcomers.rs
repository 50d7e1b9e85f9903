//! Machines that join a managed network: the removals from before, and the roots of the network.

use serde_json::Value;

use crate::common::{Running, run};
use crate::machines::Machines;

/// Key of a root that does not run.
fn root_at(place: &str) -> String {
    let identity = peersock::overlay::Identity::from_seed(&[7; 32]);
    format!("{}@{place}", identity.public())
}

impl Machines {
    fn listed(&self, machine: &str) -> Value {
        let listed: Value = serde_json::from_str(&self.ok(machine, &["networks", "--json"])).expect("JSON");
        listed[0].clone()
    }

    /// Returns where the node of a machine looks for its only root.
    fn root_used(&self, machine: &str) -> Value {
        let status: Value = serde_json::from_str(&self.ok(machine, &["status", "--json"])).expect("JSON");
        let roots = status["roots"].as_array().expect("a list");
        assert_eq!(roots.len(), 1, "{status:#}");
        roots[0]["endpoints"].clone()
    }
}

#[test]
fn a_machine_that_has_joined_knows_the_removals_from_before() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    machines.admit("beta");
    machines.ok("alpha", &["network", "revoke", "beta"]);
    for (name, owns) in [("gamma", "0"), ("delta", "1"), ("epsilon", "0"), ("zeta", "1")] {
        let mut join = machines.command(name, &["join", &machines.invite(&["--name", name]), "--json"]);
        join.env("PEERSOCK_OWN_NODE", owns);
        let joined = run(join).success();
        assert!(!joined.stderr.contains("removals"), "{}", joined.stderr);
        let told: Value = serde_json::from_str(joined.text()).expect("JSON");
        assert!(told["revocations"].as_u64() >= Some(1), "{name}: {told:#}");
        assert_eq!(machines.listed(name)["revocations"], told["revocations"], "{name}: it is on the disk");
    }
}

#[test]
fn the_roots_of_a_network_are_listed_and_a_root_that_is_named_goes_before_them() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    let (kept, moved) = (root_at("127.0.0.1:1"), root_at("127.0.0.1:2"));
    let invite = machines.invite(&["--name", "beta", "--root", &format!("{kept}?token=secret")]);
    machines.ok("beta", &["join", &invite]);
    let listed = machines.ok("beta", &["networks"]);
    assert!(listed.lines().any(|line| line == format!("  root {kept}")), "{listed}");
    assert_eq!(machines.listed("beta")["roots"], serde_json::json!([kept]));
    assert!(!machines.ok("beta", &["networks", "--json"]).contains("secret"));
    assert!(!machines.ok("alpha", &["networks"]).contains("root"), "its controller has none");

    let listening = |words: &[&str]| {
        let words = [&["listen", "-k", "-n", "team", "7000"], words].concat();
        let listening = Running::start(machines.command("beta", &words));
        listening.wait_for_stderr("listening on");
        listening
    };
    let before = listening(&[]);
    assert_eq!(machines.root_used("beta"), serde_json::json!(["127.0.0.1:1"]));
    before.interrupt();
    // A command that names the root takes its new place. The network's own entry stays for the next command.
    let named = listening(&["--root", &moved]);
    assert_eq!(machines.root_used("beta"), serde_json::json!(["127.0.0.1:2"]));
    named.interrupt();
    assert_eq!(machines.listed("beta")["roots"], serde_json::json!([kept]));
}

#[test]
fn another_invite_tells_a_member_where_a_root_is_now() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    let (kept, moved) = (root_at("127.0.0.1:1"), root_at("127.0.0.1:2"));
    machines.ok("beta", &["join", &machines.invite(&["--name", "beta", "--root", &kept])]);
    let invite = machines.invite(&["--name", "gamma", "--root", &moved]);
    let again = machines.ok("beta", &["join", &invite]);
    assert!(again.contains("beta"), "{again}");
    assert_eq!(machines.listed("beta")["roots"], serde_json::json!([moved]));
    // The invite admits the machine that it is for all the same.
    machines.ok("gamma", &["join", &invite]);
}
