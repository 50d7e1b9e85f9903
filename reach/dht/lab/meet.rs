//! Two programs behind NATs that find each other through a DHT only, and punch through.
//!
//! ```text
//! meet dht COUNT FIRST-ADDRESS          runs nodes of a DHT, one on each address from the first on
//! meet node SEED PEER-SEED find|wait|idle STUN-SERVER ENTRY...
//! meet lab RUNS wait|idle               both, several times, inside of `natlab run`; tests/natlab.rs calls it
//! ```
//!
//! A node's address follows from its seed, so each node can compute the other's address and knows nothing
//! else. It prints the time from its start until the first datagram came directly from the peer. A node that
//! is `idle` reads its mailbox as seldom as one that has run for long, and the other one starts some seconds
//! later. A node that has met its peer stays until its standard input ends, because the peer may not have
//! heard it yet.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use mainline::Dht;
use peersock_dht::{
    Bootstrap, Candidate, CandidateKind, Contact, Event, Filtering, HolePunch, Mapping, Nat, NodeTail,
    Record, Service, Settings, Target,
};
use peersock_overlay::{DiscoveryKey, Identity, NetworkId, Psk};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Beginning of each datagram between the two; a byte and the sender's tail follow.
const MAGIC: &[u8] = b"peersock example: meet ";

const MEETING_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval of the confirmations to a peer that was heard.
const CONFIRMATION_INTERVAL: Duration = Duration::from_millis(200);

/// Largest head start of an idle node before the one that looks for it.
const MAX_HEAD_START: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["dht", count, first] => serve(count, first),
        ["node", seed, peer, role, stun, ref entries @ ..] => node(seed, peer, role, stun, entries),
        ["lab", runs, role @ ("wait" | "idle")] => lab(runs, role),
        _ => Err("see the head of this file for how to use it".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meet: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs nodes of a DHT until the standard input ends.
fn serve(count: &str, first: &str) -> Result<()> {
    let (count, first): (u32, Ipv4Addr) = (count.parse()?, first.parse()?);
    let mut nodes = Vec::new();
    for i in 0..count {
        let address = Ipv4Addr::from_bits(first.to_bits() + i);
        let mut builder = Dht::builder();
        builder.server_mode().bind_address(address).public_ip(address).port(6881);
        match i {
            0 => builder.no_bootstrap(),
            _ => builder.bootstrap(&[SocketAddrV4::new(first, 6881)]),
        };
        nodes.push(builder.build()?.as_async());
    }
    for node in &nodes {
        futures_lite::future::block_on(node.bootstrapped());
    }
    print("ready");
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

fn node(seed: &str, peer: &str, role: &str, stun: &str, entries: &[&str]) -> Result<()> {
    let begin = Instant::now();
    let identity = |seed: &str| -> Result<Identity> { Ok(Identity::from_seed(&[seed.parse()?; 32])) };
    let (own, peer) = (Arc::new(identity(seed)?), NodeTail::of(&identity(peer)?.node_id()));
    let own_tail = NodeTail::of(&own.node_id());
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let contact = contact(&socket, stun.parse()?)?;

    let entries = entries.iter().map(|entry| entry.parse()).collect::<std::result::Result<_, _>>()?;
    let (sender, events) = channel();
    let mut settings = Settings::new(Bootstrap::Nodes(entries));
    if role == "idle" {
        settings.config.poll_active = settings.config.poll_idle;
    }
    let service = Service::start(own, settings, move |event| {
        // The receiver is gone when the program ends.
        let _ = sender.send(event);
    })?;
    let key = DiscoveryKey::new(NetworkId::ad_hoc(80..=80)?, Some(&Psk::new([3; 32])), None);
    let network = service.join(&key);
    service.publish(contact.clone());
    if role == "find" {
        service.find(network, Target::Address(peer));
        service.knock(network, peer);
    }
    let mut punching =
        Punching { socket, own: contact, own_tail, peer, shots: Vec::new(), record: None, heard: None };
    while begin.elapsed() < MEETING_TIMEOUT + MAX_HEAD_START {
        punching.handle_events(&events);
        if punching.step()? {
            print(&format!("first byte after {} ms", begin.elapsed().as_millis()));
            service.met(network, &peer);
            return punching.linger(&events);
        }
    }
    Err(format!("not met; {:?}", service.counters()).into())
}

/// Returns this node's contact, including the endpoint that a STUN server sees.
fn contact(socket: &UdpSocket, stun: SocketAddr) -> Result<Contact> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    probe.connect(stun)?;
    let local = SocketAddr::new(probe.local_addr()?.ip(), socket.local_addr()?.port());
    let nat = Nat {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
        ..Nat::default()
    };
    let mapped = Candidate { kind: CandidateKind::Mapped, address: ask_stun(socket, stun)? };
    Ok(Contact::new(nat, [mapped, Candidate { kind: CandidateKind::Interface, address: local }]))
}

/// Sends a binding request (RFC 8489) and returns the XOR-MAPPED-ADDRESS of its answer, IPv4 only.
fn ask_stun(socket: &UdpSocket, server: SocketAddr) -> Result<SocketAddr> {
    let cookie = [0x21, 0x12, 0xa4, 0x42];
    let request = [&[0, 1, 0, 0], &cookie[..], b"meet by dht."].concat();
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 1500];
    for _ in 0..10 {
        socket.send_to(&request, server)?;
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some(mut rest) = buffer[..len].get(20..).filter(|_| from == server) else { continue };
        while let Some((head, after)) = rest.split_first_chunk::<4>() {
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let Some(value) = after.get(..length) else { break };
            if head[..2] == [0, 0x20] && length == 8 {
                let port = u16::from_be_bytes([value[2] ^ cookie[0], value[3] ^ cookie[1]]);
                let ip: [u8; 4] = std::array::from_fn(|i| value[4 + i] ^ cookie[i]);
                return Ok(SocketAddr::new(IpAddr::from(ip), port));
            }
            rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Err("the STUN server does not answer".into())
}

struct Punching {
    socket: UdpSocket,
    own: Contact,
    own_tail: NodeTail,
    peer: NodeTail,
    shots: Vec<(Instant, SocketAddr)>,
    record: Option<Record>,
    /// The endpoint from which the peer was heard.
    heard: Option<SocketAddr>,
}

impl Punching {
    fn handle_events(&mut self, events: &Receiver<Event>) {
        for event in events.try_iter() {
            match event {
                Event::Found { record, .. } => {
                    self.plan(&record.contact, Duration::ZERO);
                    self.record = Some(record);
                }
                Event::KnockSent { start_in, .. } => {
                    if let Some(record) = self.record.clone() {
                        self.plan(&record.contact, start_in);
                    }
                }
                Event::Knocked { knock, start_in, .. } => self.plan(&knock.contact, start_in),
                _ => {}
            }
        }
    }

    fn plan(&mut self, peer: &Contact, start_in: Duration) {
        let now = Instant::now();
        let plan = HolePunch::new(&self.own, peer, start_in);
        self.shots = plan.shots().iter().map(|shot| (now + shot.after, shot.to)).collect();
        self.shots.reverse();
    }

    /// Sends what is due and listens briefly. Returns true if the peer has been heard.
    fn step(&mut self) -> Result<bool> {
        while let Some((_, to)) = self.shots.pop_if(|(at, _)| *at <= Instant::now()) {
            self.send(0, to);
        }
        self.hear(Duration::from_millis(10))
    }

    fn send(&self, kind: u8, to: SocketAddr) {
        let own = format!("{:?}", self.own_tail);
        // An address without a route is equivalent to one that does not answer.
        let _ = self.socket.send_to(&[MAGIC, &[kind], own.as_bytes()].concat(), to);
    }

    fn hear(&mut self, patience: Duration) -> Result<bool> {
        self.socket.set_read_timeout(Some(patience))?;
        let mut buffer = [0; 1500];
        let Ok((len, from)) = self.socket.recv_from(&mut buffer) else { return Ok(false) };
        let Some((kind, sender)) = buffer[..len].strip_prefix(MAGIC).and_then(<[u8]>::split_first) else {
            return Ok(false);
        };
        let is_peer = sender == format!("{:?}", self.peer).as_bytes();
        if is_peer {
            self.heard = Some(from);
            if *kind == 0 {
                self.send(1, from);
            }
        }
        Ok(is_peer)
    }

    /// Continues as before until the standard input ends, so that the peer hears this node too.
    fn linger(&mut self, events: &Receiver<Event>) -> Result<()> {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        std::thread::spawn(move || {
            std::io::stdin().lines().for_each(drop);
            told.store(true, Ordering::Relaxed);
        });
        let mut again = Instant::now();
        while !is_over.load(Ordering::Relaxed) {
            self.handle_events(events);
            self.step()?;
            // The answer may have been lost, and the peer sends only what its plan contains.
            if let Some(peer) = self.heard.filter(|_| again <= Instant::now()) {
                self.send(1, peer);
                again += CONFIRMATION_INTERVAL;
            }
        }
        Ok(())
    }
}

/// Runs fifty nodes of a DHT in the lab's node `root`, and pairs of nodes in `home1` and `work1`.
fn lab(runs: &str, role: &str) -> Result<()> {
    const FIRST_ADDRESS: &str = "203.0.113.100";
    let alias = "dev=$(ip -o -4 addr | awk '/203.0.113/ { print $2; exit }'); \
        for i in $(seq 100 149); do ip addr add 203.0.113.$i/24 dev $dev || exit 1; done";
    if !inside("root", "sh", &["-c", alias])?.wait()?.success() {
        return Err("the lab's root takes no further addresses".into());
    }
    let own = std::env::current_exe()?;
    let own = own.to_str().ok_or("the program's path is no text")?;
    let mut dht = inside("root", own, &["dht", "50", FIRST_ADDRESS])?;
    first_line(&mut dht)?;
    let mut times = Vec::new();
    for run in 0..runs.parse::<u8>()? {
        let (a, b) = ((2 * run + 1).to_string(), (2 * run + 2).to_string());
        let common = ["203.0.113.10:3478", "203.0.113.100:6881", "203.0.113.101:6881"];
        let waiting = [&["node", &a, &b, role], &common[..]].concat();
        let finding = [&["node", &b, &a, "find"], &common[..]].concat();
        let mut waiting = inside("home1", own, &waiting)?;
        if role == "idle" {
            // At any point between two readings of its mailbox.
            let since_it_was_published = Duration::from_millis(u64::from(run) * 3700 % 15_000);
            std::thread::sleep(MAX_HEAD_START / 4 + since_it_was_published);
        }
        let mut finding = inside("work1", own, &finding)?;
        times.push(time(&mut finding)?);
        time(&mut waiting)?;
        // Both have heard each other. This ends their standard input.
        finding.wait()?;
        waiting.wait()?;
    }
    drop(dht.stdin.take());
    dht.wait()?;
    times.sort_unstable();
    print(&format!("median {} ms of {times:?}", times[times.len() / 2]));
    Ok(())
}

/// Returns the time from a node's start until it has heard the other, in milliseconds.
fn time(node: &mut Child) -> Result<u64> {
    let line = first_line(node)?;
    let ms = line.split_whitespace().nth(3).and_then(|ms| ms.parse().ok());
    Ok(ms.ok_or_else(|| format!("a node said {line:?}"))?)
}

fn inside(node: &str, program: &str, arguments: &[&str]) -> Result<Child> {
    let natlab = std::env::var("NATLAB")?;
    let mut command = Command::new(natlab);
    command.args(["exec", node, "--", program]).args(arguments);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

fn first_line(child: &mut Child) -> Result<String> {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().ok_or("it has no output")?).read_line(&mut line)?;
    if line.is_empty() { Err("a program in the lab has failed".into()) } else { Ok(line) }
}

#[expect(clippy::print_stdout, reason = "its output is what it is for")]
fn print(line: &str) {
    println!("{line}");
}
