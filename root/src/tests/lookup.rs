//! Look-ups: by ID, by the first bytes, in a shared directory, and within limits.

use std::sync::Mutex;

use peersock_overlay::NodeId;
use peersock_overlay::wire::{Channel, Entry, LookUpKey, NotFound, Registration, RootMessage};

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

/// Notes what it is told and asked.
#[derive(Default)]
struct Log {
    registered: Vec<NodeId>,
    gone: Vec<NodeId>,
    asked: Vec<(QuestionId, LookUpKey)>,
    is_away: bool,
}

struct Shared(Arc<Mutex<Log>>);

impl Directory for Shared {
    fn registered(&mut self, entry: &Entry) {
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
    let registration = Registration::sign(&there, &there.node_id(), 1, 600);
    let entry = Entry { identity: *there.public(), channel: Channel(5), registration };
    let key = prefix(&there.node_id());
    assert_eq!(here.look_up(&mut world, key), None, "not answered yet");
    let (question, asked) = log.lock().unwrap().asked[0];
    assert_eq!(asked, key);
    let wrong = Entry { identity: *here.identity.public(), ..entry };
    world.root.handle_answer(question, Answer::Found(wrong));
    assert_eq!(world.drain(), [], "that is not who was asked for");
    world.root.handle_answer(question, Answer::Found(entry));
    let sent = world.drain();
    let answer = RootMessage::parse(&here.open(&sent[0].1).expect("sealed")).ok();
    assert_eq!(found(answer), Ok(entry));
    world.root.handle_answer(question, Answer::Found(entry));
    assert_eq!(world.drain(), [], "once");

    // No answer: after two seconds the root speaks for itself.
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
