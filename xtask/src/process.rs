//! A child process whose output arrives line by line, with the time of each line.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock_primitives::sync;
use rustix::process::Pid;

use crate::Result;
use crate::cleanup::{Guard, Undo};

/// Number of standard error lines kept for an error message.
const KEPT_ERRORS: usize = 5;
/// Interval at which a wait polls for the end of the process.
const WAIT_STEP: Duration = Duration::from_millis(5);

/// A running child. Dropping it kills it.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<(Instant, String)>,
    errors: Arc<Mutex<VecDeque<String>>>,
    readers: Vec<JoinHandle<()>>,
    guard: Option<Guard>,
}

impl Process {
    /// Starts a command. `name` is for messages.
    pub(crate) fn spawn(name: &str, mut command: Command) -> Result<Process> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("cannot start {name}: {e}"))?;
        let guard = Pid::from_raw(child.id().cast_signed()).map(|pid| Guard::new(Undo::End(pid)));
        let (sender, lines) = mpsc::channel();
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(each_line(stdout, move |line| {
                let _ = sender.send((Instant::now(), line));
            }));
        }
        if let Some(stderr) = child.stderr.take() {
            let errors = Arc::clone(&errors);
            readers.push(each_line(stderr, move |line| {
                let mut errors = sync::lock(&errors);
                errors.push_back(line);
                if errors.len() > KEPT_ERRORS {
                    errors.pop_front();
                }
            }));
        }
        let stdin = child.stdin.take();
        Ok(Process { name: name.to_owned(), child, stdin, lines, errors, readers, guard })
    }

    /// Returns the process ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line of output, and returns it with its time.
    /// Fails if the timeout passes, or the process ends without another line.
    pub(crate) fn line(&self, timeout: Duration) -> Result<(Instant, String)> {
        self.lines.recv_timeout(timeout).map_err(|e| match e {
            RecvTimeoutError::Timeout => self.error("says nothing"),
            RecvTimeoutError::Disconnected => self.error("ended"),
        })
    }

    /// Writes a line to the process's standard input.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("its standard input is closed")?;
        writeln!(stdin, "{line}").map_err(|_| self.error("reads nothing"))
    }

    /// Waits for the end of the process and returns the last unread line.
    /// Fails if the process fails, prints nothing, or does not end in time.
    pub(crate) fn finish(mut self, timeout: Duration) -> Result<String> {
        drop(self.stdin.take());
        let status = self.wait(timeout)?;
        self.join_readers();
        if !status.success() {
            return Err(self.error(&format!("failed ({status})")));
        }
        let last = self.lines.try_iter().last();
        last.map(|(_, line)| line).ok_or_else(|| self.error("printed nothing"))
    }

    /// Asks the process to end, so that it can end its own children. Kills it if it does not end in time.
    pub(crate) fn end(mut self, timeout: Duration) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // The process may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.wait(timeout);
    }

    fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.forget();
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(self.error(&format!("did not end within {} s", timeout.as_secs())));
            }
            thread::sleep(WAIT_STEP);
        }
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader only panics if a lock is poisoned, which the other readers then report.
            let _ = reader.join();
        }
    }

    /// Disarms the guard after the process was reaped, because its ID may belong to another process now.
    fn forget(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
    }

    fn error(&self, what: &str) -> Box<dyn std::error::Error> {
        let errors = sync::lock(&self.errors);
        let tail: Vec<&str> = errors.iter().map(String::as_str).collect();
        format!("{} {what}: {}", self.name, tail.join(" | ")).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.guard.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.forget();
        }
        self.join_readers();
    }
}

fn each_line(
    source: impl Read + Send + 'static,
    mut each: impl FnMut(String) + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(source).split(b'\n') {
            let Ok(line) = line else { break };
            each(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("script", command).expect("a shell")
    }

    #[test]
    fn lines_come_one_by_one_and_the_last_one_is_the_result() {
        let mut process = shell("echo one; read x; echo got $x");
        assert_eq!(process.line(EXIT_TIMEOUT).expect("a line").1, "one");
        process.tell("two").expect("it reads");
        assert_eq!(process.finish(EXIT_TIMEOUT).expect("success"), "got two");
    }

    #[test]
    fn a_failure_tells_what_the_process_said() {
        let e = shell("echo broken >&2; exit 3").finish(EXIT_TIMEOUT).expect_err("it fails");
        assert!(e.to_string().contains("broken"), "{e}");
    }

    #[test]
    fn a_process_that_hangs_is_killed() {
        let process = shell("exec sleep 100");
        assert!(process.line(Duration::from_millis(20)).is_err());
        let start = Instant::now();
        drop(process);
        assert!(start.elapsed() < EXIT_TIMEOUT);
    }
}
