//! Deadlines, and connections closed while a task waits: over TCP, Unix domain sockets and the overlay.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_net::{self as net, Conn, Dialer, Listener, SocketError, TcpAddr, UdpAddr};
use tokio::task::JoinHandle;

use crate::common::{Members, TEST_TIMEOUT, dialed, listening, soon};

/// A call that blocks until another task ends it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Read,
    ReadLine,
    Write,
    Accept,
}

const CALLS: [Call; 4] = [Call::Read, Call::ReadLine, Call::Write, Call::Accept];

/// Two connected ends, and a listener beside them.
#[derive(Clone)]
struct Ends {
    listener: Arc<Listener>,
    client: Arc<Conn>,
    server: Arc<Conn>,
    _node: Option<Arc<Members>>,
}

impl Ends {
    async fn over(place: &str, folder: &std::path::Path) -> Ends {
        if place != "overlay" {
            let listener = listening(place, folder).await;
            let (client, server) = dialed(&Dialer::new(), &listener).await;
            return Ends::new(listener, client, server, None);
        }
        let members = Members::new();
        let at = net::join_host_port(&members.there.1.address().to_string(), 0);
        let listener = members.there().listen(&at, "tcp").await.expect("a free port");
        let (client, server) = dialed(&members.dialer(), &listener).await;
        Ends::new(listener, client, server, Some(Arc::new(members)))
    }

    fn new(listener: Listener, client: Conn, server: Conn, node: Option<Arc<Members>>) -> Ends {
        let (client, server) = (Arc::new(client), Arc::new(server));
        Ends { listener: Arc::new(listener), client, server, _node: node }
    }

    async fn call(&self, call: Call) -> Result<(), SocketError> {
        match call {
            Call::Read => self.client.read(100).await.map(drop),
            Call::ReadLine => self.client.read_line(100).await.map(drop),
            Call::Write => self.client.write(&vec![0; 1 << 26]).await.map(drop),
            Call::Accept => self.listener.accept().await.map(drop),
        }
    }

    /// Starts a task that waits in the call.
    async fn waiting(&self, call: Call) -> JoinHandle<Result<(), SocketError>> {
        let (sender, begun) = tokio::sync::oneshot::channel();
        let ends = self.clone();
        let task = tokio::spawn(async move {
            let mut sender = Some(sender);
            let mut call: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(ends.call(call));
            std::future::poll_fn(|cx| {
                let polled = call.as_mut().poll(cx);
                if let Some(sender) = sender.take() {
                    let _ = sender.send(());
                }
                polled
            })
            .await
        });
        soon(begun).await.expect("it begins");
        task
    }

    fn close(&self, call: Call) {
        if call == Call::Accept { self.listener.close() } else { self.client.close() }
    }

    fn set_deadline(&self, call: Call, deadline: Option<Instant>) -> Result<(), SocketError> {
        match (call, &*self.listener) {
            (Call::Accept, Listener::Tcp(listener)) => listener.set_deadline(deadline),
            (Call::Accept, Listener::Unix(listener)) => listener.set_deadline(deadline),
            _ => self.client.set_deadline(deadline),
        }
    }
}

/// Runs a test over each kind of connection.
async fn each<F: Future<Output = ()>>(test: impl Fn(Ends) -> F) {
    for place in ["127.0.0.1:0", "unix", "overlay"] {
        let folder = tempfile::tempdir().expect("a folder");
        test(Ends::over(place, folder.path()).await).await;
    }
}

/// Runs a test as [`each`] does, for each call with fresh connections.
async fn each_call<F: Future<Output = ()>>(test: impl Fn(Ends, Call) -> F) {
    for call in CALLS {
        each(|ends| test(ends, call)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_ends_what_waits_in_other_tasks() {
    each_call(async |ends, call| {
        // The second call waits for the first.
        let told = [ends.waiting(call).await, ends.waiting(call).await];
        ends.close(call);
        for one in told {
            let error = soon(one).await.expect("no panic").expect_err("it is closed");
            assert!(error.is_closed(), "{error}");
            assert!(error.to_string().ends_with(": use of closed network connection"), "{error}");
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        }
        assert!(ends.call(call).await.expect_err("it is closed").is_closed());
        ends.close(call);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_wakes_what_waits_in_other_tasks() {
    each_call(async |ends, call| {
        let told = [ends.waiting(call).await, ends.waiting(call).await];
        ends.set_deadline(call, Some(Instant::now())).expect("it is open");
        let mut written = 0;
        for one in told {
            let error = soon(one).await.expect("no panic").expect_err("the deadline is over");
            assert!(error.is_deadline(), "{error}");
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
            written += error.written();
        }
        assert_eq!(call == Call::Write, written > 0, "{written} bytes");
        assert!(written < 1 << 26);
        // Later calls also fail.
        assert!(soon(ends.call(call)).await.expect_err("the deadline is over").is_deadline());
    })
    .await;
}

#[tokio::test]
async fn a_deadline_comes_by_itself() {
    each_call(async |ends, call| {
        let at = Instant::now() + Duration::from_millis(50);
        ends.set_deadline(call, Some(at)).expect("it is open");
        assert!(soon(ends.call(call)).await.expect_err("the deadline is over").is_deadline());
        assert!(Instant::now() >= at);
    })
    .await;
}

#[tokio::test]
async fn an_expired_deadline_fails_also_where_something_is_there() {
    each(async |ends| {
        let (client, server) = (&ends.client, &ends.server);
        client.write(b"-here\n").await.expect("room");
        assert_eq!(soon(server.read(1)).await, Ok(b"-".to_vec()));
        server.set_read_deadline(Instant::now()).expect("it is open");
        assert!(server.read(1).await.expect_err("the deadline is over").is_deadline());
        assert!(server.read_line(9).await.expect_err("the deadline is over").is_deadline());
        // Writes have a separate deadline.
        assert_eq!(server.write(b"x").await, Ok(1));
        // Reads work again with a new deadline, or without one.
        server.set_read_deadline(Instant::now() + TEST_TIMEOUT).expect("it is open");
        assert_eq!(soon(server.read(2)).await, Ok(b"he".to_vec()));
        server.set_deadline(Instant::now()).expect("it is open");
        server.set_deadline(None).expect("it is open");
        assert_eq!(soon(server.read_line(9)).await, Ok(b"re\n".to_vec()));
        server.set_write_deadline(Instant::now()).expect("it is open");
        assert!(server.write(b"x").await.expect_err("the deadline is over").is_deadline());
        assert_eq!(soon(client.read(9)).await, Ok(b"x".to_vec()));
    })
    .await;
}

#[tokio::test]
async fn a_later_deadline_counts_for_who_waits() {
    each(async |ends| {
        ends.client.set_read_deadline(Instant::now() + TEST_TIMEOUT).expect("it is open");
        let told = ends.waiting(Call::Read).await;
        ends.client.set_read_deadline(None).expect("it is open");
        ends.server.write(b"late").await.expect("room");
        assert_eq!(soon(told).await.expect("no panic"), Ok(()));
    })
    .await;
}

#[tokio::test]
async fn who_gives_up_leaves_the_turn_to_the_next() {
    each(async |ends| {
        let first = ends.waiting(Call::Read).await;
        let second = ends.waiting(Call::ReadLine).await;
        first.abort();
        assert!(soon(first).await.expect_err("it was aborted").is_cancelled());
        ends.server.write(b"line\n").await.expect("room");
        assert_eq!(soon(second).await.expect("no panic"), Ok(()));
    })
    .await;
}

#[tokio::test]
async fn a_closed_connection_refuses_everything() {
    each(async |ends| {
        let client = &ends.client;
        client.close();
        for result in [
            client.read(1).await.map(drop),
            client.read_line(1).await.map(drop),
            client.read_into(&mut [0]).await.map(drop),
            client.read_from(1).await.map(drop),
            client.write(b"x").await.map(drop),
            client.write_to(b"x", &ends.listener.addr()).await.map(drop),
            client.close_read(),
            client.close_write(),
            client.set_deadline(None),
            client.set_read_deadline(None),
            client.set_write_deadline(Instant::now()),
        ] {
            assert!(result.expect_err("it is closed").is_closed());
        }
        assert_eq!(soon(ends.server.read(1)).await, Ok(Vec::new()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_is_free_when_close_returns() {
    let members = Members::new();
    for host in ["127.0.0.1".to_owned(), members.there.1.address().to_string()] {
        let mut addr: TcpAddr = net::join_host_port(&host, 0).parse().expect("an address");
        for _ in 0..50 {
            let listener =
                Arc::new(members.there().listen_tcp(Some(&addr), "tcp").await.expect("it is free"));
            addr = listener.addr();
            let waiting = Arc::clone(&listener);
            let told = tokio::spawn(async move { waiting.accept().await.map(drop) });
            tokio::task::yield_now().await;
            listener.close();
            drop(listener);
            let again = members.there().listen_tcp(Some(&addr), "tcp").await;
            drop(again.expect("it is free"));
            assert!(soon(told).await.expect("no panic").expect_err("it is closed").is_closed());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_end_in_the_same_ways() {
    let members = Members::new();
    for host in ["127.0.0.1".to_owned(), members.there.1.address().to_string()] {
        let addr: UdpAddr = net::join_host_port(&host, 0).parse().expect("an address");
        let conn = Arc::new(members.there().listen_udp(Some(&addr), "udp").await.expect("a free port"));
        let own = conn.local_addr().expect("it is bound");
        let waiting = || {
            let conn = Arc::clone(&conn);
            tokio::spawn(async move { conn.read_from(1).await.map(drop) })
        };
        let told = waiting();
        tokio::task::yield_now().await;
        conn.set_read_deadline(Instant::now()).expect("it is open");
        assert!(soon(told).await.expect("no panic").expect_err("it is over").is_deadline());
        conn.set_read_deadline(None).expect("it is open");
        let told = waiting();
        tokio::task::yield_now().await;
        conn.close();
        assert!(soon(told).await.expect("no panic").expect_err("it is closed").is_closed());
        assert!(conn.write_to(b"x", &own).await.expect_err("it is closed").is_closed());
        assert!(conn.local_addr().expect_err("it is closed").is_closed());
    }
}

#[tokio::test]
async fn a_dial_has_a_timeout() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s").to_str().expect("a path in Unicode").to_owned();
    let _listener = net::listen(&path, "unix").await.expect("a new path");
    let dialer = Dialer::new().timeout(Duration::from_millis(200));
    let mut waiting = Vec::new();
    // Dials until the backlog is full.
    let error = loop {
        match dialer.dial(&path, "unix").await {
            Ok(conn) => waiting.push(conn),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100_000);
    };
    assert_eq!(error.to_string(), format!("dial unix {path}: deadline exceeded"));
    // The member is down.
    let members = Members::new();
    members.there.0.shutdown(Duration::ZERO);
    let dialer = members.dialer().timeout(Duration::from_millis(100));
    let error = dialer.dial("10.77.0.2:80", "tcp").await.expect_err("nobody answers");
    assert_eq!(error.to_string(), "dial tcp 10.77.0.2:80: deadline exceeded");
}
