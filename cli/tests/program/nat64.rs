//! A node on a network that has IPv6 only, with a real NAT64 (the program `tayga`) and a nameserver that
//! knows of it, and a root and a peer that have IPv4 only.
//!
//! Needs root, `ip`, `tayga` and /dev/net/tun; skips otherwise. The namespaces belong to the test and go with
//! it.

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

use peersock_nat::interfaces::{Family, Interface};
use peersock_testnet::find_in_path;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::common::{Lab, PATIENCE, PORT, Running, run, without_variables, write_file};

const ROOT: &str = "198.51.100.2";
const PEER: &str = "198.51.100.3";
/// The node's address there, as the IPv4 Internet sees it, is the pool's first one.
const POOL: &str = "203.0.113.";
/// No well-known prefix: the node has to find it.
const PREFIX: &str = "2001:db8:64::";

/// A direct path is there after a few round trips; the rest is for a machine that has other work.
const DIRECT_BY: Duration = Duration::from_secs(60);

#[test]
fn a_root_and_a_peer_with_ipv4_only_are_reached_through_a_nat64() {
    let Some(net) = Net::lay("udp") else { return };
    let (root, text) = net.root(&["--listen", ROOT]);
    let status = net.converse(&text, |status| status["peers"][0]["root"].is_null());
    let path = status["peers"][0]["path"].as_str().unwrap_or_default();
    assert!(path.starts_with(PEER), "straight to the peer: {status:#}");
    assert_eq!(status["roots"][0]["path"], format!("{ROOT}:7420"));
    let observed = status["roots"][0]["observed"].as_str().unwrap_or_default();
    assert!(observed.starts_with(POOL), "the root sees what the NAT64 makes of it: {status:#}");
    root.interrupt();
}

#[test]
fn a_root_that_takes_streams_only_is_reached_through_a_nat64() {
    let Some(net) = Net::lay("tcp") else { return };
    let (root, text) = net.root(&["--listen", ROOT, "--stream", "443"]);
    let (key, _) = text.split_once('@').expect("a key and endpoints");
    let way = format!("tcp:{ROOT}:443");
    let status = net.converse(&format!("{key}@{way}"), |_| true);
    assert_eq!(status["roots"][0]["stream"], way);
    root.interrupt();
}

#[test]
fn netcheck_asks_servers_with_ipv4_by_the_nat64_and_tells_how_that_maps() {
    let Some(net) = Net::lay("netcheck") else { return };
    // Roots are STUN servers, too.
    let roots = [("root", ROOT), ("peer", PEER)].map(|(host, ip)| net.root_at(host, &["--listen", ip]).0);
    let servers = [ROOT, PEER].map(|ip| format!("{ip}:7420"));
    let words = ["netcheck", "--json", "--stun", &servers[0], "--stun", &servers[1]];
    let report = net.inside("phone", "netcheck", &words).finish().success();
    let report: Value = serde_json::from_str(report.text()).expect("JSON");
    assert_eq!(
        (&report["nat64"], &report["udp"]),
        (&Value::from(format!("{PREFIX}/96")), &Value::from(true))
    );
    for (server, target) in report["servers"].as_array().expect("servers").iter().zip(&servers) {
        let at = &server["addresses"][0];
        assert_eq!((&at["address"], &at["reachable"]), (&Value::from(target.as_str()), &Value::from(true)));
        assert!(at["rtt_ms"].as_f64().is_some(), "{server}");
    }
    let mut interfaces = report["interfaces"].as_array().expect("interfaces").iter();
    let eth0 = interfaces.find(|interface| interface["name"] == "eth0").expect("it is up");
    assert!(eth0["ipv4"]["mapped"].as_str().unwrap_or_default().starts_with(POOL), "{eth0:#}");
    // It gives each host an address of its own.
    assert_eq!(eth0["ipv4"]["mapping"], "endpoint-independent", "{eth0:#}");
    assert_eq!(eth0["ipv4"]["translated"], true);
    assert_eq!(eth0["ipv6"], Value::Null, "no server has IPv6");
    for root in roots {
        root.interrupt();
    }
}

#[test]
fn programs_that_probe_for_themselves_see_the_nat64_as_netcheck_does() {
    let Some(net) = Net::lay("probe") else { return };
    let roots = [("root", ROOT), ("peer", PEER)].map(|(host, ip)| net.root_at(host, &["--listen", ip]).0);
    // The second one as a resolver behind a NAT64 gives it.
    let servers = format!("{ROOT}:7420 [{PREFIX}{PEER}]:7420");
    let mut probe = net.command("phone", "probe", std::env::current_exe().expect("this one").as_os_str());
    probe.args(["--exact", "nat64::what_a_program_sees", "--nocapture"]).env(PROBED_SERVERS, servers);
    let said = Running::start(probe).finish().success();
    let (begin, end) = (said.text().find('{').expect("JSON"), said.text().rfind('}').expect("JSON"));
    let nic: Value = serde_json::from_str(&said.text()[begin..=end]).expect("JSON");
    assert_eq!(nic["name"], "eth0", "{nic:#}");
    // tayga gives each host an address of its own, with all ports. What is assumed without answers is random.
    assert_eq!(
        (&nic["nat"]["delta_info"], &nic["nat"]["nat_info"]),
        (&"equal".into(), &"restrict port".into())
    );
    let [ip4, ip6] = [Family::Ip4, Family::Ip6].map(|family| &nic["rp"][family.number().to_string()]);
    assert_eq!(*ip4, Value::Array(Vec::new()), "it has no address of IPv4: {nic:#}");
    assert_eq!(ip6[0]["ext_ips"][0]["ip"], "2001:db8:1::2", "{nic:#}");
    for root in roots {
        root.interrupt();
    }
}

/// Servers that [`what_a_program_sees`] asks.
const PROBED_SERVERS: &str = "PEERSOCK_TEST_SERVERS";

/// The program of that test: prints what it sees of its interface. Without being asked to it does nothing.
#[test]
#[expect(clippy::print_stdout, reason = "the test that starts it reads this")]
fn what_a_program_sees() {
    let Ok(servers) = std::env::var(PROBED_SERVERS) else { return };
    let servers: Vec<_> = servers.split(' ').map(|server| server.parse().expect("an endpoint")).collect();
    let timeout = Duration::from_secs(4);
    let mut nic = Interface::load(None, &servers, timeout).expect("there is an interface");
    nic.load_nat(&servers, timeout).expect("it is still there");
    println!("{}", nic.to_json());
}

#[test]
fn the_dht_is_said_to_need_ipv4() {
    let Some(net) = Net::lay("dht") else { return };
    let words = ["listen", &PORT.to_string(), "--no-portmap", "--network", &net.lab.network];
    for dht in ["--dht", "--dht=198.51.100.3:6881"] {
        let listener = net.node("phone", &[&words, &[dht][..]].concat());
        let said = listener.wait_for_stderr("the DHT cannot be used");
        assert!(said.contains("needs IPv4"), "{said}");
        // It goes on: there are other ways to be found.
        listener.wait_for_target();
        let status = net.status("phone");
        assert!(
            status["dht"]["error"].as_str().is_some_and(|error| error.contains("needs IPv4")),
            "{status:#}"
        );
        listener.interrupt();
    }
}

/// Four namespaces: a host with IPv6 only, the gateway with the NAT64 and the nameserver, and two hosts with
/// IPv4 only.
struct Net {
    lab: Lab,
    name: String,
    nat64: Option<Child>,
    nameserver: Option<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

impl Net {
    /// Builds it; `None`, with a line that says why, if that cannot be done on this machine.
    fn lay(test: &str) -> Option<Net> {
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
        for host in ["phone", "root", "peer"] {
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
        for (end, host, address) in [("v4", "root", ROOT), ("w4", "peer", PEER)] {
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

    /// A DNS64 as far as it matters: it has IPv6 addresses in the prefix for one name, and knows no other.
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

    /// Starts a root; its text is what it prints first.
    fn root(&self, words: &[&str]) -> (Running, String) {
        self.root_at("root", words)
    }

    fn root_at(&self, host: &str, words: &[&str]) -> (Running, String) {
        let root = self.inside(host, host, &[&["root", "--ephemeral", "--drain", "0"], words].concat());
        let said = root.wait_for_stdout("\n");
        let text = said.lines().next().expect("a line").to_owned();
        (root, text)
    }

    /// Has the node with IPv6 only talk to the peer; gives its status once that is as wanted.
    fn converse(&self, root: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let common = ["-v", "--no-portmap", "--network", &self.lab.network, "--root", root];
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
            assert!(Instant::now() < deadline, "{status:#}\n{}\n{}", dialer.said(), listener.said());
            thread::sleep(Duration::from_millis(100));
            status = self.status("phone");
        }
        dialer.end_stdin();
        listener.end_stdin();
        dialer.finish().success();
        listener.finish().success();
        status
    }

    fn status(&self, node: &str) -> Value {
        let text = run(self.lab.command(node, &["status", "--json"])).success();
        serde_json::from_slice(&text.stdout).expect("JSON")
    }

    /// Runs a node at a host.
    fn node(&self, host: &str, words: &[&str]) -> Running {
        let state = self.lab.state(host).display().to_string();
        self.inside(host, host, &[words, &["--state", &state]].concat())
    }

    /// Runs the program at a host, where the network's nameserver is in resolv.conf. What `ip netns exec`
    /// mounts, and what is mounted below it, nobody else sees.
    fn inside(&self, host: &str, name: &str, words: &[&str]) -> Running {
        let mut command = self.command(host, name, OsStr::new(env!("CARGO_BIN_EXE_peersock")));
        command.args(words);
        Running::start(command)
    }

    /// The same for any program.
    fn command(&self, host: &str, name: &str, program: &OsStr) -> Command {
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
        for host in ["gate", "phone", "root", "peer"] {
            let _ = ip(&format!("netns del {}{host}", self.name));
        }
    }
}

/// What the nameserver says: of `ipv4only.arpa` both families' addresses, of any other name that there is
/// none.
fn answer(question: &[u8]) -> Vec<u8> {
    const AAAA: u8 = 28;
    let name = b"\x08ipv4only\x04arpa\0";
    // The name stands behind the header, and two numbers of two bytes behind it.
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

fn ip(words: &str) -> bool {
    let output = Command::new("ip").args(words.split(' ')).stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}
