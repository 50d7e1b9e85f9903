//! Attacks on a server over plain TCP, which clients of this crate never make.

use std::time::Duration;

use crate::common::{Bench, TEST_TIMEOUT};
use peersock_streams::{Closed, Limits, MAX_DATAGRAM, ServerEvent, ServerOptions, Timing, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn frames_may_be_cut_and_merged_anywhere() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    let mut stream = connect(&bench).await;
    let datagrams = [vec![1; 1], vec![2; 1400], vec![3; MAX_DATAGRAM]];
    // The first keepalive is split, too.
    let mut bytes = vec![0, 0];
    datagrams.iter().for_each(|datagram| bytes.extend(frame(datagram)));
    for chunk in bytes.chunks(977).flat_map(|chunk| chunk.split_at_checked(1).map(|(a, b)| [a, b])).flatten()
    {
        stream.write_all(chunk).await.expect("the server reads");
        tokio::task::yield_now().await;
    }
    let id = opened(&mut bench).await;
    for datagram in datagrams {
        assert_eq!(bench.datagram(id).await, datagram);
    }
}

#[tokio::test]
async fn a_frame_that_is_too_long_ends_the_connection() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    let mut stream = connect(&bench).await;
    let length = (MAX_DATAGRAM as u16 + 1).to_be_bytes();
    stream.write_all(&[&[0, 0], &length[..]].concat()).await.expect("the server reads");
    let id = opened(&mut bench).await;
    let reason = bench.closed(id).await;
    assert_eq!(reason, Closed::Malformed("a frame of 16385 bytes; at most 16384 are allowed".into()));
    until_end(&mut stream).await;
}

#[tokio::test]
async fn a_websocket_takes_datagrams_and_nothing_else() {
    // Headers of masked frames (RFC 6455, 5.2) with a mask of 0: text, an empty message, one that is too
    // long.
    let too_long = [&[0x82, 0xfe][..], &(MAX_DATAGRAM as u16 + 1).to_be_bytes(), &[0; 4]].concat();
    for bytes in [&[0x81, 0x81, 0, 0, 0, 0, b'a'][..], &[0x82, 0x80, 0, 0, 0, 0], &too_long, &[0x82, 0x01, 7]]
    {
        let mut bench = Bench::start(ServerOptions::default()).await;
        let mut stream = connect(&bench).await;
        let request = "GET /peersock HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        // A valid message first, in the same packet as the request.
        let bytes = [request.as_bytes(), &[0x82, 0x81, 0, 0, 0, 0, 9], bytes].concat();
        stream.write_all(&bytes).await.expect("the server reads");
        let id = opened(&mut bench).await;
        assert_eq!(bench.datagram(id).await, [9]);
        let reason = bench.closed(id).await;
        assert!(matches!(reason, Closed::Malformed(_)), "{reason:?}");
        let answer = String::from_utf8_lossy(&until_end(&mut stream).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    }
}

#[tokio::test]
async fn browsers_get_a_page() {
    let options = ServerOptions { page: "Hello.\n".into(), ..ServerOptions::default() };
    let bench = Bench::start(options).await;
    for (request, status, body) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "200 OK", "Hello.\n"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "200 OK", ""),
        ("GET /peersock HTTP/1.1\r\nHost: a\r\n\r\n", "426 Upgrade Required", "Hello.\n"),
        ("GET /x HTTP/1.0\r\n\r\n", "404 Not Found", "Hello.\n"),
    ] {
        let mut stream = connect(&bench).await;
        for byte in request.as_bytes() {
            stream.write_all(&[*byte]).await.expect("the server reads");
        }
        stream.shutdown().await.expect("connected");
        let answer = String::from_utf8(until_end(&mut stream).await).expect("text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    }
    let handle = bench.server.handle();
    eventually(|| handle.counters().pages.get() == 4).await;
    assert_eq!(handle.counters().opened.get(), 0);
}

#[tokio::test]
async fn what_is_none_of_the_transports_is_closed() {
    let bench = Bench::start(ServerOptions::default()).await;
    let long_head = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 10_000]].concat();
    for bytes in [&b"\x05\x01\x00"[..], b"ssh-2.0", b"\x16\x03\x01\x00\x04x\0\0\0", b"GET\0", &long_head] {
        let mut stream = connect(&bench).await;
        // The server may close the connection before everything is written.
        let _ = stream.write_all(bytes).await;
        until_end(&mut stream).await;
    }
    eventually(|| bench.server.handle().counters().handshakes_failed.get() == 5).await;
}

#[tokio::test]
async fn handshakes_have_a_time() {
    let limits = Limits { handshake_timeout: Duration::from_millis(200), ..Limits::default() };
    let bench = Bench::start(ServerOptions { limits, ..ServerOptions::default() }).await;
    // Nothing, half a TLS hello, half a request.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n"] {
        let mut stream = connect(&bench).await;
        stream.write_all(bytes).await.expect("the server reads");
        until_end(&mut stream).await;
    }
    eventually(|| bench.server.handle().counters().handshakes_timed_out.get() == 3).await;
}

#[tokio::test]
async fn one_source_has_a_part_of_the_connections() {
    let limits = Limits { per_prefix: 2, ..Limits::default() };
    let mut bench = Bench::start(ServerOptions { limits, ..ServerOptions::default() }).await;
    let (first, id) = bench.connect(Transport::Tcp).await;
    let (_second, other) = bench.connect(Transport::Tcp).await;
    assert!(bench.server.handle().admit(id) && bench.server.handle().admit(other));
    let mut third = connect(&bench).await;
    until_end(&mut third).await;
    assert_eq!(bench.server.handle().counters().refused_prefix.get(), 1);
    bench.end(first, id).await;
    // The server's task frees its place a moment after it has reported the end.
    eventually(|| bench.server.handle().connections() == 1).await;
    sleep(Duration::from_millis(50)).await;
    let _fourth = bench.connect(Transport::Tcp).await;
}

#[tokio::test]
async fn who_begins_no_session_keeps_out_nobody() {
    let limits = Limits { connections: 8, unadmitted: 4, ..Limits::default() };
    let mut bench = Bench::start(ServerOptions { limits, ..ServerOptions::default() }).await;
    let (user, id) = bench.connect(Transport::Tcp).await;
    assert!(bench.server.handle().admit(id));
    let mut held = Vec::new();
    for turn in 0..12 {
        // Nothing, half a TLS hello, half a request, and a complete beginning without a session.
        let bytes = [&b""[..], b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n", &[0, 0]][turn % 4];
        let mut stream = connect(&bench).await;
        stream.write_all(bytes).await.expect("the server reads");
        held.push(stream);
    }
    for transport in [Transport::Tls, Transport::WebSocket] {
        let (connector, target) = (bench.connector(), bench.target(transport));
        let connecting = timeout(TEST_TIMEOUT, connector.connect(&target)).await.expect("in time");
        let _connection = connecting.expect("there is room");
        // Others open and end in the meantime.
        while !matches!(bench.event().await, ServerEvent::Opened { transport: of, .. } if of == transport) {}
    }
    for stream in &mut held[..8] {
        until_end(stream).await;
    }
    let evicted = bench.server.handle().counters().evicted.get();
    assert!(evicted >= 8, "{evicted} of them have made room");
    drop(user);
    let reason = loop {
        if let ServerEvent::Closed { id: closed, reason } = bench.event().await
            && closed == id
        {
            break reason;
        }
    };
    assert_eq!(reason, Closed::There, "who has a session keeps its place");
}

#[tokio::test]
async fn a_program_that_takes_no_events_gets_no_more_of_them() {
    let limits = Limits { connections: 5, ..Limits::default() };
    let mut bench = Bench::start(ServerOptions { limits, ..ServerOptions::default() }).await;
    let handle = bench.server.handle();
    for _ in 0..30 {
        let mut stream = connect(&bench).await;
        // The server may refuse the connection before that.
        let _ = stream.write_all(&[0, 0]).await;
        let _ = stream.shutdown().await;
        until_end(&mut stream).await;
    }
    // Each connection has two events. One that ends at that moment may let one more in.
    let opened = handle.counters().opened.get();
    assert!(
        (5..=10).contains(&opened) && handle.counters().refused_overrun.get() > 0,
        "{:?}",
        handle.counters()
    );
    let mut events = Vec::new();
    while events.len() < 2 * opened as usize {
        bench.server.recv_many(&mut events, 100).await;
    }
    bench.connect(Transport::Tcp).await;
}

#[tokio::test]
async fn who_sends_byte_by_byte_is_not_alive() {
    let timing = Timing { dead_after: Duration::from_millis(400), ..Timing::default() };
    let mut bench = Bench::start(ServerOptions { timing, ..ServerOptions::default() }).await;
    let mut stream = connect(&bench).await;
    stream.write_all(&[0, 0, 0x40, 0]).await.expect("the server reads");
    let id = opened(&mut bench).await;
    let dripping = tokio::spawn(async move {
        while stream.write_all(&[7]).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(bench.closed(id).await, Closed::Silent(timing.dead_after));
    timeout(TEST_TIMEOUT, dripping).await.expect("the connection ends").expect("no panic");
}

#[tokio::test]
async fn a_stranger_occupies_little_memory() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    let mut stream = connect(&bench).await;
    let flood: Vec<u8> = (0..10_000u32).flat_map(|_| frame(&[7; 1000])).collect();
    stream.write_all(&[0, 0]).await.expect("the server reads");
    let id = opened(&mut bench).await;
    stream.write_all(&flood).await.expect("the server reads on, and drops");
    let handle = bench.server.handle();
    eventually(|| handle.traffic().received.get() == 10_000).await;
    let kept = 10_000 - handle.counters().inbox_dropped_full.get();
    assert!((1..=16).contains(&kept), "{kept} datagrams wait");
    drop(stream);
    let mut taken = 0;
    loop {
        match bench.event().await {
            ServerEvent::Datagram { .. } => taken += 1,
            ServerEvent::Closed { id: closed, .. } => break assert_eq!(closed, id),
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(taken + handle.counters().inbox_dropped_old.get(), kept);
}

fn frame(datagram: &[u8]) -> Vec<u8> {
    [&(datagram.len() as u16).to_be_bytes()[..], datagram].concat()
}

async fn connect(bench: &Bench) -> TcpStream {
    let stream = TcpStream::connect(bench.address).await.expect("the server listens");
    stream.set_nodelay(true).expect("TCP");
    stream
}

async fn opened(bench: &mut Bench) -> peersock_streams::ConnectionId {
    match bench.event().await {
        ServerEvent::Opened { id, .. } => id,
        event => panic!("{event:?} instead of a connection"),
    }
}

/// Reads until the other side ends the connection, in an orderly way or by a reset.
async fn until_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(TEST_TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("an end");
    bytes
}

async fn eventually(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TEST_TIMEOUT, waiting).await.expect("it becomes true");
}
