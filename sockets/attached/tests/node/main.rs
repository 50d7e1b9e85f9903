//! Sockets of a program whose node is killed or stopped in another process.

#[path = "../../../../tests/delivery/process.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod process;
mod scene;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use peersock_attached::{Member, tokio as tasks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::scene::{PATIENCE, Scene};

#[test]
fn the_end_of_a_stream_is_regular_only_if_the_node_says_so() {
    let mut scene = Scene::start();
    for is_killed in [false, true] {
        let (stream, mut peer) = scene.connect();
        peer.write_all(b"data").expect("room");
        drop(peer);
        (&stream).read_exact(&mut [0; 4]).expect("the data");
        // The end has come, and is not read yet.
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&stream, PollFlags::RDHUP)], Some(&patience)).expect("an end");
        if !is_killed {
            assert_eq!((&stream).read(&mut [0]).expect("a regular end"), 0);
            continue;
        }
        scene.node.kill();
        // The kernel may know of a reset, and says so once.
        let _ = sockopt::socket_error(&stream);
        // Without a descriptor, it cannot even be found out that the node has ended.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).expect("a lower limit");
        let unknown = (&stream).read(&mut [0]);
        setrlimit(Resource::Nofile, limit).expect("the limit of before");
        unknown.expect_err("nobody says that this is the end");
        // The error stays.
        (&stream).read(&mut [0]).expect_err("nor later");
    }
}

#[test]
fn nothing_is_known_of_a_name_without_the_node_s_answer() {
    let mut scene = Scene::start();
    assert!(scene.member.addresses_named("nobody").expect("an answer").is_empty());
    let routes = scene.member.routes().to_vec();
    assert!(!routes.is_empty());
    scene.node.kill();
    // The attachment lasts, as for a moment after the end of a node.
    scene.member.check_up().expect("it is not noticed yet");
    let unknown = scene.member.addresses_named("nobody").expect_err("nobody knows");
    assert_eq!(unknown.kind(), ErrorKind::NetworkDown);
    assert_eq!(scene.member.routes(), routes);
    Member::new(scene.attached()).expect_err("its routes are unknown");
}

#[test]
fn a_connection_that_is_given_up_is_reset_however_it_ends() {
    let scene = Scene::start();
    for ends in [&[][..], &[Shutdown::Both], &[Shutdown::Read, Shutdown::Both]] {
        for is_unread in [false, true] {
            let (stream, mut peer) = scene.connect();
            stream.reset_on_close(true).expect("it is there");
            (&stream).write_all(b"a part").expect("room");
            peer.read_exact(&mut [0; 6]).expect("the part");
            if is_unread {
                peer.write_all(b"unread").expect("room");
            }
            ends.iter().for_each(|how| stream.shutdown(*how).expect("it is there"));
            drop(stream);
            let end = peer.read(&mut [0]).expect_err("no regular end");
            assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{ends:?} {is_unread}");
        }
    }
    // The end of sending is regular, and then that of both as well.
    let (stream, mut peer) = scene.connect();
    stream.reset_on_close(true).expect("it is there");
    (&stream).write_all(b"all").expect("room");
    stream.shutdown(Shutdown::Write).expect("it is there");
    drop(stream);
    let mut all = Vec::new();
    peer.read_to_end(&mut all).expect("a regular end");
    assert_eq!(all, b"all");
}

#[test]
fn every_call_says_why_the_connection_broke_and_what_it_lost_stays_known() {
    let scene = Scene::start();
    let (stream, peer) = scene.connect();
    let (writing, reading) = (stream.clone(), stream.clone());
    let writing = thread::spawn(move || (&writing).write_all(&vec![1; 64 << 20]));
    let reading = thread::spawn(move || (&reading).read(&mut [0]));
    while stream.unacked() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    peer.set_linger(Some(Duration::ZERO)).expect("it is open");
    drop(peer);
    let errors = [
        writing.join().expect("no panic").expect_err("nobody has it all"),
        reading.join().expect("no panic").expect_err("no regular end"),
        (&stream).write(&[1]).expect_err("it broke"),
        (&stream).read(&mut [0]).expect_err("it broke"),
        stream.wait_acknowledged(None).expect_err("it never will be"),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let lost = stream.unacked();
    assert!(lost > 0);
    assert_eq!(stream.unacked(), lost);
}

#[test]
fn tasks_go_on_while_the_node_does_not_answer() {
    let scene = Scene::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a thread").block_on(async {
        scene.node.stop();
        let begin = Instant::now();
        let (member, address) = (scene.member.clone(), scene.address());
        let connecting = tokio::spawn(async move { tasks::TcpStream::connect(&member, &[address]).await });
        let member = scene.member.clone();
        let asking =
            tokio::spawn(async move { tasks::in_place(|| member.addresses_named("nobody")).map(drop) });
        for _ in 0..3 {
            let other = tokio::spawn(tokio::time::sleep(Duration::from_millis(1)));
            other.await.expect("no panic");
        }
        // Without a thread for it, it would run after the 30 seconds of a request.
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        scene.node.signal(Signal::CONT);
        connecting.await.expect("no panic").expect("a connection");
        asking.await.expect("no panic").expect("an answer");
    });
}

/// Runs the node of the other tests, in another process.
#[test]
fn node_of_another_process() {
    let Some(order) = process::order() else { return };
    let (_served, address) = scene::serve(&order);
    process::say(address);
    process::wait_to_go_on();
}
