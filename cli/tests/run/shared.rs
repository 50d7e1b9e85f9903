//! Programs that share the node of their state directory.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{Running, peersock, run, signal, vanish};
use crate::lab::{ALPHA, Lab, is_root};

/// Timeout of anything; tests do not depend on speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Server that sends back what it gets, on a port.
const ECHO: &str = "
import socket, sys, threading
def serve(c):
    try:
        while data := c.recv(65536): c.sendall(data)
        c.close()
    except OSError as error: print('lost', error.errno, flush=True)
s = socket.create_server(('', int(sys.argv[1])))
print('ready', flush=True)
while True:
    try: c = s.accept()[0]
    except OSError as error:
        print('accept', error.errno, flush=True)
        # It stays, so that others can say that it has no network, until the test ends.
        sys.stdin.read()
        break
    threading.Thread(target=serve, args=(c,)).start()";

/// Client that sends each line of its input to a server, and prints the echo or the error.
const CLIENT: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print('connected', flush=True)
for line in sys.stdin:
    try:
        s.sendall(line.encode())
        echo = s.recv(65536)
        print('echo', echo.decode().strip(), flush=True)
        if not echo: break
    except OSError as error: print('error', error.errno, flush=True); break";

/// Option of programs that share a node.
const SHARE: &[&str] = &["--share-node"];

impl Lab {
    /// Starts a program that shares the member's node.
    pub(crate) fn shared(&self, member: &str, program: &[impl AsRef<std::ffi::OsStr>]) -> Running {
        Running::start(self.command(member, SHARE, program))
    }

    pub(crate) fn echo(&self, member: &str, port: &str) -> Running {
        let serving = self.shared(member, &["python3", "-c", ECHO, port]);
        serving.wait_for_stdout("ready");
        serving
    }

    fn client(&self, member: &str, host: &str, port: &str) -> Running {
        let client = self.shared(member, &["python3", "-c", CLIENT, host, port]);
        client.wait_for_stdout("connected");
        client
    }

    fn socket(&self, member: &str) -> PathBuf {
        self.path(member).join("node.sock")
    }

    /// Returns the process of a member's node.
    pub(crate) fn node(&self, member: &str) -> u32 {
        let lock = fs::read_to_string(self.path(member).join("lock")).expect("a node has run");
        lock.trim().parse().expect("a process")
    }

    /// Waits until a member's node has ended.
    pub(crate) fn wait_for_end(&self, node: u32) {
        let begun = Instant::now();
        while PathBuf::from(format!("/proc/{node}/exe")).read_link().is_ok() {
            assert!(begun.elapsed() < PATIENCE, "the node {node} runs on");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn echoes(client: &mut Running, text: &str) {
    client.send(format!("{text}\n").as_bytes());
    client.wait_for_stdout(&format!("echo {text}"));
}

#[test]
fn programs_of_one_member_run_side_by_side_and_the_node_ends_with_the_last() {
    let Some(lab) = Lab::with("programs_of_one_member_run_side_by_side", &["python3"]) else { return };
    let first = lab.echo("alpha", "7000");
    let node = lab.node("alpha");
    let second = lab.echo("alpha", "7001");
    // Among themselves, and with another member.
    let mut inside = lab.client("alpha", ALPHA, "7000");
    let mut outside = lab.client("beta", ALPHA, "7001");
    echoes(&mut inside, "among programs");
    echoes(&mut outside, "from elsewhere");
    let taken = lab.command("alpha", &[], &["python3", "-c", ECHO, "7001"]);
    // A program joins a node that runs without being asked.
    run(taken).failure(1, &["Address already in use"]);
    assert_eq!(lab.node("alpha"), node, "one node serves all");
    drop((inside, first));
    echoes(&mut outside, "and goes on");
    assert_eq!(lab.node("alpha"), node);
    drop((outside, second));
    lab.wait_for_end(node);
    assert!(!lab.socket("alpha").exists());
}

#[test]
fn a_node_s_directory_is_free_as_soon_as_the_last_program_has_ended() {
    let Some(lab) = Lab::with("a_node_s_directory_is_free_as_soon_as", &[]) else { return };
    for _ in 0..20 {
        run(lab.command("alpha", SHARE, &["true"])).success();
        run(lab.command("alpha", &[], &["true"])).success();
    }
}

#[test]
fn programs_that_start_together_find_one_node() {
    let Some(lab) = Lab::with("programs_that_start_together_find_one_node", &["python3"]) else { return };
    for _ in 0..5 {
        let started: Vec<_> = (0..8)
            .map(|number| {
                let port = (7000 + number).to_string();
                lab.shared("alpha", &["python3", "-c", ECHO, &port])
            })
            .collect();
        started.iter().for_each(|one| drop(one.wait_for_stdout("ready")));
        let node = lab.node("alpha");
        let mut client = lab.client("alpha", ALPHA, "7007");
        echoes(&mut client, "all of them");
        drop((started, client));
        lab.wait_for_end(node);
    }
}

#[test]
fn others_go_on_when_the_program_that_started_the_node_is_killed() {
    let Some(lab) = Lab::with("others_go_on_when_the_program_that_started", &["python3"]) else { return };
    let starter = lab.echo("alpha", "7000");
    let node = lab.node("alpha");
    let second = lab.echo("alpha", "7001");
    let mut to_first = lab.client("beta", ALPHA, "7000");
    let mut to_second = lab.client("beta", ALPHA, "7001");
    echoes(&mut to_first, "before");
    vanish(Signal::KILL, starter.id());
    // Its own program has no network, and says so; its peers see the end.
    starter.wait_for_stdout("accept");
    starter.wait_for_stderr("was killed, so the programs that it has started have no network");
    to_first.send(b"after\n");
    to_first.wait_for_stdout("error ");
    echoes(&mut to_second, "after");
    assert_eq!(lab.node("alpha"), node);
    // The port is free again.
    let again = lab.echo("alpha", "7000");
    let mut to_again = lab.client("beta", ALPHA, "7000");
    echoes(&mut to_again, "again");
    drop((again, second));
    lab.wait_for_end(node);
}

#[test]
fn programs_are_told_when_the_node_is_killed_and_the_next_one_starts_another() {
    let Some(lab) = Lab::with("programs_are_told_when_the_node_is_killed", &["python3"]) else { return };
    let programs = [lab.echo("alpha", "7000"), lab.echo("alpha", "7001")];
    let mut client = lab.client("alpha", ALPHA, "7001");
    echoes(&mut client, "before");
    let node = lab.node("alpha");
    signal(Signal::KILL, node);
    for program in &programs {
        program.wait_for_stderr("the node that programs share has ended, so python3 has no network");
        // ENETDOWN.
        program.wait_for_stdout("accept 100");
    }
    client.send(b"after\n");
    client.wait_for_stdout("error ");
    let next = lab.echo("alpha", "7000");
    assert_ne!(lab.node("alpha"), node);
    let mut beside = lab.client("beta", ALPHA, "7000");
    echoes(&mut beside, "after");
    drop(next);
}

#[test]
fn a_program_is_told_when_launcher_and_node_are_killed_together() {
    let Some(lab) = Lab::with("a_program_is_told_when_launcher_and_node", &["python3"]) else { return };
    let serving = lab.echo("alpha", "7000");
    let node = lab.node("alpha");
    signal(Signal::STOP, node);
    signal(Signal::KILL, serving.id());
    signal(Signal::KILL, node);
    // ENETDOWN.
    serving.wait_for_stdout("accept 100");
    serving.wait_for_stderr("have no network");
}

#[test]
fn data_that_a_killed_node_has_not_delivered_is_a_failure() {
    let Some(lab) = Lab::with("data_that_a_killed_node_has_not_delivered", &["python3"]) else { return };
    let quiet = "
import socket, time
s = socket.create_server(('', 7000))
print('ready', flush=True)
c = s.accept()[0]
time.sleep(1000)";
    let serving = Running::start(lab.command("alpha", &[], &["python3", "-c", quiet]));
    serving.wait_for_stdout("ready");
    let sends = "
import socket, sys
s = socket.create_connection((sys.argv[1], 7000))
s.sendall(bytes(1_000_000))
print('sent', flush=True)
sys.stdin.readline()";
    let mut sending = lab.shared("beta", &["python3", "-c", sends, ALPHA]);
    sending.wait_for_stdout("sent");
    vanish(Signal::STOP, serving.id());
    sending.send(b"\n");
    // The launcher waits for the peer now.
    thread::sleep(Duration::from_millis(500));
    signal(Signal::KILL, lab.node("beta"));
    sending.wait_for_end().failure(1, &["before everything that", "python3 has sent was delivered"]);
    signal(Signal::CONT, serving.id());
}

#[test]
fn a_directory_that_was_removed_leaves_the_next_node_its_socket() {
    let Some(lab) = Lab::with("a_directory_that_was_removed", &["python3"]) else { return };
    let first = lab.echo("alpha", "7000");
    let node = lab.node("alpha");
    let (state, kept) = (lab.path("alpha"), lab.path("kept"));
    fs::rename(&state, &kept).expect("it may be moved");
    fs::create_dir(&state).expect("room");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("its owner may");
    fs::copy(kept.join("identity.key"), state.join("identity.key")).expect("room");
    let second = lab.echo("alpha", "7001");
    drop(first);
    lab.wait_for_end(node);
    assert!(lab.socket("alpha").exists() && state.join("management.sock").exists());
    drop(second);
}

#[test]
fn a_program_that_is_stopped_holds_up_no_other() {
    let Some(lab) = Lab::with("a_program_that_is_stopped_holds_up_no_other", &["python3"]) else { return };
    let first = lab.echo("alpha", "7000");
    let second = lab.echo("alpha", "7001");
    signal(Signal::STOP, first.id());
    let mut to_second = lab.client("beta", ALPHA, "7001");
    echoes(&mut to_second, "beside a stopped launcher");
    // The stopped launcher's program goes on, too: its node runs.
    let mut to_first = lab.client("beta", ALPHA, "7000");
    echoes(&mut to_first, "of the stopped launcher");
    signal(Signal::CONT, first.id());
    drop((first, second));
}

#[test]
fn a_program_has_its_networks_and_a_network_is_the_same_for_all() {
    let Some(lab) = Lab::with("a_program_has_its_networks", &["python3"]) else { return };
    let serving = lab.echo("alpha", "7000");
    let adhoc = lab.ad_hoc();
    let ids = "
import socket
s = socket.socket()
try: s.connect(('10.77.0.1', 7000))
except OSError as error: print(error.errno)
print(sum(name.startswith('ps') for _, name in socket.if_nameindex()))";
    let only = lab.command_in(adhoc.as_ref(), "alpha", &["--only"], &["python3", "-c", ids]);
    // ENETUNREACH, and one network.
    assert_eq!(run(only).success().text(), "101\n1\n");
    // The same network with a passphrase is another one.
    let secret = lab.write("secret", "correct horse");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("its owner may");
    let open = lab.command_in(adhoc.as_ref(), "alpha", &[], &["sleep", "100"]);
    let open = Running::start(open);
    wait_for_program(&lab, "alpha", &adhoc);
    let closed = lab.command_in(adhoc.as_ref(), "alpha", &["--secret-file", &secret], &["true"]);
    run(closed).failure(1, &["`sleep` (process", &adhoc, "no passphrase", "--state DIR"]);
    drop(open);
    // A port that cannot be had any more names the program that has started the node.
    let port = lab.command("alpha", &["--overlay-port", "7420"], &["true"]);
    run(port).failure(1, &["without --overlay-port, by `python3` (process", "7420"]);
    drop(serving);
}

/// Waits until the node of a member has joined a network.
fn wait_for_program(lab: &Lab, member: &str, network: &str) {
    let begun = Instant::now();
    loop {
        let mut status = peersock(&["status", "--json", "--state"]);
        status.arg(lab.path(member));
        if String::from_utf8_lossy(&run(status).stdout).contains(network) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{network} is not joined");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_node_that_is_kept_serves_programs_one_after_another() {
    let Some(lab) = Lab::with("a_node_that_is_kept_serves_programs", &["python3"]) else { return };
    let mut keep = peersock(&["node", "--interface", "lo", "--state"]);
    keep.arg(lab.path("alpha"));
    let kept = Running::start(keep);
    kept.wait_for_stderr("programs under `peersock run` share it");
    let node = lab.node("alpha");
    assert_eq!(node, kept.id());
    for _ in 0..3 {
        let serving = lab.echo("alpha", "7000");
        let mut client = lab.client("beta", ALPHA, "7000");
        echoes(&mut client, "kept");
        drop((serving, client));
    }
    let last = lab.echo("alpha", "7000");
    signal(Signal::TERM, kept.id());
    last.wait_for_stderr("the node that programs share has ended");
    kept.wait_for_end().failure(143, &[]);
    assert!(!lab.socket("alpha").exists());
}

#[test]
fn a_directory_whose_node_is_not_shared_is_in_use_and_a_stale_socket_is_replaced() {
    let Some(lab) = Lab::with("a_directory_whose_node_is_not_shared", &["python3"]) else { return };
    let own = lab.command("alpha", &[], &["python3", "-c", ECHO, "7000"]);
    let own = Running::start(own);
    own.wait_for_stdout("ready");
    let holder = format!("is in use by process {}, which shares no node there", own.id());
    run(lab.command("alpha", SHARE, &["true"])).failure(1, &[&holder, "--state DIR or --ephemeral"]);
    drop(own);
    // A node that was killed leaves its socket.
    let serving = lab.echo("alpha", "7000");
    let node = lab.node("alpha");
    signal(Signal::KILL, node);
    serving.wait_for_stderr("has ended");
    drop(serving);
    assert!(lab.socket("alpha").exists());
    // Also by a program with a node of its own, which does not mind it.
    run(lab.command("alpha", &[], &["true"])).success();
    run(lab.command("alpha", SHARE, &["true"])).success();
    assert!(!lab.socket("alpha").exists());
    // A node in the background ends in order by a signal, too.
    let serving = lab.echo("alpha", "7000");
    let node = lab.node("alpha");
    signal(Signal::TERM, node);
    serving.wait_for_stderr("has ended");
    lab.wait_for_end(node);
    assert!(!lab.socket("alpha").exists());
}

/// A pipe can be read once: programs without a shared node must not read it for one.
#[test]
fn a_token_from_a_pipe_is_read_once() {
    let Some(lab) = Lab::with("a_token_from_a_pipe_is_read_once", &["bash"]) else { return };
    let key = peersock::overlay::Identity::from_seed(&[1; 32]).public().to_string();
    let root = format!("--root={key}@127.0.0.1:9");
    let command = lab.command("alpha", &[&root, "--root-token-file", "/dev/fd/9"], &["true"]);
    let mut shell = Command::new("bash");
    shell.args(["-c", "exec \"$@\" 9< <(echo a-token-of-a-root-of-some-length)", "bash"]);
    shell.arg(command.get_program()).args(command.get_args()).env("XDG_CACHE_HOME", lab.path("cache"));
    run(shell).success();
}

#[test]
fn what_is_no_program_gets_nothing_and_disturbs_nobody() {
    let Some(lab) = Lab::with("what_is_no_program_gets_nothing", &["python3", "setpriv"]) else { return };
    let serving = lab.echo("alpha", "7000");
    let connect = || UnixStream::connect(lab.socket("alpha")).expect("it listens");
    let mut held = Vec::new();
    for message in [&b""[..], b"\xff\xff\xff\xff", b"\x04\0\0\0oops", b"\x02\0\0\0{}", b"\0\0\0\x01x"] {
        let mut stream = connect();
        // The node may close it before everything is written.
        let _ = stream.write_all(message);
        held.push(stream);
    }
    held.extend((0..100).map(|_| connect()));
    if is_root() {
        // Another user reaches neither the socket in the directory nor, with its mode changed, the node.
        let socket = lab.socket("alpha");
        let script = format!(
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect({:?}); s.sendall(b'x'); print(s.recv(1))",
            socket.to_str().expect("a name")
        );
        let as_nobody = || {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=65533",
                "--regid=65533",
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                &script,
            ]);
            command
        };
        run(as_nobody()).failure(1, &["Permission denied"]);
        let open = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        open(lab.path("alpha"), 0o755).and_then(|()| open(socket, 0o666)).expect("its owner may");
        let refused = run(as_nobody());
        assert!(!refused.stdout.contains(&b'x'), "{:?}", refused.stdout);
        open(lab.path("alpha"), 0o700).expect("its owner may");
    }
    let mut client = lab.client("beta", ALPHA, "7000");
    echoes(&mut client, "undisturbed");
    drop((held, serving));
}

#[test]
fn a_program_in_another_network_namespace_is_refused() {
    let Some(lab) = Lab::with("a_program_in_another_network_namespace", &["python3", "unshare"]) else {
        return;
    };
    if !is_root() {
        eprintln!("SKIP a_program_in_another_network_namespace_is_refused: it needs root");
        return;
    }
    let serving = lab.echo("alpha", "7000");
    for (namespace, option) in [("network namespace", "--net"), ("PID namespace", "--pid")] {
        let inside = lab.command("alpha", &[], &["true"]);
        let mut command = Command::new("unshare");
        command.args([option, "--fork"]);
        if option == "--pid" {
            command.arg("--mount-proc");
        }
        command.arg(inside.get_program()).args(inside.get_args());
        run(command).failure(1, &[namespace, "--state DIR or --ephemeral"]);
    }
    drop(serving);
}

#[test]
fn the_node_holds_nothing_of_the_program_that_started_it() {
    let Some(lab) = Lab::with("the_node_holds_nothing_of_the_program", &["python3", "bash"]) else { return };
    // The pipe ends with the starter, although another program keeps the node.
    let starter = lab.command("alpha", SHARE, &["sh", "-c", "sleep 1; echo done >&7"]);
    let mut shell = Command::new("bash");
    shell.args(["-c", "\"$@\" 7>&1 >/dev/null | cat; echo ended", "bash"]);
    shell.arg(starter.get_program()).args(starter.get_args());
    for (name, value) in starter.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let shell = Running::start(shell);
    let begun = Instant::now();
    while !lab.socket("alpha").exists() {
        assert!(begun.elapsed() < PATIENCE, "no node");
        thread::sleep(Duration::from_millis(5));
    }
    let other = lab.echo("alpha", "7000");
    shell.wait_for_stdout("ended");
    let node = lab.node("alpha");
    assert!(PathBuf::from(format!("/proc/{node}")).exists(), "the other program keeps it");
    assert_eq!(fs::read_link(format!("/proc/{node}/cwd")).expect("its own"), PathBuf::from("/"));
    drop(other);
}
