//! A launcher that is killed or restarted: peers that wait for its programs notice.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{PATIENCE, Running, peersock, signal, vanish};
use crate::ending::MODES;
use crate::lab::{Lab, OWN};

/// The machine of a killed launcher still answers. So peers that wait for its programs notice within 2 s,
/// while data flows and after a long idle time.
#[test]
fn who_waits_for_a_program_whose_launcher_is_killed_hears_of_it() {
    let Some(lab) =
        Lab::with("who_waits_for_a_program_whose_launcher_is_killed_hears_of_it", &["python3", "curl"])
    else {
        return;
    };
    let server = "import socket, threading, time
def serve(c):
    c.recv(1000)
    c.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\nbegin')
    while endless:
        c.sendall(bytes(65536))
        time.sleep(.01)
    time.sleep(1000)
import sys
endless = sys.argv[1] == 'endless'
s = socket.create_server(('', 7000))
print('ready', flush=True)
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()";
    for (mode, kind) in MODES.iter().flat_map(|mode| [(mode, "endless"), (mode, "idle")]) {
        let start = |member, own: &[&str], program: &[&str]| {
            Running::start(lab.command(member, &[&["--mode", mode], own].concat(), program))
        };
        let serving = start("alpha", OWN, &["python3", "-c", server, kind]);
        serving.wait_for_stdout("ready");
        let body = lab.path(&format!("{mode}-{kind}"));
        let words = ["curl", "-sS", "--no-buffer", "-o", body.to_str().unwrap(), "http://10.77.0.1:7000/"];
        let downloading = start("beta", &[], &words);
        let wanted = if kind == "endless" { 1_000_000 } else { 5 };
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&body).map_or(0, |file| file.len()) < wanted {
            assert!(Instant::now() < deadline, "{mode}, {kind}: nothing comes");
            thread::sleep(Duration::from_millis(5));
        }
        if kind == "idle" {
            thread::sleep(Duration::from_secs(3));
        }
        vanish(Signal::KILL, serving.id());
        let killed = Instant::now();
        // curl(1): failure in receiving network data.
        downloading.finish().failure(56, &["reset"]);
        assert!(killed.elapsed() < Duration::from_secs(2), "{mode}, {kind}: {:?}", killed.elapsed());
    }
}

/// The launcher's new instance reports that the earlier one is gone; nothing else does here.
#[test]
fn who_waits_for_a_program_whose_launcher_is_started_again_hears_of_it() {
    let test = "who_waits_for_a_program_whose_launcher_is_started_again_hears_of_it";
    for mode in MODES {
        let Some(lab) = Lab::with(test, &["python3"]) else { return };
        let server = "import socket, time
s = socket.create_server(('', 7000))
print('ready', flush=True)
c = s.accept()[0]
c.sendall(b'x')
time.sleep(1000)";
        let serving = Running::start(lab.command("alpha", OWN, &["python3", "-c", server]));
        serving.wait_for_stdout("ready");
        let client = "import errno, socket
s = socket.create_connection(('10.77.0.1', 7000), 60)
s.settimeout(None)
assert s.recv(1) == b'x'
print('connected', flush=True)
try: print('data' if s.recv(1) else 'an end', flush=True)
except OSError as error: print(errno.errorcode[error.errno], flush=True)
# The new instance is to be answered.
import time; time.sleep(1000)";
        let waiting = Running::start(lab.command("beta", &["--mode", mode], &["python3", "-c", client]));
        waiting.wait_for_stdout("connected\n");
        vanish(Signal::STOP, serving.id());
        // A stopped launcher keeps its directory locked.
        let again = lab.path("again");
        fs::create_dir(&again).unwrap();
        fs::copy(lab.path("alpha").join("identity.key"), again.join("identity.key")).unwrap();
        let mut ping = peersock(&["ping", "-c", "100", "-i", "0.1", "--interface", "lo", "10.77.0.2"]);
        ping.arg("--state").arg(&again).arg("--network").arg(lab.path("network.toml"));
        let again = Running::start(ping);
        again.wait_for_stdout("from ");
        let reached = Instant::now();
        waiting.wait_for_stdout("ECONNRESET\n");
        assert!(reached.elapsed() < Duration::from_secs(1), "{mode}: {:?}", reached.elapsed());
        again.interrupt();
        signal(Signal::KILL, serving.id());
    }
}
