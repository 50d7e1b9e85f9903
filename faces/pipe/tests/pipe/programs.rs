//! The example programs.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::common::{Members, soon};

#[expect(dead_code, reason = "the tests call what its main does")]
#[path = "../../examples/pipe_echo.rs"]
mod pipe_echo;
#[expect(dead_code, reason = "the tests call what its main does")]
#[path = "../../examples/pipe_node.rs"]
mod pipe_node;
#[expect(dead_code, reason = "the tests call what its main does")]
#[path = "../../examples/pipe_relay.rs"]
mod pipe_relay;

#[tokio::test]
async fn the_echo_server_answers_by_both_protocols_and_families() {
    let mut said = Vec::new();
    soon(pipe_echo::run(&mut said)).await.expect("all is well");
    let expected = "TCP 127.0.0.1 hello\nUDP 127.0.0.1 hello\nTCP ::1 hello\nUDP ::1 hello\n";
    assert_eq!(String::from_utf8_lossy(&said), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_asks_another_one() {
    let members = Members::new();
    let (mut text, mut answer) = (Vec::new(), Vec::new());
    let _there = soon(pipe_node::run(&members.there.0, None, &mut text)).await.expect("it is in a network");
    let text = String::from_utf8(text).expect("text");
    soon(pipe_node::run(&members.here.0, Some(&text), &mut answer)).await.expect("it is there");
    assert_eq!(answer, b"PONG\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_joins_both_networks() {
    let members = Members::new();
    let target = members.listening(peersock_pipe::Proto::Tcp, members.hosts()[1]).await;
    let (output, said) = tokio::io::duplex(100);
    let server = pipe_relay::run(&members.here.0, target.local_addr(), 0, said);
    let server = soon(server).await.expect("a free port");
    let mut port = String::new();
    soon(BufReader::new(output).read_line(&mut port)).await.expect("it says its port");
    let at = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().expect("a port")));
    // A client that is no pipe. Data that arrives before the other side is open waits.
    let mut client = soon(tokio::net::TcpStream::connect(at)).await.expect("it listens");
    client.write_all(b"through the relay").await.expect("room");
    let mut back = [0; 17];
    soon(client.read_exact(&mut back)).await.expect("it comes back");
    assert_eq!(&back, b"through the relay");
    // The end of one is the end of the other.
    drop(client);
    crate::common::until(|| server.clients().is_empty() && target.clients().is_empty()).await;
    // If no server listens, the client gets the end.
    soon(target.close()).await;
    let mut client = soon(tokio::net::TcpStream::connect(at)).await.expect("it listens");
    assert_eq!(soon(client.read(&mut back)).await.expect("an end"), 0);
}
