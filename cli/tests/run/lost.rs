//! Data that programs have sent and no peer has received: the launcher reports it at the end, unless a call
//! has told the program.

use crate::common::{Running, run};
use crate::ending::MODES;
use crate::lab::Lab;

/// Program that resets each connection once data has arrived.
const RESETTING: &str = "
import socket, struct
s = socket.create_server(('', 7000))
while True:
    c, _ = s.accept()
    if c.recv(1, socket.MSG_PEEK):
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    c.close()
";

/// Program that sends as much as the buffers accept, and waits for the reset without a failing call.
const SENDING: &str = "
import select, socket, sys
s = socket.create_connection(('10.77.0.1', 7000))
s.setblocking(False)
assert s.send(bytes(int(sys.argv[1])))
s.setblocking(True)
poll = select.poll()
poll.register(s, 0)
assert poll.poll(60000)
def fails(call, *arguments):
    try: call(*arguments)
    except OSError: return
    sys.exit('no error')
";

fn start(lab: &Lab) -> Running {
    let serving = lab.start("alpha", &["python3", "-c", RESETTING]);
    lab.bash("gamma", "up 7000");
    serving
}

#[test]
fn what_a_peer_has_reset_unnoticed_is_said_at_the_end() {
    let test = "what_a_peer_has_reset_unnoticed_is_said_at_the_end";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let why = "a peer had reset the connection, and no call has told the program";
    // The status is the program's, because both ends are responsible for such losses. For example, iperf3's
    // server resets connections that it does not wait for.
    let ends = [("s.close()", 0), ("", 0), ("s.close(); sys.exit(7)", 7)];
    let serving = start(&lab);
    for (end, status) in ends {
        let program = format!("{SENDING}{end}");
        let finished = run(lab.command("beta", &[], &["python3", "-c", &program, "5000"]));
        // The peer's node acknowledged all data before it was discarded.
        finished.failure(status, &["a peer may not have read everything", "python3", why]);
    }
    drop(serving);
    for (end, status) in ends {
        let then = format!(
            "sign()\nimport select\npoll = select.poll()\npoll.register(s, 0)\nassert poll.poll(60000)\n{end}"
        );
        for said in said_of(&lab, "preload", 1, &then) {
            assert!(said.starts_with(&format!("Some({status})")), "{said}");
            assert!(said.contains("bytes were not delivered") && said.contains(why), "{said}");
        }
    }
}

#[test]
fn what_a_call_has_told_the_program_is_not_said_again() {
    let Some(lab) = Lab::with("what_a_call_has_told_the_program_is_not_said_again", &["python3"]) else {
        return;
    };
    let _serving = start(&lab);
    let calls = [
        "fails(s.send, b'more')",
        "fails(s.sendall, bytes(10_000_000))",
        "fails(s.recv, 1)",
        "fails(s.shutdown, socket.SHUT_WR)",
        "import os; fails(os.read, s.fileno(), 1)",
        "assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)",
    ];
    for call in calls {
        let program = format!("{SENDING}{call}\ns.close()");
        let got = run(lab.command("beta", &[], &["python3", "-c", &program, "5000"])).success();
        assert_eq!(got.stderr, "", "{call}");
    }
}

/// The launcher does not see the reads and writes of a program under seccomp notifications.
#[test]
fn programs_whose_writing_nobody_sees_are_not_blamed() {
    let Some(lab) = Lab::with("programs_whose_writing_nobody_sees_are_not_blamed", &["python3"]) else {
        return;
    };
    let _serving = start(&lab);
    let program = format!("{SENDING}fails(s.send, b'more')\ns.close()");
    let command = lab.command("beta", &["--mode", "seccomp"], &["python3", "-c", &program, "5000"]);
    assert_eq!(run(command).success().stderr, "");
}

/// Program that resets each connection with received data when a file appears as the sign.
const CLOSING: &str = "
import os, socket, sys, time
s = socket.create_server(('', 7000))
while True:
    c = s.accept()[0]
    if c.recv(1, socket.MSG_PEEK):
        while not os.path.exists(sys.argv[1]): time.sleep(.001)
        os.remove(sys.argv[1])
    c.close()
";

/// Program that sends until all buffers are full; the last buffer's data is not acknowledged.
const FILLING: &str = "
import os, socket, sys, time
s = socket.create_connection(('10.77.0.1', 7000))
s.setblocking(False)
full = 0
while full < 100:
    try: s.send(bytes(1_000_000)); full = 0
    except BlockingIOError: full += 1; time.sleep(.005)
def sign(): open(sys.argv[1], 'w')
";

/// Returns the launcher's messages about programs that fill all buffers and then run `then`. The peer resets
/// the connection after they have called `sign`.
fn said_of(lab: &Lab, mode: &str, rounds: usize, then: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let sign = folder.path().join("sign").display().to_string();
    let _serving = lab.start("alpha", &["python3", "-c", CLOSING, &sign]);
    lab.bash("gamma", "up 7000");
    let program = format!("{FILLING}{then}");
    let options = ["--mode", mode];
    let run = |_| run(lab.command("beta", &options, &["python3", "-c", &program, &sign]));
    (0..rounds).map(run).map(|got| format!("{:?}: {}", got.status.code(), got.stderr)).collect()
}

/// The kernel closes a program's descriptors before other processes can learn of its end.
#[test]
fn what_is_reset_while_the_program_ends_is_said() {
    let Some(lab) = Lab::with("what_is_reset_while_the_program_ends_is_said", &["python3"]) else { return };
    // Without the library it is unknown whether a call told the program of a reset of an open connection.
    for said in said_of(&lab, "preload", 8, "sign(); os._exit(0)") {
        assert!(said.contains("not delivered"), "{said}");
    }
}

#[test]
fn what_a_program_has_left_in_its_own_connections_is_said_at_the_end() {
    let test = "what_a_program_has_left_in_its_own_connections_is_said_at_the_end";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    // The connection is reset after it is closed, and long before the end.
    for mode in MODES {
        for said in said_of(&lab, mode, 1, "s.close(); sign(); time.sleep(10)") {
            assert!(
                said.starts_with("Some(0)") && said.contains("bytes were not delivered"),
                "{mode}: {said}"
            );
        }
    }
}
