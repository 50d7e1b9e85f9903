//! Tests of look-ups: by ID, by the first bytes, in a shared directory, and within limits.

use std::sync::Mutex;

use peersock_overlay::NodeId;
use peersock_overlay::wire::{
    Entry, LookUpKey, NotFound, Referral, Registration, RootMessage, RootRecord, access_pass,
};
use zeroize::Zeroizing;

use super::*;
use crate::{Answer, Directory, QuestionId};

fn found(answer: Option<RootMessage>) -> Result<Entry, NotFound> {
    let Some(RootMessage::Found { id: 77, result }) = answer else { panic!("{answer:?}") };
    result
}

fn prefix(node: &NodeId) -> LookUpKey {
    LookUpKey::Prefix(node.as_bytes()[..10].try_into().expect("10 bytes"))
}

#[test]
fn a_node_is_found_by_its_id_and_by_the_end_of_its_address() {
    let mut world = World::new();
    let nodes: Vec<_> = (1..9).map(|seed| world.registered(seed, source(seed.into()))).collect();
    let mut asker = world.connected(100, source(100));
    for node in &nodes {
        let id = node.identity.node_id();
        for key in [LookUpKey::Id(id), prefix(&id)] {
            let entry = found(asker.look_up(&mut world, key)).expect("it is registered");
            assert_eq!((entry.identity, entry.channel), (*node.identity.public(), node.channel));
            assert!(entry.registration.verify(&entry.identity, &config().identity.node_id()));
        }
    }
    let own = asker.identity.node_id();
    for key in [LookUpKey::Id(own), prefix(&own), LookUpKey::Prefix([0xff; 10]), LookUpKey::Prefix([0; 10])] {
        assert_eq!(found(asker.look_up(&mut world, key)), Err(NotFound::Unknown), "{key:?}");
    }
}

#[test]
fn one_node_does_not_ask_for_all() {
    let mut world = World::new();
    let mut asker = world.connected(1, source(1));
    let mut other = world.connected(2, source(2));
    let key = LookUpKey::Prefix([1; 10]);
    let answers: Vec<_> = (0..100).map(|_| found(asker.look_up(&mut world, key))).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == Err(NotFound::Limited)).count(), 40);
    assert_eq!(found(other.look_up(&mut world, key)), Err(NotFound::Unknown));
    world.pass(SECOND);
    assert_eq!(found(asker.look_up(&mut world, key)), Err(NotFound::Unknown));
}

/// Directory that records its calls.
#[derive(Default)]
struct Log {
    registered: Vec<NodeId>,
    gone: Vec<NodeId>,
    asked: Vec<(QuestionId, LookUpKey)>,
    is_away: bool,
}

struct Shared(Arc<Mutex<Log>>);

impl Directory for Shared {
    fn registered(&mut self, entry: &Entry, _lifetime: u32) {
        self.0.lock().unwrap().registered.push(entry.identity.node_id());
    }

    fn gone(&mut self, node: &NodeId) {
        self.0.lock().unwrap().gone.push(*node);
    }

    fn ask(&mut self, question: QuestionId, key: &LookUpKey) -> bool {
        let mut log = self.0.lock().unwrap();
        log.asked.push((question, *key));
        !log.is_away
    }
}

#[test]
fn a_shared_directory_is_told_and_asked_and_may_be_late_or_away() {
    let mut world = World::new();
    let log = Arc::new(Mutex::new(Log::default()));
    world.root.set_directory(Box::new(Shared(log.clone())));
    let mut here = world.registered(1, source(1));
    assert_eq!(log.lock().unwrap().registered, [here.identity.node_id()]);

    // A node at another root of the set.
    let there = Identity::from_seed(&[50; 32]);
    let referral = referral(&there, &Identity::from_seed(&[60; 32]));
    let key = prefix(&there.node_id());
    assert_eq!(here.look_up(&mut world, key), None, "not answered yet");
    let (question, asked) = log.lock().unwrap().asked[0];
    assert_eq!(asked, key);
    let wrong = Referral { identity: *here.identity.public(), ..referral.clone() };
    world.root.handle_answer(world.now, question, Answer::Found(Box::new(wrong)));
    assert_eq!(world.drain(), [], "that is not who was asked for");
    let here_itself = self::referral(&there, &config().identity);
    world.root.handle_answer(world.now, question, Answer::Found(Box::new(here_itself)));
    assert_eq!(world.drain(), [], "what is at this root is in its own table");
    let good = Answer::Found(Box::new(referral.clone()));
    world.root.handle_answer(world.now, question, good.clone());
    let sent = world.drain();
    let answer = RootMessage::parse(&here.open(&sent[0].1).expect("sealed"));
    assert_eq!(answer, Ok(RootMessage::Referred { id: 77, pass: [0; 32], referral: Box::new(referral) }));
    world.root.handle_answer(world.now, question, good);
    assert_eq!(world.drain(), [], "once");

    // Without an answer, the root answers itself after two seconds.
    assert_eq!(here.look_up(&mut world, key), None);
    let sent = world.pass(SECOND * 2);
    let answer = RootMessage::parse(&here.open(&sent[0].1).expect("sealed")).ok();
    assert_eq!(found(answer), Err(NotFound::Partial));

    log.lock().unwrap().is_away = true;
    assert_eq!(found(here.look_up(&mut world, key)), Err(NotFound::Partial));
    let own = LookUpKey::Id(here.identity.node_id());
    assert!(found(here.look_up(&mut world, own)).is_ok(), "its own nodes it knows");
    assert_eq!(log.lock().unwrap().asked.len(), 3);

    world.pass(SECOND * 601);
    assert_eq!(log.lock().unwrap().gone, [here.identity.node_id()]);
}

#[test]
fn one_prefix_does_not_use_up_what_others_may_ask_a_shared_directory() {
    let mut world = World::new();
    let log = Arc::new(Mutex::new(Log::default()));
    world.root.set_directory(Box::new(Shared(log.clone())));
    let asked = || log.lock().unwrap().asked.len();
    let key = LookUpKey::Prefix([1; 10]);
    // The directory does not answer.
    for seed in 0..20 {
        let mut asker = world.connected(seed, udp(&format!("192.0.2.{seed}:4000")));
        (0..60).for_each(|_| _ = asker.look_up(&mut world, key));
    }
    assert_eq!(asked(), 256);
    let mut other = world.connected(100, source(1));
    assert_eq!(other.look_up(&mut world, key), None);
    assert_eq!(asked(), 257);
    // The directory answers at once.
    world.pass(SECOND * 60);
    let (before, mut limited) = (asked(), 0);
    for seed in 20..60 {
        let mut asker = world.connected(seed, udp(&format!("192.0.2.{seed}:4000")));
        for _ in 0..60 {
            limited += usize::from(
                asker
                    .look_up(&mut world, key)
                    .is_some_and(|answer| found(Some(answer)) == Err(NotFound::Limited)),
            );
            let last = log.lock().unwrap().asked.last().unwrap().0;
            world.root.handle_answer(world.now, last, Answer::Nobody);
            world.drain();
        }
    }
    assert_eq!((asked() - before, limited), (1000, 1400));
    world.connected(101, source(2)).look_up(&mut world, key);
    assert_eq!(asked() - before, 1001);
}

#[test]
fn a_directory_that_comes_back_is_told_all_nodes_that_are_there() {
    let mut world = World::new();
    let log = Arc::new(Mutex::new(Log::default()));
    world.root.set_directory(Box::new(Shared(log.clone())));
    let nodes: Vec<_> = (0..300u32).map(|number| many(&mut world, number)).collect();
    let silent = world.registered(1, source(400));
    log.lock().unwrap().registered.clear();
    world.pass(SECOND * 60);
    for node in &nodes {
        let mut datagram = node.frame(silent.channel, b"I am here");
        world.root.relay(world.now, node.source, &mut datagram);
    }
    world.pass(SECOND * 40);
    world.root.handle_directory_back(world.now);
    assert_eq!(log.lock().unwrap().registered.len(), 256, "not all at once");
    world.pass(SECOND);
    let mut told = log.lock().unwrap().registered.clone();
    let mut all: Vec<_> = nodes.iter().map(|node| node.identity.node_id()).collect();
    told.sort_unstable();
    all.sort_unstable();
    assert_eq!(told, all);
}

/// Registers one of many nodes.
fn many(world: &mut World, number: u32) -> Node {
    world.now += SECOND / 10;
    let mut seed = [4; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let mut node = Node::of(Identity::from_seed(&seed), source(number));
    node.connect(world);
    node.register(world, 600);
    node
}

#[test]
fn who_is_registered_gets_a_pass_for_the_other_root_and_nobody_else() {
    let mut guarded = config();
    guarded.access = Some(Zeroizing::new(b"open sesame".to_vec()));
    let mut world = World::with(guarded);
    let log = Arc::new(Mutex::new(Log::default()));
    world.root.set_directory(Box::new(Shared(log.clone())));
    let (there, other) = (Identity::from_seed(&[50; 32]), Identity::from_seed(&[60; 32]));
    let pass_for = |world: &mut World, node: &mut Node| {
        assert_eq!(node.look_up(world, LookUpKey::Id(there.node_id())), None);
        let (question, _) = *log.lock().unwrap().asked.last().unwrap();
        let answer = Answer::Found(Box::new(referral(&there, &other)));
        world.root.handle_answer(world.now, question, answer);
        let sent = world.drain();
        match RootMessage::parse(&node.open(&sent[0].1).expect("sealed")) {
            Ok(RootMessage::Referred { pass, .. }) => pass,
            answer => panic!("{answer:?}"),
        }
    };
    let mut stranger = world.connected(1, source(1));
    assert_eq!(pass_for(&mut world, &mut stranger), [0; 32]);
    let mut member = world.connected(2, source(2));
    member.access = b"open sesame".to_vec();
    member.register(&mut world, 600);
    let pass = pass_for(&mut world, &mut member);
    let hour = 1_800_000_000 / 3600;
    assert_eq!(pass, access_pass(b"open sesame", &member.identity.node_id(), &other.node_id(), hour));
}

#[test]
fn a_pass_is_for_one_node_and_root_and_about_an_hour_and_lets_in_who_stays() {
    let mut guarded = config();
    guarded.access = Some(Zeroizing::new(b"open sesame".to_vec()));
    let mut world = World::with(guarded);
    let (mut guest, root) = (world.connected(1, source(1)), config().identity.node_id());
    let (own, hour) = (guest.identity.node_id(), 1_800_000_000 / 3600);
    let other = Identity::from_seed(&[9; 32]).node_id();
    let refused = |answer| matches!(answer, Some(RootMessage::Notice { .. }));
    for pass in [
        access_pass(b"open sesamf", &own, &root, hour),
        access_pass(b"open sesame", &other, &root, hour),
        access_pass(b"open sesame", &own, &other, hour),
        access_pass(b"open sesame", &own, &root, hour - 2),
        access_pass(b"open sesame", &own, &root, hour + 2),
        [0; 32],
    ] {
        world.pass(SECOND);
        guest.access = pass.to_vec();
        assert!(refused(guest.ask_to_register(&mut world, 600)));
    }
    for hour in [hour - 1, hour, hour + 1] {
        world.pass(SECOND);
        guest.access = access_pass(b"open sesame", &own, &root, hour).to_vec();
        guest.register(&mut world, 3600);
        world.send(source(1), &guest.seal_control(peersock_overlay::wire::Control::Close { reason: 0 }));
        guest.connect(&mut world);
    }
    guest.register(&mut world, 3600);
    for _ in 0..60 {
        world.pass(SECOND * 170);
        guest.connect(&mut world);
        guest.register(&mut world, 3600);
    }
}

fn referral(node: &Identity, root: &Identity) -> Referral {
    let registration = Registration::sign(node, &root.node_id(), 1, 600);
    let root = RootRecord::sign(root, 1_800_000_000, "192.0.2.1:7420").expect("it is short");
    Referral { identity: *node.public(), registration, root }
}
