//! Data that a listener has acknowledged before a signal is written before it ends.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;

use peersock::blocking::TcpStream;
use rustix::process::Signal;

use crate::common::{Lab, PATIENCE, signal, without_variables};
use crate::delivery::member;

/// Number of bytes: more than a socket between programs holds, but not more than that, a read and a receive
/// buffer together.
const MUCH: usize = 300_000;

#[test]
fn what_was_acknowledged_is_written_after_a_signal() {
    for (options, sent) in [(&["-k"][..], Signal::TERM), (&["-k"], Signal::INT), (&[], Signal::TERM)] {
        let lab = Lab::new();
        let mut listening = Listening::start(&lab, options);
        let mut dialing = lab.dial(&listening.target, &[]);
        let content = content();
        dialing.send(&content);
        // The listener's stdin is at its end, so the sender is satisfied with the acknowledgment.
        dialing.finish().success();
        signal(sent, listening.child.id());
        assert_eq!(listening.read_all().len(), MUCH, "{options:?}, {sent:?}");
        assert_eq!(listening.wait(), 128 + sent.as_raw());
        assert!(!listening.said().contains("lost"));
    }
}

/// Shells make background jobs ignore the signal.
#[test]
fn a_signal_that_is_ignored_from_the_start_ends_nothing() {
    let lab = Lab::new();
    let listener = lab.node("listener", &["listen", "-k", "0"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' INT; exec \"$@\"", "sh"]);
    shell.arg(listener.get_program()).args(listener.get_args());
    without_variables(&mut shell);
    let listening = lab.listen_with(shell, &[]);
    signal(Signal::INT, listening.running.id());
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"still here\n");
    dialing.end_stdin();
    listening.running.wait_for_stdout("still here\n");
    dialing.finish();
    signal(Signal::TERM, listening.running.id());
    listening.running.finish().failure(128 + Signal::TERM.as_raw(), &[]);
}

#[test]
fn a_sender_that_is_not_done_is_reset_and_what_it_was_acknowledged_is_written() {
    let lab = Lab::new();
    let (node, _) = member(&lab);
    let mut listening = Listening::start(&lab, &["-k"]);
    let address: std::net::SocketAddr = listening.target.parse().expect("an address");
    let mut stream = TcpStream::connect_on(&node, address).expect("connect");
    stream.write_all(&content()).expect("somebody reads");
    stream.wait_delivered(Some(PATIENCE)).expect("there is room for it");
    signal(Signal::TERM, listening.child.id());
    // The end of the listener's stdin arrives first.
    stream.read_to_end(&mut Vec::new()).ok();
    let error = loop {
        if let Err(error) = stream.write_all(b"more").and_then(|()| stream.wait_delivered(Some(PATIENCE))) {
            break error;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    };
    assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()), "{error}");
    let _ = stream.shutdown(Shutdown::Both);
    let read = listening.read_all();
    assert!(read.len() >= MUCH && read.starts_with(&content()), "{} bytes", read.len());
    assert_eq!(listening.wait(), 128 + Signal::TERM.as_raw());
}

#[test]
fn stdout_that_takes_nothing_holds_the_end_up_for_seconds_only_and_a_second_signal_ends_at_once() {
    for signals in [1, 2] {
        let lab = Lab::new();
        let mut listening = Listening::start(&lab, &["-k"]);
        let mut dialing = lab.dial(&listening.target, &[]);
        dialing.send(&content());
        dialing.finish().success();
        signal(Signal::TERM, listening.child.id());
        listening.wait_for("one more signal ends the program at once");
        if signals == 2 {
            signal(Signal::TERM, listening.child.id());
        }
        assert_eq!(listening.wait(), 128 + Signal::TERM.as_raw());
        assert_eq!(listening.said().contains("the rest is lost"), signals == 1);
    }
}

fn content() -> Vec<u8> {
    (0..MUCH).map(|at| (at * 31 % 251) as u8).collect()
}

/// A listener whose stdin is at its end, and whose stdout is not read until [`Listening::read_all`].
struct Listening {
    child: Child,
    target: String,
    stdout: File,
    stderr: BufReader<std::process::ChildStderr>,
    said: String,
}

impl Listening {
    fn start(lab: &Lab, options: &[&str]) -> Listening {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut child = lab
            .node("listener", &["listen", "0"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let stdout = File::from(OwnedFd::from(ours));
        let mut listening = Listening { child, target: String::new(), stdout, stderr, said: String::new() };
        let line = listening.wait_for("listening on ");
        listening.target = line.split(' ').next().expect("an address").to_owned();
        listening
    }

    /// Returns the text after these words on stderr.
    fn wait_for(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.stderr.read_line(&mut line).expect("text");
            assert!(length > 0, "{words:?} did not come: {}", self.said);
            self.said.push_str(&line);
            if let Some((_, rest)) = line.split_once(words) {
                return rest.trim_end().to_owned();
            }
        }
    }

    fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.stdout.read_to_end(&mut all).expect("what was written");
        all
    }

    /// Waits for the end; returns the exit status.
    fn wait(&mut self) -> i32 {
        self.stderr.read_to_string(&mut self.said).expect("text");
        self.child.wait().expect("it is our child").code().expect("it ends by itself")
    }

    fn said(&self) -> &str {
        &self.said
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
