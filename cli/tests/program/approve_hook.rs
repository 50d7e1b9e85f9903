//! `peersock controller --approve-hook`: programs that decide about machines, and all ways in which they
//! fail.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::common::{PATIENCE, Running, lacks, run};
use crate::machines::Machines;

/// A program, and files that it writes.
struct Program(tempfile::TempDir);

impl Program {
    /// Makes a program that writes its input to the file `asked`, one line each time, and goes on with
    /// `script`.
    fn new(script: &str) -> Program {
        let program = Program(tempfile::tempdir().expect("a folder"));
        program.replace(script);
        program
    }

    /// Takes the place of the program, which may run, by one rename.
    fn replace(&self, script: &str) {
        let next = self.0.path().join("next");
        let folder = self.0.path().display();
        fs::write(&next, format!("#!/bin/sh\ncd '{folder}'\ncat >> asked\n{script}\n")).expect("room");
        fs::set_permissions(&next, fs::Permissions::from_mode(0o700)).expect("ours");
        fs::rename(&next, self.path()).expect("ours");
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("program")
    }

    fn asked(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.0.path().join("asked")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Program) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < PATIENCE, "{what}: {:?}", self.asked());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

fn serve(machines: &Machines, program: &Path) -> Running {
    let program = program.to_str().expect("text");
    let words = ["controller", "-n", "team", "--approve-hook", program];
    let serving = Running::start(machines.command("alpha", &words));
    serving.wait_for_stderr("serving team");
    serving
}

const ALLOW: &str = r#"echo '{"decision":"allow","tags":["sso"]}'"#;
const DENY: &str = r#"echo '{"decision":"deny","reason":"who is that"}'"#;

#[test]
fn a_program_admits_and_refuses_and_burns_no_invite() {
    let machines = Machines::new();
    let (id, _) = machines.create(&[]);
    let program = Program::new(ALLOW);
    let serving = serve(&machines, &program.path());
    // By the ID alone, without a person.
    let joined = machines.ok("beta", &["join", &id, "--name", "beta", "--as", "team"]);
    assert!(joined.contains("joined team as beta") && joined.contains("tags sso"), "{joined}");
    let asked = &program.asked()[0];
    assert_eq!((&asked["version"], &asked["event"]), (&1.into(), &"join".into()));
    assert_eq!((&asked["network"]["id"], &asked["name"]), (&id.as_str().into(), &"beta".into()));
    assert_eq!((&asked["source"], &asked["invite"]), (&"127.0.0.1".into(), &Value::Null));
    assert_eq!(asked["code"].as_str().map(str::len), Some(7));
    serving.wait_for_stderr("has joined, by approval program");
    // With an invite, whose tags count, too.
    let invite = machines.invite(&["--name", "gamma", "--tag", "db"]);
    program.replace(DENY);
    let refused = machines.refused("gamma", &["join", &invite]);
    assert!(refused.contains("approval program has refused this machine"), "{refused}");
    serving.wait_for_stderr("the approval program refuses gamma");
    serving.wait_for_stderr("admission: who is that");
    program.replace(ALLOW);
    let joined = machines.ok("delta", &["join", &invite]);
    assert!(joined.contains("as gamma") && joined.contains("tags db, sso"), "{joined}");
    let asked = program.asked().pop().expect("it was asked");
    assert_eq!((&asked["name"], &asked["tags"]), (&"gamma".into(), &serde_json::json!(["db"])));
    assert_eq!(asked["invite"]["label"].as_str().map(str::len), Some(8));
    assert!(!serving.said().contains("wants to join"), "{}", serving.said());
}

#[test]
fn renewals_are_refused_or_wait_while_those_of_others_go_on() {
    let machines = Machines::new();
    let (id, serving) = machines.network();
    for machine in ["beta", "gamma", "delta"] {
        machines.admit(machine);
        // So that it asks for a certificate at once.
        machines.ok(machine, &["leave", "team"]);
    }
    // It writes what it has issued.
    serving.interrupt();
    // A sleeping program for one member.
    let program = Program::new(&format!(
        r#"case $(tail -n 1 asked) in
        *'"name":"beta"'*) echo > sleeping; until [ -e awake ]; do sleep 0.05; done; exit 1;;
        *'"name":"delta"'*) {DENY};;
        *) {ALLOW};;
        esac"#
    ));
    let serving = serve(&machines, &program.path());
    let beta = Running::start(machines.command("beta", &["join", &id, "--as", "team"]));
    program.wait_for("it is asked", |program| program.0.path().join("sleeping").exists());
    let joined = machines.ok("gamma", &["join", &id, "--as", "team"]);
    assert!(joined.contains("as gamma") && joined.contains("tags sso"), "{joined}");
    let refused = machines.refused("delta", &["join", &id]);
    assert!(refused.contains("approval program has refused this machine"), "{refused}");
    serving.wait_for_stderr("another certificate: who is that");
    assert!(program.asked().iter().all(|asked| asked["event"] == "renewal"));
    assert_eq!(machines.members().iter().filter(|one| one["standing"] != "removed").count(), 4);
    fs::write(program.0.path().join("awake"), "").expect("room");
    let finished = beta.wait_for_end();
    assert!(finished.stderr.contains("approval program"), "{}", finished.stderr);
    assert!(finished.stderr.contains("does not answer"), "{}", finished.stderr);
}

/// In each of these ways a program admits no machine, and a person can.
#[test]
fn a_program_that_fails_admits_nobody_and_a_person_can() {
    let machines = Machines::new();
    let (id, _) = machines.create(&[]);
    let program = Program::new(ALLOW);
    let serving = serve(&machines, &program.path());
    let fails = |machine: &str, said: &str| {
        let mut words = vec!["join", &id, "--name", machine, "--as", "team"];
        let invite = machines.invite(&["--name", machine]);
        if machine == "beta" {
            words[1] = &invite;
        }
        let joining = Running::start(machines.command(machine, &words));
        let code = joining.wait_for_stderr("waiting for approval, code ")[..7].to_owned();
        serving.wait_for_stderr(said);
        serving.wait_for_stderr(&format!("{machine} wants to join: code {code}"));
        machines.ok("alpha", &["network", "approve", &code]);
        joining.wait_for_stdout(&format!("joined team as {machine}"));
    };
    program.replace("echo no directory >&2; exit 1");
    fails("beta", "says: no directory");
    program.replace("echo '{\"decision\":\"allow\"'");
    fails("gamma", "its output is no answer");
    program.replace("exec yes");
    fails("delta", "it prints more than 64 KiB");
    program.replace("sleep 1000 & echo $! > child; exec >&- 2>&-; sleep 1000");
    fails("epsilon", "it has not ended within 5 s");
    program.wait_for("its child has ended", |program| {
        let child = fs::read_to_string(program.0.path().join("child")).expect("it was written");
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    });
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o600)).expect("ours");
    fails("zeta", "it cannot be started");
    // The same failure again is not told again.
    fs::remove_file(program.path()).expect("ours");
    let joining = Running::start(machines.command("eta", &["join", &id, "--name", "eta"]));
    serving.wait_for_stderr("eta wants to join");
    drop(joining);
    assert_eq!(serving.said().matches("it cannot be started").count(), 1, "{}", serving.said());
    // It recovers by itself.
    program.replace(ALLOW);
    machines.ok("theta", &["join", &id, "--name", "theta"]);
}

#[test]
fn a_program_that_cannot_be_used_is_named_at_the_start() {
    let machines = Machines::new();
    machines.create(&[]);
    let program = Program::new(ALLOW);
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o600)).expect("ours");
    let path = program.path();
    for wrong in ["/nonexistent/program", path.to_str().expect("text"), "/"] {
        let refused = machines.refused("alpha", &["controller", "-n", "team", "--approve-hook", wrong]);
        assert!(refused.contains("cannot be used") && refused.contains("--approve-hook"), "{refused}");
    }
}

#[test]
fn programs_end_with_the_controller() {
    let machines = Machines::new();
    let (id, _) = machines.create(&[]);
    let program = Program::new("echo $$ > own; mv own written; sleep 1000");
    let serving = serve(&machines, &program.path());
    let _joining = Running::start(machines.command("beta", &["join", &id]));
    program.wait_for("it runs", |program| program.0.path().join("written").exists());
    serving.interrupt();
    let own = fs::read_to_string(program.0.path().join("written")).expect("it was written");
    program.wait_for("it ends", |_| !Path::new(&format!("/proc/{}/fd/0", own.trim())).exists());
}

/// The program of the page about managed networks.
#[test]
fn the_example_of_the_documents_works() {
    if lacks("the_example_of_the_documents_works", &["python3"]) {
        return;
    }
    let machines = Machines::new();
    let (id, _) = machines.create(&[]);
    let home = tempfile::tempdir().expect("a folder");
    let id_of = |machine: &str| {
        let told: Value = serde_json::from_str(&machines.ok(machine, &["id", "--json"])).expect("JSON");
        told["node_id"].as_str().expect("an ID").to_owned()
    };
    let list = format!("{} beta db web\n{} gamma\n", id_of("beta"), id_of("gamma"));
    fs::write(home.path().join("machines.txt"), list).expect("room");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/use/approve-hook.py");
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/use/MANAGED.md")).expect("the page");
    assert!(page.contains("approve-hook.py"));
    let mut command = machines.command("alpha", &["controller", "-n", "team", "--approve-hook", example]);
    command.env("HOME", home.path());
    let serving = Running::start(command);
    serving.wait_for_stderr("serving team");
    let wish = |machine: &str, name: &str| {
        run(machines.command(machine, &["join", &id, "--name", name, "--as", "team"]))
    };
    let join = |machine: &str| machines.command(machine, &["join", &id, "--as", "team"]);
    // The list says the name, whatever the machine wishes.
    for (machine, joined_as) in [("beta", "as beta, 10.77.0.2"), ("gamma", "as gamma, 10.77.0.3")] {
        let joined = wish(machine, "web");
        assert!(joined.status.success(), "{}", joined.stderr);
        assert!(joined.text().contains(joined_as), "{machine}: {}", joined.text());
        assert_eq!(joined.text().contains("tags db, web"), machine == "beta", "{}", joined.text());
    }
    // Who says a name of the list is not the machine.
    let refused = wish("delta", "beta");
    assert!(refused.stderr.contains("has refused this machine"), "{}", refused.stderr);
    serving.wait_for_stderr("admission: not in the list");
    // An invite admits, and its member gets further certificates without being in the list.
    machines.admit("zeta");
    machines.ok("zeta", &["leave", "team"]);
    let again = run(join("zeta"));
    assert!(again.status.success() && again.text().contains("as zeta"), "{}", again.stderr);
    fs::remove_file(home.path().join("machines.txt")).expect("ours");
    let _waiting = Running::start(join("epsilon"));
    serving.wait_for_stderr("ends with exit status: 1");
}
