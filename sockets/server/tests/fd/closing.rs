//! A closed socket releases its port and its memory at once, regardless of its use and its closing.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use peersock_fd::{Errno, Kind, Request, SocketFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::common::{Served, overlay, private, send_to};

/// A socket that was used in one way, and its address.
type Used = (OwnedFd, SocketAddr);

/// One way to use a socket.
type Use = fn(&Served) -> Used;

/// One way to use a socket and close it.
type UseAndClose = fn(&Served);

/// Ways to use a socket without a connection, in which no end of file reports the closing to the node.
const USES: [(&str, Use); 7] = [
    ("UDP, bound", Served::bound),
    ("UDP, sent", |served| {
        let fd = served.open(Kind::Datagram);
        send_to(&fd, b"query", SocketAddr::new(served.ip(), 9)).expect("it leaves");
        with_address(fd)
    }),
    ("UDP, connected", |served| {
        let fd = served.open(Kind::Datagram);
        overlay(&fd).connect(Some(SocketAddr::new(served.ip(), 9))).expect("there is a way");
        with_address(fd)
    }),
    ("TCP, bound", |served| {
        let fd = served.socket(SocketFlags::empty());
        overlay(&fd).bind((served.ip(), 0).into()).expect("a free port");
        with_address(fd)
    }),
    ("TCP, bound by a private name", |served| {
        let fd = private(served.socket(SocketFlags::empty()));
        overlay(&fd).bind((served.ip(), 0).into()).expect("a free port");
        with_address(fd)
    }),
    ("TCP, listens", |served| served.listen(SocketFlags::empty())),
    ("TCP, listens by an abstract name", Served::listen_by_abstract_name),
];

/// Ways to use and close a socket that has no port which others could want, or that releases it itself.
const USES_WITHOUT_PORT: [(&str, UseAndClose); 3] = [
    ("ICMP echo, sent", |served| {
        let fd = served.open(Kind::Echo);
        send_to(&fd, &[128, 0, 0, 0, 0, 0, 0, 1], SocketAddr::new(served.ip(), 0)).expect("it leaves");
    }),
    ("raw", |served| drop(served.open(Kind::Raw(253)))),
    ("TCP, refused", |served| {
        let fd = served.socket(SocketFlags::empty());
        let refused = overlay(&fd).connect(Some(SocketAddr::new(served.ip(), 9)));
        assert_eq!(refused, Err(Errno::CONNREFUSED));
    }),
];

fn with_address(fd: OwnedFd) -> Used {
    let local = overlay(&fd).local_addr().expect("it is bound");
    (fd, local)
}

/// Returns true if the port of such a socket is free. The node itself binds it, for a socket without a
/// descriptor, so that no search for closed sockets runs.
fn is_free(served: &Served, kind: &str, local: SocketAddr) -> bool {
    let local = SocketAddr::new(served.ip(), local.port());
    match kind.starts_with("UDP") {
        true => peersock::blocking::UdpSocket::bind_on(served.node(), local).is_ok(),
        false => peersock::blocking::TcpListener::bind_on(served.node(), local).is_ok(),
    }
}

/// Waits until the node has handled earlier events.
fn wait_turn(served: &Served) {
    served.client.ask(Request::Routes).expect("the node is there");
}

/// Does the same for a port that is about to be free. The node may be in the middle of a turn, but time does
/// not matter.
fn is_free_soon(served: &Served, kind: &str, local: SocketAddr) -> bool {
    (0..10).any(|_| {
        wait_turn(served);
        is_free(served, kind, local)
    })
}

#[test]
fn the_last_descriptor_gives_the_port_back_at_once() {
    let served = Served::new("ff0001ffff000000");
    for (kind, make) in USES {
        let (fd, local) = make(&served);
        assert!(!is_free(&served, kind, local), "{kind}: the port is not taken");
        let copy = rustix::io::dup(&fd).expect("a descriptor");
        drop(fd);
        wait_turn(&served);
        assert!(!is_free(&served, kind, local), "{kind}: a copy has it open");
        // In flight in another socket, which is closed with it.
        let (one, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        pass(&one, &copy);
        drop(copy);
        wait_turn(&served);
        assert!(!is_free(&served, kind, local), "{kind}: it is under way");
        drop((one, other));
        assert!(is_free_soon(&served, kind, local), "{kind}: the port is still taken");
    }
}

fn pass(to: &impl AsFd, fd: &impl AsFd) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    assert!(beside.push(SendAncillaryMessage::ScmRights(&fds)));
    let data = [std::io::IoSlice::new(b"x")];
    rustix::net::sendmsg(to, &data, &mut beside, SendFlags::empty()).expect("it is passed");
}

#[test]
fn a_process_that_is_killed_gives_its_ports_back_at_once() {
    let served = Served::new("ff0001ffff000000");
    for (kind, make) in USES {
        let (fd, local) = make(&served);
        let mut other = Command::new("sleep").arg("60").stdin(fd).spawn().expect("another process");
        wait_turn(&served);
        assert!(!is_free(&served, kind, local), "{kind}: another process has it open");
        other.kill().expect("it can be ended");
        other.wait().expect("it ends");
        assert!(is_free_soon(&served, kind, local), "{kind}: the port is still taken");
    }
}

/// Tests that an attempt ends with its socket. The node has a copy of the descriptor meanwhile, so nothing
/// reports the last close, and the peer stays silent for minutes.
#[test]
fn a_socket_that_is_closed_while_it_connects_gives_its_port_back_and_is_never_accepted() {
    let served = Served::new("ff0001ffff000000");
    let listener = private(served.socket(SocketFlags::empty()));
    overlay(&listener).bind((served.ip(), 0).into()).expect("a free port");
    overlay(&listener).listen(0).expect("it listens");
    let to = overlay(&listener).local_addr().expect("it is bound");
    let connect = || {
        let fd = served.socket(SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
        overlay(&fd).bind((served.ip(), 0).into()).expect("a free port");
        assert_eq!(overlay(&fd).connect(Some(to)), Err(Errno::INPROGRESS));
        with_address(fd)
    };
    // The queue is full, so the others' SYNs get no answer.
    let (_first, _) = connect();
    let waiting: Vec<_> = (0..20).map(|_| connect()).collect();
    let (open, open_at) = connect();
    let copy = rustix::io::dup(&open).expect("a descriptor");
    drop(open);
    let (inherited, inherited_at) = connect();
    let mut child = Command::new("sleep").arg("60").stdin(inherited).spawn().expect("another process");
    let ports: Vec<_> = waiting.iter().map(|(_, local)| *local).collect();
    drop(waiting);
    let begun = std::time::Instant::now();
    let await_free = |local| {
        while !is_free(&served, "TCP", local) {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "the port is still taken");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    ports.into_iter().for_each(await_free);
    assert!(!is_free(&served, "TCP", open_at), "a copy has it open");
    assert!(!is_free(&served, "TCP", inherited_at), "another process has it open");
    child.kill().expect("it can be ended");
    child.wait().expect("it ends");
    await_free(inherited_at);
    // Room for all: only sockets that are open are accepted.
    overlay(&listener).listen(100).expect("it listens");
    let mut accepted = 0;
    while accepted < 2 {
        let (_connection, from) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
        accepted += 1;
        assert!(accepted == 1 || from == open_at, "{from} was closed");
    }
    drop(copy);
}

/// A datagram that was sent just before the end leaves.
#[test]
fn datagrams_of_a_closed_socket_arrive() {
    let served = Served::new("ff0001ffff000000");
    let (receiver, address) = served.bound();
    for round in 0..20 {
        let fd = served.open(Kind::Datagram);
        for at in 0..5 {
            send_to(&fd, &[round, at], address).expect("it leaves");
        }
        drop(fd);
        for at in 0..5 {
            assert_eq!(crate::common::receive(&receiver).0, [round, at]);
        }
    }
}

/// There are some 28,000 automatically chosen ports.
#[test]
#[ignore = "cargo xtask test --only slow: 200,000 sockets of each kind"]
fn many_closed_sockets_leave_nothing() {
    const MANY_SOCKETS: usize = 200_000;
    let served = Served::new("ff0001ffff000000");
    let mut grew = Vec::new();
    let uses = USES.map(|(kind, make)| (kind, Box::new(move |served: &Served| drop(make(served))) as Box<_>));
    let others = USES_WITHOUT_PORT.map(|(kind, make)| (kind, Box::new(make) as Box<dyn Fn(&Served)>));
    for (kind, make) in uses.into_iter().chain(others) {
        (0..1000).for_each(|_| make(&served));
        wait_turn(&served);
        let before = resident();
        let begun = std::time::Instant::now();
        (0..MANY_SOCKETS).for_each(|_| make(&served));
        wait_turn(&served);
        let grown = resident().saturating_sub(before);
        eprintln!("{kind}: {grown} KiB more, {:?} for each", begun.elapsed() / MANY_SOCKETS as u32);
        if grown >= 4096 {
            grew.push(format!("{kind}: {grown} KiB more"));
        }
    }
    assert!(grew.is_empty(), "{}", grew.join("\n"));
}

/// More than the kernel event queue holds, closed while the node does not look.
#[test]
#[ignore = "cargo xtask test --only slow: it has 17,000 descriptors"]
fn sockets_closed_all_at_once_leave_nothing() {
    peersock_socket_server::FdServer::raise_descriptor_limit();
    let served = Served::new("ff0001ffff000000");
    let kept: u64 = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .map_or(16384, |text| text.trim().parse().expect("a number"));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit < kept + 2000 {
        eprintln!("SKIP sockets_closed_all_at_once_leave_nothing: {limit} descriptors are too few");
        return;
    }
    let used: Vec<Used> = (0..kept + 1000).map(|_| served.bound()).collect();
    let ports: Vec<SocketAddr> = used.iter().map(|(_, local)| *local).collect();
    // A process's descriptors close together, faster than the node handles the events.
    let sockets: Vec<OwnedFd> = used.into_iter().map(|(fd, _)| fd).collect();
    drop(sockets);
    assert!(ports.iter().all(|local| is_free_soon(&served, "UDP", *local)));
}

/// Returns the resident memory of the process, KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc(5)");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}
