//! The network of these tests: an IPv6-only host behind a NAT64, and hosts with IPv4.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock_testnet::find_in_path;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::common::{Lab, PATIENCE, PORT, Running, run, without_variables, write_file};

pub(super) const ROOT: &str = "198.51.100.2";
pub(super) const PEER: &str = "198.51.100.3";
pub(super) const OTHER_ROOT: &str = "198.51.100.4";
const HOSTS: [&str; 4] = ["phone", "root", "peer", "other"];
/// Prefix of the pool. The node's address, as seen in the IPv4 Internet, is the pool's first one.
pub(super) const POOL: &str = "203.0.113.";
/// Prefix of the NAT64. It is not the well-known one, so the node must discover it.
pub(super) const PREFIX: &str = "2001:db8:64::";

/// Time limit for a direct path: a few round trips, and the rest for a busy machine.
const DIRECT_BY: Duration = Duration::from_secs(60);

/// Five namespaces: a host with IPv6 only, the gateway with the NAT64 and the nameserver, and three hosts
/// with IPv4 only.
pub(super) struct Net {
    pub(super) lab: Lab,
    pub(super) name: String,
    nat64: Option<Child>,
    nameserver: Option<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

impl Net {
    /// Builds the network; returns `None`, after printing the reason, if that is impossible on this machine.
    pub(super) fn lay(test: &str) -> Option<Net> {
        let missing = |what: &str| {
            eprintln!("SKIP nat64 ({test}): {what}");
            None
        };
        let Some(tayga) = find_in_path("tayga") else { return missing("there is no tayga") };
        if !Path::new("/dev/net/tun").exists() {
            return missing("there is no /dev/net/tun");
        }
        let name = format!("ps-nat64-{}-{test}", std::process::id());
        if !ip(&format!("netns add {name}gate")) {
            return missing("network namespaces need root and the program ip");
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let mut net = Net { lab: Lab::new(), name, nat64: None, nameserver: None, is_over };
        net.wire();
        net.start_nat64(&tayga);
        net.start_nameserver();
        Some(net)
    }

    fn wire(&self) {
        let name = &self.name;
        for host in HOSTS {
            assert!(ip(&format!("netns add {name}{host}")));
        }
        let cable = |end: &str, host: &str| {
            let cable =
                format!("link add {end} netns {name}gate type veth peer name eth0 netns {name}{host}");
            assert!(ip(&cable));
            for (at, device) in [("gate", end), (host, "eth0"), (host, "lo")] {
                assert!(ip(&format!("-n {name}{at} link set {device} up")));
            }
        };
        for (end, host, address) in [("v4", "root", ROOT), ("w4", "peer", PEER), ("x4", "other", OTHER_ROOT)]
        {
            cable(end, host);
            assert!(ip(&format!("-n {name}gate addr add 198.51.100.1/32 peer {address}/32 dev {end}")));
            assert!(ip(&format!("-n {name}{host} addr add {address} peer 198.51.100.1/32 dev eth0")));
            assert!(ip(&format!("-n {name}{host} route add default via 198.51.100.1")));
        }
        cable("v6", "phone");
        assert!(ip(&format!("-n {name}gate addr add 2001:db8:1::1/64 dev v6 nodad")));
        assert!(ip(&format!("-n {name}phone addr add 2001:db8:1::2/64 dev eth0 nodad")));
        assert!(ip(&format!("-n {name}phone route add default via 2001:db8:1::1")));
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            assert!(ip(&format!("netns exec {name}gate sysctl -qw {setting}")));
        }
    }

    fn start_nat64(&mut self, tayga: &Path) {
        let (name, dir) = (&self.name, self.lab.dir.path().display().to_string());
        let config = format!(
            "tun-device nat64\nipv4-addr {POOL}1\nprefix {PREFIX}/96\ndynamic-pool {POOL}0/24\ndata-dir {dir}\n"
        );
        let path = self.lab.dir.path().join("tayga.conf");
        write_file(&path, &config, 0o600);
        let inside = |word: &str| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &format!("{name}gate")]).arg(tayga);
            command.arg("-c").arg(&path).arg(word).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        assert!(inside("--mktun").status().is_ok_and(|status| status.success()), "tayga makes no device");
        assert!(ip(&format!("-n {name}gate link set nat64 up")));
        assert!(ip(&format!("-n {name}gate route add {POOL}0/24 dev nat64")));
        assert!(ip(&format!("-n {name}gate route add {PREFIX}/96 dev nat64")));
        self.nat64 = Some(inside("-d").spawn().expect("tayga starts"));
    }

    /// Starts a minimal DNS64: it returns IPv6 addresses in the prefix for one name, and knows no other.
    fn start_nameserver(&mut self) {
        let gate = File::open(format!("/run/netns/{}gate", self.name)).expect("it is there");
        let is_over = Arc::clone(&self.is_over);
        let bind = move || {
            move_into_link_name_space(gate.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
            let socket = UdpSocket::bind("[2001:db8:1::1]:53").expect("the address is there");
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time");
            socket
        };
        let socket = thread::spawn(bind).join().expect("no panic");
        self.nameserver = Some(thread::spawn(move || {
            let mut question = [0; 512];
            while !is_over.load(Ordering::SeqCst) {
                let Ok((len, from)) = socket.recv_from(&mut question) else { continue };
                let _ = socket.send_to(&answer(&question[..len]), from);
            }
        }));
    }

    /// Starts a root; also returns its text, which it prints first.
    pub(super) fn root(&self, words: &[&str]) -> (Running, String) {
        self.root_at("root", words)
    }

    pub(super) fn root_at(&self, host: &str, words: &[&str]) -> (Running, String) {
        let root = self.inside(host, host, &[&["root", "--ephemeral", "--drain", "0"], words].concat());
        let said = root.wait_for_stdout("\n");
        let text = said.lines().next().expect("a line").to_owned();
        (root, text)
    }

    /// Connects the IPv6-only node with the peer; returns its status once it is as wanted.
    pub(super) fn converse(&self, roots: &[&str], is_wanted: impl Fn(&Value) -> bool) -> Value {
        self.try_converse(roots, &[], &is_wanted).unwrap_or_else(|said| panic!("{said}"))
    }

    /// Does the same, but returns the node's output if the status is not as wanted in time.
    pub(super) fn try_converse(
        &self,
        roots: &[&str],
        words: &[&str],
        is_wanted: &impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let common = ["-v", "--no-portmap", "--network", &self.lab.network];
        let of_roots = roots.iter().flat_map(|root| ["--root", *root]);
        let common: Vec<&str> = common.into_iter().chain(of_roots).chain(words.iter().copied()).collect();
        let mut listener = self.node("peer", &[&["listen", &PORT.to_string()], &common[..]].concat());
        let target = listener.wait_for_target();
        let patience = PATIENCE.as_secs().to_string();
        let words = [&["dial", &target, "--timeout", &patience], &common[..]].concat();
        let mut dialer = self.node("phone", &words);
        dialer.send(b"from IPv6");
        listener.wait_for_stdout("from IPv6");
        listener.send(b"from IPv4");
        dialer.wait_for_stdout("from IPv4");
        let deadline = Instant::now() + DIRECT_BY;
        let mut status = self.status("phone");
        while !is_wanted(&status) {
            if Instant::now() >= deadline {
                return Err(format!("{status:#}\n{}\n{}", dialer.said(), listener.said()));
            }
            thread::sleep(Duration::from_millis(100));
            status = self.status("phone");
        }
        dialer.end_stdin();
        listener.end_stdin();
        dialer.finish().success();
        listener.finish().success();
        Ok(status)
    }

    /// Applies packet filter rules on a host.
    pub(super) fn nft(&self, host: &str, rules: &str) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}{host}", self.name), "nft", rules]);
        assert!(command.status().is_ok_and(|status| status.success()), "nft refuses {rules}");
    }

    pub(super) fn status(&self, node: &str) -> Value {
        let text = run(self.lab.command(node, &["status", "--json"])).success();
        serde_json::from_slice(&text.stdout).expect("JSON")
    }

    /// Runs a node at a host.
    pub(super) fn node(&self, host: &str, words: &[&str]) -> Running {
        let state = self.lab.state(host).display().to_string();
        self.inside(host, host, &[words, &["--state", &state]].concat())
    }

    /// Runs the program at a host, where resolv.conf has the network's nameserver. Mounts of `ip netns exec`,
    /// and mounts below them, are visible only there.
    pub(super) fn inside(&self, host: &str, name: &str, words: &[&str]) -> Running {
        let mut command = self.command(host, name, OsStr::new(env!("CARGO_BIN_EXE_peersock")));
        command.args(words);
        Running::start(command)
    }

    /// Returns a command for any program at a host, with the same resolv.conf.
    pub(super) fn command(&self, host: &str, name: &str, program: &OsStr) -> Command {
        let conf = self.lab.dir.path().join(format!("{name}.resolv.conf"));
        write_file(&conf, "nameserver 2001:db8:1::1\noptions timeout:1\n", 0o644);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}{host}", self.name), "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"").arg(conf);
        command.arg(program);
        without_variables(&mut command);
        command
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(mut nat64) = self.nat64.take() {
            let _ = nat64.kill();
            let _ = nat64.wait();
        }
        if let Some(nameserver) = self.nameserver.take() {
            let _ = nameserver.join();
        }
        for host in HOSTS.iter().chain(&["gate"]) {
            let _ = ip(&format!("netns del {}{host}", self.name));
        }
    }
}

/// Returns the nameserver's answer: addresses of both families for `ipv4only.arpa`, and a negative answer for
/// other names.
fn answer(question: &[u8]) -> Vec<u8> {
    const AAAA: u8 = 28;
    let name = b"\x08ipv4only\x04arpa\0";
    // The name follows the header, and two 2-byte numbers follow the name.
    let end = question.iter().skip(12).position(|byte| *byte == 0).map_or(0, |at| 12 + at + 5);
    let Some(asked) = question.get(12..end) else { return Vec::new() };
    let is_known = asked.len() == name.len() + 4 && asked[..name.len()].eq_ignore_ascii_case(name);
    let kind = asked.get(asked.len() - 3).copied().unwrap_or_default();
    let v4 = [170, 171].map(|last| Ipv4Addr::new(192, 0, 0, last));
    let prefix: Ipv6Addr = PREFIX.parse().expect("an address");
    let records: Vec<Vec<u8>> = match (is_known, kind) {
        (true, 1) => v4.iter().map(|ip| ip.octets().to_vec()).collect(),
        (true, AAAA) => {
            let within = |ip: &Ipv4Addr| Ipv6Addr::from_bits(prefix.to_bits() | u128::from(ip.to_bits()));
            v4.iter().map(|ip| within(ip).octets().to_vec()).collect()
        }
        _ => Vec::new(),
    };
    let code = if is_known { 0 } else { 3 };
    let mut said = [&question[..2], &[0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]].concat();
    said.extend(asked);
    for record in records {
        said.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, record.len() as u8]);
        said.extend(record);
    }
    said
}

pub(super) fn ip(words: &str) -> bool {
    let output = Command::new("ip").args(words.split(' ')).stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}
