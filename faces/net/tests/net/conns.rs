//! Connections and listeners, over the kernel.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;

use peersock_net::{self as net, Addr, Conn, Dialer, Listener, SocketError, TcpAddr, UnixAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{PLACES, dialed, io_kind, large, listening, read_to_end, soon};

/// Runs a test over each place, with both ends of a connection.
async fn each<F: Future<Output = ()>>(test: impl Fn(Arc<Conn>, Arc<Conn>) -> F) {
    for place in PLACES {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = listening(place, folder.path()).await;
        let (client, server) = dialed(&Dialer::new(), &listener).await;
        test(Arc::new(client), Arc::new(server)).await;
    }
}

#[tokio::test]
async fn read_gives_what_is_there() {
    each(async |client, server| {
        assert_eq!(client.write(b"hello").await, Ok(5));
        // The read does not wait for more data.
        assert_eq!(soon(server.read(100)).await, Ok(b"hello".to_vec()));
        assert_eq!(server.write(b"0123456789").await, Ok(10));
        assert_eq!(soon(client.read(4)).await, Ok(b"0123".to_vec()));
        assert_eq!(client.read(0).await, Ok(Vec::new()));
        let mut room = [0; 4];
        assert_eq!(soon(client.read_into(&mut room)).await, Ok(4));
        assert_eq!(&room, b"4567");
        assert_eq!(soon(client.read(usize::MAX)).await, Ok(b"89".to_vec()));
        assert_eq!(client.write(b"").await, Ok(0));
        client.close_write().expect("it is connected");
        assert_eq!(soon(server.read(1)).await, Ok(Vec::new()));
        assert_eq!(soon(server.read(1)).await, Ok(Vec::new()));
    })
    .await;
}

#[tokio::test]
async fn write_writes_all() {
    each(async |client, server| {
        let sender = Arc::clone(&client);
        let sent = tokio::spawn(async move {
            let written = sender.write(&large()).await;
            sender.close_write().expect("it is connected");
            written
        });
        assert!(read_to_end(&server).await == large());
        assert_eq!(soon(sent).await.expect("no panic"), Ok(large().len()));
        let more = client.write(b"more").await.expect_err("this direction is closed");
        assert_eq!((more.kind(), more.written()), (io::ErrorKind::BrokenPipe, 0));
        // The other direction is open.
        assert_eq!(server.write(b"back").await, Ok(4));
        assert_eq!(soon(client.read(100)).await, Ok(b"back".to_vec()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_tasks_do_not_mix() {
    each(async |client, server| {
        // A piece exceeds the buffers, so that each write begins while an earlier one waits for room.
        const PIECE: usize = 4 << 20;
        let (mut written, mut received) = (Vec::new(), Vec::new());
        for letter in *b"abcd" {
            let client = Arc::clone(&client);
            written.push(tokio::spawn(async move { client.write(&vec![letter; PIECE]).await }));
            let read_by_then = received.len() + 300_000;
            while received.len() < read_by_then {
                received.extend(soon(server.read(1 << 14)).await.expect("the other end is well"));
            }
        }
        while received.len() < 4 * PIECE {
            received.extend(soon(server.read(1 << 16)).await.expect("the other end is well"));
        }
        for one in written {
            assert_eq!(soon(one).await.expect("no panic"), Ok(PIECE));
        }
        // The scheduler decides which write begins first.
        for piece in received.chunks(PIECE) {
            assert!(piece.iter().all(|byte| *byte == piece[0]), "pieces are mixed");
        }
    })
    .await;
}

#[tokio::test]
async fn close_read_gives_nothing_more() {
    each(async |client, server| {
        let reader = Arc::clone(&client);
        let waiting = tokio::spawn(async move { reader.read(1).await });
        tokio::task::yield_now().await;
        client.close_read().expect("it is connected");
        assert_eq!(soon(waiting).await.expect("no panic"), Ok(Vec::new()));
        assert_eq!(soon(client.read(1)).await, Ok(Vec::new()));
        // Writing still works.
        assert_eq!(client.write(b"x").await, Ok(1));
        assert_eq!(soon(server.read(1)).await, Ok(b"x".to_vec()));
        server.shutdown(Shutdown::Both).expect("it is connected");
        assert_eq!(soon(server.read(1)).await, Ok(Vec::new()));
    })
    .await;
}

#[tokio::test]
async fn lines_and_what_lies_behind_them() {
    each(async |client, server| {
        client.write(b"one\ntwo\n\nthree").await.expect("room");
        assert_eq!(soon(server.read_line(100)).await, Ok(b"one\n".to_vec()));
        // Reads return the bytes that were read ahead.
        assert_eq!(soon(server.read(2)).await, Ok(b"tw".to_vec()));
        client.close_write().expect("it is connected");
        for line in ["o\n", "\n", "three", ""] {
            assert_eq!(soon(server.read_line(100)).await, Ok(line.as_bytes().to_vec()));
        }
        server.write(b"1234\n12345\n").await.expect("room");
        assert_eq!(soon(client.read_line(5)).await, Ok(b"1234\n".to_vec()));
        let long = soon(client.read_line(5)).await.expect_err("it is longer");
        assert_eq!(long.raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(soon(client.read(5)).await, Ok(b"12345".to_vec()));
    })
    .await;
}

#[tokio::test]
async fn connections_are_tokios_streams() {
    each(async |client, server| {
        let echo = tokio::spawn(async move {
            let (mut reader, mut writer) = (&*server, &*server);
            let copied = tokio::io::copy(&mut reader, &mut writer).await;
            AsyncWriteExt::shutdown(&mut writer).await.expect("it is connected");
            copied.expect("both ends are well")
        });
        let sender = Arc::clone(&client);
        let sent = tokio::spawn(async move {
            let mut writer = &*sender;
            writer.write_all(&large()).await.expect("the other end is well");
            AsyncWriteExt::shutdown(&mut writer).await.expect("it is connected");
        });
        let mut received = Vec::new();
        soon((&mut &*client).read_to_end(&mut received)).await.expect("the other end is well");
        assert!(received == large());
        soon(sent).await.expect("no panic");
        assert_eq!(soon(echo).await.expect("no panic"), large().len() as u64);
        client.close();
        let closed = (&mut &*client).read(&mut [0]).await.expect_err("it is closed");
        assert!(closed.get_ref().is_some_and(|error| error.is::<SocketError>()));
    })
    .await;
}

#[tokio::test]
async fn both_ends_know_their_addresses() {
    each(async |client, server| {
        if let Conn::Unix(_) = &*client {
            let nameless = Addr::from(UnixAddr::stream("").expect("no name"));
            assert_eq!((client.local_addr(), server.remote_addr()), (Ok(nameless.clone()), Some(nameless)));
        } else {
            assert_eq!(Some(client.local_addr().expect("one")), server.remote_addr());
        }
        assert_eq!(client.remote_addr(), Some(server.local_addr().expect("one")));
        let local = client.local_addr();
        client.close();
        assert_eq!(client.local_addr(), local);
        assert!(client.is_closed() && format!("{client:?}").contains("is_closed: true"));
    })
    .await;
}

#[tokio::test]
async fn dial_tcp_from_an_own_address() {
    let own = |text: &str| text.parse::<TcpAddr>().expect("an address");
    let listener = net::listen_tcp(Some(&own("127.0.0.1:0")), "tcp").await.expect("a free port");
    let addr = listener.addr();
    let client = net::dial_tcp(Some(&own("127.0.0.2:0")), &addr, "tcp4").await.expect("it listens");
    assert_eq!(client.local_addr().ip(), own("127.0.0.2:0").ip());
    assert_eq!(client.remote_addr(), addr);
    let second = Dialer::new().local(own("127.0.0.3:0")).dial(&addr.to_string(), "tcp").await;
    let local = second.expect("it listens").local_addr().expect("one").to_string();
    assert!(local.starts_with("127.0.0.3:"), "{local}");
    let taken = net::listen_tcp(Some(&addr), "tcp").await.expect_err("it is taken");
    assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE));
    assert!(taken.to_string().starts_with(&format!("listen tcp {addr}: ")), "{taken}");
}

#[tokio::test]
async fn an_empty_host_is_every_family_and_this_machine() {
    let Listener::Tcp(listener) = net::listen(":0", "tcp").await.expect("a free port") else {
        panic!("it is of TCP")
    };
    let port = listener.addr().port();
    for host in ["127.0.0.1", "::1", ""] {
        let client = net::dial(&net::join_host_port(host, port), "tcp").await.expect("it listens");
        let server = soon(listener.accept()).await.expect("it was dialed");
        assert_eq!(Ok(Addr::from(server.remote_addr())), client.local_addr());
    }
    for (network, loopback, other) in [("tcp4", "127.0.0.1", "::1"), ("tcp6", "::1", "127.0.0.1")] {
        let listener = net::listen_tcp(None, network).await.expect("a free port");
        let port = listener.addr().port();
        let client = net::dial(&format!(":{port}"), network).await.expect("it listens");
        let remote = client.remote_addr().expect("it is connected");
        assert_eq!(remote.ip_addr().expect("of TCP").to_string(), loopback);
        let other = net::dial(&net::join_host_port(other, port), "tcp").await.expect_err("not there");
        assert_eq!(io_kind(other), io::ErrorKind::ConnectionRefused);
    }
}

#[tokio::test]
async fn options_of_tcp() {
    let listener = net::listen_tcp(Some(&"127.0.0.1:0".parse().expect("one")), "tcp").await;
    let listener = listener.expect("a free port");
    let client = net::dial_tcp(None, &listener.addr(), "tcp").await.expect("it listens");
    let server = soon(listener.accept()).await.expect("it was dialed");
    client.set_no_delay(false).expect("it is open");
    client.set_keep_alive(true).expect("it is open");
    client.set_linger(None).expect("it is open");
    client.set_linger(std::time::Duration::ZERO).expect("it is open");
    client.close();
    assert!(client.set_no_delay(true).expect_err("it is closed").is_closed());
    let reset = soon(server.read(1)).await.expect_err("it was reset");
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn several_tasks_accept() {
    let listener = Arc::new(net::listen("127.0.0.1:0", "tcp").await.expect("a free port"));
    let accepting = |_| {
        let listener = Arc::clone(&listener);
        tokio::spawn(async move { listener.accept().await.expect("it is dialed").read(1).await })
    };
    let accepting: Vec<_> = (0..4).map(accepting).collect();
    for _ in 0..4 {
        let conn = net::dial(&listener.addr().to_string(), "tcp").await.expect("it listens");
        conn.write(b"x").await.expect("room");
    }
    for one in accepting {
        assert_eq!(soon(one).await.expect("no panic"), Ok(b"x".to_vec()));
    }
}
