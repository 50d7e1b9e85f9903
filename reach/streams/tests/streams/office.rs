//! A network whose only way out is a proxy: three network namespaces in a row.
//!
//! ```text
//!  client 10.99.1.2 ---- 10.99.1.1 proxy 10.99.2.1 ---- 10.99.2.2 root
//! ```
//!
//! The client has no default route, and the proxy's machine forwards nothing: no UDP, DNS or TCP of the
//! client gets past it. Only the proxy knows the name root.test. All this needs root and the program `ip`;
//! tests skip otherwise. Each test has separate namespaces, which are deleted with it.
#![expect(clippy::print_stdout, reason = "how a test says that it is skipped")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peersock_testnet::find_in_path;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::common::TEST_TIMEOUT;

pub(crate) const PROXY: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 1);
pub(crate) const ROOT: Ipv4Addr = Ipv4Addr::new(10, 99, 2, 2);
/// The name that the proxy's machine resolves to the root's address.
pub(crate) const NAME: &str = "root.test";

pub(crate) struct Office {
    /// Namespaces of the client, the proxy and the root.
    names: [String; 3],
    folder: TempDir,
    programs: Vec<Child>,
}

/// Number of offices made in this process, because tests may run in threads of one process.
static OFFICES: AtomicU32 = AtomicU32::new(0);

impl Office {
    /// Builds an office for a test that needs these programs. Where that is impossible, prints the reason and
    /// returns `None`.
    pub(crate) fn build(test: &str, programs: &[&str]) -> Option<Office> {
        if let Some(missing) = programs.iter().find(|program| find_in_path(program).is_none()) {
            skip(test, &format!("the program {missing} is missing"));
            return None;
        }
        let number = OFFICES.fetch_add(1, Ordering::Relaxed);
        let names = ["c", "p", "r"].map(|which| format!("streams-{}-{number}{which}", std::process::id()));
        if !ip(["netns", "add", &names[0]]) {
            skip(test, "network namespaces need root and the program ip");
            return None;
        }
        let office = Office { names, folder: tempfile::tempdir().expect("a folder"), programs: Vec::new() };
        let [client, proxy, root] = &office.names;
        assert!(ip(["netns", "add", proxy]) && ip(["netns", "add", root]));
        office.cable((client, "10.99.1.2/24"), (proxy, "10.99.1.1/24"), "inside");
        office.cable((proxy, "10.99.2.1/24"), (root, "10.99.2.2/24"), "outside");
        let hosts = format!("127.0.0.1 localhost\n{ROOT} {NAME}\n");
        fs::write(office.file("hosts"), hosts).expect("a folder");
        // Programs drop root's rights and read their files afterwards.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(office.folder.path(), everybody).expect("our folder");
        Some(office)
    }

    fn cable(&self, (a, a_address): (&str, &str), (b, b_address): (&str, &str), link: &str) {
        assert!(ip(["link", "add", link, "netns", a, "type", "veth", "peer", "name", link, "netns", b]));
        for (end, address) in [(a, a_address), (b, b_address)] {
            assert!(ip(["-n", end, "addr", "add", address, "dev", link]));
            assert!(ip(["-n", end, "link", "set", "lo", "up"]));
            assert!(ip(["-n", end, "link", "set", link, "up"]));
        }
    }

    /// Returns the path of a file for a program.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a program on the proxy's machine until the end, with the names that are known there, and waits
    /// until it listens at this port.
    pub(crate) fn run_proxy(&mut self, port: u16, program: &str, words: &[&str]) {
        let log = File::create(self.file("log")).expect("a folder");
        let bind = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[1], "unshare", "--mount", "sh", "-c", bind]);
        command.arg(self.file("hosts")).arg(find_in_path(program).expect("it was there")).args(words);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        self.programs.push(command.spawn().expect("it starts"));
        let give_up = Instant::now() + TEST_TIMEOUT;
        while self.at_client(|| TcpStream::connect((PROXY, port))).is_err() {
            let log = fs::read_to_string(self.file("log")).unwrap_or_default();
            assert!(Instant::now() < give_up, "{program} does not listen: {log}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs `serve` at the root, in a separate thread with a single-threaded tokio runtime.
    pub(crate) fn at_root<T: Send + 'static>(
        &self,
        serve: impl AsyncFnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let name = self.names[2].clone();
        thread::spawn(move || {
            enter(&name);
            runtime().block_on(serve())
        })
    }

    /// Runs `work` on the client's machine.
    pub(crate) fn at_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let working = scope.spawn(|| {
                enter(&self.names[0]);
                work()
            });
            working.join().expect("no panic")
        })
    }

    /// Runs asynchronous `work` on the client's machine.
    pub(crate) fn client_async<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.at_client(|| runtime().block_on(work()))
    }

    /// Asserts that the client reaches nothing but the proxy.
    pub(crate) fn assert_closed(&self) {
        self.at_client(|| {
            let direct =
                TcpStream::connect_timeout(&SocketAddr::new(IpAddr::V4(ROOT), 443), Duration::from_secs(2));
            assert!(direct.is_err(), "TCP gets out");
            let udp = UdpSocket::bind("0.0.0.0:0").expect("a free port");
            assert!(udp.send_to(b"x", (ROOT, 443)).is_err(), "UDP gets out");
        });
    }

    /// Disconnects the cable between the client and the proxy.
    pub(crate) fn cut(&self) {
        assert!(ip(["-n", &self.names[1], "link", "set", "inside", "down"]));
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        for program in &mut self.programs {
            // The program has replaced ip, unshare and sh by exec, so this is its process.
            let _ = program.kill();
            let _ = program.wait();
        }
        for name in &self.names {
            ip(["netns", "del", name]);
        }
    }
}

/// Prints that a test cannot run here.
pub(crate) fn skip(test: &str, reason: &str) {
    println!("SKIP {test}: {reason}");
}

fn enter(name: &str) {
    let namespace = File::open(format!("/run/netns/{name}")).expect("it was made");
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(rustix::fd::AsFd::as_fd(&namespace), kind).expect("root may enter it");
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn ip(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> bool {
    let done = Command::new("ip").args(words).output();
    done.is_ok_and(|output| output.status.success())
}
