//! Members' addresses and names, in addition to kernel addresses, between two nodes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peersock_net::Side;
use peersock_pipe::{Address, Pipe, PipeError, Proto};

use crate::common::{
    LOOPBACK_PLACES, Members, Notes, PROTOS, close, echo, large, listening, open, patient, read, received,
    soon, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_are_pipes() {
    let members = Members::new();
    for (proto, host) in PROTOS.into_iter().flat_map(|proto| members.hosts().map(|host| (proto, host))) {
        let server = members.listening(proto, host).await;
        let client = members.connected(proto, server.local_addr()).await;
        for number in 0..20 {
            let text = number.to_string();
            client.send(&text).await.expect("a way");
            assert_eq!(received(&client).await, text.as_bytes());
        }
        assert_eq!(client.remote_addr(), Some(server.local_addr()));
        let there = (proto == Proto::Tcp).then(|| members.there.0.id());
        assert_eq!(client.peer().map(|peer| peer.node), there);
        assert!(server.peer().is_none());
        if proto == Proto::Tcp {
            assert!(members.here.1.addresses().contains(&client.local_addr().ip()));
            let data = large(1_000_000);
            let (sender, sent) = (client.clone(), data.clone());
            let sending = tokio::spawn(async move { sender.send(sent).await });
            assert!(read(&client, data.len()).await == data);
            assert_eq!(soon(sending).await.expect("no panic"), Ok(data.len()));
        }
        close([client, server]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_delivered_before_the_end() {
    let members = Members::new();
    let server = open(Pipe::listen(Proto::Tcp, ":0").options(patient()).node(&members.there.0)).await;
    let dest = SocketAddr::new(members.hosts()[1], server.local_addr().port());
    let client = members.connected(Proto::Tcp, dest).await;
    let other = soon(server.accept()).await.expect("a client");
    let named = || other.peer().and_then(|peer| peer.name);
    assert_eq!(named().as_deref(), Some("here"));
    let data = large(3_000_000);
    let (sender, sent) = (client.clone(), data.clone());
    let mut sending = Box::pin(async move { sender.send(sent).await });
    // Sending has begun.
    let sent = futures_lite::future::poll_once(&mut sending).await;
    let closing = tokio::spawn(async move { client.close().await });
    assert!(read(&other, data.len()).await == data);
    let sent = match sent {
        Some(sent) => sent,
        None => soon(sending).await,
    };
    assert_eq!(sent, Ok(data.len()));
    soon(closing).await.expect("no panic");
    assert_eq!(soon(other.recv()).await, Err(PipeError::Ended));
    assert_eq!(named().as_deref(), Some("here"), "it stays after the end");
}

/// Tests that connections are counted per member, at all its addresses, so that others find places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_member_takes_all_places() {
    let members = Members::new();
    let options = patient().max_clients(66);
    let server = Pipe::listen(Proto::Tcp, ":0").options(options).node(&members.there.0).side(Side::Both);
    let server = open(server.async_msg_cb(echo)).await;
    let port = server.local_addr().port();
    let mut clients = Vec::new();
    for number in 0..64 {
        let client = members.connected(Proto::Tcp, SocketAddr::new(members.hosts()[number % 2], port)).await;
        client.send("hello").await.expect("a way");
        assert_eq!(received(&client).await, b"hello");
        clients.push(client);
    }
    for host in members.hosts() {
        let error = members.refused(SocketAddr::new(host, port)).await;
        assert!(matches!(error, PipeError::Failed(_) | PipeError::Socket(_)), "a reset, and no end: {error}");
        assert!(error.to_string().contains("reset"), "{error}");
    }
    let local = SocketAddr::from(([127, 0, 0, 1], port));
    let other = open(Pipe::connect(Proto::Tcp, local).options(patient())).await;
    other.send("hello").await.expect("a way");
    assert_eq!(received(&other).await, b"hello");
    // A place that is free again can be used by the member.
    close(clients.drain(..1)).await;
    until(|| server.clients().len() == 64).await;
    let again = members.connected(Proto::Tcp, SocketAddr::new(members.hosts()[0], port)).await;
    again.send("hello").await.expect("a way");
    assert_eq!(received(&again).await, b"hello");
    close(clients.into_iter().chain([other, again, server])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_share_of_a_member_can_be_set() {
    let members = Members::new();
    let options = patient().max_clients_of_member(0);
    let server = Pipe::listen(Proto::Tcp, ":0").options(options).node(&members.there.0);
    let server = open(server).await;
    let at = SocketAddr::new(members.hosts()[0], server.local_addr().port());
    let first = members.connected(Proto::Tcp, at).await;
    let accepted = soon(server.accept()).await.expect("a client");
    let error = members.refused(at).await;
    assert!(error.to_string().contains("reset"), "{error}");
    soon(accepted.close()).await;
    soon(first.close()).await;
    until(|| server.clients().is_empty()).await;
    let again = members.connected(Proto::Tcp, at).await;
    soon(server.accept()).await.expect("it has its place");
    close([again, server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_members_lead_over_the_overlay() {
    let members = Members::new();
    let [v4, v6] = members.hosts();
    let address = Address::new("there", 80).node(&members.here.0);
    assert_eq!(address.tups().await, Ok(vec![(v4, 80).into(), (v6, 80).into()]));
    for proto in PROTOS {
        let server = members.listening(proto, v4).await;
        let client = members.connected(proto, format!("there:{}", server.local_addr().port())).await;
        client.send("by name").await.expect("a way");
        assert_eq!(received(&client).await, b"by name");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_and_sides() {
    let members = Members::new();
    for (proto, own) in PROTOS
        .into_iter()
        .flat_map(|proto| members.here.1.addresses().into_iter().map(move |own| (proto, own)))
    {
        let there: IpAddr = members.hosts()[usize::from(own.is_ipv6())];
        let server = members.listening(proto, there).await;
        let client = Pipe::connect(proto, server.local_addr()).options(patient()).node(&members.here.0);
        let client = open(client.route((own, 0).into())).await;
        assert_eq!(client.local_addr().ip(), own);
        client.send("hello").await.expect("a way");
        assert_eq!(received(&client).await, b"hello");
    }
    // One network does not lead to the other.
    let local: SocketAddr = LOOPBACK_PLACES[0].parse().expect("an address");
    let kernel = listening(Proto::Udp, LOOPBACK_PLACES[0]).await;
    for (dest, route) in
        [((members.hosts()[0], 9).into(), local), (kernel.local_addr(), ([10, 77, 0, 1], 0).into())]
    {
        for proto in PROTOS {
            let opening = Pipe::connect(proto, dest).options(patient()).node(&members.here.0).route(route);
            let error = soon(opening.into_future()).await.expect_err("they are two networks");
            match proto {
                Proto::Tcp => assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable, "{error}"),
                Proto::Udp => assert_eq!(error, PipeError::OtherNetwork),
            }
        }
    }
    // Kernel addresses still use the kernel.
    let client = members.connected(Proto::Udp, kernel.local_addr()).await;
    client.send("hello").await.expect("a way");
    assert_eq!(received(&kernel).await, b"hello");
    let both = Pipe::listen(Proto::Udp, ":0").options(patient()).node(&members.there.0).side(Side::Both);
    let both = open(both).await;
    for host in [members.hosts()[0], [127, 0, 0, 1].into()] {
        let client = members.connected(Proto::Udp, SocketAddr::new(host, both.local_addr().port())).await;
        client.send("hello").await.expect("a way");
        assert_eq!(received(&both).await, b"hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_node_ends_its_pipes() {
    let members = Members::new();
    let at = |proto| {
        let opening = Pipe::listen(proto, ":0").options(patient()).node(&members.there.0);
        open(opening)
    };
    let (server, datagrams) = (at(Proto::Tcp).await, at(Proto::Udp).await);
    let dest = SocketAddr::new(members.hosts()[1], server.local_addr().port());
    let client = members.connected(Proto::Tcp, dest).await;
    let accepted = soon(server.accept()).await.expect("a client");
    let notes = Notes::default();
    for (pipe, name) in [(&server, "server"), (&datagrams, "datagrams"), (&accepted, "accepted")] {
        let notes = notes.clone();
        pipe.add_end_cb(move |_| notes.add(name));
    }
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.accept().await }
    });
    crate::common::settle().await;
    let node = members.there.0.clone();
    tokio::task::spawn_blocking(move || node.shutdown(Duration::ZERO)).await.expect("no panic");
    until(|| ["server", "datagrams", "accepted"].iter().all(|name| notes.count(name) >= 1)).await;
    let error = soon(waiting).await.expect("no panic").expect_err("the node is down");
    assert!(matches!(&error, PipeError::Failed(_)), "{error}");
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkDown);
    close([client, accepted, server, datagrams]).await;
}
