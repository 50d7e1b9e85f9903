//! Socket options: values that were set can be read, and invalid ones are refused.

use std::os::fd::OwnedFd;
use std::time::Duration;

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
use peersock_fd::{Errno, Family, Kind, SocketFlags, interface_index, option_table};

use crate::common::{Served, errno, get, get_bytes, overlay, receive, send_to, set, set_bytes};

/// An option, values that it accepts, and values that it refuses.
type Case = (i32, i32, &'static [i32], &'static [i32]);

const SOCKET: &[Case] = &[
    (SOL_SOCKET, libc::SO_REUSEADDR, &[1, 0], &[]),
    (SOL_SOCKET, libc::SO_REUSEPORT, &[1, 0], &[]),
    (SOL_SOCKET, libc::SO_BROADCAST, &[1, 0], &[]),
    (SOL_SOCKET, libc::SO_KEEPALIVE, &[1, 0], &[]),
    (SOL_SOCKET, libc::SO_OOBINLINE, &[1, 0], &[]),
    (SOL_SOCKET, libc::SO_PRIORITY, &[6, 0], &[]),
    (IPPROTO_IP, libc::IP_FREEBIND, &[1, 0], &[]),
    (IPPROTO_IP, libc::IP_TTL, &[1, 255, 64], &[0, 256, -2]),
    (IPPROTO_IP, libc::IP_TOS, &[0x10, 0], &[]),
    (IPPROTO_IP, libc::IP_MTU_DISCOVER, &[0, 1, 2, 3, 4, 5], &[6, -1]),
    (IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &[1, 255, 64], &[0, 256, -2]),
    (IPPROTO_IPV6, libc::IPV6_TCLASS, &[0x20, 0], &[256, -2]),
    (IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &[0, 1, 2, 3, 4, 5], &[6]),
    (IPPROTO_IPV6, libc::IPV6_V6ONLY, &[1, 0], &[]),
    (IPPROTO_IP, libc::IP_RECVERR, &[1, 0], &[]),
    (IPPROTO_IPV6, libc::IPV6_RECVERR, &[1, 0], &[]),
];

const STREAM: &[Case] = &[
    (IPPROTO_TCP, libc::TCP_NODELAY, &[1, 0], &[]),
    (IPPROTO_TCP, libc::TCP_CORK, &[1, 0], &[]),
    (IPPROTO_TCP, libc::TCP_QUICKACK, &[0, 1], &[]),
    (IPPROTO_TCP, libc::TCP_KEEPIDLE, &[1, 32767], &[0, 32768]),
    (IPPROTO_TCP, libc::TCP_KEEPINTVL, &[1, 32767], &[0, 32768]),
    (IPPROTO_TCP, libc::TCP_KEEPCNT, &[1, 127], &[0, 128]),
    (IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &[5, 0], &[]),
    (IPPROTO_TCP, libc::TCP_SYNCNT, &[3, 6], &[]),
    (IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &[1, 0], &[]),
    (IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &[1000, 0], &[-1]),
    (IPPROTO_TCP, libc::TCP_MAXSEG, &[88, 1000], &[87, 40_000]),
];

const DATAGRAM: &[Case] = &[
    (IPPROTO_IP, libc::IP_MULTICAST_TTL, &[0, 255, 1], &[256, -2]),
    (IPPROTO_IP, libc::IP_MULTICAST_LOOP, &[0, 1], &[]),
    (IPPROTO_IP, libc::IP_PKTINFO, &[1, 0], &[]),
    (IPPROTO_IP, libc::IP_RECVTTL, &[1, 0], &[]),
    (IPPROTO_IP, libc::IP_RECVTOS, &[1, 0], &[]),
    (IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &[0, 255, 1], &[256, -2]),
    (IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, &[0, 1], &[2]),
    (IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &[interface_index(1) as i32, 0], &[]),
    (IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &[1, 0], &[]),
    (IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &[1, 0], &[]),
    (IPPROTO_IPV6, libc::IPV6_RECVTCLASS, &[1, 0], &[]),
    (IPPROTO_IPV6, libc::IPV6_DONTFRAG, &[1, 0], &[]),
];

fn check(fd: &OwnedFd, cases: &[Case]) {
    for &(level, option, good, bad) in cases {
        for &value in good {
            set(fd, level, option, value).unwrap_or_else(|error| panic!("{level} {option} {value}: {error}"));
            assert_eq!(get(fd, level, option), Ok(value), "{level} {option}");
        }
        for &value in bad {
            assert_eq!(errno(set(fd, level, option, value)), Errno::INVAL, "{level} {option} {value}");
            assert_eq!(get(fd, level, option), Ok(*good.last().expect("one")), "{level} {option}");
        }
        assert_eq!(errno(set_bytes(fd, level, option, &[])), Errno::INVAL, "{level} {option}");
    }
}

#[test]
fn what_is_set_is_what_is_asked_for() {
    let a = Served::new("ff0001ffff000000");
    let stream = a.socket(SocketFlags::empty());
    let datagram = a.open(Kind::Datagram);
    check(&stream, SOCKET);
    check(&stream, STREAM);
    for fd in [&datagram, &a.open(Kind::Echo), &a.open(Kind::Raw(253))] {
        // A raw socket is bound from the start, too late for this option.
        let only = (IPPROTO_IPV6, libc::IPV6_V6ONLY);
        let cases: Vec<Case> = SOCKET.iter().filter(|case| (case.0, case.1) != only).copied().collect();
        check(fd, &cases);
        check(fd, DATAGRAM);
        for &(level, option, ..) in STREAM {
            assert_eq!(errno(set(fd, level, option, 1)), Errno::NOPROTOOPT, "{level} {option}");
        }
    }
    // Streams keep most of them.
    for &(level, option, ..) in DATAGRAM {
        let has = option_table::find(Kind::Stream, Family::V6, level, option).is_some();
        let wanted = if has { Ok(()) } else { Err(Errno::NOPROTOOPT) };
        assert_eq!(get(&stream, level, option).map(drop), wanted, "{level} {option}");
    }
}

#[test]
fn what_nobody_knows_is_refused() {
    let a = Served::new("ff0001ffff000000");
    let stream = a.socket(SocketFlags::empty());
    for (level, option) in
        [(SOL_SOCKET, 9999), (IPPROTO_TCP, libc::TCP_ULP), (IPPROTO_IP, libc::IP_OPTIONS), (132, 1)]
    {
        assert_eq!(errno(set(&stream, level, option, 1)), Errno::NOPROTOOPT, "{level} {option}");
        assert_eq!(errno(get(&stream, level, option)), Errno::NOPROTOOPT, "{level} {option}");
    }
    let four = a.open_in(Family::V4, Kind::Datagram);
    assert_eq!(errno(get(&four, IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)), Errno::NOPROTOOPT);
    assert_eq!(errno(set(&stream, IPPROTO_TCP, libc::TCP_INFO, 1)), Errno::NOPROTOOPT);
}

#[test]
fn values_of_other_forms_are_read_and_written() {
    let a = Served::new("ff0001ffff000000");
    let stream = a.socket(SocketFlags::empty());
    let linger = [1i32.to_ne_bytes(), 5i32.to_ne_bytes()].concat();
    set_bytes(&stream, SOL_SOCKET, libc::SO_LINGER, &linger).expect("a linger");
    assert_eq!(get_bytes(&stream, SOL_SOCKET, libc::SO_LINGER), Ok(linger));
    set_bytes(&stream, IPPROTO_TCP, libc::TCP_CONGESTION, b"cubic").expect("a name");
    let name = get_bytes(&stream, IPPROTO_TCP, libc::TCP_CONGESTION).expect("a name");
    assert_eq!((&name[..5], name.len()), (&b"cubic"[..], 16));
    assert_eq!(errno(set_bytes(&stream, IPPROTO_TCP, libc::TCP_CONGESTION, b"vegas")), Errno::NOENT);
    set(&stream, SOL_SOCKET, libc::SO_RCVBUF, 100_000).expect("a size");
    assert_eq!(get(&stream, SOL_SOCKET, libc::SO_RCVBUF), Ok(200_000));
    let datagram = a.open(Kind::Datagram);
    assert_eq!(errno(set_bytes(&datagram, SOL_SOCKET, libc::SO_BINDTODEVICE, b"eth0\0")), Errno::NODEV);
    set_bytes(&datagram, SOL_SOCKET, libc::SO_BINDTODEVICE, b"ps1\0").expect("the first network");
    assert_eq!(get_bytes(&datagram, SOL_SOCKET, libc::SO_BINDTODEVICE), Ok(b"ps1\0".to_vec()));
    // A single byte is enough where ip(7) says so.
    set_bytes(&datagram, IPPROTO_IP, libc::IP_MULTICAST_TTL, &[9]).expect("a byte");
    assert_eq!(get(&datagram, IPPROTO_IP, libc::IP_MULTICAST_TTL), Ok(9));
}

#[test]
fn a_connection_tells_of_itself() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    let fd = a.socket(SocketFlags::empty());
    assert_eq!(get_bytes(&fd, IPPROTO_TCP, libc::TCP_INFO).expect("of nothing")[0], 7);
    set(&fd, IPPROTO_IPV6, libc::IPV6_TCLASS, 0x20).expect("an option");
    overlay(&fd).connect(Some(address)).expect("somebody listens");
    let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    rustix::io::write(&fd, &[1; 1000]).expect("room");
    assert_eq!(rustix::io::read(&accepted, &mut [0; 1000]), Ok(1000));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let info = get_bytes(&fd, IPPROTO_TCP, libc::TCP_INFO).expect("a structure");
        let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
        // Established; tcpi_snd_mss, tcpi_unacked, tcpi_pmtu, tcpi_rtt, tcpi_snd_cwnd.
        assert_eq!(info[0], 1);
        if word(24) == 0 {
            assert!(word(16) > 1000 && word(60) > 1200 && word(68) > 0 && word(80) > 1, "{info:?}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "it stays unacknowledged");
    }
    let mtu = get(&fd, IPPROTO_IPV6, libc::IPV6_MTU).expect("a path");
    assert!((1280..=65_535).contains(&mtu), "{mtu}");
    assert!(get(&accepted, IPPROTO_TCP, libc::TCP_MAXSEG).expect("a size") > 1000);
    // An accepted connection has the listener's options as well.
    set(&accepted, IPPROTO_TCP, libc::TCP_NODELAY, 1).expect("an option");
    assert_eq!(get(&accepted, IPPROTO_TCP, libc::TCP_NODELAY), Ok(1));
}

#[test]
fn a_path_s_mtu_is_a_connected_socket_s() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    assert_eq!(errno(get(&client, IPPROTO_IPV6, libc::IPV6_MTU)), Errno::NOTCONN);
    overlay(&client).connect(Some(address)).expect("it is known where");
    let mtu = || get(&client, IPPROTO_IPV6, libc::IPV6_MTU).expect("a path");
    // The node may be probing the path's size at this moment.
    let (mtu, info) = loop {
        let before = mtu();
        let info = get_bytes(&client, IPPROTO_IPV6, 61).expect("an ip6_mtuinfo");
        if mtu() == before {
            break (before, info);
        }
    };
    assert!((1000..=65_535).contains(&mtu), "{mtu}");
    assert_eq!((info.len(), &info[2..4]), (32, &address.port().to_be_bytes()[..]));
    // It may have grown meanwhile.
    let told = i32::from_ne_bytes(info[28..].try_into().expect("four bytes"));
    assert!((mtu..=65_535).contains(&told), "{told}");
    // A datagram that does not fit and must not be fragmented is refused, and reported on request.
    set(&client, IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1).expect("an option");
    set(&client, IPPROTO_IPV6, libc::IPV6_RECVERR, 1).expect("an option");
    assert_eq!(errno(send_to(&client, &[0; 65_527], address)), Errno::MSGSIZE);
    send_to(&client, b"small", address).expect("it is sent");
    assert_eq!(receive(&server).0, b"small");
    let report = overlay(&client).recv_error().expect("a report");
    assert_eq!((report.errno, report.origin), (libc::EMSGSIZE, 1));
    assert!(report.info as i32 >= 1000, "{report:?}");
}

#[test]
fn a_socket_bound_to_a_network_sends_nowhere_else() {
    let (a, b) = Served::pair();
    let (_server, address) = b.bound();
    let other = "ff0001fffe000000".parse().expect("an ID");
    a.node().join(peersock::Network::ad_hoc(other)).expect("a second network");
    let datagram = a.open(Kind::Datagram);
    set_bytes(&datagram, SOL_SOCKET, libc::SO_BINDTODEVICE, b"ps2").expect("the second network");
    assert_eq!(errno(send_to(&datagram, b"x", address)), Errno::NETUNREACH);
    assert_eq!(errno(set_bytes(&datagram, SOL_SOCKET, libc::SO_BINDTODEVICE, b"ps1")), Errno::INVAL);
    let stream = a.socket(SocketFlags::empty());
    set_bytes(&stream, SOL_SOCKET, libc::SO_BINDTODEVICE, b"ps2").expect("the second network");
    assert_eq!(errno(overlay(&stream).connect(Some(address))), Errno::NETUNREACH);
}

#[test]
fn a_deferred_connection_is_accepted_with_its_first_data() {
    let (a, b) = Served::pair();
    let listener = b.socket(SocketFlags::NONBLOCK);
    overlay(&listener).bind(std::net::SocketAddr::new(b.ip(), 0)).expect("a free port");
    overlay(&listener).listen(5).expect("it listens");
    set(&listener, IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60).expect("an option");
    let fd = a.socket(SocketFlags::empty());
    overlay(&fd).connect(Some(overlay(&listener).local_addr().expect("bound"))).expect("somebody listens");
    let flags = crate::common::poll_for(&listener, rustix::event::PollFlags::IN, 1);
    assert_eq!(flags, rustix::event::PollFlags::empty());
    rustix::io::write(&fd, b"x").expect("room");
    assert_eq!(crate::common::poll(&listener, rustix::event::PollFlags::IN), rustix::event::PollFlags::IN);
}

#[test]
fn listeners_that_reuse_a_port_share_its_connections() {
    let (a, b) = Served::pair();
    let listener = |port| {
        let fd = b.socket(SocketFlags::NONBLOCK);
        set(&fd, SOL_SOCKET, libc::SO_REUSEPORT, 1).expect("an option");
        overlay(&fd).bind(std::net::SocketAddr::new(b.ip(), port)).expect("a shared port");
        overlay(&fd).listen(100).expect("it listens");
        fd
    };
    let listeners = [listener(5000), listener(5000)];
    let address = std::net::SocketAddr::new(b.ip(), 5000);
    let connected: Vec<_> = (0..40)
        .map(|_| {
            let fd = a.socket(SocketFlags::empty());
            overlay(&fd).connect(Some(address)).expect("somebody listens");
            fd
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let count = |listener: &OwnedFd| {
        std::iter::from_fn(|| overlay(listener).accept(SocketFlags::empty()).ok()).count()
    };
    let counts = listeners.each_ref().map(count);
    assert!(counts.iter().all(|count| (5..=35).contains(count)), "{counts:?}");
    assert_eq!(counts[0] + counts[1], connected.len());
}
