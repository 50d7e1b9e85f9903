//! Machines of a managed network, whose controller is on the first one.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Finished, PATIENCE, Running, peersock, run};
use crate::star::Star;

/// Machines of one test, each with a state directory. They are on the loopback interface, or apart.
pub(crate) struct Machines(tempfile::TempDir, Option<Star>);

impl Machines {
    pub(crate) fn new() -> Machines {
        Machines(tempfile::tempdir().expect("a directory"), None)
    }

    /// Returns machines that only a root leads to each other.
    pub(crate) fn apart(star: Star) -> Machines {
        Machines(tempfile::tempdir().expect("a directory"), Some(star))
    }

    pub(crate) fn command(&self, machine: &str, words: &[&str]) -> Command {
        let mut command = match &self.1 {
            None => peersock(words),
            Some(star) => star.command(machine, words),
        };
        command.env("PEERSOCK_STATE", self.0.path().join(machine));
        if self.1.is_none() {
            command.env("PEERSOCK_INTERFACE", "lo");
        }
        command.env_remove("PEERSOCK_INVITE").env_remove("PEERSOCK_OWN_NODE").env("PEERSOCK_PERSIST", "0");
        command
    }

    /// Runs a command that succeeds, and returns what it prints.
    pub(crate) fn ok(&self, machine: &str, words: &[&str]) -> String {
        let output = run(self.command(machine, words));
        assert!(output.status.success(), "{words:?}: {}", output.stderr);
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// Runs a command that fails, and returns its errors.
    pub(crate) fn refused(&self, machine: &str, words: &[&str]) -> String {
        let output = run(self.command(machine, words));
        assert!(!output.status.success(), "{words:?}");
        output.stderr
    }

    /// Makes a network on the machine `alpha`, and serves it.
    pub(crate) fn network(&self) -> (String, Running) {
        let (id, _) = self.create(&[]);
        (id, self.serve("alpha"))
    }

    /// Makes a network on the machine `alpha`. Returns its ID and its recovery words.
    pub(crate) fn create(&self, options: &[&str]) -> (String, String) {
        let create = ["network", "create", "team", "--pool", "10.77.0.0/24", "--name", "alpha"];
        let made = run(self.command("alpha", &[&create, options].concat()));
        let (id, told) = (made.text().trim().replace('-', ""), made.stderr);
        assert!(told.contains("this machine is alpha, 10.77.0.1 there; serve it with"), "{told}");
        let words = told.lines().find_map(|line| line.split("it restores the network: ").nth(1));
        (id[id.len() - 16..].to_owned(), words.expect("words").to_owned())
    }

    /// Returns the folder of the state directories.
    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Returns the state directory of a machine.
    pub(crate) fn directory(&self, machine: &str) -> std::path::PathBuf {
        self.0.path().join(machine)
    }

    pub(crate) fn serve(&self, machine: &str) -> Running {
        let serving = Running::start(self.command(machine, &["controller", "-n", "team"]));
        serving.wait_for_stderr("serving team");
        serving
    }

    /// Runs a command that reads recovery words. Returns its output.
    pub(crate) fn with_words(&self, machine: &str, arguments: &[&str], words: &str) -> Finished {
        let mut running = Running::start(self.command(machine, arguments));
        running.send(words.as_bytes());
        running.finish()
    }

    pub(crate) fn invite(&self, words: &[&str]) -> String {
        self.ok("alpha", &[&["network", "invite"], words].concat())
    }

    /// Makes a machine a member of that name, by an invite of `alpha`.
    pub(crate) fn admit(&self, machine: &str) {
        self.ok(machine, &["join", &self.invite(&["--name", machine]), "--as", "team"]);
    }

    pub(crate) fn members(&self) -> Vec<Value> {
        let listed: Value =
            serde_json::from_str(&self.ok("alpha", &["network", "members", "--json"])).expect("JSON");
        listed["members"].as_array().expect("a list").clone()
    }

    /// Listens on a machine of the network. Returns the IPv4 address.
    pub(crate) fn listen(&self, machine: &str, port: &str) -> (Running, String) {
        let listening = Running::start(self.command(machine, &["listen", "-k", "-n", "team", port]));
        let rest = listening.wait_for_stderr("listening on 10.77.0.");
        let address = format!("10.77.0.{}", rest.split(':').next().expect("an address"));
        (listening, address)
    }

    pub(crate) fn dial(&self, machine: &str, to: &str) -> Finished {
        run(self.command(machine, &["dial", "-n", "team", "--timeout", "15", to]))
    }

    /// Returns what a machine keeps of a network.
    pub(crate) fn record(&self, machine: &str, id: &str) -> Value {
        let file = self.0.path().join(machine).join(format!("{id}.network"));
        serde_json::from_str(&std::fs::read_to_string(file).expect("a record")).expect("JSON")
    }

    /// Waits until the node has ended that the programs of a machine have shared.
    pub(crate) fn wait_for_end_of_node(&self, machine: &str) {
        let holder = std::fs::read_to_string(self.0.path().join(machine).join("lock")).expect("a lock");
        let begun = Instant::now();
        while Path::new("/proc").join(holder.trim()).exists() {
            assert!(begun.elapsed() < PATIENCE, "the node of {machine} goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("text").to_owned()
    }
}
