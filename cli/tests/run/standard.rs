//! Standard input, output and error in the state that the launcher received.

use std::fs;
use std::process::Command;

use crate::common::run;
use crate::lab::{Lab, behind};

/// Returns the command run by a shell that redirects its descriptors first.
fn redirected(command: &Command, redirections: &str) -> Command {
    behind(&["sh", "-c", &format!("exec \"$0\" \"$@\" {redirections}")], command)
}

#[test]
fn closed_standard_descriptors_are_closed_for_the_program_and_can_be_sockets() {
    let test = "closed_standard_descriptors_are_closed_for_the_program_and_can_be_sockets";
    let Some(lab) = Lab::with(test, &["python3", "sh"]) else { return };
    let program = lab.write(
        "program.py",
        "import os, socket, sys
def look(fd):
    try: return os.readlink(f'/proc/self/fd/{fd}')
    except OSError: return 'closed'
seen = ' '.join(look(fd) for fd in range(3))
server = socket.create_server(('10.77.0.1', 0))
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
client.sendall(b'heard')
with open('report', 'w') as report:
    lowest = min(server.fileno(), client.fileno(), accepted.fileno())
    print(seen, lowest, accepted.recv(5).decode(), file=report)
",
    );
    for (mode, redirections, seen) in [
        ("auto", "<&- >&- 2>&-", "closed closed closed 0"),
        ("seccomp", "<&- >&- 2>&-", "closed closed closed 0"),
        ("auto", "< /dev/null >&- 2<> /dev/null", "/dev/null closed /dev/null 1"),
        ("auto", "<&- > /dev/null 2> /dev/null", "closed /dev/null /dev/null 0"),
    ] {
        let command = lab.command("alpha", &["--mode", mode], &["python3", &program]);
        run(redirected(&command, redirections)).success();
        let report = fs::read_to_string(lab.path("report")).expect("it has written one");
        assert_eq!(report, format!("{seen} heard\n"), "{mode} {redirections}");
    }
}
