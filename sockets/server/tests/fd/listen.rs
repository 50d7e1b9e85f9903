//! Listening and accepting.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Request, Socket, SocketFlags, Which};
use rustix::event::PollFlags;
use rustix::net::sockopt;

use crate::common::{Served, errno, overlay, poll, poll_for, private, python};

#[test]
fn a_listener_is_readable_when_somebody_waits() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::NONBLOCK);
    assert_eq!(errno(overlay(&listener).accept(SocketFlags::empty()).map(drop)), Errno::AGAIN);
    assert_eq!(sockopt::socket_acceptconn(&listener), Ok(true));
    let fd = a.socket(SocketFlags::empty());
    overlay(&fd).connect(Some(address)).expect("somebody listens");
    assert_eq!(poll(&listener, PollFlags::IN), PollFlags::IN);
    let (accepted, _) = overlay(&listener).accept(SocketFlags::NONBLOCK).expect("a connection");
    assert_eq!(errno(rustix::io::read(&accepted, &mut [0; 1])), Errno::AGAIN);
}

#[test]
fn listening_twice_on_a_port_fails_and_works_again_after_closing() {
    let a = Served::new("ff0001ffff000000");
    let any: SocketAddr = "[::]:8080".parse().expect("an address");
    let fd = a.socket(SocketFlags::empty());
    overlay(&fd).bind(any).expect("a free port");
    overlay(&fd).listen(5).expect("it listens");
    assert_eq!(overlay(&fd).local_addr(), Ok(any));
    let second = a.socket(SocketFlags::empty());
    assert_eq!(errno(overlay(&second).bind(any)), Errno::ADDRINUSE);
    drop(fd);
    overlay(&second).bind(any).expect("free again");
    overlay(&second).listen(5).expect("it listens");
}

#[test]
fn who_connects_to_a_listener_that_is_said_to_be_closed_is_refused() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    let socket = overlay(&listener);
    let (client, Which::Opened(opened)) = (socket.client(), socket.which()) else { panic!("it was opened") };
    let copy = listener.try_clone().expect("descriptors are left");
    drop(listener);
    client.ask(Request::Closed(opened)).expect("the node is there");
    // The copy is still open.
    let connection = a.socket(SocketFlags::empty());
    assert_eq!(overlay(&connection).connect(Some(address)), Ok(()));
    drop(copy);
    client.ask(Request::Closed(opened)).expect("the node is there");
    let connection = a.socket(SocketFlags::empty());
    assert_eq!(overlay(&connection).connect(Some(address)), Err(Errno::CONNREFUSED));
}

#[test]
fn a_stranger_that_connects_to_the_listener_is_not_accepted() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen_by_abstract_name();
    let name = rustix::net::getsockname(&listener).expect("it has a name");
    let unix = rustix::net::SocketAddrUnix::try_from(name).expect("of this family");
    // Under a name of the right form, but from a process other than the node: a child.
    let text = String::from_utf8(unix.abstract_name().expect("abstract").to_vec()).expect("text");
    let tag = &text[3..11];
    let fake = format!("ps/{tag}/a6/000000000001/{}", "0".repeat(72));
    let script = format!(
        "import socket,time\ns=socket.socket(socket.AF_UNIX)\ns.bind('\\0{fake}')\ns.connect('\\0{text}')\ntime.sleep(20)"
    );
    let Some(mut stranger) = python("a_stranger_that_connects_to_the_listener_is_not_accepted", &script)
    else {
        return;
    };
    let mut stranger = stranger.spawn().expect("it is installed");
    assert_eq!(poll(&listener, PollFlags::IN), PollFlags::IN);
    let fd = a.socket(SocketFlags::empty());
    overlay(&fd).connect(Some(address)).expect("somebody listens");
    let (_, peer) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    assert_eq!(peer.ip(), a.ip());
    stranger.kill().expect("it runs");
    stranger.wait().expect("it ends");
}

#[test]
fn more_connections_than_the_backlog_wait_their_turn() {
    let (a, b) = Served::pair();
    let fd = b.socket(SocketFlags::empty());
    overlay(&fd).bind(SocketAddr::new(b.ip(), 0)).expect("a free port");
    overlay(&fd).listen(2).expect("it listens");
    let address = overlay(&fd).local_addr().expect("it is bound");
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let fd = a.socket(SocketFlags::empty());
                overlay(&fd).connect(Some(address)).expect("its turn comes");
            });
        }
        thread::sleep(Duration::from_millis(100));
        for _ in 0..12 {
            overlay(&fd).accept(SocketFlags::empty()).expect("a connection");
        }
    });
}

/// Returns the number of established clients, once it has been stable for a while.
fn standing(clients: &[OwnedFd], wanted: usize) -> usize {
    let count = || clients.iter().filter(|fd| poll_for(fd, PollFlags::OUT, 0) == PollFlags::OUT).count();
    let until = Instant::now() + Duration::from_secs(20);
    while count() < wanted && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(200));
    count()
}

#[test]
fn one_connection_more_than_the_backlog_says_may_wait() {
    let (a, b) = Served::pair();
    for from in [&a, &b] {
        for (backlog, places) in [(0, 1), (1, 2), (5, 6), (-1, 12)] {
            let listener = private(b.socket(SocketFlags::empty()));
            overlay(&listener).bind(SocketAddr::new(b.ip(), 0)).expect("a free port");
            overlay(&listener).listen(backlog).expect("it listens");
            let address = overlay(&listener).local_addr().expect("it is bound");
            let clients: Vec<OwnedFd> = (0..12)
                .map(|_| {
                    let fd = from.socket(SocketFlags::NONBLOCK);
                    assert_eq!(errno(overlay(&fd).connect(Some(address))), Errno::INPROGRESS);
                    fd
                })
                .collect();
            assert_eq!(standing(&clients, places), places, "with a backlog of {backlog}");
            if backlog == 1 {
                // Accepted connections make room, and so does another backlog.
                overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
                assert_eq!(standing(&clients, places + 1), places + 1);
                overlay(&listener).listen(3).expect("it listens");
                assert_eq!(standing(&clients, places + 3), places + 3);
            }
        }
    }
}

#[test]
fn other_descriptors_are_no_overlay_sockets() {
    let file = std::fs::File::open("/dev/null").expect("it exists");
    assert!(Socket::of(file.as_fd()).is_none());
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    assert!(Socket::of(socket.as_fd()).is_none());
    let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    assert!(Socket::of(one.as_fd()).is_none());
}
