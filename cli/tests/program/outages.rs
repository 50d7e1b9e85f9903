//! A cable that is cut for half a minute, or for two: pending data is sent as soon as the nodes hear each
//! other again.

use std::thread;
use std::time::{Duration, Instant};

use crate::cable::Cable;
use crate::common::{Lab, PATIENCE, PORT, Running, address_of, lacks};

/// Outage after which TCP's retransmission timer has backed off to about 20 s.
const SHORT_OUTAGE: Duration = Duration::from_secs(30);

/// Outage after which the timer has backed off to a minute, and a node considers its peer gone.
const LONG_OUTAGE: Duration = Duration::from_secs(130);

/// Interval of handshakes to a peer that does not answer.
const HANDSHAKES: Duration = Duration::from_secs(1);

/// Promised time from the first packet that is answered.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum delay that a busy machine adds to each of several connections.
const SLACK: Duration = Duration::from_secs(3);

const SERVER: &str = "
import socket, sys
server = socket.create_server(('::', int(sys.argv[1])), family=socket.AF_INET6)
print('listens', flush=True)
connection = server.accept()[0]
while data := connection.recv(1 << 16):
    sys.stdout.write(data.decode())
    sys.stdout.flush()
";

const CLIENT: &str = "
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin: connection.sendall(line.encode())
";

#[test]
fn bytes_flow_within_a_second_of_the_first_answer_after_an_outage_of_thirty_seconds() {
    let test = "bytes_flow_within_a_second_of_the_first_answer_after_an_outage_of_thirty_seconds";
    play(test, "outage", SHORT_OUTAGE);
}

#[test]
fn bytes_flow_within_a_second_of_the_first_answer_after_an_outage_of_two_minutes() {
    let test = "bytes_flow_within_a_second_of_the_first_answer_after_an_outage_of_two_minutes";
    play(test, "long", LONG_OUTAGE);
}

fn play(test: &str, name: &str, outage: Duration) {
    if lacks(test, &["python3"]) {
        return;
    }
    let Some(cable) = Cable::with_filter(name) else { return };
    let lab = Lab::new();
    let patience = PATIENCE.as_secs().to_string();
    // Pairs of a sender and a receiver.
    let mut pairs: Vec<(Running, Running)> = Vec::new();
    for dialer_sends in [true, false, true, false] {
        let [one, other] = ["listener", "dialer"].map(|role| format!("{role}-{}", pairs.len()));
        let waits = ["--peer-timeout", "0"];
        let listener = cable.inside(0, &lab, &one, &[&["listen", "0"], &waits[..]].concat());
        let target = listener.wait_for_target();
        let words = ["dial", &target, "--timeout", &patience];
        let dialer = cable.inside(1, &lab, &other, &[&words, &waits[..]].concat());
        pairs.push(if dialer_sends { (dialer, listener) } else { (listener, dialer) });
    }
    let port = PORT.to_string();
    let server = cable.run(0, &lab, "server", &[], &["python3", "-c", SERVER, &port]);
    server.wait_for_stdout("listens");
    let address = address_of(&lab, "server");
    let client = cable.run(1, &lab, "client", &[], &["python3", "-c", CLIENT, &address, &port]);
    pairs.push((client, server));
    for (sender, receiver) in &mut pairs {
        sender.send(b"at first\n");
        receiver.wait_for_stdout("at first\n");
    }

    cable.carries(false);
    for (sender, _) in &mut pairs {
        sender.send(b"while it was cut\n");
    }
    thread::sleep(outage);
    for (_, receiver) in &pairs {
        assert!(
            !receiver.wait_for_stdout("at first\n").contains("while it was cut"),
            "the cable was not cut"
        );
    }
    cable.carries(true);
    let mended = Instant::now();
    let took = thread::scope(|scope| {
        let waiting = pairs.iter().map(|(_, receiver)| {
            scope.spawn(move || {
                receiver.wait_for_stdout("while it was cut\n");
                mended.elapsed()
            })
        });
        let waiting: Vec<_> = waiting.collect();
        waiting.into_iter().map(|waits| waits.join().expect("bytes")).collect::<Vec<_>>()
    });
    eprintln!("bytes again after {took:?}");
    // The machine may have been busy for some of them.
    assert!(took.iter().min().is_some_and(|took| *took <= HANDSHAKES + RECOVERY_TIMEOUT), "{took:?}");
    assert!(took.iter().all(|took| *took <= HANDSHAKES + RECOVERY_TIMEOUT + SLACK), "{took:?}");
}
