//! Listeners that are also reachable from the machine's own network.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Request, Socket, SocketFlags};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::FdFlags;
use rustix::net::sockopt;

use crate::common::{Served, errno, overlay, poll, poll_for, python, receive, send_to, set};

/// Returns a listener of a node with a kernel listener alongside, and both addresses.
fn listen(served: &Served, backlog: i32, flags: SocketFlags) -> (OwnedFd, SocketAddr, SocketAddr) {
    let fd = served.socket(flags);
    overlay(&fd).bind(SocketAddr::new(served.ip(), 0)).expect("a free port");
    overlay(&fd).listen(backlog).expect("it listens");
    let kernel = TcpListener::bind("127.0.0.1:0").expect("a free port");
    put_alongside(&fd, &kernel).expect("the node takes it");
    let address = overlay(&fd).local_addr().expect("it is bound");
    (fd, address, kernel.local_addr().expect("it is bound"))
}

fn put_alongside(fd: &OwnedFd, kernel: &impl AsFd) -> Result<(), Errno> {
    let request = Request::Alongside(overlay(fd).opened());
    overlay(fd).client().ask_with(request, Some(kernel.as_fd())).map(drop)
}

#[test]
fn one_descriptor_accepts_from_both_networks() {
    let (a, b) = Served::pair();
    let (listener, over, local) = listen(&b, 16, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
    assert_eq!(errno(overlay(&listener).accept(SocketFlags::empty()).map(drop)), Errno::AGAIN);

    let mut near = TcpStream::connect(local).expect("it listens");
    assert_eq!(poll(&listener, PollFlags::IN), PollFlags::IN);
    let (accepted, peer) = overlay(&listener).accept(SocketFlags::NONBLOCK).expect("a connection");
    assert_eq!(Ok(peer), near.local_addr().map_err(drop));
    // It is a plain kernel socket, with the requested flags.
    assert!(Socket::of(accepted.as_fd()).is_none());
    assert!(rustix::fs::fcntl_getfl(&accepted).expect("flags").contains(OFlags::NONBLOCK));
    assert_eq!(rustix::io::fcntl_getfd(&accepted), Ok(FdFlags::empty()));
    near.write_all(b"near").expect("room");
    assert_eq!(poll(&accepted, PollFlags::IN), PollFlags::IN);
    let mut stream = TcpStream::from(accepted);
    let mut buf = [0; 4];
    stream.read_exact(&mut buf).expect("four bytes");
    assert_eq!(&buf, b"near");

    let far = a.socket(SocketFlags::empty());
    overlay(&far).connect(Some(over)).expect("somebody listens");
    assert_eq!(poll(&listener, PollFlags::IN), PollFlags::IN);
    let (accepted, peer) = overlay(&listener).accept(SocketFlags::CLOEXEC).expect("a connection");
    assert_eq!(peer.ip(), a.ip());
    assert!(Socket::of(accepted.as_fd()).is_some());

    let _near = TcpStream::connect(local).expect("it listens");
    assert_eq!(poll(&listener, PollFlags::IN), PollFlags::IN);
    let (accepted, _) = overlay(&listener).accept(SocketFlags::CLOEXEC).expect("a connection");
    assert!(!rustix::fs::fcntl_getfl(&accepted).expect("flags").contains(OFlags::NONBLOCK));
    assert_eq!(rustix::io::fcntl_getfd(&accepted), Ok(FdFlags::CLOEXEC));
}

#[test]
fn more_than_the_backlog_wait_their_turn_and_none_is_lost() {
    let b = Served::new("ff0001ffff000000");
    let (listener, _, local) = listen(&b, 2, SocketFlags::CLOEXEC);
    let clients: Vec<_> = (0..100u8)
        .map(|number| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(local).expect("its turn comes");
                stream.write_all(&[number]).expect("room");
                let mut answer = [0];
                stream.read_exact(&mut answer).expect("an answer");
                assert_eq!(answer, [number]);
            })
        })
        .collect();
    for _ in 0..clients.len() {
        let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
        let mut stream = TcpStream::from(accepted);
        let mut number = [0];
        stream.read_exact(&mut number).expect("one byte");
        stream.write_all(&number).expect("room");
    }
    for client in clients {
        client.join().expect("it was answered");
    }
}

#[test]
fn closing_the_listener_closes_the_kernels() {
    let b = Served::new("ff0001ffff000000");
    let (listener, _, local) = listen(&b, 16, SocketFlags::CLOEXEC);
    let mut waiting = TcpStream::connect(local).expect("it listens");
    assert_eq!(poll(&listener, PollFlags::IN), PollFlags::IN);
    drop(listener);
    // A connection that was passed and not accepted ends.
    assert!(!matches!(waiting.read(&mut [0]), Ok(1..)));
    // Soon, and at once if a program wants the port.
    for wanted in [false, true] {
        let (listener, over, local) = listen(&b, 16, SocketFlags::CLOEXEC);
        drop(listener);
        let begun = Instant::now();
        // A child of another test may have the descriptor for a moment.
        loop {
            if wanted {
                b.client.ask(Request::Vacate(over.port())).expect("the node answers");
            }
            if TcpStream::connect(local).is_err() {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it still listens");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn what_is_set_on_the_listener_is_set_on_the_kernels_connections() {
    let b = Served::new("ff0001ffff000000");
    let (listener, _, local) = listen(&b, 16, SocketFlags::CLOEXEC);
    for (level, name) in [(libc::SOL_SOCKET, libc::SO_KEEPALIVE), (libc::IPPROTO_TCP, libc::TCP_NODELAY)] {
        set(&listener, level, name, 1).expect("an option");
    }
    let _client = TcpStream::connect(local).expect("it listens");
    let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    assert_eq!(sockopt::socket_keepalive(&accepted), Ok(true));
    assert_eq!(sockopt::tcp_nodelay(&accepted), Ok(true));
}

#[test]
fn nothing_but_a_listener_of_the_internets_can_be_alongside_one() {
    let b = Served::new("ff0001ffff000000");
    let fd = b.socket(SocketFlags::empty());
    overlay(&fd).bind(SocketAddr::new(b.ip(), 0)).expect("a free port");
    let kernel = TcpListener::bind("127.0.0.1:0").expect("a free port");
    assert_eq!(put_alongside(&fd, &kernel), Err(Errno::INVAL));
    overlay(&fd).listen(1).expect("it listens");
    let client = TcpStream::connect(kernel.local_addr().expect("it is bound")).expect("it listens");
    assert_eq!(put_alongside(&fd, &client), Err(Errno::INVAL));
    let file = std::fs::File::open("/dev/null").expect("it exists");
    assert_eq!(put_alongside(&fd, &file), Err(Errno::NOTSOCK));
    let request = Request::Alongside(overlay(&fd).opened());
    assert_eq!(overlay(&fd).client().ask(request), Err(Errno::BADF));
    put_alongside(&fd, &kernel).expect("the node takes it");
}

#[test]
fn a_stranger_that_passes_a_descriptor_is_not_accepted() {
    let b = Served::new("ff0001ffff000000");
    let (listener, _, local) = listen(&b, 16, SocketFlags::CLOEXEC);
    let name = rustix::net::getsockname(&listener).expect("it has a name");
    let unix = rustix::net::SocketAddrUnix::try_from(name).expect("of this family");
    let text = String::from_utf8(unix.abstract_name().expect("abstract").to_vec()).expect("text");
    let fake = format!("ps/{}/k4/000000000001/0a00000107d0", &text[3..11]);
    let script = format!(
        "import socket,time\ns=socket.socket(socket.AF_UNIX)\ns.bind('\\0{fake}')\ns.connect('\\0{text}')\n\
         socket.send_fds(s, [b'x'], [0])\ntime.sleep(20)"
    );
    let Some(mut stranger) = python("a_stranger_that_passes_a_descriptor_is_not_accepted", &script) else {
        return;
    };
    let mut stranger = stranger.spawn().expect("it is installed");
    assert_eq!(poll(&listener, PollFlags::IN), PollFlags::IN);
    let client = TcpStream::connect(local).expect("it listens");
    let (_, peer) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    assert_eq!(Ok(peer), client.local_addr().map_err(drop));
    stranger.kill().expect("it runs");
    stranger.wait().expect("it ends");
}

/// Returns a UDP socket of a node on both networks, and both addresses.
fn bound_on_both(served: &Served) -> (OwnedFd, SocketAddr, SocketAddr) {
    let (fd, over) = served.bound();
    let kernel = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    put_alongside(&fd, &kernel).expect("the node takes it");
    (fd, over, kernel.local_addr().expect("it is bound"))
}

#[test]
fn one_udp_socket_speaks_to_both_networks() {
    let (a, b) = Served::pair();
    let (fd, over, local) = bound_on_both(&b);
    // IPv4 addresses of the machine arrive mapped, as on every IPv6 socket.
    let near = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    near.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
    let (far, _) = a.bound();
    for round in 0..50u8 {
        near.send_to(&[round, 1], local).expect("room");
        let (data, received) = receive(&fd);
        let remote = received.remote.expect("a sender");
        assert_eq!((&data[..], remote.port()), (&[round, 1][..], near.local_addr().expect("bound").port()));
        send_to(&fd, &[round, 2], remote).expect("room");
        let mut buf = [0; 10];
        assert_eq!(near.recv_from(&mut buf).expect("an answer"), (2, local));
        assert_eq!(buf[..2], [round, 2]);

        send_to(&far, &[round, 3], over).expect("room");
        let (data, received) = receive(&fd);
        assert_eq!(data, [round, 3]);
        send_to(&fd, &[round, 4], received.remote.expect("a sender")).expect("room");
        assert_eq!(receive(&far).0, [round, 4]);
    }
}

#[test]
fn a_udp_socket_on_both_networks_that_is_connected_hears_its_peer_only() {
    let (a, b) = Served::pair();
    let (fd, over, local) = bound_on_both(&b);
    let near = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mapped = match near.local_addr().expect("it is bound") {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 => v6,
    };
    let ((far, far_address), (other, _)) = (a.bound(), a.bound());
    overlay(&fd).connect(Some(mapped)).expect("it is the kernel's");
    send_to(&other, b"no", over).expect("room");
    near.send_to(b"near", local).expect("room");
    assert_eq!(receive(&fd).0, b"near");
    overlay(&fd).connect(Some(far_address)).expect("a member");
    near.send_to(b"no", local).expect("room");
    send_to(&far, b"far", over).expect("room");
    assert_eq!(receive(&fd).0, b"far");
    // An ICMP error about the kernel socket's peer is reported.
    overlay(&fd).connect(Some(mapped)).expect("it is the kernel's");
    drop(near);
    let begun = Instant::now();
    // A child of another test may have the descriptor for a moment.
    while rustix::io::write(&fd, b"nobody").is_ok()
        && !poll_for(&fd, PollFlags::IN, 1).contains(PollFlags::ERR)
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is told");
    }
    assert_eq!(overlay(&fd).take_error(), Ok(Some(Errno::CONNREFUSED)));
}

#[test]
fn closing_a_udp_socket_frees_the_kernels_port() {
    let b = Served::new("ff0001ffff000000");
    let (fd, over, local) = bound_on_both(&b);
    assert!(UdpSocket::bind(local).is_err());
    drop(fd);
    let begun = Instant::now();
    while UdpSocket::bind(local).is_err() {
        b.client.ask(Request::Vacate(over.port())).expect("the node answers");
        assert!(begun.elapsed() < Duration::from_secs(60), "it still has it");
    }
}
