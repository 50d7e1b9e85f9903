//! Managed networks: a controller in one node's process, and members that join by its network's ID.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use peersock::blocking::{TcpListener, TcpStream};
use peersock::management::{self, JoinRequest};
use peersock::overlay::membership::{
    Answer, Certificate, Credentials, Delegation, Denial, Grant, Head, MemberName, NetworkSecret, Question,
    Revocation, Revocations, Rights, Serial, Token, UnixTime,
};
use peersock::overlay::{Identity, ManagedNetwork, UsedMember};
use peersock::state::{MembershipRecord, StateDir};
use peersock::{
    Dht, IdentitySource, Interfaces, Invite, JoinError, Joined, MemberQuestion, Network, NetworkId, Node,
    NodeBuilder, NodeId, PublicIdentity, RootAddress, Seat, SeatError, Seed, Standing, network_id,
};
use peersock_testnet::LocalDht;

use crate::common::{PATIENCE, node};
use crate::process::{self, Process};
use crate::roots::Root;

pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn now() -> UnixTime {
    UnixTime::from(UNIX_EPOCH.elapsed().expect("a time after 1970"))
}

/// Network of one test, with a controller in this process.
pub(super) struct Scene {
    pub(super) node: Node,
    pub(super) joined: Joined,
    pub(super) seat: Option<Seat>,
    pub(super) id: NetworkId,
    pub(super) authority: Arc<Authority>,
}

/// Signer of certificates, which admits everybody with its token.
pub(super) struct Authority {
    secret: NetworkSecret,
    pub(super) identity: Identity,
    pub(super) delegation: Delegation,
    id: NetworkId,
    token: Token,
    /// Last part of the next IPv4 address.
    next: Mutex<u8>,
    pub(super) asked: AtomicUsize,
    members: Mutex<Vec<NodeId>>,
    /// Members that others find by their names.
    named: Mutex<BTreeMap<MemberName, (PublicIdentity, Credentials)>>,
    /// Nodes that have asked for members.
    pub(super) looked_up: Mutex<Vec<NodeId>>,
    removed: Mutex<Vec<NodeId>>,
}

impl Authority {
    pub(super) fn credentials(&self, node: NodeId, last: u8) -> Credentials {
        self.credentials_of(node, last, now())
    }

    /// Returns credentials that were signed at a time.
    pub(super) fn credentials_of(&self, node: NodeId, last: u8, at: UnixTime) -> Credentials {
        let mut grant = Grant::new(node, format!("m-{last}").parse().expect("a name"));
        (grant.ipv4, grant.ipv4_length) = (Some([10, 77, 0, last].into()), 24);
        (grant.tags, grant.claims) = (vec!["db".parse().expect("a tag")], vec![last]);
        let signed = Certificate::sign(&self.identity, self.id, grant, Serial::next(at, None), DAY);
        Credentials::new(self.secret.public(), self.delegation.clone(), signed.expect("a good grant"))
    }

    fn answer(&self, asker: &PublicIdentity, question: &Question) -> Option<Answer> {
        let node = asker.node_id();
        let Question::Certify(request) = question else {
            self.looked_up.lock().expect("no panic").push(node);
            let Question::FindName(name) = question else { return Some(Answer::Absent) };
            let named = self.named.lock().expect("no panic");
            return Some(named.get(name).map_or(Answer::Absent, |(identity, credentials)| Answer::Found {
                identity: *identity,
                credentials: Box::new(credentials.clone()),
            }));
        };
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.removed.lock().expect("no panic").contains(&node) {
            return Some(Answer::Denied { time: now(), reason: Denial::Removed });
        }
        let mut members = self.members.lock().expect("no panic");
        if request.token.as_ref() != Some(&self.token) && !members.contains(&node) {
            return Some(Answer::Denied { time: now(), reason: Denial::UnknownInvite });
        }
        members.retain(|known| *known != node);
        members.push(node);
        // Renewals take another address, too, which is how tests see them.
        let mut next = self.next.lock().expect("no panic");
        *next += 1;
        let credentials = Box::new(self.credentials(node, *next));
        let name = credentials.certificate().grant().name.clone();
        self.named.lock().expect("no panic").insert(name, (*asker, (*credentials).clone()));
        Some(Answer::Certified { time: now(), renew_after: 3600, credentials, spare: None })
    }
}

impl Scene {
    pub(super) fn new() -> Scene {
        Self::with(Node::builder().interfaces(Interfaces::Loopback))
    }

    /// Makes a scene whose controller's node is built so.
    fn with(builder: NodeBuilder) -> Scene {
        // One key in 128 has no ID.
        let (secret, id) = (1..)
            .find_map(|n| {
                let mut seed = [n; 32];
                getrandom::fill(&mut seed).expect("randomness");
                let secret = NetworkSecret::from_seed(&seed);
                network_id(&secret.public()).expect("memory").map(|id| (secret, id))
            })
            .expect("a key with an ID");
        let seed = Seed::generate().expect("randomness");
        let identity = Identity::from_seed(&seed.0);
        let serial = Serial::next(now(), None);
        let delegation = Delegation::sign(&secret, id, *identity.public(), serial, 30 * DAY, Rights::ALL);
        let token = Token::from_bytes([5; Token::LEN]);
        let (next, asked) = (Mutex::new(1), AtomicUsize::new(0));
        let authority = Arc::new(Authority {
            secret,
            identity,
            delegation,
            id,
            token,
            next,
            asked,
            members: Mutex::default(),
            named: Mutex::default(),
            looked_up: Mutex::default(),
            removed: Mutex::default(),
        });
        let node = builder.identity(IdentitySource::Seed(seed)).start().expect("a node");
        let network = ManagedNetwork {
            key: Some(authority.secret.public()),
            credentials: Some(authority.credentials(node.id(), 1)),
            is_controller: true,
            ..ManagedNetwork::new(id)
        };
        let joined = node.join(Network::managed(network)).expect("a good network");
        let mut scene = Scene { node, joined, seat: None, id, authority };
        scene.seat = Some(scene.take_seat(&scene.own()).expect("its own credentials"));
        scene
    }

    /// Returns new credentials of the controller.
    pub(super) fn own(&self) -> Credentials {
        self.authority.credentials(self.node.id(), 1)
    }

    /// Serves the network.
    pub(super) fn take_seat(&self, own: &Credentials) -> Result<Seat, SeatError> {
        let answers = Arc::clone(&self.authority);
        let answerer = move |question: MemberQuestion| {
            let answer = answers.answer(question.asker(), question.question());
            if let Some(answer) = answer {
                question.answer(&answer);
            }
        };
        self.joined.take_seat(own, Box::new(answerer))
    }

    /// Revokes what was signed for a node until now.
    pub(super) fn revoke(&self, node: NodeId) {
        self.authority.removed.lock().expect("no panic").push(node);
        let (head, set) = self.removal(node);
        self.joined.set_revocations(&head, &set).expect("signed by the issuer");
    }

    /// Signs the revocation of a node.
    pub(super) fn removal(&self, node: NodeId) -> (Head, Revocations) {
        let mut set = Revocations::default();
        let soon = now().plus(Duration::from_millis(1));
        set.add(node, Revocation { min_serial: Serial::next(soon, None), until: now().plus(2 * DAY) });
        let (identity, delegation) = (&self.authority.identity, self.authority.delegation.clone());
        (Head::sign(identity, delegation, self.id, 1, soon, &set), set)
    }

    /// Takes a removal back.
    pub(super) fn admit_again(&self, node: NodeId) {
        self.authority.removed.lock().expect("no panic").retain(|removed| *removed != node);
    }

    pub(super) fn token(&self) -> Token {
        self.authority.token.clone()
    }

    pub(super) fn invite_text(&self) -> String {
        let invite =
            Invite::new(self.id, self.authority.secret.public(), self.token(), &self.node.id(), Vec::new());
        invite.to_text().to_string()
    }

    pub(super) fn invite(&self) -> Network {
        self.invite_text().parse::<Invite>().expect("its own text").network()
    }
}

/// Lets members join by an invite, talk by address and by name, and hear of a removal. No node finds another
/// one but as the builder says.
fn live_without_beacons(builder: &dyn Fn() -> NodeBuilder) {
    let scene = Scene::with(builder());
    let begun = Instant::now();
    let [(alpha, _home), (beta, away)] = [(), ()].map(|()| {
        let node = builder().identity(IdentitySource::Ephemeral).start().expect("a node");
        let joined = node.join(scene.invite()).expect("a good invite");
        joined.wait_ready(PATIENCE).expect("admitted");
        (node, joined)
    });
    eprintln!("both are admitted after {:?}", begun.elapsed());
    let name = away.membership().and_then(|known| known.grant).expect("a grant").name;
    let listener = TcpListener::bind_on(&beta, "[::]:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let begun = Instant::now();
    let mut by_name = TcpStream::connect_on(&alpha, (name.as_str(), port)).expect("found");
    let mut accepted = listener.accept().expect("a connection").0;
    accepted.write_all(b"x").expect("room");
    by_name.read_exact(&mut [0]).expect("a byte");
    eprintln!("first byte by name after {:?}", begun.elapsed());
    let (mut by_address, _accepted) = echo(&alpha, &listener, away.address().into());

    let begun = Instant::now();
    scene.revoke(beta.id());
    for open in [&mut by_name, &mut by_address] {
        let error = open.read(&mut [0]).expect_err("no end of data: the connection is reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    eprintln!("the removal has ended all after {:?}", begun.elapsed());
}

#[test]
fn members_that_know_only_a_root_join_talk_by_name_and_hear_of_a_removal() {
    let (_root, text) = Root::start();
    live_without_beacons(&|| {
        let roots = RootAddress::parse_list(&text).expect("a root");
        Node::builder().interfaces(Interfaces::Loopback).discovery(false).roots(roots)
    });
}

#[test]
fn members_that_know_only_the_dht_join_talk_by_name_and_hear_of_a_removal() {
    let swarm = LocalDht::new(20);
    live_without_beacons(&|| {
        let builder = Node::builder().interfaces(Interfaces::Loopback).discovery(false);
        builder.roots(Vec::<RootAddress>::new()).dht(Dht::Nodes(swarm.entries()))
    });
}

/// Nothing but the kept record knows the name and the pool address then.
#[test]
fn a_used_member_is_found_by_a_root_alone_after_a_restart_by_name_and_by_pool_address() {
    let (_root, text) = Root::start();
    let builder = || {
        let roots = RootAddress::parse_list(&text).expect("a root");
        Node::builder().interfaces(Interfaces::Loopback).discovery(false).roots(roots)
    };
    let scene = Scene::with(builder());
    let place = tempfile::tempdir().expect("a directory");
    let [first, second, third] = ["alpha", "beta", "gamma"].map(|name| {
        let directory = place.path().join(name);
        let start = move |builder: NodeBuilder| {
            builder.identity(IdentitySource::StateDir(directory.clone())).start().expect("a node")
        };
        let node = start(builder());
        let joined = node.join(scene.invite()).expect("a good invite");
        joined.wait_ready(PATIENCE).expect("admitted");
        let grant = joined.membership().and_then(|known| known.grant).expect("a grant");
        (node, joined, grant, start)
    });
    let ((alpha, home, _, start), (beta, away, grant, _)) = (first, second);
    let (_gamma, _, unused, _) = third;
    let listener = TcpListener::bind_on(&beta, "[::]:0").expect("a free port");
    let by_ipv4 = TcpListener::bind_on(&beta, "0.0.0.0:0").expect("a free port");
    drop(echo(&alpha, &listener, away.address().into()));
    assert!(alpha.shutdown(PATIENCE));
    drop((home, alpha));
    let record = || StateDir::membership(&place.path().join("alpha"), scene.id).expect("readable");
    let names: Vec<_> = record().expect("kept").used.iter().map(|one| one.name.clone()).collect();
    assert_eq!(names, std::slice::from_ref(&grant.name));
    assert!(scene.node.shutdown(PATIENCE));

    let port = listener.local_addr().expect("bound").port();
    let restarted = || {
        let node = start(builder());
        let joined = node.join(Network::by_id(scene.id).expect("a managed network")).expect("kept");
        assert_eq!(joined.membership().map(|known| known.standing), Some(Standing::Member));
        (node, joined)
    };
    let (alpha, home) = restarted();
    let begun = Instant::now();
    let mut by_name = TcpStream::connect_on(&alpha, (grant.name.as_str(), port)).expect("found");
    listener.accept().expect("a connection").0.write_all(b"x").expect("room");
    by_name.read_exact(&mut [0]).expect("a byte");
    eprintln!("first byte by name after {:?}", begun.elapsed());
    assert!(TcpStream::connect_on(&alpha, (unused.name.as_str(), port)).is_err(), "it was never used");
    drop((by_name, home));
    assert!(alpha.shutdown(PATIENCE));
    drop(alpha);
    let (alpha, _home) = restarted();
    drop(echo(&alpha, &by_ipv4, grant.ipv4.expect("an address").into()));
}

/// Writes a record again and again until it is killed. Without an order it does nothing.
#[test]
fn victim_that_keeps_members() {
    let Some(order) = process::order() else { return };
    let (path, network) = order.split_once(' ').expect("two words");
    let state = StateDir::open(Path::new(path)).expect("free");
    let mut record =
        StateDir::membership(state.path(), network.parse().expect("an ID")).expect("readable").expect("kept");
    // Its parent waits for an address.
    process::say("127.0.0.1:1");
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        record.used.rotate_left(1);
        record.starts += 1;
        state.keep_membership(&record).expect("room");
    }
}

#[test]
fn a_process_that_is_killed_while_it_writes_leaves_a_whole_record() {
    let place = tempfile::tempdir().expect("a directory");
    let (id, key): (NetworkId, _) =
        ("e18a4c0277d19b3f".parse().expect("an ID"), NetworkSecret::from_seed(&[1; 32]).public());
    let mut record = MembershipRecord::new(id, key);
    record.used = (1..=UsedMember::MAX as u8)
        .map(|seed| UsedMember {
            name: format!("m-{seed}").parse().expect("a name"),
            identity: *Identity::from_seed(&[seed; 32]).public(),
            ipv4: Some([10, 77, 0, seed].into()),
            ipv6: None,
            serial: Serial::next(now(), None),
        })
        .collect();
    StateDir::open(place.path()).expect("free").keep_membership(&record).expect("room");
    let mut last = 0;
    for round in 0..20_u64 {
        let order = format!("{} {id}", place.path().display());
        let mut victim = Process::start("managed::victim_that_keeps_members", &order);
        // At another point of the write each time.
        thread::sleep(Duration::from_micros(500 * round));
        victim.kill();
        let mut kept = StateDir::membership(place.path(), id).expect("whole").expect("kept");
        assert!(kept.starts >= last, "round {round}");
        last = kept.starts;
        assert_eq!(kept.used.len(), record.used.len(), "round {round}");
        kept.used.sort_by_key(|one| one.identity);
        record.used.sort_by_key(|one| one.identity);
        assert_eq!(kept.used, record.used, "round {round}");
    }
    assert!(last > 0, "it has written");
}

/// Starts a member whose certificate has ended long ago. Returns the time from the start of its node until
/// the first byte of another member.
fn come_back(away: Duration) -> Duration {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let node = kept(place.path());
    let id = node.id();
    node.join(scene.invite()).expect("a good invite").wait_ready(PATIENCE).expect("admitted");
    assert!(node.shutdown(PATIENCE));
    drop(node);
    let mut record = StateDir::membership(place.path(), scene.id).expect("readable").expect("kept");
    let old = now().minus(away);
    record.credentials = Some(scene.authority.credentials_of(id, 77, old));
    record.signed_time = old;
    StateDir::open(place.path()).expect("free").keep_membership(&record).expect("room");
    let beta = crate::common::node();
    let joined = beta.join(scene.invite()).expect("a good invite");
    joined.wait_ready(PATIENCE).expect("admitted");
    let listener = TcpListener::bind_on(&beta, "[::]:0").expect("a free port");
    let begun = Instant::now();
    let node = kept(place.path());
    let home = node.join(Network::by_id(scene.id).expect("a managed network")).expect("kept");
    drop(echo(&node, &listener, joined.address().into()));
    let took = begun.elapsed();
    assert_eq!(home.membership().map(|known| known.standing), Some(Standing::Member));
    eprintln!("off for {} days: first byte after {took:?}", away.as_secs() / DAY.as_secs());
    took
}

#[test]
fn a_member_that_was_off_for_thirty_days_is_back_without_a_person() {
    come_back(30 * DAY);
}

#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn a_member_that_was_off_for_thirty_days_is_back_within_two_seconds() {
    let times: Vec<_> = (0..5).map(|_| come_back(30 * DAY)).collect();
    assert!(times.iter().all(|time| *time <= Duration::from_secs(2)), "{times:?}");
}

pub(super) fn kept(directory: &Path) -> Node {
    let state = IdentitySource::StateDir(directory.to_owned());
    Node::builder().identity(state).interfaces(Interfaces::Loopback).start().expect("a node")
}

/// Sends a byte from a member to an address and gets it back; returns the stream.
pub(super) fn echo(node: &Node, listener: &TcpListener, to: IpAddr) -> (TcpStream, TcpStream) {
    let port = listener.local_addr().expect("bound").port();
    // Before the other end waits for it, so that a failure ends the test.
    let mut stream = TcpStream::connect_on(node, SocketAddr::new(to, port)).expect("connected");
    thread::scope(|scope| {
        let accepted = scope.spawn(|| listener.accept().expect("a connection").0);
        stream.write_all(b"x").expect("room");
        let mut accepted = accepted.join().expect("no panic");
        let mut byte = [0];
        accepted.read_exact(&mut byte).expect("a byte");
        accepted.write_all(&byte).expect("room");
        stream.read_exact(&mut byte).expect("a byte");
        assert_eq!(byte, *b"x");
        (stream, accepted)
    })
}

#[test]
fn invited_members_talk_and_a_revocation_resets_their_connections() {
    let scene = Scene::new();
    let [alpha, beta] = [node(), node()];
    let [home, away] = [&alpha, &beta].map(|node| {
        let joined = node.join(scene.invite()).expect("a good invite");
        joined.wait_ready(PATIENCE).expect("admitted");
        joined
    });
    // Granted addresses are there as soon as the node is a member.
    let granted = |joined: &Joined| joined.addresses().into_iter().find(IpAddr::is_ipv4);
    let (own, theirs) = (granted(&home).expect("IPv4"), granted(&away).expect("IPv4"));
    assert_ne!(own, theirs);
    let listener = TcpListener::bind_on(&beta, "[::]:0").expect("a free port");
    let (mut open, _accepted) = echo(&alpha, &listener, away.address().into());
    // By then they know each other's granted addresses, too.
    let by_ipv4 = TcpListener::bind_on(&beta, "0.0.0.0:0").expect("a free port");
    drop(echo(&alpha, &by_ipv4, theirs));

    scene.revoke(beta.id());
    let error = open.read(&mut [0]).expect_err("no end of data: the connection is reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    open_fails(&alpha, &listener, away.address().into());
}

fn open_fails(node: &Node, listener: &TcpListener, to: IpAddr) {
    let port = listener.local_addr().expect("bound").port();
    assert!(TcpStream::connect_on(node, SocketAddr::new(to, port)).is_err());
}

#[test]
fn a_member_needs_no_controller_after_a_restart() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let [first, second] = ["first", "second"].map(|name| place.path().join(name));
    for directory in [&first, &second] {
        let node = kept(directory);
        let joined = node.join(scene.invite()).expect("a good invite");
        joined.wait_ready(PATIENCE).expect("admitted");
        assert!(node.shutdown(PATIENCE));
    }
    let record = StateDir::membership(&first, scene.id).expect("readable").expect("kept");
    assert!(record.credentials.is_some());
    let asked = scene.authority.asked.load(Ordering::Relaxed);
    assert!(scene.node.shutdown(PATIENCE));
    // The ID alone is enough now, and no controller is asked.
    let (alpha, beta) = (kept(&first), kept(&second));
    let network = || Network::by_id(scene.id).expect("a managed network");
    let (home, away) = (alpha.join(network()).expect("kept"), beta.join(network()).expect("kept"));
    assert_eq!(home.membership().map(|known| known.standing), Some(Standing::Member));
    let listener = TcpListener::bind_on(&beta, "[::]:0").expect("a free port");
    drop(echo(&alpha, &listener, away.address().into()));
    assert_eq!(scene.authority.asked.load(Ordering::Relaxed), asked);
}

#[test]
fn a_removal_that_is_heard_last_is_kept() {
    // Each way to end a node.
    let ends: [fn(Node, Joined); 3] = [
        |node, _| assert!(node.shutdown(PATIENCE)),
        |node, joined| assert!(node.leave(joined.id())),
        |node, joined| drop((node, joined)),
    ];
    for (way, end) in ends.into_iter().enumerate() {
        let scene = Scene::new();
        let place = tempfile::tempdir().expect("a directory");
        let node = kept(place.path());
        let joined = node.join(scene.invite()).expect("a good invite");
        joined.wait_ready(PATIENCE).expect("admitted");
        let record = || StateDir::membership(place.path(), scene.id).expect("readable");
        until("the record", || record().is_some_and(|record| record.credentials.is_some()));
        // The other node keeps no session, so nothing else comes.
        let other = crate::common::node();
        scene.revoke(other.id());
        let heard = || joined.membership().and_then(|known| known.revocations);
        until("the removal", || heard().is_some());
        end(node, joined);
        let keeps = || record().is_some_and(|record| !record.revocations.is_empty());
        // The last handle may be dropped by a thread of the node.
        until(&format!("a record with the removal, way {way}"), keeps);
    }
}

pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_id_leads_to_the_key_and_a_refusal_is_told() {
    let scene = Scene::new();
    let node = node();
    let joined = node.join(Network::by_id(scene.id).expect("a managed network")).expect("joined");
    // Without a token this controller refuses.
    let mut heard = Vec::new();
    while !heard.contains(&Standing::Denied(Denial::UnknownInvite)) {
        joined.wait_admitted(Duration::from_secs(1), |now| heard.push(now.clone())).expect("joined");
        assert!(heard.len() < 100, "{heard:?}");
    }
    let known = joined.membership().expect("a managed network");
    assert_eq!(known.key, Some(scene.authority.secret.public()), "its hash is the ID");
}

#[test]
fn the_credentials_are_kept_before_anybody_hears_of_the_admission() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let node = kept(place.path());
    for round in 0..5 {
        let joined = node.join(scene.invite()).expect("a good invite");
        let standing = joined.wait_admitted(PATIENCE, |_| ()).expect("joined");
        assert_eq!(standing, Standing::Member);
        let record = StateDir::membership(place.path(), scene.id).expect("readable");
        let has_credentials = record.is_some_and(|record| record.credentials.is_some());
        assert!(has_credentials, "round {round}: only the program knows of it");
        drop(joined);
        assert!(management::leave(place.path(), scene.id).expect("a node that answers"));
    }
}

#[test]
fn the_removals_from_before_are_kept_before_a_newcomer_counts_as_up_to_date() {
    let scene = Scene::new();
    scene.revoke(node().id());
    let place = tempfile::tempdir().expect("a directory");
    let node = kept(place.path());
    let is_kept = || {
        let record = StateDir::membership(place.path(), scene.id).expect("readable");
        record.is_some_and(|record| !record.revocations.is_empty())
    };
    for round in 0..6 {
        // By a program with the node, and by one that only asks it.
        let (mut held, mut asked) = (None, None);
        match round % 2 {
            0 => {
                let joined = held.insert(node.join(scene.invite()).expect("a good invite"));
                joined.wait_admitted(PATIENCE, |_| ()).expect("joined");
                assert!(joined.wait_up_to_date(PATIENCE).expect("joined"), "round {round}");
            }
            _ => {
                let request =
                    JoinRequest { invite: scene.invite_text().parse().ok(), ..JoinRequest::new(scene.id) };
                let joining = asked.insert(management::join(place.path(), &request).expect("a node"));
                joining.wait_admitted(PATIENCE, |_, _| ()).expect("joined");
                assert!(joining.wait_up_to_date(PATIENCE).expect("joined"), "round {round}");
            }
        }
        assert!(is_kept(), "round {round}: only the program knows of it");
        drop((held, asked));
        assert!(management::leave(place.path(), scene.id).expect("a node that answers"));
        assert!(!is_kept(), "round {round}");
    }
}

#[test]
fn without_a_controller_s_word_a_newcomer_is_not_up_to_date() {
    // This one has signed no revocations yet.
    let scene = Scene::new();
    let node = node();
    let joined = node.join(scene.invite()).expect("a good invite");
    joined.wait_admitted(PATIENCE, |_| ()).expect("joined");
    assert!(!joined.wait_up_to_date(Duration::from_millis(300)).expect("joined"));
    assert!(!joined.membership().expect("a managed network").is_up_to_date);
    scene.revoke(crate::common::node().id());
    assert!(joined.wait_up_to_date(PATIENCE).expect("joined"));
}

#[test]
fn another_key_with_the_same_id_is_refused() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let node = kept(place.path());
    let other = NetworkSecret::from_seed(&[9; 32]).public();
    let forged = || Network::managed(ManagedNetwork { key: Some(other), ..ManagedNetwork::new(scene.id) });
    assert!(matches!(node.join(forged()), Err(JoinError::WrongKey(id)) if id == scene.id));
    let joined = node.join(scene.invite()).expect("a good invite");
    joined.wait_ready(PATIENCE).expect("admitted");
    assert!(node.leave(scene.id));
    assert!(matches!(node.join(forged()), Err(JoinError::OtherKey(id)) if id == scene.id));
}
