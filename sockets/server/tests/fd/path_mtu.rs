//! Datagrams that are longer than their path allows and must not be fragmented.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use libc::{IPPROTO_IP, IPPROTO_IPV6};
use peersock_fd::{Details, Errno, Family, Kind, SendFlags};

use crate::common::{Served, errno, get, overlay, receive, send_to, set};

const IPV6_RECVPATHMTU: i32 = 60;

/// The longest possible datagrams, longer than any packet of the overlay.
const LONG_BYTES: usize = 65_527;
const LONG_V4: usize = 65_507;

/// Returns a socket at `a` that forbids fragmentation, after a datagram has found the path to `address`.
fn whole_only(a: &Served, server: &OwnedFd, address: SocketAddr) -> OwnedFd {
    let client = a.open(Kind::Datagram);
    send_to(&client, b"first", address).expect("it is sent");
    receive(server);
    set(&client, IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1).expect("an option");
    client
}

#[test]
fn what_is_too_long_and_must_not_be_cut_is_refused() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = whole_only(&a, &server, address);
    assert_eq!(errno(send_to(&client, &[0; LONG_BYTES], address)), Errno::MSGSIZE);
    send_to(&client, b"small", address).expect("it is sent");
    assert_eq!(receive(&server).0, b"small");
    // Also on a connected socket, and with both kinds of calls.
    overlay(&client).connect(Some(address)).expect("it is known where");
    let send = |length: usize| {
        overlay(&client).send(&[std::io::IoSlice::new(&vec![1; length])], SendFlags::empty(), None)
    };
    let mtu = get(&client, IPPROTO_IPV6, libc::IPV6_MTU).expect("a path") as usize;
    assert_eq!(send(mtu - 48), Ok(mtu - 48));
    assert_eq!(receive(&server).0.len(), mtu - 48);
    assert_eq!(errno(send(LONG_BYTES)), Errno::MSGSIZE);
    set(&client, IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0).expect("an option");
    assert_eq!(send(LONG_BYTES), Ok(LONG_BYTES));
    assert_eq!(receive(&server).0.len(), LONG_BYTES);
    for discover in [libc::IPV6_PMTUDISC_DO, libc::IPV6_PMTUDISC_PROBE] {
        set(&client, IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, discover).expect("an option");
        assert_eq!(errno(send(LONG_BYTES)), Errno::MSGSIZE);
    }
    set(&client, IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT).expect("an option");
    assert_eq!(send(LONG_BYTES), Ok(LONG_BYTES));
}

/// IPv6 has no link below 1,280 bytes, so the overlay cuts such packets itself where a path takes less, and
/// while the path's size is not known.
#[test]
fn a_packet_of_the_least_mtu_is_never_too_long() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let length = 1280 - 48;
    for connects in [false, true] {
        let client = a.open(Kind::Datagram);
        set(&client, IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1).expect("an option");
        if connects {
            overlay(&client).connect(Some(address)).expect("it is known where");
            assert!(get(&client, IPPROTO_IPV6, libc::IPV6_MTU).expect("a path") >= 1280);
        }
        assert_eq!(send_to(&client, &vec![1; length], address), Ok(length));
        assert_eq!(receive(&server).0.len(), length);
    }
}

#[test]
fn ipv4_echo_and_raw_sockets_refuse_what_is_too_long() {
    let (a, b) = Served::pair_with_ipv4();
    let to = SocketAddr::new(b.v4(), 9);
    for kind in [Kind::Datagram, Kind::Echo, Kind::Raw(89)] {
        let fd = a.open_in(Family::V4, kind);
        set(&fd, IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO).expect("an option");
        let mut data = vec![0; LONG_V4];
        data[0] = 8;
        assert_eq!(errno(send_to(&fd, &data, to)), Errno::MSGSIZE, "{kind:?}");
        set(&fd, IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT).expect("an option");
        assert_eq!(send_to(&fd, &data, to), Ok(LONG_V4), "{kind:?}");
    }
}

#[test]
fn the_path_s_mtu_is_told_to_who_has_asked() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = whole_only(&a, &server, address);
    set(&client, IPPROTO_IPV6, IPV6_RECVPATHMTU, 1).expect("an option");
    assert_eq!(get(&client, IPPROTO_IPV6, IPV6_RECVPATHMTU), Ok(1));
    assert_eq!(errno(send_to(&client, &[0; LONG_BYTES], address)), Errno::MSGSIZE);
    let (data, received) = receive(&client);
    let mtu = received.details.and_then(|details| details.path_mtu).expect("it has asked");
    assert_eq!((data.len(), received.remote), (0, Some(SocketAddr::new(b.ip(), 0))));
    assert!((1000..65_536).contains(&mtu), "{mtu}");
    // A datagram that bypasses the library is dropped, but still reported.
    overlay(&client).connect(Some(address)).expect("it is known where");
    rustix::io::write(&client, &[0; LONG_BYTES]).expect("it is taken");
    let (data, received) = receive(&client);
    assert_eq!(data.len(), 0);
    // It may have grown.
    let now = received.details.expect("it has asked");
    assert!(now.path_mtu.is_some_and(|now| now >= mtu), "{now:?}");
    assert_eq!(now, Details { path_mtu: now.path_mtu, ..Details::default() });
    // It still receives from its peer.
    send_to(&server, b"hello", overlay(&client).local_addr().expect("it is bound")).expect("it is sent");
    assert_eq!(receive(&client).0, b"hello");
}
