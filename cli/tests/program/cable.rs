//! Two machines on one cable: network namespaces joined by a veth pair, in which nodes find each other by
//! beacon. They belong to a test and go with it. This needs root and `ip`.

use std::ffi::OsStr;
use std::process::Command;

use crate::common::{Lab, PATIENCE, PORT, Running};

pub(crate) struct Cable {
    pub(crate) ends: [String; 2],
}

impl Cable {
    /// Joins two namespaces; `addresses` are the IPv4 addresses of the ends, and none means that IPv4 is not
    /// there.
    pub(crate) fn lay(name: &str, addresses: &[&str]) -> Option<Cable> {
        let ends = ["a", "b"].map(|end| format!("ps-{}-{name}{end}", std::process::id()));
        if !ip(["netns", "add", &ends[0]]) {
            eprintln!("SKIP nodes_on_one_cable ({name}): network namespaces need root and the program ip");
            return None;
        }
        let cable = Cable { ends };
        let [a, b] = &cable.ends;
        assert!(ip(["netns", "add", b]));
        assert!(ip(["link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b]));
        for (index, end) in cable.ends.iter().enumerate() {
            if let Some(address) = addresses.get(index) {
                assert!(ip(["-n", end, "addr", "add", address, "dev", "eth0"]));
            }
            assert!(ip(["-n", end, "link", "set", "lo", "up"]));
            assert!(ip(["-n", end, "link", "set", "eth0", "up"]));
        }
        Some(cable)
    }

    /// The same with IPv4 and a program to filter packets; `None` where there is none, and a line that says
    /// so.
    pub(crate) fn with_filter(name: &str) -> Option<Cable> {
        let cable = Cable::lay(name, &["10.98.7.1/24", "10.98.7.2/24"])?;
        let has_filter = cable.filters("");
        if !has_filter {
            eprintln!("SKIP nodes_on_one_cable ({name}): there is no nft");
        }
        has_filter.then_some(cable)
    }

    /// Has several datagrams of a node that leave together cross the cable one by one. Otherwise they are one
    /// packet there, which is longer than any of them.
    pub(crate) fn takes_datagrams_one_by_one(&self) {
        for end in &self.ends {
            assert!(ip(["-n", end, "link", "set", "eth0", "gso_max_segs", "1"]));
        }
    }

    /// Has both ends lose IP packets of more bytes without a word.
    pub(crate) fn carries_at_most(&self, bytes: usize) {
        assert!(self.filters(&format!("meta length > {bytes} drop;")));
    }

    /// Has both ends lose all, or nothing any more.
    pub(crate) fn carries(&self, anything: bool) {
        assert!(self.filters(if anything { "" } else { "drop;" }));
    }

    /// Has both ends lose datagrams as long as short segments are, and carry shorter ones, as the nodes' own
    /// probes are, and longer ones, as handshakes are.
    pub(crate) fn loses_segments(&self) {
        assert!(self.filters("meta length 125-260 drop;"));
    }

    /// Has both ends do this with what arrives by the cable; false if that cannot be done.
    fn filters(&self, verdict: &str) -> bool {
        let rule = if verdict.is_empty() { String::new() } else { format!("iifname eth0 {verdict}") };
        // In one transaction: what was there before goes at the same moment.
        let rules = format!(
            "flush ruleset; table inet cable {{ chain arriving {{ type filter hook input priority 0; {rule} \
             }}; }}"
        );
        self.ends.iter().all(|end| ip(["netns", "exec", end, "nft", &rules]))
    }

    /// A command of the program at one end, on all interfaces there.
    pub(crate) fn command(&self, end: usize, lab: &Lab, node: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ends[end], env!("CARGO_BIN_EXE_peersock")]).args(words);
        command.arg("--state").arg(lab.state(node)).args(["--network", &lab.network]);
        crate::common::without_variables(&mut command);
        command
    }

    /// Runs the program at one end, on all interfaces there.
    pub(crate) fn inside(&self, end: usize, lab: &Lab, node: &str, words: &[&str]) -> Running {
        Running::start(self.command(end, lab, node, words))
    }

    /// `listen` at the first end and `dial` at the second one, which talks to it.
    pub(crate) fn talk(&self, lab: &Lab) -> (Running, Running) {
        let listener = self.inside(0, lab, "listener", &["listen", &PORT.to_string()]);
        let target = listener.wait_for_target();
        let patience = PATIENCE.as_secs().to_string();
        (listener, self.inside(1, lab, "dialer", &["dial", &target, "--timeout", &patience]))
    }

    /// Runs a program at one end under `peersock run`.
    pub(crate) fn run(
        &self,
        end: usize,
        lab: &Lab,
        node: &str,
        options: &[&str],
        program: &[impl AsRef<OsStr>],
    ) -> Running {
        let mut command = self.command(end, lab, node, &["run", "--quiet"]);
        command.args(options).arg("--").args(program).env("XDG_CACHE_HOME", lab.dir.path().join("cache"));
        Running::start(command)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for end in &self.ends {
            ip(["netns", "del", end]);
        }
    }
}

pub(crate) fn ip(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> bool {
    let done = Command::new("ip").args(words).output();
    done.is_ok_and(|output| output.status.success())
}
