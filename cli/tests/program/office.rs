//! Two networks from which only a web proxy leads out: no UDP, no DNS, no other TCP. Programs there reach
//! each other by a root outside, with the usual commands.
//!
//! ```text
//!  a 10.98.1.2 ---- 10.98.1.1 \
//!                              proxy 10.98.3.1 ---- 10.98.3.2 root
//!  b 10.98.2.2 ---- 10.98.2.1 /
//! ```
//!
//! Four network namespaces; the proxy's machine does not forward. This needs root, `ip`, and a real proxy;
//! tests skip otherwise.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peersock_testnet::find_in_path;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::common::{Lab, PATIENCE, PORT, Running, signal, without_variables};

/// Name of the root, which only the proxy's machine can resolve.
const NAME: &str = "root.test";

#[test]
fn programs_behind_squid_reach_each_other_and_survive_the_end_of_their_root() {
    let Some(mut office) = Office::build("programs_behind_squid", "squid") else { return };
    let (config, hosts, cache) = (office.file("squid.conf"), office.file("hosts"), office.file("cache.log"));
    let text = format!(
        "http_port 3128\nhosts_file {}\ncache_log {}\naccess_log none\npid_filename none\ncache_mem 8 MB\n\
         max_filedescriptors 1024\nvisible_hostname office\npinger_enable off\nshutdown_lifetime 0 seconds\n\
         acl tls port 443\nacl CONNECT method CONNECT\nhttp_access deny !tls\nhttp_access deny !CONNECT\n\
         http_access allow all\n",
        hosts.display(),
        cache.display(),
    );
    fs::write(&config, text).unwrap();
    office.run_proxy(3128, "squid", &["-N", "-f", config.to_str().unwrap()]);
    office.assert_closed();

    let (root, text) = office.start_root();
    let (mut listening, mut dialing) = office.meet(&text, 3128);
    let status = office.lab.command("b", &["status"]);
    let said = crate::common::run(status).success();
    let by = format!("wss:{NAME}:443 by way of http://10.98.2.1:3128");
    assert!(said.text().contains(&by), "{}", said.text());

    // The root is killed. Its successor is found, and the connection between the two continues.
    signal(Signal::KILL, root.id());
    drop(root);
    let (_root, again) = office.start_root();
    assert_eq!(again, text);
    dialing.talk_to(&mut listening, "still there", "of course");
    listening.end_stdin();
    dialing.finish().success();
    listening.finish().success();
}

#[test]
fn programs_behind_tinyproxy_reach_each_other() {
    let Some(mut office) = Office::build("programs_behind_tinyproxy", "tinyproxy") else { return };
    let config = office.file("tinyproxy.conf");
    fs::write(&config, "Port 8888\nAllow 10.98.0.0/16\nConnectPort 443\n").unwrap();
    office.run_proxy(8888, "tinyproxy", &["-d", "-c", config.to_str().unwrap()]);
    office.assert_closed();
    let (_root, text) = office.start_root();
    let (mut listening, dialing) = office.meet(&text, 8888);

    // A ping reports that it goes through the root, and how the root is reached.
    let target = listening.wait_for_target();
    let address = target.rsplit_once(':').unwrap().0.trim_matches(['[', ']']);
    let ping = office.start_node(1, "pinger", &text, 8888, &["ping", "-c", "1", address]).finish().success();
    let by = format!("at wss:{NAME}:443 by way of http://10.98.2.1:8888");
    let taken = ping.text().lines().find(|line| line.starts_with("path taken: relayed by root "));
    assert!(taken.is_some_and(|line| line.ends_with(&by)), "{}", ping.text());
    let words = ["ping", "--json", "--until-direct", "-c", "2", "-i", "0.1", address];
    let ping = office.start_node(1, "pinger", &text, 8888, &words).finish();
    ping.failure(1, &["no direct path"]);
    let json: serde_json::Value = serde_json::from_str(ping.text()).expect("one object");
    assert!(json["received"] == 2 && json["error"].as_str().unwrap().contains("no direct path"), "{json}");
    assert!(
        json["path"]["stream"] == by.trim_start_matches("at ") && json["path"]["remote"].is_null(),
        "{json}"
    );

    listening.end_stdin();
    dialing.finish().success();
    listening.finish().success();
}

struct Office {
    /// Namespaces of a, b, the proxy and the root.
    names: [String; 4],
    lab: Lab,
    proxy: Option<Child>,
}

/// Number of scenes built in this process, because tests may run in threads of one process.
static OFFICES: AtomicU32 = AtomicU32::new(0);

impl Office {
    /// Builds a scene for a test with this proxy. Returns `None`, after printing why, if that is impossible.
    fn build(test: &str, proxy: &str) -> Option<Office> {
        if find_in_path(proxy).is_none() {
            eprintln!("SKIP {test}: the program {proxy} is missing");
            return None;
        }
        let number = OFFICES.fetch_add(1, Ordering::Relaxed);
        let names =
            ["a", "b", "p", "r"].map(|which| format!("peersock-{}-{number}{which}", std::process::id()));
        if !ip(["netns", "add", &names[0]]) {
            eprintln!("SKIP {test}: network namespaces need root and the program ip");
            return None;
        }
        let office = Office { names, lab: Lab::new(), proxy: None };
        let [a, b, proxy, root] = &office.names;
        assert!([b, proxy, root].iter().all(|name| ip(["netns", "add", name])));
        for (at, net, link) in [(a, "10.98.1", "left"), (b, "10.98.2", "right"), (root, "10.98.3", "outside")]
        {
            assert!(ip([
                "link", "add", link, "netns", at, "type", "veth", "peer", "name", link, "netns", proxy
            ]));
            for (end, host) in [(at, 2), (proxy, 1)] {
                assert!(ip(["-n", end, "addr", "add", &format!("{net}.{host}/24"), "dev", link]));
                assert!(ip(["-n", end, "link", "set", "lo", "up"]));
                assert!(ip(["-n", end, "link", "set", link, "up"]));
            }
        }
        fs::write(office.file("hosts"), format!("127.0.0.1 localhost\n10.98.3.2 {NAME}\n")).unwrap();
        // The proxy drops root's privileges before it reads its files.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(office.lab.dir.path(), everybody).unwrap();
        Some(office)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.lab.dir.path().join(name)
    }

    /// Returns a command that runs in one of the namespaces.
    fn at(&self, name: &str, program: impl AsRef<OsStr>, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name]).arg(program).args(words);
        without_variables(&mut command);
        command
    }

    /// Runs the proxy, with the names known there, and waits until it listens.
    fn run_proxy(&mut self, port: u16, program: &str, words: &[&str]) {
        let log = File::create(self.file("log")).unwrap();
        let bind = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let mut command = self.at(&self.names[2], "unshare", &["--mount", "sh", "-c", bind]);
        command.arg(self.file("hosts")).arg(find_in_path(program).unwrap()).args(words);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.proxy = Some(command.spawn().unwrap());
        let give_up = Instant::now() + PATIENCE;
        while self.inside(0, || TcpStream::connect(("10.98.1.1", port))).is_err() {
            let log = fs::read_to_string(self.file("log")).unwrap_or_default();
            assert!(Instant::now() < give_up, "{program} does not listen: {log}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the root, with the same identity each time. Also returns its output.
    fn start_root(&self) -> (Running, String) {
        let words = ["root", "--listen", "10.98.3.2", "--stream", "443", "--advertise", "10.98.3.2:7420"];
        let mut command = self.at(&self.names[3], env!("CARGO_BIN_EXE_peersock"), &words);
        command.args(["--advertise", &format!("wss:{NAME}:443"), "--state"]).arg(self.lab.state("root"));
        let running = Running::start(command);
        let text = running.wait_for_stdout("\n");
        (running, text)
    }

    /// Starts a listener at a and a dialer at b, and exchanges data.
    fn meet(&self, roots: &str, proxy_port: u16) -> (Running, Running) {
        let node = |which: usize, words: &[&str]| {
            self.start_node(which, ["a", "b"][which], roots, proxy_port, words)
        };
        let mut listening = node(0, &["listen", &PORT.to_string()]);
        let target = listening.wait_for_target();
        let mut dialing = node(1, &["dial", &target]);
        dialing.talk_to(&mut listening, "who is there?", "me");
        (listening, dialing)
    }

    /// Starts a node at a or b.
    fn start_node(&self, which: usize, state: &str, roots: &str, proxy_port: u16, words: &[&str]) -> Running {
        let mut command = self.at(&self.names[which], env!("CARGO_BIN_EXE_peersock"), words);
        command.args(["-v", "--network", &self.lab.network, "--state"]).arg(self.lab.state(state));
        command.env("PEERSOCK_ROOTS", roots.trim());
        command.env("HTTPS_PROXY", format!("http://10.98.{}.1:{proxy_port}", which + 1));
        command.env_remove("https_proxy").env_remove("no_proxy").env_remove("NO_PROXY");
        Running::start(command)
    }

    /// Checks that only the proxy can be reached from inside.
    fn assert_closed(&self) {
        for which in 0..2 {
            self.inside(which, || {
                let address = "10.98.3.2:443".parse().unwrap();
                assert!(
                    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_err(),
                    "TCP gets out"
                );
                let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
                assert!(udp.send_to(b"x", address).is_err(), "UDP gets out");
                assert!(udp.send_to(b"x", ("10.98.3.1", 53)).is_err(), "DNS gets out");
            });
        }
    }

    /// Runs a function in a's or b's namespace.
    fn inside<T: Send>(&self, which: usize, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.names[which])).unwrap();
        let worker = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(rustix::fd::AsFd::as_fd(&namespace), kind).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(worker).join().unwrap())
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        if let Some(proxy) = &mut self.proxy {
            // The child is the proxy itself, because ip, unshare and sh have executed it in their place.
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
        for name in &self.names {
            ip(["netns", "del", name]);
        }
    }
}

fn ip(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> bool {
    let done = Command::new("ip").args(words).output();
    done.is_ok_and(|output| output.status.success())
}
