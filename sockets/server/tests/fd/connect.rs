//! Connecting: blocking, with a timeout, and non-blocking.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Family, Filling, Kind, Name, Reply, Request, Shutdown, SocketFlags, address};
use rustix::event::PollFlags;
use rustix::net::{SendFlags, sockopt};

use crate::common::{Served, errno, overlay, poll, poll_for, set};
use crate::world::World;

#[test]
fn refused_and_unreachable_addresses_are_told_apart_and_the_socket_may_try_again() {
    let (a, b) = Served::pair();
    let fd = a.socket(SocketFlags::empty());
    let socket = overlay(&fd);
    let nowhere: SocketAddr = "[2001:db8::1]:80".parse().expect("an address");
    assert_eq!(errno(socket.connect(Some(nowhere))), Errno::NETUNREACH);
    let v4: SocketAddr = "10.1.2.3:80".parse().expect("an address");
    assert_eq!(errno(socket.connect(Some(v4))), Errno::INVAL, "as of an address that is too short");
    assert_eq!(errno(socket.bind(v4)), Errno::INVAL);
    let (listener, address) = b.listen(SocketFlags::empty());
    drop(listener);
    let closed = SocketAddr::new(b.ip(), if address.port() == 9 { 10 } else { 9 });
    assert_eq!(errno(socket.connect(Some(closed))), Errno::CONNREFUSED);
    let (listener, address) = b.listen(SocketFlags::empty());
    socket.connect(Some(address)).expect("somebody listens");
    assert_eq!(socket.peer_addr(), Ok(address));
    let (accepted, peer) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    assert_eq!(socket.local_addr(), Ok(peer));
    assert_eq!(overlay(&accepted).local_addr(), Ok(address));
    assert_eq!(overlay(&accepted).peer_addr(), Ok(peer));
    assert_eq!(errno(socket.connect(Some(address))), Errno::ISCONN);
}

/// The kernel rejects the same calls with the same errors, before it looks for a route.
#[test]
fn a_socket_for_ipv6_alone_reaches_no_mapped_address() {
    let (a, b) = Served::pair_with_ipv4();
    let mapped = |ip: std::net::IpAddr, port| match ip {
        std::net::IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), port),
        std::net::IpAddr::V6(_) => panic!("an IPv4 address"),
    };
    for kind in [Kind::Stream, Kind::Datagram] {
        for (world, local, remote) in [
            (World::Overlays(a.client.clone()), mapped(a.v4(), 0), mapped(b.v4(), 9)),
            (World::Kernels, mapped([127, 0, 0, 1].into(), 0), mapped([127, 0, 0, 1].into(), 9)),
        ] {
            let fd = world.open(kind, SocketFlags::empty());
            match &world {
                World::Overlays(_) => set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1),
                World::Kernels => sockopt::set_ipv6_v6only(&fd, true),
            }
            .expect("an option");
            assert_eq!(errno(world.connect(&fd, remote)), Errno::NETUNREACH, "{kind:?} to {remote}");
            let bound = match &world {
                World::Overlays(_) => overlay(&fd).bind(local),
                World::Kernels => rustix::net::bind(&fd, &local),
            };
            assert_eq!(errno(bound), Errno::INVAL, "{kind:?} at {local}");
            if kind == Kind::Datagram {
                assert_eq!(errno(world.send_to(&fd, b"x", Some(remote))), Errno::NETUNREACH);
            }
        }
    }
}

#[test]
fn without_waiting_the_socket_is_writable_when_the_connection_stands() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    let fd = a.socket(SocketFlags::NONBLOCK);
    let socket = overlay(&fd);
    assert_eq!(errno(socket.connect(Some(address))), Errno::INPROGRESS);
    assert_eq!(poll(&fd, PollFlags::OUT), PollFlags::OUT);
    assert_eq!(socket.take_error(), Ok(None));
    assert_eq!(socket.peer_addr(), Ok(address));
    let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    let (mut client, mut server) = (std::fs::File::from(fd), std::fs::File::from(accepted));
    client.write_all(b"first").expect("room");
    let mut buf = [0; 5];
    server.read_exact(&mut buf).expect("nothing but what was written");
    assert_eq!(&buf, b"first");
}

#[test]
fn what_is_written_as_soon_as_the_socket_is_writable_arrives() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    let echo = thread::spawn(move || {
        for _ in 0..300 {
            let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
            let mut file = std::fs::File::from(accepted);
            let mut buf = [0; 3];
            file.read_exact(&mut buf).expect("three bytes");
            file.write_all(&buf).expect("room");
        }
    });
    for _ in 0..300 {
        let fd = a.socket(SocketFlags::NONBLOCK);
        assert_eq!(errno(overlay(&fd).connect(Some(address))), Errno::INPROGRESS);
        // Spins without sleeping, to see it as early as possible.
        while rustix::io::write(&fd, b"now") == Err(Errno::AGAIN) {}
        assert_eq!(poll(&fd, PollFlags::IN), PollFlags::IN, "it was lost");
        let mut buf = [0; 3];
        assert_eq!(rustix::io::read(&fd, &mut buf), Ok(3));
        assert_eq!(&buf, b"now");
    }
    echo.join().expect("all are echoed");
}

#[test]
fn while_it_connects_the_socket_is_neither_readable_nor_writable() {
    let a = Served::new("ff0001ffff000000");
    let fd = a.socket(SocketFlags::NONBLOCK);
    let socket = overlay(&fd);
    let nobody = a.silent();
    assert_eq!(errno(socket.connect(Some(nobody))), Errno::INPROGRESS);
    assert_eq!(poll_for(&fd, PollFlags::IN | PollFlags::OUT, 1), PollFlags::empty());
    assert_eq!(errno(socket.connect(Some(nobody))), Errno::ALREADY);
    assert_eq!(errno(socket.peer_addr()), Errno::NOTCONN);
    assert_eq!(errno(rustix::io::write(&fd, b"x")), Errno::AGAIN);
}

/// Returns a socket with a non-blocking connect to a closed port.
fn refused(a: &Served, b: &Served) -> OwnedFd {
    let fd = a.socket(SocketFlags::NONBLOCK);
    assert_eq!(errno(overlay(&fd).connect(Some(SocketAddr::new(b.ip(), 9)))), Errno::INPROGRESS);
    fd
}

/// Calls `look` until it returns a value, without sleeping, to see it as early as possible.
fn look_until<T>(look: impl Fn() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until);
    }
}

#[test]
fn a_refusal_without_waiting_is_an_error_of_the_socket() {
    let (a, b) = Served::pair();
    let fd = refused(&a, &b);
    let socket = overlay(&fd);
    // The node makes room first.
    let mut flags = PollFlags::empty();
    while !flags.contains(PollFlags::HUP) {
        flags = poll(&fd, PollFlags::IN | PollFlags::OUT);
        assert!(flags.contains(PollFlags::OUT), "{flags:?}");
    }
    assert!(flags.contains(PollFlags::IN | PollFlags::ERR), "{flags:?}");
    assert_eq!(socket.take_error(), Ok(Some(Errno::CONNREFUSED)));
    assert_eq!(socket.take_error(), Ok(None));
}

/// The kernel wakes the waiters of a socket before it frees the socket's unread data.
#[test]
fn who_sees_that_a_socket_was_refused_can_write_to_it_and_is_told_why() {
    let (a, b) = Served::pair();
    for _ in 0..300 {
        let fd = refused(&a, &b);
        let socket = overlay(&fd);
        let flags = look_until(|| {
            let flags = poll_for(&fd, PollFlags::IN | PollFlags::OUT, 0);
            flags.contains(PollFlags::ERR).then_some(flags)
        });
        assert!(flags.contains(PollFlags::OUT), "{flags:?}");
        // A spinning caller may see the error a moment before the end, because the kernel sets one after the
        // other.
        assert!(poll(&fd, PollFlags::IN).contains(PollFlags::HUP));
        assert_eq!(socket.take_error(), Ok(Some(Errno::CONNREFUSED)));
        assert_eq!(socket.take_error(), Ok(None));
    }
}

/// A spinning caller may ask exactly when the node gives the connection up: between the answers of the node
/// and of the kernel.
#[test]
fn whoever_asks_all_the_time_why_a_socket_was_refused_is_told_once() {
    let (a, b) = Served::pair();
    for _ in 0..1_000 {
        let fd = refused(&a, &b);
        let socket = overlay(&fd);
        let told = look_until(|| socket.take_error().expect("an answer"));
        assert_eq!(told, Errno::CONNREFUSED);
        assert_eq!(socket.take_error(), Ok(None));
    }
}

/// The same for a caller that asks as soon as the socket is writable, before the kernel has an error.
#[test]
fn whoever_finds_a_refused_socket_writable_is_told_why_once() {
    let (a, b) = Served::pair();
    for _ in 0..300 {
        let fd = refused(&a, &b);
        let socket = overlay(&fd);
        look_until(|| (!poll_for(&fd, PollFlags::OUT, 0).is_empty()).then_some(()));
        assert_eq!(socket.take_error(), Ok(Some(Errno::CONNREFUSED)));
        assert_eq!(socket.take_error(), Ok(None));
        assert_eq!(rustix::io::read(&fd, &mut [0; 1]), Ok(0), "it was told");
    }
}

/// A write as soon as the socket is writable takes no data either.
#[test]
fn nothing_is_taken_by_a_socket_that_was_refused() {
    let (a, b) = Served::pair();
    for _ in 0..300 {
        let fd = refused(&a, &b);
        let socket = overlay(&fd);
        look_until(|| (!poll_for(&fd, PollFlags::OUT, 0).is_empty()).then_some(()));
        let error = errno(rustix::net::send(&fd, b"x", SendFlags::NOSIGNAL));
        assert!([Errno::PIPE, Errno::CONNRESET].contains(&error), "{error}");
        assert_eq!(socket.stream_error(error), Errno::CONNREFUSED);
    }
}

#[test]
fn a_time_limit_ends_the_call_but_not_the_attempt() {
    let (a, b) = Served::pair();
    let fd = a.socket(SocketFlags::empty());
    let limit = Some(Duration::from_millis(200));
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, limit).expect("an option");
    let (socket, silent) = (overlay(&fd), a.silent());
    assert_eq!(errno(socket.connect(Some(silent))), Errno::INPROGRESS);
    assert_eq!(errno(socket.connect(Some(silent))), Errno::ALREADY, "it waits for as long again");
    drop(fd);
    let (client, server) = a.connect(&b);
    drop((client, server));
}

/// The thread whose call returns first may write before the other call has finished.
#[test]
fn threads_that_connect_one_socket_all_wait_and_may_all_write_then() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    for _ in 0..100 {
        let fd = a.socket(SocketFlags::empty());
        let connect = || {
            let connected = overlay(&fd).connect(Some(address));
            assert!(matches!(connected, Ok(()) | Err(Errno::ISCONN)), "{connected:?}");
            assert_eq!(rustix::net::send(&fd, b"x", SendFlags::NOSIGNAL), Ok(1));
        };
        thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(connect))));
        let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
        drop(fd);
        let mut came = Vec::new();
        std::fs::File::from(accepted).read_to_end(&mut came).expect("it ends in order");
        assert_eq!(came, b"xxx");
    }
}

#[test]
fn who_waits_for_an_attempt_of_another_thread_is_told_as_that_is() {
    let (a, b) = Served::pair();
    let (silent, closed) = (a.silent(), SocketAddr::new(b.ip(), 9));
    // The other call does not wait, or no longer waits.
    let fd = a.socket(SocketFlags::NONBLOCK);
    assert_eq!(errno(overlay(&fd).begin_connect(Some(silent))), Errno::INPROGRESS);
    let limit = Some(Duration::from_millis(50));
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, limit).expect("an option");
    rustix::io::ioctl_fionbio(&fd, false).expect("a socket");
    assert_eq!(errno(overlay(&fd).connect(Some(silent))), Errno::ALREADY);
    let fd = a.socket(SocketFlags::NONBLOCK);
    assert_eq!(errno(overlay(&fd).begin_connect(Some(closed))), Errno::INPROGRESS);
    rustix::io::ioctl_fionbio(&fd, false).expect("a socket");
    assert_eq!(errno(overlay(&fd).connect(Some(closed))), Errno::CONNREFUSED);
    assert_eq!(overlay(&fd).take_error(), Ok(None));
    // Both wait.
    let fd = a.socket(SocketFlags::empty());
    let connect = || errno(overlay(&fd).connect(Some(silent)));
    thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(connect));
        look_until(|| overlay(&fd).shutdown(Shutdown::Both).ok());
        for connecting in both {
            let told = connecting.join().expect("no panic");
            // The second call may come after the attempt has failed, and begin another one.
            assert!([Errno::CONNRESET, Errno::HOSTUNREACH].contains(&told), "{told}");
        }
    });
}

#[test]
fn shutdown_ends_an_attempt_that_is_waited_for() {
    let a = Served::new("ff0001ffff000000");
    let silent = a.silent();
    for flags in [SocketFlags::empty(), SocketFlags::NONBLOCK] {
        let fd = a.socket(flags);
        let connected = thread::scope(|scope| {
            let connecting = scope.spawn(|| overlay(&fd).connect(Some(silent)));
            // As soon as there is an attempt.
            look_until(|| overlay(&fd).shutdown(Shutdown::Both).ok());
            connecting.join().expect("no panic")
        });
        match flags.is_empty() {
            true => assert_eq!(errno(connected), Errno::CONNRESET),
            false => {
                assert_eq!(errno(connected), Errno::INPROGRESS);
                assert!(poll(&fd, PollFlags::OUT).contains(PollFlags::HUP));
                assert_eq!(overlay(&fd).take_error(), Ok(Some(Errno::CONNRESET)));
            }
        }
    }
}

/// Begins a non-blocking connect as the library does, up to the moment at which it fills the descriptor.
fn begin_filling(a: &Served, remote: SocketAddr) -> OwnedFd {
    let fd = a.socket(SocketFlags::NONBLOCK);
    let socket = overlay(&fd).opened();
    let connect = Request::Connect { socket, remote, wait: false, timeout: None };
    assert_eq!(a.client.ask(connect).expect("the node answers"), Reply::Done);
    sockopt::set_socket_send_buffer_size(&fd, 1).expect("an option");
    rustix::net::connect(&fd, &address(&Name::Data(overlay(&fd).tag()))).expect("the node accepts");
    assert!(poll(&fd, PollFlags::OUT).contains(PollFlags::OUT));
    fd
}

/// Fills the descriptor, unless its direction has ended, and tells the node.
fn fill(a: &Served, fd: &OwnedFd, filling: Filling) {
    while rustix::net::send(fd, &filling.bytes(), SendFlags::NOSIGNAL).is_ok() {}
    let filled = Request::Filled(overlay(fd).opened(), filling);
    a.client.tell(filled, Some(fd.as_fd())).expect("the node is there");
}

/// The descriptor is writable for a moment while the thread that connects fills it.
#[test]
fn shutdown_ends_an_attempt_whose_descriptor_is_not_full_yet() {
    let a = Served::new("ff0001ffff000000");
    for how in [Shutdown::Write, Shutdown::Both] {
        for is_half_full in [false, true] {
            let fd = begin_filling(&a, a.silent());
            let filling = Filling::new().expect("random bytes");
            if is_half_full {
                rustix::net::send(&fd, &filling.bytes(), SendFlags::NOSIGNAL).expect("room");
            }
            overlay(&fd).shutdown(how).expect("an attempt");
            fill(&a, &fd, filling);
            assert!(poll(&fd, PollFlags::empty()).contains(PollFlags::HUP), "{how:?}, {is_half_full}");
            assert_eq!(overlay(&fd).take_error(), Ok(Some(Errno::CONNRESET)), "{how:?}, {is_half_full}");
        }
    }
}

/// Ways to end a stream: once or twice, and by the library or by direct system calls.
#[derive(Debug, Clone, Copy)]
enum Ends {
    ByLibrary,
    Twice,
    DirectlyAndByLibrary,
}

/// A kernel socket would take nothing before it is connected. This one has taken something, so it sends that.
#[test]
fn shutdown_does_not_end_an_attempt_whose_descriptor_has_taken_data() {
    let (a, b) = Served::pair();
    let listener = b.listen(SocketFlags::empty());
    for how in [Shutdown::Write, Shutdown::Both] {
        for ends in [Ends::ByLibrary, Ends::Twice, Ends::DirectlyAndByLibrary] {
            for pieces_before in [0, 1] {
                // The node may learn of the filling before the end or after it.
                for is_told_before in [false, true] {
                    let case = format!("{how:?}, {ends:?}, {pieces_before}, {is_told_before}");
                    arrives_although_shut_down(
                        &a,
                        &listener,
                        (how, ends),
                        pieces_before,
                        is_told_before,
                        &case,
                    );
                }
            }
        }
    }
}

fn arrives_although_shut_down(
    a: &Served,
    (listener, address): &(OwnedFd, SocketAddr),
    (how, ends): (Shutdown, Ends),
    pieces_before: usize,
    is_told_before: bool,
    case: &str,
) {
    let fd = begin_filling(a, *address);
    let filling = Filling::new().expect("random bytes");
    let written = [filling.bytes().repeat(pieces_before), b"bbb".to_vec()].concat();
    assert_eq!(rustix::net::send(&fd, &written, SendFlags::NOSIGNAL), Ok(written.len()), "{case}");
    if let Ends::DirectlyAndByLibrary = ends {
        rustix::net::shutdown(&fd, how).expect("it is connected");
    }
    if is_told_before {
        fill(a, &fd, filling);
    }
    // The other end closes once it has the data, and may have done so.
    let shut = || overlay(&fd).shutdown(how);
    let mut shuts = vec![shut()];
    if let Ends::Twice = ends {
        shuts.push(shut());
    }
    if !is_told_before {
        assert_eq!(shuts[0], Ok(()), "{case}");
        fill(a, &fd, filling);
    }
    assert!(shuts.iter().all(|shut| matches!(shut, Ok(()) | Err(Errno::NOTCONN))), "{shuts:?}, {case}");
    let (accepted, _) = overlay(listener).accept(SocketFlags::empty()).expect("a connection");
    let (mut came, mut accepted) = (Vec::new(), std::fs::File::from(accepted));
    accepted.read_to_end(&mut came).unwrap_or_else(|error| panic!("{error}, {case}"));
    assert_eq!(came, b"bbb", "{case}");
    if how == Shutdown::Write {
        accepted.write_all(b"echo").expect("room");
        drop(accepted);
        assert!(poll(&fd, PollFlags::IN).contains(PollFlags::IN), "{case}");
        assert_eq!(rustix::io::read(&fd, &mut [0; 5]), Ok(4), "{case}");
        assert!(poll(&fd, PollFlags::IN).contains(PollFlags::IN), "{case}");
        assert_eq!(rustix::io::read(&fd, &mut [0; 5]), Ok(0), "{case}");
    }
    assert_eq!(overlay(&fd).take_error(), Ok(None), "{case}");
}

/// Threads with concurrent requests have one connection each; afterwards few are kept.
#[test]
fn threads_that_ask_the_node_leave_few_descriptors() {
    let a = Served::new("ff0001ffff000000");
    let count = || std::fs::read_dir("/proc/self/fd").expect("proc(5)").count();
    let fd = a.socket(SocketFlags::empty());
    overlay(&fd).bind(SocketAddr::new(a.ip(), 0)).expect("a free port");
    let before = count();
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                for _ in 0..100 {
                    overlay(&fd).local_addr().expect("it is bound");
                }
            });
        }
    });
    // Each has another end in the node, which closes later.
    look_until(|| (count() <= before + 2 * 8).then_some(()));
}

/// Options set before the connection is established, and before the node knows that connect(2) has returned,
/// apply to the connection itself.
#[test]
fn options_that_are_set_while_it_connects_count() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    for flags in [SocketFlags::empty(), SocketFlags::NONBLOCK] {
        for _ in 0..20 {
            let fd = a.socket(flags);
            let connected = overlay(&fd).connect(Some(address));
            assert!(matches!(connected, Ok(()) | Err(Errno::INPROGRESS)), "{connected:?}");
            let reset_on_close = [1_i32, 0].map(i32::to_ne_bytes).concat();
            overlay(&fd).set_option(libc::SOL_SOCKET, libc::SO_LINGER, &reset_on_close).expect("an option");
            let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
            assert_eq!(poll(&fd, PollFlags::OUT), PollFlags::OUT);
            drop(fd);
            assert_eq!(errno(rustix::io::read(&accepted, &mut [0; 1])), Errno::CONNRESET);
        }
    }
}

#[test]
fn no_address_in_particular_is_the_node_itself() {
    let (a, _b) = Served::pair_with_ipv4();
    for family in [Family::V4, Family::V6] {
        let any = SocketAddr::new(family.unspecified(), 0);
        let [listener, fd] = [(); 2].map(|()| a.open_in(family, Kind::Stream));
        overlay(&listener).bind(any).expect("a free port");
        overlay(&listener).listen(1).expect("it listens");
        let local = overlay(&listener).local_addr().expect("it is bound");
        assert!(local.ip().is_unspecified());
        overlay(&fd).connect(Some(local)).expect("somebody listens");
        assert_eq!(overlay(&fd).peer_addr().map(|peer| peer.port()), Ok(local.port()));
        overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    }
}

#[test]
fn a_bound_socket_connects_from_its_port() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    let fd = a.socket(SocketFlags::empty());
    overlay(&fd).bind(SocketAddr::new(a.ip(), 0)).expect("a free port");
    let bound = overlay(&fd).local_addr().expect("it is bound");
    assert_ne!(bound.port(), 0);
    let second = a.socket(SocketFlags::empty());
    assert_eq!(errno(overlay(&second).bind(bound)), Errno::ADDRINUSE);
    overlay(&fd).connect(Some(address)).expect("somebody listens");
    let (_, peer) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    assert_eq!(peer, bound);
}

#[test]
fn a_closed_socket_frees_its_port() {
    let a = Served::new("ff0001ffff000000");
    let fd = a.socket(SocketFlags::empty());
    overlay(&fd).bind(SocketAddr::new(a.ip(), 7777)).expect("a free port");
    drop(fd);
    let fd = a.socket(SocketFlags::empty());
    overlay(&fd).bind(SocketAddr::new(a.ip(), 7777)).expect("free again");
}

#[test]
fn many_connect_at_once() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let fd = a.socket(SocketFlags::empty());
                    overlay(&fd).connect(Some(address)).expect("somebody listens");
                    let mut file = std::fs::File::from(fd);
                    file.write_all(b"ping").expect("room");
                    let mut answer = [0; 4];
                    file.read_exact(&mut answer).expect("an answer");
                }
            });
        }
        for _ in 0..200 {
            let (fd, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
            scope.spawn(move || {
                let mut file = std::fs::File::from(fd);
                let mut ping = [0; 4];
                file.read_exact(&mut ping).expect("a question");
                file.write_all(&ping).expect("room");
            });
        }
    });
}
