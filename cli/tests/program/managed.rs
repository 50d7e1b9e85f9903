//! Managed networks: a controller, machines that join by invite and by code, removal, restarts.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{PATIENCE, Running, run, vanish, wait_until};
use crate::machines::Machines;

#[test]
fn a_machine_joins_by_an_invite_and_talks_and_a_removal_ends_it() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    let invite = machines.invite(&["--name", "beta", "--tag", "db"]);
    assert!(invite.starts_with(&format!("peersock://{id}/")) && invite.len() <= 200, "{invite}");
    let joined = machines.ok("beta", &["join", &invite, "--as", "team"]);
    assert!(joined.starts_with("joined team as beta, 10.77.0.2, fd"), "{joined}");
    assert!(joined.contains("tags db"), "{joined}");
    // Again is no error, and a used invite admits no other machine.
    assert!(machines.ok("beta", &["join", &invite]).contains("team as beta"));
    assert!(machines.ok("beta", &["join", &id]).contains("is a member already"));
    let used = machines.refused("gamma", &["join", &invite]);
    assert!(used.contains("as often as it may be"), "{used}");
    assert_eq!(machines.ok("gamma", &["networks"]), "", "a refused request leaves nothing");
    assert!(machines.ok("beta", &["networks"]).contains("10.77.0.2"));

    let (_listening, address) = machines.listen("beta", "7000");
    assert_eq!(address, "10.77.0.2");
    machines.admit("gamma");
    let reached = machines.dial("gamma", "10.77.0.2:7000");
    assert!(reached.status.success(), "{}", reached.stderr);

    machines.ok("alpha", &["network", "revoke", "gamma"]);
    let deadline = Instant::now() + PATIENCE;
    while machines.dial("gamma", "10.77.0.2:7000").status.success() {
        assert!(Instant::now() < deadline, "the removed machine still gets through");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(serving);
}

#[test]
fn programs_with_a_node_of_their_own_are_the_same_member_and_a_label_leads_to_one() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    machines.admit("beta");
    machines.admit("gamma");
    let (_shared, address) = machines.listen("beta", "7000");
    let words = ["listen", "-k", "-n", "team", "--as", "web", "7001"];
    let web = Running::start(machines.command("beta", &words));
    web.wait_for_stderr("listening on ");
    for to in [format!("{address}:7000"), "beta:7000".to_owned(), "web.beta:7001".to_owned()] {
        let reached = machines.dial("gamma", &to);
        assert!(reached.status.success(), "{to}: {}", reached.stderr);
    }
    // Ten at once beside them, of the machine whose node is in use.
    let dialing: Vec<_> = (0..10)
        .map(|_| {
            let words = ["dial", "-n", "team", "--own-node", "--timeout", "15", "web.beta:7001"];
            Running::start(machines.command("beta", &words))
        })
        .collect();
    for one in dialing {
        let reached = one.finish();
        assert!(reached.status.success(), "{}", reached.stderr);
    }
    assert_eq!(machines.members().len(), 3, "no program is a member of its own");
    let other = machines.refused("beta", &["listen", "-n", "ff0001ffff000000", "--as", "web", "7002"]);
    assert!(other.contains("--as is for networks with members"), "{other}");
    drop(serving);
}

#[test]
fn a_machine_without_an_invite_waits_for_its_code() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    let joining = Running::start(machines.command("beta", &["join", &id, "--name", "beta", "--as", "team"]));
    let said = joining.wait_for_stderr("waiting for approval, code ");
    let code = said[..7].to_owned();
    serving.wait_for_stderr(&format!("beta wants to join: code {code}"));
    assert!(machines.refused("alpha", &["network", "approve", "ZZZ-ZZZ"]).contains("network members"));
    let approved = machines.ok("alpha", &["network", "approve", &code.to_ascii_lowercase()]);
    assert!(approved.contains("beta") && approved.contains("10.77.0.2"), "{approved}");
    joining.wait_for_stdout("joined team as beta");
    assert_eq!(machines.members().len(), 2);
    // The name on the machine lasts while a request waits. So does the way to the network without it.
    let waits = machines.refused("gamma", &["join", &id, "--as", "office", "--wait", "0s"]);
    assert!(waits.contains("the request waits for approval"), "{waits}");
    assert!(machines.ok("gamma", &["networks"]).starts_with("office"));
    let early = machines.refused("gamma", &["dial", "-n", "office", "beta:1"]);
    assert!(early.contains("no controller has admitted this machine"), "{early}");
}

#[test]
fn names_that_lead_nowhere_are_explained() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    machines.admit("beta");
    let unknown = machines.refused("beta", &["dial", "-n", "office", "alpha:1"]);
    assert!(
        unknown.contains("`office` is neither a network that this machine has joined nor a file"),
        "{unknown}"
    );
    assert!(unknown.contains("list the networks of this machine with `peersock networks`"), "{unknown}");
    let unnamed = machines.refused("beta", &["dial", "alpha:1"]);
    assert!(unnamed.contains("give `-n team`"), "{unnamed}");
    let number = machines.refused("alpha", &["network", "invite", "--name", "10"]);
    assert!(number.contains("is a number"), "{number}");
    let taken = run(machines.command("alpha", &["network", "invite", "--name", "beta"]));
    assert!(taken.stderr.contains("it becomes beta-2"), "{}", taken.stderr);
    let listed = machines.ok("alpha", &["network", "members"]);
    assert!(listed.lines().any(|line| line.contains("alpha") && line.ends_with("this machine")), "{listed}");
    assert!(!listed.contains("never"), "who joins has asked the controller: {listed}");
    for (wait, seconds) in [("2s", 2), ("0s", 10)] {
        let alone = machines.refused("gamma", &["join", "7dc156211c9e24be", "--wait", wait]);
        let looking = format!("looking for a controller of the network, for {seconds} s at most");
        assert!(alone.contains(&looking), "{alone}");
        assert!(alone.contains("no member of the network was found"), "{alone}");
    }
    // A node that runs asks for the program.
    let (_node, _) = machines.listen("beta", "7000");
    let absent = machines.refused("beta", &["ping", "-n", "team", "-c", "1", "gamma"]);
    assert!(absent.contains("no member of network") && absent.contains("is called `gamma`"), "{absent}");
    drop(serving);
    machines.wait_for_end_of_node("alpha");
    let unanswered = machines.refused("beta", &["ping", "-n", "team", "-c", "1", "delta"]);
    assert!(unanswered.contains("has said who is called `delta`"), "{unanswered}");
}

#[test]
fn members_go_on_without_the_controller_and_across_its_restart() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    ["beta", "gamma"].iter().for_each(|machine| machines.admit(machine));
    drop(serving);
    let (_listening, address) = machines.listen("beta", "7000");
    let reached = machines.dial("gamma", &format!("{address}:7000"));
    assert!(reached.status.success(), "{}", reached.stderr);
    // A controller that was killed has lost nothing, and admits again.
    let _serving = machines.serve("alpha");
    assert_eq!(machines.members().len(), 3);
    let invite = machines.invite(&["--name", "delta"]);
    let joined = machines.ok("delta", &["join", &invite]);
    assert!(joined.contains("10.77.0.4"), "{joined}");
}

#[test]
fn what_cannot_be_joined_is_refused_with_the_next_step() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    for (words, hint) in [
        (&["join"][..], "give an invite"),
        (&["join", "peersock://nonsense/AAAA"], "give the whole line"),
        (&["join", "ff00500050000000"], "give it to -n"),
        (&["dial", "-n", &id, "10.77.0.1:1"], "peersock join"),
        (&["network", "members", "-n", "other"], "peersock network create"),
        (&["leave", "other"], "peersock networks"),
        (&["controller"], "peersock network create"),
    ] {
        let refused = machines.refused("beta", words);
        assert!(refused.contains(hint), "{words:?}: {refused}");
    }
    // An invite with a mistyped beginning, whose secret is not shown.
    let mistyped = machines.invite(&[]).replace("peersock://", "peersock:/");
    let refused = machines.refused("beta", &["join", &mistyped]);
    assert!(
        refused.contains(&format!("`{}…`", &mistyped[..40])) && !refused.contains(&mistyped),
        "{refused}"
    );
    let damaged = machines.invite(&[]).replace('A', "B");
    assert!(!machines.refused("beta", &["join", &damaged]).is_empty());
    let expired = machines.invite(&["--for", "0s"]);
    assert!(machines.refused("beta", &["join", &expired]).contains("invite has ended"));
}

#[test]
fn a_machine_that_was_removed_is_told_and_its_flows_end() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    let invite = machines.invite(&["--name", "beta"]);
    machines.ok("beta", &["join", &invite, "--as", "team"]);
    let (listening, address) = machines.listen("alpha", "7000");
    let to = format!("{address}:7000");
    // Without a limit of silence, only the removal itself can end it.
    let mut dialing =
        Running::start(machines.command("beta", &["dial", "-n", "team", "--peer-timeout", "0", &to]));
    dialing.send(b"hello\n");
    listening.wait_for_stdout("hello");

    machines.ok("alpha", &["network", "revoke", "beta"]);
    let finished = dialing.wait_for_end();
    assert!(!finished.status.success(), "{}", finished.stderr);
    let said = "removed from network team by its controller";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
    for words in [
        &["networks"][..],
        &["dial", "-n", "team", &to],
        &["run", "-n", "team", "--", "true"],
        &["listen", "-n", "team", "7000"],
    ] {
        let output = run(machines.command("beta", words));
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), output.stderr);
        assert!(text.contains(said) && text.contains("peersock join"), "{words:?}: {text}");
        assert_eq!(output.status.code(), Some(i32::from(words != ["networks"])), "{words:?}");
    }
    // The machine comes back by another invite, and not by the one that it has used.
    let again = machines.refused("beta", &["join", &invite]);
    assert!(again.contains("has removed this machine"), "{again}");
    let invite = machines.invite(&["--name", "beta"]);
    assert!(machines.ok("beta", &["join", &invite]).contains("joined team as beta"));
    assert!(!machines.ok("beta", &["networks"]).contains("removed"));
    assert!(machines.dial("beta", &to).status.success());
}

#[test]
fn programs_that_serve_a_machine_which_is_removed_say_so() {
    for own_node in ["", "1"] {
        let machines = Machines::new();
        let (_, _serving) = machines.network();
        machines.admit("beta");
        let start = |words: &[&str], ready: &str| {
            let mut command = machines.command("beta", words);
            // One of them keeps the node, which the others share.
            command.env("PEERSOCK_OWN_NODE", own_node);
            let running = Running::start(command);
            running.wait_for_stderr(ready);
            running
        };
        let said = "this machine was removed from network team by its controller";
        let mut serving = vec![start(&["listen", "-k", "-n", "team", "7000"], "listening on ")];
        if own_node.is_empty() {
            serving.push(start(&["listen", "-n", "team", "7001"], "listening on "));
            serving.push(start(&["proxy", "-n", "team", "--listen", "0"], "a proxy for"));
            for words in
                [&["forward", "-n", "team", "overlay:7002", "9"][..], &["rest", "-n", "team", "--no-token"]]
            {
                let mut command = machines.command("beta", words);
                command.env("PEERSOCK_OWN_NODE", own_node);
                let running = Running::start(command);
                running.wait_for_stdout("\n");
                serving.push(running);
            }
        }
        let run = own_node.is_empty().then(|| start(&["run", "-n", "team", "--", "cat"], "network "));
        machines.ok("alpha", &["network", "revoke", "beta"]);
        for one in serving {
            one.wait_for_end().failure(1, &[said, "hint: ask who runs the network for an invite"]);
        }
        // Its program goes on.
        if let Some(mut run) = run {
            run.wait_for_stderr(said);
            run.send(b"it goes on\n");
            run.wait_for_stdout("it goes on");
            run.end_stdin();
            let ended = run.wait_for_end().success();
            assert_eq!(ended.stderr.matches(said).count(), 1, "{}", ended.stderr);
        }
    }
}

#[test]
fn a_change_of_tags_ends_open_connections_and_the_member_connects_again() {
    for options in [&[][..], &["--own-node"]] {
        let machines = Machines::new();
        let (_, _serving) = machines.network();
        machines.admit("beta");
        let (listening, _) = machines.listen("alpha", "7000");
        let dial = |line: &str| {
            let words = [&["dial", "-n", "team", "--peer-timeout", "0"], options, &["alpha:7000"]].concat();
            let mut dialing = Running::start(machines.command("beta", &words));
            dialing.send(format!("{line}\n").as_bytes());
            listening.wait_for_stdout(&format!("{line}\n"));
            dialing
        };
        let open = dial("before");
        machines.ok("alpha", &["network", "change", "beta", "--tag", "db"]);
        let finished = open.wait_for_end();
        assert!(!finished.status.success(), "{options:?}: {}", finished.stderr);
        dial("after").finish().success();
    }
}

/// The peer has sent its end, and this side has more to send: nothing is read any more.
#[test]
fn a_removal_ends_a_connection_whose_peer_has_finished() {
    for options in [&[][..], &["--own-node"]] {
        let machines = Machines::new();
        let (_, _serving) = machines.network();
        machines.admit("beta");
        let mut listening = Running::start(machines.command("alpha", &["listen", "-n", "team", "7000"]));
        listening.end_stdin();
        let address = listening.wait_for_stderr("listening on 10.77.0.");
        let to = format!("10.77.0.{}:7000", address.split(':').next().expect("an address"));
        let words = ["dial", "-n", "team", "--peer-timeout", "0"];
        let mut dialing = Running::start(machines.command("beta", &[&words[..], options, &[&to]].concat()));
        dialing.send(b"hello\n");
        listening.wait_for_stdout("hello");
        dialing.wait_for_stderr("the peer has finished; waiting for the end of stdin");
        machines.ok("alpha", &["network", "revoke", "beta"]);
        let finished = dialing.wait_for_end();
        assert!(!finished.status.success(), "{}", finished.stderr);
        let said = "removed from network team by its controller";
        assert!(finished.stderr.contains(said), "{options:?}: {}", finished.stderr);
    }
}

#[test]
fn a_machine_that_was_removed_while_it_was_off_learns_it_at_its_first_use() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    machines.admit("beta");
    let (_listening, address) = machines.listen("alpha", "7000");
    machines.ok("alpha", &["network", "revoke", "beta"]);
    // A node that runs says it, too.
    let listening = Running::start(machines.command("beta", &["listen", "-n", "team", "7001"]));
    listening.wait_for_stderr("listening on");
    let said = "removed from network team by its controller";
    let deadline = Instant::now() + PATIENCE;
    let refused = loop {
        // Long enough to fail the test, if only the time ended it.
        let target = format!("{address}:7000");
        let dialed = run(machines.command("beta", &["dial", "-n", "team", "--timeout", "600", &target]));
        if !dialed.status.success() {
            break dialed;
        }
        assert!(Instant::now() < deadline, "the removed machine still gets through");
    };
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
    let status = machines.ok("beta", &["status"]);
    assert!(status.contains("removed from this network by its controller"), "{status}");
    let status: Value = serde_json::from_str(&machines.ok("beta", &["status", "--json"])).expect("JSON");
    assert_eq!(status["networks"][0]["standing"], "removed");
}

#[test]
fn a_machine_that_was_denied_is_told_so() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    let joining = Running::start(machines.command("beta", &["join", &id, "--name", "beta"]));
    let said = joining.wait_for_stderr("waiting for approval, code ");
    let code = said[..7].to_owned();
    serving.wait_for_stderr("beta wants to join");
    machines.ok("alpha", &["network", "deny", &code]);
    let denied = joining.wait_for_end();
    assert!(denied.stderr.contains("has denied this machine's request"), "{}", denied.stderr);
    assert!(denied.stderr.contains("ask who runs the network"), "{}", denied.stderr);
    assert!(!denied.stderr.contains("removed"), "{}", denied.stderr);
    let refused = machines.refused("beta", &["dial", "-n", &id, "10.77.0.1:1"]);
    assert!(refused.contains("denied") && refused.contains("peersock join"), "{refused}");
    assert!(machines.ok("beta", &["networks"]).contains("denied"));
    // An invite is another decision.
    let invite = machines.invite(&["--name", "beta"]);
    assert!(machines.ok("beta", &["join", &invite]).contains("as beta"));
}

#[test]
fn an_invite_in_place_of_a_network_leads_to_join() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    let invite = machines.invite(&[]);
    for words in [
        &["dial", "-n", &invite, "10.77.0.1:1"][..],
        &["run", "-n", &invite, "--", "true"],
        &["members", "-n", &invite],
    ] {
        let refused = machines.refused("beta", words);
        assert!(refused.contains("peersock join INVITE"), "{words:?}: {refused}");
    }
}

#[test]
fn members_are_listed_and_named_by_commands() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    ["beta", "gamma"].iter().for_each(|machine| machines.admit(machine));
    let (listening, address) = machines.listen("gamma", "7000");
    // Neither has met the other: the controller knows the name.
    for name in ["gamma", "GAMMA", "gamma.team", &format!("gamma.{id}")] {
        let dialed = machines.dial("beta", &format!("{name}:7000"));
        assert!(dialed.status.success(), "{name}: {}", dialed.stderr);
        let pinged = machines.ok("beta", &["ping", "-n", "team", "-c", "1", name]);
        assert!(pinged.contains("bytes from fd") || pinged.contains(&address), "{pinged}");
    }
    let absent = machines.dial("beta", "delta:7000");
    assert!(absent.stderr.contains("is called `delta`"), "{}", absent.stderr);
    assert!(absent.stderr.contains("peersock members"), "{}", absent.stderr);

    let forwarding =
        Running::start(machines.command("beta", &["forward", "-n", "team", "0", "gamma.team:7000"]));
    let at = forwarding.wait_for_stdout(" tcp:overlay:");
    let at = at.split(' ').next().and_then(|at| at.strip_prefix("tcp:")).expect("an address").to_owned();
    // A node that runs finds names, too.
    machines.ok("beta", &["ping", "-n", "team", "-c", "1", "gamma"]);
    let mut client = std::net::TcpStream::connect(at.as_str()).expect("the forward listens");
    std::io::Write::write_all(&mut client, b"by a forward\n").expect("it is taken");
    listening.wait_for_stdout("by a forward");

    for (machine, hint) in [("beta", "on its machine"), ("alpha", "peersock network members -n")] {
        let output = run(machines.command(machine, &["members", "-n", "team"]));
        let listed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", output.stderr);
        assert!(listed.contains("alpha") && listed.contains("gamma"), "{machine}: {listed}");
        assert!(listed.contains("online") && listed.contains(&address), "{machine}: {listed}");
        assert!(output.stderr.contains(hint), "{machine}: {}", output.stderr);
    }
    // Without a node that runs, too.
    drop(forwarding);
    wait_until("the node outlives its programs", || {
        !run(machines.command("beta", &["status"])).status.success()
    });
    let listed = machines.ok("beta", &["members", "-n", "team", "--wait", "5"]);
    assert!(listed.contains("alpha") && listed.contains("gamma"), "{listed}");
}

#[test]
fn a_person_at_the_controller_sees_what_happens_and_both_sides_compare_the_key() {
    let machines = Machines::new();
    let made = run(machines.command("alpha", &["network", "create", "team", "--pool", "10.77.0.0/24"]));
    let key = made.stderr.split("key ").nth(1).expect("the key").split(':').next().expect("the key");
    assert_eq!(key.len(), 24, "{key}");
    let id: String = String::from_utf8_lossy(&made.stdout)[15..].trim().replace('-', "");
    // No machine can use this invite yet.
    let invited = run(machines.command("alpha", &["network", "invite", "--name", "beta"]));
    assert!(invited.stderr.contains("run `peersock controller -n team`"), "{}", invited.stderr);
    let serving = machines.serve("alpha");
    assert!(machines.refused("alpha", &["network", "invite", "--uses", "0"]).contains("--uses"));
    let useless = run(machines.command("alpha", &["network", "invite", "--for", "0s"])).stderr;
    for warning in ["it has ended already", "on this machine alone"] {
        assert!(useless.contains(warning), "{useless}");
    }
    assert!(!useless.contains("no controller serves"), "{useless}");

    let invite = String::from_utf8(invited.stdout).expect("text");
    machines.ok("beta", &["join", invite.trim()]);
    serving.wait_for_stderr("beta (10.77.0.2) has joined, by invite");
    let joining = Running::start(machines.command("gamma", &["join", &id, "--name", "gamma"]));
    joining.wait_for_stderr(&format!("the network's key is {key}: compare it"));
    let code = joining.wait_for_stderr("waiting for approval, code ")[..7].to_owned();
    serving.wait_for_stderr(&format!("peersock network approve {code}"));
    let listed = run(machines.command("alpha", &["network", "members"]));
    assert!(listed.stderr.contains(key), "{}", listed.stderr);
    machines.ok("alpha", &["network", "deny", &code]);
    serving.wait_for_stderr("was denied, by ");
    machines.ok("alpha", &["network", "revoke", "beta"]);
    serving.wait_for_stderr("beta was removed, by ");
    let said = serving.said();
    for once in ["beta (10.77.0.2) has joined", "wants to join", "was denied", "was removed"] {
        assert_eq!(said.matches(once).count(), 1, "{once}: {said}");
    }
}

#[test]
fn the_machine_of_the_controller_leaves_by_force_alone() {
    let machines = Machines::new();
    machines.ok("alpha", &["network", "create", "team", "--name", "alpha"]);
    let refused = machines.refused("alpha", &["leave", "team"]);
    assert!(refused.contains("is the controller") && refused.contains("--force"), "{refused}");
    let left = run(machines.command("alpha", &["leave", "team", "--force"]));
    assert!(left.status.success() && left.stderr.contains("store stays"), "{}", left.stderr);
    drop(machines.serve("alpha"));
}

#[test]
fn a_machine_whose_request_is_refused_at_once_keeps_nothing_of_it() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let used = machines.invite(&["--name", "beta"]);
    machines.ok("beta", &["join", &used]);
    let denied = Running::start(machines.command("delta", &["join", &id, "--name", "delta"]));
    let code = denied.wait_for_stderr("waiting for approval, code ")[..7].to_owned();
    machines.ok("alpha", &["network", "deny", &code]);
    denied.wait_for_end();
    machines.ok("delta", &["leave", &id]);
    for own_node in ["", "1"] {
        for (machine, words) in [("gamma", ["join", &used]), ("delta", ["join", &id])] {
            let mut joining = machines.command(machine, &words);
            joining.env("PEERSOCK_OWN_NODE", own_node);
            run(joining).failure(1, &["not admitted: "]);
            assert_eq!(machines.ok(machine, &["networks", "--json"]), "[]", "{machine}");
        }
    }
}

#[test]
fn the_name_of_a_network_lasts_when_the_command_is_killed_that_waits() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    for (machine, own_node) in [("beta", ""), ("gamma", "1")] {
        let mut joining = machines.command(machine, &["join", &id, "--as", "office"]);
        joining.env("PEERSOCK_OWN_NODE", own_node);
        let joining = Running::start(joining);
        joining.wait_for_stderr("waiting for approval, code ");
        vanish(Signal::KILL, joining.id());
        assert!(machines.ok(machine, &["networks"]).starts_with("office"), "{machine}");
    }
}

/// Members see when a controller was heard, and when its right to issue certificates ends.
#[test]
fn members_are_told_of_their_controller_and_of_the_end_of_its_right() {
    const DAY: u64 = 86_400;
    let machines = Machines::new();
    let (id, _) = machines.create(&["--offline"]);
    let _serving = machines.serve("alpha");
    machines.admit("beta");
    let listening = machines.listen("beta", "7000").0;
    let status = |machine: &str| -> Value {
        let status: Value = serde_json::from_str(&machines.ok(machine, &["status", "--json"])).expect("JSON");
        status["networks"][0].clone()
    };
    let joined = status("beta");
    let left = |field: &str| joined[field].as_f64().expect("a time") as u64;
    assert!(left("heard_s") < 600 && (23 * 3600..=DAY).contains(&left("certificate_left_s")), "{joined}");
    assert!((364 * DAY..=365 * DAY).contains(&left("issuer_left_s")), "{joined}");
    assert_eq!((&joined["issuer_ending"], &status("alpha")["heard_s"]), (&false.into(), &Value::Null));
    let text = machines.ok("beta", &["status"]);
    assert!(text.contains("  controller heard ") && text.contains("; certificate for 23 h "), "{text}");
    let prometheus = machines.ok("beta", &["status", "--prometheus"]);
    for name in ["controller_heard", "certificate_left", "issuer_left"] {
        assert!(prometheus.contains(&format!("peersock_network_{name}_seconds{{")), "{prometheus}");
    }

    let known = |machine: &str| -> Value {
        let all: Value = serde_json::from_str(&machines.ok(machine, &["networks", "--json"])).expect("JSON");
        all[0].clone()
    };
    let (beta, alpha) = (known("beta"), known("alpha"));
    let at = |field: &str| beta[field].as_u64().expect("a time");
    assert_eq!(at("certificate_ends") - at("heard"), DAY, "{beta}");
    assert!((364 * DAY..=365 * DAY).contains(&(at("issuer_ends") - at("heard"))), "{beta}");
    assert_eq!((&beta["issuer_ending"], &alpha["heard"]), (&false.into(), &Value::Null));
    let text = machines.ok("beta", &["networks"]);
    assert!(text.contains("  certificate for 23h") && text.contains("  controller heard "), "{text}");
    assert!(!text.contains("network renew"), "{text}");

    // The controllers' clocks are 310 days ahead.
    drop(listening);
    machines.wait_for_end_of_node("beta");
    let mut record = machines.record("beta", &id);
    record["clock_offset"] = (310 * DAY * 1000).into();
    let file = machines.directory("beta").join(format!("{id}.network"));
    std::fs::write(file, record.to_string()).expect("room");
    assert_eq!(known("beta")["issuer_ending"], true);
    let text = machines.ok("beta", &["networks"]);
    let warning =
        "\n  the network's right to issue certificates ends in 54d 23h: run `peersock network renew` at";
    assert!(text.contains(warning) && text.contains("certificate has ended"), "{text}");
}

#[test]
fn a_renewal_beside_the_controller_counts_at_once() {
    let machines = Machines::new();
    let (_, words) = machines.create(&["--offline"]);
    let serving = machines.serve("alpha");
    machines.with_words("alpha", &["network", "renew", "-n", "team"], &words).success();
    serving.wait_for_stderr("the right to issue certificates is renewed for another 36");
}

#[test]
fn commands_that_were_killed_are_finished_by_repeating_them() {
    let machines = Machines::new();
    let (id, words) = machines.create(&[]);
    let record = machines.folder().join("alpha").join(format!("{id}.network"));
    let rest = machines.folder().join("alpha/.tmpAbCdEf");
    let create = ["network", "create", "team", "--pool", "10.77.0.0/24", "--name", "alpha"];
    for again in [&create[..], &["network", "restore", "team"]] {
        std::fs::remove_file(&record).expect("a record");
        std::fs::create_dir(&rest).expect("a directory");
        std::fs::write(rest.join("network.db"), "").expect("room");
        let done = machines.with_words("alpha", again, &words);
        assert!(done.status.success(), "{again:?}: {}", done.stderr);
        assert!(done.text().replace('-', "").contains(&id), "{again:?}: {}", done.text());
        if *again == create {
            assert!(done.stderr.contains(&words), "{}", done.stderr);
        }
        assert_eq!(machines.record("alpha", &id)["name"], "team", "{again:?}");
        assert!(!rest.exists(), "{again:?} leaves what an earlier one has left");
    }
    let _serving = machines.serve("alpha");
}

#[test]
fn an_invite_in_a_file_or_on_stdin_is_joined_by_and_names_the_network() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let invite = |name: &str| machines.invite(&["--name", name]);
    let file = machines.directory("invite.txt");
    let path = file.to_str().expect("text");
    std::fs::write(&file, format!("\n  {}\r\n\n", invite("beta"))).expect("room");
    let joined = machines.ok("beta", &["join", path]);
    assert!(joined.starts_with("joined team as beta"), "{joined}");
    let joined = machines.with_words("gamma", &["join", "-"], &format!("{}\n", invite("gamma")));
    assert!(joined.text().starts_with("joined team as gamma"), "{}{}", joined.text(), joined.stderr);
    // In a container, the variable is all that is given.
    let mut join = machines.command("delta", &["join"]);
    join.env("PEERSOCK_INVITE", invite("delta"));
    let joined = run(join);
    assert!(joined.text().starts_with("joined team as delta"), "{}{}", joined.text(), joined.stderr);

    for (content, message) in [
        (&b""[..], "there is no invite in"),
        (b"hello", "there is no invite in"),
        (b"\xff\xfe", "there is no invite in"),
        (b"peersock://e18a4c0277d19b3f/EX", "the invite cannot be read"),
        (&b" ".repeat(9000), "there is no invite in"),
    ] {
        std::fs::write(&file, content).expect("room");
        let refused = machines.refused("epsilon", &["join", path]);
        assert!(refused.contains(message) && refused.contains("hint: "), "{message}: {refused}");
    }
    std::fs::remove_file(&file).expect("it is there");
    machines.ok("epsilon", &["network", "new", path]);
    assert!(machines.ok("epsilon", &["join", path]).contains("static network"));
    assert!(machines.refused("epsilon", &["join", "no/such/file"]).contains("no invite, no file and no"));
    let folder = machines.directory("folder");
    std::fs::create_dir(&folder).expect("room");
    assert!(
        machines.refused("epsilon", &["join", folder.to_str().expect("text")]).contains("cannot be read")
    );
    assert_eq!(machines.ok("gamma", &["networks", "--json"]).matches(&id).count(), 1);
}

#[test]
fn a_network_gets_another_local_name_where_its_own_is_taken() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    machines.ok("beta", &["network", "create", "team"]);
    let output = run(machines.command("beta", &["join", &machines.invite(&["--name", "beta"])]));
    assert!(output.text().starts_with("joined team-2 as beta"), "{}{}", output.text(), output.stderr);
    assert!(output.stderr.contains("another network has the name team here, so this one is team-2"));
    // The name that a person has given stays.
    let invite = machines.invite(&["--name", "gamma"]);
    machines.ok("gamma", &["join", &invite, "--as", "work"]);
    assert!(machines.ok("gamma", &["join", &invite]).contains("work"));
}

#[test]
fn a_controller_is_installed_as_a_unit_that_systemd_accepts() {
    let machines = Machines::new();
    let (id, _) = machines.create(&[]);
    let config = machines.directory("a config");
    let file = format!("peersock-controller-{id}.service");
    let install_with = |namespaces: &[&str], roots: &str| {
        let own = machines.command("alpha", &[]);
        let mut command = Command::new("unshare");
        command.args(namespaces).arg(own.get_program()).args(["controller", "--install"]);
        for (name, value) in own.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            command.env(name, value);
        }
        command.env("PEERSOCK_ROOTS", roots).env("XDG_CONFIG_HOME", &config);
        command.env("PEERSOCK_SECRET", "hidden").env_remove("PEERSOCK_INVITE");
        run(command)
    };
    let install = |namespaces: &[&str]| install_with(namespaces, "dns:$HOME.example");
    let of_a_user = ["--user", "--map-user=1000"];
    let written = install(&of_a_user);
    if written.stderr.contains("unshare") {
        eprintln!("SKIP a_controller_is_installed: no user namespace here");
        return;
    }
    let path = config.join("systemd/user").join(&file);
    assert_eq!(written.text().trim(), format!("wrote {}", path.display()), "{}", written.stderr);
    for told in ["systemctl --user enable --now", "journalctl --user -u", "disable --now", "enable-linger"] {
        assert!(written.stderr.contains(told), "{}", written.stderr);
    }
    let text = std::fs::read_to_string(&path).expect("a unit");
    assert!(text.contains(&format!(" \"controller\" \"-n\" \"{id}\"\n")), "{text}");
    assert!(text.contains("Environment=\"PEERSOCK_ROOTS=dns:$HOME.example\"\n"), "{text}");
    assert!(text.contains("Environment=\"PEERSOCK_OWN_NODE=1\"\n"), "{text}");
    assert!(!text.contains("hidden"), "{text}");
    let key = *peersock::overlay::Identity::from_seed(&[7; 32]).public();
    let with_token = format!("{key}@192.0.2.1:7420?token=hidden");
    let secret = install_with(&of_a_user, &with_token);
    assert!(secret.stderr.contains("have a secret"), "{}", secret.stderr);
    assert_eq!(std::fs::metadata(&path).expect("a unit").mode() & 0o777, 0o600);
    if !crate::common::lacks("a_controller_is_installed", &["systemd-analyze"]) {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["--user", "--man=no", "verify"]).arg(&path).env("XDG_RUNTIME_DIR", &config);
        let verified = run(verify);
        assert!(verified.status.success() && !verified.stderr.contains(&file), "{}", verified.stderr);
    }
    // Again replaces it, and another file stays.
    install(&of_a_user).success();
    std::fs::write(&path, "[Unit]\n").expect("room");
    let refused = install(&of_a_user).stderr;
    assert!(
        refused.contains("not written by this command") && refused.contains("hint: remove it"),
        "{refused}"
    );
    if !std::path::Path::new("/etc/systemd/system").is_dir() {
        eprintln!("SKIP a system unit: no directory of units here");
        return;
    }
    let script = "mount -t tmpfs tmpfs /etc/systemd/system && \"$@\" && cat /etc/systemd/system/peersock*";
    let system = install(&["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).success();
    assert!(system.text().starts_with(&format!("wrote /etc/systemd/system/{file}\n")), "{}", system.text());
    assert!(system.text().contains("WantedBy=multi-user.target"), "{}", system.text());
    assert!(system.stderr.contains("systemctl enable --now"), "{}", system.stderr);
}
