//! A proxy with access to the system's network fails closed: what may be meant for the overlay does not leave
//! elsewhere while the node does not answer.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peersock::state::StateDir;
use peersock::{IdentitySource, Interfaces, Network, Node};
use peersock_attach::{Ask, Attached, Connection, Reply, Wish};
use peersock_attached::Member;
use peersock_proxy::{Activated, Proxy, ProxySettings};
use peersock_socket_server::FdServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Timeout of anything; tests do not depend on speed.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_led_to_the_system_while_the_node_does_not_answer() {
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.start().expect("a node on loopback");
    let joined = node.join(Network::ad_hoc("ff0001ffff000000".parse().unwrap())).expect("a new network");
    let server = FdServer::start(&node).expect("descriptors");
    let place = tempfile::tempdir().expect("room");
    let member = Member::new(attach(place.path(), server.environment())).expect("it answers");
    let service = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = service.local_addr().expect("it is bound").port();
    let listen = vec!["127.0.0.1:0".parse().expect("a place")];
    let settings = ProxySettings { listen, direct: true, ..ProxySettings::default() };
    let proxy = Proxy::listen(&member, settings, &mut Activated::none(), Arc::new(|_| {})).await;
    let proxy = proxy.expect("a free port");
    let place: SocketAddr = proxy.places()[0].to_string().parse().expect("an address");
    let stopper = proxy.stopper();
    tokio::spawn(proxy.run());

    let by_name = format!("localhost:{port}");
    assert_eq!(connect(place, &by_name).await, "200");
    service.accept().await.expect("the first connection");
    // The attachment lasts, as for a moment after the end of a node.
    drop(server);
    assert_eq!(connect(place, &by_name).await, "502");
    let member = joined.address();
    assert_eq!(connect(place, &format!("[{member}]:{port}")).await, "502");
    let accepted = tokio::time::timeout(Duration::ZERO, service.accept()).await;
    assert!(accepted.is_err(), "a name was led to the system");
    // What is no address of the overlay may be reached.
    assert_eq!(connect(place, &format!("127.0.0.1:{port}")).await, "200");
    stopper.stop(Duration::ZERO);
}

/// Asks the proxy for a connection, and returns the status of its answer.
async fn connect(proxy: SocketAddr, target: &str) -> String {
    let asking = async {
        let mut client = TcpStream::connect(proxy).await.expect("it listens");
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("room");
        let mut status = [0; "HTTP/1.1 200".len()];
        client.read_exact(&mut status).await.expect("an answer");
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    tokio::time::timeout(TEST_TIMEOUT, asking).await.expect("an answer in time")
}

/// Attaches to a server that this process has, as to a shared node.
fn attach(place: &Path, environment: String) -> Arc<Attached> {
    let listener = UnixListener::bind(StateDir::node_socket(place)).expect("a free name");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let connection = Connection::new(stream).expect("a program of this user");
        connection.wish().expect("the first message");
        let attached =
            Reply::Attached { environment, process: 0, public_key: String::new(), networks: Vec::new() };
        connection.send(&attached).expect("room");
        while !matches!(connection.ask(), Ok(None | Some(Ask::Detach)) | Err(_)) {}
    });
    Arc::new(Attached::open(place, None, Wish::new("test"), |_| {}).expect("it is offered"))
}
