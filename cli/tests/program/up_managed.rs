//! `peersock up` in a managed network, by root and with root's state directory.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cable::Cable;
use crate::common::{Running, lacks, run, wait_until, without_variables};

/// A controller with a member at one end of a cable, and another member at the other end.
struct Scene {
    cable: Cable,
    folder: tempfile::TempDir,
}

impl Scene {
    fn lay(name: &str) -> Option<Scene> {
        let cable = Cable::lay(name, &["10.98.7.1/24", "10.98.7.2/24"])?;
        Some(Scene { cable, folder: tempfile::tempdir().expect("a directory") })
    }

    fn state(&self, machine: &str) -> PathBuf {
        self.folder.path().join(machine)
    }

    /// Returns a command of a machine: `beta` is at the second end, the others are at the first one.
    fn command(&self, machine: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        let end = &self.cable.ends[usize::from(machine == "beta")];
        command.args(["netns", "exec", end, env!("CARGO_BIN_EXE_peersock")]).args(words);
        without_variables(&mut command);
        command.env("PEERSOCK_STATE", self.state(machine)).env("PEERSOCK_PERSIST", "0");
        command
    }

    fn ok(&self, machine: &str, words: &[&str]) -> String {
        run(self.command(machine, words)).success().text().trim().to_owned()
    }

    fn serve(&self) -> Running {
        let serving = Running::start(self.command("alpha", &["controller", "-n", "team"]));
        serving.wait_for_stderr("serving team");
        serving
    }

    fn join(&self, machine: &str) {
        let invite = self.ok("alpha", &["network", "invite", "-n", "team", "--name", machine]);
        self.ok(machine, &["join", &invite]);
    }

    fn up(&self) -> (Running, String) {
        let up = Running::start(self.command("beta", &["up", "-n", "team", "--dns"]));
        let shown = up.wait_for_stdout("10.77.0.");
        (up, shown.lines().next().expect("an address").to_owned())
    }

    /// Sends a request to a name from the second end, whose resolver is the command at this address.
    fn ping(&self, resolver: &str, name: &str) -> (bool, String) {
        let settings = self.folder.path().join("resolv.conf");
        fs::write(&settings, format!("nameserver {resolver}\noptions timeout:5 attempts:2\n")).expect("room");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.cable.ends[1]]);
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec ping -4 -c 1 -W 60 \"$1\"";
        command.args(["unshare", "--mount", "sh", "-c", script]).arg(&settings).arg(name);
        let pinged = Running::start(command).finish();
        (pinged.status.success(), format!("{}{}", pinged.text(), pinged.stderr))
    }
}

/// Returns the number of starts that a machine has kept for the network.
fn starts(state: &Path) -> u64 {
    let file = fs::read_dir(state).expect("a directory").find_map(|file| {
        let path = file.expect("a file").path();
        path.extension().is_some_and(|end| end == "network").then_some(path)
    });
    let text = fs::read_to_string(file.expect("a record")).expect("readable");
    let record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    record["starts"].as_u64().expect("a number")
}

#[test]
fn root_s_machine_is_a_member_with_names_and_keeps_what_it_learns() {
    if lacks("root_s_machine_is_a_member", &["ping", "unshare", "mount"]) {
        return;
    }
    let Some(scene) = Scene::lay("upteam") else { return };
    let create = ["network", "create", "team", "--pool", "10.77.0.0/24", "--name", "alpha"];
    scene.ok("alpha", &create);
    let serving = scene.serve();
    scene.join("beta");
    scene.join("gamma");
    let listening = Running::start(scene.command("gamma", &["listen", "-n", "team", "7000"]));
    listening.wait_for_target();
    let before = starts(&scene.state("beta"));

    let (up, address) = scene.up();
    assert!(up.said().contains("members have names in peersock.internal"), "{}", up.said());
    // The first one it knows; the second one only the controller does.
    for (name, ip) in [("alpha.peersock.internal", "10.77.0.1"), ("gamma.peersock.internal", "10.77.0.3")] {
        let (is_there, text) = scene.ping(&address, name);
        assert!(is_there && text.contains(ip) && text.contains("1 received"), "{text}{}", up.said());
    }
    let (is_there, text) = scene.ping(&address, "nobody.peersock.internal");
    assert!(!is_there && text.contains("not known"), "{text}");
    let said = up.interrupt();
    assert!(!said.stderr.contains("warning"), "{}", said.stderr);
    let after = starts(&scene.state("beta"));
    assert!(after > before, "{before} starts, and then {after}");

    // What was kept is enough without the controller.
    drop(serving);
    // A node that is about to end could still be asked, and take the question with it.
    wait_until("the node outlives its controller", || {
        !run(scene.command("alpha", &["status"])).status.success()
    });
    let (up, address) = scene.up();
    let (is_there, text) = scene.ping(&address, "10.77.0.3");
    assert!(is_there && text.contains("1 received"), "{text}{}", up.said());
    for name in ["nobody.peersock.internal", "web.nobody.peersock.internal"] {
        let (is_there, text) = scene.ping(&address, name);
        assert!(!is_there && text.contains("Temporary failure"), "nobody can say that: {text}");
    }
    let said = up.interrupt();
    assert!(!said.stderr.contains("warning"), "{}", said.stderr);
    assert!(starts(&scene.state("beta")) > after);
    for file in fs::read_dir(scene.state("beta")).expect("a directory") {
        let file = file.expect("a file").metadata().expect("a file");
        assert_eq!((file.uid(), file.mode() & 0o077), (0, 0));
    }
}
