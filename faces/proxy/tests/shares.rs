//! Limits of a member's places: its clients are counted together at all its addresses.

use std::hash::{BuildHasher as _, RandomState};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peersock::overlay::Identity;
use peersock::{IdentitySource, Interfaces, Joined, Network, Node, Seed, TcpStream, UdpSocket};
use peersock_proxy::{
    Activated, Credentials, Event, Forward, ForwardSettings, Forwards, Proxy, ProxySettings, Stopper,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

/// Timeout, longer than anything takes; tests do not depend on speed.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Places in total: a member gets half of them.
const MAX_PLACES: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_does_not_take_all_connections_of_a_forward() {
    let members = Members::new();
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = service.local_addr().unwrap().to_string();
    tokio::spawn(greet(service));
    let (places, _events, _stopper) = forward(&members, "overlay:0", &remote).await;
    let mut held = Vec::new();
    for place in &places {
        let mut client = connected(&members.greedy, *place).await;
        assert_eq!(greeting(&mut client).await.unwrap(), *b"hello");
        held.push(client);
    }
    for place in &places {
        // The reset may come before the client sees the connection.
        let refused = match soon(TcpStream::connect_on(&members.greedy.0, *place)).await {
            Ok(mut client) => greeting(&mut client).await.expect_err("a third one"),
            Err(refused) => refused,
        };
        assert_eq!(refused.kind(), ErrorKind::ConnectionReset, "{place}");
    }
    let mut other = connected(&members.other, places[0]).await;
    assert_eq!(greeting(&mut other).await.unwrap(), *b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_does_not_take_all_flows_of_datagrams() {
    let members = Members::new();
    let service = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let remote = format!("udp:{}", service.local_addr().unwrap());
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        while let Ok((count, from)) = service.recv_from(&mut buffer).await {
            let _ = service.send_to(&buffer[..count], from).await;
        }
    });
    // Each own address has a socket, and both share the places.
    let (places, mut events, _stopper) = forward(&members, "udp:overlay:0", &remote).await;
    let mut held = Vec::new();
    for place in &places {
        held.push(answered(&members.greedy, *place, &mut events).await.expect("there is room"));
    }
    for place in &places {
        assert!(answered(&members.greedy, *place, &mut events).await.is_none(), "{place}");
    }
    answered(&members.other, places[0], &mut events).await.expect("it has places of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_does_not_take_all_connections_and_associations_of_a_proxy() {
    let members = Members::new();
    let listen = vec!["overlay:0".parse().unwrap()];
    let settings = ProxySettings { listen, without_password: true, ..ProxySettings::default() };
    let tell = Arc::new(|_| {});
    let proxy = Proxy::listen(&members.here.0, settings, &mut Activated::none(), tell).await.unwrap();
    let places: Vec<_> = proxy.places().iter().map(|place| address(&place.to_string())).collect();
    let _stopper = Stopping(proxy.stopper());
    tokio::spawn(proxy.run());
    // A quarter of the connections, and half of the 64 associations.
    let mut held = Vec::new();
    for number in 0..32 {
        let (client, reply) = associate(&members.greedy, places[number % 2]).await;
        assert_eq!(reply, 0, "{number}");
        held.push(client);
    }
    for place in &places {
        assert_eq!(associate(&members.greedy, *place).await.1, 1, "general failure");
    }
    assert_eq!(associate(&members.other, places[0]).await.1, 0);
}

/// Tests that silent clients make room where all clients look alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_say_nothing_keep_out_nobody() {
    let members = Members::new();
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = service.local_addr().unwrap();
    tokio::spawn(echo(service));
    let credentials = Some(Credentials::parse("anna:pw").unwrap());
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let settings =
        ProxySettings { listen, credentials, direct: true, most: MAX_PLACES, ..ProxySettings::default() };
    let tell = Arc::new(|_| {});
    let proxy = Proxy::listen(&members.here.0, settings, &mut Activated::none(), tell).await.unwrap();
    let place = proxy.places()[0].to_string();
    let _stopper = Stopping(proxy.stopper());
    tokio::spawn(proxy.run());
    // A client that has sent its password keeps its place in any case.
    let connect = format!("CONNECT {remote} HTTP/1.1\r\nProxy-Authorization: Basic YW5uYTpwdw==\r\n\r\n");
    let mut user = tokio::net::TcpStream::connect(&place).await.unwrap();
    user.write_all(connect.as_bytes()).await.unwrap();
    assert!(head(&mut user).await.starts_with("HTTP/1.1 200 "));
    let mut held = Vec::new();
    for turn in 0..8 * MAX_PLACES {
        let mut silent = tokio::net::TcpStream::connect(&place).await.unwrap();
        let said: &[u8] = [b"".as_slice(), b"CONNECT x", b"\x05", b"\x05\x01\x02\x01\x04anna"][turn % 4];
        silent.write_all(said).await.unwrap();
        held.push(silent);
        if turn % MAX_PLACES == MAX_PLACES - 1 {
            let mut new = tokio::net::TcpStream::connect(&place).await.unwrap();
            new.write_all(connect.as_bytes()).await.unwrap();
            assert!(head(&mut new).await.starts_with("HTTP/1.1 200 "), "{turn}");
            assert_eq!(echoed(&mut user).await, *b"hello", "{turn}");
            let by_http = new;
            // The same with SOCKS.
            let mut new = tokio::net::TcpStream::connect(&place).await.unwrap();
            new.write_all(b"\x05\x01\x02\x01\x04anna\x02pw\x05\x01\x00\x01\x7f\x00\x00\x01").await.unwrap();
            new.write_all(&remote.port().to_be_bytes()).await.unwrap();
            let mut replies = [0; 14];
            soon(new.read_exact(&mut replies)).await.unwrap();
            assert_eq!(replies[..6], [5, 2, 1, 0, 5, 0], "{turn}");
            // They have shown a password, so the proxy refuses others until it has noticed that they are
            // gone.
            for mut client in [by_http, new] {
                client.shutdown().await.unwrap();
                assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0, "{turn}");
            }
        }
    }
}

/// Tests that a forward, which asks for no proof, keeps every client that has sent or received data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_forward_that_say_nothing_make_room() {
    for new_at in 0..2 {
        let members = Members::new();
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = service.local_addr().unwrap().to_string();
        tokio::spawn(echo(service));
        let (places, _events, _stopper) = forward(&members, "overlay:0", &remote).await;
        let mut user = connected(&members.greedy, places[0]).await;
        user.write_all(b"hello").await.unwrap();
        assert_eq!(greeting(&mut user).await.unwrap(), *b"hello");
        let mut held = JoinSet::new();
        for turn in 0..4 * MAX_PLACES {
            // The reset may come before the client sees the connection.
            match soon(TcpStream::connect_on(&members.greedy.0, places[turn % 2])).await {
                Ok(mut client) => drop(held.spawn(async move { client.read(&mut [0; 1]).await })),
                Err(refused) => assert_eq!(refused.kind(), ErrorKind::ConnectionReset, "{turn}"),
            }
        }
        // Each place accepts separately. When only the user and one of these clients hold the member's
        // places, all have been accepted, and none can evict a client that comes now.
        while held.len() > MAX_PLACES / 2 - 1 {
            soon(held.join_next()).await;
        }
        let mut new = connected(&members.greedy, places[new_at]).await;
        for client in [&mut new, &mut user] {
            client.write_all(b"hello").await.unwrap();
            assert_eq!(greeting(client).await.unwrap(), *b"hello", "{new_at}");
        }
    }
}

/// Three members of a network, with two addresses each.
struct Members {
    here: (Node, Joined),
    greedy: (Node, Joined),
    other: (Node, Joined),
}

impl Members {
    fn new() -> Members {
        let random = RandomState::new().hash_one(());
        let seed = |number: u64| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(random ^ number).to_be_bytes());
            seed
        };
        let member = |number: u64| {
            let key = Identity::from_seed(&seed(number)).public().to_string();
            format!("[[member]]\nkey = \"{key}\"\naddresses = [\"10.79.0.{number}\"]\n")
        };
        let file = format!("network = \"fe{:014x}\"\n{}{}{}", random >> 8, member(1), member(2), member(3));
        let start = |number: u64| {
            let builder = Node::builder().identity(IdentitySource::Seed(Seed(seed(number))));
            let node = builder.interfaces(Interfaces::Loopback).start().expect("a node on loopback");
            let joined = node.join(Network::parse_toml(&file).expect("a valid file"));
            (node, joined.expect("it is joined once"))
        };
        let [here, greedy, other] = [1, 2, 3].map(start);
        for one in [&greedy, &other] {
            here.1.wait_peer(one.1.address().into(), TEST_TIMEOUT).expect("they find each other");
        }
        Members { here, greedy, other }
    }
}

/// Ends the server with the test.
struct Stopping(Stopper);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.stop(Duration::ZERO);
    }
}

/// Starts a forward of the first member, which has a place at each of its addresses.
async fn forward(
    members: &Members,
    local: &str,
    remote: &str,
) -> (Vec<SocketAddr>, UnboundedReceiver<Event>, Stopping) {
    let (forward, mut activated) = ([Forward::parse(local, remote).unwrap()], Activated::none());
    let settings = ForwardSettings { most: MAX_PLACES, ..ForwardSettings::default() };
    let (told, events) = unbounded_channel();
    let tell = Arc::new(move |event| drop(told.send(event)));
    let listening = Forwards::listen(&members.here.0, &forward, settings, &mut activated, tell);
    let forwards = listening.await.unwrap();
    let places: Vec<_> = forwards.lines().iter().map(|line| address(line)).collect();
    assert_eq!(places.len(), 2, "{places:?}");
    let stopping = Stopping(forwards.stopper());
    tokio::spawn(forwards.run());
    (places, events, stopping)
}

/// Returns the address in a place or in a line.
fn address(line: &str) -> SocketAddr {
    let place = line.split(' ').next().unwrap();
    let (_, at) = place.split_once("overlay:").unwrap();
    at.parse().unwrap()
}

async fn connected(member: &(Node, Joined), place: SocketAddr) -> TcpStream {
    soon(TcpStream::connect_on(&member.0, place)).await.expect("it listens")
}

/// Greets each client, and keeps the connection.
async fn greet(service: TcpListener) {
    let mut clients = Vec::new();
    while let Ok((mut client, _)) = service.accept().await {
        let _ = client.write_all(b"hello").await;
        clients.push(client);
    }
}

/// Sends everything back.
async fn echo(service: TcpListener) {
    while let Ok((mut client, _)) = service.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = client.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
    }
}

async fn echoed(client: &mut tokio::net::TcpStream) -> [u8; 5] {
    let mut answer = [0; 5];
    client.write_all(b"hello").await.unwrap();
    soon(client.read_exact(&mut answer)).await.unwrap();
    answer
}

/// Reads the head of an answer.
async fn head(client: &mut tokio::net::TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(client.read_u8()).await.expect("an answer"));
    }
    String::from_utf8(head).unwrap()
}

async fn greeting(client: &mut TcpStream) -> std::io::Result<[u8; 5]> {
    let mut greeting = [0; 5];
    soon(client.read_exact(&mut greeting)).await.map(|_| greeting)
}

/// Makes a socket whose datagram is answered; `None` if the forward reports that it has no room.
async fn answered(
    member: &(Node, Joined),
    place: SocketAddr,
    events: &mut UnboundedReceiver<Event>,
) -> Option<UdpSocket> {
    let own: IpAddr = if place.is_ipv4() { ipv4(member) } else { member.1.address().into() };
    let socket = UdpSocket::bind_on(&member.0, (own, 0)).await.unwrap();
    let own = socket.local_addr().unwrap().to_string();
    let asked = async {
        let mut buffer = [0; 100];
        loop {
            socket.send_to(b"question", place).await.unwrap();
            tokio::select! {
                answer = socket.recv_from(&mut buffer) => {
                    answer.unwrap();
                    return true;
                }
                Some(event) = events.recv() => {
                    if matches!(&event, Event::Full { client } if *client == own) {
                        return false;
                    }
                }
                // A datagram may be lost.
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    };
    soon(asked).await.then_some(socket)
}

fn ipv4(member: &(Node, Joined)) -> IpAddr {
    member.1.addresses().into_iter().find(IpAddr::is_ipv4).expect("the file gives it one")
}

/// Requests UDP ASSOCIATE. Returns the connection and the code of the reply.
async fn associate(member: &(Node, Joined), place: SocketAddr) -> (TcpStream, u8) {
    let mut client = connected(member, place).await;
    client.write_all(&[5, 1, 0]).await.unwrap();
    let mut chosen = [0; 2];
    soon(client.read_exact(&mut chosen)).await.unwrap();
    client.write_all(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    let mut reply = [0; 2];
    soon(client.read_exact(&mut reply)).await.unwrap();
    (client, reply[1])
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, what).await.expect("it does not take for ever")
}
