//! Nodes of programs beside their machine's node: one state directory, several processes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use peersock::attach::NodeHandle;
use peersock::blocking::{TcpListener, TcpStream};
use peersock::overlay::membership::Denial;
use peersock::state::{MembershipRecord, StateDir};
use peersock::{
    IdentitySource, Interfaces, JoinError, Joined, Network, Node, NodeBuilder, Standing, StartError,
};

use crate::common::{PATIENCE, node};
use crate::managed::{Scene, echo, kept, now, until};

fn settings(directory: &Path) -> NodeBuilder {
    let state = IdentitySource::StateDir(directory.to_owned());
    Node::builder().identity(state).interfaces(Interfaces::Loopback).beside(true)
}

/// Starts the machine's node, and makes it a member.
fn machine(scene: &Scene, directory: &Path) -> (Node, Joined) {
    let node = kept(directory);
    let joined = node.join(scene.invite()).expect("a good invite");
    joined.wait_ready(PATIENCE).expect("admitted");
    let is_kept = |kept: Option<MembershipRecord>| kept.is_some_and(|record| record.credentials.is_some());
    until("the record", || StateDir::membership(directory, scene.id).is_ok_and(is_kept));
    (node, joined)
}

fn join(scene: &Scene, node: &Node) -> Joined {
    node.join(Network::by_id(scene.id).expect("a managed network")).expect("the machine is a member")
}

/// Returns the first byte's way from one node to another one and back.
fn talk(from: &Node, to: &Node, home: &Joined) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind_on(to, "[::]:0").expect("a free port");
    echo(from, &listener, home.address().into())
}

#[test]
fn programs_of_one_machine_are_one_member_without_the_controller() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let (alpha, _) = machine(&scene, &place.path().join("alpha"));
    let (beta, away) = machine(&scene, &place.path().join("beta"));
    let asked = scene.authority.asked.load(Ordering::Relaxed);
    assert!(scene.node.shutdown(PATIENCE));
    let programs: Vec<_> =
        (0..20).map(|_| settings(&place.path().join("alpha")).start().expect("beside")).collect();
    for program in &programs {
        let joined = join(&scene, program);
        assert_eq!(joined.membership().map(|known| known.standing), Some(Standing::Member));
        assert_eq!(joined.addresses().len(), 1, "granted addresses are the machine's");
        drop(talk(program, &beta, &away));
        drop(talk(&beta, program, &joined));
    }
    let mut ids: Vec<_> = programs.iter().chain([&alpha]).map(Node::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), programs.len() + 1);
    // Its own node is where it was, and no program has asked to be a member.
    assert_eq!(
        StateDir::peek_identity(&place.path().join("alpha")).expect("readable"),
        Some(alpha.public_identity())
    );
    assert_eq!(scene.authority.asked.load(Ordering::Relaxed), asked);
}

#[test]
fn a_name_leads_to_the_machine_and_a_label_to_the_program() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let (alpha, home) = machine(&scene, place.path());
    let name = home.membership().and_then(|known| known.grant).expect("a grant").name;
    let web = settings(place.path()).label("web".parse().expect("a label")).start().expect("beside");
    let at = join(&scene, &web);
    let beta = node();
    let away = beta.join(scene.invite()).expect("a good invite");
    away.wait_ready(PATIENCE).expect("admitted");
    drop(talk(&beta, &alpha, &home));
    let listener = TcpListener::bind_on(&web, "[::]:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let connect = |host: String| TcpStream::connect_on(&beta, (host.as_str(), port));
    let mut stream = connect(format!("web.{name}")).expect("found at the machine");
    let (accepted, from) = listener.accept().expect("a connection");
    assert_eq!(from.ip(), away.address());
    drop(accepted);
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
    // Any number of programs of a machine are one member for limits, and the address leads to this one.
    let member = NodeHandle::of(&beta).member_at(at.address().into());
    assert_eq!(member, Some(alpha.id()), "not {}", web.id());
    assert_eq!(NodeHandle::of(&web).member_at(away.address().into()), Some(beta.id()));
    // The machine refuses at once, and then the name leads to its program.
    let stream = connect(name.to_string()).expect("found");
    assert_eq!(stream.peer_addr().expect("connected").ip(), at.address());
    let error = connect(format!("api.{name}")).expect_err("no such program");
    assert_ne!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

/// A controller knows the machine, and not its programs.
#[test]
fn a_program_looks_up_members_as_its_machine() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let (alpha, _) = machine(&scene, place.path());
    let web = settings(place.path()).start().expect("beside");
    join(&scene, &web).wait_ready(PATIENCE).expect("admitted");
    let asked = || scene.authority.looked_up.lock().expect("no panic").clone();
    until("the question", || {
        let found = TcpStream::connect_on(&web, ("stranger", 7));
        assert!(found.is_err(), "nobody has that name");
        !asked().is_empty()
    });
    assert!(asked().iter().all(|node| *node == alpha.id()), "{:?}, not {}", asked(), alpha.id());
}

#[test]
fn a_label_needs_no_node_of_the_machine() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let (alpha, _) = machine(&scene, place.path());
    assert!(alpha.shutdown(PATIENCE));
    drop(alpha);
    let web = settings(place.path()).label("web".parse().expect("a label")).start().expect("beside");
    let joined = join(&scene, &web);
    let beta = node();
    let away = beta.join(scene.invite()).expect("a good invite");
    away.wait_ready(PATIENCE).expect("admitted");
    drop(talk(&web, &beta, &away));
    // The directory is free: the machine's node starts beside it.
    let again = kept(place.path());
    drop(join(&scene, &again));
    drop(talk(&again, &web, &joined));
}

#[test]
fn other_networks_need_the_machine_s_node() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let alpha = kept(place.path());
    let program = settings(place.path()).start().expect("beside");
    let refused = program.join(Network::ad_hoc("ff0001ffff000000".parse().expect("an ID")));
    let error = refused.expect_err("not its machine's node");
    assert!(matches!(error, JoinError::Beside { .. }), "{error}");
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    let early = program.join(Network::by_id(scene.id).expect("a managed network"));
    assert!(matches!(early, Err(JoinError::MachineNotAMember(id)) if id == scene.id));
    // The token of an invite would make one more machine.
    let early = program.join(scene.invite());
    assert!(matches!(early, Err(JoinError::MachineNotAMember(id)) if id == scene.id));
    let exclusive = settings(place.path()).beside(false).start();
    assert!(matches!(exclusive, Err(StartError::State(_))), "{exclusive:?}");
    drop(alpha);
    settings(place.path()).beside(false).start().expect("the directory is free again");
}

#[test]
fn programs_of_a_listed_machine_need_no_entry_in_its_network() {
    let place = tempfile::tempdir().expect("a directory");
    let [alpha, beta] = ["alpha", "beta"].map(|name| kept(&place.path().join(name)));
    let member = |name: &str, node: &Node| {
        format!("[[member]]\nname = \"{name}\"\nkey = \"{}\"\n", node.public_identity())
    };
    let members = member("alpha", &alpha) + &member("beta", &beta);
    let file = format!("network = \"fe00000000001d07\"\n{members}");
    let join = |node: &Node| node.join(Network::parse_toml(&file).expect("a valid file")).expect("a member");
    let (home, away) = (join(&alpha), join(&beta));
    let programs: Vec<_> =
        (0..10).map(|_| settings(&place.path().join("alpha")).start().expect("beside")).collect();
    for program in &programs {
        let joined = join(program);
        drop(talk(program, &beta, &away));
        drop(talk(&beta, program, &joined));
    }
    // The machine's node tells where its labels are, also another machine's program.
    let web = settings(&place.path().join("alpha")).label("web".parse().expect("a label"));
    let web = web.start().expect("beside");
    let at = join(&web);
    let listener = TcpListener::bind_on(&web, "[::]:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let client = settings(&place.path().join("beta")).start().expect("beside");
    let from = join(&client);
    let stream = TcpStream::connect_on(&client, ("web.alpha", port)).expect("found at the machine");
    assert_eq!(stream.peer_addr().expect("connected").ip(), at.address());
    assert_eq!(listener.accept().expect("a connection").1.ip(), from.address());
    assert_eq!(home.addresses().len(), 1);
    // A machine that the file does not name has no programs there.
    let gamma = kept(&place.path().join("gamma"));
    let stranger = settings(&place.path().join("gamma")).start().expect("beside");
    let refused = stranger.join(Network::parse_toml(&file).expect("a valid file"));
    let is_so = |key| key == gamma.public_identity();
    assert!(matches!(refused, Err(JoinError::NotAMember { key, .. }) if is_so(key)), "its machine's key");
}

#[test]
fn a_program_follows_its_machine_s_correction_of_the_clock() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let (alpha, _) = machine(&scene, place.path());
    assert!(alpha.shutdown(PATIENCE));
    drop(alpha);
    // As if this machine's clock were three hours behind the controllers'.
    let mut record = StateDir::membership(place.path(), scene.id).expect("readable").expect("kept");
    record.clock_offset = 3 * 3_600_000;
    StateDir::open(place.path()).expect("free").keep_membership(&record).expect("room");
    let program = settings(place.path()).label("web".parse().expect("a label")).start().expect("beside");
    let joined = join(&scene, &program);
    let time = joined.membership().expect("a managed network").time;
    assert!(time.since(now()) > Duration::from_secs(10_000), "{time:?}");
    let read = StateDir::membership(place.path(), scene.id).expect("readable").expect("kept");
    assert_eq!(read.clock_offset, record.clock_offset);
}

/// The controller is off, and time goes on by more than the hour for which a program's certificate lasts.
#[test]
fn a_machine_certifies_its_programs_anew_without_a_controller() {
    const HOUR: Duration = Duration::from_secs(3600);
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let directories = ["alpha", "beta"].map(|name| place.path().join(name));
    for directory in &directories {
        assert!(machine(&scene, directory).0.shutdown(PATIENCE));
    }
    assert!(scene.node.shutdown(PATIENCE));
    let begun = now();
    let programs = directories.each_ref().map(|directory| {
        let label = "web".parse().expect("a label");
        settings(directory).label(label).start().expect("beside")
    });
    let joined = programs.each_ref().map(|program| join(&scene, program));
    let end = |joined: &Joined| joined.membership().and_then(|known| known.end).expect("a certificate");
    let (mut open, mut accepted) = talk(&programs[0], &programs[1], &joined[1]);
    for minutes in [21, 90] {
        // A program follows its machine's correction of the clock.
        let passed = Duration::from_secs(60 * minutes);
        for directory in &directories {
            let mut record = StateDir::membership(directory, scene.id).expect("readable").expect("kept");
            record.clock_offset = i64::try_from(passed.as_millis()).expect("a small number");
            StateDir::open(directory).expect("free").keep_membership(&record).expect("room");
        }
        let is_new = |joined: &Joined| end(joined) >= begun.plus(passed + HOUR);
        until("other certificates", || joined.iter().all(is_new));
        assert!(joined.iter().all(|joined| end(joined) <= now().plus(passed + HOUR)), "after {minutes} min");
        // New connections, and the one that is open.
        for (from, to) in [(0, 1), (1, 0)] {
            drop(talk(&programs[from], &programs[to], &joined[to]));
        }
        open.write_all(b"y").expect("it is open");
        accepted.read_exact(&mut [0]).expect("a byte");
    }
}

#[test]
fn the_machine_s_removal_ends_its_programs_and_tells_them() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let (alpha, _) = machine(&scene, place.path());
    let programs: Vec<_> = (0..5).map(|_| settings(place.path()).start().expect("beside")).collect();
    let beta = node();
    let away = beta.join(scene.invite()).expect("a good invite");
    away.wait_ready(PATIENCE).expect("admitted");
    let joined: Vec<_> = programs.iter().map(|program| join(&scene, program)).collect();
    let mut open: Vec<_> = programs.iter().map(|program| talk(program, &beta, &away)).collect();
    // The controller that removes it is connected with this member, which tells the others.
    drop(talk(&beta, &scene.node, &scene.joined));
    scene.revoke(alpha.id());
    for (_, accepted) in &mut open {
        let error = accepted.read(&mut [0]).expect_err("no end of data: the connection is reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    // The controller tells the machine's node, and the programs read that.
    for joined in &joined {
        let denied = Standing::Denied(Denial::Removed);
        until("the denial", || joined.membership().is_some_and(|known| known.standing == denied));
    }
    for program in &programs {
        let listener = TcpListener::bind_on(&beta, "[::]:0").expect("a free port");
        let to = SocketAddr::new(away.address().into(), listener.local_addr().expect("bound").port());
        assert!(TcpStream::connect_on(program, to).is_err());
    }
}

#[test]
fn a_program_renews_the_certificate_of_a_machine_whose_node_is_away() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let (alpha, _) = machine(&scene, place.path());
    let id = alpha.id();
    assert!(alpha.shutdown(PATIENCE));
    drop(alpha);
    let mut record = StateDir::membership(place.path(), scene.id).expect("readable").expect("kept");
    let old = now().minus(Duration::from_secs(5 * 3600));
    record.credentials = Some(scene.authority.credentials_of(id, 77, old));
    StateDir::open(place.path()).expect("free").keep_membership(&record).expect("room");
    let web = settings(place.path()).label("web".parse().expect("a label")).start().expect("beside");
    let joined = join(&scene, &web);
    let signed = || {
        let record = StateDir::membership(place.path(), scene.id).expect("readable").expect("kept");
        record.credentials.expect("credentials").certificate().serial().time()
    };
    until("the renewal", || signed() > old);
    until("the program's use of it", || {
        joined
            .membership()
            .is_some_and(|known| known.grant.is_some_and(|grant| grant.name.as_str() != "m-77"))
    });
    assert_eq!(joined.membership().map(|known| known.standing), Some(Standing::Member));
}

#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn fifty_programs_have_their_first_byte_soon_and_end_with_their_machine() {
    let most = start_fifty(|start| (0..PROGRAMS).map(|_| start()).collect());
    assert!(most <= Duration::from_millis(300), "{most:?}");
}

#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn fifty_programs_that_start_at_once_are_connected_and_end_with_their_machine() {
    start_fifty(|start| {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..PROGRAMS).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    });
}

const PROGRAMS: usize = 50;

/// Program with the time until its first byte, and its connection.
type Started = (Duration, Node, TcpStream);

/// Starts programs of one machine, with the controller off, and removes the machine, of which another member
/// hears. Returns the longest time until a first byte.
fn start_fifty(all: impl Fn(&(dyn Fn() -> Started + Sync)) -> Vec<Started>) -> Duration {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let (alpha, _home) = machine(&scene, &place.path().join("alpha"));
    let (beta, away) = machine(&scene, &place.path().join("beta"));
    assert!(scene.node.shutdown(PATIENCE));
    let listener = TcpListener::bind_on(&beta, "[::]:0").expect("a free port");
    let to = SocketAddr::new(away.address().into(), listener.local_addr().expect("bound").port());
    let accepting = thread::spawn(move || {
        let accepted = (0..PROGRAMS).map(|_| {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(b"x").expect("room");
            stream
        });
        accepted.collect::<Vec<_>>()
    });
    let mut programs = all(&|| {
        let begun = Instant::now();
        let program = settings(&place.path().join("alpha")).start().expect("beside");
        join(&scene, &program);
        let mut stream = TcpStream::connect_on(&program, to).expect("connected");
        stream.read_exact(&mut [0]).expect("a byte");
        (begun.elapsed(), program, stream)
    });
    programs.sort_by_key(|(time, ..)| *time);
    let [least, median, most] = [0, PROGRAMS / 2, PROGRAMS - 1].map(|place| programs[place].0);
    eprintln!("first byte of {PROGRAMS} programs: {least:?} to {most:?}, median {median:?}");
    let begun = Instant::now();
    let (head, set) = scene.removal(alpha.id());
    away.set_revocations(&head, &set).expect("signed by the issuer");
    let mut accepted = accepting.join().expect("no panic");
    let ends = programs.iter_mut().map(|(.., stream)| stream);
    for stream in accepted.iter_mut().chain(ends) {
        let error = stream.read(&mut [0]).expect_err("no end of data: the connection is reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    eprintln!("the removal has ended all after {:?}", begun.elapsed());
    most
}
