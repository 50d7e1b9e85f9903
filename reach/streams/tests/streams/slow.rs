//! Other ends that read slowly, or not at all, or vanish silently.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{Bench, TEST_TIMEOUT, transports};
use peersock_streams::{
    Closed, ConnectOptions, Connection, Connector, QueueLimits, ServerEvent, ServerOptions, Target, Timing,
    Transport,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

const LENGTH: usize = 1000;

#[tokio::test]
async fn to_a_slow_reader_little_is_under_way() {
    let (listener, connection) = slow_listener(ConnectOptions::default()).await;
    let (mut reader, _) = listener.accept().await.expect("the client has connected");
    let counters = connection.counters();
    let mut read = 0;
    let mut buffer = [0; 10_000];
    for turn in 0..2_000u32 {
        for _ in 0..10 {
            connection.send(vec![7; LENGTH]).expect("open");
        }
        // The reader takes a tenth of the traffic.
        if turn % 10 == 0 {
            read += reader.read(&mut buffer).await.expect("open");
        }
        // Bytes in the kernel and the encoder can no longer be dropped. Without a limit there would be
        // megabytes.
        let under_way = counters.sent_bytes.get() as usize - read.min(counters.sent_bytes.get() as usize);
        assert!(under_way < 80 << 10, "{under_way} bytes are under way in turn {turn}");
    }
    let dropped = counters.send_dropped_full.get() + counters.send_dropped_old.get();
    assert!(dropped > 10_000, "{counters:?}");
}

/// Tests that the separate buffers of TLS and WebSocket hold little, too.
#[tokio::test]
async fn on_a_slow_path_little_is_under_way_whatever_the_transport() {
    for transport in transports() {
        let mut bench = Bench::start(ServerOptions::default()).await;
        let path = SlowPath::to(bench.address);
        bench.address = path.address;
        let (connection, _) = bench.connect(transport).await;
        path.slow.store(true, Ordering::SeqCst);
        let (counters, before) = (connection.counters(), path.passed.load(Ordering::SeqCst));
        for turn in 0..1_000u32 {
            for _ in 0..10 {
                connection.send(vec![7; LENGTH]).expect("open");
            }
            if turn % 10 == 0 {
                path.pass.notify_one();
            }
            tokio::task::yield_now().await;
            let passed = path.passed.load(Ordering::SeqCst) - before;
            let under_way = counters.sent_bytes.get().saturating_sub(passed);
            assert!(under_way < 80 << 10, "{transport}: {under_way} bytes are under way in turn {turn}");
        }
        let dropped = counters.send_dropped_full.get() + counters.send_dropped_old.get();
        assert!(dropped > 5_000, "{transport}: {counters:?}");
    }
}

#[tokio::test]
async fn what_has_waited_too_long_is_not_sent() {
    let send_queue = QueueLimits { age: Duration::from_millis(100), ..QueueLimits::default() };
    let (listener, connection) =
        slow_listener(ConnectOptions { send_queue, ..ConnectOptions::default() }).await;
    let (mut reader, _) = listener.accept().await.expect("the client has connected");
    // More than the kernel takes without a reader, less than the queue.
    for _ in 0..400 {
        connection.send(vec![1; LENGTH]).expect("open");
    }
    sleep(Duration::from_millis(300)).await;
    let mut bytes = Vec::new();
    let reading = async {
        while bytes.last() != Some(&2) {
            // One of these datagrams does not get old, however slow the machine is.
            connection.send(vec![2; LENGTH]).expect("open");
            let mut chunk = [0; 4096];
            if let Ok(read) = timeout(Duration::from_millis(50), reader.read(&mut chunk)).await {
                bytes.extend_from_slice(&chunk[..read.expect("open")]);
            }
        }
    };
    timeout(TEST_TIMEOUT, reading).await.expect("a new one arrives");
    let counters = connection.counters();
    assert!(counters.send_dropped_old.get() > 50, "{counters:?}");
    let taken = bytes.iter().filter(|byte| **byte == 1).count() / LENGTH;
    assert!(taken < 350, "{taken} datagrams were sent");
}

#[tokio::test]
async fn a_program_that_does_not_read_loses_the_oldest() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    let receive_queue = QueueLimits { bytes: 10 * (100 + QueueLimits::OVERHEAD), age: TEST_TIMEOUT };
    bench.options.receive_queue = receive_queue;
    let (mut connection, id) = bench.connect(Transport::Tcp).await;
    for number in 0..50u8 {
        bench.server.handle().send(id, vec![number; 100]).expect("open");
    }
    let all_here = async {
        while connection.counters().received.get() < 50 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TEST_TIMEOUT, all_here).await.expect("the task reads on");
    assert_eq!(connection.counters().receive_dropped_full.get(), 40);
    for number in 40..50u8 {
        assert_eq!(connection.recv().await.expect("open"), vec![number; 100]);
    }
}

#[tokio::test]
async fn a_client_notices_that_nobody_answers() {
    let timing = quick();
    let (listener, mut connection) =
        slow_listener(ConnectOptions { timing, ..ConnectOptions::default() }).await;
    // The kernel accepts the connection, and no program reads it.
    assert_eq!(recv(&mut connection).await, Err(Closed::Silent(timing.dead_after)));
    assert!(connection.counters().keepalives_sent.get() >= 2, "{:?}", connection.counters());
    drop(listener);
}

#[tokio::test]
async fn a_doubted_end_that_does_not_answer_is_left_in_time() {
    // Tests this also when the kernel takes no more bytes for the connection.
    for flood in [0, 400] {
        let (listener, connection) = slow_listener(ConnectOptions::default()).await;
        let (sender, mut receiver) = connection.split();
        for _ in 0..flood {
            sender.send(vec![7; LENGTH]).expect("open");
        }
        tokio::task::yield_now().await;
        let patience = Duration::from_millis(300);
        sender.probe(patience);
        let ended = timeout(Timing::default().keepalive, receiver.recv()).await;
        assert_eq!(ended.expect("long before it would have been asked"), Err(Closed::Silent(patience)));
        drop(listener);
    }
}

#[tokio::test]
async fn a_doubted_end_that_answers_is_kept() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    for transport in transports() {
        let (connection, id) = bench.connect(transport).await;
        let (sender, mut receiver) = connection.split();
        let answered = sender.counters().keepalives_received.get();
        for round in 1..=3 {
            sender.probe(TEST_TIMEOUT);
            while sender.counters().keepalives_received.get() < answered + round {
                sleep(Duration::from_millis(1)).await;
            }
        }
        bench.server.handle().send(id, &b"still here"[..]).expect("open");
        assert_eq!(&receiver.recv().await.expect("open")[..], b"still here");
        drop((sender, receiver));
        assert_eq!(bench.closed(id).await, Closed::There);
    }
}

#[tokio::test]
async fn a_server_notices_that_a_client_is_silent() {
    let timing = quick();
    let mut bench = Bench::start(ServerOptions { timing, ..ServerOptions::default() }).await;
    let mut stream = TcpStream::connect(bench.address).await.expect("the server listens");
    stream.write_all(&[0, 0]).await.expect("open");
    let ServerEvent::Opened { id, .. } = bench.event().await else { panic!("a connection") };
    bench.server.handle().admit(id);
    assert_eq!(bench.closed(id).await, Closed::Silent(timing.dead_after));
}

#[tokio::test]
async fn keepalives_keep_idle_connections_for_any_time() {
    let timing = Timing { keepalive: Duration::from_millis(100), dead_after: Duration::from_secs(4) };
    let mut bench = Bench::start(ServerOptions { timing, ..ServerOptions::default() }).await;
    bench.options.timing = timing;
    let mut connections = Vec::new();
    for transport in transports() {
        connections.push(bench.connect(transport).await);
    }
    sleep(timing.dead_after + Duration::from_secs(1)).await;
    for (connection, id) in &mut connections {
        connection.send(&b"still here"[..]).expect("open");
        assert_eq!(bench.datagram(*id).await, b"still here");
        bench.server.handle().send(*id, &b"and there"[..]).expect("open");
        assert_eq!(recv(connection).await.expect("open"), b"and there");
        assert!(connection.counters().keepalives_received.get() > 5, "{:?}", connection.counters());
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_given_up() {
    let timing = quick();
    let mut bench = Bench::start(ServerOptions { timing, ..ServerOptions::default() }).await;
    let mut stream = TcpStream::connect(bench.address).await.expect("the server listens");
    stream.write_all(&[0, 0]).await.expect("open");
    let ServerEvent::Opened { id, .. } = bench.event().await else { panic!("a connection") };
    let handle = bench.server.handle();
    handle.admit(id);
    // The client keeps sending, so it is not silent.
    let talking = tokio::spawn(async move {
        while stream.write_all(&[0, 0]).await.is_ok() {
            sleep(timing.keepalive / 4).await;
        }
    });
    let flooding = tokio::spawn(async move {
        while handle.send(id, vec![7; 16_000]).is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(bench.closed(id).await, Closed::Stalled(timing.dead_after));
    timeout(TEST_TIMEOUT, async { (talking.await, flooding.await) })
        .await
        .expect("both end")
        .0
        .expect("no panic");
}

fn quick() -> Timing {
    Timing { keepalive: Duration::from_millis(200), dead_after: Duration::from_secs(2) }
}

/// A path that first forwards a client's bytes at once, and after it has become slow, a little on demand.
struct SlowPath {
    address: SocketAddr,
    slow: Arc<AtomicBool>,
    pass: Arc<Notify>,
    /// Number of bytes read from the client.
    passed: Arc<AtomicU64>,
}

impl SlowPath {
    /// Makes a path for one connection.
    fn to(server: SocketAddr) -> SlowPath {
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        let path = SlowPath { address, slow: Arc::default(), pass: Arc::default(), passed: Arc::default() };
        let (slow, pass, passed) = (path.slow.clone(), path.pass.clone(), path.passed.clone());
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("a client");
            let server = TcpStream::connect(server).await.expect("it listens");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let mut buffer = [0; 4096];
            loop {
                if slow.load(Ordering::SeqCst) {
                    pass.notified().await;
                }
                match from_client.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => {
                        passed.fetch_add(read as u64, Ordering::SeqCst);
                        to_server.write_all(&buffer[..read]).await.expect("the server reads");
                    }
                }
            }
        });
        path
    }
}

/// Makes a listener with a small receive buffer, as on a slow path.
fn listener() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    socket.listen(1).expect("bound")
}

/// Makes such a listener, and a connection to it.
async fn slow_listener(options: ConnectOptions) -> (Arc<TcpListener>, Connection) {
    let listener = listener();
    let address = listener.local_addr().expect("bound");
    let target = Target::new(Transport::Tcp, address.ip().to_string(), address.port());
    let connection = Connector::new(options).connect(&target).await.expect("it listens");
    (Arc::new(listener), connection)
}

async fn recv(connection: &mut Connection) -> Result<Vec<u8>, Closed> {
    timeout(TEST_TIMEOUT, connection.recv()).await.expect("in time").map(|datagram| datagram.to_vec())
}
