//! PEERSOCK_PEER: who is at the other end of a descriptor.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use peersock::PeerIdentity;
use peersock_fd::option_table::{PEERSOCK_PEER, SOL_PEERSOCK};
use peersock_fd::{Errno, Kind, SocketFlags};

use crate::common::{Served, errno, get_bytes, overlay, receive, send_to, set};

fn peer(fd: &impl AsFd) -> Result<PeerIdentity, Errno> {
    let json = get_bytes(fd, SOL_PEERSOCK, PEERSOCK_PEER)?;
    Ok(PeerIdentity::from_json(&json).expect("JSON of an identity"))
}

#[test]
fn a_descriptor_tells_who_is_at_the_other_end_until_it_is_closed() {
    let (a, b) = Served::pair();
    let own = |served: &Served| served.node().id();
    // Each end that closes first, and an end by a reset.
    for way in 0..3 {
        let (mut client, mut server) = a.connect(&b);
        assert_eq!(peer(&client).expect("connected").node, own(&b));
        assert_eq!(peer(&server).expect("connected").machine, own(&a));
        match way {
            0 => drop(server),
            1 => {
                server.write_all(b"unread").expect("room");
                rustix::net::shutdown(&client, rustix::net::Shutdown::Write).expect("connected");
                server.read_to_end(&mut Vec::new()).expect("an end");
                assert_eq!(peer(&server).expect("half closed").node, own(&a));
                drop(server);
            }
            _ => {
                client.write_all(b"unread").expect("room");
                rustix::net::sockopt::set_socket_linger(&server, Some(std::time::Duration::ZERO))
                    .expect("an option of the kernel's socket");
                drop(server);
            }
        }
        let _ = client.read_to_end(&mut Vec::new());
        assert_eq!(peer(&client).expect("it was connected").node, own(&b), "way {way}");
    }
}

/// The application learns of a connection at any moment, also before anybody accepts it at the other end.
#[test]
fn a_connection_tells_it_as_soon_as_it_is_established() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    for _ in 0..50 {
        let client = a.socket(SocketFlags::empty());
        overlay(&client).connect(Some(address)).expect("it listens");
        assert_eq!(peer(&client).expect("connected").node, b.node().id());
        // The backlog is short.
        drop(rustix::net::accept(&listener).expect("a connection"));
    }
}

#[test]
fn each_of_several_ended_connections_is_remembered() {
    let (a, b) = Served::pair();
    let ended = |count: usize| -> Vec<File> {
        let end = |_| {
            let (mut client, server) = a.connect(&b);
            drop(server);
            assert_eq!(client.read(&mut [0]).expect("an end"), 0);
            client
        };
        (0..count).map(end).collect()
    };
    for client in ended(50) {
        assert_eq!(peer(&client).expect("it was connected").node, b.node().id());
    }
}

#[test]
fn who_is_not_connected_is_told_so() {
    let (a, b) = Served::pair();
    let stream = a.socket(SocketFlags::empty());
    assert_eq!(errno(peer(&stream)), Errno::NOTCONN);
    let (listener, _) = b.listen(SocketFlags::empty());
    assert_eq!(errno(peer(&listener)), Errno::NOTCONN);
    assert_eq!(errno(set(&stream, SOL_PEERSOCK, PEERSOCK_PEER, 1)), Errno::NOPROTOOPT);
    for option in [0, 2] {
        assert_eq!(errno(get_bytes(&stream, SOL_PEERSOCK, option)), Errno::NOPROTOOPT);
    }
    // A part of it is of no use.
    let (client, _server) = a.connect(&b);
    assert_eq!(errno(overlay(&client).option(SOL_PEERSOCK, PEERSOCK_PEER, 20)), Errno::RANGE);
    assert_eq!(errno(get_bytes(&a.open(Kind::Echo), SOL_PEERSOCK, PEERSOCK_PEER)), Errno::NOPROTOOPT);
}

#[test]
fn a_connected_datagram_socket_tells_who_has_the_address_now() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    assert_eq!(errno(peer(&client)), Errno::NOTCONN);
    overlay(&client).connect(Some(address)).expect("it is known where");
    send_to(&client, b"x", address).expect("it is sent");
    receive(&server);
    assert_eq!(peer(&client).expect("a session").node, b.node().id());
    // No node is there.
    let absent = SocketAddr::new(a.silent().ip(), 9);
    overlay(&client).connect(Some(absent)).expect("it is known where");
    assert_eq!(errno(peer(&client)), Errno::NOTCONN);
}
