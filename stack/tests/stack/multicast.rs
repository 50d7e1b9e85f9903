//! Tests of multicast groups.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::craft::*;
use crate::pair::*;
use peersock_stack::*;

const GROUP: &str = "ff05::1234";

fn group() -> IpAddr {
    GROUP.parse().unwrap()
}

fn bind(pair: &Pair, side: usize, local: &str) -> Arc<UdpSocket> {
    let options = UdpOptions { reuse_address: true, ..UdpOptions::default() };
    pair.hosts[side].stack.udp_bind(None, local.parse().unwrap(), options).unwrap()
}

/// Has B receive a datagram from A to `to`.
fn inject(pair: &mut Pair, to: SocketAddr) {
    let source = address(A, to.is_ipv6(), 0).ip();
    let datagram = udp(9, to.port(), b"x");
    let packet = match (source, to.ip()) {
        (_, IpAddr::V6(_)) => v6_to(source, to.ip(), UDP, &datagram),
        (_, IpAddr::V4(group)) => {
            let mut packet = v4(B, &[], 0, 0, UDP, &datagram);
            packet[16..20].copy_from_slice(&group.octets());
            packet
        }
    };
    pair.inject(B, &packet);
}

fn receives(socket: &UdpSocket) -> bool {
    socket.recv_from(&mut [0; 10]).is_ok()
}

#[test]
fn every_member_gets_a_copy_and_nobody_else() {
    for (group, any) in [(GROUP, "[::]:53"), ("239.1.2.3", "0.0.0.0:53")] {
        let mut pair = Pair::new(1);
        let group: IpAddr = group.parse().unwrap();
        let to = SocketAddr::new(group, 53);
        let all: Vec<_> = (0..4).map(|_| bind(&pair, B, any)).collect();
        let [one, two, other, connected] = &all[..] else { panic!() };
        let bound = bind(&pair, B, &to.to_string());
        inject(&mut pair, to);
        assert_eq!(pair.counter(B, "ip_not_local"), 1, "nobody has joined yet");
        for socket in [one, two, connected, &bound] {
            socket.join(None, group).unwrap();
        }
        connected.connect(address(A, group.is_ipv6(), 1)).unwrap();
        inject(&mut pair, to);
        assert!(receives(one) && receives(two) && receives(&bound));
        assert!(!receives(other) && !receives(connected));
        two.leave(None, group).unwrap();
        bound.close();
        inject(&mut pair, to);
        assert!(receives(one) && !receives(two));
        inject(&mut pair, SocketAddr::new(group, 54));
        assert_eq!((pair.counter(B, "udp_no_socket"), pair.counter(B, "icmp_errors_sent")), (1, 0));
    }
}

#[test]
fn every_node_is_a_member_of_the_groups_of_all_nodes() {
    let mut pair = Pair::new(1);
    let [v6, v4] = ["[::]:53", "0.0.0.0:53"].map(|any| bind(&pair, B, any));
    inject(&mut pair, "[ff02::1]:53".parse().unwrap());
    inject(&mut pair, "224.0.0.1:53".parse().unwrap());
    assert!(receives(&v6) && receives(&v4));
    // RFC 4443 4.2: an echo request to a group is answered from a unicast address of the node.
    pair.capture = Some(Vec::new());
    let request = [128, 0, 0, 0, 0, 1, 0, 1];
    pair.inject(B, &v6_to(address(A, true, 0).ip(), "ff02::1".parse().unwrap(), 58, &request));
    let reply = pair.capture.take().unwrap().remove(0).1;
    let IpAddr::V6(own) = address(B, true, 0).ip() else { panic!() };
    assert_eq!((reply[40], &reply[8..24]), (129, &own.octets()[..]));
}

#[test]
fn problems_with_packets_to_groups_are_reported_where_the_standard_says() {
    let mut pair = Pair::new(1);
    let source = address(A, true, 0).ip();
    for (kind, expected) in [(0x9e, 1), (0xde, 0)] {
        pair.capture = Some(Vec::new());
        let options = [[UDP, 0, kind, 4].as_slice(), &[0; 4], &udp(1, 2, b"")].concat();
        pair.inject(B, &v6_to(source, "ff02::1".parse().unwrap(), DESTINATION_OPTIONS, &options));
        assert_eq!(pair.capture.take().unwrap().len(), expected);
    }
}

#[test]
fn no_connection_is_opened_to_a_group() {
    let mut pair = Pair::new(1);
    let _listener = pair.listen(B, 80);
    pair.capture = Some(Vec::new());
    let _flow = pair.connect(A, 80);
    let syn = pair.capture.take().unwrap().remove(0).1;
    let to_group = v6_to(address(A, true, 0).ip(), "ff02::1".parse().unwrap(), 6, &syn[40..]);
    pair.capture = Some(Vec::new());
    pair.inject(B, &to_group);
    assert_eq!((pair.capture.take().unwrap().len(), pair.hosts[B].stack.flows()), (0, 0));
}

#[test]
fn joining_says_what_is_wrong() {
    let pair = Pair::new(1);
    let Host { stack, net, .. } = &pair.hosts[B];
    let socket = bind(&pair, B, "[::]:53");
    assert_eq!(socket.join(None, address(B, true, 0).ip()), Err(Error::InvalidInput));
    assert_eq!(socket.join(None, "239.1.2.3".parse().unwrap()), Err(Error::AddressFamily));
    assert_eq!(socket.join(Some(InterfaceId(99)), group()), Err(Error::NetworkUnreachable));
    assert_eq!(socket.leave(None, group()), Err(Error::AddrNotAvailable));
    assert_eq!(socket.join(Some(*net), group()), Ok(()));
    assert_eq!(socket.join(None, group()), Err(Error::AddrInUse));
    for more in 1..20 {
        socket.join(None, format!("ff05::{more}").parse().unwrap()).unwrap();
    }
    assert_eq!(socket.join(None, "ff05::99".parse().unwrap()), Err(Error::OutOfMemory));
    assert_eq!(stack.memberships(*net).len(), 20);
    socket.close();
    assert_eq!(stack.memberships(*net), [] as [IpAddr; 0]);
    assert_eq!(socket.join(None, group()), Err(Error::Closed));
}

#[test]
fn changes_are_told_once_and_only_what_lasts() {
    let pair = Pair::new(1);
    let Host { stack, net, .. } = &pair.hosts[B];
    let changes = || {
        let mut batch = Batch::new();
        stack.handle_timeout(pair.now, &mut batch);
        let changes: Vec<_> = batch.memberships.iter().map(|one| (one.interface, one.joined)).collect();
        assert_eq!(batch.is_empty(), changes.is_empty());
        changes
    };
    let [one, two] = [0, 0].map(|_| bind(&pair, B, "[::]:53"));
    assert_eq!(stack.poll_timeout(), None);
    one.join(None, group()).unwrap();
    assert!(stack.poll_timeout().unwrap() <= pair.now);
    two.join(None, group()).unwrap();
    assert_eq!(changes(), [(*net, true)]);
    assert_eq!(stack.poll_timeout(), None);
    one.close();
    assert_eq!(changes(), []);
    two.close();
    assert_eq!(changes(), [(*net, false)]);
    let three = bind(&pair, B, "[::]:53");
    three.join(None, group()).unwrap();
    three.close();
    assert_eq!(changes(), []);
}

#[test]
fn datagrams_to_a_group_have_their_own_hop_limit_and_interface() {
    let pair = Pair::new(1);
    let Host { stack, net, .. } = &pair.hosts[A];
    let socket = bind(&pair, A, "[::]:0");
    let to = SocketAddr::new(group(), 53);
    let mut packet = [0; 100];
    let route = socket.route(Some(to)).unwrap();
    assert_eq!((route.interface, route.source.ip()), (*net, address(A, true, 0).ip()));
    socket.send(pair.now, &route, b"x", 1280, &mut packet).unwrap();
    assert_eq!(packet[7], 1);
    let ip = IpOptions {
        multicast_hop_limit: 0,
        multicast_interface: Some(InterfaceId(99)),
        ..IpOptions::default()
    };
    socket.set_ip_options(ip).unwrap();
    assert_eq!(socket.route(Some(to)), Err(Error::NetworkUnreachable));
    socket.send(pair.now, &route, b"x", 1280, &mut packet).unwrap();
    assert_eq!(packet[7], 0);
    let second = stack.add_interface(InterfaceConfig::new("second", ["fd99::1/64".parse().unwrap()]));
    socket.set_ip_options(IpOptions { multicast_interface: Some(second), ..ip }).unwrap();
    let route = socket.route(Some(to)).unwrap();
    assert_eq!((route.interface, route.source.ip().to_string()), (second, "fd99::1".into()));
}

#[test]
fn a_member_hears_only_whom_its_filter_lets_pass() {
    for (group, any) in [(GROUP, "[::]:53"), ("239.1.2.3", "0.0.0.0:53")] {
        let mut pair = Pair::new(1);
        let group: IpAddr = group.parse().unwrap();
        let to = SocketAddr::new(group, 53);
        let sender = address(A, group.is_ipv6(), 0).ip();
        let stranger: IpAddr = if group.is_ipv6() { "fd00::99" } else { "10.0.0.99" }.parse().unwrap();
        let [only, others, all] = [0; 3].map(|_| bind(&pair, B, any));
        only.change_group(None, group, GroupChange::Source(SourceChange::Join, stranger)).unwrap();
        others.join(None, group).unwrap();
        others.change_group(None, group, GroupChange::Source(SourceChange::Block, sender)).unwrap();
        all.change_group(None, group, GroupChange::Join(SourceFilter::default())).unwrap();
        inject(&mut pair, to);
        assert!(!receives(&only) && !receives(&others) && receives(&all));
        only.change_group(None, group, GroupChange::Source(SourceChange::Join, sender)).unwrap();
        others.change_group(None, group, GroupChange::Source(SourceChange::Unblock, sender)).unwrap();
        inject(&mut pair, to);
        assert!(receives(&only) && receives(&others) && receives(&all));
        // Leaving the last source ends the membership.
        for left in [sender, stranger] {
            only.change_group(None, group, GroupChange::Source(SourceChange::Leave, left)).unwrap();
        }
        assert_eq!(only.leave(None, group), Err(Error::AddrNotAvailable));
        let net = pair.hosts[B].net;
        assert_eq!(pair.hosts[B].stack.memberships(net), [group]);
    }
}

#[test]
fn changing_a_filter_says_what_is_wrong() {
    let pair = Pair::new(1);
    let socket = bind(&pair, B, "[::]:53");
    let source = address(A, true, 0).ip();
    let change = |change| socket.change_group(None, group(), GroupChange::Source(change, source));
    for kind in [SourceChange::Leave, SourceChange::Block, SourceChange::Unblock] {
        assert_eq!(change(kind), Err(Error::InvalidInput), "it is no member");
    }
    let v4 = address(A, false, 0).ip();
    assert_eq!(
        socket.change_group(None, group(), GroupChange::Source(SourceChange::Join, v4)),
        Err(Error::AddressFamily)
    );
    assert_eq!(change(SourceChange::Join), Ok(()));
    assert_eq!(change(SourceChange::Join), Err(Error::AddrNotAvailable));
    assert_eq!(change(SourceChange::Block), Err(Error::InvalidInput));
    assert_eq!(socket.join(None, group()), Err(Error::AddrInUse));
}
