//! `listen` and `dial`: data passes between them, and both end at the right time.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{Lab, PORT, Running, lacks, peersock, run, write_file};

#[test]
fn who_only_receives_gets_what_a_listener_for_many_is_given_later() {
    let lab = Lab::new();
    let mut listening = lab.listen(&["-k", "0"]);
    let dialing = lab.dial(&listening.target, &["--receive-only", "-v"]);
    // The dialer is connected, and had time to close its side.
    dialing.wait_for_stderr("session established");
    std::thread::sleep(std::time::Duration::from_millis(500));
    listening.running.send(b"late");
    dialing.wait_for_stdout("late");
    listening.running.end_stdin();
    let dialed = dialing.finish().success();
    assert_eq!(dialed.text(), "late");
    assert!(dialed.stderr.contains("was reached: direct"), "{}", dialed.stderr);
    listening.running.interrupt().failure(130, &[]);
}

#[test]
fn both_directions_carry_data_and_half_closing_keeps_the_other_open() {
    let lab = Lab::new();
    let mut listening = lab.listen(&[&port()]);
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"request\n");
    dialing.end_stdin();
    listening.running.wait_for_stdout("request\n");
    let status = run(lab.command("listener", &["status"])).success();
    assert!(status.text().contains("session over 127.0.0.1:"), "{}", status.text());
    assert!(status.text().contains(", direct, datagrams of"), "{}", status.text());
    // The dialer finished sending long ago; the answer still arrives, in parts.
    listening.running.send(b"first ");
    dialing.wait_for_stdout("first ");
    listening.running.send(b"second");
    let listening = listening.running.finish().success();
    let dialed = dialing.finish().success();
    assert_eq!(dialed.text(), "first second");
    assert!(dialed.stderr.contains("was reached: direct"), "{}", dialed.stderr);
    assert_eq!(listening.text(), "request\n");
}

#[test]
fn the_listener_may_finish_first() {
    let lab = Lab::new();
    let mut listening = lab.listen(&[&port()]);
    listening.running.end_stdin();
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"one ");
    listening.running.wait_for_stdout("one ");
    dialing.send(b"two");
    dialing.finish().success();
    assert_eq!(listening.running.finish().success().text(), "one two");
}

#[test]
fn megabytes_arrive_exactly_in_both_directions_at_once() {
    let lab = Lab::new();
    let (up, down) = (noise(1, 8 << 20), noise(2, 5 << 20));
    let mut listening = lab.listen(&[&port()]);
    let mut dialing = lab.dial(&listening.target, &[]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            dialing.send(&up);
            dialing.end_stdin();
        });
        listening.running.send(&down);
        listening.running.end_stdin();
    });
    assert!(dialing.finish().success().stdout == down, "what came down differs");
    assert!(listening.running.finish().success().stdout == up, "what came up differs");
}

#[test]
fn a_directory_moves_exactly_through_tar() {
    if lacks("a_directory_moves_exactly_through_tar", &["bash", "diff", "tar"]) {
        return;
    }
    let lab = Lab::new();
    let (from, to) = (lab.dir.path().join("from"), lab.dir.path().join("to"));
    fs::create_dir_all(from.join("deep/er")).unwrap();
    fs::create_dir_all(&to).unwrap();
    for (index, name) in ["a", "deep/b", "deep/er/c", "empty"].into_iter().enumerate() {
        fs::write(from.join(name), noise(index as u64, index * 700_001 % (2 << 20))).unwrap();
    }
    std::os::unix::fs::symlink("deep/b", from.join("link")).unwrap();

    let listen =
        format!("'{}' listen --receive-only {} {PORT} | tar x -C \"$1\"", bin(), common_options(&lab, "l"));
    let listening = Running::start(shell(&listen, &[to.to_str().unwrap()]));
    let target = listening.wait_for_target();
    let dial = format!("tar c -C \"$1\" . | '{}' dial {} \"$2\"", bin(), common_options(&lab, "d"));
    Running::start(shell(&dial, &[from.to_str().unwrap(), &target])).finish().success();
    listening.finish().success();

    let same = Command::new("diff").args(["-r", "--no-dereference"]).args([&from, &to]).status().unwrap();
    assert!(same.success(), "the directories differ");
}

#[test]
fn keep_serves_one_client_after_the_other() {
    let lab = Lab::new();
    let listening = lab.listen(&["-k", &port()]);
    for text in ["one ", "two ", "three"] {
        let mut dialing = lab.dial(&listening.target, &[]);
        dialing.send(text.as_bytes());
        dialing.finish().success();
    }
    listening.running.wait_for_stdout("one two three");
    listening.running.interrupt().failure(130, &[]);
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    let lab = Lab::new();
    let listening = lab.listen(&[&port()]);
    let other = listening.target.replace(&port(), &(PORT - 1).to_string());
    lab.dial(&other, &[]).finish().failure(1, &["nothing listens", &other]);
}

#[test]
fn a_peer_that_is_not_there_is_given_up_after_the_time_limit() {
    let lab = Lab::new();
    let absent = run(lab.command("absent", &["addr", &lab.network])).success().text().trim().to_owned();
    let dialed = lab.dial(&format!("[{absent}]:{PORT}"), &["--timeout", "0.5"]).finish();
    dialed.failure(1, &[&absent, "no member", "0.5 s"]);
}

#[test]
fn ports_outside_the_range_of_the_network_are_refused_on_both_sides() {
    let lab = Lab::new();
    let network = "ff80008001000000";
    let listened = run(lab.node_in(network, "l", &["listen", "80"]));
    listened.failure(2, &["80", "32768-32769"]);
    let listening = lab.listen_with(lab.node_in(network, "l", &["listen"]), &[&port()]);
    let target = listening.target.replace(&port(), "80");
    run(lab.node_in(network, "d", &["dial", &target])).failure(2, &["80", "32768-32769"]);
}

#[test]
fn interrupting_the_dialer_ends_it_with_130_and_the_listener_with_an_error() {
    let lab = Lab::new();
    let mut listening = lab.listen(&[&port()]);
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");
    listening.running.send(b"y");
    dialing.wait_for_stdout("y");
    dialing.interrupt().failure(130, &[]);
    listening.running.finish().failure(1, &["broke"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_program_with_141() {
    if lacks("a_reader_that_goes_away_ends_the_program_with_141", &["bash"]) {
        return;
    }
    let lab = Lab::new();
    let mut listening = lab.listen(&[&port()]);
    let script = format!(
        "{{ '{}' dial {} \"$1\" </dev/null; echo \"status $?\" >&2; }} | head -c 5",
        bin(),
        common_options(&lab, "d")
    );
    let dialing = Running::start(shell(&script, &[&listening.target]));
    let text = noise(3, 1 << 20);
    // Writes until the connection breaks.
    while let Some(stdin) = &mut listening.running.stdin {
        use std::io::Write as _;
        if stdin.write_all(&text).is_err() {
            break;
        }
    }
    dialing.wait_for_stderr("status 141");
    assert_eq!(dialing.finish().success().stdout, text[..5]);
    assert_eq!(listening.running.finish().status.code(), Some(1));
}

#[test]
fn a_passphrase_keeps_others_out() {
    let lab = Lab::new();
    let secret = lab.dir.path().join("passphrase");
    write_file(&secret, "correct horse\n", 0o600);
    let with_secret = |mut command: Command| {
        command.arg("--secret-file").arg(&secret);
        command
    };
    let mut listening = lab.listen_with(with_secret(lab.node("listener", &["listen"])), &[&port()]);
    listening.running.end_stdin();
    let wrong = lab.dial_command(&listening.target, &["--timeout", "1"]);
    run(wrong).failure(1, &["no member", "passphrase"]);
    let mut wrong = lab.dial_command(&listening.target, &["--timeout", "1"]);
    wrong.env("PEERSOCK_SECRET", "correct horsf");
    run(wrong).failure(1, &["no member"]);
    let mut right = lab.dial_command(&listening.target, &[]);
    right.env("PEERSOCK_SECRET", "correct horse");
    let mut right = Running::start(right);
    right.send(b"hello");
    right.finish().success();
    assert_eq!(listening.running.finish().success().text(), "hello");
}

#[test]
fn members_of_a_static_network_are_reached_by_name_and_ipv4_address() {
    let lab = Lab::new();
    let key = |node: &str| {
        let id = run(lab.command(node, &["id", "--json"])).success();
        serde_json::from_str::<serde_json::Value>(id.text()).unwrap()["public_key"].to_string()
    };
    let file = lab.dir.path().join("office.toml");
    let text = format!(
        "network = \"fe00000000000001\"\n\
         [[member]]\nname = \"alpha\"\nkey = {}\naddresses = [\"10.7.0.1\"]\n\
         [[member]]\nname = \"beta\"\nkey = {}\naddresses = [\"10.7.0.2\"]\n",
        key("alpha"),
        key("beta")
    );
    write_file(&file, &text, 0o644);
    let network = file.to_str().unwrap();
    for target in ["alpha:80", "10.7.0.1:80"] {
        let mut listening = lab.listen_with(lab.node_in(network, "alpha", &["listen"]), &["80"]);
        listening.running.end_stdin();
        let mut dialing = Running::start(lab.node_in(network, "beta", &["dial", target]));
        dialing.send(target.as_bytes());
        dialing.finish().success();
        assert_eq!(listening.running.finish().success().text(), target);
    }
    let nobody = run(lab.node_in(network, "beta", &["ping", "alpha", "--timeout", "0.5"]));
    nobody.failure(1, &["alpha (fd", ") has not answered in network fe00000000000001 within 0.5 s"]);
}

#[test]
fn each_line_is_one_datagram_and_answers_come_back() {
    let lab = Lab::new();
    let mut listening = lab.listen(&["--udp", &port()]);
    let mut dialing = lab.dial(&listening.target, &["--udp", "--idle", "10"]);
    dialing.send(b"one\ntwo\n");
    listening.running.wait_for_stdout("one\ntwo\n");
    listening.running.send(b"three\n");
    dialing.wait_for_stdout("three\n");
    dialing.interrupt().failure(130, &[]);
    listening.running.interrupt().failure(130, &[]);
}

#[test]
fn udp_ends_by_itself_after_the_idle_time() {
    let lab = Lab::new();
    let listening = lab.listen(&["--udp", &port()]);
    let mut dialing = lab.dial(&listening.target, &["--udp", "-w", "0.1"]);
    dialing.send(b"bye");
    dialing.finish().success();
    listening.running.wait_for_stdout("bye");
}

#[test]
fn udp_to_a_closed_port_is_refused() {
    let lab = Lab::new();
    let listening = lab.listen(&["--udp", &port()]);
    let other = listening.target.replace(&port(), &(PORT - 1).to_string());
    let mut dialing = lab.dial(&other, &["--udp", "--idle", "60"]);
    dialing.send(b"anyone?\n");
    dialing.finish().failure(1, &["nothing listens"]);
}

/// A listener on only one of a member's addresses is reached by the member's name.
#[test]
fn a_name_stands_for_all_addresses_of_a_member() {
    let lab = Lab::new();
    let file = lab.dir.path().join("office.toml");
    let path = file.to_str().unwrap();
    run(lab.command("listener", &["network", "new", path, "--name", "alpha", "--address", "10.7.0.1"]))
        .success();
    run(lab.command("dialer", &["network", "add", path, "--address", "10.7.0.2"])).success();
    let listen = lab.node_in(path, "listener", &["listen", "--receive-only", "--bind", "10.7.0.1", "7000"]);
    let listening = Running::start(listen);
    assert_eq!(listening.wait_for_target(), "10.7.0.1:7000");
    let nobody = run(lab.node_in(path, "dialer", &["dial", "alpha:7001"]));
    nobody.failure(1, &["nothing listens on [", "]:7001 or 10.7.0.1:7001"]);
    let mut dialing = Running::start(lab.node_in(path, "dialer", &["dial", "alpha:7000"]));
    dialing.send(b"hello\n");
    dialing.finish().success();
    assert_eq!(listening.finish().success().text(), "hello\n");
}

#[test]
fn help_and_version_are_data() {
    for words in [&["--help"][..], &["--version"], &["dial", "--help"]] {
        let finished = run(peersock(words)).success();
        assert!(finished.text().contains("peersock"), "{words:?}");
    }
}

fn port() -> String {
    PORT.to_string()
}

fn bin() -> &'static str {
    env!("CARGO_BIN_EXE_peersock")
}

fn common_options(lab: &Lab, node: &str) -> String {
    format!("--state '{}' --interface lo -n {}", lab.state(node).display(), lab.network)
}

fn shell(script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", script, "bash"]).args(args).stdin(Stdio::null());
    command.env_remove("PEERSOCK_SECRET");
    command
}

/// Returns pseudo-random bytes (xorshift64).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xff51_afd7_ed55_8ccd);
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

#[test]
fn a_long_search_says_what_it_waits_for_unless_it_is_quiet() {
    let lab = Lab::new();
    let absent = run(lab.command("absent", &["addr", &lab.network])).success().text().trim().to_owned();
    let target = format!("[{absent}]:{PORT}");
    let dialing = Running::start(lab.dial_command(&target, &["--timeout", "600"]));
    let said = dialing.wait_for_stderr("peersock: looking for ");
    assert!(said.starts_with(&format!("{absent} in network {}", lab.network)), "{said}");
    assert!(said.contains("on the local networks") && said.ends_with("for up to 600 s"), "{said}");
    let said = dialing.interrupt();
    said.failure(130, &[]);
    assert_eq!(said.stderr.matches("looking for").count(), 1, "{}", said.stderr);
    let quiet = run(lab.dial_command(&target, &["--timeout", "4", "--quiet"]));
    quiet.failure(1, &["no member"]);
    assert!(!quiet.stderr.contains("looking for"), "{}", quiet.stderr);
}
