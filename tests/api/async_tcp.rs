//! Asynchronous sockets: on tokio, and on an executor without tokio.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use peersock::{CongestionControl, TcpListener, TcpStream, UdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{member, network, pair, pattern};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn megabytes_are_echoed_exactly() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
    let echo = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let (mut reader, mut writer) = stream.into_split();
        tokio::io::copy(&mut reader, &mut writer).await.expect("echo")
    });
    let stream = TcpStream::connect_on(&client, (joined.address(), 1000)).await.expect("connect");
    let data = pattern(1, 8 << 20);
    let (mut reader, mut writer) = stream.into_split();
    let sent = data.clone();
    let sender = tokio::spawn(async move {
        writer.write_all(&sent).await.expect("write");
        writer.shutdown().await.expect("shutdown");
        writer
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.expect("read");
    assert!(got == data);
    assert_eq!(echo.await.expect("the echo ends"), data.len() as u64);
    reader.reunite(sender.await.expect("the sender ends")).expect("halves of one stream");
}

#[tokio::test]
async fn congestion_control_can_be_changed_while_data_moves() {
    let (node, joined) = member(network());
    let listener = TcpListener::bind_on(&node, (joined.address(), 1000)).await.expect("bind");
    let mut client =
        TcpStream::connect_on(&node, listener.local_addr().expect("address")).await.expect("connect");
    let (mut server, _) = listener.accept().await.expect("accept");
    for (round, congestion) in (1..).zip(CongestionControl::ALL) {
        client.set_congestion_control(congestion).expect("it stands");
        client.write_all(&[1; 10_000]).await.expect("write");
        server.read_exact(&mut [0; 10_000]).await.expect("read");
        let (sender, receiver) = (client.info().expect("it stands"), server.info().expect("it stands"));
        assert_eq!(
            (sender.congestion, client.congestion_control().expect("it stands")),
            (congestion, congestion)
        );
        assert_eq!(receiver.received, round * 10_000);
        assert!(sender.congestion_window > 0);
    }
    client.set_keepalive(Some(std::time::Duration::from_secs(10))).expect("it stands");
    client.set_user_timeout(None).expect("it stands");
}

#[tokio::test]
async fn errors_have_the_right_kind() {
    let [(_keep, joined), (node, _)] = pair();
    let refused = TcpStream::connect_on(&node, (joined.address(), 1001)).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let unreachable = TcpStream::connect_on(&node, "192.0.2.1:1000").await.expect_err("no such network");
    assert_eq!(unreachable.kind(), ErrorKind::NetworkUnreachable);
}

#[tokio::test]
async fn readiness_try_read_and_peek() {
    let (node, joined) = member(network());
    let listener = TcpListener::bind_on(&node, (joined.address(), 1000)).await.expect("bind");
    let client =
        TcpStream::connect_on(&node, listener.local_addr().expect("address")).await.expect("connect");
    let (server, _) = listener.accept().await.expect("accept");
    assert_eq!(server.try_read(&mut [0; 1]).expect_err("nothing yet").kind(), ErrorKind::WouldBlock);
    client.writable().await.expect("writable");
    assert_eq!(client.try_write(b"abc").expect("room"), 3);
    server.readable().await.expect("readable");
    let mut buf = [0; 8];
    assert_eq!(server.peek(&mut buf).await.expect("peek"), 3);
    assert_eq!(server.try_read(&mut buf).expect("data"), 3);
    assert_eq!(&buf[..3], b"abc");
}

#[tokio::test]
async fn datagrams_come_back_to_their_sender() {
    let [(server, joined), (client, _)] = pair();
    let echo = UdpSocket::bind_on(&server, "[::]:1000").await.expect("bind");
    let socket = UdpSocket::bind_on(&client, "[::]:0").await.expect("bind");
    let server = tokio::spawn(async move {
        let mut buf = [0; 2048];
        let (n, from) = echo.recv_from(&mut buf).await.expect("receive");
        echo.send_to(&buf[..n], from).await.expect("send");
    });
    socket.connect((joined.address(), 1000)).await.expect("connect");
    socket.send(b"datagram").await.expect("send");
    let mut buf = [0; 2048];
    let n = socket.recv(&mut buf).await.expect("receive");
    assert_eq!(&buf[..n], b"datagram");
    server.await.expect("the server ends");
}

#[test]
fn any_executor_will_do() {
    let [(server, joined), (client, _)] = pair();
    block_on(async {
        let listener = TcpListener::bind_on(&server, "[::]:1000").await.expect("bind");
        let mut stream = TcpStream::connect_on(&client, (joined.address(), 1000)).await.expect("connect");
        let (mut accepted, _) = listener.accept().await.expect("accept");
        stream.write_all(b"no runtime").await.expect("write");
        let mut buf = [0; 10];
        accepted.read_exact(&mut buf).await.expect("read");
        assert_eq!(&buf, b"no runtime");
    });
}

/// Runs a future on the smallest executor: one thread that sleeps until its future is woken.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
