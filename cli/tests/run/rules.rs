//! Rules for traffic to the overlay, and programs that cannot be reached.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;

use crate::common::run;
use crate::lab::{Lab, is_root};

#[test]
fn other_addresses_are_the_systems_unless_only_the_overlay_is_allowed() {
    let test = "other_addresses_are_the_systems_unless_only_the_overlay_is_allowed";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let ports = [tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port()];
    thread::spawn(move || {
        for connection in tcp.incoming() {
            let _ = connection.unwrap().write_all(b"system");
        }
    });
    let script = lab.write(
        "reach.py",
        "import os, socket, sys
def attempt(what):
    try:
        print(what())
    except OSError as error:
        print(error.strerror)
def tcp():
    return socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(100).decode()
def udp():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', ('127.0.0.1', int(sys.argv[2])))
def listener():
    s = socket.socket()
    s.bind(('127.0.0.1', 0))
    s.listen()
    return 'listens'
def raw():
    # The C library's own function, past the library that takes its place.
    import ctypes, ctypes.util
    libc = ctypes.CDLL(ctypes.util.find_library('c'), use_errno=True)
    number = {'x86_64': 41}.get(os.uname().machine, 198)
    fd = libc.syscall(number, socket.AF_INET, socket.SOCK_STREAM, 0)
    return 'opened' if fd >= 0 else ctypes.get_errno() == 97
for what in tcp, udp, listener, raw:
    attempt(what)
",
    );
    let program = ["python3", &script, &ports[0].to_string(), &ports[1].to_string()];
    let free = run(lab.command("beta", &[], &program)).success();
    assert_eq!(free.text(), "system\n5\nlistens\nopened\n");
    let only = run(lab.command("beta", &["--only"], &program)).success();
    let lines: Vec<&str> = only.text().lines().collect();
    assert_eq!((lines[0], lines[3]), ("Network is unreachable", "True"), "{lines:?}");
    assert!(lines[1] != "5" && lines[2] != "listens", "{lines:?}");
    // Only one datagram arrives, not two.
    udp.set_nonblocking(true).unwrap();
    let mut buf = [0; 10];
    assert!(udp.recv(&mut buf).is_ok() && udp.recv(&mut buf).is_err());
}

#[test]
fn nothing_meant_for_the_overlay_goes_elsewhere_once_the_node_is_gone() {
    let test = "nothing_meant_for_the_overlay_goes_elsewhere_once_the_node_is_gone";
    let Some(lab) = Lab::with(test, &["python3", "setsid"]) else { return };
    let script = lab.write(
        "late.py",
        "import socket
for address in '10.77.0.1', '192.0.2.1', 'fd77::1':
    try:
        socket.create_connection((address, 80), timeout=5)
    except OSError as error:
        print(error.strerror)
",
    );
    // The program outlives its launcher and then starts another program.
    let shell = format!(
        "cd @DIR@; exec > result 2>&1; kill -KILL $PPID; until [ $PPID = 1 ] || ! kill -0 $PPID 2>/dev/null; do \
         sleep 0.05; done; sleep 0.2; timeout 30 python3 {script}; mv result done"
    )
    .replace("@DIR@", lab.folder());
    let finished = run(lab.command("beta", &[], &["setsid", "bash", "-c", &shell]));
    assert_eq!(finished.status.code(), None, "it was killed");
    let done = lab.path("done");
    for _ in 0..600 {
        if done.exists() {
            break;
        }
        thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(fs::read_to_string(done).unwrap(), "Network is down\n".repeat(3));
}

#[test]
fn a_port_is_the_systems_if_the_rule_says_so() {
    let Some(lab) = Lab::with("a_port_is_the_systems_if_the_rule_says_so", &["python3"]) else { return };
    lab.write("file", "content");
    let free = peersock_testnet::free_port().to_string();
    let rule = format!("{free}=kernel");
    let program = ["python3", "-m", "http.server", "--bind", "0.0.0.0", &free];
    let _server = crate::common::Running::start(lab.command("alpha", &["--bind", &rule], &program));
    let mut answer = String::new();
    for _ in 0..600 {
        let Ok(mut stream) = TcpStream::connect(format!("127.0.0.1:{free}")) else {
            thread::sleep(std::time::Duration::from_millis(50));
            continue;
        };
        stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_string(&mut answer).unwrap();
        break;
    }
    assert!(answer.ends_with("\r\n\r\ncontent"), "{answer}");
}

#[test]
fn programs_that_cannot_be_reached_are_refused_with_the_reason() {
    let test = "programs_that_cannot_be_reached_are_refused_with_the_reason";
    let Some(lab) = Lab::with(test, &["cc", "su"]) else { return };
    let source = lab.write("nothing.c", "int main(void) { return 0; }");
    let program = lab.path("static");
    let mut cc = Command::new("cc");
    cc.args(["-static", "-o"]).arg(&program).arg(source);
    run(cc).success();
    let preload = ["--mode", "preload"];
    run(lab.command("beta", &preload, &[&program])).failure(1, &["linked statically", "peersock dial"]);
    run(lab.command("beta", &["--no-filter"], &[&program])).failure(2, &["linked statically", "--no-filter"]);
    run(lab.command("beta", &["--no-filter", "--mode", "seccomp"], &["true"])).failure(2, &["--no-filter"]);

    // Builds the beginning of a Go program: an interpreter, and its note.
    let mut go = fs::read("/bin/sh").unwrap();
    let note = b"\x04\0\0\0\x53\0\0\0\x04\0\0\0Go\0\0";
    let at = 0x2f00;
    go[at..at + note.len()].copy_from_slice(note);
    let path = lab.path("go");
    fs::write(&path, &go).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    run(lab.command("beta", &preload, &[&path])).failure(1, &["Go", "system calls itself"]);

    fs::write(&path, b"\x7fELF\x01\x01\x01").unwrap();
    run(lab.command("beta", &[], &[&path])).failure(1, &["32-bit"]);

    if !is_root() {
        eprintln!("SKIP programs_that_change_their_user: only root can start a program as somebody else");
        return;
    }
    for mode in ["auto", "preload", "seccomp"] {
        let mut command = as_nobody(&lab);
        command.args(["run", "--ephemeral", "--network", "ff0001ffff000000", "--mode", mode, "--", "su"]);
        run(command).failure(1, &["setuid", "peersock dial"]);
    }
}

#[test]
fn a_program_that_runs_without_the_library_is_ended() {
    let test = "a_program_that_runs_without_the_library_is_ended";
    let Some(lab) = Lab::with(test, &["cc", "bash", "env", "sleep"]) else { return };
    let source = lab.write("wait.c", "#include <unistd.h>\nint main(void) { sleep(600); return 0; }");
    let program = lab.path("static");
    let mut cc = Command::new("cc");
    cc.args(["-static", "-o"]).arg(&program).arg(source);
    run(cc).success();
    // This program asks the kernel directly to execute another one, without any variable.
    let source = lab.write(
        "raw.c",
        "#include <dlfcn.h>\n#include <gnu/lib-names.h>\n#include <stddef.h>\n#include <sys/syscall.h>\n\
         int main(void) {\n\
         char *words[] = {\"sleep\", \"600\", NULL}, *none[] = {NULL};\n\
         long (*own)(long, ...) = (long (*)(long, ...))dlsym(dlopen(LIBC_SO, RTLD_NOW), \"syscall\");\n\
         return own(SYS_execve, \"/bin/sleep\", words, none); }",
    );
    let raw = lab.path("raw");
    let mut cc = Command::new("cc");
    cc.arg("-o").arg(&raw).arg(source);
    run(cc).success();
    let (program, raw) = (program.to_str().unwrap(), raw.to_str().unwrap());
    let words = ["library of peersock", "ended"];
    // In these modes the launcher does not intercept other calls; otherwise the first program is left to it.
    for options in [&["--mode", "preload"][..], &["--only"]] {
        run(lab.command("beta", options, &["env", program])).failure(1, &words);
    }
    for options in [&[][..], &["--only"]] {
        run(lab.command("beta", options, &[raw])).failure(1, &words);
        let later = format!("sleep 0.1; exec {raw}");
        run(lab.command("beta", options, &["bash", "-c", &later])).failure(1, &words);
    }
    // Programs with the library may exec others, and so may children.
    for script in ["exec true", "exec env sh -c 'exec sleep 1'", "env -i sleep 1; exit 0"] {
        run(lab.command("beta", &[], &["bash", "-c", script])).success();
    }
}

#[test]
fn the_library_is_in_memory_where_nothing_can_be_written() {
    let test = "the_library_is_in_memory_where_nothing_can_be_written";
    let Some(lab) = Lab::with(test, &["bash", "grep", "setpriv"]) else { return };
    if !is_root() {
        eprintln!("SKIP {test}: needs root, to become a user without a home");
        return;
    }
    let mut command = as_nobody(&lab);
    command.args(["run", "--quiet", "--ephemeral", "--interface", "lo", "--network", &lab.ad_hoc(), "--"]);
    command.args(["bash", "-c", "grep -o 'memfd:libpeersock_preload' /proc/self/maps | sort -u; exit 5"]);
    command.env("HOME", "/nonexistent").env_remove("XDG_CACHE_HOME").env_remove("XDG_RUNTIME_DIR");
    let finished = run(command);
    finished.failure(5, &[]);
    assert_eq!(finished.text(), "memfd:libpeersock_preload\n");
}

#[test]
fn the_launcher_ends_as_its_program_does_and_keeps_it_from_io_uring() {
    let test = "the_launcher_ends_as_its_program_does_and_keeps_it_from_io_uring";
    let Some(lab) = Lab::with(test, &["sh"]) else { return };
    run(lab.command("beta", &[], &["sh", "-c", "exit 7"])).failure(7, &[]);
    run(lab.command("beta", &[], &["sh", "-c", "kill -TERM $$"])).failure(128 + 15, &[]);
    run(lab.command("beta", &[], &["no-such-program"])).failure(127, &["not found"]);
    for (options, filtered) in [(&[][..], "1"), (&["--no-filter"], "0")] {
        let words = ["sed", "-n", "s/^NoNewPrivs:\\s*//p", "/proc/self/status"];
        let got = run(lab.command("beta", options, &words)).success();
        assert_eq!(got.text().trim(), filtered);
    }
}

#[test]
fn a_port_that_a_program_has_before_it_says_where_to_stays_its_own() {
    let test = "a_port_that_a_program_has_before_it_says_where_to_stays_its_own";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let server = lab.write(
        "server.py",
        "import socket
s = socket.create_server(('0.0.0.0', 4000))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(('0.0.0.0', 4000))
for _ in range(2):
    c, peer = s.accept()
    c.sendall(str(peer[1]).encode())
    c.close()
    _, peer = u.recvfrom(10)
    u.sendto(str(peer[1]).encode(), peer)
",
    );
    let client = lab.write(
        "client.py",
        "import socket, time
end = time.monotonic() + 60
for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
    while True:
        s = socket.socket(socket.AF_INET, kind)
        s.bind(('0.0.0.0', 0))
        port = s.getsockname()[1]
        try:
            s.connect(('10.77.0.1', 4000))
            break
        except OSError:
            assert time.monotonic() < end
    assert s.getsockname()[1] == port, (s.getsockname(), port)
    if kind == socket.SOCK_DGRAM:
        s.send(b'who')
    assert s.recv(10) == str(port).encode()
print('kept')
",
    );
    let _server = lab.start("alpha", &["python3", &server]);
    for options in [&[][..], &["--bind", "both"]] {
        let got = run(lab.command("beta", options, &["python3", &client])).success();
        assert_eq!(got.text(), "kept\n");
    }
}

/// Returns the program as run by another user, who cannot read the build's folder.
pub(crate) fn as_nobody(lab: &Lab) -> Command {
    let copy = lab.path("peersock");
    // Copies by another program, because a process that another test's thread starts meanwhile would inherit
    // the file open for writing.
    let mut cp = Command::new("cp");
    // The node of an earlier copy may still be about to end.
    cp.arg("--remove-destination").arg(env!("CARGO_BIN_EXE_peersock")).arg(&copy);
    run(cp).success();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups"]).arg(copy).env("PEERSOCK_PERSIST", "0");
    command
}
