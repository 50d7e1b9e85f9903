//! Two machines on one cable, with interfaces for a static network that has addresses of both families.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cable::{Cable, ip};
use crate::common::{Finished, Lab, PATIENCE, Running, lacks, run, without_variables};
use crate::exit_scene::inside;

/// Interface of each machine.
pub(crate) const NAME: &str = "peersock0";

/// Addresses of the members in the network, and a block behind the second one.
pub(crate) const V4: [&str; 2] = ["10.97.0.1", "10.97.0.2"];
pub(crate) const BLOCK: &str = "192.168.77.0/24";

/// ID of the user `nobody`.
pub(crate) const NOBODY: &str = "65534";

pub(crate) struct Office {
    pub(crate) cable: Cable,
    pub(crate) lab: Lab,
}

impl Office {
    /// Creates two machines, and the network's file. No program runs yet.
    pub(crate) fn lay(name: &str) -> Option<Office> {
        Self::lay_with(name, &[BLOCK])
    }

    /// Lays out machines likewise, with other blocks behind the second one.
    pub(crate) fn lay_with(name: &str, blocks: &[&str]) -> Option<Office> {
        if lacks(name, &["ip", "ping", "python3", "sysctl"]) {
            return None;
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("SKIP {name}: there is no /dev/net/tun");
            return None;
        }
        let cable = Cable::lay(name, &["10.98.7.1/24", "10.98.7.2/24"])?;
        let office = Office { cable, lab: Lab::new() };
        let file = office.file();
        let of = |node: &str, words: &[&str]| run(office.lab.command(node, words)).success();
        of("up0", &["network", "new", &file, "--name", "one", "--address", V4[0]]);
        let mut words = vec!["network", "add", &file, "--name", "two", "--address", V4[1]];
        words.extend(blocks.iter().flat_map(|block| ["--route", block]));
        of("up1", &words);
        Some(office)
    }

    /// Moves the identity of the first machine to the user [`NOBODY`], whose home is a folder of the test.
    /// Returns this home and the state directory in it.
    pub(crate) fn give_to_nobody(&self) -> (PathBuf, PathBuf) {
        let (top, home) = (self.lab.dir.path(), self.lab.dir.path().join("home"));
        let state = home.join(".local/state/peersock");
        fs::create_dir_all(&state).expect("a folder");
        fs::rename(self.lab.state("up0").join("identity.key"), state.join("identity.key"))
            .expect("the identity");
        for (path, mode) in [(top, 0o755), (self.file().as_ref(), 0o644), (&state, 0o700)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
        let user = Some(NOBODY.parse().expect("a number"));
        chown(state.join("identity.key"), user, user).expect("root may");
        for folder in state.ancestors().take_while(|folder| *folder != top) {
            chown(folder, user, user).expect("root may");
        }
        (home, state)
    }

    pub(crate) fn file(&self) -> String {
        self.lab.dir.path().join("office.toml").to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn inside(&self, machine: usize, words: &[&str]) -> Command {
        let mut command = inside(&self.cable.ends[machine], words);
        without_variables(&mut command);
        command
    }

    pub(crate) fn run(&self, machine: usize, words: &[&str]) -> Finished {
        run(self.inside(machine, words))
    }

    pub(crate) fn up_command(&self, machine: usize) -> Command {
        let mut command =
            self.inside(machine, &[env!("CARGO_BIN_EXE_peersock"), "up", "--network", &self.file()]);
        command.arg("--state").arg(self.lab.state(&format!("up{machine}")));
        command
    }

    /// Starts the command on a machine, and waits until it is up.
    pub(crate) fn up(&self, machine: usize) -> Running {
        let up = Running::start(self.up_command(machine));
        up.wait_for_stdout(V4[machine]);
        up
    }

    /// Repeats echo requests of this size until one is answered; the packets may be fragmented.
    pub(crate) fn ping(&self, machine: usize, to: &str, size: &str) {
        let begin = Instant::now();
        loop {
            let pinged = self.run(machine, &["ping", "-M", "dont", "-c", "1", "-W", "2", "-s", size, to]);
            if pinged.text().contains("1 received") {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{to} with {size} bytes: {}{}", pinged.text(), pinged.stderr);
        }
    }

    /// Returns addresses, routes and MTU of the interface, as far as the command sets them.
    pub(crate) fn placed(&self, machine: usize) -> String {
        let shows: [&[&str]; 4] = [
            &["ip", "-o", "addr", "show", "dev", NAME],
            &["ip", "route", "show", "dev", NAME],
            &["ip", "-6", "route", "show", "dev", NAME],
            &["ip", "-o", "link", "show", "dev", NAME],
        ];
        let all: String = shows.iter().map(|words| self.run(machine, words).text().to_owned()).collect();
        // Skips the link-local addresses and routes that the kernel adds; the addresses differ each time.
        let is_own =
            |line: &&str| !["fe80:", "multicast ff00", "proto kernel"].iter().any(|no| line.contains(no));
        let lines = all.lines().filter(is_own);
        let is_word = |word: &&str| !word.ends_with(':') && !word.starts_with("valid_lft");
        let mut lines: Vec<_> =
            lines.map(|line| line.split_whitespace().filter(is_word).collect::<Vec<_>>().join(" ")).collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    /// Waits until the interface has all these settings.
    pub(crate) fn wait_until_placed(&self, machine: usize, wanted: &str, said: impl Fn() -> String) {
        let begin = Instant::now();
        while self.placed(machine) != wanted {
            let now = self.placed(machine);
            assert!(begin.elapsed() < PATIENCE, "it has\n{now}\nand not\n{wanted}\n{}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn ip(&self, machine: usize, words: &[&str]) {
        let all = [&["-n", &self.cable.ends[machine]], words].concat();
        assert!(ip(&all), "{words:?}");
    }
}
