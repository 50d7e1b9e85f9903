//! Members' addresses and names, alongside kernel networks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use peersock_net::{
    self as net, Addr, Conn, Dialer, ListenConfig, Resolver, Side, SocketError, TcpAddr, UdpAddr,
    join_host_port,
};

use crate::common::{HERE, Members, THERE, dialed, io_kind, large, read_to_end, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dial_goes_over_the_overlay() {
    let members = Members::new();
    for (host, network) in members.hosts().iter().zip(["tcp4", "tcp6"]) {
        let listener = members.there().listen(&join_host_port(host, 0), network).await.expect("a free port");
        let (client, server) = dialed(&members.dialer(), &listener).await;
        assert!(matches!(client, Conn::Tcp(_)));
        let own = client.local_addr().expect("it is connected");
        let own_ip = own.ip_addr().and_then(|addr| addr.ip()).expect("an address");
        assert!(members.here.1.addresses().contains(&own_ip));
        assert_eq!(server.remote_addr(), Some(own));
        assert_eq!(client.remote_addr(), Some(listener.addr()));
        let client = Arc::new(client);
        let sender = Arc::clone(&client);
        let sent = tokio::spawn(async move { sender.write(&large()).await });
        let mut received = Vec::new();
        while received.len() < large().len() {
            received.extend(soon(server.read(1 << 16)).await.expect("the other end is well"));
        }
        assert!(received == large());
        assert_eq!(soon(sent).await.expect("no panic"), Ok(large().len()));
        let Conn::Tcp(tcp) = &*client else { panic!("it is of TCP") };
        let named = tcp.peer().and_then(|peer| peer.name);
        assert_eq!(named.as_deref(), Some("there"));
        tcp.set_no_delay(false).expect("it is open");
        tcp.set_keep_alive(true).expect("it is open");
        tcp.set_linger(None).expect("it is open");
        client.write(b"line\n").await.expect("room");
        client.close_write().expect("it is connected");
        assert_eq!(soon(server.read_line(10)).await, Ok(b"line\n".to_vec()));
        assert_eq!(read_to_end(&server).await, b"");
        server.close_read().expect("it is connected");
        server.write(b"back").await.expect("room");
        server.close();
        assert_eq!(read_to_end(&client).await, b"back");
    }
}

#[tokio::test]
async fn a_reset_reaches_the_other_end() {
    let members = Members::new();
    let listener = members.there().listen_tcp(None, "tcp6").await.expect("a free port");
    let there = join_host_port(&members.hosts()[1], listener.addr().port());
    let there: TcpAddr = there.parse().expect("an address");
    let client = soon(members.dialer().dial_tcp(&there, "tcp")).await.expect("it listens");
    let server = soon(listener.accept()).await.expect("it was dialed");
    client.set_linger(Duration::ZERO).expect("it is open");
    let here = server.peer();
    assert_eq!(here.as_ref().map(|peer| peer.node), Some(members.here.0.id()));
    client.close();
    let reset = soon(server.read(1)).await.expect_err("it was reset");
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    server.close();
    assert_eq!(server.peer(), here, "it stays after the end");
}

#[tokio::test]
async fn names_of_members_are_hosts() {
    let members = Members::new();
    let [v4, v6] = members.hosts();
    let resolver = Resolver::new().node(&members.here.0);
    let addr = resolver.resolve_tcp_addr("there:80", "tcp").await.expect("a member");
    assert_eq!(addr.to_string(), format!("{v4}:80"));
    let addr = resolver.resolve_tcp_addr("there:80", "tcp6").await.expect("a member");
    assert_eq!(addr.to_string(), format!("[{v6}]:80"));
    let addr = resolver.resolve_udp_addr("there:domain", "udp6").await.expect("a member");
    assert_eq!(addr.to_string(), format!("[{v6}]:53"));
    let addr = resolver.resolve_ip_addr("there", "ip4").await.expect("a member");
    assert_eq!(addr.to_string(), THERE);
    // The member listens only on IPv6, so all addresses of the name are tried.
    let listener = members.there().listen(&join_host_port(&v6, 0), "tcp").await.expect("a free port");
    let Addr::Tcp(at) = listener.addr() else { panic!("it is of TCP") };
    let conn = soon(members.dialer().dial(&format!("there:{}", at.port()), "tcp")).await.expect("it listens");
    assert_eq!(conn.remote_addr(), Some(at.clone().into()));
    let refused = soon(members.dialer().dial(&format!("there:{}", at.port()), "tcp4")).await;
    assert_eq!(io_kind(refused.expect_err("not there")), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn wildcards_serve_both_families() {
    let members = Members::new();
    let listener = members.there().listen_tcp(None, "tcp").await.expect("a free port");
    for host in members.hosts() {
        let address = join_host_port(&host, listener.addr().port());
        let client = soon(members.dialer().dial(&address, "tcp")).await.expect("it listens");
        let server = soon(listener.accept()).await.expect("it was dialed");
        assert_eq!(Ok(Addr::from(server.remote_addr())), client.local_addr());
    }
    // The machine's own networks do not lead to the member.
    let refused = net::dial(&format!("127.0.0.1:{}", listener.addr().port()), "tcp").await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn wildcards_of_both_sides() {
    let members = Members::new();
    let config = members.there().side(Side::Both);
    let listener = config.listen_tcp(None, "tcp").await.expect("a free port");
    let server = config.listen_udp(None, "udp").await.expect("a free port");
    let udp_port = server.local_addr().expect("it is bound").port();
    let [v4, v6] = members.hosts();
    for host in [&v4, &v6, "127.0.0.1", "::1"] {
        let address = join_host_port(host, listener.addr().port());
        let client = soon(members.dialer().dial(&address, "tcp")).await.expect("it listens");
        let accepted = soon(listener.accept()).await.expect("it was dialed");
        assert_eq!(Ok(Addr::from(accepted.remote_addr())), client.local_addr());
        let client = members.dialer().dial(&join_host_port(host, udp_port), "udp").await.expect("a way");
        client.write(b"question").await.expect("a way");
        let (data, sender) = soon(server.read_from(100)).await.expect("it was sent");
        assert_eq!((data, Ok(Addr::from(sender.clone()))), (b"question".to_vec(), client.local_addr()));
        server.write_to(b"answer", &sender).await.expect("a way");
        assert_eq!(soon(client.read(100)).await, Ok(b"answer".to_vec()));
    }
}

#[tokio::test]
async fn refusals_are_errors_of_the_system() {
    let members = Members::new();
    for host in members.hosts() {
        let refused = soon(members.dialer().dial(&join_host_port(&host, 9), "tcp")).await;
        let refused = refused.expect_err("nobody listens");
        assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED));
        assert_eq!(io_kind(refused), io::ErrorKind::ConnectionRefused);
    }
    let foreign = members.there().listen(&join_host_port(HERE, 0), "tcp").await;
    assert_eq!(foreign.expect_err("another member's").raw_os_error(), Some(libc::EADDRNOTAVAIL));
    let listener = members.there().listen_tcp(None, "tcp6").await.expect("a free port");
    let taken = members.there().listen_tcp(Some(&listener.addr()), "tcp6").await;
    assert_eq!(taken.expect_err("it is taken").raw_os_error(), Some(libc::EADDRINUSE));
}

#[tokio::test]
async fn datagrams() {
    let members = Members::new();
    for (host, network) in members.hosts().iter().zip(["udp4", "udp6"]) {
        let at: UdpAddr = join_host_port(host, 0).parse().expect("an address");
        let server = members.there().listen_udp(Some(&at), network).await.expect("a free port");
        let there = server.local_addr().expect("it is bound");
        let client = members.dialer().dial_udp(&there, network).await.expect("a way");
        client.write(b"0123456789").await.expect("a way");
        let (data, sender) = soon(server.read_from(100)).await.expect("it was sent");
        assert_eq!((data, Ok(sender.clone())), (b"0123456789".to_vec(), client.local_addr()));
        server.write_to(b"0123456789", &sender).await.expect("a way");
        assert_eq!(soon(client.read(4)).await, Ok(b"0123".to_vec()));
        server.write_to(b"", &sender).await.expect("a way");
        assert_eq!(soon(client.read_from(100)).await, Ok((Vec::new(), there.clone())));
        let connected = client.write_to(b"x", &there).await.expect_err("it is connected");
        assert_eq!(connected.raw_os_error(), Some(libc::EISCONN));
        let nowhere = server.write(b"x").await.expect_err("it is not connected");
        assert_eq!(nowhere.raw_os_error(), Some(libc::EDESTADDRREQ));
        client.close_write().expect("it is connected");
        assert_eq!(client.write(b"x").await.expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
        let unbound = ListenConfig::new().node(&members.here.0).listen_udp(None, network).await;
        let unbound = unbound.expect("a free port");
        unbound.write_to(b"hi", &there).await.expect("a way");
        assert_eq!(soon(server.read_from(10)).await.expect("it was sent").0, b"hi");
    }
}

#[tokio::test]
async fn all_others_are_the_kernels() {
    let members = Members::new();
    let listener = members.there().listen("127.0.0.1:0", "tcp").await.expect("a free port");
    let (client, server) = dialed(&Dialer::new(), &listener).await;
    assert_eq!(client.write(b"x").await, Ok(1));
    assert_eq!(soon(server.read(1)).await, Ok(b"x".to_vec()));
    // Without a node, no name belongs to a member.
    assert!(peersock::current_node().is_none());
    let unknown = net::resolve_tcp_addr("there.invalid:80", "tcp").await;
    assert!(unknown.is_err());
}

#[tokio::test]
async fn what_may_be_meant_for_a_node_that_is_down_goes_nowhere() {
    let members = Members::new();
    let listener = members.there().listen_tcp(None, "tcp6").await.expect("a free port");
    let address = join_host_port(&members.hosts()[1], listener.addr().port());
    let client = soon(members.dialer().dial(&address, "tcp")).await.expect("it listens");
    members.here.0.shutdown(Duration::ZERO);
    let down = soon(client.read(1)).await.expect_err("the node is down");
    assert_eq!(down.raw_os_error(), Some(libc::ENETDOWN));
    for address in [address.as_str(), "192.0.2.1:80"] {
        let down = soon(members.dialer().dial(address, "tcp")).await.expect_err("the node is down");
        assert_eq!(down.raw_os_error(), Some(libc::ENETDOWN));
    }
    let unknown = soon(members.dialer().dial("there:80", "tcp")).await.expect_err("the node is down");
    assert!(matches!(unknown, SocketError::Address(_)), "{unknown}");
    members.there.0.shutdown(Duration::ZERO);
    assert_eq!(soon(listener.accept()).await.expect_err("it is down").raw_os_error(), Some(libc::ENETDOWN));
}
