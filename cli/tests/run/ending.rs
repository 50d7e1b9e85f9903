//! Ends of programs, peers and launchers, and the notifications of others.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{Running, run, signal, vanish};
use crate::lab::{Lab, OWN, behind};

/// Returns the command with another soft limit of descriptors.
fn limited(command: &Command, soft: u32) -> Command {
    behind(&["prlimit", &format!("--nofile={soft}:")], command)
}

#[test]
fn the_launcher_has_descriptors_for_as_many_connections_as_the_program() {
    let test = "the_launcher_has_descriptors_for_as_many_connections_as_the_program";
    let Some(lab) = Lab::with(test, &["python3", "prlimit"]) else { return };
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    if hard.is_some_and(|hard| hard < 10_000) {
        eprintln!("SKIP {test}: the hard limit of descriptors is too low");
        return;
    }
    let common = "import resource, selectors, socket, sys
print('limit', resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
";
    let server = lab.write(
        "server.py",
        &format!(
            "{common}
listener = socket.create_server(('', 7000), backlog=4096)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            selector.register(listener.accept()[0], selectors.EVENT_READ)
        else:
            data = key.fileobj.recv(100)
            if data: key.fileobj.sendall(data)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()
"
        ),
    );
    let client = lab.write(
        "client.py",
        &format!(
            "{common}
all = [socket.create_connection(('10.77.0.1', 7000)) for _ in range(2000)]
for s in all: s.sendall(b'x')
print(sum(s.recv(1) == b'x' for s in all))
"
        ),
    );
    let _serving = Running::start(limited(&lab.command("alpha", &[], &["python3", &server]), 1024));
    lab.bash("gamma", "up 7000");
    let got = run(limited(&lab.command("beta", &[], &["python3", &client]), 64)).success();
    assert_eq!(got.text(), "limit 64\n2000\n");
}

/// Time that a launcher waits for a peer when asked to end, and allowance for a loaded machine and the
/// current duration of ending. Without a signal it waits for 10 s, from which the sum differs.
const LINGER: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(4);

/// Modes of interception: by the library, and by the filter.
pub(crate) const MODES: [&str; 2] = ["preload", "seccomp"];

/// Starts a server of `beta` that accepts and reads nothing, and a program of `alpha` that connects to it.
/// Both use this mode of interception.
fn start_pair(lab: &Lab, mode: &str, client: &str) -> (Running, Running) {
    let server = "import socket, time
s = socket.create_server(('', 7000))
print('ready', flush=True)
c, _ = s.accept()
time.sleep(1000)";
    let start = |member, own: &[&str], program| {
        let options = [&["--mode", mode], own].concat();
        Running::start(lab.command(member, &options, &["python3", "-c", program]))
    };
    let serving = start("beta", OWN, server);
    serving.wait_for_stdout("ready");
    let client = format!(
        "import socket, sys, time
for _ in range(600):
    try:
        s = socket.create_connection(('10.77.0.2', 7000))
        break
    except OSError: time.sleep(0.1)
print('connected', flush=True)
sys.stdin.readline()
{client}"
    );
    let dialing = start("alpha", &[], &client);
    dialing.wait_for_stdout("connected");
    (serving, dialing)
}

/// Returns the current time that a program and its launcher take to end, with a peer that answers.
fn usual(lab: &Lab, mode: &str) -> Duration {
    let (_serving, dialing) = start_pair(lab, mode, "");
    let began = Instant::now();
    signal(Signal::TERM, dialing.id());
    // Keeps the input open, because at its end the program would end by itself.
    dialing.wait_for_end().failure(143, &[]);
    began.elapsed()
}

#[test]
fn an_idle_connection_to_a_peer_that_vanished_delays_nothing() {
    let Some(lab) = Lab::with("an_idle_connection_to_a_peer_that_vanished_delays_nothing", &["python3"])
    else {
        return;
    };
    for mode in MODES {
        let soon = usual(&lab, mode) + LINGER + SLACK;
        let (serving, dialing) = start_pair(&lab, mode, "time.sleep(1000)");
        vanish(Signal::STOP, serving.id());
        let began = Instant::now();
        signal(Signal::TERM, dialing.id());
        dialing.finish().failure(143, &[]);
        assert!(began.elapsed() < soon, "{mode}: {:?}", began.elapsed());
        signal(Signal::CONT, serving.id());
    }
}

#[test]
fn a_second_sigterm_waits_for_no_peer_that_vanished() {
    let Some(lab) = Lab::with("a_second_sigterm_waits_for_no_peer_that_vanished", &["python3"]) else {
        return;
    };
    let sends = ("s.sendall(bytes(5000))", &["5000 bytes were not delivered"][..]);
    for (mode, (script, said)) in MODES.iter().flat_map(|mode| [(mode, ("", &[][..])), (mode, sends)]) {
        // A machine that is busy elsewhere may be slow once, and a launcher that waits never ends sooner.
        let is_prompt = (0..5).any(|_| after_a_second_sigterm(&lab, mode, script, said) < LINGER / 2);
        assert!(is_prompt, "{mode}");
    }
}

/// A node that is late, as on a busy machine, is no node that has ended.
#[test]
fn a_node_that_answers_late_still_says_what_is_lost() {
    let Some(lab) = Lab::with("a_node_that_answers_late", &["python3"]) else { return };
    let script = "s.sendall(bytes(5000))
import os; print(os.getpid(), end='.', flush=True)
time.sleep(1000)";
    let (serving, mut dialing) = start_pair(&lab, MODES[0], script);
    vanish(Signal::STOP, serving.id());
    dialing.send(b"\n");
    let program = dialing.wait_for_stdout(".");
    signal(Signal::TERM, dialing.id());
    wait_until_gone(program.trim_start_matches("connected\n").trim_end_matches('.'));
    let node = lab.node("alpha");
    vanish(Signal::STOP, node);
    signal(Signal::TERM, dialing.id());
    thread::sleep(Duration::from_millis(500));
    signal(Signal::CONT, node);
    dialing.finish().failure(143, &["5000 bytes were not delivered"]);
    signal(Signal::CONT, serving.id());
}

/// Returns the time that a launcher waiting for a peer takes to end after a second signal.
fn after_a_second_sigterm(lab: &Lab, mode: &str, script: &str, said: &[&str]) -> Duration {
    let script = format!("{script}\nimport os; print(os.getpid(), end='.', flush=True)\ntime.sleep(1000)");
    let (serving, mut dialing) = start_pair(lab, mode, &script);
    vanish(Signal::STOP, serving.id());
    dialing.send(b"\n");
    let program = dialing.wait_for_stdout(".");
    signal(Signal::TERM, dialing.id());
    wait_until_gone(program.trim_start_matches("connected\n").trim_end_matches('.'));
    // The launcher now waits for the peer.
    thread::sleep(LINGER / 10);
    let began = Instant::now();
    signal(Signal::TERM, dialing.id());
    dialing.finish().failure(143, said);
    signal(Signal::CONT, serving.id());
    began.elapsed()
}

/// A node that is stopped answers nothing. Its launcher would wait for 30 seconds.
#[test]
fn a_second_sigterm_waits_for_no_node_that_is_stopped() {
    let Some(lab) = Lab::with("a_second_sigterm_waits_for_no_node_that_is_stopped", &["python3"]) else {
        return;
    };
    for mode in MODES {
        let (_serving, dialing) = start_pair(&lab, mode, "");
        let node = lab.node("alpha");
        vanish(Signal::STOP, node);
        let program = descendant(dialing.id(), "python3");
        signal(Signal::TERM, dialing.id());
        wait_until_gone(&program);
        let began = Instant::now();
        signal(Signal::TERM, dialing.id());
        dialing.wait_for_end().failure(143, &["does not answer, before everything that"]);
        assert!(began.elapsed() < Duration::from_secs(15), "{mode}: {:?}", began.elapsed());
        signal(Signal::CONT, node);
        lab.wait_for_end(node);
    }
}

/// Returns the child of a process that runs this program.
fn descendant(process: u32, program: &str) -> String {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children: Vec<_> =
        lists.flat_map(|list| list.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    let runs = |child: &&String| {
        fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim() == program)
    };
    children.iter().find(runs).expect("its program").clone()
}

#[test]
fn what_a_peer_that_vanished_does_not_get_is_said() {
    let Some(lab) = Lab::with("what_a_peer_that_vanished_does_not_get_is_said", &["python3"]) else { return };
    let ends = [("s.sendall(bytes(5000))", 1), ("s.sendall(bytes(5000)); time.sleep(1000)", 143)];
    for (mode, (script, status)) in MODES.iter().flat_map(|mode| ends.map(|end| (mode, end))) {
        let soon = usual(&lab, mode) + LINGER + SLACK;
        let (serving, mut dialing) = start_pair(&lab, mode, script);
        vanish(Signal::STOP, serving.id());
        dialing.send(b"\n");
        if status == 143 {
            thread::sleep(Duration::from_millis(500));
        }
        let began = Instant::now();
        if status == 143 {
            signal(Signal::TERM, dialing.id());
        }
        let finished = dialing.finish();
        finished.failure(status, &["5000 bytes were not delivered", "python3"]);
        // In the first case no signal asked it to end, so it waits 10 s.
        let limit = if status == 143 { soon } else { Duration::from_secs(15) };
        assert!(began.elapsed() < limit, "{mode}: {:?}", began.elapsed());
        signal(Signal::CONT, serving.id());
    }
}

#[test]
fn a_slow_peer_gets_everything_after_the_program_has_ended() {
    let Some(lab) = Lab::with("a_slow_peer_gets_everything_after_the_program_has_ended", &["python3"]) else {
        return;
    };
    let server = "import socket, time
s = socket.create_server(('', 7000))
c, _ = s.accept()
count = 0
while True:
    got = len(c.recv(200_000, socket.MSG_WAITALL))
    count += got
    if not got: break
    time.sleep(0.02)
print(count)";
    let serving = lab.start("beta", &["python3", "-c", server]);
    let client = "import socket, time
for _ in range(600):
    try:
        s = socket.create_connection(('10.77.0.2', 7000))
        break
    except OSError: time.sleep(0.1)
s.sendall(bytes(40_000_000))";
    run(lab.command("alpha", &[], &["python3", "-c", client])).success();
    assert_eq!(serving.finish().success().text(), "40000000\n");
}

#[test]
fn a_program_whose_launcher_is_killed_gets_errors_at_once() {
    let Some(lab) = Lab::with("a_program_whose_launcher_is_killed_gets_errors_at_once", &["python3"]) else {
        return;
    };
    let result = lab.path("result");
    let client = format!(
        "import threading
results = []
def attempt(name, call):
    try:
        call()
        results.append(f'{{name}}: nothing')
    except OSError as error:
        results.append(f'{{name}}: {{errno.errorcode[error.errno]}}')
import errno, os
listener = socket.create_server(('', 7001))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('10.77.0.1', 7002))
connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
connected.connect(('10.77.0.2', 7003))
accepting = socket.create_server(('', 7004))
# Nothing was ever written on these.
def pair():
    connected = socket.create_connection(('10.77.0.1', 7004))
    return connected, accepting.accept()[0]
pairs = [pair() for _ in range(12)]
s.sendall(b'x')
def streams(of, to):
    def fd(number): return pairs[number][of].fileno()
    def sock(number): return pairs[number][of]
    reads = [(to + 'read', lambda: os.read(fd(0), 1)), (to + 'readv', lambda: os.readv(fd(1), [bytearray(1)])),
        (to + 'recv', lambda: sock(2).recv(1)), (to + 'recvfrom', lambda: sock(3).recvfrom(1)),
        (to + 'recvmsg', lambda: sock(4).recvmsg(1)), (to + 'recv_into', lambda: sock(5).recv_into(bytearray(1)))]
    file = os.open('/proc/self/exe', os.O_RDONLY)
    writes = [(to + 'write', lambda: os.write(fd(6), b'x')), (to + 'writev', lambda: os.writev(fd(7), [b'x'])),
        (to + 'send', lambda: sock(8).send(b'x')), (to + 'sendmsg', lambda: sock(9).sendmsg([b'x'])),
        (to + 'sendfile', lambda: os.sendfile(fd(10), file, 0, 1)),
        (to + 'shutdown', lambda: sock(11).shutdown(socket.SHUT_WR))]
    return reads, writes
connecting, accepted = streams(0, 'connected '), streams(1, 'accepted ')
calls = [('written recv', lambda: s.recv(1)), ('accept', listener.accept),
    ('datagram recvfrom', lambda: datagrams.recvfrom(1)), ('datagram recv', lambda: connected.recv(1))]
threads = [threading.Thread(target=attempt, args=call) for call in calls + connecting[0] + accepted[0]]
for thread in threads: thread.start()
print('waiting', flush=True)
for thread in threads: thread.join()
# The kernel closes what the launcher had one by one.
import select
for sock in [sock for pair in pairs for sock in pair]:
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(60000), sock
for call in connecting[1] + accepted[1]: attempt(*call)
attempt('connect', lambda: socket.create_connection(('10.77.0.2', 7000)))
with open({path:?}, 'w') as file: file.write('\\n'.join(results))
os.rename({path:?}, {path:?} + '.whole')",
        path = result.to_str().unwrap()
    );
    let (_serving, mut dialing) = start_pair(&lab, "preload", &client);
    dialing.send(b"\n");
    dialing.wait_for_stdout("waiting");
    thread::sleep(Duration::from_millis(300));
    signal(Signal::KILL, dialing.id());
    let whole = result.with_extension("whole");
    let got = wait_for_file(&whole);
    let others: Vec<&str> = got.lines().filter(|line| !line.ends_with(": ENETDOWN")).collect();
    assert_eq!((got.lines().count(), others), (29, vec![]), "{got}");
}

/// An event loop continues after errors: it gets one event per socket, and then none.
#[test]
fn an_event_loop_whose_launcher_is_killed_is_told_once_of_each_socket() {
    let test = "an_event_loop_whose_launcher_is_killed_is_told_once_of_each_socket";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let result = lab.path("result");
    let client = format!(
        "import errno, os, select
listener = socket.create_server(('', 7001))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('10.77.0.1', 7002))
calls = {{listener.fileno(): listener.accept, datagrams.fileno(): lambda: datagrams.recvfrom(1)}}
epoll, poll = select.epoll(), select.poll()
for sock in (listener, datagrams):
    sock.setblocking(False)
    epoll.register(sock, select.EPOLLIN)
    poll.register(sock, select.POLLIN)
results = []
def attempt(call):
    try:
        call()
        results.append('nothing')
    except OSError as error:
        results.append(errno.errorcode[error.errno])
print('waiting', flush=True)
while len(results) < 50:
    events = epoll.poll(60 if len(results) < 2 else 1)
    if not events: break
    for number, _ in events: attempt(calls[number])
results.append(str(poll.poll(0)))
for call in calls.values(): attempt(call)
with open({path:?}, 'w') as file: file.write('\\n'.join(results))
os.rename({path:?}, {path:?} + '.whole')",
        path = result.to_str().unwrap()
    );
    let (_serving, mut dialing) = start_pair(&lab, "preload", &client);
    dialing.send(b"\n");
    dialing.wait_for_stdout("waiting");
    signal(Signal::KILL, dialing.id());
    let got = wait_for_file(&result.with_extension("whole"));
    assert_eq!(got, "ENETDOWN\nENETDOWN\n[]\nEAGAIN\nEAGAIN");
}

pub(crate) fn wait_for_file(path: &Path) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return text;
        }
        assert!(Instant::now() < deadline, "the program waits");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_peers_of_a_program_that_is_killed_see_it_at_once() {
    let Some(lab) = Lab::with("the_peers_of_a_program_that_is_killed_see_it_at_once", &["python3"]) else {
        return;
    };
    // One connection has its data read, the other does not.
    let server = "import os, select, signal, socket
s = socket.create_server(('', 7000))
one, other = s.accept()[0], s.accept()[0]
one.recv(1)
select.select([other], [], [])
os.kill(os.getpid(), signal.SIGKILL)";
    let serving = lab.start("beta", &["python3", "-c", server]);
    let client = "import socket, time
for _ in range(600):
    try:
        one = socket.create_connection(('10.77.0.2', 7000))
        break
    except OSError: time.sleep(0.1)
other = socket.create_connection(('10.77.0.2', 7000))
one.sendall(b'x')
other.sendall(b'x')
print(one.recv(1))
try: print(other.recv(1))
except ConnectionResetError: print('reset')";
    let got = run(lab.command("alpha", &[], &["python3", "-c", client])).success();
    assert_eq!(got.text(), "b''\nreset\n");
    serving.finish().failure(137, &[]);
}

#[test]
fn a_sender_is_told_what_the_kernel_tells() {
    let Some(lab) = Lab::with("a_sender_is_told_what_the_kernel_tells", &["python3"]) else { return };
    let script = format!("{}/tests/run/peers.py", env!("CARGO_MANIFEST_DIR"));
    let serving = lab.start("alpha", &["python3", &script, "serve", "0.0.0.0", "7100"]);
    serving.wait_for_stdout("ready");
    lab.bash("gamma", "up 7100");
    let got = run(lab.command("beta", &[], &["python3", &script, "send", "10.77.0.1", "7100"])).success();
    assert_eq!(got.text(), "done\n");
}

/// A background process of a shell (`&`) ignores Ctrl-C, and the shell may end before it.
#[test]
fn ctrl_c_ends_what_a_program_has_left_behind() {
    let Some(lab) = Lab::with("ctrl_c_ends_what_a_program_has_left_behind", &["setpriv"]) else { return };
    let running = lab.start("alpha", &["sh", "-c", "sleep 1000 & echo $$; exit 3"]);
    let shell = running.wait_for_stdout("\n");
    wait_until_gone(shell.trim());
    running.interrupt().failure(3, &[]);
}

/// Processes that ignore signals are left running on the second one, without the network.
#[test]
fn a_second_ctrl_c_leaves_behind_what_does_not_end() {
    let Some(lab) = Lab::with("a_second_ctrl_c_leaves_behind_what_does_not_end", &["setpriv"]) else {
        return;
    };
    let running = lab.start("alpha", &["sh", "-c", "trap '' INT TERM; sleep 1000 & echo $$ $!; exit 3"]);
    let ids = running.wait_for_stdout("\n");
    let (shell, left) = ids.trim().split_once(' ').expect("two numbers");
    wait_until_gone(shell);
    signal(Signal::INT, running.id());
    running.wait_for_stderr(&format!("sleep ({left})"));
    signal(Signal::INT, running.id());
    running.wait_for_stderr("without the network");
    // The process would keep its standard output open, and the test reading.
    signal(Signal::KILL, left.parse().expect("a number"));
    running.finish().failure(3, &["stop them"]);
}

/// Waits until the launcher has seen the end of a process that it has started.
fn wait_until_gone(process: &str) {
    let entry = Path::new("/proc").join(process);
    while entry.exists() {
        thread::sleep(Duration::from_millis(5));
    }
}
