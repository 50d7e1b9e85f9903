//! PEERSOCK_PEER of getsockopt(2): unmodified programs ask who is at the other end.

use serde_json::Value;

use crate::common::{Running, run};
use crate::lab::{ALPHA, Lab};

/// Accepts a connection, and says who has opened it before and after its end.
const SERVER: &str = "import errno, json, socket, sys
def peer(s):
    return json.loads(s.getsockopt(0x7073, 1, 1024))
def refused(s, length=1024):
    try:
        peer(s) if length == 1024 else s.getsockopt(0x7073, 1, length)
    except OSError as error:
        return error.errno
    raise AssertionError('it is told')
server = socket.create_server(('', 7000))
assert refused(server) == errno.ENOTCONN
others = (errno.EOPNOTSUPP, errno.ENOPROTOOPT)
assert refused(socket.socket(socket.AF_UNIX)) in others
here = socket.create_server(('127.0.0.1', 0))
assert refused(socket.create_connection(here.getsockname())) in others
assert refused(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) in (errno.ENOTCONN, *others)
print('ready', flush=True)
connection, _ = server.accept()
before = peer(connection)
assert refused(connection, 10) == errno.ERANGE
while connection.recv(100):
    pass
assert peer(connection) == before
connection.sendall(b'x')
connection.shutdown(socket.SHUT_RDWR)
assert peer(connection) == before
print(json.dumps(before), flush=True)
";

const CLIENT: &str = "import json, socket, sys
connection = socket.create_connection((sys.argv[1], 7000))
def peer():
    return json.loads(connection.getsockopt(0x7073, 1, 1024))
before = peer()
connection.shutdown(socket.SHUT_WR)
while connection.recv(100):
    pass
assert peer() == before
print(json.dumps(before))
";

#[test]
fn programs_are_told_who_is_at_the_other_end() {
    let test = "programs_are_told_who_is_at_the_other_end";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let (server, client) = (lab.write("server.py", SERVER), lab.write("client.py", CLIENT));
    for mode in [&[][..], &["--mode", "seccomp"]] {
        let serving = Running::start(lab.command("alpha", mode, &["python3", &server]));
        serving.wait_for_stdout("ready");
        let got = run(lab.command("beta", mode, &["python3", &client, ALPHA])).success();
        let said = serving.wait_for_end().success();
        let told = |text: &str, name: &str| {
            let peer: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
            assert_eq!((&peer["name"], &peer["gateway"]), (&name.into(), &false.into()), "{peer}");
            assert_eq!(peer["node"], peer["machine"], "{peer}");
        };
        told(got.text(), "alpha");
        told(said.text(), "beta");
    }
}
