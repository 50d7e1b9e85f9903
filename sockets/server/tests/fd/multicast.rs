//! Multicast groups within a network.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use libc::{IPPROTO_IP, IPPROTO_IPV6};
use peersock_fd::{Errno, Family, Kind, RecvFlags, interface_index};
use rustix::event::PollFlags;

use crate::common::{Served, errno, overlay, poll_for, receive, send_to, set, set_bytes, try_receive};

fn membership(group: &str) -> Vec<u8> {
    let group: Ipv6Addr = group.parse().expect("a group");
    [&group.octets()[..], &[0; 4]].concat()
}

/// Returns a socket that has joined a group.
fn member(node: &Served, group: &str, port: u16) -> OwnedFd {
    let fd = node.open(Kind::Datagram);
    set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).expect("an option");
    overlay(&fd).bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).expect("a shared port");
    set_bytes(&fd, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &membership(group)).expect("a group");
    fd
}

#[test]
fn members_on_all_nodes_get_what_is_sent_to_their_group() {
    let (a, b) = Served::pair();
    for (group, port) in [("ff02::1234", 5001), ("ff05::1234", 5002), ("ff08::1234", 5003)] {
        let (here, there) = (member(&a, group, port), member(&b, group, port));
        let other = member(&b, "ff02::9", port);
        let sender = a.open(Kind::Datagram);
        let to = SocketAddr::new(group.parse().expect("a group"), port);
        send_to(&sender, group.as_bytes(), to).expect("it is sent");
        for fd in [&here, &there] {
            let (data, received) = receive(fd);
            assert_eq!(
                (&data[..], received.remote.map(|remote| remote.ip())),
                (group.as_bytes(), Some(a.ip()))
            );
        }
        assert_eq!(poll_for(&other, PollFlags::IN, 1), PollFlags::empty());
    }
}

#[test]
fn hop_limit_and_loop_decide_how_far_it_goes() {
    let (a, b) = Served::pair();
    let (here, there) = (member(&a, "ff05::1", 5001), member(&b, "ff05::1", 5001));
    let to: SocketAddr = "[ff05::1]:5001".parse().expect("a group");
    let sender = a.open(Kind::Datagram);
    set(&sender, IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, 0).expect("an option");
    send_to(&sender, b"on the node", to).expect("it is sent");
    assert_eq!(receive(&here).0, b"on the node");
    assert_eq!(poll_for(&there, PollFlags::IN, 1), PollFlags::empty());
    set(&sender, IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, 1).expect("an option");
    set(&sender, IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 0).expect("an option");
    send_to(&sender, b"to others", to).expect("it is sent");
    assert_eq!(receive(&there).0, b"to others");
    assert_eq!(poll_for(&here, PollFlags::IN, 1), PollFlags::empty());
}

#[test]
fn who_has_left_gets_nothing_more() {
    let (a, b) = Served::pair();
    let there = member(&b, "ff05::1", 5001);
    let change = |option| set_bytes(&there, IPPROTO_IPV6, option, &membership("ff05::1"));
    assert_eq!(errno(change(libc::IPV6_ADD_MEMBERSHIP)), Errno::ADDRINUSE);
    change(libc::IPV6_DROP_MEMBERSHIP).expect("it is a member");
    assert_eq!(errno(change(libc::IPV6_DROP_MEMBERSHIP)), Errno::ADDRNOTAVAIL);
    send_to(&a.open(Kind::Datagram), b"x", "[ff05::1]:5001".parse().expect("a group")).expect("it is sent");
    assert_eq!(poll_for(&there, PollFlags::IN, 1), PollFlags::empty());
    assert_eq!(
        errno(set_bytes(&there, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &membership("fd00::1"))),
        Errno::INVAL
    );
}

#[test]
fn ipv4_groups_are_joined_by_address_by_index_and_before_binding() {
    let (a, b) = Served::pair_with_ipv4();
    let IpAddr::V4(own) = b.v4() else { panic!("IPv4") };
    // One group per socket, because a sender learns late of a member that leaves and joins again.
    let groups = [1, 2, 3].map(|last| [239, 1, 2, last]);
    let by_address = [groups[0], own.octets()].concat();
    let by_index = [&groups[1][..], &[0; 4], &interface_index(1).to_ne_bytes()].concat();
    let mut request = vec![0; 136];
    request[..4].copy_from_slice(&interface_index(1).to_ne_bytes());
    request[8..10].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    request[12..16].copy_from_slice(&groups[2]);
    for (group, port, option, value) in [
        (groups[0], 5001, libc::IP_ADD_MEMBERSHIP, by_address),
        (groups[1], 5002, libc::IP_ADD_MEMBERSHIP, by_index),
        (groups[2], 5003, 42, request),
    ] {
        let fd = b.open_in(Family::V4, Kind::Datagram);
        set_bytes(&fd, IPPROTO_IP, option, &value).expect("a group");
        overlay(&fd).bind(SocketAddr::new(IpAddr::from([0; 4]), port)).expect("a free port");
        let sender = a.open_in(Family::V4, Kind::Datagram);
        send_to(&sender, b"four", SocketAddr::new(IpAddr::from(group), port)).expect("it is sent");
        let (data, received) = receive(&fd);
        assert_eq!((&data[..], received.remote.map(|remote| remote.ip())), (&b"four"[..], Some(a.v4())));
    }
}

#[test]
fn large_datagrams_reach_groups_in_fragments() {
    let (a, b) = Served::pair();
    let there = member(&b, "ff08::5", 5001);
    let data: Vec<u8> = (0..40_000u32).map(|at| at as u8).collect();
    send_to(&a.open(Kind::Datagram), &data, "[ff08::5]:5001".parse().expect("a group")).expect("it is sent");
    assert!(receive(&there).0 == data);
}

#[test]
fn every_node_answers_a_ping_to_all_of_them() {
    let (a, b) = Served::pair();
    let fd = a.open(Kind::Echo);
    let to: SocketAddr = "[ff02::1]:0".parse().expect("a group");
    send_to(&fd, &[128, 0, 0, 0, 0, 0, 0, 1], to).expect("it is sent");
    let mut from =
        [receive(&fd).1.remote, receive(&fd).1.remote].map(|remote| remote.expect("its sender").ip());
    from.sort();
    let mut expected = [a.ip(), b.ip()];
    expected.sort();
    assert_eq!(from, expected);
}

/// Returns the number of datagrams not sent to peers that have left the group.
fn left(node: &Served) -> u64 {
    node.node().status().counters["out_group_peers_left"]
}

#[test]
fn who_is_no_member_says_so_and_is_left_out_until_it_joins() {
    let (a, b) = Served::pair();
    let to: SocketAddr = "[ff05::77]:5001".parse().expect("a group");
    let sender = a.open(Kind::Datagram);
    let deadline = Instant::now() + Duration::from_secs(20);
    while left(&a) == 0 {
        assert!(Instant::now() < deadline, "the peer has not told that it is no member");
        send_to(&sender, b"nobody", to).expect("it is sent");
        std::thread::sleep(Duration::from_millis(1));
    }
    let there = member(&b, "ff05::77", 5001);
    // Announcing a join takes time. Datagrams still in flight from before do not count.
    while !try_receive(&there, RecvFlags::DONTWAIT).is_ok_and(|(bytes, _)| bytes == b"a member") {
        assert!(Instant::now() < deadline, "the peer has not told that it has joined");
        send_to(&sender, b"a member", to).expect("it is sent");
        std::thread::sleep(Duration::from_millis(1));
    }
    let so_far = left(&a);
    for _ in 0..3 {
        send_to(&sender, b"a member", to).expect("it is sent");
    }
    assert_eq!(receive(&there).0, b"a member");
    assert_eq!(left(&a), so_far);
}

#[test]
fn who_leaves_is_left_out() {
    let (a, b) = Served::pair();
    let to: SocketAddr = "[ff05::78]:5001".parse().expect("a group");
    let (there, sender) = (member(&b, "ff05::78", 5001), a.open(Kind::Datagram));
    send_to(&sender, b"a member", to).expect("it is sent");
    assert_eq!(receive(&there).0, b"a member");
    set_bytes(&there, IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP, &membership("ff05::78")).expect("a member");
    let deadline = Instant::now() + Duration::from_secs(20);
    while left(&a) == 0 {
        assert!(Instant::now() < deadline, "the peer has not told that it has left");
        send_to(&sender, b"nobody", to).expect("it is sent");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns a `group_source_req` of the first network.
fn source_request(group: IpAddr, source: IpAddr) -> Vec<u8> {
    let storage = |ip: IpAddr| {
        let mut storage = vec![0; 128];
        let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        storage[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        match ip {
            IpAddr::V4(ip) => storage[4..8].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => storage[8..24].copy_from_slice(&ip.octets()),
        }
        storage
    };
    [&interface_index(1).to_ne_bytes()[..], &[0; 4], &storage(group), &storage(source)].concat()
}

const JOIN_SOURCE: i32 = 46;
const LEAVE_SOURCE: i32 = 47;
const BLOCK_SOURCE: i32 = 43;
const UNBLOCK_SOURCE: i32 = 44;

#[test]
fn a_member_hears_only_the_senders_that_it_wants_to() {
    let (a, b) = Served::pair();
    let group: IpAddr = "ff05::77".parse().expect("a group");
    let to = SocketAddr::new(group, 5001);
    let nobody: IpAddr = "fd00::99".parse().expect("an address");
    let sender = a.open(Kind::Datagram);
    let fd = b.open(Kind::Datagram);
    let change = |option, source| set_bytes(&fd, IPPROTO_IPV6, option, &source_request(group, source));
    // Before and after it is bound.
    assert_eq!(errno(change(BLOCK_SOURCE, a.ip())), Errno::INVAL);
    change(JOIN_SOURCE, nobody).expect("a sender");
    assert_eq!(errno(change(JOIN_SOURCE, nobody)), Errno::ADDRNOTAVAIL);
    overlay(&fd).bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 5001)).expect("a free port");
    send_to(&sender, b"one", to).expect("it is sent");
    assert_eq!(poll_for(&fd, PollFlags::IN, 1), PollFlags::empty());
    change(JOIN_SOURCE, a.ip()).expect("another sender");
    assert_eq!(errno(change(BLOCK_SOURCE, a.ip())), Errno::INVAL);
    send_to(&sender, b"two", to).expect("it is sent");
    assert_eq!(receive(&fd).0, b"two");
    for source in [a.ip(), nobody] {
        change(LEAVE_SOURCE, source).expect("a sender");
    }
    // It has left the group with its last source, and joins it for all.
    set_bytes(&fd, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &membership("ff05::77")).expect("a group");
    change(BLOCK_SOURCE, a.ip()).expect("a sender");
    send_to(&sender, b"three", to).expect("it is sent");
    assert_eq!(poll_for(&fd, PollFlags::IN, 1), PollFlags::empty());
    change(UNBLOCK_SOURCE, a.ip()).expect("a sender");
    send_to(&sender, b"four", to).expect("it is sent");
    assert_eq!(receive(&fd).0, b"four");
    for host in 1..=64 {
        let source = format!("fd00::{host}").parse().expect("an address");
        change(BLOCK_SOURCE, source).expect("a sender");
    }
    assert_eq!(errno(change(BLOCK_SOURCE, "fd00::65".parse().expect("an address"))), Errno::NOBUFS);
    assert_eq!(errno(change(BLOCK_SOURCE, [10, 0, 0, 1].into())), Errno::ADDRNOTAVAIL);
}

#[test]
fn ipv4_names_senders_in_a_form_of_its_own() {
    let (a, b) = Served::pair_with_ipv4();
    let (IpAddr::V4(own), IpAddr::V4(source)) = (b.v4(), a.v4()) else { panic!("IPv4") };
    let group = [239, 1, 2, 3];
    let fd = b.open_in(Family::V4, Kind::Datagram);
    overlay(&fd).bind(SocketAddr::new(IpAddr::from([0; 4]), 5001)).expect("a free port");
    let change =
        |option, source: [u8; 4]| set_bytes(&fd, IPPROTO_IP, option, &[group, own.octets(), source].concat());
    change(libc::IP_ADD_SOURCE_MEMBERSHIP, source.octets()).expect("a sender");
    let sender = a.open_in(Family::V4, Kind::Datagram);
    send_to(&sender, b"four", SocketAddr::new(IpAddr::from(group), 5001)).expect("it is sent");
    assert_eq!(receive(&fd).0, b"four");
    for host in 1..10 {
        change(libc::IP_ADD_SOURCE_MEMBERSHIP, [10, 7, 1, host]).expect("a sender");
    }
    assert_eq!(errno(change(libc::IP_ADD_SOURCE_MEMBERSHIP, [10, 7, 1, 99])), Errno::NOBUFS);
    assert_eq!(errno(change(libc::IP_BLOCK_SOURCE, source.octets())), Errno::INVAL);
    change(libc::IP_DROP_SOURCE_MEMBERSHIP, source.octets()).expect("a sender");
    send_to(&sender, b"more", SocketAddr::new(IpAddr::from(group), 5001)).expect("it is sent");
    assert_eq!(poll_for(&fd, PollFlags::IN, 1), PollFlags::empty());
}
