//! State of a socket before its network is known: a port, and options. Also ports outside a network's range.

use std::path::Path;
use std::time::Duration;

use crate::common::{Running, run};
use crate::lab::{ALPHA, Lab, behind};

/// A server may announce its port before it listens there.
#[test]
fn whoever_is_told_a_port_listens_there() {
    let test = "whoever_is_told_a_port_listens_there";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let script = lab.write(
        "many.py",
        "import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
open_ones = []
for n in range(900):
    family, any = [(socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::')][n % 2]
    s = socket.socket(family)
    s.bind((any, 0))
    told = s.getsockname()[1]
    s.listen(1)
    assert s.getsockname()[1] == told, (n, told, s.getsockname())
    open_ones.append(s)
print(len({s.getsockname()[1] for s in open_ones}))
",
    );
    assert_eq!(run(lab.command("beta", &[], &["python3", &script])).success().text(), "900\n");
}

/// Clients that were told a datagram server's port reach it, from both networks.
#[test]
fn a_datagram_server_at_any_port_is_reached() {
    let test = "a_datagram_server_at_any_port_is_reached";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let script = lab.write(
        "server.py",
        "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 0))
print('port', s.getsockname()[1], flush=True)
for _ in range(2):
    text, sender = s.recvfrom(100)
    s.sendto(text.upper(), sender)
",
    );
    let server = lab.start("alpha", &["python3", &script]);
    let said = server.wait_for_stdout("\n");
    let port = said.trim().strip_prefix("port ").unwrap();
    for address in [ALPHA, "127.0.0.1"] {
        let client = format!(
            "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
s.sendto(b'hello', ('{address}', {port}))
print(s.recv(100).decode())"
        );
        assert_eq!(run(lab.command("beta", &[], &["python3", "-c", &client])).success().text(), "HELLO\n");
    }
    server.finish().success();
}

/// Clients also bind this way, and then reach any address.
#[test]
fn a_socket_that_was_told_its_port_may_still_connect_to_either_network() {
    let test = "a_socket_that_was_told_its_port_may_still_connect_to_either_network";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let script = lab.write(
        "client.py",
        "import socket
own = socket.create_server(('127.0.0.1', 0))
for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
    for address in own.getsockname(), ('10.77.0.1', 7000):
        s = socket.socket(socket.AF_INET, kind)
        s.bind(('0.0.0.0', 0))
        port = s.getsockname()[1]
        s.connect(address)
        assert s.getsockname()[1] == port, (kind, address)
        assert s.getpeername() == address
print('all well')
",
    );
    let _server = lab.start(
        "alpha",
        &["python3", "-c", "import socket\ns = socket.create_server(('', 7000))\nwhile True: s.accept()"],
    );
    lab.bash("beta", "up 7000");
    assert_eq!(run(lab.command("beta", &[], &["python3", &script])).success().text(), "all well\n");
}

/// Options set before a socket connects or listens are kept.
#[test]
fn options_that_were_set_before_are_kept() {
    let test = "options_that_were_set_before_are_kept";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let script = lab.write(
        "options.py",
        "from socket import *
both = [(SOL_SOCKET, SO_RCVBUF, 50000), (SOL_SOCKET, SO_SNDBUF, 60000), (SOL_SOCKET, SO_PRIORITY, 3),
    (SOL_SOCKET, SO_MARK, 7), (SOL_SOCKET, SO_RCVLOWAT, 9), (SOL_SOCKET, SO_DONTROUTE, 1),
    (IPPROTO_IP, IP_TTL, 33), (IPPROTO_IP, IP_TOS, 16), (IPPROTO_IP, 15, 1)]
stream = both + [(SOL_SOCKET, SO_OOBINLINE, 1), (SOL_SOCKET, SO_KEEPALIVE, 1), (IPPROTO_TCP, TCP_MAXSEG, 1000),
    (IPPROTO_TCP, TCP_LINGER2, 5), (IPPROTO_TCP, TCP_SYNCNT, 3), (IPPROTO_TCP, TCP_WINDOW_CLAMP, 70000),
    (IPPROTO_TCP, TCP_KEEPIDLE, 77), (IPPROTO_TCP, TCP_NODELAY, 1), (IPPROTO_TCP, TCP_USER_TIMEOUT, 5000)]
datagram = both + [(IPPROTO_IP, IP_MULTICAST_TTL, 5), (IPPROTO_IP, IP_RECVTOS, 1)]
for kind, options in (SOCK_STREAM, stream), (SOCK_DGRAM, datagram):
    for listens in (False, True)[:1 + (kind == SOCK_STREAM)]:
        s = socket(AF_INET, kind)
        taken = []
        for level, name, value in options:
            try:
                s.setsockopt(level, name, value)
                taken.append((level, name))
            except PermissionError:
                pass
        # Linux derives one from another.
        before = [(level, name, s.getsockopt(level, name)) for level, name in taken]
        if kind == SOCK_STREAM:
            s.setsockopt(IPPROTO_TCP, TCP_CONGESTION, b'reno')
        if listens:
            s.listen()
        else:
            s.connect(('10.77.0.1', 7000))
        for level, name, value in before:
            after = s.getsockopt(level, name)
            assert after == value, (kind, listens, level, name, value, after)
        if kind == SOCK_STREAM:
            assert s.getsockopt(IPPROTO_TCP, TCP_CONGESTION, 16).rstrip(b'\\0') == b'reno'
print('all well')
",
    );
    let server = "import socket\ns = socket.create_server(('', 7000))\nwhile True: s.accept()";
    let _server = lab.start("alpha", &["python3", "-c", server]);
    lab.bash("beta", "up 7000");
    assert_eq!(run(lab.command("beta", &[], &["python3", &script])).success().text(), "all well\n");
}

/// The kernel has no such rule, so a message explains EACCES. A UDP socket may have any port, because a
/// client may; a message says that a server there cannot be reached.
#[test]
fn ports_that_the_network_does_not_allow_are_refused_and_named() {
    let test = "ports_that_the_network_does_not_allow_are_refused_and_named";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let random = u16::from_str_radix(&lab.ad_hoc()[2..6], 16).unwrap();
    let (first, last) = (5000, 5100 + random % 1000);
    let network = format!("ff{first:04x}{last:04x}000000");
    let script = "import socket, errno
def attempt(kind, host, port):
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family, kind) as s:
        try:
            s.bind((host, port))
            if kind == socket.SOCK_STREAM: s.listen()
            print(port, s.getsockname()[1] == port or first <= s.getsockname()[1] <= last)
        except OSError as error: print(port, errno.errorcode[error.errno])
for port in 80, 80, first + 1, 0:
    for host in '', '::': attempt(socket.SOCK_STREAM, host, port)
for port in 90, 90, first + 2:
    for host in '', '::': attempt(socket.SOCK_DGRAM, host, port)
# A client: it asks nobody for its port.
socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).bind(('::', 0))
";
    let script = script.replace("first", &first.to_string()).replace("last", &last.to_string());
    let wanted = format!(
        "{}{}{}{}{}",
        "80 EACCES\n".repeat(4),
        "5001 True\n".repeat(2),
        "0 True\n".repeat(2),
        "90 True\n".repeat(4),
        "5002 True\n".repeat(2)
    );
    for mode in ["preload", "seccomp"] {
        let program = ["python3", "-c", &script];
        let command = lab.command_in(Path::new(&network), "alpha", &["--mode", mode], &program);
        let got = run(command).success();
        assert_eq!(got.text(), wanted, "{mode}");
        let said: Vec<_> = got.stderr.lines().collect();
        let refusal = |port| {
            format!("peersock: port {port} is not allowed: network {network} allows ports {first} to {last}")
        };
        assert_eq!(said, [refusal(80), refusal(90)], "{mode}");
    }
}

/// Opens a socket for each query and returns its port, in both modes. Also runs where the kernel reports no
/// closed sockets, because the user has no inotify(7) instance left.
#[test]
fn closed_sockets_give_their_ports_back() {
    let test = "closed_sockets_give_their_ports_back";
    let Some(lab) = Lab::with(test, &["python3", "unshare"]) else { return };
    let script = "import errno, os, socket
own = '10.77.0.2'
for n in range(300):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        query.sendto(b'query', (own, 9))
kinds = [(socket.SOCK_DGRAM, False), (socket.SOCK_STREAM, False), (socket.SOCK_STREAM, True)]
def use(kind, listens, port):
    s = socket.socket(socket.AF_INET, kind)
    s.bind((own, port))
    if listens:
        s.listen()
    return s
for kind, listens in kinds:
    s = use(kind, listens, 0)
    port = s.getsockname()[1]
    for n in range(50):
        s.close()
        s = use(kind, listens, port)
    # A copy, and another process, keep it.
    copy = os.dup(s.fileno())
    s.close()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    for keeper in ('copy', 'child'):
        try:
            use(kind, listens, port)
        except OSError as error:
            assert error.errno == errno.EADDRINUSE, error
        else:
            raise SystemExit(f'{kind} {listens}: the {keeper} has lost its port')
        if keeper == 'copy':
            os.close(copy)
    os.kill(child, 9)
    os.waitpid(child, 0)
    use(kind, listens, port).close()
print('all')
";
    for mode in [&[][..], &["--mode", "seccomp"]] {
        assert_eq!(run(lab.command("beta", mode, &["python3", "-c", script])).success().text(), "all\n");
    }
    let inner = lab.command("beta", &[], &["python3", "-c", script]);
    let without = "echo 0 >/proc/sys/user/max_inotify_instances || exit 77; exec \"$@\"";
    let finished = run(behind(&["unshare", "--user", "--map-root-user", "sh", "-c", without, "sh"], &inner));
    if finished.status.code() == Some(77) || finished.stderr.contains("unshare:") {
        eprintln!("SKIP {test}: there are no user namespaces");
        return;
    }
    assert_eq!(finished.success().text(), "all\n");
}

/// There are more queries than ports that the system could give, so each port is used again.
#[track_caller]
fn a_new_udp_socket_for_each_query(test: &str, mode: &str) {
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let script = "import os, socket
def resident(process):
    status = open(f'/proc/{process}/status').read()
    return int(status.split('VmRSS:')[1].split()[0]) // 1024
# The node is in the process that has started the program.
processes = os.getpid(), os.getppid()
for n in range(30_000):
    if n == 2_000:
        before = [resident(process) for process in processes]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        query.sendto(b'query', ('10.77.0.2', 9))
grown = [resident(process) - was for process, was in zip(processes, before)]
print('all' if max(grown) < 16 else grown)
";
    let command = lab.command("beta", &["--mode", mode], &["python3", "-c", script]);
    assert_eq!(run(command).success().text(), "all\n");
}

#[test]
fn many_queries_with_a_new_socket_each_take_no_port_and_no_memory() {
    a_new_udp_socket_for_each_query("many_queries_with_a_new_socket_each", "preload");
}

#[test]
fn many_queries_with_a_new_socket_each_take_no_port_and_no_memory_by_seccomp() {
    a_new_udp_socket_for_each_query("many_queries_with_a_new_socket_each_by_seccomp", "seccomp");
}

/// Shorter than the runner's limit, so that the failed wait is reported.
const MANY_SOCKETS_TIMEOUT: Duration = Duration::from_secs(14 * 60);

/// Opens and closes sockets of five kinds, 200,000 each. Neither the program nor its node grows. A refused
/// attempt takes some milliseconds without the library, so there are fewer.
#[track_caller]
fn many_sockets_of_each_kind(test: &str, mode: &str) {
    let script = "import os, socket, sys
own = 'fd77::2'
stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
def use(kind):
    with socket.socket(socket.AF_INET6, stream if kind in ('listening', 'refused') else datagram) as s:
        match kind:
            case 'bound': s.bind((own, 0))
            case 'any': s.bind(('::', 0)); s.getsockname()
            case 'listening': s.bind((own, 0)); s.listen(3)
            case 'query': s.sendto(b'query', (own, 9))
            case 'refused': assert s.connect_ex((own, 9))
def resident(process):
    status = open(f'/proc/{process}/status').read()
    return int(status.split('VmRSS:')[1].split()[0]) // 1024
processes = os.getpid(), os.getppid()
for n in range(int(sys.argv[2])):
    if n == 5_000:
        before = [resident(process) for process in processes]
    use(sys.argv[1])
grown = [resident(process) - was for process, was in zip(processes, before)]
print('all' if max(grown) < 16 else grown)
";
    std::thread::scope(|scope| {
        for kind in ["bound", "any", "listening", "query", "refused"] {
            scope.spawn(move || {
                let Some(lab) = Lab::with(test, &["python3"]) else { return };
                let count = if (kind, mode) == ("refused", "seccomp") { "50000" } else { "200000" };
                let command = lab.command("beta", &["--mode", mode], &["python3", "-c", script, kind, count]);
                let finished = Running::start(command).finish_within(MANY_SOCKETS_TIMEOUT);
                assert_eq!(finished.success().text(), "all\n", "{kind}");
            });
        }
    });
}

#[test]
#[ignore = "cargo xtask test --only slow: a million sockets take some minutes"]
fn many_sockets_of_each_kind_take_no_memory() {
    many_sockets_of_each_kind("many_sockets_of_each_kind_take_no_memory", "preload");
}

#[test]
#[ignore = "cargo xtask test --only slow: a million sockets take many minutes"]
fn many_sockets_of_each_kind_take_no_memory_by_seccomp() {
    many_sockets_of_each_kind("many_sockets_of_each_kind_take_no_memory_by_seccomp", "seccomp");
}
