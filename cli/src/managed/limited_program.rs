//! One run of a program with limits: a time, an amount of output, and an end for all that it has started.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Maximum number of bytes that a program may print.
pub(super) const MAX_OUTPUT: usize = 64 << 10;

/// Number of bytes of its errors that are kept.
const MAX_ERRORS: usize = 4 << 10;

/// Interval at which the program's end is looked for; the end of its output shows it earlier.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Variables that a program gets from the environment of this process, if they are set.
pub(super) const VARIABLES: [&str; 5] = ["PATH", "HOME", "USER", "LANG", "TZ"];

/// Reason why a run has no result.
#[derive(Debug)]
pub(super) enum Failed {
    /// The program cannot be started.
    Start(io::Error),
    /// The time limit has passed.
    Time,
    /// The output is longer than [`MAX_OUTPUT`].
    Output,
    /// The program has ended with another status than 0. The text is the last line of its errors.
    Status(ExitStatus, String),
}

/// Process groups of the programs that run, so that they end with this process.
#[derive(Clone, Default)]
pub(super) struct Groups(Arc<Mutex<Ended>>);

#[derive(Default)]
struct Ended {
    groups: BTreeSet<i32>,
    is_over: bool,
}

impl Groups {
    /// Ends all programs that run, and those that are about to start.
    pub(super) fn end(&self) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.is_over = true;
        ended.groups.iter().filter_map(|group| Pid::from_raw(*group)).for_each(kill);
    }

    fn add(&self, group: Pid) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.groups.insert(group.as_raw_pid());
        if ended.is_over {
            kill(group);
        }
    }

    /// Ends what is left of a group whose first process has ended, and was not waited for. Its number belongs
    /// to no other process until then.
    fn remove(&self, group: Pid) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kill(group);
        ended.groups.remove(&group.as_raw_pid());
    }
}

fn kill(group: Pid) {
    // The group may have ended.
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
}

/// Runs a program with `input` on its standard input, and returns what it prints, if its status is 0. `input`
/// has at most 4096 bytes, which every pipe takes at once.
///
/// The program has its own process group, few variables, and no descriptor that this process has opened. When
/// it has ended or a limit is reached, all processes of the group are killed. Its output counts as far as it
/// was written when it ended, so that a process that it leaves behind delays nothing.
pub(super) fn run(program: &Path, input: &[u8], limit: Duration, groups: &Groups) -> Result<Vec<u8>, Failed> {
    let deadline = Instant::now() + limit;
    let (reader, mut writer) = io::pipe().map_err(Failed::Start)?;
    // Before the start, so that a program that does not read cannot delay this.
    writer.write_all(input).map_err(Failed::Start)?;
    drop(writer);
    let kept = VARIABLES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let mut command = Command::new(program);
    command.env_clear().envs(kept).process_group(0);
    command.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Failed::Start)?;
    // The pipe's other end is the child's alone from now on.
    drop(command);
    let group = Pid::from_child(&child);
    groups.add(group);
    let mut output = Pipe::of(child.stdout.take().map(OwnedFd::from), MAX_OUTPUT + 1);
    let mut errors = Pipe::of(child.stderr.take().map(OwnedFd::from), MAX_ERRORS);
    let ended = loop {
        let has_ended = has_ended(group);
        // After the look, so that all is read that was written before the end.
        output.read();
        errors.read();
        if output.bytes.len() > MAX_OUTPUT {
            break Err(Failed::Output);
        }
        if has_ended {
            break Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Err(Failed::Time);
        }
        wait(&[&output, &errors], left.min(LOOK_INTERVAL));
    };
    groups.remove(group);
    let status = child.wait().map_err(Failed::Start)?;
    ended?;
    match status.success() {
        true => Ok(output.bytes),
        false => Err(Failed::Status(status, errors.last_line())),
    }
}

/// Returns true if the process has ended, and leaves it to be waited for.
fn has_ended(process: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match rustix::process::waitid(WaitId::Pid(process), options) {
        Ok(status) => status.is_some(),
        Err(error) => error != rustix::io::Errno::INTR,
    }
}

/// Waits until a pipe can be read, for a time at most.
fn wait(pipes: &[&Pipe], pause: Duration) {
    let open = pipes.iter().filter_map(|pipe| pipe.file.as_ref());
    let mut polled: Vec<_> = open.map(|file| PollFd::new(file, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
    if polled.is_empty() || rustix::event::poll(&mut polled, Some(&timeout)).is_err() {
        thread::sleep(pause.min(Duration::from_millis(10)));
    }
}

/// Reading end of a pipe; bytes beyond a number are dropped.
struct Pipe {
    file: Option<File>,
    max: usize,
    bytes: Vec<u8>,
}

impl Pipe {
    fn of(end: Option<OwnedFd>, max: usize) -> Pipe {
        let file = end
            .map(File::from)
            .filter(|file| rustix::fs::fcntl_setfl(file.as_fd(), OFlags::NONBLOCK).is_ok());
        Pipe { file, max, bytes: Vec::new() }
    }

    /// Reads what is there, once around the pipe's size at most: a program that prints without end must not
    /// keep this from its time limit.
    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        for _ in 0..8 {
            let Some(file) = &mut self.file else { return };
            match file.read(&mut buffer) {
                Ok(0) => self.file = None,
                Ok(count) => {
                    let room = self.max - self.bytes.len();
                    self.bytes.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.file = None,
            }
        }
    }

    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    /// Long enough that only a test that fails reaches it.
    const LONG: Duration = Duration::from_secs(120);

    struct Script(tempfile::TempDir);

    impl Script {
        fn new(text: &str) -> Script {
            let folder = tempfile::tempdir().expect("a folder");
            let script = Script(folder);
            fs::write(script.path(), format!("#!/bin/sh\ncd '{}'\n{text}\n", script.0.path().display()))
                .expect("room");
            fs::set_permissions(script.path(), fs::Permissions::from_mode(0o700)).expect("ours");
            script
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("program")
        }

        fn run(&self, limit: Duration) -> Result<Vec<u8>, Failed> {
            run(&self.path(), b"input\n", limit, &Groups::default())
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.path().join(name)).expect("the program has written it")
        }

        /// Waits until the process whose number the program has written is gone, or is not waited for.
        fn wait_for_end_of(&self, name: &str) {
            let process = self.read(name).trim().to_owned();
            let begun = Instant::now();
            let is_alive = || {
                let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
            };
            while is_alive() {
                assert!(begun.elapsed() < LONG, "process {process} lives on");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn input_and_output_pass_and_little_else() {
        let script = Script::new("cat; env; ls -l /proc/self/fd > descriptors");
        let folder = tempfile::tempdir().expect("a folder");
        let _open = File::create(folder.path().join("opened-here")).expect("room");
        let output = String::from_utf8(script.run(LONG).expect("status 0")).expect("text");
        let (input, variables) = output.split_once('\n').expect("a line");
        assert_eq!(input, "input");
        for line in variables.lines() {
            let name = line.split('=').next().unwrap_or_default();
            // The last three are the shell's own.
            let is_known = VARIABLES.contains(&name) || ["PWD", "OLDPWD", "SHLVL", "_"].contains(&name);
            assert!(is_known, "{line}");
        }
        let descriptors = script.read("descriptors");
        assert!(descriptors.contains(" -> ") && !descriptors.contains("opened-here"), "{descriptors}");
    }

    #[test]
    fn a_program_ends_at_its_limit_with_its_children() {
        let script = Script::new("sleep 1000 & echo $! > child; echo $$ > own; echo '{}'; sleep 1000");
        // Whatever the limit, the program does not end earlier. Its files tell when it has begun.
        let mut limit = Duration::from_millis(300);
        loop {
            assert!(matches!(script.run(limit), Err(Failed::Time)));
            if script.0.path().join("own").exists() {
                break;
            }
            limit *= 2;
        }
        script.wait_for_end_of("own");
        script.wait_for_end_of("child");
    }

    #[test]
    fn a_program_that_closes_its_output_and_lives_on_reaches_the_limit() {
        let script = Script::new("echo '{}'; exec >&- 2>&-; sleep 1000");
        assert!(matches!(script.run(Duration::from_millis(300)), Err(Failed::Time)));
    }

    #[test]
    fn a_child_that_holds_the_output_delays_nothing_and_is_ended() {
        let script = Script::new("sleep 1000 & echo $! > child; echo done");
        assert_eq!(script.run(LONG).expect("status 0"), b"done\n");
        script.wait_for_end_of("child");
    }

    #[test]
    fn too_much_output_is_no_result() {
        let script = Script::new("exec yes");
        assert!(matches!(script.run(LONG), Err(Failed::Output)));
        let errors = Script::new("yes | head -c 1000000 >&2; echo last >&2; echo fine");
        assert_eq!(errors.run(LONG).expect("status 0"), b"fine\n");
    }

    #[test]
    fn a_status_other_than_0_is_no_result() {
        let script = Script::new("echo '{}'; echo first >&2; echo no directory >&2; exit 3");
        match script.run(LONG) {
            Err(Failed::Status(status, text)) => {
                assert_eq!((status.code(), text.as_str()), (Some(3), "no directory"));
            }
            other => panic!("{other:?}"),
        }
        let killed = Script::new("kill -9 $$");
        assert!(matches!(killed.run(LONG), Err(Failed::Status(status, _)) if status.code().is_none()));
    }

    #[test]
    fn what_cannot_be_started_is_no_result() {
        let groups = Groups::default();
        let missing = run(Path::new("/nonexistent/program"), b"", LONG, &groups);
        assert!(matches!(missing, Err(Failed::Start(_))));
        let script = Script::new("true");
        fs::set_permissions(script.path(), fs::Permissions::from_mode(0o600)).expect("ours");
        assert!(matches!(script.run(LONG), Err(Failed::Start(_))));
        assert!(groups.0.lock().expect("no panic").groups.is_empty());
    }

    #[test]
    fn programs_end_with_this_process() {
        let script = Script::new("echo $$ > own; mv own written; sleep 1000");
        let groups = Groups::default();
        thread::scope(|scope| {
            let running = scope.spawn(|| run(&script.path(), b"", LONG, &groups));
            let begun = Instant::now();
            while !script.0.path().join("written").exists() {
                assert!(begun.elapsed() < LONG, "the program does not start");
                thread::sleep(Duration::from_millis(5));
            }
            groups.end();
            assert!(matches!(running.join().expect("no panic"), Err(Failed::Status(..))));
        });
        assert!(matches!(run(&script.path(), b"", LONG, &groups), Err(Failed::Status(..))));
    }
}
