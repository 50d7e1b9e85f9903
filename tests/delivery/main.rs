//! Every delivery of the table, by each interface of the library and by kernel TCP. Each is delivered or
//! yields an error.

mod receiver;
mod scenario;
mod victim;

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use peersock::{IdentitySource, Interfaces, Joined, Network, Node, blocking};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::receiver::{Stream, receive};
use self::scenario::{Outcome, Scenario, Step, content, judge, table};

/// Timeout longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bound of a receiver's buffer in bytes. The buffer grows with the data read. Without a bound it may hold
/// half of the largest size, and TCP cannot report on buffered data.
const RECEIVE_BUFFER: usize = 1 << 18;

/// Time without an answer after which the node gives up a stopped receiver.
const SILENCE: Duration = Duration::from_secs(3);

#[test]
fn the_kernel_tells_what_the_table_says() {
    play("kernel", |scenario, size| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, RECEIVE_BUFFER).expect("a size");
        let address = listener.local_addr().expect("address");
        exchange(
            scenario,
            size,
            listener,
            |listener| Ok(Kernel(listener.accept()?.0)),
            move |connected| send_with_kernel(address, &content(size), connected),
        )
    });
}

#[test]
fn a_blocking_sender_is_told() {
    let nodes = pair();
    let address = SocketAddr::new(nodes[0].1.address().into(), 0);
    play("blocking", |scenario, size| {
        let listener = blocking::TcpListener::bind_on(&nodes[0].0, address).expect("bind");
        let address = listener.local_addr().expect("address");
        let node = nodes[1].0.clone();
        exchange(
            scenario,
            size,
            listener,
            |listener| Ok(listener.accept()?.0),
            move |connected| send_blocking(&node, address, &content(size), connected, None),
        )
    });
    // Every failure was reported, and all other data was delivered.
    assert!(nodes[1].0.shutdown(PATIENCE), "{:?}", nodes[1].0.undelivered());
}

#[test]
fn an_asynchronous_sender_is_told() {
    let nodes = pair();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let address = SocketAddr::new(nodes[0].1.address().into(), 0);
    play("asynchronous", |scenario, size| {
        let listener = blocking::TcpListener::bind_on(&nodes[0].0, address).expect("bind");
        let address = listener.local_addr().expect("address");
        let (node, runtime) = (nodes[1].0.clone(), runtime.handle().clone());
        exchange(
            scenario,
            size,
            listener,
            |listener| Ok(listener.accept()?.0),
            move |connected| {
                runtime.block_on(send_asynchronously(&node, address, &content(size), connected, None))
            },
        )
    });
    assert!(nodes[1].0.shutdown(PATIENCE), "{:?}", nodes[1].0.undelivered());
}

#[test]
fn senders_are_told_that_the_receiver_has_died_or_stopped() {
    let nodes = pair();
    let network = nodes[0].1.id().to_string();
    let node = &nodes[0].0;
    victim::play("blocking", VICTIM, &network, |order| {
        let (victim, (connected, _)) = (order.start(None), mpsc::channel());
        outcome(send_blocking(node, victim.address, &content(order.size), connected, Some(SILENCE)))
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    victim::play("asynchronous", VICTIM, &network, |order| {
        let (victim, (connected, _)) = (order.start(None), mpsc::channel());
        let data = content(order.size);
        let sending = send_asynchronously(node, victim.address, &data, connected, Some(SILENCE));
        outcome(runtime.block_on(sending))
    });
    assert!(node.shutdown(PATIENCE), "{:?}", node.undelivered());
}

const VICTIM: &str = "receiver_of_the_others";

/// Runs the receiver that dies or stops. Without an order it does nothing.
#[test]
fn receiver_of_the_others() {
    victim::be_one();
}

fn play(face: &str, run: impl Fn(&Scenario, usize) -> (Outcome, Vec<u8>)) {
    let (scenarios, sizes) = table();
    // The receivers here have no separate process.
    for scenario in scenarios.iter().filter(|scenario| !scenario.ends_process()) {
        for &size in &sizes {
            let (told, read) = run(scenario, size);
            judge(scenario, size, face, told, &read);
        }
    }
}

/// Runs both ends at once. Returns the sender's outcome, and the bytes that the receiver has read.
fn exchange<L: Send, S: Stream>(
    scenario: &Scenario,
    size: usize,
    listener: L,
    accept: impl FnOnce(&L) -> io::Result<S> + Send,
    send: impl FnOnce(Sender<()>) -> io::Result<()> + Send,
) -> (Outcome, Vec<u8>) {
    let (connected, is_connected): (_, Receiver<()>) = mpsc::channel();
    let run = move || receive(scenario, size, listener, &is_connected, accept);
    if scenario.steps == [Step::Refuse] {
        // Receive before the sender begins.
        let read = run();
        return (outcome(send(connected)), read);
    }
    thread::scope(|scope| {
        let receiver = scope.spawn(run);
        let told = outcome(send(connected));
        (told, receiver.join().expect("the receiver"))
    })
}

fn outcome(result: io::Result<()>) -> Outcome {
    if result.is_ok() { Outcome::Delivered } else { Outcome::Error }
}

fn send_blocking(
    node: &Node,
    address: SocketAddr,
    data: &[u8],
    connected: Sender<()>,
    silence: Option<Duration>,
) -> io::Result<()> {
    let mut stream = blocking::TcpStream::connect_on(node, address)?;
    let _ = connected.send(());
    // The keepalive has eight probes.
    stream.set_keepalive(silence.map(|silence| silence / 9))?;
    stream.set_user_timeout(silence)?;
    stream.write_all(data)?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    stream.wait_delivered(Some(PATIENCE))
}

async fn send_asynchronously(
    node: &Node,
    address: SocketAddr,
    data: &[u8],
    connected: Sender<()>,
    silence: Option<Duration>,
) -> io::Result<()> {
    let mut stream = peersock::TcpStream::connect_on(node, address).await?;
    let _ = connected.send(());
    stream.set_keepalive(silence.map(|silence| silence / 9))?;
    stream.set_user_timeout(silence)?;
    stream.write_all(data).await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    tokio::time::timeout(PATIENCE, stream.wait_delivered()).await?
}

fn send_with_kernel(address: SocketAddr, data: &[u8], connected: Sender<()>) -> io::Result<()> {
    let mut stream = std::net::TcpStream::connect(address)?;
    let _ = connected.send(());
    stream.write_all(data)?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    let local = stream.local_addr()?;
    while awaits_acknowledgement(local, address) {
        thread::sleep(Duration::from_millis(1));
    }
    // The error that ended the connection is known before its end is visible.
    stream.take_error()?.map_or(Ok(()), Err)
}

/// Returns true if the kernel connection waits for the ACK of its FIN: FIN-WAIT-1, LAST-ACK or CLOSING.
fn awaits_acknowledgement(local: SocketAddr, remote: SocketAddr) -> bool {
    let ports = [local, remote].map(|address| format!(":{:04X}", address.port()));
    let connections = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's connections");
    connections.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.len() > 3
            && words[1].ends_with(&ports[0])
            && words[2].ends_with(&ports[1])
            && ["04", "09", "0B"].contains(&words[3])
    })
}

struct Kernel(std::net::TcpStream);

impl Read for Kernel {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Stream for Kernel {
    fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.peek(buf)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    fn reset_on_close(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO))
    }
}

/// Starts two nodes of a separate network on the loopback interface.
fn pair() -> [(Node, Joined); 2] {
    let random = RandomState::new().hash_one(());
    let (first, last) = (random % 1000, 60_000 + (random >> 16) % 5000);
    let network = format!("ff{first:04x}{last:04x}000000").parse().expect("an ad-hoc network");
    let node = || {
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let node = builder.tcp_buffers(16 << 20, RECEIVE_BUFFER).start().expect("a node");
        let joined = node.join(Network::ad_hoc(network)).expect("joined");
        (node, joined)
    };
    [node(), node()]
}
