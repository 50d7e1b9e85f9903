//! Roots that share a directory, with a real redis-server: away, killed, restarted, slow, and with what others
//! have written to it.
#![cfg(feature = "server")]
#![expect(clippy::disallowed_methods, reason = "the driver has clocks and threads, and so have its tests")]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peersock_overlay::Identity;
use peersock_overlay::wire::{LookUpKey, NotFound, Referral, Relayed, RootMessage};
use peersock_root::server::{DirectoryTraffic, Listen, RedisConfig, Server};
use peersock_root::{Config, Source};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

#[expect(dead_code, reason = "the crate's own tests use all of it")]
#[path = "../src/tests/node.rs"]
mod node;

use node::Node;

/// Enough for the slowest machine under the heaviest load.
const PATIENCE: Duration = Duration::from_secs(60);

/// The root that `node` knows of by itself; the tests give it others.
fn config() -> Config {
    config_of(200)
}

fn config_of(seed: u8) -> Config {
    Config::new(Arc::new(Identity::from_seed(&[seed; 32])))
}

/// What `node` hands datagrams to: here a socket does that.
struct World {
    now: Instant,
    socket: UdpSocket,
    root: SocketAddr,
}

impl World {
    fn send(&mut self, _: Source, datagram: &[u8]) -> Vec<(Source, Vec<u8>)> {
        self.socket.send_to(datagram, self.root).expect("sent");
        let is_asked = datagram.len() > 60;
        is_asked.then(|| self.receive()).into_iter().collect()
    }

    fn receive(&mut self) -> (Source, Vec<u8>) {
        let mut buffer = [0; 2048];
        let (len, from) = self.socket.recv_from(&mut buffer).expect("an answer");
        assert_eq!(from, self.root);
        let remote = self.socket.local_addr().expect("an address");
        (Source::Udp { socket: 0, remote }, buffer[..len].to_vec())
    }
}

/// A node at a root, on a socket.
struct Client {
    node: Node,
    world: World,
}

impl Client {
    fn register(seed: u8, root: &Serving, access: &[u8]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        let remote = socket.local_addr().expect("an address");
        let mut world = World { now: Instant::now(), socket, root: root.address };
        let mut node = Node::new(seed, Source::Udp { socket: 0, remote });
        node.use_root(*root.config.identity.public());
        node.access = access.to_vec();
        node.connect(&mut world);
        node.register(&mut world, 600);
        Self { node, world }
    }

    fn look_up(&mut self, other: &Self) -> RootMessage {
        let key = LookUpKey::Id(other.node.identity.node_id());
        self.node.look_up(&mut self.world, key).expect("an answer")
    }

    /// Asks until the answer is of that kind.
    fn wait_for(&mut self, other: &Self, is_it: impl Fn(&RootMessage) -> bool) -> RootMessage {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.look_up(other);
            if is_it(&answer) {
                return answer;
            }
            assert!(Instant::now() < end, "{answer:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn wait_for_referral(&mut self, other: &Self) -> (Referral, [u8; 32]) {
        match self.wait_for(other, |answer| matches!(answer, RootMessage::Referred { .. })) {
            RootMessage::Referred { referral, pass, .. } => (*referral, pass),
            _ => unreachable!("it was waited for"),
        }
    }
}

fn is_partial(answer: &RootMessage) -> bool {
    matches!(answer, RootMessage::Found { result: Err(NotFound::Partial), .. })
}

fn is_nobody(answer: &RootMessage) -> bool {
    matches!(answer, RootMessage::Found { result: Err(NotFound::Unknown), .. })
}

/// A root that shares its directory, running.
struct Serving {
    config: Config,
    address: SocketAddr,
    traffic: Arc<DirectoryTraffic>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Serving {
    fn start(config: Config, redis: RedisConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let udp = vec!["127.0.0.1:0".parse().expect("an address")];
        let listen = Listen { udp, streams: None, metrics: None, drain: Duration::ZERO };
        let mut server = runtime.block_on(Server::bind(config.clone(), listen)).expect("a server");
        let address = server.udp_addresses()[0];
        server.share(redis, &address.to_string()).expect("a directory");
        let traffic = server.directory_traffic().expect("it is shared");
        let (end, ended) = oneshot::channel();
        let run = move || runtime.block_on(server.run(async { _ = ended.await }));
        let thread = Some(std::thread::spawn(run));
        Self { config, address, traffic, end: Some(end), thread }
    }

    fn end(&mut self) {
        self.end.take().expect("once").send(()).expect("it runs");
        self.thread.take().expect("once").join().expect("no panic").expect("no error");
    }
}

/// A redis-server that is ended with the test.
struct Redis {
    child: Child,
    port: u16,
    password: Option<&'static str>,
}

impl Redis {
    /// `None`, with the reason printed, where there is none.
    fn start(password: Option<&'static str>) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no redis-server");
            return None;
        }
        // Somebody else may take the port in between; then another one is tried.
        (0..20).find_map(|_| {
            let free = TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("an address");
            Self::start_at(free.port(), password)
        })
    }

    fn start_at(port: u16, password: Option<&'static str>) -> Option<Self> {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string());
        command.args(password.iter().flat_map(|password| ["--requirepass", password]));
        let child = command.stdout(Stdio::null()).spawn().expect("redis-server starts");
        let mut redis = Self { child, port, password };
        let end = Instant::now() + PATIENCE;
        while redis.child.try_wait().expect("its status").is_none() {
            assert!(Instant::now() < end, "redis-server does not answer");
            if redis.try_say("PING").is_ok_and(|answer| answer.contains("PONG")) {
                return Some(redis);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn config(&self) -> RedisConfig {
        config_at(self.port, self.password)
    }

    /// One command, and the first part of what comes back.
    fn try_say(&self, command: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
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

    fn say(&self, command: &str) -> String {
        self.try_say(command).expect("redis answers")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A redis-server at a port that another one has just left.
fn restart(port: u16, password: Option<&'static str>) -> Redis {
    let end = Instant::now() + PATIENCE;
    loop {
        match Redis::start_at(port, password) {
            Some(redis) => return redis,
            None => assert!(Instant::now() < end, "the port is taken"),
        }
    }
}

fn config_at(port: u16, password: Option<&str>) -> RedisConfig {
    let password = password.map(|text| Zeroizing::new(text.to_owned()));
    RedisConfig::new(&format!("redis://127.0.0.1:{port}"), password.as_ref()).expect("a URL")
}

#[test]
fn nodes_of_two_roots_find_each_other_and_talk_through_one_of_them() {
    let Some(redis) = Redis::start(Some("hush")) else { return };
    let guarded = |seed| {
        let mut config = config_of(seed);
        config.access = Some(Zeroizing::new(b"open sesame".to_vec()));
        config
    };
    let [mut a, mut b] = [201, 202].map(|seed| Serving::start(guarded(seed), redis.config()));
    let mut sought = Client::register(2, &b, b"open sesame");
    let mut seeker = Client::register(1, &a, b"open sesame");
    let (referral, pass) = seeker.wait_for_referral(&sought);
    assert!(referral.verify());
    assert_eq!(referral.root.identity, *b.config.identity.public());
    assert_eq!(referral.root.addresses(), [b.address]);

    // As a guest, with the pass alone, and through that root to the node.
    let mut guest = Client::register(1, &b, &pass);
    let RootMessage::Found { result: Ok(entry), .. } = guest.look_up(&sought) else { panic!("it is there") };
    let frame = guest.node.frame(entry.channel, b"a datagram between nodes");
    guest.world.socket.send_to(&frame, b.address).expect("sent");
    let (_, frame) = sought.world.receive();
    let (header, inner) = Relayed::parse(&frame).expect("a frame");
    assert_eq!((header.token, inner), (sought.node.token, &b"a datagram between nodes"[..]));
    let answer = sought.node.frame(header.channel, b"and back");
    sought.world.socket.send_to(&answer, b.address).expect("sent");
    assert!(guest.world.receive().1.ends_with(b"and back"));

    // A root that ends is not named any more.
    b.end();
    seeker.wait_for(&sought, is_nobody);
    a.end();
    assert_eq!(redis.say("KEYS peersock:1:root:*"), "*0\r\n", "both have taken themselves out");
}

#[test]
fn a_redis_that_is_killed_costs_nothing_but_the_other_roots_nodes_and_is_told_all_when_it_is_back() {
    let Some(mut redis) = Redis::start(None) else { return };
    let [a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), redis.config()));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    let neighbour = Client::register(3, &a, b"");
    seeker.wait_for_referral(&sought);
    redis.child.kill().expect("killed");
    redis.child.wait().expect("gone");
    seeker.wait_for(&sought, is_partial);
    // Its own nodes it knows, and nobody waits.
    assert!(matches!(seeker.look_up(&neighbour), RootMessage::Found { result: Ok(_), .. }));
    let begin = Instant::now();
    assert!((0..10).all(|_| is_partial(&seeker.look_up(&sought))));
    assert!(begin.elapsed() < Duration::from_secs(15), "each question would wait for two seconds");
    assert!(a.traffic.directory_failures.get() > 0);
    // It comes back without what it knew.
    let port = redis.port;
    let _redis = restart(port, None);
    seeker.wait_for_referral(&sought);
}

#[test]
fn a_redis_that_is_not_there_yet_or_refuses_is_used_as_soon_as_it_serves() {
    let Some(redis) = Redis::start(None) else { return };
    let port = redis.port;
    drop(redis);
    let [a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), config_at(port, None)));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    assert!(is_partial(&seeker.look_up(&sought)));
    let redis = restart(port, None);
    seeker.wait_for_referral(&sought);
    // Another one in its place, with a password that nobody has told the roots.
    drop(redis);
    let redis = restart(port, Some("hush"));
    seeker.wait_for(&sought, is_partial);
    redis.say("CONFIG SET requirepass \"\"");
    seeker.wait_for_referral(&sought);
}

#[test]
fn what_others_have_written_leads_nowhere_and_is_counted() {
    let Some(redis) = Redis::start(None) else { return };
    let [a, b] = [201, 202].map(|seed| Serving::start(config_of(seed), redis.config()));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    seeker.wait_for_referral(&sought);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let root = b.config.identity.node_id();
    // The other root's record is gone from where it is looked for, and something else stands there.
    redis.say(&format!("SET peersock:1:root:{} {}", hex(root.as_bytes()), "x".repeat(300)));
    seeker.wait_for(&sought, is_nobody);
    assert!(a.traffic.directory_forged.get() > 0);
    // Not even a hash.
    let key = format!("peersock:1:node:{}", hex(&sought.node.identity.node_id().as_bytes()[..10]));
    redis.say(&format!("SET {key} nonsense"));
    seeker.wait_for(&sought, is_partial);
    redis.say(&format!("DEL {key}"));
    seeker.wait_for(&sought, is_nobody);
}

/// Passes a connection on, and holds back what comes from Redis for so many milliseconds.
fn slow(port: u16, delay: Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let Ok(near) = near else { return };
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { return };
            let (up, down) = (near.try_clone().expect("a copy"), far.try_clone().expect("a copy"));
            let delay = delay.clone();
            std::thread::spawn(move || pass(up, &far, || ()));
            std::thread::spawn(move || {
                pass(down, &near, || {
                    std::thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)))
                });
            });
        }
    });
    address.port()
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

#[test]
fn a_redis_that_is_slow_is_waited_for_and_one_that_is_too_slow_is_done_without() {
    let Some(redis) = Redis::start(None) else { return };
    let delay = Arc::new(AtomicU64::new(0));
    let through = config_at(slow(redis.port, delay.clone()), None);
    let (a, b) = (Serving::start(config_of(201), through), Serving::start(config_of(202), redis.config()));
    let (mut seeker, sought) = (Client::register(1, &a, b""), Client::register(2, &b, b""));
    seeker.wait_for_referral(&sought);
    delay.store(150, Ordering::Relaxed);
    seeker.wait_for_referral(&sought);
    delay.store(20_000, Ordering::Relaxed);
    seeker.wait_for(&sought, is_partial);
    let neighbour = Client::register(3, &a, b"");
    assert!(matches!(seeker.look_up(&neighbour), RootMessage::Found { result: Ok(_), .. }));
    delay.store(0, Ordering::Relaxed);
    seeker.wait_for_referral(&sought);
}
