//! Programs in restricted environments: another network namespace, no IPv6, no /proc, a sandbox.

use crate::common::run;
use crate::lab::{Lab, behind, is_root};

/// Creates a lab for a test that makes namespaces; returns `None`, after printing why, if it cannot.
fn lab(test: &str, programs: &[&str]) -> Option<Lab> {
    if !is_root() {
        eprintln!("SKIP {test}: only root can make namespaces");
        return None;
    }
    Lab::with(test, &[&["unshare", "ip", "sysctl", "umount"], programs].concat())
}

/// vsftpd does this: the process that handles a connection can reach nothing else.
#[test]
fn a_child_in_another_network_namespace_keeps_the_sockets_that_it_was_given() {
    let test = "a_child_in_another_network_namespace_keeps_the_sockets_that_it_was_given";
    let Some(lab) = lab(test, &["python3"]) else { return };
    let server = lab.write(
        "server.py",
        "import ctypes, os, socket, sys
CLONE_NEWNET, CLONE_NEWPID = 0x40000000, 0x20000000
listener = socket.create_server(('', 7000))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('10.77.0.1', 7000))
for flags in CLONE_NEWNET, CLONE_NEWNET | CLONE_NEWPID:
    connection, peer = listener.accept()
    if os.fork() == 0:
        assert ctypes.CDLL(None).unshare(flags) == 0
        child = os.fork()
        if child: os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.getpeername() == peer
        assert connection.getsockname()[1] == 7000
        data, sender = datagrams.recvfrom(10)
        datagrams.sendto(data, sender)
        # Nothing else can be reached, as on the machine's network.
        try: socket.create_connection(('10.77.0.2', 7000))
        except OSError: pass
        else: assert False, 'it is reached'
        # Children of it, too.
        child = os.fork()
        if child == 0:
            connection.sendall(b'hi')
            connection.shutdown(socket.SHUT_WR)
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    connection.close()
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
",
    );
    let client = lab.write(
        "client.py",
        "import socket
connection = socket.create_connection(('10.77.0.1', 7000))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.sendto(b'datagram', ('10.77.0.1', 7000))
print(datagrams.recv(10), connection.recv(10), connection.recv(10))
",
    );
    let serving = lab.start("alpha", &["python3", &server]);
    for _ in 0..2 {
        let got = lab.bash("beta", &format!("try python3 {client}"));
        assert_eq!(got.text(), "b'datagram' b'hi' b''\n");
    }
    assert_eq!(serving.finish().success().text(), "0\n0\n");
}

/// As in containers, IPv6 is disabled, but members have IPv6 addresses, some of them only those.
#[test]
fn members_are_found_by_name_and_address_where_the_machine_lacks_a_family() {
    let test = "members_are_found_by_name_and_address_where_the_machine_lacks_a_family";
    let Some(lab) = lab(test, &["python3"]) else { return };
    let program = lab.write(
        "names.py",
        "import socket
configured, mapped = socket.AI_ADDRCONFIG, socket.AI_V4MAPPED
for host in 'gamma', 'fd77::3', '10.77.0.3':
    for flags in 0, configured, configured | mapped:
        found = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=flags)
        print(host, *sorted(entry[4][0] for entry in found if entry[4][0].startswith(('10.', 'fd77::'))))
",
    );
    let wanted: String = [("gamma", "10.77.0.3 fd77::3"), ("fd77::3", "fd77::3"), ("10.77.0.3", "10.77.0.3")]
        .map(|(host, found)| format!("{host} {found}\n").repeat(3))
        .concat();
    let without = "ip link set lo up; sysctl -qw net.ipv6.conf.all.disable_ipv6=1; exec \"$@\"";
    let asked = lab.command("beta", &[], &["python3", &program]);
    let command = behind(&["unshare", "--net", "sh", "-ec", without, "sh"], &asked);
    assert_eq!(run(command).success().text(), wanted);
}

#[test]
fn without_proc_the_error_names_it() {
    let test = "without_proc_the_error_names_it";
    let Some(lab) = lab(test, &["true"]) else { return };
    for mode in ["auto", "seccomp"] {
        let asked = lab.command("beta", &["--mode", mode], &["true"]);
        let command =
            behind(&["unshare", "--mount", "sh", "-ec", "umount -l /proc; exec \"$@\"", "sh"], &asked);
        run(command).failure(1, &["/proc is not mounted", "mount -t proc"]);
    }
}
