//! UDP.

use std::collections::HashSet;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use peersock_fd::{Errno, Family, Kind, RecvFlags, SocketFlags};
use rustix::event::PollFlags;
use rustix::net::Shutdown;

use crate::common::{Served, errno, overlay, poll, poll_for, python, receive, send_to, set, try_receive};

#[test]
fn datagrams_pass_in_both_directions_with_their_senders_addresses() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    assert_eq!(send_to(&client, b"question", address), Ok(8));
    let (data, received) = receive(&server);
    assert_eq!(data, b"question");
    let from = received.remote.expect("its sender");
    assert_eq!(from.ip(), a.ip());
    // Sending has bound it.
    assert_eq!(overlay(&client).local_addr().expect("it is bound").port(), from.port());
    assert_eq!(send_to(&server, b"answer", from), Ok(6));
    let (data, received) = receive(&client);
    assert_eq!((&data[..], received.remote, received.details), (&b"answer"[..], Some(address), None));
}

#[test]
fn a_node_s_sockets_reach_each_other_over_its_own_address() {
    let a = Served::new("ff0001ffff000000");
    let (server, address) = a.bound();
    let client = a.open(Kind::Datagram);
    send_to(&client, b"here", address).expect("it is sent");
    assert_eq!(receive(&server).0, b"here");
}

#[test]
fn empty_datagrams_are_datagrams_and_long_ones_are_cut_or_only_looked_at() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    send_to(&client, b"", address).expect("it is sent");
    let (data, received) = receive(&server);
    assert_eq!((data.len(), received.truncated), (0, false));
    send_to(&client, b"0123456789", address).expect("it is sent");
    poll(&server, PollFlags::IN);
    let mut buf = [0; 4];
    let mut recv =
        |flags| overlay(&server).recv_from(&mut [IoSliceMut::new(&mut buf)], flags).expect("one is there");
    let peeked = recv(RecvFlags::PEEK);
    assert_eq!((peeked.length, peeked.truncated), (4, true));
    let whole = recv(RecvFlags::PEEK | RecvFlags::TRUNC);
    assert_eq!((whole.length, whole.truncated), (10, true));
    let cut = recv(RecvFlags::empty());
    assert_eq!((cut.length, cut.truncated), (4, true));
    assert_eq!(&buf, b"0123");
    assert_eq!(errno(try_receive(&server, RecvFlags::DONTWAIT)), Errno::AGAIN);
}

#[test]
fn the_largest_datagrams_arrive_and_larger_ones_are_refused() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    // The first one makes the session and finds the path's size.
    send_to(&client, b"first", address).expect("it is sent");
    receive(&server);
    let data: Vec<u8> = (0..65_527u32).map(|at| at as u8).collect();
    assert_eq!(send_to(&client, &data, address), Ok(65_527));
    assert!(receive(&server).0 == data);
    assert_eq!(errno(send_to(&client, &[0; 65_528], address)), Errno::MSGSIZE);
}

#[test]
fn a_connected_socket_hears_its_peer_only_and_can_be_read_and_written() {
    let (a, b) = Served::pair();
    let ((server, address), (other, _)) = (b.bound(), b.bound());
    let client = a.open(Kind::Datagram);
    let socket = overlay(&client);
    assert_eq!(errno(socket.peer_addr()), Errno::NOTCONN);
    assert_eq!(errno(socket.send(&[], rustix::net::SendFlags::empty(), None)), Errno::DESTADDRREQ);
    socket.connect(Some(address)).expect("it is known where");
    assert_eq!(socket.peer_addr(), Ok(address));
    let local = socket.local_addr().expect("it is bound");
    assert_eq!(local.ip(), a.ip());
    let mut file = File::from(client);
    file.write_all(b"one").expect("room");
    let (data, received) = receive(&server);
    assert_eq!((&data[..], received.remote), (&b"one"[..], Some(local)));
    send_to(&other, b"stranger", local).expect("it is sent");
    send_to(&server, b"peer", local).expect("it is sent");
    poll(&file, PollFlags::IN);
    let mut buf = [0; 100];
    assert_eq!(file.read(&mut buf).expect("a datagram"), 4);
    assert_eq!(&buf[..4], b"peer");
    assert_eq!(poll_for(&file, PollFlags::IN, 1), PollFlags::empty());
    // After the association is dissolved it receives from all peers.
    overlay(&file).connect(None).expect("AF_UNSPEC");
    assert_eq!(errno(overlay(&file).peer_addr()), Errno::NOTCONN);
    let local = overlay(&file).local_addr().expect("it is bound");
    send_to(&other, b"stranger", SocketAddr::new(a.ip(), local.port())).expect("it is sent");
    assert_eq!(receive(&file).0, b"stranger");
    // Connected again, to another peer, it may still send elsewhere.
    overlay(&file).connect(Some(overlay(&other).local_addr().expect("bound"))).expect("it is known where");
    send_to(&file, b"elsewhere", address).expect("it is sent");
    assert_eq!(receive(&server).0, b"elsewhere");
    file.write_all(b"two").expect("room");
    assert_eq!(receive(&other).0, b"two");
}

#[test]
fn a_refusal_is_told_to_a_connected_socket_once() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    overlay(&client).connect(Some(address)).expect("it is known where");
    let mut file = File::from(client);
    file.write_all(b"hello").expect("room");
    receive(&server);
    drop(server);
    // The node sweeps every second.
    std::thread::sleep(Duration::from_millis(2200));
    file.write_all(b"anybody there?").expect("room");
    let flags = poll(&file, PollFlags::IN);
    assert!(flags.contains(PollFlags::ERR), "{flags:?}");
    assert_eq!(errno(try_receive(&file, RecvFlags::DONTWAIT)), Errno::CONNREFUSED);
    assert_eq!(errno(try_receive(&file, RecvFlags::DONTWAIT)), Errno::AGAIN);
    file.write_all(b"really?").expect("room");
    assert!(poll(&file, PollFlags::IN).contains(PollFlags::ERR));
    assert_eq!(overlay(&file).take_error(), Ok(Some(Errno::CONNREFUSED)));
    assert_eq!(overlay(&file).take_error(), Ok(None));
    // A plain write returns the kernel error.
    file.write_all(b"well?").expect("room");
    poll(&file, PollFlags::IN);
    assert_eq!(errno(rustix::io::write(&file, b"hm")), Errno::CONNRESET);
    assert_eq!(overlay(&file).peer_addr(), Ok(address));
}

#[test]
fn an_error_that_a_call_could_not_tell_is_told_by_the_next() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    overlay(&client).connect(Some(address)).expect("it is known where");
    overlay(&client).keep_error(Errno::CONNREFUSED);
    assert!(poll(&client, PollFlags::IN).contains(PollFlags::ERR));
    assert_eq!(errno(try_receive(&client, RecvFlags::DONTWAIT)), Errno::CONNREFUSED);
    assert_eq!(errno(try_receive(&client, RecvFlags::DONTWAIT)), Errno::AGAIN);
    overlay(&client).keep_error(Errno::MSGSIZE);
    assert_eq!(overlay(&client).take_error(), Ok(Some(Errno::MSGSIZE)));
    let mut file = File::from(client);
    file.write_all(b"it goes on").expect("room");
    assert_eq!(receive(&server).0, b"it goes on");
}

#[test]
fn what_cannot_be_sent_fails_at_once() {
    let a = Served::new("ff13881392000000");
    let client = a.open(Kind::Datagram);
    let nowhere: SocketAddr = "[2001:db8::1]:5000".parse().expect("an address");
    assert_eq!(errno(send_to(&client, b"x", nowhere)), Errno::NETUNREACH);
    assert_eq!(errno(overlay(&client).connect(Some(nowhere))), Errno::NETUNREACH);
    assert_eq!(errno(send_to(&client, b"x", SocketAddr::new(a.ip(), 0))), Errno::INVAL);
    let v4: SocketAddr = "10.0.0.1:5000".parse().expect("an address");
    assert_eq!(errno(send_to(&client, b"x", v4)), Errno::NETUNREACH);
    let echo = a.open(Kind::Echo);
    assert_eq!(errno(send_to(&echo, b"x", v4)), Errno::AFNOSUPPORT, "it sends ICMPv6");
    // A socket whose own port the network does not allow.
    let socket = a.open(Kind::Datagram);
    overlay(&socket).bind(SocketAddr::new(a.ip(), 80)).expect("it may be bound");
    assert_eq!(errno(send_to(&socket, b"x", SocketAddr::new(a.ip(), 81))), Errno::ACCESS);
    send_to(&socket, b"x", SocketAddr::new(a.ip(), 5001)).expect("an allowed port");
}

#[test]
fn an_ipv6_socket_sends_to_ipv4_addresses() {
    let (a, b) = Served::pair_with_ipv4();
    let server = b.open_in(Family::V4, Kind::Datagram);
    overlay(&server).bind(SocketAddr::new(b.v4(), 0)).expect("a free port");
    let address = overlay(&server).local_addr().expect("it is bound");
    let SocketAddr::V4(at) = address else { panic!("{address}") };
    let mapped = SocketAddr::new(at.ip().to_ipv6_mapped().into(), at.port());
    let client = a.open(Kind::Datagram);
    send_to(&client, b"there", address).expect("it is sent");
    let (data, received) = receive(&server);
    assert_eq!(data, b"there");
    send_to(&server, b"and back", received.remote.expect("a sender")).expect("it is sent");
    let (data, received) = receive(&client);
    assert_eq!((&data[..], received.remote), (&b"and back"[..], Some(mapped)));
    overlay(&client).connect(Some(address)).expect("it is reached");
    assert_eq!(overlay(&client).peer_addr(), Ok(mapped));
    let only = a.open(Kind::Datagram);
    set(&only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1).expect("an option");
    assert_eq!(errno(send_to(&only, b"x", address)), Errno::NETUNREACH);
}

#[test]
fn a_port_is_taken_until_its_socket_is_closed() {
    let a = Served::new("ff0001ffff000000");
    let (first, address) = a.bound();
    let second = a.open(Kind::Datagram);
    assert_eq!(errno(overlay(&second).bind(address)), Errno::ADDRINUSE);
    assert_eq!(errno(overlay(&first).bind(SocketAddr::new(a.ip(), 0))), Errno::INVAL);
    drop(first);
    overlay(&second).bind(address).expect("free again");
    let foreign: SocketAddr = "[2001:db8::1]:0".parse().expect("an address");
    assert_eq!(errno(overlay(&a.open(Kind::Datagram)).bind(foreign)), Errno::ADDRNOTAVAIL);
}

#[test]
fn sockets_that_all_say_so_share_a_port() {
    let a = Served::new("ff0001ffff000000");
    let any: SocketAddr = "[::]:7777".parse().expect("an address");
    let reusing = || {
        let fd = a.open(Kind::Datagram);
        set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).expect("an option");
        fd
    };
    let (first, second, plain) = (reusing(), reusing(), a.open(Kind::Datagram));
    overlay(&first).bind(any).expect("a free port");
    assert_eq!(overlay(&first).local_addr(), Ok(any));
    assert_eq!(errno(overlay(&plain).bind(any)), Errno::ADDRINUSE);
    overlay(&second).bind(any).expect("a shared port");
    // iperf3 does so: the first socket keeps the present client, the second one takes later clients.
    let client = a.open(Kind::Datagram);
    send_to(&client, b"one", SocketAddr::new(a.ip(), 7777)).expect("it is sent");
    let (_, received) = receive(&second);
    overlay(&second).connect(received.remote).expect("it is known where");
    let other = a.open(Kind::Datagram);
    send_to(&other, b"two", SocketAddr::new(a.ip(), 7777)).expect("it is sent");
    assert_eq!(receive(&first).0, b"two");
    send_to(&client, b"three", SocketAddr::new(a.ip(), 7777)).expect("it is sent");
    assert_eq!(receive(&second).0, b"three");
}

#[test]
fn who_does_not_read_loses_datagrams_and_no_more() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    send_to(&client, &[255; 1000], address).expect("it is sent");
    receive(&server);
    for at in 0..2000u32 {
        let mut data = [0; 1000];
        data[..4].copy_from_slice(&at.to_le_bytes());
        send_to(&client, &data, address).expect("it is sent");
    }
    std::thread::sleep(Duration::from_millis(500));
    let mut numbers = Vec::new();
    while let Ok((data, _)) = try_receive(&server, RecvFlags::DONTWAIT) {
        numbers.push(u32::from_le_bytes(data[..4].try_into().expect("four bytes")));
        // The node refills the short kernel queue.
        poll_for(&server, PollFlags::IN, 1);
    }
    // The stack keeps 256 KiB, and the kernel queue adds to it.
    assert!((200..400).contains(&numbers.len()), "{}", numbers.len());
    assert!(numbers.is_sorted(), "in order");
    send_to(&client, b"again", address).expect("it is sent");
    assert_eq!(receive(&server).0, b"again");
}

#[test]
fn one_socket_talks_with_more_remote_addresses_than_the_node_keeps_ends() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let clients: Vec<_> = (0..150).map(|_| a.bound()).collect();
    let mut seen = HashSet::new();
    for (client, _) in &clients {
        send_to(client, b"ping", address).expect("it is sent");
        seen.insert(receive(&server).1.remote.expect("its sender"));
    }
    assert_eq!(seen.len(), 150);
    // Many more addresses, none of which answers: these ports are never chosen automatically.
    for port in 1..=1200 {
        send_to(&server, b"?", SocketAddr::new(a.ip(), 20_000 + port)).expect("it is sent");
    }
    for (client, local) in &clients {
        send_to(&server, b"pong", *local).expect("it is sent");
        assert_eq!(receive(client).0, b"pong");
    }
}

#[test]
fn a_stranger_s_datagram_is_not_received() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let name = rustix::net::getsockname(&server).expect("it has a name");
    let unix = rustix::net::SocketAddrUnix::try_from(name).expect("of this family");
    let text = String::from_utf8(unix.abstract_name().expect("abstract").to_vec()).expect("text");
    // Under a name of the right form, but from a process other than the node.
    let (tag, id) = (&text[3..11], &text[16..28]);
    let fake = format!("ps/{tag}/p6/{id}/{}", "1".repeat(36));
    let script = format!(
        "import socket\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind('\\0{fake}')\ns.sendto(b'fake','\\0{text}')"
    );
    let Some(mut stranger) = python("a_stranger_s_datagram_is_not_received", &script) else { return };
    let mut stranger = stranger.spawn().expect("it is installed");
    assert!(stranger.wait().expect("it ends").success());
    assert_eq!(poll(&server, PollFlags::IN), PollFlags::IN);
    let client = a.open(Kind::Datagram);
    send_to(&client, b"real", address).expect("it is sent");
    let mut buf = [0; 10];
    let peeked = overlay(&server).recv_from(&mut [IoSliceMut::new(&mut buf)], RecvFlags::PEEK);
    assert_eq!(peeked.expect("a datagram").remote.map(|remote| remote.ip()), Some(a.ip()));
    assert_eq!(receive(&server).0, b"real");
}

#[test]
fn what_is_shut_down_sends_or_receives_no_more() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    assert_eq!(errno(overlay(&client).shutdown(Shutdown::Write)), Errno::NOTCONN);
    overlay(&client).connect(Some(address)).expect("it is known where");
    overlay(&client).shutdown(Shutdown::Write).expect("it is connected");
    let none = rustix::net::SendFlags::NOSIGNAL;
    assert_eq!(errno(overlay(&client).send(&[], none, None)), Errno::PIPE);
    overlay(&client).shutdown(Shutdown::Read).expect("it is connected");
    assert_eq!(try_receive(&client, RecvFlags::empty()).expect("the end").0.len(), 0);
    drop(server);
}

#[test]
fn without_waiting_there_is_nothing_to_receive() {
    let a = Served::new("ff0001ffff000000");
    let fd =
        peersock_fd::open(&a.client, Family::V6, Kind::Datagram, SocketFlags::NONBLOCK).expect("a socket");
    assert_eq!(errno(try_receive(&fd, RecvFlags::empty())), Errno::AGAIN);
    assert_eq!(overlay(&fd).local_addr(), Ok("[::]:0".parse().expect("an address")));
    assert_eq!(errno(overlay(&fd).listen(1)), Errno::OPNOTSUPP);
    assert!(poll_for(&fd, PollFlags::OUT, 1).contains(PollFlags::OUT));
}

#[test]
fn a_wildcard_takes_both_families_unless_it_shall_not() {
    let (a, b) = Served::pair_with_ipv4();
    let server = b.open(Kind::Datagram);
    overlay(&server).bind("[::]:5000".parse().expect("an address")).expect("a free port");
    let four = a.open_in(Family::V4, Kind::Datagram);
    send_to(&four, b"four", SocketAddr::new(b.v4(), 5000)).expect("it is sent");
    let (data, received) = receive(&server);
    assert_eq!(data, b"four");
    let from = received.remote.expect("its sender");
    assert_eq!(from.to_string(), format!("[::ffff:10.7.0.1]:{}", from.port()));
    send_to(&server, b"to a mapped address", from).expect("it is sent");
    assert_eq!(receive(&four).1.remote, Some(SocketAddr::new(b.v4(), 5000)));
    let six = a.open(Kind::Datagram);
    send_to(&six, b"six", SocketAddr::new(b.ip(), 5000)).expect("it is sent");
    assert_eq!(receive(&server).1.remote.map(|remote| remote.ip()), Some(a.ip()));
    // Connected in one family, it receives nothing in the other.
    overlay(&server).connect(Some(from)).expect("it is known where");
    send_to(&six, b"six", SocketAddr::new(b.ip(), 5000)).expect("it is sent");
    send_to(&four, b"four", SocketAddr::new(b.v4(), 5000)).expect("it is sent");
    assert_eq!(receive(&server).0, b"four");
    assert_eq!(errno(try_receive(&server, RecvFlags::DONTWAIT)), Errno::AGAIN);
    let only = b.open(Kind::Datagram);
    set(&only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1).expect("it is not bound");
    assert_eq!(errno(overlay(&only).bind("[::]:5000".parse().expect("an address"))), Errno::ADDRINUSE);
    overlay(&only).bind("[::]:5001".parse().expect("an address")).expect("a free port");
    let beside = b.open_in(Family::V4, Kind::Datagram);
    overlay(&beside).bind("0.0.0.0:5001".parse().expect("an address")).expect("the other family's");
}

#[test]
fn ipv4_datagrams_may_be_65507_bytes_long() {
    let (a, b) = Served::pair_with_ipv4();
    let server = b.open_in(Family::V4, Kind::Datagram);
    overlay(&server).bind(SocketAddr::new(b.v4(), 5000)).expect("a free port");
    let client = a.open_in(Family::V4, Kind::Datagram);
    assert_eq!(send_to(&client, &[7; 65_507], SocketAddr::new(b.v4(), 5000)), Ok(65_507));
    assert!(receive(&server).0 == [7; 65_507]);
    assert_eq!(errno(send_to(&client, &[7; 65_508], SocketAddr::new(b.v4(), 5000))), Errno::MSGSIZE);
}

#[test]
fn a_process_that_ends_sends_what_it_has_written() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    overlay(&client).connect(Some(address)).expect("it is known where");
    for at in 0..100u8 {
        rustix::io::write(&client, &[at]).expect("room");
    }
    assert!(a.server.drain(Duration::from_secs(5)));
    for at in 0..100 {
        assert_eq!(receive(&server).0, [at]);
    }
}

#[test]
fn datagrams_that_are_written_at_once_arrive_in_order_whatever_their_lengths() {
    let (a, b) = Served::pair();
    let (server, address) = b.bound();
    let client = a.open(Kind::Datagram);
    send_to(&client, b"first", address).expect("it is sent");
    receive(&server);
    overlay(&client).connect(Some(address)).expect("it is known where");
    // Equal ones, one that is shorter, longer, empty or fragmented, and equal ones again.
    let lengths = [1000, 1000, 1000, 900, 1000, 1100, 0, 0, 5000, 1000, 1000, 7, 7, 7, 8];
    for round in 0..20u8 {
        for (at, length) in lengths.into_iter().enumerate() {
            let data = vec![round ^ (at as u8) << 4; length];
            assert_eq!(rustix::io::write(&client, &data), Ok(length));
        }
        for (at, length) in lengths.into_iter().enumerate() {
            let (data, received) = receive(&server);
            assert_eq!(
                (data.len(), data.iter().all(|byte| *byte == round ^ (at as u8) << 4)),
                (length, true)
            );
            assert_eq!(received.remote.map(|remote| remote.ip()), Some(a.ip()));
        }
    }
}
