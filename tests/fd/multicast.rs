//! Groups within a network.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use libc::{IPPROTO_IP, IPPROTO_IPV6};
use peersock_fd::{Errno, Family, Kind, RecvFlags};
use rustix::event::PollFlags;

use crate::common::{Served, errno, overlay, poll_for, receive, send_to, set, set_bytes, try_receive};

fn membership(group: &str) -> Vec<u8> {
    let group: Ipv6Addr = group.parse().expect("a group");
    [&group.octets()[..], &[0; 4]].concat()
}

/// A socket that has joined a group.
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
    // One each: of who has left and joins again the sender hears only later.
    let groups = [1, 2, 3].map(|last| [239, 1, 2, last]);
    let by_address = [groups[0], own.octets()].concat();
    let by_index = [&groups[1][..], &[0; 4], &1i32.to_ne_bytes()].concat();
    let mut request = vec![0; 136];
    request[..4].copy_from_slice(&1i32.to_ne_bytes());
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

/// What a node has not sent to peers because they have left the group.
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
    // Joining is told to the others, which takes its time.
    while try_receive(&there, RecvFlags::DONTWAIT).is_err() {
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
