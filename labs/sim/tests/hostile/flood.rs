//! Floods of every kind of message that a stranger can send.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use peersock_overlay::noise::{InitiationPayload, Initiator, MacWriter, Timestamp};
use peersock_overlay::wire::{Hello, Initiation};
use peersock_overlay::{DiscoveryKey, Identity, Limits, SessionIndex, SuiteSet};
use peersock_sim::{Plan, Random, Reader, Script, Step};

use crate::SCALE;
use crate::lab::{Lab, PORT, open_network};
use crate::siege::{SECOND, endpoint};

/// Datagrams per second of the flood, a tenth of the link's capacity.
const RATE: usize = 6000;
/// Limits of the flooded node.
const LIMITS: Limits = Limits {
    peers_per_network: 4096,
    handshakes_per_second: 100,
    handshake_burst: 50,
    forget_after: Duration::from_secs(600),
};

#[test]
fn a_handshake_flood_costs_a_bounded_number_of_operations_and_no_place_in_the_queues() {
    let calm = transfer_time(&mut Flooded::new(), |_, _| ());
    let mut flooded = Flooded::new();
    let mut flood = HandshakeFlood::new(&flooded);
    let before = flooded.lab.world.counters(1);
    let took = transfer_time(&mut flooded, |flooded, tick| flood.pour(flooded, tick));
    let after = flooded.lab.world.counters(1);
    let grown = |name: &str| after[name] - before[name];

    // Virtual time ignores processor time, so this checks the link and the receive buffer. The work is
    // counted below.
    assert!(
        took * 7 / 10 <= calm,
        "{took:?} under the flood, {calm:?} without: less than 0.7 of the goodput"
    );
    // Two operations to read an initiation, three to answer it; twice the rate for those with cookies.
    let admitted = f64::from(LIMITS.handshakes_per_second) * 3.0 * took.as_secs_f64() + 200.0;
    assert!((grown("handshake_x25519") as f64) <= 5.0 * admitted, "{} operations", grown("handshake_x25519"));
    // Both MACs hashed and one decryption for each arrival. The rest belongs to the transfer.
    let (tried, poured) = (grown("bytes_tried"), flood.poured as u64 * Initiation::MIN as u64);
    assert!((poured / 4..=3 * poured).contains(&tried), "{tried} bytes for {poured}");
    assert!(grown("cookies_sent") > 1000, "the node was under load");
    assert!(grown("handshakes_answered") > 0, "strangers may join an open network");
    flooded.check_bounds();
    eprintln!(
        "handshake flood: {} datagrams in {took:?} ({calm:?} without), {} X25519 operations, {} cookies, {} refused, {} answered",
        flood.poured,
        grown("handshake_x25519"),
        grown("cookies_sent"),
        grown("handshakes_refused"),
        grown("handshakes_answered"),
    );
}

#[test]
fn a_hello_flood_fills_no_memory_and_pushes_out_no_friend() {
    let mut flooded = Flooded::new();
    let key = DiscoveryKey::new(open_network().id(), None, None);
    let mut random = Random::from_seed(3);
    let before = flooded.lab.world.counters(1);
    for number in 0..100 * SCALE {
        for _ in 0..20 {
            let identity = Identity::from_seed(&random.bytes());
            let hello = Hello {
                identity: *identity.public(),
                instance: random.number(),
                reply_wanted: true,
                suites: SuiteSet::CHACHA20_POLY1305,
                echo: [0; 24],
            };
            let mut datagram = Vec::new();
            hello.seal(&key, random.bytes(), &mut datagram);
            flooded.inject(stranger(&mut random), datagram);
        }
        flooded.lab.run(Duration::from_millis(20));
        if number % 50 == 0 {
            flooded.check_bounds();
        }
    }
    flooded.check_bounds();
    let after = flooded.lab.world.counters(1);
    let grown = |name: &str| after[name] - before[name];
    let hellos = 100 * 20 * SCALE as u64;
    assert!(grown("hellos_received") > hellos / 2, "{} of {hellos}", grown("hellos_received"));
    // The node neither searches its peers nor agrees on a key.
    assert!(grown("eviction_steps") <= 2 * grown("hellos_received"), "{} steps", grown("eviction_steps"));
    assert_eq!(grown("handshake_x25519"), 0);
    // The node opens each hello once, for the one network. Hellos beyond the rate limit are not opened at
    // all.
    let opened = (grown("hellos_received") + grown("hellos_unknown")) * Hello::LEN as u64;
    let tried = grown("bytes_tried");
    assert!((opened..=opened + 100_000).contains(&tried), "{tried} bytes for {opened}");
    let node = flooded.lab.world.machines()[1].node().expect("it runs");
    let friend = flooded.lab.world.machines()[0].node_id();
    assert!(node.datapath().peers().iter().any(|info| *info.peer.id() == friend));
}

#[test]
fn beacons_and_data_of_nobody_bring_no_more_than_they_weigh() {
    let mut flooded = Flooded::new();
    let mut random = Random::from_seed(4);
    let group: SocketAddr = "239.255.112.115:7777".parse().expect("an endpoint");
    let network = open_network().discovery_key();
    for _ in 0..200 * SCALE {
        for _ in 0..20 {
            let from = stranger(&mut random);
            let salt = random.bytes();
            let mut beacon = Vec::new();
            let tags = [network.beacon_tag(&salt)];
            peersock_overlay::wire::Beacon::emit(salt, &tags, |filler| random.fill(filler), &mut beacon);
            flooded.inject_to(group, from, beacon);
            let mut data = vec![0; 28 + random.below(40)];
            random.fill(&mut data);
            data[0] = 0xD4;
            flooded.inject(from, data);
        }
        flooded.lab.run(Duration::from_millis(10));
    }
    flooded.check_bounds();
}

/// Two nodes with a session, the second of which is flooded, and an account of its traffic by address.
struct Flooded {
    lab: Lab,
    /// Bytes that came from each address that no host has, and bytes that were sent there.
    account: Rc<RefCell<BTreeMap<SocketAddr, (usize, usize)>>>,
}

impl Flooded {
    fn new() -> Self {
        let mut lab = Lab::new(2, &[open_network()]);
        lab.world.crash(1);
        lab.world.reconfigure(1, |config| config.node.limits = LIMITS);
        lab.world.start(1).expect("a start");
        let plan = lab.greeting(0, 1);
        lab.world.converse(plan.into()).expect("a conversation");
        lab.run(5 * SECOND);
        let account: Rc<RefCell<BTreeMap<SocketAddr, (usize, usize)>>> = Rc::default();
        let books = account.clone();
        lab.world.set_tap(Some(Box::new(move |tapped| {
            // A beacon reaches several nodes, and each may answer with as many bytes.
            if tapped.node == 1
                && let Some((_, sent)) = books.borrow_mut().get_mut(&tapped.to)
            {
                *sent += tapped.payload.len();
            }
        })));
        Self { lab, account }
    }

    fn inject(&mut self, from: SocketAddr, datagram: Vec<u8>) {
        self.inject_to(endpoint(1), from, datagram);
    }

    fn inject_to(&mut self, to: SocketAddr, from: SocketAddr, datagram: Vec<u8>) {
        self.account.borrow_mut().entry(from).or_default().0 += datagram.len();
        self.lab.world.inject(self.lab.lan, from, to, datagram);
    }

    /// Checks that memory is bounded, and that no address was sent more bytes than came from it.
    fn check_bounds(&self) {
        let node = self.lab.world.machines()[1].node().expect("it runs");
        let peers = node.datapath().peers().len();
        assert!(peers <= LIMITS.peers_per_network, "{peers} peers");
        let sessions = node.datapath().sessions().len();
        assert!(sessions <= peers * 12, "{sessions} sessions of {peers} peers");
        for (address, (received, sent)) in &*self.account.borrow() {
            assert!(sent <= received, "{sent} bytes went to {address}, {received} came from there");
        }
    }
}

/// Moves some megabytes from node 0 to node 1 with a callback every 10 ms. Returns the time it took.
fn transfer_time(flooded: &mut Flooded, mut meanwhile: impl FnMut(&mut Flooded, Duration)) -> Duration {
    let begun = flooded.lab.world.now();
    let script = Script(vec![Step::Write(4_000_000 + 1_000_000 * SCALE as u64)]);
    let scripts = [script, Script::default()];
    let plan = Plan { scripts, readers: [Reader::EAGER; 2], ..flooded.lab.greeting(0, 1) };
    assert_eq!(plan.port, PORT);
    let complete = flooded.lab.world.ledger.completed().0;
    flooded.lab.world.converse(plan.into()).expect("a conversation");
    let tick = Duration::from_millis(10);
    while flooded.lab.world.ledger.completed().0 == complete {
        meanwhile(flooded, tick);
        flooded.lab.run(tick);
        assert!(flooded.lab.world.now() - begun < 60 * SECOND, "it does not get on");
    }
    flooded.lab.world.now() - begun
}

/// Initiations from many sources: most with a valid MAC1 and garbage behind it, some genuine initiations of
/// strangers, and noise.
struct HandshakeFlood {
    random: Random,
    template: Vec<u8>,
    target: Identity,
    poured: usize,
    owed: f64,
}

impl HandshakeFlood {
    fn new(flooded: &Flooded) -> Self {
        let target = Identity::from_seed(&flooded.lab.world.machines()[1].config().node.identity);
        let mut random = Random::from_seed(5);
        let template = initiation(&mut random, &target, flooded);
        Self { random, template, target, poured: 0, owed: 0.0 }
    }

    fn pour(&mut self, flooded: &mut Flooded, time: Duration) {
        self.owed += RATE as f64 * time.as_secs_f64();
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            self.poured += 1;
            let datagram = match self.random.below(20) {
                0 | 1 => initiation(&mut self.random, &self.target, flooded),
                2..=4 => {
                    let mut noise = vec![0xD1; 198];
                    self.random.fill(&mut noise[5..]);
                    noise[1] = 1;
                    noise
                }
                _ => {
                    let mut forged = self.template[..self.template.len() - 32].to_vec();
                    // The ephemeral key follows type, version and index.
                    self.random.fill(&mut forged[5..37]);
                    MacWriter::new(&self.target.node_id()).append(flooded.lab.world.instant(), &mut forged);
                    forged
                }
            };
            let from = stranger(&mut self.random);
            flooded.inject(from, datagram);
        }
    }
}

/// Makes a genuine initiation of a new node.
fn initiation(random: &mut Random, target: &Identity, flooded: &Flooded) -> Vec<u8> {
    let identity = Identity::from_seed(&random.bytes());
    let payload = InitiationPayload {
        network: open_network().id(),
        timestamp: Timestamp::from_unix(Duration::from_secs(2_000_000_000)),
        instance: random.number(),
        receive_buffer: 1 << 20,
        suites: SuiteSet::CHACHA20_POLY1305,
        introduction: Vec::new(),
        room: 0,
    };
    let mut datagram = Vec::new();
    let index = SessionIndex::from_be_bytes(random.bytes());
    Initiator::start(&identity, target.public(), random.bytes(), index, &payload, &mut datagram)
        .expect("a good public key");
    MacWriter::new(&target.node_id()).append(flooded.lab.world.instant(), &mut datagram);
    datagram
}

/// Returns one of many addresses that no host has.
fn stranger(random: &mut Random) -> SocketAddr {
    let [a, b, port] = random.bytes();
    SocketAddr::from(([198, 18, a, b], 1000 + u16::from(port)))
}
