//! Error messages: each error is provoked, and its message says what to do.
//!
//! A unit test (`failure::texts`) checks that every text in the source has a hint. These tests check the
//! final texts, with inserted values.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{Finished, Lab, PORT, address_of, lacks, peersock, run, without_variables, write_file};

#[test]
fn every_error_says_what_is_wrong_and_what_to_do() {
    let lab = Lab::new();
    let dir = lab.dir.path();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (port, nobody) = (PORT.to_string(), format!("[{}]:{PORT}", address_of(&lab, "absent")));
    write_file(&dir.join("empty"), "\n", 0o600);
    write_file(&dir.join("exposed"), "x\n", 0o644);
    write_file(&dir.join("broken.toml"), "network = \"fe00000000000001\"\nmembers = 1\n", 0o644);
    let key = run(lab.command("a", &["id", "--key"])).success().text().trim().to_owned();
    let node_id = run(lab.command("a", &["id", "--json"])).success().text()[12..76].to_owned();
    run(lab.command("a", &["network", "new", &path("office.toml"), "--name", "alpha"])).success();
    let with_identity = |name: &str, content: &[u8]| {
        run(lab.command(name, &["id"])).success();
        fs::write(lab.state(name).join("identity.key"), content).unwrap();
        lab.command(name, &["id"])
    };
    fs::create_dir_all(lab.state("folder").join("identity.key")).unwrap();
    fs::write(path("no-directory"), "").unwrap();
    let in_home = |home: &str| {
        let mut command = peersock(&["id"]);
        command.env_remove("XDG_STATE_HOME").env("HOME", home);
        command
    };
    let with_log = |filter: &str| {
        let mut command = lab.command("a", &["id"]);
        command.env("PEERSOCK_LOG", filter);
        command
    };
    let run_nothing = peersock(&["run", "-n", &lab.network, "--ephemeral", "--", "no-such-program"]);
    let with_interface = |name: &str| {
        let mut command = lab.command("a", &["dial", &nobody, "-n", &lab.network]);
        command.args(["--interface", name]);
        command
    };
    let mut interface_of_environment = lab.command("a", &["dial", &nobody, "-n", &lab.network]);
    interface_of_environment.env("PEERSOCK_INTERFACE", "nosuch");
    let run_it = |program: &str| peersock(&["run", "-n", &lab.network, "--ephemeral", "--", program]);
    write_file(&dir.join("text"), "text", 0o644);
    write_file(&dir.join("script"), "#!/no/such/interpreter\n", 0o755);
    let mut new_named_like_an_id = lab.command("a", &["network", "new", "ff0001ffff000000"]);
    new_named_like_an_id.current_dir(dir);
    let mut empty_secret = lab.node("a", &["dial", &nobody]);
    empty_secret.env("PEERSOCK_SECRET", "");

    let wrong_variable = |name: &str, value: &str| {
        let mut command = lab.node("a", &["dial", &nobody]);
        command.env(name, value);
        command
    };

    for (command, status, words) in [
        (
            lab.command("a", &["addr", "office.toml"]),
            1,
            &["peersock network new office.toml", "docs/use/NETWORKS.md"][..],
        ),
        (
            lab.node("a", &["dial", &nobody, "--root", "192.0.2.1:7420"]),
            2,
            &["--root: a root is written KEY@HOST:PORT", "`peersock root` prints"],
        ),
        (lab.node("a", &["dial", &nobody, "--root", "@no/such/file"]), 1, &["cannot open no/such/file"]),
        (wrong_variable("PEERSOCK_DHT", "x"), 2, &["variable PEERSOCK_DHT is not understood", "unset it"]),
        (wrong_variable("PEERSOCK_STUN", "x"), 2, &["variable PEERSOCK_STUN is not understood", "HOST:PORT"]),
        (wrong_variable("PEERSOCK_TURN", "x"), 2, &["variable PEERSOCK_TURN is not understood", "unset it"]),
        (wrong_variable("PEERSOCK_TURN", "@/no/such/file"), 1, &["/no/such/file", "mode 0600"]),
        (
            wrong_variable("PEERSOCK_BUSY_POLL", "often"),
            2,
            &["variable PEERSOCK_BUSY_POLL is not understood", "microseconds", "unset it"],
        ),
        (
            wrong_variable("PEERSOCK_ROOTS", "192.0.2.1:7420"),
            2,
            &["variable PEERSOCK_ROOTS is not understood", "KEY@HOST:PORT", "@FILE"],
        ),
        (lab.node_in("office.toml", "a", &["dial", "beta:1"]), 1, &["peersock network new office.toml"]),
        (lab.node_in("office", "a", &["dial", "beta:1"]), 2, &["peersock network new"]),
        (lab.command("a", &["addr", "fe00000000000001"]), 2, &["peersock network new"]),
        (lab.command("a", &["addr", "8056c2e21c000001"]), 2, &["peersock join"]),
        (lab.command("a", &["addr", &path("broken.toml")]), 1, &["broken.toml:2:", "docs/use/NETWORKS.md"]),
        (lab.command("b", &["addr", &path("office.toml")]), 1, &["not a member", "peersock network add"]),
        (
            lab.node("a", &["dial", &nobody, "--secret-file", "/nonexistent"]),
            1,
            &["No such file", "write the passphrase"],
        ),
        (lab.node("a", &["dial", &nobody, "--secret-file", &path("empty")]), 2, &["empty passphrase"]),
        (lab.node("a", &["dial", &nobody, "--secret-file", &path("exposed")]), 1, &["chmod 600"]),
        (
            lab.node("a", &["dial", &nobody, "--secret-file", &path("")]),
            1,
            &["not a regular file or pipe", "name another"],
        ),
        (empty_secret, 2, &["PEERSOCK_SECRET", "empty"]),
        (with_identity("garbage", b"\xff\xfe\0"), 1, &["not text", "restore it from a backup"]),
        (with_identity("torn", b"peersock-identity 1 x"), 1, &["restore it from a backup"]),
        (with_identity("newer", b"peersock-identity 2 x"), 1, &["upgrade"]),
        (lab.command("folder", &["id"]), 1, &["not a regular file", "move it away"]),
        (lab.command("no-directory", &["id"]), 1, &["no-directory is a file", "--state DIR"]),
        (peersock(&["listen", "7000", "--ephemeral"]), 2, &["no network is named", "-n", "PEERSOCK_NETWORK"]),
        (peersock(&["run", "--ephemeral", "--", "true"]), 2, &["no network is named", "PEERSOCK_NETWORK"]),
        (
            peersock(&["run", "--ephemeral", "-n", &lab.network, "-n", &lab.network, "--", "true"]),
            2,
            &["is named twice", "name each network once"],
        ),
        (
            peersock(&["run", "--ephemeral", "-n", &path("office.toml"), "--", "true"]),
            2,
            &["an ephemeral identity is in none", "leave --ephemeral out"],
        ),
        // Control sequences are escaped.
        (lab.command("a", &["addr", "red\u{1b}[31m.toml"]), 1, &["red\\u{1b}[31m.toml"]),
        (peersock(&["addr", "--red\u{1b}[31m"]), 2, &["unexpected argument", "hint:"]),
        // The address cannot exist, so the peer is not searched.
        (lab.node_in("ff00500050000000", "a", &["dial", &nobody]), 2, &["outside the range 80-80"]),
        (lab.node_in("ff00500050000000", "a", &["dial", "--udp", &nobody]), 2, &["outside the range 80-80"]),
        (lab.node("a", &["dial", "[fd00::1]:0"]), 2, &["port 0", "`peersock listen` printed"]),
        (lab.node("a", &["ping", "[fd00::1]:80"]), 2, &["has a port", "leave the port out"]),
        (in_home("/proc/1/nothing"), 1, &["--state DIR or --ephemeral"]),
        (with_log("bogus[["), 2, &["bogus[[", "peersock_overlay"]),
        (with_log("nonsense=debug"), 2, &["nonsense", "peersock_overlay"]),
        (
            lab.node("a", &["dial", &nobody, "--timeout", "0.1"]),
            1,
            &["no member", "same network ID", "LAN", "-v"],
        ),
        (lab.node("a", &["dial", "fd00::1:80"]), 2, &["[IPV6]:PORT"]),
        (
            lab.node("a", &["forward", "-L", "8081:alpha"]),
            2,
            &["`8081:alpha`", "ADDRESS:PORT:HOST:PORT", "forward -L 8081:alpha:80"],
        ),
        (lab.node("a", &["forward", "-L", "99999:alpha:80"]), 2, &["`99999:alpha:80`", "[ADDRESS:]PORT"]),
        (lab.node("a", &["dial", "alpha:80"]), 2, &["peersock addr"]),
        (lab.node("a", &["ping", "10.0.0.1"]), 2, &["10.0.0.1", "peersock addr"]),
        (lab.node("a", &["listen", "--bind", "10.0.0.1", &port]), 2, &["--bind"]),
        (lab.command("a", &["status"]), 1, &["--state DIR"]),
        (lab.command("no-directory", &["status"]), 1, &["--state DIR"]),
        (lab.command(&"x".repeat(300), &["id"]), 1, &["name too long", "--state DIR"]),
        (with_interface("nosuch"), 1, &["nosuch", "--interface NAME"]),
        (with_interface("nosuch,none"), 1, &["nosuch", "--interface NAME"]),
        (interface_of_environment, 1, &["nosuch", "--interface NAME"]),
        (lab.node("a", &["forward", "8080"]), 2, &["`8080` has no REMOTE", "give LOCAL and REMOTE"]),
        (
            lab.node("a", &["forward", "overlay:1", "overlay:2"]),
            2,
            &["must be on the overlay", "forward 8080 alpha:80"],
        ),
        (lab.node("a", &["forward", "systemd:web", &nobody]), 1, &["without sockets", "socket unit"]),
        (lab.node("a", &["forward", "192.0.2.7:0", &nobody]), 1, &["192.0.2.7:0", "`peersock addr`"]),
        (lab.node("a", &["forward", "unix:/no/such/folder/x", &nobody]), 1, &["No such file", "spelled"]),
        (
            lab.node("a", &["proxy", "--listen", "nowhere"]),
            2,
            &["`nowhere` is no place", "`peersock proxy -n"],
        ),
        (lab.node("a", &["proxy", "--listen", "*:0"]), 2, &["reached by others", "--auth-file FILE"]),
        (lab.node("a", &["proxy", "--auth-file", "/nonexistent"]), 1, &["No such file", "write the users"]),
        (lab.node("a", &["proxy", "--auth-file", &path("empty")]), 2, &["no user is named", "USER:PASSWORD"]),
        (lab.node("a", &["proxy", "--auth-file", &path("exposed")]), 1, &["chmod 600"]),
        (run_nothing, 127, &["PATH"]),
        (run_it(&path("text")), 126, &["text is not executable", "chmod +x"]),
        (run_it(&path("")), 126, &["is a directory", "program"]),
        (run_it(&path("script")), 127, &["/no/such/interpreter, which", "script names in its first line"]),
        (lab.node("a", &["dial", &nobody, "--secret-file", "-"]), 1, &["/dev/stdin"]),
        (
            peersock(&["network", "new", &path("new.toml"), "--ephemeral"]),
            2,
            &["could never take part", "without --ephemeral"],
        ),
        (
            peersock(&["network", "add", &path("office.toml"), "--ephemeral"]),
            2,
            &["could never take part", "without --ephemeral"],
        ),
        (
            lab.command("b", &["network", "add", &path("office.toml"), "--name", "LocalHost"]),
            2,
            &["`localhost`", "another name"],
        ),
        (
            lab.command("b", &["network", "add", &path("office.toml"), "--name", "12"]),
            2,
            &["`12` is a number"],
        ),
        (new_named_like_an_id, 2, &["network ID", ".toml"]),
        (lab.command("a", &["network", "new", &path("b.toml"), "--name", "-"]), 2, &["was not made"]),
        (lab.command("a", &["network", "new", &path("office.toml")]), 2, &["exists already", "network add"]),
        (lab.command("a", &["network", "new", "/proc/office.toml"]), 1, &["cannot write", "choose a folder"]),
        (lab.command("b", &["network", "add", &path("office.toml"), "x"]), 2, &["`x`", "peersock id --key"]),
        (
            lab.command("b", &["network", "add", &path("office.toml"), &node_id]),
            2,
            &["node ID", "peersock id --key"],
        ),
        (lab.command("b", &["network", "add", &path("office.toml"), &key]), 2, &["twice", "not changed"]),
        (
            lab.command("b", &["network", "add", &path("office.toml"), "--name", "Alpha"]),
            2,
            &["name", "twice"],
        ),
        (lab.command("b", &["network", "add", &path("office.toml"), "--endpoint", "x"]), 2, &["HOST:PORT"]),
        (lab.command("b", &["network", "add", &path("none.toml")]), 1, &["peersock network new"]),
        (peersock(&["network", "remove", &path("office.toml"), "beta"]), 2, &["peersock network show"]),
        (peersock(&["network", "remove", &path("office.toml"), "alpha"]), 2, &["last member", "rm"]),
        (peersock(&["dail"]), 2, &["'dail'", "`peersock listen --ephemeral -n ff0001ffff000000 7000`"]),
        (peersock(&["dial"]), 2, &["<TARGET>", "`peersock dial -n ff0001ffff000000 '[fd12:"]),
        (peersock(&["ping", "--cuont", "1"]), 2, &["'--cuont'", "'--count'", "`peersock ping --help`"]),
        (peersock(&["ping", "x", "-c", "0"]), 2, &["give a number from 1 on"]),
        (peersock(&["ping", "x", "-i", "soon"]), 2, &["'soon'", "`peersock ping -c 100 -i 0.01"]),
        (
            peersock(&["run", "--mode", "magic", "x"]),
            2,
            &["magic", "seccomp", "`peersock run -n office.toml --mode"],
        ),
        (peersock(&["network", "ad"]), 2, &["'ad'", "`peersock network new office.toml"]),
    ] {
        let shown = format!("{command:?}");
        let finished = run(command);
        finished.failure(status, words);
        is_well_said(&finished, &shown);
        assert!(!finished.stderr.contains(".peersock-network"), "{}", finished.stderr);
    }
}

#[test]
fn a_passphrase_may_come_through_a_pipe() {
    if lacks("a_passphrase_may_come_through_a_pipe", &["bash"]) {
        return;
    }
    let lab = Lab::new();
    let nobody = format!("[{}]:{PORT}", address_of(&lab, "absent"));
    let mut command = Command::new("bash");
    command
        .args([
            "-c",
            "exec \"$@\" --secret-file <(printf 'correct horse\\n')",
            "bash",
            env!("CARGO_BIN_EXE_peersock"),
        ])
        .args(["dial", &nobody, "--timeout", "0.1", "--interface", "lo", "-n", &lab.network, "--state"])
        .arg(lab.state("a"));
    without_variables(&mut command);
    // The command gets as far as looking for the peer.
    run(command).failure(1, &["no member", "same passphrase"]);
}

#[test]
fn variables_are_the_defaults_of_the_network_and_the_state() {
    let lab = Lab::new();
    let mut by_variable = peersock(&["addr"]);
    by_variable.env("PEERSOCK_NETWORK", &lab.network).env("PEERSOCK_STATE", lab.state("a"));
    let by_option = run(lab.command("a", &["addr", &lab.network])).success();
    assert_eq!(run(by_variable).success().text(), by_option.text());

    // An option overrides the variable, and so does --ephemeral.
    let mut other = lab.command("b", &["id", "--key"]);
    other.env("PEERSOCK_STATE", lab.state("a"));
    let own = run(lab.command("a", &["id", "--key"])).success();
    assert_ne!(run(other).success().text(), own.text());
    let mut ephemeral = peersock(&["id", "--key", "--ephemeral"]);
    ephemeral.env("PEERSOCK_STATE", lab.state("a"));
    assert_ne!(run(ephemeral).success().text(), own.text());

    let mut dial = lab.command("a", &["dial", "nonsense", "--interface", "lo"]);
    dial.env("PEERSOCK_NETWORK", &lab.network);
    run(dial).failure(2, &["nonsense"]);
    run(lab.command("a", &["dial", "nonsense"])).failure(2, &["--network"]);
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let lab = Lab::new();
    for words in ["id", "id --json", "--version", "--help", "dial --help", "addr ff0001ffff000000"] {
        let words = format!(
            "{words} {}",
            if words.starts_with("id") || words.starts_with("addr") { "--ephemeral" } else { "" }
        );
        for (redirection, reason) in [(">&-", "Bad file descriptor"), ("> /dev/full", "No space left")] {
            let mut command = Command::new("sh");
            let script = format!("exec \"$0\" {words} {redirection}");
            command.args(["-c", &script, env!("CARGO_BIN_EXE_peersock")]).env("HOME", lab.dir.path());
            without_variables(&mut command);
            let finished = run(command);
            finished.failure(1, &["cannot write to stdout", reason]);
            is_well_said(&finished, &script);
        }
    }
    // Received data would be lost although the peer is told that it has arrived.
    for words in ["listen 0 --receive-only", "listen -k 0", "listen -u 0", "dial [fd00::1]:80"] {
        let mut command = Command::new("sh");
        let script = format!("exec \"$0\" {words} --ephemeral --interface lo -n {} >&-", lab.network);
        command.args(["-c", &script, env!("CARGO_BIN_EXE_peersock")]);
        without_variables(&mut command);
        let finished = run(command);
        finished.failure(1, &["cannot write to stdout", "Bad file descriptor"]);
        is_well_said(&finished, &script);
    }
    // /dev/null is a valid stdout, however it was opened.
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    assert!(peersock(&["--version"]).stdout(Stdio::from(null)).status().unwrap().success());
}

#[test]
fn colours_are_for_terminals_only_and_can_be_forced_and_refused() {
    let lab = Lab::new();
    let said = |variable: Option<(&str, &str)>| {
        let mut command = lab.command("a", &["addr", "nonsense"]);
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command.envs(variable);
        run(command).stderr
    };
    assert!(!said(None).contains('\x1b'));
    let forced = said(Some(("CLICOLOR_FORCE", "1")));
    assert!(forced.contains("\x1b[") && forced.contains("hint:"), "{forced}");
    assert!(!said(Some(("NO_COLOR", "1"))).contains('\x1b'));
}

#[test]
fn a_demonstration_without_loopback_says_so_once() {
    let mut command = Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_peersock"), "demo", "--size", "1"]);
    let possible = Command::new("unshare").args(["--net", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIP a_demonstration_without_loopback_says_so_once: network namespaces need root and unshare"
        );
        return;
    }
    without_variables(&mut command);
    let finished = run(command);
    finished.failure(1, &["process failed", "loopback interface", "ip link set lo up"]);
    assert!(!finished.stderr.contains("--interface"), "it has no such option: {}", finished.stderr);
    assert_eq!(finished.stderr.matches("peersock:").count(), 1, "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("hint:").count(), 1, "{}", finished.stderr);
}

/// Checks that the text has the program's name and advice, and nothing meant for developers.
#[track_caller]
pub(crate) fn is_well_said(finished: &Finished, command: &str) {
    let said = &finished.stderr;
    let of_the_parser = said.starts_with("error: ");
    assert!(of_the_parser || said.starts_with("peersock: "), "{command}: {said}");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines.len() <= 2 || of_the_parser, "{command}: more than an error and a hint: {said}");
    // The example is for the intended command.
    let has_example =
        said.lines().last().is_some_and(|line| line.starts_with("hint: for example `peersock "));
    assert!(has_example || !of_the_parser, "{command}: no example: {said}");
    let has_advice = ["hint: ", "run: ", "; use ", "; move ", "; restore ", "; upgrade "];
    assert!(has_advice.iter().any(|advice| said.contains(advice)), "{command}: no advice: {said}");
    for line in lines {
        let line = line.trim_start_matches("peersock: ").trim_start_matches("hint: ");
        assert!(!line.ends_with('.') || of_the_parser, "{command}: a full stop: {said}");
        for debug in
            ["Some(", "None)", "Os {", " { ", "Error(", "Err(", "\\\"", "[\"", "kind:", "(All)", "Named("]
        {
            assert!(!line.contains(debug), "{command}: {debug} in: {said}");
        }
    }
}

/// Peers would hear of a node that starts, and miss it for two minutes.
#[test]
fn a_target_that_cannot_be_starts_no_node() {
    let lab = Lab::new();
    let [here, elsewhere] = ["::1", "fd00::1"].map(|ip| format!("[{ip}]:{PORT}"));
    for (words, needle) in [
        (&["dial", "fd00::1:80"][..], "[IPV6]:PORT"),
        (&["dial", &*here], "can have address ::1"),
        (&["dial", &*elsewhere], "can have address fd00::1"),
        (&["dial", "alpha:80"], "peersock addr"),
        (&["ping", "alpha"], "peersock addr"),
        (&["ping", "::1"], "can have address ::1"),
        (&["forward", "0", "alpha:80"], "peersock addr"),
        (&["forward", "0", &*here], "this machine itself"),
        (&["forward", "0", &*elsewhere], "can have address fd00::1"),
    ] {
        run(lab.node("nobody", words)).failure(2, &[needle]);
        assert!(!lab.state("nobody").exists(), "{words:?} has started a node");
    }
}

#[test]
fn without_a_network_those_of_the_running_node_are_named() {
    let lab = Lab::new();
    let listening = lab.listen(&[&PORT.to_string()]);
    let target = listening.target.clone();
    for words in [&["dial", target.as_str()][..], &["forward", "0", &target], &["listen", "0"]] {
        let failed = run(lab.command("listener", words));
        failed.failure(2, &["no network is named", &lab.network, "-n"]);
    }
    run(lab.command("nobody", &["dial", &target]))
        .failure(2, &["no network is named", "peersock network new"]);
}

#[test]
fn listen_checks_its_port_before_a_node_starts() {
    let lab = Lab::new();
    for words in [&["listen", "80"][..], &["listen", "80", "--udp"], &["listen", "-k", "80"]] {
        let said = run(lab.node_in("ff7000ffff000000", "a", words));
        said.failure(2, &["port 80 is outside the range 28672-65535", "choose a port in that range"]);
    }
    assert!(!lab.state("a").exists(), "a node has started");
}

#[test]
fn a_long_argument_is_shown_in_part() {
    let long = "x".repeat(70_000);
    for (words, part) in [
        // It may be an invite, whose end is a secret.
        (&["join", &long][..], "xxx…` is no invite"),
        (&["network", "settings", "--pool", &long], " characters … xxx"),
        (&["dial", "-n", "ff0001ffff000000", &format!("{long}:1")], " characters … xxx"),
    ] {
        let said = run(peersock(words)).stderr;
        assert!(said.len() < 4000, "{} bytes: {words:.20?}", said.len());
        assert!(said.contains(part) && said.contains("hint:"), "{said}");
    }
}
