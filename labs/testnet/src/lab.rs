//! A laboratory of network namespaces with real NATs, built by the program `natlab`.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// Environment variable that names another natlab program.
const PROGRAM: &str = "PEERSOCK_NATLAB";

/// Environment variable with the prefix of all namespace names.
const PREFIX: &str = "NATLAB_PREFIX";

/// A laboratory, which exists until it is dropped.
pub struct Lab {
    program: PathBuf,
    prefix: String,
    nodes: Value,
    owner: Child,
}

impl Lab {
    /// Builds a lab; `None`, with a printed reason, if this machine does not support it. Only tests of
    /// different names may run at the same time in one process.
    ///
    /// # Panics
    /// The topology is wrong, or the system refuses an operation that it should allow.
    pub fn build(test: &str, topology: &str) -> Option<Self> {
        let missing = |what: &str| {
            eprintln!("SKIP {test}: {what}");
            None
        };
        if !geteuid().is_root() {
            return missing("network namespaces need root");
        }
        for tool in ["nft", "conntrack", "ip", "python3"] {
            if find_in_path(tool).is_none() {
                return missing(&format!("there is no {tool}"));
            }
        }
        if topology.contains("upnp") && find_in_path("miniupnpd").is_none() {
            return missing("there is no miniupnpd");
        }
        let Some(program) = program() else {
            return missing(&format!("there is no natlab; {PROGRAM} may name it"));
        };
        let outer = env::var(PREFIX).unwrap_or_default();
        let prefix = format!("{outer}{test}-{}-", std::process::id());
        let mut owner = Command::new(&program)
            .args(["run", "--prefix", &prefix, topology, "--", "sh", "-c", "echo ready; cat > /dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("natlab can be run");
        let mut line = String::new();
        BufReader::new(owner.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("natlab speaks");
        assert_eq!(line, "ready\n", "natlab built no lab");
        let mut lab = Self { program, prefix, nodes: Value::Null, owner };
        lab.nodes = serde_json::from_str(&lab.natlab(&["show", "--json"])).expect("natlab shows JSON");
        Some(lab)
    }

    /// Runs a natlab command and returns its output.
    ///
    /// # Panics
    /// The command fails.
    pub fn natlab(&self, words: &[&str]) -> String {
        let split = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let mut command = Command::new(&self.program);
        command.args(&words[..split]).args(["--prefix", &self.prefix]).args(&words[split..]);
        let output = command.stderr(Stdio::inherit()).output().expect("natlab can be run");
        assert!(output.status.success(), "natlab {words:?} failed");
        String::from_utf8(output.stdout).expect("natlab writes text")
    }

    /// Returns a command that runs outside, with natlab and this lab in its environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("NATLAB", &self.program).env(PREFIX, &self.prefix);
        command
    }

    /// Returns a node's IPv4 address.
    ///
    /// # Panics
    /// The node has none.
    pub fn ip4(&self, node: &str) -> IpAddr {
        self.ip(node, "ip4")
    }

    /// Returns a node's IPv6 address.
    ///
    /// # Panics
    /// The node has none.
    pub fn ip6(&self, node: &str) -> IpAddr {
        self.ip(node, "ip6")
    }

    /// Returns the router of a node for `ip4` or `ip6`, which has the first address of its network.
    ///
    /// # Panics
    /// There is no router.
    pub fn router(&self, node: &str, which: &str) -> IpAddr {
        let text = self.nodes[node][which.replace("ip", "gw")].as_str();
        text.unwrap_or_else(|| panic!("{node} has no {which}")).parse().expect("an address")
    }

    fn ip(&self, node: &str, which: &str) -> IpAddr {
        let text = self.nodes[node][which].as_str().unwrap_or_else(|| panic!("{node} has no {which}"));
        text.parse().expect("an address")
    }

    /// Makes a router with `upnp` and `v6=open` drop inbound IPv6, except answers and packets that miniupnpd
    /// lets in. The firewall of `v6=firewall` is a separate chain, which drops packets that another chain
    /// accepts.
    ///
    /// # Panics
    /// There is no such router.
    pub fn leave_ipv6_to_miniupnpd(&self, router: &str) {
        let rules = "add rule inet miniupnpd forward meta nfproto ipv4 accept; \
             add rule inet miniupnpd forward iifname lan accept; \
             add rule inet miniupnpd forward ct state established,related accept; \
             chain inet miniupnpd forward { policy drop; }";
        self.natlab(&["exec", router, "--", "nft", rules]);
    }

    /// Returns natprobe's JSON report about a node's NAT.
    ///
    /// # Panics
    /// The probe fails.
    pub fn natprobe(&self, node: &str, server: IpAddr) -> Value {
        let natprobe = self.program.with_file_name("natprobe");
        let natprobe = natprobe.to_str().expect("a path of text");
        let said = self.natlab(&["exec", node, "--", natprobe, "classify", &server.to_string()]);
        serde_json::from_str(&said).expect("natprobe writes JSON")
    }

    /// Runs `work` inside a node, in a new thread. Threads and processes that it starts are inside too, and
    /// stay there.
    ///
    /// # Panics
    /// The work has panicked.
    pub fn within<T: Send>(&self, node: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = format!("/run/netns/{}{node}", self.prefix);
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let namespace = File::open(namespace).expect("the node is there");
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter namespaces");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // natlab's command ends with its input, and natlab then removes the lab.
        drop(self.owner.stdin.take());
        let mut rest = Vec::new();
        if let Some(mut output) = self.owner.stdout.take() {
            let _ = output.read_to_end(&mut rest);
        }
        let _ = self.owner.wait();
    }
}

/// Returns the program from the variable, from PATH, or from this crate.
fn program() -> Option<PathBuf> {
    let named = env::var_os(PROGRAM).map(PathBuf::from);
    let own =
        || Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("natlab/natlab")).filter(|path| path.exists());
    named.or_else(|| find_in_path("natlab")).or_else(own)
}

/// Finds a program. Server programs are often in folders outside a user's PATH.
pub fn find_in_path(program: &str) -> Option<PathBuf> {
    let mut folders: OsString = env::var_os("PATH").unwrap_or_default();
    folders.push(":/usr/sbin:/sbin");
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}
