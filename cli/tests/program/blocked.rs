//! Two networks that let TCP out but no UDP. Their nodes meet by a root that relays only handshakes, and
//! reach each other by a TURN server, coturn, over TCP and TLS.
//!
//! ```text
//!  a 10.97.1.2 ---- 10.97.1.1 \
//!                              10.97.3.1, with the root and coturn
//!  b 10.97.2.2 ---- 10.97.2.1 /
//! ```
//!
//! Three network namespaces; the middle one does not forward, and drops UDP from the others. This needs root,
//! `ip`, `nft` and `turnserver`; tests skip otherwise.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peersock_testnet::find_in_path;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::common::{Lab, PATIENCE, PORT, Running, lacks, run, signal, without_variables};
use crate::turn::{relayed, send_much};

/// Address of the servers.
pub(crate) const SERVER: &str = "10.97.3.1";

/// Address of a's SOCKS proxy, if there is one.
const PROXY: &str = "10.97.1.1:1080";

/// A word that appears nowhere else in the status.
const PROXY_PASSWORD: &str = "swordfish";

#[test]
fn nodes_whose_udp_is_blocked_reach_each_other_by_turn_over_tcp_and_tls_also_after_its_restart() {
    let Some(lab) = Blocked::build("turn_over_tcp_and_tls") else { return };
    let roots = lab.start_root();
    let coturn = lab.start_coturn();
    let (by_tcp, by_tls) = (lab.by_tcp(), lab.by_tls());
    let mut listening = lab.node(0, &roots.1, &by_tcp, &["listen", &PORT.to_string()]);
    let target = listening.wait_for_target();
    lab.wait_for_status(0, |now| relayed(now).is_some());
    let mut dialing = lab.node(1, &roots.1, &by_tls, &["dial", &target]);
    dialing.talk_to(&mut listening, "by TURN", "and back");
    for which in 0..2 {
        let now = lab.wait_for_status(which, |now| now["peers"][0]["turn"] == true);
        assert!(relayed(&now).is_some_and(|at| at.starts_with(SERVER)), "{now:#}");
        assert!(now["peers"][0]["root"].is_null(), "{now:#}");
        assert!(!now.to_string().contains("sesame"), "the password is not told: {now:#}");
        let server = now["turn"][0]["server"].as_str().expect("a text");
        let expected = ["turn:alice@10.97.3.1:3478?transport=tcp", "turns:alice@10.97.3.1:5349"];
        assert_eq!(server, expected[which], "{now:#}");
    }
    send_much(&mut dialing, &listening);

    signal(Signal::KILL, coturn.id());
    drop(coturn);
    for which in 0..2 {
        let now = lab.wait_for_status(which, |now| now["turn"][0]["error"].is_string());
        assert!(relayed(&now).is_none(), "{now:#}");
    }
    let _coturn = lab.start_coturn();
    dialing.talk_to(&mut listening, "still there", "of course");
    dialing.end_stdin();
    listening.finish().success();
    dialing.finish().success();
}

#[test]
fn turn_over_tcp_leads_through_a_socks_proxy_where_nothing_else_leads_out() {
    const TEST: &str = "turn_over_tcp_leads_through_a_socks_proxy";
    if lacks(TEST, &["microsocks"]) {
        return;
    }
    let Some(lab) = Blocked::build(TEST) else { return };
    let roots = lab.start_root();
    let _coturn = lab.start_coturn();
    let _proxy = lab.start_proxy();
    let mut command = lab.command(0, &roots.1, &lab.by_tcp(), &["listen", &PORT.to_string()]);
    command.env("ALL_PROXY", format!("socks5h://me:{PROXY_PASSWORD}@{PROXY}"));
    let mut listening = Running::start(command);
    let target = listening.wait_for_target();
    lab.wait_for_status(0, |now| relayed(now).is_some_and(|at| at.starts_with(SERVER)));
    let mut dialing = lab.node(1, &roots.1, &lab.by_tls(), &["dial", &target]);
    dialing.send(b"by TURN and a proxy\n");
    listening.wait_for_stdout("by TURN and a proxy\n");
    send_much(&mut dialing, &listening);
    listening.send(b"and back\n");
    dialing.wait_for_stdout("and back\n");
    let now = lab.wait_for_status(0, |now| now["peers"][0]["turn"] == true);
    assert!(now["peers"][0]["root"].is_null(), "{now:#}");
    assert!(!now.to_string().contains(PROXY_PASSWORD), "the proxy's password is not told: {now:#}");
    dialing.end_stdin();
    listening.finish().success();
    dialing.finish().success();
}

#[test]
fn netcheck_says_of_each_turn_server_what_is_wrong_with_it() {
    let Some(lab) = Blocked::build("netcheck_of_turn_servers") else { return };
    let _coturn = lab.start_coturn();
    let tls = format!("turns:alice:sesame@{SERVER}");
    let servers = [
        (lab.by_tcp(), Ok("")),
        (lab.by_tls(), Ok("")),
        (format!("turn:alice:sesame@{SERVER}"), Err(("the server does not answer", "?transport=tcp"))),
        (tls.clone(), Err(("the certificate of 10.97.3.1 is not accepted", ""))),
        (format!("{tls}?sha256={}", "ab".repeat(32)), Err(("another one was named", ""))),
        (format!("turn:alice:wrong@{SERVER}?transport=tcp"), Err(("the password", "correct the user name"))),
        (format!("turn:alice:sesame@{SERVER}:9?transport=tcp"), Err(("cannot connect to 10.97.3.1:9", ""))),
    ];
    let netcheck = |words: &[&str]| {
        let mut command = lab.at(0, &["netcheck"]);
        command.args(words).args(servers.iter().map(|(text, _)| format!("--turn={text}")));
        run(command).success()
    };
    let output = netcheck(&["--json"]);
    let report: Value = serde_json::from_str(output.text()).expect("JSON");
    for (check, (text, expected)) in report["turn"].as_array().expect("a list").iter().zip(&servers) {
        match expected {
            Ok(_) => {
                let at = check["relayed"].as_str().unwrap_or_default();
                assert!(at.starts_with(SERVER) && check["reached"] == true, "{text}: {check}");
                assert!(check["rtt_ms"].as_f64().is_some_and(|time| time > 0.0), "{text}: {check}");
            }
            Err((error, to_do)) => {
                let said = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
                assert!(said("error").contains(error), "{text}: {check}");
                assert!(said("what_to_do").contains(to_do), "{text}: {check}");
                assert!(check["relayed"].is_null(), "{text}: {check}");
            }
        }
    }
    assert_eq!(report["turn"].as_array().map(Vec::len), Some(servers.len()), "{report:#}");
    let is_said =
        |advice: &Value| advice["finding"].as_str().is_some_and(|said| said.starts_with("TURN server"));
    let advice = report["advice"].as_array().expect("a list").iter().filter(|one| is_said(one)).count();
    assert_eq!(advice, 5, "{report:#}");
    assert!(!output.text().contains("sesame"), "{}", output.text());
    let text = netcheck(&[]);
    assert!(text.text().contains("turns:alice@10.97.3.1:5349  relays at 10.97.3.1:"), "{}", text.text());
    assert!(text.text().contains("turn:alice@10.97.3.1:3478  not reached"), "{}", text.text());
    assert!(text.text().contains("to do: correct the user name"), "{}", text.text());
}

pub(crate) struct Blocked {
    /// Namespaces of a, b and the servers.
    names: [String; 3],
    lab: Lab,
    /// SHA-256 of coturn's certificate.
    fingerprint: String,
}

/// Number of scenes built in this process, because tests may run in threads of one process.
static BUILT: AtomicU32 = AtomicU32::new(0);

impl Blocked {
    /// Builds the scene; returns `None`, after printing the reason, if that is impossible.
    pub(crate) fn build(test: &str) -> Option<Blocked> {
        for program in ["turnserver", "nft"] {
            if find_in_path(program).is_none() {
                eprintln!("SKIP {test}: the program {program} is missing");
                return None;
            }
        }
        let number = BUILT.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "b", "s"].map(|which| format!("turntcp-{}-{number}{which}", std::process::id()));
        if !ip(["netns", "add", &names[0]]) {
            eprintln!("SKIP {test}: network namespaces need root and the program ip");
            return None;
        }
        let lab = Lab::new();
        let fingerprint = certify(lab.dir.path());
        let blocked = Blocked { names, lab, fingerprint };
        let [a, b, server] = &blocked.names;
        assert!(ip(["netns", "add", b]) && ip(["netns", "add", server]));
        for (at, net, link) in [(a, "10.97.1", "left"), (b, "10.97.2", "right")] {
            assert!(ip([
                "link", "add", link, "netns", at, "type", "veth", "peer", "name", link, "netns", server
            ]));
            for (end, host) in [(at, 2), (server, 1)] {
                assert!(ip(["-n", end, "addr", "add", &format!("{net}.{host}/24"), "dev", link]));
                assert!(ip(["-n", end, "link", "set", "lo", "up"]));
                assert!(ip(["-n", end, "link", "set", link, "up"]));
            }
            assert!(ip(["-n", at, "route", "add", "default", "via", &format!("{net}.1")]));
        }
        assert!(ip(["-n", server, "addr", "add", &format!("{SERVER}/32"), "dev", "lo"]));
        let rules = "add table ip f; add chain ip f i { type filter hook input priority 0; }; \
                     add rule ip f i iifname != lo meta l4proto udp drop; \
                     add chain ip f f { type filter hook forward priority 0; policy drop; }";
        assert!(ip(["netns", "exec", server, "nft", rules]));
        Some(blocked)
    }

    /// Returns a peersock command that runs at a, b or beside the servers.
    pub(crate) fn at(&self, which: usize, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[which]]).arg(env!("CARGO_BIN_EXE_peersock")).args(words);
        without_variables(&mut command);
        for proxy in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY"] {
            command.env_remove(proxy);
        }
        command
    }

    fn node(&self, which: usize, roots: &str, turn: &str, words: &[&str]) -> Running {
        Running::start(self.command(which, roots, turn, words))
    }

    pub(crate) fn command(&self, which: usize, roots: &str, turn: &str, words: &[&str]) -> Command {
        let mut command = self.at(which, words);
        command.args(["-v", "--network", &self.lab.network, "--state"]).arg(self.state(which));
        command.env("PEERSOCK_ROOTS", roots.trim()).env("PEERSOCK_TURN", turn);
        command
    }

    pub(crate) fn state(&self, which: usize) -> std::path::PathBuf {
        self.lab.state(["a", "b", "root"][which])
    }

    pub(crate) fn by_tcp(&self) -> String {
        format!("turn:alice:sesame@{SERVER}?transport=tcp")
    }

    pub(crate) fn by_tls(&self) -> String {
        format!("turns:alice:sesame@{SERVER}?transport=tcp&sha256={}", self.fingerprint)
    }

    /// Returns a path for a program's file.
    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.lab.dir.path().join(name)
    }

    /// Returns the command of a root that relays only handshakes.
    pub(crate) fn root_command(&self) -> Command {
        let advertised = format!("tcp:{SERVER}:7421");
        let mut command = self.at(2, &["root", "--listen", SERVER, "--stream", "7421", "--no-relay"]);
        command.args(["--advertise", &advertised, "--state"]).arg(self.state(2));
        command
    }

    /// Starts the root. Also returns its text.
    fn start_root(&self) -> (Running, String) {
        let running = Running::start(self.root_command());
        let text = running.wait_for_stdout("\n");
        (running, text)
    }

    pub(crate) fn start_coturn(&self) -> Running {
        let options = format!(
            "-n --lt-cred-mech --user alice:sesame --realm example.org --no-dtls --no-cli \
             --listening-ip {SERVER} --relay-ip {SERVER} --log-file /dev/null --no-stdout-log --pidfile /dev/null --userdb /dev/null"
        );
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.names[2]])
            .arg(find_in_path("turnserver").expect("it was there"));
        command.args(options.split_ascii_whitespace());
        command.arg("--cert").arg(self.lab.dir.path().join("chain.pem"));
        command.arg("--pkey").arg(self.lab.dir.path().join("key.pem"));
        let running = Running::start(command);
        let give_up = Instant::now() + PATIENCE;
        for port in [3478, 5349] {
            while self.inside(0, || TcpStream::connect((SERVER, port))).is_err() {
                assert!(Instant::now() < give_up, "coturn does not listen: {}", running.said());
                thread::sleep(Duration::from_millis(20));
            }
        }
        running
    }

    /// Starts a SOCKS proxy for a, and blocks all other traffic of a.
    fn start_proxy(&self) -> Running {
        let server = &self.names[2];
        let (address, port) = PROXY.split_once(':').expect("a port");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", server]).arg(find_in_path("microsocks").expect("it was there"));
        command.args(["-i", address, "-p", port, "-u", "me", "-P", PROXY_PASSWORD]);
        let running = Running::start(command);
        let rule = format!("add rule ip f i iifname left tcp dport != {port} drop");
        assert!(ip(["netns", "exec", server, "nft", &rule]));
        let reaches = |to: &str| {
            let to = to.parse().expect("an address");
            self.inside(0, || TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_ok())
        };
        let give_up = Instant::now() + PATIENCE;
        while !reaches(PROXY) {
            assert!(Instant::now() < give_up, "microsocks does not listen: {}", running.said());
            thread::sleep(Duration::from_millis(20));
        }
        assert!(!reaches(&format!("{SERVER}:3478")), "coturn is reached without the proxy");
        running
    }

    pub(crate) fn wait_for_status(&self, which: usize, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut command = self.at(which, &["status", "--json", "--state"]);
            command.arg(self.state(which));
            let now: Value = serde_json::from_str(run(command).success().text()).expect("JSON");
            if is_so(&now) {
                return now;
            }
            assert!(Instant::now() < deadline, "{now:#}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a function in a's or b's namespace.
    pub(crate) fn inside<T: Send>(&self, which: usize, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.names[which])).expect("it was made");
        let worker = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(rustix::fd::AsFd::as_fd(&namespace), kind).expect("root may enter it");
            work()
        };
        thread::scope(|scope| scope.spawn(worker).join().expect("no panic"))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        for name in &self.names {
            ip(["netns", "del", name]);
        }
    }
}

/// Writes a self-signed certificate and its key. Returns the certificate's SHA-256.
fn certify(folder: &Path) -> String {
    let key = rcgen::KeyPair::generate().expect("randomness");
    let certificate = rcgen::CertificateParams::new(vec!["turn.test".to_owned()]).expect("a name");
    let certificate = certificate.self_signed(&key).expect("a certificate");
    let write = |name: &str, label: &str, der: &[u8]| {
        let lines: String = data_encoding::BASE64
            .encode(der)
            .as_bytes()
            .chunks(64)
            .fold(String::new(), |text, line| text + std::str::from_utf8(line).expect("digits") + "\n");
        let text = format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n");
        fs::write(folder.join(name), text).expect("a folder");
    };
    write("chain.pem", "CERTIFICATE", certificate.der());
    write("key.pem", "PRIVATE KEY", &key.serialize_der());
    Sha256::digest(certificate.der()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ip(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> bool {
    let done = Command::new("ip").args(words).output();
    done.is_ok_and(|output| output.status.success())
}
