//! Servers on several addresses, ports and protocols.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock::interfaces::Interface;
use peersock_pipe::{Daemon, Message, Pipe, PipeError, Proto, Target};

use crate::common::{Members, Notes, PROTOS, connected, echo, received, soon, until};

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

async fn ask(server: &Pipe) -> Vec<u8> {
    let client = connected(server).await;
    client.send("hello").await.expect("a way");
    let answer = received(&client).await;
    soon(client.close()).await;
    answer
}

/// Returns ports that were free just now.
async fn free_ports(count: usize) -> Vec<u16> {
    let daemon = Daemon::new();
    let servers = daemon.listen_all([LOOPBACK], vec![0; count], [Proto::Tcp]).await.expect("free ports");
    let ports = servers.iter().map(|server| server.local_addr().port()).collect();
    daemon.close().await;
    ports
}

/// Runs an attempt that uses ports that were free just now. Repeats it if another program, such as another
/// test, has taken one of the ports.
async fn with_free_ports<T>(attempt: impl AsyncFn() -> Result<T, PipeError>) -> T {
    for _ in 0..20 {
        match attempt().await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            done => return done.expect("the ports are free"),
        }
    }
    panic!("the ports are not free");
}

#[tokio::test]
async fn the_example_of_p2pd() {
    let notes = Notes::default();
    let (ups, ends) = (notes.clone(), notes.clone());
    let daemon =
        Daemon::new().async_msg_cb(echo).up_cb(move |_| ups.add("up")).end_cb(move |_| ends.add("end"));
    let (ports, servers) = with_free_ports(async || {
        let ports = free_ports(2).await;
        let servers = daemon.listen_all([LOOPBACK], ports.iter().copied(), PROTOS).await?;
        Ok((ports, servers))
    })
    .await;
    // An attempt may have ended servers.
    let ended = notes.count("end");
    assert_eq!((servers.len(), daemon.servers().len()), (4, 4));
    for server in &servers {
        assert!(ports.contains(&server.local_addr().port()));
        assert_eq!(ask(server).await, b"hello");
    }
    until(|| notes.count("end") == ended + 2).await;
    soon(daemon.close()).await;
    assert_eq!((notes.count("up"), notes.count("end")), (2, ended + 6));
    assert!(daemon.servers().is_empty() && servers.iter().all(|server| !server.is_running()));
}

#[tokio::test]
async fn interfaces_families_and_callbacks() {
    let nic = Interface::load(Some("lo"), &[], Duration::from_secs(1)).expect("it is there");
    let daemon = Daemon::new().async_msg_cb(echo);
    let notes = Notes::default();
    let heard = notes.clone();
    let callback = daemon.add_msg_cb(move |message: Message, _| heard.add(String::from_utf8_lossy(&message)));
    let servers = daemon.listen_all([&nic], [0], [Proto::Udp]).await.expect("free ports");
    let ips: Vec<String> = servers.iter().map(|server| server.local_addr().ip().to_string()).collect();
    assert_eq!(ips, ["127.0.0.1", "::1"]);
    for server in &servers {
        assert_eq!(ask(server).await, b"hello");
    }
    assert_eq!(notes.count("hello"), 2);
    assert!(daemon.del_msg_cb(callback) && !daemon.del_msg_cb(callback));
    assert_eq!(ask(&servers[0]).await, b"hello");
    assert_eq!(notes.count("hello"), 2);
    // A single family, and one that does not exist.
    let six = daemon.listen_all([Target::from(&nic).ipv6()], [0], [Proto::Tcp]).await.expect("a free port");
    assert_eq!(six.iter().map(|server| server.local_addr().is_ipv6()).collect::<Vec<_>>(), [true]);
    let none = daemon.listen_all([Target::from(LOOPBACK).ipv6()], [0], [Proto::Tcp]).await;
    assert_eq!(none.expect_err("there is none"), PipeError::NoAddress);
}

#[tokio::test]
async fn listeners() {
    let nic = Interface::load(Some("lo"), &[], Duration::from_secs(1)).expect("it is there");
    let daemon = Daemon::new().async_msg_cb(echo);
    let one = daemon.add_listener(Proto::Tcp, (LOOPBACK, 0).into()).await.expect("a free port");
    assert_eq!(ask(&one).await, b"hello");
    assert_eq!(daemon.listen_loopback(Proto::Udp, 0).await.expect("free ports").len(), 2);
    let local = daemon.listen_local(Proto::Udp, 0, &nic).await.expect("a free port");
    assert_eq!(local.iter().map(|server| server.local_addr().ip()).collect::<Vec<_>>(), [LOOPBACK]);
    for server in daemon.servers() {
        assert_eq!(ask(&server).await, b"hello");
    }
    assert_eq!(daemon.servers().len(), 4);
    let at = one.local_addr();
    drop(daemon);
    // Dropping the daemon closes all pipes, even if other handles exist.
    assert!(!one.is_running() && local.iter().all(|server| !server.is_running()));
    soon(async {
        while Pipe::listen(Proto::Tcp, at).await.is_err() {
            tokio::task::yield_now().await
        }
    })
    .await;
}

#[tokio::test]
async fn all_or_none_listens() {
    for proto in PROTOS {
        with_free_ports(async || {
            let first = Daemon::new().async_msg_cb(echo);
            let taken = first.listen_all([LOOPBACK], [0], [proto]).await.expect("a free port");
            let free = free_ports(1).await[0];
            let daemon = Daemon::new();
            let ports = [free, taken[0].local_addr().port()];
            let error = daemon.listen_all([LOOPBACK], ports, [proto]).await.expect_err("one is taken");
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(daemon.servers().is_empty());
            // The port is free again.
            daemon.listen_all([LOOPBACK], [free], [proto]).await?;
            // The first server continues, and once it is closed, its port can be used at once.
            assert_eq!(ask(&taken[0]).await, b"hello");
            soon(first.close()).await;
            daemon.listen_all([LOOPBACK], [ports[1]], [proto]).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_is_added_while_a_server_opens_is_called_once() {
    for _ in 0..100 {
        let (daemon, notes) = (Arc::new(Daemon::new()), Notes::default());
        let opening = tokio::spawn({
            let daemon = Arc::clone(&daemon);
            async move { daemon.add_listener(Proto::Udp, (LOOPBACK, 0).into()).await }
        });
        let heard = notes.clone();
        daemon.add_msg_cb(move |message: Message, _| heard.add(String::from_utf8_lossy(&message)));
        let server = soon(opening).await.expect("no panic").expect("a free port");
        for text in ["first", "last"] {
            server.send_to(text, server.local_addr()).await.expect("a way");
        }
        until(|| notes.count("last") > 0).await;
        assert_eq!(notes.all(), ["first", "last"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_listens_in_a_network() {
    let members = Members::new();
    let daemon = Daemon::new().node(&members.there.0).async_msg_cb(echo);
    let servers = daemon.listen_all([&members.there.1], [0], PROTOS).await.expect("free ports");
    assert_eq!(servers.len(), 4);
    for server in servers {
        assert!(members.hosts().contains(&server.local_addr().ip()));
        let client = members.connected(server.proto(), server.local_addr()).await;
        client.send("hello").await.expect("a way");
        assert_eq!(received(&client).await, b"hello");
    }
}
