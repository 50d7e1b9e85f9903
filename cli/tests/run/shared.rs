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

use crate::common::{PATIENCE, Running, peersock, run, signal, vanish};
use crate::lab::{ALPHA, Lab, OWN, behind, is_root};

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

impl Lab {
    /// Starts a program that shares the member's node.
    pub(crate) fn shared(&self, member: &str, program: &[impl AsRef<std::ffi::OsStr>]) -> Running {
        Running::start(self.command(member, &[], program))
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

    /// Returns the endpoints of the roots that a member's node uses.
    fn roots(&self, member: &str) -> Vec<String> {
        let mut status = peersock(&["status", "--json", "--state"]);
        status.arg(self.path(member));
        let status: serde_json::Value = serde_json::from_slice(&run(status).stdout).expect("a status");
        let roots = status["roots"].as_array().expect("a list");
        let endpoints = roots.iter().flat_map(|root| root["endpoints"].as_array().expect("a list"));
        endpoints.map(|endpoint| endpoint.as_str().expect("a text").to_owned()).collect()
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
    run(taken).failure(1, &["Address already in use"]);
    assert_eq!(lab.node("alpha"), node, "one node serves all");
    let mut status = peersock(&["status", "--state"]);
    status.arg(lab.path("alpha"));
    let named = [&first, &second, &inside].map(|program| format!("python3 (process {})", program.id()));
    let status = run(status).success();
    assert!(status.text().contains(&format!("programs: {}\n", named.join(", "))), "{}", status.text());
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
        run(lab.command("alpha", &[], &["true"])).success();
        run(lab.command("alpha", OWN, &["true"])).success();
    }
}

#[test]
fn a_node_waits_for_the_next_program_and_leaves_to_whoever_cannot_share_it() {
    let Some(lab) = Lab::with("a_node_waits_for_the_next_program", &[]) else { return };
    let waits = |options: &[&str]| {
        let mut command = lab.command("alpha", options, &["true"]);
        command.env("PEERSOCK_PERSIST", "1000");
        run(command).success();
        lab.node("alpha")
    };
    let node = waits(&[]);
    // The longest time counts, not the last.
    run(lab.command("alpha", &[], &["true"])).success();
    assert_eq!(waits(&[]), node);
    // Programs whose settings differ, or that need the directory alone, have another node at once.
    let other = waits(&["--no-birthday"]);
    assert_ne!(other, node);
    lab.wait_for_end(node);
    run(lab.command("alpha", OWN, &["true"])).success();
    lab.wait_for_end(other);
    // A node with a program stays.
    let first = waits(&[]);
    let serving = lab.shared("alpha", &["sleep", "1000"]);
    wait_for_program(&lab, "alpha", "sleep");
    run(lab.command("alpha", OWN, &["true"])).failure(1, &["is in use by"]);
    assert_eq!(lab.node("alpha"), first);
    drop(serving);
    // A signal ends its wait.
    signal(Signal::TERM, first);
    lab.wait_for_end(first);
    // And so does the time.
    run(lab.command("alpha", &["--persist", "0.2"], &["true"])).success();
    lab.wait_for_end(lab.node("alpha"));
    let mut unclear = lab.command("alpha", &[], &["true"]);
    unclear.env("PEERSOCK_PERSIST", "soon");
    run(unclear).failure(2, &["PEERSOCK_PERSIST is not understood: it is not a number of seconds"]);
}

/// So the next program finds the paths open, and no program has to look for its peers again.
#[test]
fn a_node_that_waits_keeps_the_networks_of_its_last_program_for_the_next_one() {
    let Some(lab) = Lab::with("a_node_that_waits_keeps_the_networks", &[]) else { return };
    let joined = || {
        let mut status = peersock(&["status", "--json", "--state"]);
        status.arg(lab.path("alpha"));
        let status: serde_json::Value = serde_json::from_slice(&run(status).stdout).expect("a status");
        let networks = status["networks"].as_array().expect("a list").clone();
        networks.iter().map(|one| one["id"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    let (open, other) = ("ff0001ffff000000", "ff0002ffff000000");
    let in_network = |network: &str, secret: Option<&str>, persist: &str| {
        let mut command = lab.command_in(network.as_ref(), "alpha", &["--persist", persist], &["true"]);
        secret.iter().for_each(|secret| _ = command.env("PEERSOCK_SECRET", secret));
        run(command).success();
    };
    in_network(open, None, "600");
    let node = lab.node("alpha");
    assert_eq!(joined(), [open]);
    // No program uses it any more, so another description is no conflict.
    in_network(open, Some("correct horse"), "600");
    assert_eq!(joined(), [open]);
    in_network(other, None, "600");
    assert_eq!(joined(), [other]);
    // While a program is there, the networks of others are left with them.
    let staying = lab.shared("alpha", &["sleep", "1000"]);
    wait_for_program(&lab, "alpha", "sleep");
    let own = joined();
    assert!(own.len() == 1 && own[0] != other, "{own:?}");
    in_network(open, None, "600");
    assert_eq!(joined(), own);
    assert_eq!(lab.node("alpha"), node);
    drop(staying);
    signal(Signal::TERM, node);
    lab.wait_for_end(node);
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

/// Looks up names and addresses, and says with which result: the error of getaddrinfo(3) or getnameinfo(3),
/// and `h_errno` of the older functions. Then it does so again at each line of input.
const NAMES: &str = "
import ctypes, socket, sys
libc = ctypes.CDLL(None)
libc.gethostbyname.restype = libc.gethostbyaddr.restype = ctypes.c_void_p
libc.__h_errno_location.restype = ctypes.POINTER(ctypes.c_int)
def code(call, *words):
    try: call(*words); return 'found'
    except socket.gaierror as error: return error.errno
def host(found): return 'found' if found else libc.__h_errno_location()[0]
def ask():
    for name, host_name in ('machine', socket.gethostname()), ('alpha', 'alpha'), ('localhost', 'localhost'):
        print(name, code(socket.getaddrinfo, host_name, 80), host(libc.gethostbyname(host_name.encode())))
    print('literals', *[code(socket.getaddrinfo, text, 80) for text in ('127.0.0.1', '127.1', 'fe80::1%lo')])
    own = '10.77.0.1', 80
    print('address', *[code(socket.getnameinfo, own, flags) for flags in (socket.NI_NAMEREQD, 0)], end=' ')
    print(host(libc.gethostbyaddr(socket.inet_aton(own[0]), 4, socket.AF_INET)), end=' ')
    print('.', flush=True)
ask()
for line in sys.stdin: ask()";

/// Names may be those of members, which no nameserver outside must learn, and which may be other hosts there.
#[test]
fn the_system_is_asked_for_no_name_once_the_node_has_ended() {
    let test = "the_system_is_asked_for_no_name_once_the_node_has_ended";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let mut asking = lab.shared("alpha", &["python3", "-c", NAMES]);
    let before = asking.wait_for_stdout(".\n");
    if !before.starts_with("machine found found\n") {
        eprintln!("SKIP {test}: the machine's own name is not in its hosts file");
        return;
    }
    let rest = "localhost found found\nliterals found found found\naddress";
    assert_eq!(before, format!("machine found found\nalpha found found\n{rest} found found found .\n"));
    let node = lab.node("alpha");
    signal(Signal::KILL, node);
    asking.wait_for_stderr("so python3 has no network");
    asking.send(b"\n");
    // EAI_AGAIN and TRY_AGAIN.
    let after = asking.finish().text()[before.len()..].to_owned();
    assert_eq!(after, format!("machine -3 2\nalpha -3 2\n{rest} -3 found 2 .\n"));
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
    let sends = "
import socket, sys
s = socket.create_connection((sys.argv[1], 7000))
s.sendall(bytes(1_000_000))
print('sent', flush=True)
sys.stdin.readline()";
    // A node that is kept ends at once by SIGTERM, too.
    for how in [Signal::KILL, Signal::TERM] {
        let serving = Running::start(lab.command("alpha", OWN, &["python3", "-c", quiet]));
        serving.wait_for_stdout("ready");
        let kept = lab.keep("beta");
        let mut sending = lab.shared("beta", &["python3", "-c", sends, ALPHA]);
        sending.wait_for_stdout("sent");
        vanish(Signal::STOP, serving.id());
        sending.send(b"\n");
        // The launcher waits for the peer now.
        thread::sleep(Duration::from_millis(500));
        signal(how, kept.id());
        sending.wait_for_end().failure(1, &["before everything that", "python3 has sent was delivered"]);
        signal(Signal::CONT, serving.id());
    }
}

/// Signals that the first program ignores or blocks are not the node's.
#[test]
fn a_node_takes_signals_that_its_starter_ignores() {
    let Some(lab) = Lab::with("a_node_takes_signals_that_its_starter_ignores", &["sh"]) else { return };
    let starter = lab.command("alpha", &[], &["sh", "-c", "echo ready; read line"]);
    let ignoring = behind(&["sh", "-c", "trap '' TERM INT HUP; exec \"$@\"", "sh"], &starter);
    let mut waiting = Running::start(ignoring);
    waiting.wait_for_stdout("ready");
    let node = lab.node("alpha");
    let status = fs::read_to_string(format!("/proc/{node}/status")).expect("it runs");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
    let caught = u64::from_str_radix(caught.trim(), 16).expect("a number");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        assert_ne!(caught & (1 << (signal.as_raw() - 1)), 0, "{signal:?}: {status}");
    }
    waiting.send(b"\n");
    waiting.wait_for_end().success();
    lab.wait_for_end(node);
}

/// The note is written before the program's calls end, because the program may end then.
#[test]
fn a_program_that_ends_with_its_node_is_told_why() {
    let Some(lab) = Lab::with("a_program_that_ends_with_its_node_is_told_why", &["python3"]) else { return };
    let accepts = "
import os, socket
s = socket.create_server(('', 7000))
print('ready', flush=True)
try: s.accept()
except OSError: os._exit(3)";
    for _ in 0..5 {
        let accepting = lab.shared("alpha", &["python3", "-c", accepts]);
        accepting.wait_for_stdout("ready");
        signal(Signal::KILL, lab.node("alpha"));
        accepting.wait_for_end().failure(3, &["the node that programs share has ended"]);
    }
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
    let kept = lab.keep("alpha");
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
    let own = lab.command("alpha", OWN, &["python3", "-c", ECHO, "7000"]);
    let own = Running::start(own);
    own.wait_for_stdout("ready");
    let holder = format!("is in use by process {}, which shares no node there", own.id());
    run(lab.command("alpha", &[], &["true"]))
        .failure(1, &[&holder, "end it (`kill", "--own-node", "--state DIR"]);
    drop(own);
    // A node that was killed leaves its socket.
    let serving = lab.echo("alpha", "7000");
    let node = lab.node("alpha");
    signal(Signal::KILL, node);
    serving.wait_for_stderr("has ended");
    drop(serving);
    assert!(lab.socket("alpha").exists());
    // Also by a program with its own node, which does not mind it.
    run(lab.command("alpha", OWN, &["true"])).success();
    run(lab.command("alpha", &[], &["true"])).success();
    assert!(!lab.socket("alpha").exists());
    // A node in the background that is asked to end waits for its programs.
    let mut waiting = Running::start(lab.command("alpha", &[], &["sh", "-c", "echo ready; read line"]));
    waiting.wait_for_stdout("ready");
    let node = lab.node("alpha");
    signal(Signal::TERM, node);
    thread::sleep(Duration::from_millis(300));
    waiting.send(b"\n");
    waiting.wait_for_end().success();
    lab.wait_for_end(node);
    assert!(!lab.socket("alpha").exists());
}

/// A pipe can be read once: programs without a shared node must not read it for one.
#[test]
fn a_token_from_a_pipe_is_read_once() {
    let Some(lab) = Lab::with("a_token_from_a_pipe_is_read_once", &["bash"]) else { return };
    let key = peersock::overlay::Identity::from_seed(&[1; 32]).public().to_string();
    let root = format!("--root={key}@127.0.0.1:9");
    for mode in [&[][..], OWN] {
        let options = [mode, &[&root, "--root-token-file", "/dev/fd/9", "--turn", "@/dev/fd/8"]].concat();
        let command = lab.command("alpha", &options, &["true"]);
        let mut shell = Command::new("bash");
        shell.args([
            "-c",
            "exec \"$@\" 9< <(echo a-token-of-a-root-of-some-length) 8< <(echo turn:a:b@127.0.0.1:9)",
            "bash",
        ]);
        shell.arg(command.get_program()).args(command.get_args()).env("XDG_CACHE_HOME", lab.path("cache"));
        run(shell).success();
    }
}

/// Settings of the environment count as options do, and roots last as long as their programs.
#[test]
fn settings_of_the_environment_are_compared_and_roots_end_with_their_programs() {
    let Some(lab) = Lab::with("settings_of_the_environment_are_compared", &["python3"]) else { return };
    let root = |seed: u8| {
        let key = peersock::overlay::Identity::from_seed(&[seed; 32]).public().to_string();
        format!("--root={key}@127.0.0.1:{seed}")
    };
    let waits = |options: &[&str]| {
        let running = Running::start(lab.command("alpha", options, &["sh", "-c", "echo ready; read line"]));
        running.wait_for_stdout("ready");
        running
    };
    let first = waits(&[&root(1)]);
    let mut second = waits(&[&root(1), &root(2)]);
    assert_eq!(lab.roots("alpha"), ["127.0.0.1:1", "127.0.0.1:2"]);
    let mut others = lab.command("alpha", &[], &["true"]);
    others.env("PEERSOCK_STUN", "127.0.0.1:3478");
    run(others).failure(1, &["without --stun, by `sh` (process", "asks for --stun 127.0.0.1:3478"]);
    second.send(b"\n");
    second.wait_for_end().success();
    assert_eq!(lab.roots("alpha"), ["127.0.0.1:1"]);
    let many: Vec<_> = (1..=9).map(root).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let told = run(lab.command("alpha", &many, &["true"])).success();
    assert!(told.stderr.contains("more roots than it uses"), "{}", told.stderr);
    drop(first);
}

/// A node that cannot serve says why, although it has no terminal.
#[test]
fn a_start_that_fails_is_explained_to_the_program() {
    let Some(lab) = Lab::with("a_start_that_fails_is_explained", &[]) else { return };
    let taken = std::net::UdpSocket::bind("[::]:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let refused = lab.command("alpha", &["--overlay-port", &port], &["true"]);
    run(refused).failure(1, &[&format!("UDP port {port}")]);
}

/// The launcher shows a peer's reset, and the end of the node: the program takes neither for the end of data.
#[test]
fn resets_and_the_end_of_the_node_are_no_ends_of_data() {
    let Some(lab) = Lab::with("resets_and_the_end_of_the_node", &["python3"]) else { return };
    let resets = "
import socket, struct, sys
s = socket.create_server(('', 7000))
print('ready', flush=True)
kept = []
for line in sys.stdin:
    c = s.accept()[0]
    c.sendall(b'begin')
    if line == 'reset\\n':
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        c.close()
    else: kept.append(c)
    print('accepted', flush=True)";
    let reads = "
import socket, sys
s = socket.create_connection((sys.argv[1], 7000))
print(s.recv(5), flush=True)
try: print('end', s.recv(1), flush=True)
except OSError as error: print('error', error.errno, s.getsockopt(1, 4), flush=True)";
    let mut serving = Running::start(lab.command("alpha", OWN, &["python3", "-c", resets]));
    serving.wait_for_stdout("ready");
    let kept = lab.keep("beta");
    let reader = || lab.shared("beta", &["python3", "-c", reads, ALPHA]);
    for _ in 0..5 {
        let reading = reader();
        serving.send(b"reset\n");
        // ECONNRESET, which is reported once.
        reading.wait_for_stdout("error 104 0");
    }
    // A direct system call, after which only the launcher can show a reset.
    let accepts = "
import ctypes, errno, os, socket
s = socket.create_server(('', 7001))
print('ready', flush=True)
fd = ctypes.CDLL(None).syscall(43, s.fileno(), None, None)
print('begin', os.read(fd, 5), flush=True)
try: print('end', os.read(fd, 1), flush=True)
except OSError as error: print('error', error.errno, flush=True)";
    let accepting = lab.shared("beta", &["python3", "-c", accepts]);
    accepting.wait_for_stdout("ready");
    let leaves = "
import socket, struct
s = socket.create_connection(('10.77.0.2', 7001))
s.sendall(b'begin')
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))";
    run(lab.command("gamma", &[], &["python3", "-c", leaves])).success();
    accepting.wait_for_stdout("error 104");
    let reading = reader();
    serving.send(b"keep\n");
    reading.wait_for_stdout("b'begin'");
    signal(Signal::TERM, kept.id());
    // ECONNRESET or ENETDOWN.
    reading.wait_for_stdout("error 10");
}

/// A service manager ends all processes of a unit at once. The program still delivers.
#[test]
fn a_signal_to_launcher_program_and_node_together_loses_nothing() {
    let Some(lab) = Lab::with("a_signal_to_launcher_program_and_node_together", &["python3"]) else { return };
    let takes = "
import socket, sys
s = socket.create_server(('', 7000))
print('ready', flush=True)
c = s.accept()[0]
got = b''
while data := c.recv(65536): got += data
print(len(got), got[-3:], flush=True)";
    let sends = "
import os, signal, socket, sys, time
s = socket.create_connection((sys.argv[1], 7000))
def last(*_):
    time.sleep(0.5)
    s.sendall(bytes(3_000_000) + b'end')
    sys.exit(0)
signal.signal(signal.SIGTERM, last)
print(os.getpid(), flush=True)
while True: signal.pause()";
    let taking = Running::start(lab.command("alpha", OWN, &["python3", "-c", takes]));
    taking.wait_for_stdout("ready");
    let sending = lab.shared("beta", &["python3", "-c", sends, ALPHA]);
    let program = sending.wait_for_stdout("\n").trim().parse().expect("a process");
    for process in [lab.node("beta"), program, sending.id()] {
        signal(Signal::TERM, process);
    }
    taking.wait_for_stdout("3000003 b'end'");
    sending.wait_for_end().success();
}

/// The node is killed while both directions of a connection are full.
#[test]
fn full_buffers_end_with_an_error_when_the_node_is_killed() {
    let Some(lab) = Lab::with("full_buffers_end_with_an_error", &["python3"]) else { return };
    let fills = "
import socket, sys, threading
if len(sys.argv) == 1:
    s = socket.create_server(('', 7000))
    print('ready', flush=True)
    c = s.accept()[0]
else: c = socket.create_connection((sys.argv[1], 7000))
sent = 0
try:
    while True:
        c.settimeout(1)
        try: sent += c.send(bytes([sent // 65536 % 256]) * 65536)
        except TimeoutError: break
    print('full', flush=True)
    c.settimeout(None)
    c.sendall(bytes(256 << 20))
except OSError as error: print('write', error.errno, flush=True)
got = 0
try:
    while data := c.recv(65536): got += len(data)
    print('end', flush=True)
except OSError as error: print('read', error.errno, flush=True)";
    let serving = lab.shared("alpha", &["python3", "-c", fills]);
    serving.wait_for_stdout("ready");
    let filling = lab.shared("beta", &["python3", "-c", fills, ALPHA]);
    serving.wait_for_stdout("full");
    filling.wait_for_stdout("full");
    signal(Signal::KILL, lab.node("beta"));
    filling.wait_for_stdout("write ");
    filling.wait_for_stderr("has ended, so python3 has no network");
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
        run(command).failure(1, &[namespace, "(--state DIR or PEERSOCK_STATE)"]);
    }
    drop(serving);
}

/// The first process of a container adopts orphans, and so would wait for the node.
#[test]
fn the_first_process_of_a_namespace_has_a_node_of_its_own() {
    let Some(lab) = Lab::with("the_first_process_of_a_namespace", &["unshare"]) else { return };
    if !is_root() {
        eprintln!("SKIP the_first_process_of_a_namespace_has_a_node_of_its_own: it needs root");
        return;
    }
    let inside = lab.command("alpha", &[], &["true"]);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(inside.get_program()).args(inside.get_args());
    run(command).success();
}

#[test]
fn the_node_holds_nothing_of_the_program_that_started_it() {
    let Some(lab) = Lab::with("the_node_holds_nothing_of_the_program", &["python3", "bash"]) else { return };
    // The pipe ends with the starter, although another program keeps the node.
    let starter = lab.command("alpha", &[], &["sh", "-c", "sleep 1; echo done >&7"]);
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
