//! Networks with IPv6 only.

use std::path::Path;

use crate::common::{Running, peersock, run};
use crate::lab::Lab;

#[test]
fn programs_that_listen_on_ipv4_only_are_reached_and_can_call_back() {
    let test = "programs_that_listen_on_ipv4_only_are_reached_and_can_call_back";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let network = lab.ad_hoc();
    let address = |member: &str| {
        let mut command = peersock(&["addr", &network, "--state"]);
        command.arg(lab.path(member));
        let got = run(command).success();
        got.text().split_whitespace().next().unwrap().to_owned()
    };
    let server = lab.write(
        "server.py",
        "import socket, threading
def listen(port, family, *options):
    s = socket.socket(family)
    for option in options:
        s.setsockopt(*option)
    s.bind(('', port))
    s.listen()
    return s
plain = listen(8080, socket.AF_INET)
first, second = listen(8081, socket.AF_INET), listen(8081, socket.AF_INET6, (41, socket.IPV6_V6ONLY, 1))
second.settimeout(60)
print('ready', flush=True)
connection, peer = plain.accept()
own = connection.getsockname()
passive = socket.create_server((own[0], 0))
bound = passive.getsockname()
connection.sendall(f'{peer[0]} {own[0]} {own[1]} {bound[0] == own[0]} {bound[1]}'.encode())
connection.close()
back = socket.create_connection((peer[0], 9090))
back.sendall(f'{back.getpeername() == (peer[0], 9090)} {back.getsockname()[0] == own[0]}'.encode())
back.close()
connection, _ = passive.accept()
connection.sendall(b'passive')
connection.close()
connection, peer = second.accept()
connection.sendall(peer[0].encode())
",
    );
    let client = lab.write(
        "client.py",
        "import socket, sys
listener = socket.socket()
listener.bind(('0.0.0.0', 9090))
listener.listen()
def everything(s):
    return s.makefile().read()
first = everything(socket.create_connection((sys.argv[1], 8080)))
print(first)
back, peer = listener.accept()
print(peer[0])
print(everything(back))
print(everything(socket.create_connection((first.split()[1], int(first.split()[4])))))
print(everything(socket.create_connection((sys.argv[1], 8081))))
",
    );
    let node = |member: &str, program: &[&str]| lab.command_in(Path::new(&network), member, &[], program);
    let serving = Running::start(node("alpha", &["python3", &server]));
    serving.wait_for_stdout("ready");
    let got = run(node("beta", &["python3", &client, &address("alpha")])).success();
    let lines: Vec<&str> = got.text().lines().collect();
    let [first, caller, called, passive, second] = lines[..] else { panic!("{lines:?}") };
    let [peer, own, port, is_own, _] = first.split(' ').collect::<Vec<_>>()[..] else { panic!("{first}") };
    for alias in [peer, own, caller] {
        assert!(alias.starts_with("198.18.") || alias.starts_with("198.19."), "{lines:?}");
    }
    // The port is the same at both ends, because there is no collision.
    assert_eq!((port, caller, called), ("8080", own, "True True"));
    // Uses a second listener, at the address that the first connection has shown.
    assert_eq!((is_own, passive), ("True", "passive"));
    assert_eq!(second, address("beta"));
    serving.finish().success();
}
