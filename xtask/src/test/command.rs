//! Runs commands with visible output.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use rustix::process::Pid;

use super::Outcome;
use crate::cleanup::{Guard, Undo};
use crate::{Result, cargo, root};

/// Time limit of a command, which only a hang exceeds. Building all tests takes a slow machine half of it.
const LIMIT: Duration = Duration::from_secs(60 * 60);
const WAIT_STEP: Duration = Duration::from_millis(10);

/// Number of last lines of a command's standard error that are kept.
const LAST_LINES: usize = 25;

/// Result of a command that has ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Whole standard output.
    pub(super) output: String,
    /// Last lines of the standard error. Empty if it was a terminal, to which commands write in another form.
    last_errors: String,
}

/// Runs a command that is one check.
pub(super) fn check(what: &str, command: Command) -> Result<Outcome> {
    let (success, _) = run(command)?;
    Ok(Outcome::of(what, success))
}

/// Runs a command, shows its output, and returns its standard output too. Returns false if it failed.
/// Fails if the command cannot be started, or hangs.
pub(super) fn run(command: Command) -> Result<(bool, String)> {
    let (status, output) = run_for_status(command)?;
    Ok((status.success(), output))
}

/// Does the same, and returns the exit status.
/// Fails if the command cannot be started, or hangs.
pub(super) fn run_for_status(command: Command) -> Result<(ExitStatus, String)> {
    let ended = run_to_end(command)?;
    Ok((ended.status, ended.output))
}

/// Does the same, and also returns the end of the standard error.
/// Fails if the command cannot be started, or hangs.
pub(super) fn run_to_end(mut command: Command) -> Result<Ended> {
    println!("$ {}", display(&command));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if !io::stderr().is_terminal() {
        command.stderr(Stdio::piped());
    }
    let mut child = command.spawn().map_err(|e| format!("cannot start {}: {e}", display(&command)))?;
    let guard = Pid::from_raw(child.id().cast_signed()).map(|pid| Guard::new(Undo::End(pid)));
    let reader = child.stdout.take().map(|stdout| thread::spawn(move || show(BufReader::new(stdout))));
    let errors = child.stderr.take().map(|stderr| thread::spawn(move || show_errors(BufReader::new(stderr))));
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            drop(guard);
            child.wait()?;
            return Err(format!("ended after {} minutes: {}", LIMIT.as_secs() / 60, display(&command)).into());
        }
        thread::sleep(WAIT_STEP);
    };
    if let Some(guard) = guard {
        guard.disarm();
    }
    let output = match reader.map(thread::JoinHandle::join) {
        Some(Ok(output)) => output?,
        _ => return Err("its output was lost".into()),
    };
    let last_errors = match errors.map(thread::JoinHandle::join) {
        Some(Ok(last)) => last?,
        Some(Err(_)) => return Err("its standard error was lost".into()),
        None => String::new(),
    };
    Ok(Ended { status, output, last_errors })
}

/// Runs tests by nextest, and counts the results in its report of this profile.
/// Fails if the command cannot be started or hangs, or there is no report because the tests did not run.
pub(super) fn nextest(command: Command, profile: &str, what: &str) -> Result<Outcome> {
    // Path from .config/nextest.toml.
    let junit = root().join(format!("target/nextest/{profile}/junit.xml"));
    let _ = fs::remove_file(&junit);
    let ended = run_to_end(command)?;
    let xml = fs::read_to_string(junit)
        .map_err(|_| format!("{what} did not begin: is cargo-nextest installed?"))?;
    Ok(ended.counted(what, Outcome::from_junit(&xml)?))
}

impl Ended {
    /// Counts a runner's own failure if it failed without naming a failed test: its status and last words.
    pub(super) fn counted(self, what: &str, mut outcome: Outcome) -> Outcome {
        if !self.status.success() && outcome.failed.is_empty() {
            let what = format!("{what}, before or after its tests: {}", self.status);
            outcome.failed.push((what, self.last_errors));
        }
        outcome
    }
}

/// Returns true if `cargo NAME` is installed.
pub(super) fn has_component(name: &str) -> bool {
    let mut version = cargo();
    version.args([name, "--version"]);
    works(version)
}

/// Removes the user's settings from the command's environment.
pub(super) fn without_settings(command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PEERSOCK_")) {
        command.env_remove(name);
    }
    // The user's file is none of the tests' either.
    command.env("PEERSOCK_CONFIG", "");
}

/// Returns true if a command exists and succeeds, without showing it.
pub(super) fn works(mut command: Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn show(output: impl BufRead) -> io::Result<String> {
    let mut all = String::new();
    for line in output.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        all.push_str(&line);
        all.push('\n');
    }
    Ok(all)
}

/// Shows a command's standard error, and returns its last lines.
fn show_errors(errors: impl BufRead) -> io::Result<String> {
    let mut last = VecDeque::with_capacity(LAST_LINES);
    for line in errors.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(io::stderr(), "{line}")?;
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    Ok(Vec::from(last).join("\n"))
}

/// Returns the command as a user would type it.
fn display(command: &Command) -> String {
    let mut words: Vec<String> = Vec::new();
    for (key, value) in command.get_envs() {
        if let Some(value) = value.filter(|_| key != "PATH") {
            let value = value.to_string_lossy();
            words.push(if value.contains(' ') {
                format!("{}='{value}'", key.to_string_lossy())
            } else {
                format!("{}={value}", key.to_string_lossy())
            });
        }
    }
    let program = std::path::Path::new(command.get_program());
    words.push(program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned());
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_success_are_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two; exit 1"]);
        let (success, output) = run(command).expect("a shell");
        assert!(!success);
        assert_eq!(output, "one\ntwo\n");
        assert!(!works(Command::new("/nonexistent")));
    }

    #[test]
    fn a_runner_s_own_failure_is_told_with_its_last_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "seq 30 >&2; echo it is gone >&2; exit 104"]);
        let mut ended = run_to_end(command).expect("a shell");
        if io::stderr().is_terminal() {
            ended.last_errors = "29\n30\nit is gone".to_owned();
        }
        let outcome = ended.counted("tests", Outcome::passed());
        assert_eq!(outcome.to_string(), "1 passed, 1 failed, 0 skipped");
        let (what, text) = &outcome.failed[0];
        assert_eq!(what, "tests, before or after its tests: exit status: 104");
        assert!(text.ends_with("\n30\nit is gone") && text.lines().count() <= LAST_LINES, "{text}");
    }

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["doc"]).env("FLAGS", "-D warnings");
        assert_eq!(display(&command), "FLAGS='-D warnings' cargo doc");
    }
}
