//! A running node joins and leaves managed networks for other programs, which ask by its management socket.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream};
use peersock::management::{self, JoinRequest, ManagementError};
use peersock::state::{MembershipRecord, StateDir};
use peersock::{Invite, JoinError, Network, Node, Standing};

use super::managed::{Scene, echo, kept, until};

const LONG: Duration = Duration::from_secs(60);

impl Scene {
    fn request(&self) -> JoinRequest {
        let invite: Invite = self.invite_text().parse().expect("its own text");
        let local = Some("team".parse().expect("a name"));
        JoinRequest { invite: Some(invite), local, ..JoinRequest::new(self.id) }
    }
}

/// Asks the node in a directory for a membership until it has one.
fn admitted(state: &Path, request: &JoinRequest) -> management::Joining {
    let mut joining = management::join(state, request).expect("a node that answers");
    let standing = joining.wait_admitted(LONG, |_, _| ()).expect("joined");
    assert_eq!(standing, Standing::Member);
    assert!(joining.key().is_some());
    joining
}

fn is_joined(node: &Node, scene: &Scene) -> bool {
    node.network(scene.id).is_some()
}

#[test]
fn a_node_joins_for_a_program_that_waits_and_leaves_after_it() {
    let (scene, place) = (Scene::new(), tempfile::tempdir().expect("a directory"));
    let node = kept(place.path());
    let joining = admitted(place.path(), &scene.request());
    let record = StateDir::membership(place.path(), scene.id).expect("readable").expect("a record");
    assert!(record.credentials.is_some() && record.name.as_deref() == Some("team"), "{record:?}");
    assert!(is_joined(&node, &scene));
    drop(joining);
    until("the node leaves", || !is_joined(&node, &scene));
    // What it has got serves the next program, without another question.
    let joined = node.join(Network::by_id(scene.id).expect("an ID")).expect("not joined");
    joined.wait_ready(LONG).expect("a member");
    assert_eq!(scene.authority.asked.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_program_that_joins_meanwhile_keeps_the_network_and_its_connections() {
    let (scene, place) = (Scene::new(), tempfile::tempdir().expect("a directory"));
    let node = kept(place.path());
    let joining = admitted(place.path(), &scene.request());
    let joined = node.join(Network::by_id(scene.id).expect("an ID")).expect("a network for a question");
    let again = node.join(Network::by_id(scene.id).expect("an ID"));
    assert!(matches!(again, Err(JoinError::AlreadyJoined(_))), "{again:?}");
    let listener = TcpListener::bind_on(&scene.node, "[::]:0").expect("a free port");
    let (stream, _accepted) = echo(&node, &listener, scene.joined.address().into());
    drop(joining);
    // Another question about the same network ends, too.
    drop(admitted(place.path(), &scene.request()));
    thread::sleep(Duration::from_millis(1500));
    assert!(joined.wait_ready(LONG).is_ok() && stream.peer_addr().is_ok());
    let (_stream, _accepted) = echo(&node, &listener, scene.joined.address().into());
}

#[test]
fn a_program_that_has_gone_renames_nothing() {
    let (scene, place) = (Scene::new(), tempfile::tempdir().expect("a directory"));
    let _node = kept(place.path());
    let name = |record: Option<MembershipRecord>| record.and_then(|record| record.name);
    let named = || name(StateDir::membership(place.path(), scene.id).expect("readable"));
    let crew = JoinRequest { local: Some("crew".parse().expect("a name")), ..scene.request() };
    drop(admitted(place.path(), &crew));
    assert_eq!(named().as_deref(), Some("crew"));
    let _joining = admitted(place.path(), &scene.request());
    // The node looks after the first program once a second.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        assert_eq!(named().as_deref(), Some("team"), "after {:?}", begun.elapsed());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_program_that_leaves_takes_the_network_from_nobody_who_waits() {
    let (scene, place) = (Scene::new(), tempfile::tempdir().expect("a directory"));
    let node = kept(place.path());
    let mut unknown = scene.request();
    unknown.invite = None;
    // No controller has admitted the machine, so this waits.
    let mut joining = management::join(place.path(), &unknown).expect("a node that answers");
    let denied = |standing: &Standing| matches!(standing, Standing::Denied(_));
    until("a controller has denied it", || {
        denied(&joining.wait_admitted(Duration::from_millis(100), |_, _| ()).expect("joined"))
    });
    let joined = node.join(Network::by_id(scene.id).expect("an ID")).expect("a network for a question");
    assert!(joined.leave());
    until("the node joins again", || is_joined(&node, &scene));
    // The invite of a second program counts for the network that is joined.
    drop(admitted(place.path(), &scene.request()));
    until("the first one hears of it", || {
        joining.wait_admitted(Duration::from_millis(100), |_, _| ()).expect("joined") == Standing::Member
    });
    drop(joining);
    until("the node leaves", || !is_joined(&node, &scene));
}

#[test]
fn an_invite_counts_in_a_network_that_was_joined_by_its_id_alone() {
    let (scene, place) = (Scene::new(), tempfile::tempdir().expect("a directory"));
    let node = kept(place.path());
    let mut by_id = management::join(place.path(), &JoinRequest::new(scene.id)).expect("a node that answers");
    // Before the key is known, because a key is stretched first.
    let joined = node.join(scene.invite()).expect("a network for a question");
    joined.wait_ready(LONG).expect("a member");
    assert_eq!(by_id.wait_admitted(LONG, |_, _| ()).expect("joined"), Standing::Member);
    assert_eq!(joined.membership().and_then(|known| known.key), Some(*scene.own().key()));
}

#[test]
fn an_invite_is_not_forgotten_when_another_wait_joins_the_network_again() {
    let (mut scene, place) = (Scene::new(), tempfile::tempdir().expect("a directory"));
    let node = kept(place.path());
    // No controller answers.
    scene.seat = None;
    let ask = |request: &JoinRequest| management::join(place.path(), request).expect("a node that answers");
    let by_id: Vec<_> = (0..6).map(|_| ask(&JoinRequest::new(scene.id))).collect();
    let mut by_invite = ask(&scene.request());
    for _ in 0..2 {
        assert!(node.leave(scene.id));
        until("the node joins again", || is_joined(&node, &scene));
    }
    // Each of them has looked by then.
    thread::sleep(Duration::from_millis(1500));
    scene.seat = Some(scene.take_seat(&scene.own()).expect("its own credentials"));
    assert_eq!(by_invite.wait_admitted(LONG, |_, _| ()).expect("joined"), Standing::Member);
    drop(by_id);
}

#[test]
fn a_name_is_given_to_one_network_also_by_a_node() {
    let (scene, other) = (Scene::new(), Scene::new());
    let place = tempfile::tempdir().expect("a directory");
    let _node = kept(place.path());
    let _joining = admitted(place.path(), &scene.request());
    let refused = management::join(place.path(), &other.request()).expect_err("the name is taken");
    let said = format!("network {} has the name `team` on this machine", scene.id);
    assert!(matches!(&refused, ManagementError::Refused { error, .. } if *error == said), "{refused}");
    // Its invite is not used.
    assert_eq!(other.authority.asked.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn a_machine_that_was_removed_comes_back_by_an_invite_while_its_node_runs() {
    let (scene, place) = (Scene::new(), tempfile::tempdir().expect("a directory"));
    let node = kept(place.path());
    let joined = node.join(scene.invite()).expect("a good network");
    joined.wait_ready(LONG).expect("a member");
    scene.revoke(node.id());
    until("the node hears of it", || {
        joined.membership().is_some_and(|known| matches!(known.standing, Standing::Denied(_)))
    });
    scene.admit_again(node.id());
    drop(admitted(place.path(), &scene.request()));
    joined.wait_ready(LONG).expect("a member");
    let record = StateDir::membership(place.path(), scene.id).expect("readable").expect("a record");
    assert_eq!(record.denied, None);
}

#[test]
fn leaving_for_good_ends_connections_and_forgets_the_credentials() {
    let (scene, place) = (Scene::new(), tempfile::tempdir().expect("a directory"));
    let node = kept(place.path());
    let joined = node.join(scene.invite()).expect("a good network");
    joined.wait_ready(LONG).expect("a member");
    let listener = TcpListener::bind_on(&scene.node, "[::]:0").expect("a free port");
    let (mut stream, _accepted) = echo(&node, &listener, scene.joined.address().into());
    assert!(management::leave(place.path(), scene.id).expect("a node that answers"));
    let ended = std::io::Read::read(&mut stream, &mut [0]);
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(StateDir::membership(place.path(), scene.id).expect("readable"), None);
    assert!(!is_joined(&node, &scene));
    assert!(!management::leave(place.path(), scene.id).expect("a node that answers"));
    // Who waits for an admission hears of it.
    let mut waiting =
        management::join(place.path(), &JoinRequest::new(scene.id)).expect("a node that answers");
    let mut is_over = || waiting.wait_admitted(Duration::from_millis(100), |_, _| ()).is_err();
    assert!(!is_over());
    management::leave(place.path(), scene.id).expect("a node that answers");
    until("the wait ends", is_over);
    assert!(!is_joined(&node, &scene));
    let local = SocketAddr::new(scene.joined.address().into(), 1);
    assert!(TcpStream::connect_on(&node, local).is_err());
    drop((node, joined, stream, waiting));
    let gone = management::join(place.path(), &scene.request()).expect_err("nobody answers");
    assert!(matches!(gone, ManagementError::NotRunning { .. }), "{gone}");
}

#[test]
fn another_network_with_the_same_id_is_refused() {
    let (scene, other, place) = (Scene::new(), Scene::new(), tempfile::tempdir().expect("a directory"));
    let node = kept(place.path());
    node.join(scene.invite()).expect("a good network").wait_ready(LONG).expect("a member");
    let own: Invite = scene.invite_text().parse().expect("its own text");
    let theirs: Invite = other.invite_text().parse().expect("its own text");
    // A forged invite: the ID of one network, and the key of another.
    let forged = Invite::new(scene.id, *theirs.key(), other.token(), &other.node.id(), Vec::new());
    assert_eq!(own.id(), forged.id());
    let request = JoinRequest { invite: Some(forged), ..JoinRequest::new(scene.id) };
    let refused = management::join(place.path(), &request).expect_err("another key");
    assert!(matches!(&refused, ManagementError::Refused { error, .. } if error.contains("key")), "{refused}");
    assert!(is_joined(&node, &scene));
}
