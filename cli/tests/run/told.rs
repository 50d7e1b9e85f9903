//! Messages of the launcher and its guard on stderr about problems.

use std::path::Path;

use rustix::process::Signal;

use crate::common::{peersock, run, signal};
use crate::ending::wait_for_file;
use crate::lab::Lab;

/// The kernel reports a socket that was shut down as ready forever.
#[test]
fn a_server_whose_launcher_is_killed_is_told_and_does_not_spin() {
    let Some(lab) = Lab::with("a_server_whose_launcher_is_killed_is_told_and_does_not_spin", &["python3"])
    else {
        return;
    };
    let result = lab.path("result");
    let server = format!(
        "import os, selectors, socket, time
listener = socket.create_server(('', 7001))
listener.setblocking(False)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('10.77.0.1', 7002))
datagrams.setblocking(False)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ, listener.accept)
selector.register(datagrams, selectors.EVENT_READ, lambda: datagrams.recvfrom(1))
print('ready', flush=True)
errors, first = 0, None
while first is None or time.monotonic() - first < 3:
    for key, _ in selector.select(1):
        try: key.data()
        except OSError as error:
            errors += 1
            first = first or time.monotonic()
with open({path:?}, 'w') as file: file.write(f'{{errors}} {{time.process_time()}}')
os.rename({path:?}, {path:?} + '.whole')",
        path = result.to_str().unwrap()
    );
    let serving = lab.start("alpha", &["python3", "-c", &server]);
    serving.wait_for_stdout("ready");
    signal(Signal::KILL, serving.id());
    let said = serving.wait_for_stderr("`peersock run` was killed");
    assert!(said.contains("python3 (") && said.contains("start them again under `peersock run`"), "{said}");
    let got = wait_for_file(&result.with_extension("whole"));
    let errors: u32 = got.split(' ').next().and_then(|errors| errors.parse().ok()).expect("a number");
    // Without a pause there are thousands of errors on any machine with useful speed.
    assert!((1..=100).contains(&errors), "errors, and seconds of processor time: {got}");
    let said = serving.finish().stderr;
    assert_eq!(said.matches("was killed").count(), 1, "{said}");
}

#[test]
fn a_member_that_does_not_answer_is_named_once_with_what_to_check() {
    let test = "a_member_that_does_not_answer_is_named_once_with_what_to_check";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let script = "
import socket, errno
for _ in range(2):
    try: socket.create_connection(('10.77.0.2', 80))
    except OSError as error: print(errno.errorcode[error.errno])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'x', ('10.77.0.1', 80))
";
    let got = run(lab.command("alpha", &[], &["python3", "-c", script])).success();
    assert_eq!(got.text(), "EHOSTUNREACH\n".repeat(2));
    let said = "peersock: beta (10.77.0.2) does not answer in network fe";
    assert_eq!(got.stderr.matches(said).count(), 1, "{}", got.stderr);
    let line = got.stderr.lines().find(|line| line.contains(said)).expect("it is there");
    for words in ["check that the other program runs with the same network file", "on the same LAN"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert_eq!(got.stderr.lines().count(), 1, "{}", got.stderr);
}

#[test]
fn a_port_that_may_not_be_reached_is_named_once_with_those_that_may() {
    let test = "a_port_that_may_not_be_reached_is_named_once_with_those_that_may";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let network = format!("ff{:04x}{:04x}000000", 5000, 6000);
    let mut command = peersock(&["addr", &network, "--state"]);
    command.arg(lab.path("alpha"));
    let address = run(command).success().text().trim().to_owned();
    let script = format!(
        "import socket, errno
for port in 80, 80:
    try: socket.create_connection(('{address}', port))
    except OSError as error: print(errno.errorcode[error.errno])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for _ in range(2):
    try: s.sendto(b'x', ('{address}', 53))
    except OSError as error: print(errno.errorcode[error.errno])"
    );
    let command = lab.command_in(Path::new(&network), "alpha", &[], &["python3", "-c", &script]);
    let got = run(command).success();
    assert_eq!(got.text(), "EACCES\n".repeat(4));
    for port in [80, 53] {
        let said = format!("port {port} is not allowed: network {network} allows ports 5000 to 6000");
        assert_eq!(got.stderr.matches(&said).count(), 1, "{}", got.stderr);
    }
}
