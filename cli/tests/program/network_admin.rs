//! Commands for the network of a controller beside the one that runs: invites, changes, settings, removals.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Finished, Running, run, signal, wait_until};
use crate::machines::Machines;

impl Machines {
    /// Runs a command of the controller's machine.
    pub(crate) fn admin(&self, words: &[&str]) -> Finished {
        run(self.command("alpha", &[&["network"], words].concat()))
    }

    /// Runs such a command that prints JSON.
    pub(crate) fn admin_json(&self, words: &[&str]) -> Value {
        let output = self.admin(&[words, &["--json"]].concat()).success();
        serde_json::from_str(output.text()).expect("JSON")
    }

    /// Runs a command that must change nothing: all have the members, settings and invites of before.
    fn changes_nothing(&self, words: &[&str], said: &[&str]) {
        let state = || ["members", "settings", "invites"].map(|what| self.admin_json(&[what]));
        // Members are heard meanwhile.
        let shown = |state: [Value; 3]| state.map(|one| without_times(&one).to_string());
        let before = shown(state());
        let failed = self.admin(words);
        assert!(!failed.status.success(), "{words:?}");
        for one in said.iter().chain(&["hint: "]) {
            assert!(failed.stderr.contains(one), "{words:?}: {}", failed.stderr);
        }
        assert_eq!(shown(state()), before, "{words:?}");
    }

    /// Returns what a machine knows of its only managed network.
    pub(crate) fn membership(&self, machine: &str) -> Value {
        let all: Value = serde_json::from_str(&self.ok(machine, &["networks", "--json"])).expect("JSON");
        all[0].clone()
    }

    /// Waits until members are connected to the controller.
    fn wait_for_members(&self, count: usize) {
        let is_member = |peer: &&Value| peer["connected"] == true && peer["standing"] == "member";
        wait_until("the members are not connected", || {
            let status: Value = serde_json::from_str(&self.ok("alpha", &["status", "--json"])).expect("JSON");
            status["peers"].as_array().expect("a list").iter().filter(is_member).count() == count
        });
    }

    /// Lets machines be members whose nodes run.
    fn online(&self, machines: &[&str]) -> Vec<Running> {
        let start = |machine: &&str| {
            self.admit(machine);
            self.listen(machine, "7000").0
        };
        machines.iter().map(start).collect()
    }
}

fn without_times(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.iter().map(without_times).collect(),
        Value::Object(fields) => {
            let kept =
                fields.iter().filter(|(name, _)| !["seen", "certificate_ends"].contains(&name.as_str()));
            kept.map(|(name, value)| (name.clone(), without_times(value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        other => other.clone(),
    }
}

#[test]
fn invites_are_listed_by_their_names_and_end_by_them() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    let empty = machines.admin(&["invites"]);
    assert!(empty.text().is_empty() && empty.stderr.contains("peersock network invite"), "{}", empty.stderr);
    let made = machines.admin(&["invite", "--name", "beta", "--tag", "db", "--uses", "2"]).success();
    let label = made.stderr.split("invite ").nth(1).and_then(|rest| rest.split(':').next()).expect("a label");
    assert!(label.len() == 8 && made.stderr.contains(": 2 uses, for 1h"), "{}", made.stderr);
    let text = made.text().trim().to_owned();

    let listed = machines.ok("alpha", &["network", "invites"]);
    let line = listed.lines().next().expect("a line");
    assert!(line.starts_with(label) && line.contains("beta"), "{listed}");
    assert!(line.contains("2 uses left, ends in 59m") && line.contains("  db  by "), "{listed}");
    machines.ok("beta", &["join", &text, "--as", "team"]);
    let shown = machines.admin_json(&["invites"]);
    let one = &shown["invites"][0];
    assert_eq!((&one["label"], &one["used"], &one["uses"]), (&Value::from(label), &1.into(), &2.into()));
    assert_eq!((&one["name"], &one["tags"][0]), (&"beta".into(), &"db".into()));
    let secret = text.split('/').next_back().expect("a token");
    assert!(!shown.to_string().contains(secret));

    machines.changes_nothing(&["uninvite", "00000000"], &["team has no invite 00000000", "network invites"]);
    let ended = machines.ok("alpha", &["network", "uninvite", &label.to_ascii_uppercase()]);
    assert_eq!(ended, format!("invite {label} has ended, with 1 use left"));
    assert!(machines.ok("alpha", &["network", "invites"]).is_empty());
    let refused = machines.refused("gamma", &["join", &text]);
    assert!(refused.contains("invite has ended"), "{refused}");
    assert!(machines.ok("beta", &["join", &text]).contains("team as beta"), "members stay members");
    assert!(machines.ok("alpha", &["network", "uninvite", label]).contains("had ended before"));
    // By its text, which who has made it may have sent to the wrong person.
    let text = machines.invite(&[]);
    assert!(machines.ok("alpha", &["network", "uninvite", &text]).contains("has ended, with 1 use left"));
    assert!(machines.refused("gamma", &["join", &text]).contains("invite has ended"));
    machines.changes_nothing(&["uninvite", &format!("{text}x")], &["cannot be read"]);
}

#[test]
fn a_change_of_a_member_reaches_it_and_the_others() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    let online = machines.online(&["beta", "gamma"]);
    machines.wait_for_members(2);
    let changed = machines.admin(&["change", "beta", "--name", "database", "--tag", "db", "--tag", "old"]);
    let line = changed.text().trim();
    assert!(line.starts_with("member    database"), "{line}{}", changed.stderr);
    assert!(line.contains("10.77.0.2  db,old"), "{line}");
    wait_until("the new name leads nowhere", || {
        let words = ["dial", "-n", "team", "--timeout", "15", "database:7000"];
        run(machines.command("gamma", &words)).status.success()
    });
    let tags_of_beta = |tags: &[&str]| {
        wait_until("the tags do not reach the member", || {
            let known = machines.membership("beta");
            known["tags"] == Value::from(tags) && known["member"] == "database"
        });
    };
    tags_of_beta(&["db", "old"]);
    let changed = machines.admin(&["change", "database", "--untag", "old", "--untag", "other"]).success();
    assert!(changed.stderr.contains("database has no tag other"), "{}", changed.stderr);
    tags_of_beta(&["db"]);

    for (words, said) in [
        (&["change", "gamma", "--name", "database"][..], "another member has the name database"),
        (&["change", "delta", "--tag", "db"], "nothing in the network is called \"delta\""),
        (&["change", "alpha", "--tag", "db"], "this is the controller's own node"),
        (&["change", "gamma"], "--name <NAME>"),
        (&["change", "gamma", "--outlive", "5m"], "for 1h to 30d"),
        (&["change", "gamma", "--name", "10"], "is a number"),
        (&["revoke", "alpha"], "this is the controller's own node"),
    ] {
        machines.changes_nothing(words, &[said]);
    }
    drop((online, serving));
    let late = machines.admin(&["change", "database", "--outlive", "2h"]).success();
    assert!(late.stderr.contains("it counts once `peersock controller -n team` runs"), "{}", late.stderr);
    let listed = machines.ok("alpha", &["network", "members"]);
    assert!(
        listed.lines().any(|line| line.contains("database") && line.contains("  outlive 2h  ")),
        "{listed}"
    );
    let outlive = |member: Value| (member["name"].clone(), member["outlive_s"].clone());
    let all: Vec<_> = machines.members().into_iter().map(outlive).collect();
    assert!(all.contains(&("database".into(), 7200.into())), "{all:?}");
    assert!(all.contains(&("gamma".into(), Value::Null)), "{all:?}");
}

#[test]
fn settings_and_reserved_addresses_hold_for_the_machines_that_join() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    let shown = machines.ok("alpha", &["network", "settings"]);
    for line in ["outlive    23h", "pool       10.77.0.0/24, 1 of 254 addresses in use, none for ephemeral"] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line} is not in {shown}");
    }
    let words = ["settings", "--outlive", "3d", "--tag-outlive", "lab=2h", "--tag-outlive", "web=5d"];
    let changed = machines.admin(&words).success();
    for line in ["outlive    3d", "outlive    2h for members with the tag lab"] {
        assert!(changed.text().lines().any(|shown| shown == line), "{}", changed.text());
    }
    let said = "no member has the tag lab now: its time counts for those that get it";
    assert!(changed.stderr.contains(said), "{}", changed.stderr);
    let set = machines.admin_json(&["settings", "--tag-outlive", "web=default"]);
    assert_eq!(set["outlive_s"], 3 * 86_400);
    assert_eq!(set["tag_outlive_s"], serde_json::json!({ "lab": 7200 }));
    let invite = machines.invite(&["--name", "beta", "--tag", "lab"]);
    let joined = machines.ok("beta", &["join", &invite]);
    assert!(joined.contains("works 2h 59m without the controller"), "{joined}");

    let reserved = machines.ok("alpha", &["network", "reserve", "10.77.0.9", "gamma"]);
    assert_eq!(reserved, "10.77.0.9 is reserved for gamma");
    let held = machines.admin(&["reserve", "10.77.0.12", "beta"]).success();
    assert!(held.stderr.contains("beta keeps 10.77.0.2 until"), "{}", held.stderr);
    let shown = machines.ok("alpha", &["network", "settings"]);
    assert!(shown.contains("reserved   10.77.0.9 for gamma"), "{shown}");
    let joined = machines.ok("gamma", &["join", &machines.invite(&["--name", "gamma"])]);
    assert!(joined.contains("gamma, 10.77.0.9"), "{joined}");
    let free = machines.ok("alpha", &["network", "unreserve", "10.77.0.9"]);
    assert_eq!(free, "10.77.0.9 is not reserved any more");
    assert_eq!(machines.admin_json(&["settings"])["reserved"], serde_json::json!({ "10.77.0.12": "beta" }));

    for (words, said) in [
        (&["settings", "--outlive", "31d"][..], "for 1h to 30d"),
        (&["settings", "--tag-outlive", "lab"], "give a tag and a time"),
        (&["settings", "--tag-outlive", "lab=2h", "--tag-outlive", "lab=3h"], "the tag lab is given twice"),
        (&["settings", "--pool", "10.78.0.0/24", "--pool", "10.79.0.0/24"], "a pool of IPv4 is given twice"),
        (&["settings", "--outlive", "2d", "--pool", "127.0.0.0/16"], "addresses of 127.0.0.0/16"),
        (&["reserve", "10.77.0.2", "gamma"], "the address 10.77.0.2 belongs to member beta"),
        (&["reserve", "10.77.0.12", "delta"], "the address 10.77.0.12 is reserved for beta already"),
        (&["reserve", "192.0.2.1", "gamma"], "the address 192.0.2.1 is in no pool"),
        (&["reserve", "10.77.0.255", "gamma"], "the first or the last one of its pool"),
        (&["reserve", "10.77.0.13", "1f3870be"], "no node ID begins with `1f3870be`, which looks like one"),
        (&["revoke", "1f387"], "a node ID needs 6 digits at least"),
        (&["change", "1f387", "--tag", "db"], "a node ID needs 6 digits at least"),
        (&["unreserve", "10.77.0.9"], "10.77.0.9 is not reserved"),
    ] {
        machines.changes_nothing(words, &[said]);
    }
    machines.ok("alpha", &["network", "change", "beta", "--name", "database"]);
    let reserved = &machines.admin_json(&["settings"])["reserved"];
    assert_eq!(*reserved, serde_json::json!({ "10.77.0.12": "database" }));
    let replacing = machines.admin(&["invite", "--replace", "database"]).success();
    let said = "10.77.0.12, which is reserved for database, goes to that machine";
    assert!(replacing.stderr.contains(said), "{}", replacing.stderr);
    let wider = machines.admin(&["settings", "--pool", "10.77.0.0/23"]).success();
    assert!(!wider.stderr.contains("members keep"), "nobody is outside: {}", wider.stderr);
    let other = machines.admin(&["settings", "--pool", "10.78.0.0/24", "--ephemeral-ipv4", "yes"]).success();
    assert!(other.text().contains("10.78.0.0/24") && !other.text().contains("none for"), "{}", other.text());
    assert!(other.stderr.contains("members keep the addresses that they have"), "{}", other.stderr);
    assert!(other.text().contains("reserved   10.77.0.12 for database, in no pool"), "{}", other.text());
    let large = machines.admin_json(&["settings", "--pool", "fd00:77::/40", "--pool", "none"]);
    assert_eq!(large["pools"][0]["pool"], "fd00:77::/40");
    assert_eq!(large["pools"].as_array().map(Vec::len), Some(1));
    assert!(large["pools"][0]["size"].as_f64().is_some_and(|size| size > u64::MAX as f64), "{large}");
    let none = machines.ok("alpha", &["network", "settings", "--pool", "none"]);
    assert!(none.contains("pool       none: members have the address that follows"), "{none}");
    assert!(machines.ok("alpha", &["network", "members"]).contains("10.77.0.2"));
}

/// Lets a stopped process go on at the end, also of a test that fails.
struct Stopped(u32);

impl Stopped {
    /// Stops the node that the programs of a machine share.
    fn node_of(machines: &Machines, machine: &str) -> Stopped {
        let holder = fs::read_to_string(machines.directory(machine).join("lock")).expect("a lock");
        let id = holder.trim().parse().expect("a process");
        signal(Signal::STOP, id);
        Stopped(id)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(Signal::CONT, self.0);
    }
}

#[test]
fn a_removal_says_whom_it_has_reached_and_until_when_others_may_not_know_it() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    ["delta", "epsilon", "zeta"].iter().for_each(|machine| machines.admit(machine));
    let online = machines.online(&["beta", "gamma"]);
    machines.wait_for_members(2);
    let removed = machines.admin(&["revoke", "delta"]).success();
    assert_eq!(removed.text().trim(), "delta (10.77.0.2) is removed");
    // Epsilon and zeta are away.
    let said = " s); the others hear it from them, or accept delta until ";
    assert!(removed.stderr.contains("2 of 2 connected members know it ("), "{}", removed.stderr);
    assert!(removed.stderr.contains(said), "{}", removed.stderr);
    assert!(removed.stderr.contains("0 open connections of this machine ended"), "{}", removed.stderr);
    assert!(removed.stderr.contains("(1d 9m) at most"), "{}", removed.stderr);

    let stopped = Stopped::node_of(&machines, "gamma");
    let removed = machines.admin(&["revoke", "epsilon"]).success();
    let said = " s); the others hear it from them, or accept epsilon until ";
    assert!(removed.stderr.contains("1 of 2 connected members know it ("), "{}", removed.stderr);
    assert!(removed.stderr.contains(said), "{}", removed.stderr);
    drop(stopped);
    // Gamma hears of it as soon as it goes on.
    let removed = machines.admin(&["revoke", "zeta"]).success();
    assert!(removed.stderr.contains("all 2 other members know it"), "{}", removed.stderr);
    // The removed one does not count, although it is connected.
    let service = Running::start(machines.command("alpha", &["listen", "-k", "-n", "team", "7000"]));
    service.wait_for_stderr("listening on ");
    let mut caller = Running::start(machines.command("beta", &["dial", "-n", "team", "alpha:7000"]));
    caller.send(b"hello\n");
    service.wait_for_stdout("hello");
    let removed = machines.admin_json(&["revoke", "beta"]);
    assert_eq!(
        (&removed["know"], &removed["connected"], &removed["others"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!((&removed["removed"][0]["name"], &removed["ended_here"]), (&"beta".into(), &1.into()));
    assert!(removed["after_ms"].as_u64().is_some_and(|after| after < 5000), "{removed}");
    drop((caller, service));

    drop((serving, online));
    let removed = machines.admin(&["revoke", "gamma"]).success();
    let said = "no controller runs here: no member knows it until `peersock controller -n team` does; members accept";
    assert!(removed.stderr.contains(said), "{}", removed.stderr);
}

#[test]
fn a_node_that_is_stopped_is_named() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    machines.admit("beta");
    let stopped = Stopped::node_of(&machines, "alpha");
    let silent = format!("the node with process {} is stopped", stopped.0);
    let removed = machines.admin(&["revoke", "beta"]).success();
    assert!(removed.text().contains("beta (10.77.0.2) is removed"), "{}", removed.text());
    let said = format!("{silent}: no member knows it until it goes on; members accept beta until");
    assert!(removed.stderr.contains(&said), "{}", removed.stderr);
    let invited = machines.admin(&["invite"]).success();
    assert!(
        invited.stderr.contains(&format!("{silent}: machines are admitted once it goes on")),
        "{}",
        invited.stderr
    );
    let refused = machines.refused("alpha", &["status"]);
    assert!(refused.contains(&format!("{silent}\nhint: run `kill -CONT {}`", stopped.0)), "{refused}");
}

#[test]
fn a_controller_that_is_stopped_is_named() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    machines.admit("beta");
    signal(Signal::STOP, serving.id());
    let stopped = Stopped(serving.id());
    let silent = format!("the controller with process {} is stopped", stopped.0);
    let invited = machines.admin(&["invite"]).success();
    assert!(invited.stderr.contains(&format!("{silent}: machines are admitted")), "{}", invited.stderr);
    let removed = machines.admin(&["revoke", "beta"]).success();
    let said = format!("{silent}: no member knows it until it goes on; members accept beta until");
    assert!(removed.stderr.contains(&said), "{}", removed.stderr);
    drop(stopped);
    machines.admit("gamma");
    let removed = machines.admin(&["revoke", "gamma"]).success();
    assert!(!removed.stderr.contains("stopped"), "{}", removed.stderr);
}

#[test]
fn removed_members_and_programs_are_listed_as_what_they_are() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    let online = machines.online(&["beta", "gamma"]);
    let own = |words: &[&str]| {
        let words = [&["listen", "-k", "-n", "team", "--own-node"], words].concat();
        let running = Running::start(machines.command("beta", &words));
        running.wait_for_stderr("listening on ");
        running
    };
    let programs = [own(&["--as", "web", "7001"]), own(&["7002"])];
    machines.wait_for_members(4);
    let listed = || run(machines.command("alpha", &["members", "-n", "team"])).success();
    wait_until("the programs are not listed", || {
        let listed = listed();
        ["  web.beta  ", "  program of beta  "].iter().all(|name| listed.text().contains(name))
            && listed.stderr.contains("2 online, 0 offline, with 2 programs")
    });
    // Each below its machine, and in the other commands by the same words.
    let text = listed().text().to_owned();
    // Columns are padded, because the addresses differ in their lengths.
    let cell = |line: &str| {
        line.split("  ").filter(|cell| !cell.is_empty()).nth(1).map(|cell| cell.trim().to_owned())
    };
    let names: Vec<_> = text.lines().map(|line| cell(line).expect("a name")).collect();
    assert_eq!(names, ["alpha", "beta", "program of beta", "web.beta", "gamma"], "{text}");
    let json: Value =
        serde_json::from_str(&machines.ok("alpha", &["members", "-n", "team", "--json"])).expect("JSON");
    let members = json["networks"][0]["members"].as_array().expect("a list");
    let machine =
        &members.iter().find(|one| one["name"] == "beta" && one["machine"].is_null()).expect("beta")["id"];
    let web = members.iter().find(|one| one["label"] == "web").expect("a program");
    assert_eq!(&web["machine"], machine);
    for command in [&["status"][..], &["top", "--once"]] {
        let shown = run(machines.command("alpha", command)).success();
        assert!(
            shown.text().contains("web.beta") && shown.text().contains("program of beta"),
            "{}",
            shown.text()
        );
    }
    // A name leads to the machine, whatever programs it has.
    let pinged = machines.ok("alpha", &["ping", "-n", "team", "-c", "1", "beta"]);
    let address = members.iter().find(|one| one["id"] == *machine).expect("beta")["address"].as_str();
    assert!(pinged.contains(address.expect("an address")), "{pinged}");

    drop(programs);
    // Its session goes on, because it does not hear of its removal.
    let stopped = Stopped::node_of(&machines, "gamma");
    let gamma = members.iter().find(|one| one["name"] == "gamma").expect("gamma");
    let address = gamma["address"].as_str().expect("an address");
    assert_eq!(gamma["state"], "online");
    machines.ok("alpha", &["network", "revoke", "gamma"]);
    let removed = listed();
    let line = removed.text().lines().find(|line| line.starts_with(address)).expect("it is connected");
    assert!(line.contains("  removed ") && !line.contains("online"), "{}", removed.text());
    assert!(removed.stderr.contains(", 1 removed"), "{}", removed.stderr);
    let status = machines.ok("alpha", &["status"]);
    assert!(status.contains("  removed: 1\n"), "{status}");
    drop((stopped, online));
    wait_until("a removed member without a connection is listed", || !listed().text().contains(address));
}

/// Returns the node ID of a machine.
fn node_of(machines: &Machines, machine: &str) -> String {
    let shown: Value = serde_json::from_str(&machines.ok(machine, &["id", "--json"])).expect("JSON");
    shown["node_id"].as_str().expect("an ID").to_owned()
}

/// Gives a machine another key, as soon as its node has noticed the end of its last program.
fn rekeyed(machines: &Machines, machine: &str) -> Finished {
    let done = std::cell::RefCell::new(None);
    wait_until("the node does not end", || {
        let finished = run(machines.command(machine, &["id", "--rekey", "--json"]));
        let is_in_use = finished.stderr.contains("is in use by");
        done.replace(Some(finished));
        !is_in_use
    });
    done.take().expect("a command").success()
}

#[test]
fn a_machine_with_a_new_key_takes_over_and_the_old_key_is_out() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    machines.ok("beta", &["join", &machines.invite(&["--name", "beta", "--tag", "db"]), "--as", "team"]);
    machines.admit("gamma");
    let old = node_of(&machines, "beta");
    let (listening, address) = machines.listen("alpha", "7000");
    let to = format!("{address}:7000");
    let words = ["dial", "-n", "team", "--peer-timeout", "0", &to];
    let mut dialing = Running::start(machines.command("beta", &words));
    dialing.send(b"hello\n");
    listening.wait_for_stdout("hello");

    for (words, said) in [
        (&["invite", "--replace", "alpha"][..], "this is the controller's own node"),
        (&["invite", "--replace", "delta"], "nothing in the network is called \"delta\""),
        (&["invite", "--replace", "beta", "--name", "delta"], "cannot be used with"),
        (&["invite", "--replace", "beta", "--uses", "2"], "cannot be used with"),
        (&["invite", "--replace", "beta", "--ephemeral"], "cannot be used with"),
        (&["invite", "--replace", "beta", "--tag", "web"], "cannot be used with"),
        (&["approve", "ZZZ-ZZZ", "--replace", "beta"], "nothing in the network is called \"ZZZ-ZZZ\""),
    ] {
        machines.changes_nothing(words, &[said]);
    }
    let made = machines.admin(&["invite", "--replace", "10.77.0.2"]).success();
    let short = &old[..12];
    let said = format!("becomes beta, and the key that beta has now (node {short}) is revoked then");
    assert!(made.stderr.contains(&said), "{}", made.stderr);
    let invite = made.text().trim();
    let listed = machines.ok("alpha", &["network", "invites"]);
    assert!(listed.contains("beta") && listed.contains(&format!("replaces node {short}")), "{listed}");
    assert_eq!(machines.admin_json(&["invites"])["invites"][0]["replaces"], Value::from(&*old));
    // The key that it replaces does not use it.
    let same = run(machines.command("beta", &["join", invite])).success();
    assert!(same.stderr.contains("uses no invite"), "{}", same.stderr);

    let joined = machines.ok("delta", &["join", invite, "--as", "team"]);
    assert!(joined.starts_with("joined team as beta, 10.77.0.2, fd"), "{joined}");
    assert!(joined.contains("tags db"), "{joined}");
    serving.wait_for_stderr(&format!(
        "beta (10.77.0.2) has joined with a new key, in place of node {short}, by invite "
    ));
    let finished = dialing.wait_for_end();
    assert!(!finished.status.success(), "{}", finished.stderr);
    let said = "removed from network team by its controller";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
    assert!(machines.ok("beta", &["networks"]).contains(said));

    let (_new, address) = machines.listen("delta", "7001");
    assert_eq!(address, "10.77.0.2");
    // There is nothing to take over from the old key any more.
    let said = "that key is removed, and another machine has taken over beta";
    machines.changes_nothing(&["invite", "--replace", &old], &[said, "hint: name the member"]);
    wait_until("the name leads to the old key", || {
        let words = ["dial", "-n", "team", "--timeout", "15", "beta:7001"];
        run(machines.command("gamma", &words)).status.success()
    });
    // Neither another key nor the old one uses it again.
    let used = machines.refused("epsilon", &["join", invite]);
    assert!(used.contains("as often as it may be"), "{used}");
    let again = machines.refused("beta", &["join", invite]);
    assert!(again.contains("has removed this machine"), "{again}");
    let members = machines.members();
    let standing = |node: &str| members.iter().find(|one| one["node"] == node).map(|one| &one["standing"]);
    assert_eq!(standing(&old), Some(&"removed".into()));
    assert_eq!(standing(&node_of(&machines, "delta")), Some(&"member".into()));
}

#[test]
fn a_machine_changes_its_key_and_stays_the_member_that_it_is() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    machines.admit("beta");
    let first = node_of(&machines, "beta");
    let replacing = || machines.invite(&["--replace", "beta"]);
    // Without a new key.
    let invite = replacing();
    let refused = machines.refused("beta", &["join", &invite]);
    assert!(refused.contains("the network knows the key of this machine"), "{refused}");
    assert!(refused.contains("hint: run `peersock id --rekey` first"), "{refused}");
    assert!(machines.ok("beta", &["networks"]).contains("10.77.0.2"));
    let (listening, _) = machines.listen("beta", "7000");
    let refused = machines.refused("beta", &["id", "--rekey"]);
    assert!(refused.contains("is in use by"), "{refused}");
    assert_eq!(node_of(&machines, "beta"), first);
    drop(listening);

    let told = rekeyed(&machines, "beta");
    let said =
        "team knows the earlier key as beta: run `peersock network invite --replace beta` at its controller";
    assert!(told.stderr.contains(said), "{}", told.stderr);
    let shown: Value = serde_json::from_str(told.text()).expect("JSON");
    let second = node_of(&machines, "beta");
    assert!(second != first && shown["node_id"] == *second);
    let networks = machines.ok("beta", &["networks"]);
    assert!(networks.starts_with("team") && networks.contains("not admitted yet"), "{networks}");
    let joined = machines.ok("beta", &["join", &invite]);
    assert!(joined.starts_with("joined team as beta, 10.77.0.2, fd"), "{joined}");

    // By a code, without an invite, and after two changes.
    rekeyed(&machines, "beta");
    let again = rekeyed(&machines, "beta");
    assert!(again.stderr.contains("team has not admitted the key before this one"), "{}", again.stderr);
    let joining = Running::start(machines.command("beta", &["join", &id]));
    let code = joining.wait_for_stderr("waiting for approval, code ")[..7].to_owned();
    let approved = machines.ok("alpha", &["network", "approve", &code, "--replace", "beta"]);
    assert!(approved.starts_with("beta (10.77.0.2) is a member"), "{approved}");
    joining.wait_for_stdout("joined team as beta, 10.77.0.2");
    let members = machines.members();
    let standing = |node: &str| members.iter().find(|one| one["node"] == node).map(|one| &one["standing"]);
    for node in [&first, &second] {
        assert_eq!(standing(node), Some(&"removed".into()));
    }
    assert_eq!(standing(&node_of(&machines, "beta")), Some(&"member".into()));

    let nothing = machines.refused("nobody", &["id", "--rekey"]);
    assert!(nothing.contains("has no identity yet") && !machines.directory("nobody").exists(), "{nothing}");
}

/// Copies the state directory of a machine without its programs.
fn copy_state(machines: &Machines, id: &str, from: &str, to: &str) {
    machines.wait_for_end_of_node(from);
    let (from, to) = (machines.directory(from), machines.directory(to));
    fs::create_dir(&to).expect("room");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o700)).expect("its mode");
    for file in ["identity.key", &format!("{id}.network")] {
        fs::copy(from.join(file), to.join(file)).expect("a copy");
    }
}

/// Of two machines with one state directory neither gets certificates, until a person decides.
#[test]
fn copies_of_a_member_are_both_refused_until_one_is_approved() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    assert_eq!(machines.admin_json(&["settings"])["on_clone"], "keep-older");
    let shown = machines.admin(&["settings", "--on-clone", "refuse-both"]).success();
    assert!(shown.text().contains("refuse-both"), "{}", shown.text());
    assert_eq!(machines.admin_json(&["settings"])["on_clone"], "refuse-both");
    machines.admin(&["settings", "--on-clone", "neither"]).failure(2, &["give keep-older or refuse-both"]);
    machines.admit("beta");
    copy_state(&machines, &id, "beta", "copy");
    let both = [machines.listen("beta", "7000"), machines.listen("copy", "7001")];
    serving.wait_for_stderr("neither gets certificates until one is off");
    let standing = || {
        let members = machines.members();
        let beta = members.iter().find(|one| one["name"] == "beta").expect("a member").clone();
        (beta["standing"].clone(), beta["held_as_copied"].is_number())
    };
    assert_eq!(standing(), ("held".into(), true));
    let shown = machines.admin(&["members"]).success();
    assert!(shown.text().contains("runs on two machines"), "{}", shown.text());
    drop(both);

    // Without a certificate, a machine asks at once.
    for machine in ["beta", "copy"] {
        machines.wait_for_end_of_node(machine);
        let path = machines.directory(machine).join(format!("{id}.network"));
        let kept = fs::read_to_string(&path).expect("a record");
        let mut kept: Value = serde_json::from_str(&kept).expect("JSON");
        kept.as_object_mut().expect("an object").remove("credentials").expect("a certificate");
        fs::write(&path, kept.to_string()).expect("room");
        let refused = machines.refused(machine, &["join", &id]);
        assert!(refused.contains("another machine runs with this machine's identity"), "{refused}");
        assert!(refused.contains("`peersock id --rekey`"), "{refused}");
    }
    let node = node_of(&machines, "beta");
    machines.admin(&["approve", &node]).success();
    serving.wait_for_stderr("has joined, by user");
    assert!(machines.ok("beta", &["join", &id]).contains("team as beta"));
    assert_eq!(standing(), ("member".into(), false));
}

/// The controller names both machines of a copied state directory, and a pool that has few addresses left.
#[test]
fn the_controller_tells_of_copies_and_of_full_pools() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    machines.admin(&["settings", "--pool", "10.77.0.0/30"]).success();
    assert_eq!(machines.admin_json(&["settings"])["pools"][0]["nearly_full"], false);
    machines.admit("beta");
    serving.wait_for_stderr("pool 10.77.0.0/30 is nearly full, 2 of 2 addresses in use");
    assert_eq!(machines.admin_json(&["settings"])["pools"][0]["nearly_full"], true);
    let shown = machines.admin(&["settings"]).success();
    assert!(shown.text().contains("2 of 2 addresses in use, nearly full"), "{}", shown.text());

    copy_state(&machines, &id, "beta", "copy");
    let second_run = || {
        let members = machines.members();
        let beta = members.iter().find(|one| one["name"] == "beta").expect("a member");
        beta["second_run"].clone()
    };
    assert!(second_run().is_null());
    // Both have a certificate, and ask for another one in half an hour.
    let both = [machines.listen("beta", "7000"), machines.listen("copy", "7001")];
    let told = serving.wait_for_stderr("beta (10.77.0.2) runs ");
    assert!(told.contains("its state directory was copied; run `peersock id --rekey` on the copy"), "{told}");
    for machine in ["beta", "copy"] {
        let shown = machines.ok(machine, &["status"]);
        assert!(shown.contains("two nodes have this identity: another one at 127.0.0.1:"), "{shown}");
        assert!(shown.contains("on a copy alone, `peersock id --rekey` gives it a new identity"), "{shown}");
    }
    drop(both);
    assert_eq!(second_run()["addresses"].as_array().expect("a list").len(), 2);
    let said = serving.said();
    for once in ["is nearly full", "was copied"] {
        assert_eq!(said.matches(once).count(), 1, "{once}: {said}");
    }
}

#[test]
fn a_restored_network_says_until_when_and_why_no_addresses_are_given_out() {
    let machines = Machines::new();
    let (_, words) = machines.create(&[]);
    let file = machines.directory("backup.db").to_str().expect("text").to_owned();
    let saved: Value =
        serde_json::from_str(&machines.ok("alpha", &["network", "backup", &file, "--json"])).expect("JSON");
    assert_eq!((&saved["name"], &saved["file"]), (&"team".into(), &file.clone().into()));
    assert_eq!(machines.admin_json(&["members"])["addresses_rest_until"], Value::Null);
    let said = "no member gets another address of the pool until ";
    let why = " (1d 9m), because a machine may have it by a certificate from before the restore";
    let is_told = |text: &str| text.contains(said) && text.contains(why);
    for (machine, restore) in [
        ("gamma", &["network", "restore", "team", "--backup", &file][..]),
        ("beta", &["network", "restore", "team"]),
    ] {
        let pool: &[&str] = if machine == "beta" { &["--pool", "10.77.0.0/24"] } else { &[] };
        let restored = machines.with_words(machine, &[restore, pool].concat(), &words).success();
        assert!(is_told(&restored.stderr), "{}", restored.stderr);
        assert!(
            restored.stderr.contains("gets the name of its invite, or its host name"),
            "{}",
            restored.stderr
        );
        let members = run(machines.command(machine, &["network", "members"])).success();
        assert!(is_told(&members.stderr), "{}", members.stderr);
        let members: Value =
            serde_json::from_str(&machines.ok(machine, &["network", "members", "--json"])).expect("JSON");
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let until = members["addresses_rest_until"].as_u64().expect("a time");
        assert!((now + 86_400..now + 87_600).contains(&until), "{until} at {now}");
    }
    machines.serve("gamma").wait_for_stderr(said);
}

#[test]
fn a_backup_in_the_place_of_the_store_counts_as_restored() {
    let machines = Machines::new();
    let (id, words) = machines.create(&[]);
    let file = machines.directory("backup.db").to_str().expect("text").to_owned();
    machines.ok("alpha", &["network", "backup", &file]);
    let store = machines.directory("alpha").join("controllers").join(format!("{id}.db"));
    let removed_log =
        || drop(["-wal", "-shm"].map(|end| fs::remove_file(format!("{}{end}", store.display()))));
    let said = "no member gets another address of the pool until ";
    let members = || run(machines.command("alpha", &["network", "members"]));
    let before = members().success();
    assert!(!before.stderr.contains(said), "{}", before.stderr);
    removed_log();
    fs::copy(&file, &store).expect("a backup");
    let copied = members().success();
    assert!(copied.stderr.contains(said), "{}", copied.stderr);
    machines.serve("alpha").wait_for_stderr(said);

    // The way that the hint for a damaged store says.
    fs::write(&store, vec![b'x'; 8192]).expect("room");
    let damaged = machines.refused("alpha", &["network", "members", "-n", "team"]);
    let hint = "move its file away, and run `peersock network restore NAME --backup FILE`";
    assert!(damaged.contains(hint), "{damaged}");
    fs::rename(&store, machines.directory("damaged.db")).expect("one file system");
    let restore = ["network", "restore", "team", "--backup", &file];
    let restored = machines.with_words("alpha", &restore, &words).success();
    assert!(restored.stderr.contains(said), "{}", restored.stderr);
    let _serving = machines.serve("alpha");
    machines.admit("beta");
}

#[test]
fn a_controller_that_is_stopped_uses_no_invite() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    let invite = machines.invite(&["--name", "beta"]);
    signal(Signal::STOP, serving.id());
    let stopped = Stopped(serving.id());
    let refused = machines.refused("beta", &["join", &invite, "--as", "team", "--wait", "0s"]);
    let said = "no controller of the network answers\nhint: check that `peersock controller` runs on its machine, and run \
                the same command again, for which the invite counts once";
    assert!(refused.contains(said), "{refused}");
    let left = machines.admin_json(&["invites"]);
    assert_eq!(left["invites"][0]["used"], 0, "{left}");
    // The node has dropped the last question, which the controller still has to read.
    std::thread::sleep(std::time::Duration::from_secs(6));
    drop(stopped);
    // Another machine has the invite first, as nothing was used.
    let joined = machines.ok("gamma", &["join", &invite, "--as", "team"]);
    assert!(joined.starts_with("joined team as beta, "), "{joined}");
}

#[test]
fn commands_of_administrators_print_json_with_one_form_of_the_key() {
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let invited = machines.admin_json(&["invite", "--name", "beta", "--tag", "db", "--uses", "2"]);
    let text = invited["text"].as_str().expect("a text");
    assert!(text.starts_with(&format!("peersock://{id}/")), "{invited}");
    assert_eq!((&invited["network"], &invited["uses"]), (&id.as_str().into(), &2.into()), "{invited}");
    assert_eq!((&invited["name"], &invited["tags"][0]), (&"beta".into(), &"db".into()), "{invited}");
    assert_eq!(machines.admin_json(&["invites"])["invites"][0]["label"], invited["label"]);
    machines.ok("beta", &["join", text, "--as", "team"]);
    let key = &machines.membership("beta")["key"];
    for shown in [&invited, &machines.admin_json(&["members"]), &machines.admin_json(&["settings"])] {
        assert_eq!(&shown["key"], key, "{shown}");
    }
    // By a code, and what a machine knows of the members itself.
    let refused = machines.refused("gamma", &["join", &id, "--name", "gamma", "--wait", "0s"]);
    assert!(refused.contains("waits for approval, code "), "{refused}");
    let waiting =
        machines.admin_json(&["members"])["pending"][0]["code"].as_str().expect("a code").to_owned();
    let approved = machines.admin_json(&["approve", &waiting.replace('-', "").to_lowercase()]);
    assert_eq!((&approved["name"], &approved["standing"]), (&"gamma".into(), &"member".into()), "{approved}");
    let _listening = machines.listen("beta", "7000");
    let met: Value =
        serde_json::from_str(&machines.ok("beta", &["members", "-n", "team", "--json"])).expect("JSON");
    assert_eq!(met["networks"][0]["complete"], false, "{met}");
    let left: Value = serde_json::from_str(&machines.ok("gamma", &["leave", &id, "--json"])).expect("JSON");
    assert_eq!((&left["network"], &left["kind"]), (&id.as_str().into(), &"managed".into()), "{left}");
    let refused = machines.refused("delta", &["join", &id, "--wait", "0s"]);
    assert!(refused.contains("waits for approval, code "), "{refused}");
    let waiting = machines.admin_json(&["members"])["pending"][0]["code"].clone();
    let denied = machines.admin_json(&["deny", waiting.as_str().expect("a code")]);
    assert_eq!(denied["refused"], waiting);
}

#[test]
fn a_network_with_the_name_of_a_domain_is_warned_of() {
    let machines = Machines::new();
    let made = run(machines.command("alpha", &["network", "create", "com", "--name", "alpha"])).success();
    assert!(made.stderr.contains("`com` is also a top-level domain: "), "{}", made.stderr);
    let serving = Running::start(machines.command("alpha", &["controller"]));
    serving.wait_for_stderr("serving com");
    let invite = machines.invite(&[]);
    let joined = run(machines.command("beta", &["join", &invite, "--as", "lan"])).success();
    assert!(joined.stderr.contains("`lan` is also a name that local networks"), "{}", joined.stderr);
    let joined = run(machines.command("gamma", &["join", &invite, "--as", "team"]));
    assert!(!joined.stderr.contains("is also"), "{}", joined.stderr);
}

#[test]
fn a_network_is_deleted_when_its_controller_has_ended_and_somebody_means_it() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    machines.admit("beta");
    let running = machines.refused("alpha", &["network", "delete", "team", "--yes"]);
    assert!(running.contains("network team is already served by process"), "{running}");
    drop(serving);
    let unasked = machines.refused("alpha", &["network", "delete", "team"]);
    assert!(
        unasked
            .contains("cannot ask whether to delete team: stdin or stderr is no terminal\nhint: give --yes"),
        "{unasked}"
    );
    assert!(machines.ok("alpha", &["network", "members"]).contains("beta"));
    let unknown = machines.refused("alpha", &["network", "delete", "office", "--yes"]);
    assert!(unknown.contains("no network `office` has its controller"), "{unknown}");
    let deleted = machines.admin(&["delete", "team", "--yes"]).success();
    assert_eq!(deleted.text().trim(), format!("network team ({id}) is deleted here"));
    assert!(deleted.stderr.contains("members reach each other until "), "{}", deleted.stderr);
    assert!(deleted.stderr.contains("(1d 9m) at most"), "{}", deleted.stderr);
    let left: Vec<_> =
        fs::read_dir(machines.directory("alpha").join("controllers")).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!machines.ok("alpha", &["networks"]).contains("team"));
    assert!(machines.refused("alpha", &["controller", "-n", "team"]).contains("team"));
    // The name is free again.
    machines.create(&[]);
}
