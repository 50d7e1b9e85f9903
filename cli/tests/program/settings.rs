//! Settings that are incomplete or do not apply: secrets, servers, ports, modes. Each error says what to do.
//! A wrong setting yields status 2 regardless of its source, and an unreadable one yields 1.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use peersock_testnet::free_port;
use serde_json::Value;

use crate::common::{Lab, PATIENCE, PORT, Running, address_of, peersock, run, write_file};

/// Creates a static network with alpha, whose endpoint is given, and beta.
fn office(lab: &Lab, endpoint: &str) -> String {
    let path = lab.dir.path().join("office.toml").to_str().unwrap().to_owned();
    run(lab.command("alpha", &["network", "new", &path, "--name", "alpha", "--endpoint", endpoint]))
        .success();
    run(lab.command("beta", &["network", "add", &path, "--name", "beta"])).success();
    path
}

#[test]
fn a_passphrase_does_not_part_a_node_from_its_static_network() {
    let lab = Lab::new();
    let office = office(&lab, "127.0.0.1:9");
    let secret = lab.dir.path().join("secret");
    write_file(&secret, "correct horse\n", 0o600);
    let node = |name: &str, words: &[&str]| lab.node_in(&office, name, words);
    let mut by_file = node("beta", &["dial", "alpha:7000", "--timeout", "0.1"]);
    by_file.arg("--secret-file").arg(&secret);
    run(by_file).failure(2, &["--secret-file is for ad-hoc networks", "hint: leave --secret-file out"]);

    // A variable may be meant for another network, so the node joins as the file says.
    let mut listening = node("alpha", &["listen", "7000"]);
    listening.env("PEERSOCK_SECRET", "correct horse");
    let mut listening = Running::start(listening);
    listening.wait_for_stderr("warning: PEERSOCK_SECRET is not used: it is for ad-hoc networks");
    listening.end_stdin();
    let command = listening.wait_for_stderr("connect with: ");
    assert!(!command.contains("--secret-file"), "{command}");
    let mut dialing = Running::start(node("beta", &["dial", "alpha:7000"]));
    dialing.send(b"hello");
    dialing.finish().success();
    assert_eq!(listening.finish().success().text(), "hello");
}

#[test]
fn texts_of_turn_servers_that_are_half_right_are_refused() {
    let lab = Lab::new();
    let nobody = format!("[{}]:{PORT}", address_of(&lab, "absent"));
    let dial = || lab.node("a", &["dial", &nobody, "--timeout", "0.1"]);
    for (text, words) in [
        ("turn://u:sesame@h:1", "without //"),
        ("turn:u:sesame%zz@h", "two hexadecimal digits"),
        ("turn:u:sesame@h:0", "1 to 65535"),
        ("turn:u:sesame@h/x", "no host"),
        ("", "is empty"),
    ] {
        let mut by_option = dial();
        by_option.args(["--turn", text]);
        let said = run(by_option);
        said.failure(2, &["--turn: ", words, "turn:USER:PASSWORD@HOST:PORT"]);
        assert!(!said.stderr.contains("sesame"), "{}", said.stderr);
        let mut by_variable = dial();
        by_variable.env("PEERSOCK_TURN", text);
        match text {
            // An empty variable counts as unset.
            "" => run(by_variable).failure(1, &["no member"]),
            _ => run(by_variable).failure(2, &["PEERSOCK_TURN", words, "hint: "]),
        }
    }

    let file = lab.dir.path().join("servers");
    let by_file = |content: &str| {
        write_file(&file, content, 0o600);
        let mut command = dial();
        command.arg(format!("--turn=@{}", file.display()));
        run(command)
    };
    by_file("# ours\nturn:u:p@h\n\nturn:u:p@h turn:u@h\n")
        .failure(2, &["servers:4: a TURN server is written"]);
    by_file("\n# turn:u:p@h\n").failure(2, &["servers names no TURN server", "hint: write "]);

    let five = ["turn:u:p@h"; 5];
    let mut by_option = dial();
    by_option.args(five.map(|text| format!("--turn={text}")));
    run(by_option).failure(2, &["5 TURN servers are named", "at most 4", "hint: name fewer"]);
    let mut by_variable = dial();
    by_variable.env("PEERSOCK_TURN", five.join(" "));
    run(by_variable).failure(2, &["5 TURN servers are named", "at most 4"]);
}

/// Every command that starts a node has the option.
#[test]
fn stun_servers_that_are_named_are_asked() {
    let lab = Lab::new();
    let (_root, text) = root();
    for by_option in [true, false] {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let at = server.local_addr().unwrap().to_string();
        let mut listening = lab.node("a", &["listen", &PORT.to_string(), "--root", &text]);
        match by_option {
            true => listening.args(["--stun", &at]),
            false => listening.env("PEERSOCK_STUN", &at),
        };
        let _listening = Running::start(listening);
        let mut request = [0; 2000];
        let length = server.recv(&mut request).expect("it asks");
        assert!(peersock_nat::stun::request_id(&request[..length]).is_some());
    }
    let nobody = format!("[{}]:{PORT}", address_of(&lab, "absent"));
    run(lab.node("b", &["dial", &nobody, "--stun", "x"])).failure(2, &["'x' is not HOST:PORT"]);
}

#[test]
fn a_turn_server_that_fails_is_told_where_nobody_is_found() {
    let lab = Lab::new();
    let nobody = format!("[{}]:{PORT}", address_of(&lab, "absent"));
    let (root, text) = root();
    // Other programs cannot get the port while this process holds it.
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let [gone, mute] = [&closed, &silent].map(|socket| socket.local_addr().unwrap());
    drop(closed);
    let dial = |words: &[&str]| {
        let mut command = lab.node("a", &["dial", &nobody, "--timeout", "5", "-v"]);
        command.args(words).env("PEERSOCK_TURN", format!("turn:u:sesame@{gone} turn:u:sesame@{mute}"));
        run(command)
    };
    let said = dial(&["--root", &text]);
    said.failure(
        1,
        &[
            "no member",
            &format!(
                "the TURN server turn:u@{gone} does not relay: nothing listens at the server's port, check "
            ),
            &format!("the TURN server turn:u@{mute} has not answered, check that "),
            "a TURN server is asked for an address",
            "no TURN allocation yet: nothing listens",
        ],
    );
    assert!(!said.stderr.contains("sesame"), "{}", said.stderr);
    dial(&[]).failure(
        1,
        &["no TURN server is asked, because peers learn of it only by a root or --dht, give one; "],
    );
    root.interrupt();
}

#[test]
fn lists_that_are_empty_are_told_and_have_the_status_of_what_they_are() {
    let lab = Lab::new();
    let nobody = format!("[{}]:{PORT}", address_of(&lab, "absent"));
    let empty = lab.dir.path().join("empty");
    write_file(&empty, "# nothing\n", 0o600);
    let empty = format!("@{}", empty.display());
    // Hears no announcements of others, and does not use the system's nameservers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let domain = format!("dns:example.org@{}", silent.local_addr().unwrap());
    let missing = "@/no/such/file";
    for (text, status, words) in [
        ("nonsense", 2, &["a root is written KEY@HOST:PORT", "hint: give what"][..]),
        (&empty, 2, &["names no root", "hint: give what"]),
        (missing, 1, &["cannot open /no/such/file", "hint: "]),
        (
            &domain,
            1,
            &[
                "no member",
                "no root is known from dns:example.org@",
                "does not answer, look at ",
                "none was kept",
            ],
        ),
    ] {
        let dial = || {
            let mut command = lab.node("a", &["dial", &nobody, "--timeout", "5"]);
            command.env("XDG_CACHE_HOME", lab.dir.path().join("cache"));
            command
        };
        let mut by_option = dial();
        by_option.args(["--root", text]);
        let said = run(by_option);
        said.failure(status, words);
        assert!(!said.stderr.contains("kept=0"), "{}", said.stderr);
        let mut by_variable = dial();
        by_variable.env("PEERSOCK_ROOTS", text);
        run(by_variable).failure(status, words);
        if text != domain {
            let mut netcheck = peersock(&["netcheck", "--interface", "lo"]);
            netcheck.env("PEERSOCK_ROOTS", text);
            run(netcheck).failure(status, &words[..1]);
        }
    }
    let dial = |words: &[&str], variable: Option<&str>| {
        let mut command = lab.node("a", &["dial", &nobody, "--timeout", "0.3"]);
        command.args(words).envs(variable.map(|text| ("PEERSOCK_ROOTS", text)));
        run(command)
    };
    dial(&["--root", ""], None).failure(2, &["--root names no root: its text is empty"]);
    dial(&[], Some("")).failure(
        1,
        &["no member", "PEERSOCK_ROOTS is set and empty, so no root is asked, unset it or give --root; "],
    );
    for (variable, text) in [("STUN", "bogus"), ("DHT", "bogus"), ("TURN", "bogus")] {
        let variable = format!("PEERSOCK_{variable}");
        let mut command = lab.node("a", &["dial", &nobody]);
        command.env(&variable, text);
        run(command).failure(2, &[&variable, "hint: "]);
    }
}

#[test]
fn who_listens_elsewhere_than_its_networks_file_says_is_warned() {
    let lab = Lab::new();
    let port = free_port();
    let office = office(&lab, &format!("127.0.0.1:{port}"));
    let listen = |words: &[&str]| {
        let mut command = lab.node_in(&office, "alpha", &["listen", "7000"]);
        command.args(words);
        let listening = Running::start(command);
        listening.wait_for_stderr("connect with: ");
        listening.interrupt().stderr
    };
    let said = listen(&[]);
    let warning =
        format!("warning: the network's file says that this node is at 127.0.0.1:{port}, and it uses UDP");
    assert!(said.contains(&warning) && said.contains(&format!("give --overlay-port {port}\n")), "{said}");
    let said = listen(&["--overlay-port", &port.to_string()]);
    assert!(!said.contains("warning"), "{said}");
    let said = listen(&["--overlay-port", &free_port().to_string()]);
    assert!(said.contains("unless a router forwards that port"), "{said}");
}

#[test]
fn an_identity_is_not_taken_from_a_directory_that_others_may_write_to() {
    let lab = Lab::new();
    run(lab.command("a", &["id"])).success();
    let state = lab.state("a");
    let with_mode = |path: &str, mode| {
        fs::set_permissions(state.join(path), fs::Permissions::from_mode(mode)).unwrap();
        [lab.command("a", &["id"]), lab.command("a", &["addr", &lab.network])].map(run)
    };
    for finished in with_mode("", 0o755) {
        finished.success();
    }
    for mode in [0o777, 0o770, 0o1777] {
        for finished in with_mode("", mode) {
            finished.failure(1, &["other users may write to directory", "run: chmod 700"]);
        }
    }
    for finished in with_mode("", 0o700) {
        finished.success();
    }
    for finished in with_mode("identity.key", 0o777) {
        finished.failure(1, &["identity.key", "chmod 600"]);
    }
}

#[test]
fn netcheck_tells_a_root_with_another_key_from_the_right_one() {
    let (root, text) = root();
    let (_, place) = text.split_once('@').unwrap();
    let key = run(peersock(&["id", "--ephemeral", "--key"])).success();
    let netcheck = |text: &str, words: &[&str]| {
        let mut command: Command = peersock(&["netcheck", "--interface", "lo"]);
        command.args(words).env("PEERSOCK_ROOTS", text);
        run(command).success()
    };
    let right = netcheck(&text, &[]);
    assert!(
        right.text().contains(&format!("the root at {place} answers, and has its key")),
        "{}",
        right.text()
    );
    let wrong = format!("{}@{place}", key.text().trim());
    let said = netcheck(&wrong, &[]);
    let finding = format!("something answers at {place}, but not as the root with the key that is named");
    assert!(said.text().contains(&finding), "{}", said.text());
    // Without a NAT, no line describes one.
    assert!(said.text().contains("lo, IPv4: no NAT; "), "{}", said.text());
    assert!(!said.text().contains("how the NAT filters"), "{}", said.text());
    for (text, has_key) in [(&text, Value::from(true)), (&wrong, Value::Null)] {
        let report: Value = serde_json::from_str(netcheck(text, &["--json"]).text()).unwrap();
        let [root] = report["roots"].as_array().unwrap().as_slice() else { panic!("{report}") };
        assert_eq!((&root["has_key"], &root["endpoints"][0]), (&has_key, &place.into()), "{report}");
    }
    root.interrupt();
}

/// Starts a root on the loopback interface; returns it with its text.
fn root() -> (Running, String) {
    let words = ["root", "--ephemeral", "--listen", "127.0.0.1", "--port", "0", "--drain", "0"];
    let root = Running::start(peersock(&words));
    root.wait_for_stderr("listening on ");
    let text = root.wait_for_stdout("@127.0.0.1:").trim().to_owned();
    (root, text)
}
