//! What programs have sent and no peer has had: the launcher says it at the end, unless a call has told the
//! program.

use crate::common::{Running, run};
use crate::lab::Lab;

/// Resets each connection as soon as something has come.
const RESETTING: &str = "
import socket, struct
s = socket.create_server(('', 7000))
while True:
    c, _ = s.accept()
    if c.recv(1, socket.MSG_PEEK):
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    c.close()
";

/// Sends as much as the buffers take at once, and waits for the reset without a call that fails.
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
    let _serving = start(&lab);
    // Of few bytes the peer's node has acknowledged all before they were thrown away.
    for (size, what) in
        [("5000", "a peer may not have read everything"), ("10000000", "bytes were not delivered")]
    {
        let said = [what, "python3", "a peer had reset the connection, and no call has told the program"];
        // The status is the program's: such losses are the affair of both ends, as those of iperf3, whose
        // server resets what it does not wait for.
        for (end, status) in [("s.close()", 0), ("", 0), ("s.close(); sys.exit(7)", 7)] {
            let program = format!("{SENDING}{end}");
            let finished = run(lab.command("beta", &[], &["python3", "-c", &program, size]));
            finished.failure(status, &said);
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

/// The launcher does not see how a program reads and writes whose calls the kernel asks it about.
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

/// The kernel closes what a program has open before anybody hears that the program has ended.
#[test]
fn what_is_reset_while_the_program_ends_is_said() {
    let Some(lab) = Lab::with("what_is_reset_while_the_program_ends_is_said", &["python3"]) else { return };
    let closing = "
import socket
s = socket.create_server(('', 7000))
while True: s.accept()[0].close()
";
    let _serving = lab.start("alpha", &["python3", "-c", closing]);
    lab.bash("gamma", "up 7000");
    let program = "
import os, socket
s = socket.create_connection(('10.77.0.1', 7000))
try: s.send(bytes(1_000_000))
except OSError: os._exit(7)
os._exit(0)
";
    for round in 0..8 {
        let got = run(lab.command("beta", &[], &["python3", "-c", program]));
        let is_told = got.status.code() == Some(7) || got.stderr.contains("not delivered");
        assert!(is_told, "round {round}: {:?}, {}", got.status, got.stderr);
    }
}

#[test]
fn what_a_program_has_left_in_its_own_connections_is_said_at_the_end() {
    let test = "what_a_program_has_left_in_its_own_connections_is_said_at_the_end";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let _serving = start(&lab);
    // The connection is reset only once it is closed: the serving one waits for something to read, and all that
    // the descriptor holds has not been taken by then.
    let program = "
import socket, time
s = socket.create_connection(('10.77.0.1', 7000))
s.setblocking(False)
s.send(bytes(10_000_000))
s.close()
time.sleep(3)
";
    for _ in 0..3 {
        let got = run(lab.command("beta", &[], &["python3", "-c", program])).success();
        assert!(got.stderr.contains("bytes were not delivered"), "{}", got.stderr);
    }
}
