//! `ping`, `status`, `members` and `demo`.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Finished, Lab, PATIENCE, PORT, Running, peersock, run, signal, write_file};

#[test]
fn ping_prints_replies_and_a_summary() {
    let lab = Lab::new();
    let listening = lab.listen(&[&PORT.to_string()]);
    let address = listening.target.rsplit_once(':').unwrap().0.trim_matches(['[', ']']).to_owned();
    let ping = run(lab.node("pinger", &["ping", "-c", "3", "-i", "0.01", &address])).success();
    for words in ["seq=1 ", "seq=3 ", "3 requests transmitted, 3 replies received, 0% loss", "round trip"] {
        assert!(ping.text().contains(words), "{words:?} is not in: {}", ping.text());
    }

    let ping = run(lab.node("pinger", &["ping", "--json", "-c", "2", "-i", "0.01", &address])).success();
    let json: Value = serde_json::from_str(ping.text()).unwrap();
    assert_eq!((&json["transmitted"], &json["received"]), (&Value::from(2), &Value::from(2)));
    assert!(json["median_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(json["attempts"], Value::Array(Vec::new()), "no root ever relayed");

    let endless = Running::start(lab.node("pinger", &["ping", "-i", "0.01", &address]));
    endless.wait_for_stdout("seq=2 ");
    let endless = endless.interrupt().success();
    assert!(endless.text().contains("ping statistics"), "{}", endless.text());
}

#[test]
fn ping_of_nobody_fails() {
    let lab = Lab::new();
    let absent = run(lab.command("absent", &["addr", &lab.network])).success().text().trim().to_owned();
    run(lab.node("pinger", &["ping", "--timeout", "0.5", &absent])).failure(1, &["no member", &absent]);
    run(lab.node("pinger", &["ping", "somewhere"])).failure(2, &["somewhere"]);

    let json = run(lab.node("pinger", &["ping", "--json", "--timeout", "0.5", &absent]));
    json.failure(1, &["no member", "same network ID", "-v"]);
    let json: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!((&json["received"], &json["transmitted"]), (&Value::from(0), &Value::from(0)));
    assert!(json["error"].as_str().unwrap().contains(&absent), "{json}");

    let waiting = Running::start(lab.node("pinger", &["ping", "-v", &absent]));
    waiting.wait_for_state(&lab, "pinger");
    waiting.interrupt().failure(130, &[]);
}

/// Parses stdout, which must be exactly one JSON object.
fn one_object(finished: &Finished) -> Value {
    serde_json::from_str(finished.text()).unwrap_or_else(|error| panic!("{error}: {:?}", finished.text()))
}

#[test]
fn a_ping_prints_one_json_object_however_it_ends() {
    let lab = Lab::new();
    let absent = run(lab.command("absent", &["addr", &lab.network])).success().text().trim().to_owned();
    for end in [Signal::INT, Signal::TERM] {
        let searching = Running::start(lab.node("pinger", &["ping", "--json", &absent]));
        searching.wait_for_state(&lab, "pinger");
        signal(end, searching.id());
        let searching = searching.wait_for_end();
        assert_eq!(searching.status.code(), Some(128 + end.as_raw()), "{}", searching.stderr);
        let json = one_object(&searching);
        assert_eq!((&json["transmitted"], &json["received"]), (&Value::from(0), &Value::from(0)));
        assert!(json["error"].as_str().expect("an error").contains("stopped"), "{json}");
    }

    let listening = lab.listen(&[&PORT.to_string()]);
    let address = listening.target.rsplit_once(':').unwrap().0.trim_matches(['[', ']']).to_owned();
    let endless = Running::start(lab.node("pinger", &["ping", "--json", "-i", "0.01", &address]));
    wait_for(|| {
        let status = run(lab.command("pinger", &["status", "--json"]));
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        (status["traffic"]["received_packets"].as_u64() > Some(5)).then_some(())
    });
    let json = one_object(&endless.interrupt().success());
    assert!(json["received"].as_u64() > Some(0) && json.get("error").is_none(), "{json}");
}

#[test]
fn addresses_are_printed_of_a_network_that_is_named_in_either_way() {
    let lab = Lab::new();
    let plain = run(lab.command("node", &["addr", &lab.network])).success();
    for words in [&["addr", "-n", &lab.network][..], &["addr", "--network", &lab.network]] {
        assert_eq!(run(lab.command("node", words)).success().text(), plain.text());
    }
    let with_variable = |words: &[&str], network: &str| {
        let mut command = lab.command("node", words);
        command.env("PEERSOCK_NETWORK", network);
        run(command)
    };
    assert_eq!(with_variable(&["addr"], &lab.network).success().text(), plain.text());
    assert_eq!(with_variable(&["addr", "-n", &lab.network], "nonsense").success().text(), plain.text());
    assert_eq!(with_variable(&["addr", &lab.network], "nonsense").success().text(), plain.text());
    run(lab.command("node", &["addr"])).failure(2, &["no network is named", "-n NETWORK"]);
    run(lab.command("node", &["addr", &lab.network, "-n", &lab.network]))
        .failure(2, &["cannot be used with"]);
}

#[test]
fn status_shows_the_running_node_and_its_peers() {
    let lab = Lab::new();
    run(lab.command("listener", &["status"])).failure(1, &["no node is running"]);

    let mut listening = lab.listen(&[&PORT.to_string()]);
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");

    let status = run(lab.command("listener", &["status"])).success();
    let node_id = |node: &str| {
        let id = run(lab.command(node, &["id", "--json"])).success();
        serde_json::from_str::<Value>(id.text()).unwrap()["node_id"].as_str().unwrap().to_owned()
    };
    for words in [&node_id("listener"), &node_id("dialer"), &lab.network, "127.0.0.1", "session over"] {
        assert!(status.text().contains(words), "{words:?} is not in: {}", status.text());
    }
    let summary = status.text().lines().next().unwrap();
    assert!(summary.starts_with("1 network: 1 online, 0 offline; 1 TCP connection; "), "{summary}");
    assert!(!status.text().contains('\x1b'), "no colours in a pipe: {}", status.text());
    let json = run(lab.command("listener", &["status", "--json"])).success();
    let json: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(json["peers"][0]["id"], node_id("dialer").as_str());
    assert_eq!(json["peers"][0]["connected"], true);
    assert_eq!(
        (&json["peers"][0]["state"], &json["networks"][0]["kind"]),
        (&"connected".into(), &"ad-hoc".into())
    );
    let network = &json["networks"][0];
    assert_eq!((&network["secret"], &network["closed"]), (&false.into(), &false.into()));
    assert_eq!(network["prefixes"].as_array().unwrap().len(), 1);
    assert!(json["peers"][0]["last_seen_s"].is_f64(), "{json}");
    assert!(json["traffic"]["received_bytes"].as_u64().unwrap() > 0, "{json}");

    dialing.end_stdin();
    listening.running.end_stdin();
    dialing.finish().success();
    listening.running.finish().success();
    run(lab.command("listener", &["status"])).failure(1, &["no node is running"]);
    run(peersock(&["status", "--ephemeral"])).failure(2, &["ephemeral"]);
}

#[test]
fn a_watched_status_is_printed_again_until_the_node_ends() {
    let lab = Lab::new();
    let listening = lab.listen(&[&PORT.to_string()]);
    let watching = Running::start(lab.command("listener", &["status", "--watch", "0.1"]));
    watching.wait_for_stdout("\n\n1 network: ");
    let objects = Running::start(lab.command("listener", &["status", "--json", "--watch=0.1"]));
    objects.wait_for_stdout("}\n{");
    listening.running.interrupt().failure(130, &[]);
    for watching in [watching, objects] {
        let watched = watching.finish();
        watched.failure(1, &["the node has ended", "no node is running", "`peersock events`"]);
        assert!(!watched.text().contains('\x1b'), "nothing moves in a pipe");
    }
    run(lab.command("listener", &["status", "--watch", "0"])).failure(2, &["0.1 to 86400"]);
}

#[test]
fn a_peer_that_has_left_is_counted_and_no_longer_listed() {
    let lab = Lab::new();
    let mut listening = lab.listen(&["-k", &PORT.to_string()]);
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");
    dialing.interrupt().failure(130, &[]);
    let deadline = Instant::now() + PATIENCE;
    let gone = loop {
        let status = run(lab.command("listener", &["status"])).success();
        if status.text().contains("0 online, 1 offline") {
            break status;
        }
        assert!(Instant::now() < deadline, "{}", status.text());
    };
    assert!(
        !gone.text().contains("session over") && gone.text().contains("--all lists them"),
        "{}",
        gone.text()
    );
    let all = run(lab.command("listener", &["status", "--all"])).success();
    assert!(all.text().contains("seen ") && all.text().contains(" ago"), "{}", all.text());
    let members = run(lab.command("listener", &["members"])).success();
    assert_eq!(members.text().lines().count(), 1, "itself alone: {}", members.text());
    listening.running.end_stdin();
}

#[test]
fn members_are_found_by_beacon_and_never_learn_who_asked() {
    let lab = Lab::new();
    let words = ["members", "--ephemeral", "--interface", "lo", "--wait", "0.3", "-n", &lab.network];
    let nobody = run(peersock(&words)).success();
    assert_eq!(nobody.text(), "");
    for words in ["no member answered", "hint: start a node", "network and secret", "netcheck", "--wait"] {
        assert!(nobody.stderr.contains(words), "{words}: {}", nobody.stderr);
    }

    let listening = lab.listen(&[&PORT.to_string()]);
    let address = listening.target.rsplit_once(':').unwrap().0.trim_matches(['[', ']']).to_owned();
    // An answer may take longer than this on a busy machine.
    let found = wait_for(|| {
        let found = run(peersock(&words)).success();
        found.text().contains(&address).then_some(found)
    });
    let line = found.text().trim_end();
    let heard = line.contains(" online ") && line.ends_with("ago");
    assert!(line.starts_with(&address) && heard && line.lines().count() == 1, "{line}");
    assert!(found.stderr.contains("1 member answered"), "{}", found.stderr);
    assert!(!found.stderr.contains("hint: "), "{}", found.stderr);

    // A command that could use its identity, but needs none here, also gets the answer.
    let json = wait_for(|| {
        let json = run(lab.node("asker", &["members", "--json", "--wait", "0.3"])).success();
        json.text().contains(&address).then_some(json)
    });
    let json: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(json["source"], "beacons");
    let member = &json["networks"][0]["members"][0];
    assert_eq!((&member["address"], &member["state"]), (&address.as_str().into(), &"online".into()));
    assert_eq!(member["addresses"][0], address.as_str());
    assert!(!lab.state("asker").join("identity.key").exists());

    let own = run(lab.command("listener", &["members"])).success();
    assert!(own.text().starts_with(&address) && own.text().contains("this node"), "{}", own.text());
    assert_eq!(own.text().lines().count(), 1, "nobody has introduced himself: {}", own.text());
    run(lab.command("nobody", &["members"])).failure(2, &["no node is running", "-n NETWORK"]);
}

#[test]
fn members_of_a_static_network_are_listed_with_their_names_whether_they_are_there_or_not() {
    let lab = Lab::new();
    let key = |node: &str| {
        let id = run(lab.command(node, &["id", "--json"])).success();
        serde_json::from_str::<Value>(id.text()).unwrap()["public_key"].to_string()
    };
    let member = |(number, name): (usize, &str)| {
        format!("[[member]]\nname = \"{name}\"\nkey = {}\naddresses = [\"10.7.0.{number}\"]\n", key(name))
    };
    let members: String =
        ["gamma", "alpha", "beta"].into_iter().enumerate().map(|(i, name)| member((i + 1, name))).collect();
    let file = lab.dir.path().join("office.toml");
    write_file(&file, &format!("network = \"fe00000000000001\"\n{members}"), 0o644);
    let network = file.to_str().unwrap();

    let listening = lab.listen_with(lab.node_in(network, "alpha", &["listen"]), &["80"]);
    let members = wait_for(|| {
        let members = run(lab.node_in(network, "beta", &["members", "--wait", "0.3"])).success();
        members.text().contains("online").then_some(members)
    });
    let rows: Vec<_> =
        members.text().lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    let shown: Vec<_> = rows.iter().map(|row| (row[1], row[2], row[row.len() - 1])).collect();
    assert_eq!(
        shown,
        [("alpha", "online", "10.7.0.2"), ("beta", "this", "10.7.0.3"), ("gamma", "never", "10.7.0.1")],
        "{}",
        members.text()
    );
    let address = listening.target.rsplit_once(':').unwrap().0.trim_matches(['[', ']']);
    assert!(address == rows[0][0] || address == "10.7.0.2", "{address}");

    // A running node answers for itself, with the same members.
    let own = run(lab.command("alpha", &["members"])).success();
    assert!(own.text().lines().next().unwrap().contains("this node"), "{}", own.text());
    assert!(own.text().contains("never seen"), "{}", own.text());
    run(lab.command("alpha", &["members", "-n", &lab.network, "--wait", "0.1", "--interface", "lo"]))
        .success();
    let other = file.with_file_name("other.toml");
    write_file(&other, &format!("network = \"fe00000000000002\"\n{}", member((1, "alpha"))), 0o644);
    run(lab.node_in(other.to_str().unwrap(), "alpha", &["members"]))
        .failure(1, &["has not joined network fe00000000000002"]);
    run(lab.node_in(network, "stranger", &["members"])).failure(1, &["not a member"]);
}

/// Calls `look` until it returns a value.
fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it does not come");
    }
}

#[test]
fn the_demonstration_reports_everything_it_promises() {
    let demo = run(peersock(&["demo", "--size", "3MiB"])).success();
    for words in [
        "server       node ",
        "client       node ",
        "at   fd",
        "path ",
        "127.0.0.1:",
        "cipher suite ",
        "first byte ",
        "throughput ",
        "p50 ",
        "p99 ",
        "verified",
    ] {
        assert!(demo.text().contains(words), "{words:?} is not in: {}", demo.text());
    }
    assert_eq!(demo.stderr, "");
}

#[test]
fn the_demonstration_speaks_json() {
    let demo = run(peersock(&["demo", "--size", "100k", "--json"])).success();
    let json: Value = serde_json::from_str(demo.text()).unwrap();
    assert_eq!(json["verified"], true);
    assert_eq!(json["size"], 102_400);
    assert_ne!(json["server"]["node_id"], json["client"]["node_id"]);
    for field in ["throughput_bits_per_second", "first_byte_ms", "ping_pong_p50_us", "ping_pong_p99_us"] {
        let number = json[field].as_f64().unwrap();
        assert!(number > 0.0, "{field}");
        let digits = json[field].to_string();
        let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        assert!(decimals <= 6, "{field} is {digits}");
    }
}

#[test]
fn an_interrupted_demonstration_leaves_nothing_behind() {
    // The size takes too long to finish before the interrupt, but costs little if it is not used.
    let demo = Running::start(peersock(&["demo", "--size", "2GiB"]));
    let parent = demo.id();
    let children = wait_for_children(parent);
    demo.interrupt().failure(130, &[]);
    for child in children {
        assert!(!std::path::Path::new(&format!("/proc/{child}")).exists(), "process {child} is left");
    }
}

#[test]
fn a_killed_demonstration_takes_its_processes_with_it() {
    let demo = Running::start(peersock(&["demo", "--size", "2GiB"]));
    let children = wait_for_children(demo.id());
    // Dropping kills the parent, which then cannot notify its children.
    drop(demo);
    let deadline = Instant::now() + PATIENCE;
    while children.iter().any(|child| is_running(*child)) {
        assert!(Instant::now() < deadline, "the children outlive their parent");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the two processes that a demonstration starts.
fn wait_for_children(parent: u32) -> Vec<u32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut children = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{parent}/task")).unwrap() {
            let list = task.unwrap().path().join("children");
            let list = std::fs::read_to_string(list).unwrap_or_default();
            children.extend(list.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
        if children.len() == 2 {
            return children;
        }
        assert!(Instant::now() < deadline, "the demonstration starts no processes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns true if the process runs; a zombie does not count.
pub(crate) fn is_running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
