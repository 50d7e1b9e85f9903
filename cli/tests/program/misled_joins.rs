//! Machines that join by a wrong invite, and pools of addresses that a machine has already: the command says
//! what is wrong and what to do, and changes nothing.

use crate::common::{Running, lacks, run};
use crate::machines::Machines;
use crate::running_node::in_namespaces;

impl Machines {
    /// Makes the network `other` on the machine `alpha`, and serves it. Returns its ID and an invite.
    fn other_network(&self) -> (String, String, Running) {
        self.ok("alpha", &["network", "create", "other", "--pool", "10.78.0.0/24", "--name", "alpha"]);
        let serving = Running::start(self.command("alpha", &["controller", "-n", "other"]));
        serving.wait_for_stderr("serving other");
        let invite = self.invite(&["-n", "other", "--name", "beta"]);
        let id = invite.split('/').nth(2).expect("an invite").to_owned();
        (id, invite, serving)
    }
}

#[test]
fn an_invite_whose_controller_serves_another_network_now_is_kept_for_later() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    let invite = machines.invite(&["--name", "beta"]);
    drop(serving);
    machines.wait_for_end_of_node("alpha");
    let (other, theirs, _other) = machines.other_network();
    let refused = run(machines.command("beta", &["join", &invite, "--wait", "2s"]));
    refused.failure(
        1,
        &[
            "no controller of the network answers",
            "hint: check that `peersock controller` runs on its machine",
            "for which the invite counts once",
        ],
    );
    assert_eq!(machines.ok("beta", &["networks", "--json"]).matches(&id).count(), 0);
    // The other network's own invite admits, and neither is mixed up with the other one.
    assert!(machines.ok("beta", &["join", &theirs]).starts_with("joined other as beta, 10.78.0.2"));
    let refused = run(machines.command("beta", &["join", &invite, "--wait", "2s"]));
    refused.failure(1, &["no controller of the network answers"]);
    let _serving = machines.serve("alpha");
    assert!(machines.ok("beta", &["join", &invite]).starts_with("joined team as beta, 10.77.0.2"));
    assert!(machines.refused("gamma", &["join", &invite]).contains("as often as it may be"));
    let joined = machines.ok("beta", &["networks", "--json"]);
    assert!(joined.contains(&id) && joined.contains(&other), "{joined}");
    for network in ["team", "other"] {
        machines.ok("beta", &["ping", "-n", network, "-c", "1", "alpha"]);
    }
}

/// The invite has the ID of one network, and the key and secret of another one.
#[test]
fn an_invite_with_the_key_of_another_network_is_refused_and_changes_nothing() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    machines.admit("beta");
    let (other, theirs, _other) = machines.other_network();
    let forged = theirs.replace(&other, &id);
    let before = machines.ok("beta", &["networks"]);
    // Also while a node runs, which others use, too.
    for is_in_use in [false, true] {
        let _listening = is_in_use.then(|| machines.listen("beta", "7000"));
        let refused = run(machines.command("beta", &["join", &forged]));
        let said = format!("network {id} has another key than when this machine joined it first");
        refused
            .failure(1, &[&said, "hint: ask who runs the network; `peersock leave` forgets the first key"]);
    }
    let known = |listed: &str| listed.split("  ").next().map(str::to_owned);
    assert_eq!(known(&machines.ok("beta", &["networks"])), known(&before));
    machines.ok("beta", &["ping", "-n", "team", "-c", "1", "alpha"]);

    // A machine that has not known the network compares the key with the ID, in this process or in a node
    // that others use.
    let said = format!("the key does not belong to network {id}");
    for (own_node, hint) in [
        ("1", "hint: ask who runs the network for another invite"),
        ("", "hint: check the invite or the ID; `peersock networks` lists those of this machine"),
    ] {
        let mut joining = machines.command("gamma", &["join", &forged]);
        joining.env("PEERSOCK_OWN_NODE", own_node);
        run(joining).failure(1, &[&said, hint]);
        assert_eq!(machines.ok("gamma", &["networks", "--json"]), "[]");
    }
    // Nothing of the true invite was used.
    assert!(machines.ok("gamma", &["join", &theirs]).starts_with("joined other as beta"));
}

/// A network namespace has a local network with the addresses of the pool.
#[test]
fn a_pool_that_a_local_network_has_is_told_by_each_command_that_takes_it() {
    let test = "a_pool_that_a_local_network_has_is_told_by_each_command_that_takes_it";
    if lacks(test, &["ip", "unshare"]) {
        return;
    }
    let machines = Machines::new();
    let script = "set -e
        ip link set lo up
        ip link add office type veth peer name cable || exit 77
        ip address add 10.77.0.9/16 dev office
        ip link set office up
        \"$0\" network create team --pool 10.77.0.0/24 --name alpha 2> \"$1/create\"
        \"$0\" network settings --pool 10.77.3.0/24 2> \"$1/settings\"
        \"$0\" network settings --pool 10.99.0.0/24 2> \"$1/elsewhere\"
        \"$0\" network settings --pool 10.77.3.0/24 2> /dev/null
        \"$0\" controller -n team 2> \"$1/said\" & controller=$!
        trap 'kill $controller; wait' EXIT
        until grep -q 'serving team' \"$1/said\"; do sleep 0.05; done
        invite=$(\"$0\" network invite --name beta)
        export PEERSOCK_STATE=\"$1/beta\"
        \"$0\" join \"$invite\" 2> \"$1/join\"
        \"$0\" ping -n team -c 1 alpha";
    let folder = machines.directory("alpha").parent().expect("a folder").to_owned();
    let place = folder.to_str().expect("text");
    let Some(finished) = in_namespaces(&machines, "alpha", &["--net"], script, &[place]) else {
        eprintln!("SKIP {test}: no network namespace here");
        return;
    };
    if finished.status.code() == Some(77) {
        eprintln!("SKIP {test}: no link can be made here");
        return;
    }
    let said = |name: &str| std::fs::read_to_string(folder.join(name)).expect("it was written");
    assert!(finished.status.success(), "{}{}", finished.stderr, said("said"));
    assert!(finished.text().contains("joined team as beta, 10.77.3."), "{}", finished.text());
    let of = |pool: &str| format!("the pool {pool} overlaps with 10.77.0.0/16 of interface office: ");
    for (command, pool, advice) in [
        (
            "create",
            "10.77.0.0/24",
            "choose another one with `peersock network settings --pool` before machines join",
        ),
        ("settings", "10.77.3.0/24", "choose another one"),
        ("join", "10.77.3.0/24", "ask who runs the network for another pool"),
    ] {
        let words = said(command);
        assert_eq!(words.matches("overlaps").count(), 1, "{command}: {words}");
        assert!(words.contains(&(of(pool) + advice)), "{command}: {words}");
    }
    assert!(!said("elsewhere").contains("overlaps"), "{}", said("elsewhere"));
}
