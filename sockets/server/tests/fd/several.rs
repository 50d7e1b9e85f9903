//! Several servers of one node: programs that share its addresses and ports, each with its own networks.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock::{Joined, Network, Node};
use peersock_fd::{Errno, Family, Kind, SocketFlags};
use peersock_socket_server::{FdServer, Launcher, Outstanding, PendingReset};
use rustix::event::PollFlags;

use crate::common::{Served, errno, overlay, poll_for, receive, send_to, set_bytes};

const SECOND_NETWORK: &str = "ff0002ffff000000";

/// A protocol for experiments (RFC 3692).
const EXPERIMENTAL_PROTOCOL: u8 = 253;

fn accept(listener: &OwnedFd) -> File {
    overlay(listener).accept(SocketFlags::empty()).expect("a connection").0.into()
}

fn connected(program: &Served, to: SocketAddr) -> File {
    let fd = program.socket(SocketFlags::empty());
    overlay(&fd).connect(Some(to)).expect("somebody listens");
    fd.into()
}

/// Sends a text one way and back.
fn exchange(one: &File, other: &File, text: &[u8]) {
    for (mut from, mut to) in [(one, other), (other, one)] {
        from.write_all(text).expect("room");
        let mut read = vec![0; text.len()];
        to.read_exact(&mut read).expect("it arrives");
        assert_eq!(read, text);
    }
}

#[test]
fn programs_share_the_ports_of_their_node_and_end_one_by_one() {
    let (first, remote) = Served::pair();
    let second = first.beside();
    let (listener, address) = first.listen(SocketFlags::empty());
    let (_datagram, bound) = first.bound();
    let again = second.socket(SocketFlags::empty());
    assert_eq!(overlay(&again).bind(address), Err(Errno::ADDRINUSE));
    assert_eq!(overlay(&second.open(Kind::Datagram)).bind(bound), Err(Errno::ADDRINUSE));

    let (elsewhere, there) = remote.listen(SocketFlags::empty());
    let between = connected(&second, address);
    let between_end = accept(&listener);
    let from_remote = connected(&remote, address);
    let from_remote_end = accept(&listener);
    let to_remote = connected(&second, there);
    let to_remote_end = accept(&elsewhere);
    exchange(&between, &between_end, b"between programs");
    exchange(&from_remote, &from_remote_end, b"from elsewhere");

    // The first program is killed: its launcher's server goes, and the node stays.
    drop(first);
    for mut end in [&between, &from_remote] {
        let ended = end.read(&mut [0]).expect_err("the program was killed");
        assert_eq!(ended.raw_os_error(), Some(libc::ECONNRESET));
    }
    let own = (&between_end).write(b"x").expect_err("its node has gone for it");
    assert!(matches!(own.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET | libc::ENETDOWN)), "{own}");
    exchange(&to_remote, &to_remote_end, b"of the second program");
    overlay(&again).bind(address).expect("the port is free again");
    overlay(&again).listen(1).expect("it listens");
    connected(&remote, address);
}

#[test]
fn a_program_sees_its_networks_and_no_others() {
    let (base, remote) = Served::pair();
    let joined =
        |node: &Node| node.join(Network::ad_hoc(SECOND_NETWORK.parse().expect("an ID"))).expect("a network");
    let (home, far_home) = (joined(base.node()), joined(remote.node()));
    home.wait_peer(far_home.address().into(), Duration::from_secs(20)).expect("they find each other");
    let at_work = base.within(&[&base.network]);
    let at_home = base.within(&[&home]);
    let ip = |joined: &Joined| IpAddr::from(joined.address());

    // The same port of the wildcard address belongs to both, each in its network.
    let wildcard = |program: &Served, kind, port| {
        let fd = program.open(kind);
        overlay(&fd).bind((Ipv6Addr::UNSPECIFIED, port).into()).expect("a free port");
        fd
    };
    let listeners = [&at_work, &at_home].map(|program| wildcard(program, Kind::Stream, 7000));
    listeners.iter().for_each(|listener| overlay(listener).listen(4).expect("it listens"));
    let datagrams = [&at_work, &at_home].map(|program| wildcard(program, Kind::Datagram, 7000));
    let raw = [&at_work, &at_home].map(|program| program.open(Kind::Raw(EXPERIMENTAL_PROTOCOL)));
    for (at, network) in [&base.network, &home].into_iter().enumerate() {
        let to = SocketAddr::new(ip(network), 7000);
        let connection = connected(&remote, to);
        exchange(&connection, &accept(&listeners[at]), network.id().to_string().as_bytes());
        let text = [at as u8; 5];
        send_to(&remote.open(Kind::Datagram), &text, to).expect("it is sent");
        assert_eq!(receive(&datagrams[at]).0, text);
        send_to(&remote.open(Kind::Raw(EXPERIMENTAL_PROTOCOL)), &text, SocketAddr::new(to.ip(), 0))
            .expect("it is sent");
        assert_eq!(receive(&raw[at]).0, text);
    }
    let all = listeners.iter().chain(&datagrams).chain(&raw);
    assert!(all.into_iter().all(|fd| poll_for(fd, PollFlags::IN, 0).is_empty()), "nothing else has come");

    // The other network does not exist: no route, no address, no interface, no group.
    let hidden = [SocketAddr::new(ip(&far_home), 7000), SocketAddr::new(ip(&home), 7000)];
    for to in hidden {
        let refused = overlay(&at_work.socket(SocketFlags::empty())).connect(Some(to));
        assert_eq!(errno(refused), Errno::NETUNREACH, "{to}");
        for kind in [Kind::Datagram, Kind::Echo, Kind::Raw(EXPERIMENTAL_PROTOCOL)] {
            let request = [128, 0, 0, 0, 0, 0, 0, 1];
            assert_eq!(errno(send_to(&at_work.open(kind), &request, to)), Errno::NETUNREACH, "{kind:?} {to}");
        }
    }
    for kind in [Kind::Stream, Kind::Datagram, Kind::Echo] {
        let bound = overlay(&at_work.open(kind)).bind(SocketAddr::new(ip(&home), 0));
        assert_eq!(errno(bound), Errno::ADDRNOTAVAIL, "{kind:?}");
    }
    let shown = at_work.client.interfaces();
    assert_eq!(shown.len(), 1, "{shown:?}");
    let its = at_home.client.interfaces().remove(0);
    let name = format!("{}\0", its.name);
    let datagram = at_work.open(Kind::Datagram);
    let bound = set_bytes(&datagram, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_bytes());
    assert_eq!(errno(bound), Errno::NODEV);
    let group: Ipv6Addr = "ff02::1234".parse().expect("a group");
    let request = [&group.octets()[..], &its.index.to_ne_bytes()].concat();
    let joined = set_bytes(&datagram, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request);
    assert_eq!(errno(joined), Errno::NODEV);
    assert_eq!(at_work.client.has_secret(home.id().as_u64()), None);
    assert_eq!(at_home.client.has_secret(home.id().as_u64()), Some(false));

    // A program with both networks competes with each of them.
    let both = base.within(&[&base.network, &home]);
    let refused = overlay(&both.socket(SocketFlags::empty())).bind((Ipv6Addr::UNSPECIFIED, 7000).into());
    assert_eq!(errno(refused), Errno::ADDRINUSE);
    connected(&both, hidden[1]);
}

#[test]
fn a_network_that_is_joined_later_takes_no_port_and_one_that_is_left_ends_quiet_connections() {
    let (base, remote) = Served::pair();
    let neighbour = base.within(&[&base.network]);
    let later = base.within(&[]);
    // The same port of the wildcard address, while the programs have no network in common.
    let bound = |program: &Served, kind| {
        let fd = program.open(kind);
        overlay(&fd).bind((Ipv6Addr::UNSPECIFIED, 7000).into()).expect("a free port");
        fd
    };
    let kinds = [Kind::Stream, Kind::Datagram];
    let [mine, mine_of_datagrams] = kinds.map(|kind| bound(&neighbour, kind));
    let [its, its_of_datagrams] = kinds.map(|kind| bound(&later, kind));
    [&mine, &its].into_iter().for_each(|listener| overlay(listener).listen(16).expect("it listens"));
    later.server.set_networks(&[base.network.id()]);
    let to = SocketAddr::new(base.network.address().into(), 7000);
    for number in 0..8 {
        let connection = connected(&remote, to);
        exchange(&connection, &accept(&mine), b"to the neighbour");
        send_to(&remote.open(Kind::Datagram), &[number], to).expect("it is sent");
        assert_eq!(receive(&mine_of_datagrams).0, [number]);
    }
    for deaf in [&its, &its_of_datagrams] {
        assert!(poll_for(deaf, PollFlags::IN, 0).is_empty(), "it has taken the neighbour's");
    }
    // What is bound from now on has the network, and competes there.
    let new = later.open(Kind::Stream);
    assert_eq!(errno(overlay(&new).bind((Ipv6Addr::UNSPECIFIED, 7000).into())), Errno::ADDRINUSE);
    let (listener, address) = remote.listen(SocketFlags::empty());
    let mut quiet = connected(&later, address);
    let mut quiet_end = accept(&listener);
    exchange(&quiet, &quiet_end, b"before");

    // Neither end sends anything, and the neighbour keeps the network.
    later.server.set_networks(&[]);
    for end in [&mut quiet, &mut quiet_end] {
        let ended = end.read(&mut [0]).expect_err("the program has left the network");
        assert_eq!(ended.raw_os_error(), Some(libc::ECONNRESET));
    }
    let connection = connected(&remote, to);
    exchange(&connection, &accept(&mine), b"it goes on");
}

/// No peer answers the attempts, so nothing else ends them.
#[test]
fn an_attempt_in_a_network_that_is_left_fails_and_one_in_another_network_goes_on() {
    let base = Served::new("ff0001ffff000000");
    let home = base.node().join(Network::ad_hoc(SECOND_NETWORK.parse().expect("an ID"))).expect("a network");
    let program = base.within(&[&base.network, &home]);
    let attempt = |network: &Joined| {
        let mut octets = network.address().octets();
        octets[15] ^= 1;
        let fd = program.socket(SocketFlags::NONBLOCK);
        let silent = SocketAddr::new(IpAddr::from(octets), 80);
        assert_eq!(errno(overlay(&fd).connect(Some(silent))), Errno::INPROGRESS);
        fd
    };
    let (left, kept) = (attempt(&base.network), attempt(&home));
    program.server.set_networks(&[home.id()]);
    assert!(poll_for(&left, PollFlags::IN, 60).contains(PollFlags::ERR | PollFlags::HUP));
    assert_eq!(overlay(&left).take_error(), Ok(Some(Errno::CONNRESET)));
    assert_eq!(poll_for(&kept, PollFlags::IN | PollFlags::OUT, 0), PollFlags::empty());
    // What follows goes the same way.
    program.server.set_networks(&[]);
    assert!(poll_for(&kept, PollFlags::IN, 60).contains(PollFlags::ERR | PollFlags::HUP));
    assert_eq!(overlay(&kept).take_error(), Ok(Some(Errno::CONNRESET)));
}

#[test]
fn programs_come_and_go_while_another_one_transfers() {
    const STREAM_BYTES: usize = 16 << 20;
    let (one, other) = Served::pair();
    let (mut from, mut to) = one.connect(&other);
    let (node, is_over) = (one.node().clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let coming = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::SeqCst) {
                let server = FdServer::start(&node).expect("one more server");
                let client = peersock_fd::Client::new(server.tag(), server.token());
                let fd = peersock_fd::open(&client, Family::V6, Kind::Stream, SocketFlags::empty());
                overlay(&fd.expect("a socket")).bind((Ipv6Addr::UNSPECIFIED, 0).into()).expect("a free port");
                count += 1;
            }
            count
        });
        scope.spawn(move || {
            let piece: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
            (0..STREAM_BYTES / piece.len()).for_each(|_| from.write_all(&piece).expect("room"));
        });
        let mut read = Vec::new();
        to.read_to_end(&mut read).expect("all of it");
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(read.len(), STREAM_BYTES);
        assert!(read.iter().zip((0..=255).cycle()).all(|(byte, expected)| *byte == expected));
        assert!(coming.join().expect("no panic") > 0);
    });
}

#[test]
fn closed_connections_wait_for_their_program_alone() {
    let (base, remote) = Served::pair();
    let [sending, quiet] = [(); 2].map(|()| base.within(&[&base.network]));
    let (listener, address) = remote.listen(SocketFlags::empty());
    let mut connection = connected(&sending, address);
    let _unread = accept(&listener);
    rustix::io::ioctl_fionbio(&connection, true).expect("a socket");
    while connection.write(&[7; 1 << 16]).is_ok() {}
    drop(connection);
    for program in [&quiet, &sending] {
        program.server.begin_drain();
    }
    assert_eq!(quiet.server.undelivered(), Outstanding::default());
    let begun = Instant::now();
    while sending.server.undelivered().waiting == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", sending.server.undelivered());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(quiet.server.undelivered(), Outstanding::default());
}

/// A launcher in another process, which does not always answer.
struct Other {
    answers: bool,
    asked: Mutex<Vec<bool>>,
}

impl Launcher for Other {
    fn show(&self, reset: PendingReset) {
        let shown = reset.shown().expect("both ends are open");
        let is_shown = self.answers && FdServer::show_reset(&shown);
        self.asked.lock().expect("no panic").push(is_shown);
        if self.answers {
            reset.answered(is_shown);
        }
    }

    fn break_all(&self) -> bool {
        false
    }
}

#[test]
fn a_launcher_shows_resets_and_otherwise_the_node_tries() {
    let (base, remote) = Served::pair();
    for answers in [true, false] {
        let launcher = Arc::new(Other { answers, asked: Mutex::default() });
        let program = base.launched_by(launcher.clone());
        let (listener, address) = program.listen(SocketFlags::empty());
        let there = connected(&remote, address);
        // A direct system call, so that the library leaves no byte.
        let mut here = File::from(rustix::net::accept(&listener).expect("a connection"));
        (&there).write_all(b"before").expect("room");
        here.read_exact(&mut [0; 6]).expect("it arrives");
        let there = OwnedFd::from(there);
        let reset_on_close = [1_i32, 0].map(i32::to_ne_bytes).concat();
        set_bytes(&there, libc::SOL_SOCKET, libc::SO_LINGER, &reset_on_close).expect("an option");
        drop(there);
        let ended = here.read(&mut [0]).expect_err("a reset");
        assert_eq!(ended.raw_os_error(), Some(libc::ECONNRESET), "{answers}");
        let asked = launcher.asked.lock().expect("no panic");
        assert!(asked.iter().all(|shown| *shown == answers) && !asked.is_empty(), "{asked:?}");
    }
}
