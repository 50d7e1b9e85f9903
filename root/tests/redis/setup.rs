//! Setup: a redis-server, roots that share it, and nodes at them.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peersock_overlay::Identity;
use peersock_overlay::wire::{Control, LookUpKey, NotFound, Referral, RootMessage};
use peersock_root::server::{DirectoryTraffic, Listen, RedisConfig, SecondPort, Server};
use peersock_root::{Config, Source};
use peersock_testnet::free_port;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

#[expect(dead_code, reason = "the crate's own tests use all of it")]
#[path = "../../src/tests/node.rs"]
mod node;

use node::Node;

/// Long enough for the slowest machine under the heaviest load.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Lifetime of registrations, in seconds.
const LIFETIME: u32 = 600;

/// Prefix of keys in Redis.
pub(crate) const LAYOUT: &str = "peersock:2";

/// Returns the configuration of the root that `node` uses by default; the tests give it others.
fn config() -> Config {
    config_of(200)
}

pub(crate) fn config_of(seed: u8) -> Config {
    Config::new(Arc::new(Identity::from_seed(&[seed; 32])))
}

/// Network that `node` hands datagrams to: here a socket.
pub(crate) struct World {
    now: Instant,
    pub(crate) socket: UdpSocket,
    root: SocketAddr,
}

impl World {
    fn send(&mut self, _: Source, datagram: &[u8]) -> Vec<(Source, Vec<u8>)> {
        self.socket.send_to(datagram, self.root).expect("sent");
        let is_asked = datagram.len() > 60;
        is_asked.then(|| self.receive()).into_iter().collect()
    }

    pub(crate) fn receive(&mut self) -> (Source, Vec<u8>) {
        let mut buffer = [0; 2048];
        let (len, from) = self.socket.recv_from(&mut buffer).expect("an answer");
        assert_eq!(from, self.root);
        let remote = self.socket.local_addr().expect("an address");
        (Source::Udp { socket: 0, remote }, buffer[..len].to_vec())
    }
}

/// Node at a root, on a socket.
pub(crate) struct Client {
    pub(crate) node: Node,
    pub(crate) world: World,
}

impl Client {
    pub(crate) fn register(seed: u8, root: &Serving, access: &[u8]) -> Self {
        Self::register_for(seed, root, access, LIFETIME)
    }

    pub(crate) fn register_for(seed: u8, root: &Serving, access: &[u8], lifetime: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(TEST_TIMEOUT)).expect("a time");
        let remote = socket.local_addr().expect("an address");
        let mut world = World { now: Instant::now(), socket, root: root.address };
        let mut node = Node::new(seed, Source::Udp { socket: 0, remote });
        node.use_root(*root.config.identity.public());
        node.access = access.to_vec();
        node.connect(&mut world);
        node.register(&mut world, lifetime);
        Self { node, world }
    }

    pub(crate) fn look_up(&mut self, other: &Self) -> RootMessage {
        let key = LookUpKey::Id(other.node.identity.node_id());
        self.node.look_up(&mut self.world, key).expect("an answer")
    }

    pub(crate) fn register_again(&mut self) {
        self.node.register(&mut self.world, LIFETIME);
    }

    /// Sends a message without waiting for an answer.
    pub(crate) fn say(&mut self, message: Control) {
        let datagram = self.node.seal_control(message);
        self.send(&datagram);
    }

    /// Asks without waiting for the answer.
    pub(crate) fn ask_for(&mut self, other: &Self) {
        let key = LookUpKey::Id(other.node.identity.node_id());
        let datagram = self.node.seal_message(&RootMessage::LookUp { id: 77, key });
        self.send(&datagram);
    }

    /// Registers again without waiting for the answer.
    pub(crate) fn send_registration(&mut self) {
        let message = self.node.registration(LIFETIME);
        let datagram = self.node.seal_message(&message);
        self.send(&datagram);
    }

    fn send(&self, datagram: &[u8]) {
        self.world.socket.send_to(datagram, self.world.root).expect("sent");
    }

    /// Receives the root's next message.
    pub(crate) fn hear(&mut self) -> RootMessage {
        let (_, datagram) = self.world.receive();
        RootMessage::parse(&self.node.open(&datagram).expect("sealed")).expect("a message of roots")
    }

    /// Returns the node's key in Redis.
    pub(crate) fn redis_key(&self) -> String {
        let node = self.node.identity.node_id();
        format!("{LAYOUT}:node:{}", hex(&node.as_bytes()[..10]))
    }

    /// Asks until the answer is of that kind.
    pub(crate) fn wait_for(&mut self, other: &Self, is_it: impl Fn(&RootMessage) -> bool) -> RootMessage {
        let end = Instant::now() + TEST_TIMEOUT;
        loop {
            let answer = self.look_up(other);
            if is_it(&answer) {
                return answer;
            }
            assert!(Instant::now() < end, "{answer:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn wait_for_referral(&mut self, other: &Self) -> (Referral, [u8; 32]) {
        match self.wait_for(other, |answer| matches!(answer, RootMessage::Referred { .. })) {
            RootMessage::Referred { referral, pass, .. } => (*referral, pass),
            _ => unreachable!("it was waited for"),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn is_partial(answer: &RootMessage) -> bool {
    matches!(answer, RootMessage::Found { result: Err(NotFound::Partial), .. })
}

pub(crate) fn is_nobody(answer: &RootMessage) -> bool {
    matches!(answer, RootMessage::Found { result: Err(NotFound::Unknown), .. })
}

/// Running root that shares its directory.
pub(crate) struct Serving {
    pub(crate) config: Config,
    pub(crate) address: SocketAddr,
    pub(crate) traffic: Arc<DirectoryTraffic>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Serving {
    pub(crate) fn start(config: Config, redis: RedisConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let udp = vec!["127.0.0.1:0".parse().expect("an address")];
        let listen = Listen {
            udp,
            second_port: SecondPort::None,
            streams: None,
            metrics: None,
            drain: Duration::ZERO,
        };
        let mut server = runtime.block_on(Server::bind(config.clone(), listen)).expect("a server");
        let address = server.udp_addresses()[0];
        server.share(redis, &address.to_string()).expect("a directory");
        let traffic = server.directory_traffic().expect("it is shared");
        let (end, ended) = oneshot::channel();
        let run = move || runtime.block_on(server.run(async { _ = ended.await }));
        let thread = Some(std::thread::spawn(run));
        Self { config, address, traffic, end: Some(end), thread }
    }

    pub(crate) fn end(&mut self) {
        self.end.take().expect("once").send(()).expect("it runs");
        self.thread.take().expect("once").join().expect("no panic").expect("no error");
    }
}

/// Process of redis-server that ends with the test.
pub(crate) struct Redis {
    pub(crate) child: Child,
    pub(crate) port: u16,
    password: Option<&'static str>,
}

impl Redis {
    /// Starts a redis-server; returns `None`, with the reason printed, if it is not installed.
    pub(crate) fn start(password: Option<&'static str>) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no redis-server");
            return None;
        }
        // Another process may take the port in between; then another port is tried.
        (0..20).find_map(|_| Self::start_at(free_port(), password, &[]))
    }

    /// Starts a redis-server with a TLS port, which shows `server.pem` of that folder. Returns `None`, with
    /// the reason printed, if that is impossible.
    pub(crate) fn start_tls(folder: &Path) -> Option<(Self, u16)> {
        drop(Self::start(None)?);
        let file = |name| folder.join(name).to_str().expect("plain text").to_owned();
        let [certificate, key, roots] = ["server.pem", "server.key", "ca.pem"].map(file);
        let redis = (0..20).find_map(|_| {
            let port = free_port();
            let number = port.to_string();
            let tls = [
                ["--tls-port", &number],
                ["--tls-cert-file", &certificate],
                ["--tls-key-file", &key],
                ["--tls-ca-cert-file", &roots],
                ["--tls-auth-clients", "no"],
            ];
            Some((Self::start_at(free_port(), None, tls.as_flattened())?, port))
        });
        if redis.is_none() {
            eprintln!("skipped: this redis-server has no TLS");
        }
        redis
    }

    fn start_at(port: u16, password: Option<&'static str>, more: &[&str]) -> Option<Self> {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .args(more);
        command.args(password.iter().flat_map(|password| ["--requirepass", password]));
        let child = command.stdout(Stdio::null()).spawn().expect("redis-server starts");
        let mut redis = Self { child, port, password };
        let end = Instant::now() + TEST_TIMEOUT;
        while redis.child.try_wait().expect("its status").is_none() {
            assert!(Instant::now() < end, "redis-server does not answer");
            if redis.try_say("PING").is_ok_and(|answer| answer.contains("PONG")) {
                return Some(redis);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    pub(crate) fn config(&self) -> RedisConfig {
        config_at(self.port, self.password)
    }

    /// Runs one command, and returns the first part of the answer.
    fn try_say(&self, command: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(TEST_TIMEOUT))?;
        if let Some(password) = self.password {
            stream.write_all(format!("AUTH {password}\r\n").as_bytes())?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
        }
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = [0; 65_536];
        let len = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
    }

    pub(crate) fn say(&self, command: &str) -> String {
        self.try_say(command).expect("redis answers")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a redis-server at a port that another one has just left.
pub(crate) fn restart(port: u16, password: Option<&'static str>) -> Redis {
    let end = Instant::now() + TEST_TIMEOUT;
    loop {
        match Redis::start_at(port, password, &[]) {
            Some(redis) => return redis,
            None => assert!(Instant::now() < end, "the port is taken"),
        }
    }
}

pub(crate) fn config_at(port: u16, password: Option<&str>) -> RedisConfig {
    let password = password.map(|text| Zeroizing::new(text.to_owned()));
    RedisConfig::new(&format!("redis://127.0.0.1:{port}"), password.as_ref()).expect("a URL")
}

/// Proxy for connections to Redis.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    /// Delay of data from Redis in milliseconds.
    delay: Arc<AtomicU64>,
    /// All sockets; `None` while the proxy is cut.
    sockets: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Proxy {
    pub(crate) fn to(redis: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let (delay, sockets) = (Arc::<AtomicU64>::default(), Arc::new(Mutex::new(Some(Vec::new()))));
        let proxy = Self { port, delay: delay.clone(), sockets: sockets.clone() };
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(("127.0.0.1", redis))) else { return };
                let (up, down) = (near.try_clone().expect("a copy"), far.try_clone().expect("a copy"));
                let Some(sockets) = &mut *sockets.lock().expect("no panic") else { continue };
                sockets.extend([&up, &down].map(|socket| socket.try_clone().expect("a copy")));
                let delay = delay.clone();
                std::thread::spawn(move || pass(up, &far, || ()));
                std::thread::spawn(move || {
                    pass(down, &near, || {
                        std::thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
                    });
                });
            }
        });
        proxy
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.delay.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// Ends all connections, and new ones at once.
    pub(crate) fn cut(&self) {
        for socket in self.sockets.lock().expect("no panic").take().into_iter().flatten() {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    pub(crate) fn mend(&self) {
        *self.sockets.lock().expect("no panic") = Some(Vec::new());
    }
}

fn pass(mut from: TcpStream, mut to: &TcpStream, wait: impl Fn()) {
    let mut buffer = [0; 65_536];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        wait();
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Folder that is removed with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("peersock-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until a condition holds, and panics with its description otherwise.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + TEST_TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
