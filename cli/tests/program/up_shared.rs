//! Programs that share the node of `peersock up`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use rustix::process::Signal;

use crate::common::{Running, lacks, run, signal};
use crate::up_office::{NOBODY, Office, V4};

/// TCP server of the kernel at a port, which sends back what it gets.
const ECHO: &str = "
import socket, sys, threading
def serve(c):
    while data := c.recv(65536): c.sendall(data)
    c.close()
s = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('ready', flush=True)
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()";

/// TCP client of the kernel, which sends its input and prints what comes back.
const CLIENT: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
for line in sys.stdin:
    s.sendall(line.encode())
    print(s.recv(65536).decode(), end='', flush=True)";

/// Connects to a socket as another user, and prints the number of bytes that it answers.
const KNOCK: &str = "
import os, socket, sys
os.setuid(int(sys.argv[1]))
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect(sys.argv[2])
try: s.sendall(b'knock'); print(len(s.recv(100)))
except (BrokenPipeError, ConnectionResetError): print(0)";

impl Office {
    /// Returns a command on a machine, as the member whose interface is there.
    fn member(&self, machine: usize, words: &[&str]) -> Command {
        let mut command = self.inside(machine, &[env!("CARGO_BIN_EXE_peersock")]);
        command.args(words).args(["--network", &self.file(), "--state"]);
        command.arg(self.lab.state(&format!("up{machine}")));
        command
    }

    fn listen(&self, machine: usize, port: &str) -> Running {
        let listening = Running::start(self.member(machine, &["listen", port]));
        listening.wait_for_stderr("connect with: ");
        listening
    }

    fn kernel(&self, machine: usize, words: &[&str]) -> Running {
        Running::start(self.inside(machine, &[&["python3", "-u", "-c"], words].concat()))
    }

    fn holder(&self, machine: usize) -> u32 {
        let lock = self.lab.state(&format!("up{machine}")).join("lock");
        fs::read_to_string(lock).expect("a node has run").trim().parse().expect("a process")
    }
}

#[test]
fn programs_share_the_node_of_an_interface_beside_the_kernel_s_programs() {
    let Some(office) = Office::lay("upshare") else { return };
    let ups = [office.up(0), office.up(1)];
    let node = office.holder(0);
    // From the other machine's kernel to a program here, and from here to a server of that kernel.
    let listening = office.listen(0, "7000");
    let mut client = office.kernel(1, &[CLIENT, V4[0], "7000"]);
    client.send(b"to a program\n");
    listening.wait_for_stdout("to a program\n");
    let echo = office.kernel(1, &[ECHO, V4[1], "7001"]);
    echo.wait_for_stdout("ready");
    let mut dial = Running::start(office.member(0, &["dial", "two:7001"]));
    dial.send(b"to a kernel\n");
    dial.wait_for_stdout("to a kernel\n");
    // Between programs of both, and beside them between both kernels.
    let far = office.listen(1, "7002");
    let mut near = Running::start(office.member(0, &["dial", "two:7002"]));
    near.send(b"among programs\n");
    far.wait_for_stdout("among programs\n");
    let mut plain = office.kernel(0, &[CLIENT, V4[1], "7001"]);
    plain.send(b"among kernels\n");
    plain.wait_for_stdout("among kernels\n");
    office.ping(0, V4[1], "56");
    assert_eq!(office.holder(0), node, "one node serves all");
    let mut status = office.inside(0, &[env!("CARGO_BIN_EXE_peersock"), "status", "--state"]);
    status.arg(office.lab.state("up0"));
    let status = run(status).success();
    assert!(status.text().contains("peersock listen (process "), "{}", status.text());
    // A program that is killed, and one that ends, leave the interface as it is, and the port is free.
    signal(Signal::KILL, listening.id());
    drop(near);
    office.ping(1, V4[0], "56");
    drop(office.listen(0, "7000"));
    dial.send(b"still\n");
    dial.wait_for_stdout("still\n");
    // A second interface is refused, and so is a program with its own node.
    run(office.up_command(0))
        .failure(1, &["a node runs with", "used by peersock dial (process ", "end these programs"]);
    run(office.member(0, &["dial", "--own-node", "two:7001"]))
        .failure(1, &["whose node other programs share"]);
    // The end of the command is told.
    let [up, _other] = ups;
    up.interrupt().failure(130, &[]);
    dial.wait_for_end().failure(1, &["the node that programs share has ended"]);
    // And so is its death; the next program starts a node.
    let up = office.up(0);
    let mut dial = Running::start(office.member(0, &["dial", "two:7001"]));
    dial.send(b"again\n");
    dial.wait_for_stdout("again\n");
    signal(Signal::KILL, up.id());
    dial.wait_for_end().failure(1, &["the node that programs share has ended"]);
    let mut dial = Running::start(office.member(0, &["dial", "two:7001"]));
    dial.send(b"without an interface\n");
    dial.wait_for_stdout("without an interface\n");
    assert_ne!(office.holder(0), up.id());
    // A busy node is named.
    run(office.up_command(0)).failure(1, &["a node runs with", "peersock dial (process "]);
    drop((client, echo, far, plain));
}

#[test]
fn only_the_user_of_the_directory_shares_the_node_that_root_has_started() {
    if lacks("only_the_user_of_the_directory_shares", &["python3", "setpriv"]) {
        return;
    }
    let Some(office) = Office::lay("upusers") else { return };
    let (home, state) = office.give_to_nobody();
    let as_user = |user: &str, words: &[&str]| {
        let whole = [&["setpriv", "--reuid", user, "--regid", user, "--clear-groups"], words].concat();
        let mut command = office.inside(0, &whole);
        command.env("HOME", &home).env_remove("XDG_STATE_HOME");
        command
    };
    let peersock = env!("CARGO_BIN_EXE_peersock");
    // The state of root, which the user may not open, is not the command's.
    let of_root = office.lab.dir.path().join("root-home");
    let folder = of_root.join(".local/state/peersock");
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let mut command = office.inside(0, &[peersock, "up", "--network", &office.file()]);
    command.env("HOME", of_root);
    command.env("SUDO_UID", NOBODY).env("SUDO_HOME", &home).env_remove("XDG_STATE_HOME");
    let up = Running::start(command);
    up.wait_for_stdout(V4[0]);
    let socket = state.join("node.sock");
    let found = fs::metadata(&socket).expect("a socket");
    assert_eq!((found.uid(), found.permissions().mode() & 0o777), (65_534, 0o600));
    let listening =
        Running::start(as_user(NOBODY, &[peersock, "listen", "7000", "--network", &office.file()]));
    listening.wait_for_stderr("connect with: ");
    let _other = office.up(1);
    let mut client = office.kernel(1, &[CLIENT, V4[0], "7000"]);
    client.send(b"to the user's program\n");
    listening.wait_for_stdout("to the user's program\n");
    // Another user is not answered, even where the folders are open to all.
    for folder in state.ancestors().take_while(|folder| *folder != office.lab.dir.path()) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("root may");
    }
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("root may");
    let path = socket.to_str().expect("UTF-8");
    let knock = |user: &str| {
        let said = run(office.inside(0, &["python3", "-c", KNOCK, user, path])).success();
        said.text().trim().parse::<usize>().expect("a number")
    };
    assert_eq!(knock("65533"), 0);
    assert_ne!(knock(NOBODY), 0);
    up.interrupt().failure(130, &[]);
    listening.wait_for_end();
    assert!(!socket.exists(), "it is removed");
}
