//! Running programs.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::build::{Built, Mode, Program, launcher};

/// Time limit of every program.
const LIMIT: Duration = Duration::from_secs(300);

/// Builds and runs a program; it must end with success.
pub(crate) fn check(program: Program, mode: Mode) {
    let Some(built) = program.build(mode) else { return };
    let mut command = command(&program, &built, mode);
    command.env("PEERSOCK_TEST_PORT", port().to_string());
    // Each process is a machine.
    command.env("PEERSOCK_OWN_NODE", "1");
    command.env("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0");
    match mode {
        Mode::Plain => {}
        Mode::Sanitizers => {
            command.env("PEERSOCK_TEST_CHECKED", "sanitizers");
        }
        Mode::Valgrind => {
            command.env("PEERSOCK_TEST_CHECKED", "valgrind");
        }
    }
    if program.has_folder {
        command.arg(built.folder.path());
    }
    if program.has_launcher {
        command.arg(launcher());
    }
    command.args(program.argument);
    let out = built.folder.path().join("output");
    let file = std::fs::File::create(&out).expect("a file");
    command.stdin(Stdio::null()).stdout(file.try_clone().expect("another handle")).stderr(file);
    let mut child = command.spawn().expect("the program was just built");
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            panic!("it takes more than {LIMIT:?}: {}", read(&out));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{status}: {}", read(&out));
}

fn command(program: &Program, built: &Built, mode: Mode) -> Command {
    if program.is_alone {
        // unshare becomes the program, so the process is the same.
        let mut command = Command::new("unshare");
        command.arg("--net").arg(&built.path);
        return command;
    }
    if mode != Mode::Valgrind {
        return Command::new(&built.path);
    }
    let suppressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/valgrind.supp");
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite"])
        .args(["--show-leak-kinds=definite", "--fair-sched=try", "--trace-children=no"])
        .arg(format!("--suppressions={}", suppressions.display()))
        .arg(&built.path);
    command
}

/// Returns a free UDP port, on which the nodes of this program find each other and meet no others.
pub(crate) fn port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    // Held as long as this process lives, because the system may otherwise give it to the next socket that
    // wants any. Discovery sockets may share it.
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true).expect("an option");
    let port = socket.local_addr().expect("it is bound").port();
    std::mem::forget(socket);
    port
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
}
