//! Memory cost of peers: an allocator that counts, and real handshakes.
#![expect(clippy::print_stderr, reason = "what is measured is worth reading")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use peersock_overlay::membership::{
    Answer, Certificate, Credentials, Delegation, Grant, Head, NetworkSecret, Question, Revocation,
    Revocations, Rights, Serial, UnixTime,
};
use peersock_overlay::{
    Endpoint, EndpointConfig, Event, Identity, ManagedNetwork, NetworkConfig, NetworkId, NodeId, RecvMeta,
    SocketIndex, SocketInfo, UsedMember,
};
use peersock_testnet::{Counting, Crowd};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Maximum number of bytes of a session.
const MAX_SESSION_BYTES: isize = 2400;
/// Maximum number of bytes of a member that was never heard.
const MAX_MEMBER_BYTES: isize = 3200;
/// Maximum number of bytes of a removal: the signed ones, which are also the set to look at.
const MAX_REMOVAL_BYTES: isize = 52;
/// Maximum number of bytes of a member that a controller has named: a peer like any, and its certificate.
const MAX_FOUND_BYTES: isize = MAX_MEMBER_BYTES + 400;
/// Maximum number of bytes that a member keeps for a network of 100,000 beside its sessions.
const MAX_KEPT_BYTES: isize = 64 << 10;
/// Time after which a node forgets an unused peer, with the time between two looks.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(720);
/// Maximum number of bytes that a member gains while its controller is away.
const MAX_AWAY_BYTES: isize = 16 << 10;

#[test]
fn a_member_and_its_session_cost_little_memory() {
    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    let now = Instant::now();
    let empty = size_of_node(now, 0, 0);
    // Sizes at which tables have just grown, and at which they are about to.
    for most in [449, 897, 1025] {
        let members = size_of_node(now, most, 0);
        let session = (size_of_node(now, most, most) - members) / most as isize;
        let member = (members - empty) / most as isize;
        eprintln!("{most} members: {member} bytes each, and {session} with a session; {empty} without any");
        assert!((500..=MAX_SESSION_BYTES).contains(&session), "{session} bytes");
        assert!((500..=MAX_MEMBER_BYTES).contains(&member), "{member} bytes");
    }
}

/// Returns the bytes held by a node that knows `members` members and has `sessions` sessions: the memory that
/// is free once it is gone.
fn size_of_node(now: Instant, members: u32, sessions: u32) -> isize {
    let mut crowd = Crowd::new(now, members, 0).expect("a network");
    for peer in 0..sessions {
        crowd.meet(now, peer).expect("a session");
    }
    // The remains of the handshakes expire, because they cannot complete any more.
    let later = now + Duration::from_secs(30);
    crowd.endpoint.handle_timeout(later);
    let mut out = Vec::new();
    while crowd.endpoint.poll_transmit(later, &mut out).is_some() {}
    while crowd.endpoint.poll_event().is_some() {}
    drop(out);
    let before = Counting::in_use();
    drop(crowd);
    before - Counting::in_use()
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const UNIX_TIME: Duration = Duration::from_secs(1_800_000_000);
const GROUP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(239, 255, 77, 77)), 7777);

/// Places of the pair's nodes.
const CONTROLLER: usize = 0;
const MEMBER: usize = 1;

/// A controller's node and a member's on one local network, in virtual time.
struct Pair {
    endpoints: [Endpoint; 2],
    now: Instant,
    /// True while the controller's machine is off.
    is_away: bool,
    /// Number of initiations that the member has sent to the controller.
    attempts: u32,
    secret: NetworkSecret,
    issuer: Identity,
    delegation: Delegation,
}

impl Pair {
    /// Creates a pair whose member has used this number of others in earlier runs.
    fn new(used: u32) -> Pair {
        #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
        let now = Instant::now();
        let secret = NetworkSecret::from_seed(&[77; 32]);
        let issuer = identity(0);
        let serial = Serial::next(UnixTime::from(UNIX_TIME), None);
        let delegation = Delegation::sign(&secret, id(), *issuer.public(), serial, 365 * DAY, Rights::ALL);
        let endpoints = [0, 1].map(|number| {
            let config = EndpointConfig::new(Arc::new(identity(number)));
            let mut endpoint = Endpoint::new(config, [number as u8 + 1; 32], now, UNIX_TIME);
            let socket = SocketInfo {
                index: SocketIndex(0),
                ipv4: true,
                loopback: false,
                max_datagram: 65_507,
                beacon_targets: vec![GROUP],
            };
            endpoint.set_sockets(now, vec![socket]);
            endpoint
        });
        let mut pair = Pair { endpoints, now, is_away: false, attempts: 0, secret, issuer, delegation };
        for place in [CONTROLLER, MEMBER] {
            let mut config = ManagedNetwork::new(id());
            config.key = Some(pair.secret.public());
            config.credentials = Some(pair.credentials(place as u32));
            config.is_controller = place == CONTROLLER;
            if place == MEMBER {
                config.used = (1000..1000 + used).map(|number| pair.used(number)).collect();
            }
            let joined = pair.endpoints[place].join(now, NetworkConfig::Managed(Box::new(config)));
            joined.expect("a good network");
        }
        pair.run(5 * SECOND);
        pair
    }

    /// Returns the credentials of the member with this number in a network of 100,000.
    fn credentials(&self, number: u32) -> Credentials {
        let name = format!("member-{number}").parse().expect("a name");
        let mut grant = Grant::new(identity(number).node_id(), name);
        (grant.ipv4, grant.ipv4_length) = (Some(address(number)), 8);
        let serial = Serial::next(UnixTime::from(UNIX_TIME), None);
        let signed = Certificate::sign(&self.issuer, id(), grant, serial, DAY).expect("a good grant");
        Credentials::new(self.secret.public(), self.delegation.clone(), signed)
    }

    /// Returns the member with this number as one that was used.
    fn used(&self, number: u32) -> UsedMember {
        let certificate = self.credentials(number).certificate().clone();
        let Grant { name, ipv4, ipv6, .. } = certificate.grant().clone();
        UsedMember { name, identity: *identity(number).public(), ipv4, ipv6, serial: certificate.serial() }
    }

    /// Lets time pass. Datagrams take none.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            let up = usize::from(self.is_away)..2;
            let next = self.endpoints[up.clone()].iter().filter_map(Endpoint::poll_timeout).min();
            self.now = next.unwrap_or(end).clamp(self.now, end);
            if next.is_none_or(|next| next > end) {
                return;
            }
            for endpoint in &mut self.endpoints[up] {
                if endpoint.poll_timeout().is_some_and(|at| at <= self.now) {
                    endpoint.handle_timeout(self.now);
                }
            }
        }
    }

    /// Carries all datagrams, and answers the member's questions for members.
    fn exchange(&mut self) {
        let mut datagram = Vec::new();
        let mut is_idle = false;
        while !std::mem::replace(&mut is_idle, true) {
            for from in [CONTROLLER, MEMBER] {
                while let Some(event) = self.endpoints[from].poll_event() {
                    if let Event::Asked(peer, number, question) = event
                        && let Question::FindAddress(std::net::IpAddr::V4(wanted)) = *question
                    {
                        let found = u32::from(wanted) - u32::from(address(0));
                        let answer = Answer::Found {
                            identity: *identity(found).public(),
                            credentials: Box::new(self.credentials(found)),
                        };
                        self.endpoints[from].answer(self.now, &peer, number, &answer);
                    }
                }
                let to = 1 - from;
                while let Some(transmit) = self.endpoints[from].poll_transmit(self.now, &mut datagram) {
                    let remote = transmit.place.remote();
                    let is_attempt = datagram.first() == Some(&INITIATION) && remote == socket(CONTROLLER);
                    self.attempts += u32::from(is_attempt);
                    let multicast = remote == GROUP;
                    if !self.is_away && (multicast || remote == socket(to)) {
                        let meta =
                            RecvMeta { remote: socket(from), socket: SocketIndex(0), multicast, relay: None };
                        peersock_testnet::receive(&mut self.endpoints[to], self.now, meta, &datagram);
                        is_idle = false;
                    }
                }
            }
        }
    }

    /// Removes this number of members that no node has met, and waits until the member knows of that.
    fn remove(&mut self, entries: u32) {
        let now = UnixTime::from(UNIX_TIME);
        let entry = |number: u32| {
            let mut node = [7; 32];
            node[..4].copy_from_slice(&number.to_be_bytes());
            let revocation = Revocation { min_serial: Serial::next(now, None), until: now.plus(2 * DAY) };
            (NodeId::from_bytes(node), revocation)
        };
        let set: Revocations = (0..entries).map(entry).collect();
        let head = Head::sign(&self.issuer, self.delegation.clone(), id(), 1, now, &set);
        let at = self.endpoints[CONTROLLER].networks()[0].index;
        let set = self.endpoints[CONTROLLER].set_revocations(self.now, at, &head, &set);
        set.expect("signed by the issuer");
        self.run(60 * SECOND);
        let at = self.endpoints[MEMBER].networks()[0].index;
        let known = self.endpoints[MEMBER].membership(at).expect("a managed network");
        assert_eq!(known.revocations().len(), entries as usize);
    }

    /// Lets the member ask for this number of others.
    fn find(&mut self, members: u32) {
        let at = self.endpoints[MEMBER].networks()[0].index;
        let before = self.endpoints[MEMBER].networks()[0].peers;
        for number in 2..2 + members {
            let question = Question::FindAddress(address(number).into());
            assert!(self.endpoints[MEMBER].find_member(self.now, at, &question));
            self.run(SECOND / 2);
        }
        assert_eq!(self.endpoints[MEMBER].networks()[0].peers, before + members as usize);
    }
}

/// First byte of an initiation.
const INITIATION: u8 = 0xD1;

fn id() -> NetworkId {
    "8056c2e21c000001".parse().expect("a managed ID")
}

fn identity(number: u32) -> Identity {
    let mut seed = [1; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(&seed)
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 1)) + number)
}

fn socket(place: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, place as u8 + 1], 4000))
}

/// Returns the bytes held by a member that knows of removals, has found other members a while ago, and has
/// used others in earlier runs.
fn size_of_member(removals: u32, found: u32, used: u32, ago: Duration) -> isize {
    let mut pair = Pair::new(used);
    pair.remove(removals);
    pair.find(found);
    pair.run(ago);
    let Pair { endpoints: [_controller, member], .. } = pair;
    let before = Counting::in_use();
    drop(member);
    before - Counting::in_use()
}

#[test]
fn removals_and_found_members_cost_little_memory() {
    let [none, removals, found] = [(0, 0), (1000, 0), (0, 64)]
        .map(|(removals, found)| size_of_member(removals, found, 0, Duration::ZERO));
    let (removals, found) = (removals - none, found - none);
    eprintln!("1,000 removals: {removals} bytes; 64 found members: {found} bytes; {none} without any");
    assert!((1..=1000 * MAX_REMOVAL_BYTES).contains(&removals), "{removals} bytes");
    assert!((1..=64 * MAX_FOUND_BYTES).contains(&found), "{found} bytes");
}

/// Members that were found and not used are forgotten, so they take no memory for long.
#[test]
fn a_member_of_a_network_of_100_000_keeps_at_most_64_kib_for_it() {
    let none = size_of_member(0, 0, 0, FORGOTTEN_AFTER);
    let used = UsedMember::MAX as u32;
    let kept = size_of_member(1000, 64, used, FORGOTTEN_AFTER) - none;
    eprintln!("1,000 removals, 64 members that were found, {used} that were used: {kept} bytes are kept");
    assert!((1..=MAX_KEPT_BYTES).contains(&kept), "{kept} bytes");
}

/// Log that counts warnings and errors.
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Lets a member be without its controller for some hours.
fn be_away(hours: u32) {
    let said = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Warnings(Arc::clone(&said)), || {
        let mut pair = Pair::new(0);
        pair.is_away = true;
        let begun = Counting::in_use();
        let mut most = 0;
        for _ in 0..hours {
            pair.run(3600 * SECOND);
            most = most.max(Counting::in_use() - begun);
        }
        let said = said.load(Ordering::Relaxed);
        eprintln!("{hours} h: {most} bytes more at most, {} initiations, {said} warnings", pair.attempts);
        assert!(most <= MAX_AWAY_BYTES, "{most} bytes");
        // One in 10 minutes.
        assert!(said <= (hours * 6) as usize, "{said} warnings");
        // Each minute one short search of the controller, and some for its questions.
        assert!((hours..=hours * 60 * 10).contains(&pair.attempts), "{} initiations", pair.attempts);
    });
}

/// The certificates end after a day.
#[test]
fn a_member_whose_controller_is_away_holds_its_memory_and_says_little() {
    be_away(30);
}

#[test]
#[ignore = "cargo xtask test --only slow: it takes a minute"]
fn a_member_whose_controller_is_away_for_a_week_holds_its_memory_and_says_little() {
    be_away(7 * 24);
}
