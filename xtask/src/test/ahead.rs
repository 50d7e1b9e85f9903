//! Builds ahead: later steps' requirements are built while tests wait.
//!
//! Tests, in Python above all, wait for most of their time. Meanwhile this module builds the release builds
//! and the fuzz targets. They go to separate folders, so that cargo's locks block no step. They have the
//! lowest priority, so that tests get the processors whenever they need them. A failed build here is silent:
//! the step that needs it builds again and shows the output.

use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use super::command::works;
use super::fuzz;
use super::workspace::Workspace;
use crate::cleanup::Guard;
use crate::{Result, cargo, install};

/// Steps in which processors are idle.
const WAITING: [&str; 2] = ["tests", "python"];

/// Commands that build one thing. After a failure the rest is useless.
struct Build {
    /// Steps that need it.
    steps: &'static [&'static str],
    commands: Vec<Command>,
}

/// Builds in the background, one after another.
#[derive(Default)]
pub(super) struct Ahead {
    /// Started builds that may still run, each with the receiver of its end.
    pending: Vec<(&'static [&'static str], Receiver<()>)>,
}

impl Ahead {
    /// Prepares a step so that nothing disturbs it. It waits for the builds that the step needs. Before the
    /// first waiting step it starts the builds of later steps.
    /// Fails if the search path is broken.
    pub(super) fn prepare(&mut self, step: &str, later: &[&str], workspace: &Workspace) -> Result<()> {
        if WAITING.contains(&step) && self.pending.is_empty() {
            let mut builds = builds(workspace)?;
            builds.retain(|build| build.steps.iter().any(|step| later.contains(step)));
            self.start(builds);
        }
        self.wait_for(step);
        Ok(())
    }

    fn start(&mut self, builds: Vec<Build>) {
        let mut work = Vec::new();
        for build in builds {
            // Dropping the sender is the signal, so it is sent in any case.
            let (sender, ended) = mpsc::sync_channel(0);
            self.pending.push((build.steps, ended));
            work.push((build.commands, sender));
        }
        thread::spawn(move || {
            for (commands, _ended) in work {
                let _ = commands.into_iter().map(lowest_priority).all(succeeds);
            }
        });
    }

    /// Waits for the last build that a step needs, and so for all before it.
    fn wait_for(&mut self, step: &str) {
        if let Some(last) = self.pending.iter().rposition(|(steps, _)| steps.contains(&step)) {
            for (_, ended) in self.pending.drain(..=last) {
                let _ = ended.recv();
            }
        }
    }
}

/// Returns all worthwhile builds, in the order of the steps.
fn builds(workspace: &Workspace) -> Result<Vec<Build>> {
    let release = |package| {
        let mut command = cargo();
        command.args(["build", "--release", "--package", package]);
        command
    };
    let mut python = Command::new("python3");
    python.arg("--version");
    let module = if works(python) { vec![release("peersock-python")] } else { Vec::new() };
    Ok(vec![
        Build { steps: &["python", "dist"], commands: module },
        Build { steps: &["readme", "dist"], commands: vec![release("peersock-cli")] },
        Build { steps: &["readme", "dist"], commands: vec![install::command("release")] },
        Build { steps: &["fuzz"], commands: fuzz::builds(workspace)? },
    ])
}

/// Returns the same command with the lowest scheduling priority.
fn lowest_priority(command: Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", "19"]).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        nice.current_dir(folder);
    }
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => nice.env(key, value),
            None => nice.env_remove(key),
        };
    }
    nice
}

/// Runs a command without showing it.
fn succeeds(mut command: Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok((mut child, guard)) = Guard::spawn(&mut command) else { return false };
    let status = child.wait();
    guard.disarm();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn shell(script: &str, folder: &std::path::Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(folder).env("WORD", "said");
        command
    }

    #[test]
    fn a_step_finds_what_it_needs_built() {
        let folder = tempfile::tempdir().expect("a folder");
        let shell = |script| shell(script, folder.path());
        let mut ahead = Ahead::default();
        ahead.start(vec![
            Build { steps: &["first"], commands: vec![shell("false"), shell("touch useless")] },
            Build {
                steps: &["second", "third"],
                commands: vec![shell("echo $WORD > one"), shell("nice > two")],
            },
            Build { steps: &["last"], commands: vec![shell("until [ -e go ]; do sleep 0.01; done")] },
        ]);
        ahead.wait_for("clippy");
        ahead.wait_for("third");
        let read = |name: &str| fs::read_to_string(folder.path().join(name));
        assert_eq!(read("one").expect("the environment is the command's"), "said\n");
        assert_eq!(read("two").expect("the second command ran"), "19\n");
        assert!(read("useless").is_err(), "it goes on after a failure");
        // No build is waited for twice, and no build that only other steps need.
        ahead.wait_for("second");
        assert_eq!(ahead.pending.len(), 1);
        fs::write(folder.path().join("go"), "").expect("a file");
        ahead.wait_for("last");
        assert!(ahead.pending.is_empty());
    }

    #[test]
    fn nobody_waits_for_what_does_not_exist() {
        let mut ahead = Ahead::default();
        ahead.start(vec![Build { steps: &["fuzz"], commands: vec![Command::new("/nonexistent")] }]);
        ahead.wait_for("fuzz");
    }
}
