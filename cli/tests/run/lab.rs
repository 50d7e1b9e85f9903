//! A static network of three members on the loopback interface, with programs on it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Finished, Running, lacks, peersock, run, write_file};

/// The members, with their addresses besides the one derived from their key.
pub(crate) const MEMBERS: [(&str, &str, &str); 3] =
    [("alpha", "10.77.0.1", "fd77::1"), ("beta", "10.77.0.2", "fd77::2"), ("gamma", "10.77.0.3", "fd77::3")];

/// Option of a program whose node is to end or stop with its launcher.
pub(crate) const OWN: &[&str] = &["--own-node"];

/// IPv4 address of `alpha`, where most servers run.
pub(crate) const ALPHA: &str = "10.77.0.1";

/// Returns the command wrapped by a program with these arguments.
pub(crate) fn behind(words: &[&str], command: &Command) -> Command {
    let mut whole = Command::new(words[0]);
    whole.args(&words[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => whole.env(name, value),
            None => whole.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        whole.current_dir(folder);
    }
    whole
}

/// Script that echoes all input on port 7000. A program that reaches it over TCP also does over UDP. socat
/// does not echo the datagrams: it now and then waits for ever if several come together, also with kernel
/// sockets.
pub(crate) const ECHO: &str = "exec python3 -c '
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((\"\", 7000))
if os.fork(): os.execlp(\"socat\", \"socat\", \"TCP-LISTEN:7000,fork,reuseaddr\", \"EXEC:cat\")
while True: s.sendto(*s.recvfrom(65536))'";

/// A private network of a test, and a place for its files. Other users may access the place if they know the
/// names in it.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// Creates a lab; returns `None`, after printing it, if one of these programs is not installed.
    pub(crate) fn with(test: &str, programs: &[&str]) -> Option<Lab> {
        // These start every program, and most scripts.
        let lacks_any = lacks(test, &["setpriv", "bash"]) || lacks(test, programs);
        (!lacks_any).then(Lab::new)
    }

    fn new() -> Lab {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(lab.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let random = RandomState::new().hash_one(std::process::id());
        let mut text = format!("network = \"fe{:014x}\"\n", random >> 8);
        for (name, v4, v6) in MEMBERS {
            let mut command = peersock(&["id", "--json", "--state"]);
            command.arg(lab.path(name));
            let id = run(command).success();
            let key = serde_json::from_str::<serde_json::Value>(id.text()).unwrap()["public_key"].to_string();
            text +=
                &format!("[[member]]\nname = \"{name}\"\nkey = {key}\naddresses = [\"{v4}\", \"{v6}\"]\n");
        }
        lab.write("network.toml", &text);
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn folder(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    /// Writes a file in which `@DIR@` is replaced by the lab's folder.
    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        write_file(&path, &content.replace("@DIR@", self.folder()), 0o644);
        path.to_str().unwrap().to_owned()
    }

    /// Writes `size` pseudo-random bytes.
    pub(crate) fn write_random(&self, name: &str, size: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        bytes.truncate(size);
        fs::write(self.path(name), &bytes).unwrap();
        bytes
    }

    /// Returns a command of `peersock run` for a program as a member.
    pub(crate) fn command(&self, member: &str, options: &[&str], program: &[impl AsRef<OsStr>]) -> Command {
        self.command_in(&self.path("network.toml"), member, options, program)
    }

    /// Returns the ID of a private ad-hoc network of this test.
    pub(crate) fn ad_hoc(&self) -> String {
        let random = RandomState::new().hash_one(std::process::id());
        format!("ff{:04x}ffff000000", 1 + random as u16 % 8000)
    }

    /// Returns such a command in another network.
    pub(crate) fn command_in(
        &self,
        network: &Path,
        member: &str,
        options: &[&str],
        program: &[impl AsRef<OsStr>],
    ) -> Command {
        // The command gets SIGTERM when this test ends, however it ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", env!("CARGO_BIN_EXE_peersock")]);
        command.args(["run", "--quiet", "--interface", "lo"]);
        command.arg("--state").arg(self.path(member)).arg("--network").arg(network);
        command.args(options).arg("--").args(program);
        command.env_remove("PEERSOCK_SECRET").env_remove("PEERSOCK_LOG");
        // A node ends with its last program, before the directory is removed.
        command.env("PEERSOCK_PERSIST", "0");
        command.env("XDG_CACHE_HOME", self.path("cache")).current_dir(self.dir.path());
        // Programs that print times or quotes do so in English.
        command.env("LC_ALL", "C").env("HOME", self.dir.path());
        command
    }

    /// Starts a server.
    pub(crate) fn start(&self, member: &str, program: &[impl AsRef<OsStr>]) -> Running {
        Running::start(self.command(member, &[], program))
    }

    /// Runs a bash script until it ends; see [`Lab::script`].
    pub(crate) fn bash(&self, member: &str, script: &str) -> Finished {
        self.bash_with(member, &[], script)
    }

    pub(crate) fn bash_with(&self, member: &str, options: &[&str], script: &str) -> Finished {
        run(self.command(member, options, &["bash", "-c", &self.script(script)])).success()
    }

    /// Returns a bash script with functions: `up PORT [ADDRESS]` waits for a listener there, and `try
    /// COMMAND` repeats a command until it succeeds.
    pub(crate) fn script(&self, script: &str) -> String {
        format!(
            r#"set -eu -o pipefail
             try() {{
               until ("$@") 2>error; do
                 sleep 0.05
                 [ $SECONDS -lt 60 ] || {{ cat error >&2; exit 99; }}
               done
             }}
             reach() {{ exec 3<>/dev/tcp/$1/$2; }}
             up() {{ try reach ${{2:-{ALPHA}}} $1; }}
             {}"#,
            script.replace("@DIR@", self.folder())
        )
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the SHA-256 as sha256sum(1) prints it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let mut child = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}
