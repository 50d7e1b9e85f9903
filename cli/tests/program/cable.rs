//! Two machines on one cable: network namespaces joined by a veth pair, in which nodes find each other by
//! beacon. They are removed with the test. This needs root and `ip`.

use std::ffi::OsStr;
use std::process::Command;

use crate::common::{Lab, PATIENCE, PORT, Running};

pub(crate) struct Cable {
    pub(crate) ends: [String; 2],
}

impl Cable {
    /// Joins two namespaces; `addresses` are the IPv4 addresses of the ends, empty for a cable without IPv4.
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

    /// Lays a cable with IPv4 and a packet filter; returns `None`, after printing it, if there is no filter.
    pub(crate) fn with_filter(name: &str) -> Option<Cable> {
        let cable = Cable::lay(name, &["10.98.7.1/24", "10.98.7.2/24"])?;
        let has_filter = cable.filters("");
        if !has_filter {
            eprintln!("SKIP nodes_on_one_cable ({name}): there is no nft");
        }
        has_filter.then_some(cable)
    }

    /// Makes datagrams that a node sends as a batch cross the cable separately. Otherwise they are one packet
    /// there, which is longer than each of them.
    pub(crate) fn takes_datagrams_one_by_one(&self) {
        for end in &self.ends {
            assert!(ip(["-n", end, "link", "set", "eth0", "gso_max_segs", "1"]));
        }
    }

    /// Makes both ends silently drop IP packets of more bytes.
    pub(crate) fn carries_at_most(&self, bytes: usize) {
        assert!(self.filters(&format!("meta length > {bytes} drop;")));
    }

    /// Makes both ends drop all packets, or none.
    pub(crate) fn carries(&self, anything: bool) {
        assert!(self.filters(if anything { "" } else { "drop;" }));
    }

    /// Makes both ends drop datagrams of the length of short segments. Shorter ones, such as the nodes'
    /// probes, and longer ones, such as handshakes, pass.
    pub(crate) fn loses_segments(&self) {
        assert!(self.filters("meta length 125-260 drop;"));
    }

    /// Sets this filter for arriving packets at both ends; returns false on failure.
    fn filters(&self, verdict: &str) -> bool {
        let rule = if verdict.is_empty() { String::new() } else { format!("iifname eth0 {verdict}") };
        // Uses one transaction, so that the previous rules are replaced atomically.
        let rules = format!(
            "flush ruleset; table inet cable {{ chain arriving {{ type filter hook input priority 0; {rule} \
             }}; }}"
        );
        self.ends.iter().all(|end| ip(["netns", "exec", end, "nft", &rules]))
    }

    /// Returns a command of the program at one end, on all interfaces there.
    pub(crate) fn command(&self, end: usize, lab: &Lab, node: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ends[end], env!("CARGO_BIN_EXE_peersock")]).args(words);
        command.arg("--state").arg(lab.state(node)).args(["--network", &lab.network]);
        crate::common::without_variables(&mut command);
        // To these tests a process is a machine: a test that ends it does so to its node.
        if std::env::var_os("PEERSOCK_TEST_SHARED").is_none() {
            command.env("PEERSOCK_OWN_NODE", "1");
        }
        // Directories of tests are removed at their end.
        command.env("PEERSOCK_PERSIST", "0");
        command
    }

    /// Runs the program at one end, on all interfaces there.
    pub(crate) fn inside(&self, end: usize, lab: &Lab, node: &str, words: &[&str]) -> Running {
        Running::start(self.command(end, lab, node, words))
    }

    /// Starts `listen` at the first end and `dial` at the second, connected to it.
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
