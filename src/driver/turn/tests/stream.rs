//! Tests of allocations by TCP, from a server on loopback that grants every request, or misbehaves.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use peersock_overlay::SocketIndex;

use super::*;
use crate::interfaces::check_turn;
use peersock_datapath::Transmit;

const CREATE_PERMISSION: u16 = 0x0008;
const SEND: u16 = 0x0016;

struct Server(TcpListener);

/// Connection of a client.
struct Connection(TcpStream);

impl Server {
    fn start() -> Server {
        Server(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    fn text(&self) -> String {
        format!("turn:alice:sesame@{}?transport=tcp", self.0.local_addr().expect("an address"))
    }

    fn node(&self) -> (Node, Arc<Driver>) {
        let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let node = node.turn([]).start().expect("a node");
        let driver = Arc::clone(&node.inner.driver);
        driver.start_turn(&[self.text().parse().expect("a server")]).expect("a thread");
        (node, driver)
    }

    fn accept(&self) -> Connection {
        let (stream, _) = self.0.accept().expect("a client");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("a timeout");
        Connection(stream)
    }

    /// Returns the connection for the IPv4 address, with its first request. The connection for the other
    /// family may come first on a slow machine; it gets no answer.
    fn accept_ipv4(&self, others: &mut Vec<Connection>) -> (Connection, Message) {
        loop {
            let mut connection = self.accept();
            let first = connection.read().expect("a message");
            match first.is_ipv6() {
                false => return (connection, first),
                true => others.push(connection),
            }
        }
    }
}

/// STUN message or ChannelData frame.
struct Message(Vec<u8>);

impl Message {
    fn method(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Returns the value of an attribute.
    fn attribute(&self, kind: u16) -> Option<&[u8]> {
        let mut rest = &self.0[20..];
        while let [a, b, c, d, tail @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*c, *d]));
            if u16::from_be_bytes([*a, *b]) == kind {
                return Some(&tail[..length]);
            }
            rest = &tail[length.next_multiple_of(4)..];
        }
        None
    }

    fn is_ipv6(&self) -> bool {
        self.attribute(FAMILY).is_some()
    }
}

impl Connection {
    fn read(&mut self) -> io::Result<Message> {
        let mut message = vec![0; 4];
        self.0.read_exact(&mut message)?;
        let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
        // ChannelData is padded on a stream.
        let rest = if message[0] < 0x40 { 16 + length } else { length.next_multiple_of(4) };
        message.resize(4 + rest, 0);
        self.0.read_exact(&mut message[4..])?;
        Ok(Message(message))
    }

    /// Reads until a message of that method; returns `None` if the connection ends first.
    fn read_until(&mut self, method: u16) -> Option<Message> {
        loop {
            let message = self.read().ok()?;
            if message.method() == method {
                return Some(message);
            }
        }
    }

    /// Sends a success response with a lifetime of 600 s and a relayed address.
    fn grant(&mut self, request: &Message) {
        let mut answer = (request.method() | 0x0100).to_be_bytes().to_vec();
        answer.extend([0, 20]);
        answer.extend(&request.0[4..20]);
        answer.extend(LIFETIME.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(600u32.to_be_bytes());
        answer.extend(RELAYED_ADDRESS.to_be_bytes());
        answer.extend([0, 8, 0, 1, 7, 7, 7, 7, 7, 7]);
        self.0.write_all(&answer).expect("an answer");
    }
}

fn error_of(driver: &Driver) -> Option<String> {
    driver.turn.states()[0].error.clone()
}

#[test]
fn when_the_connection_breaks_the_allocation_is_gone_and_had_anew() {
    let server = Server::start();
    let (_node, driver) = server.node();
    let mut others = Vec::new();
    let (mut first, request) = server.accept_ipv4(&mut others);
    first.grant(&request);
    wait_for(|| !driver.turn.relayed().is_empty());
    drop(first);
    wait_for(|| driver.turn.relayed().is_empty());
    assert!(error_of(&driver).expect("a reason").contains("closed the connection"));
    let (mut second, request) = server.accept_ipv4(&mut others);
    second.grant(&request);
    wait_for(|| !driver.turn.relayed().is_empty());
    assert_eq!(error_of(&driver), None);
}

#[test]
fn at_the_nodes_end_the_allocation_is_given_back_behind_what_was_sent() {
    let server = Server::start();
    let (_node, driver) = server.node();
    let (mut connection, request) = server.accept_ipv4(&mut Vec::new());
    connection.grant(&request);
    wait_for(|| !driver.turn.relayed().is_empty());
    let goodbye = |contents| driver.turn.send(&transmit(contents));
    goodbye(b"waits for a permission");
    let asked = connection.read_until(CREATE_PERMISSION).expect("a request");
    connection.grant(&asked);
    connection.read_until(SEND).expect("what has waited");
    goodbye(b"bye");
    driver.stop_turn();
    assert!(connection.read_until(SEND).expect("the goodbye").0.windows(3).any(|part| part == b"bye"));
    let refresh = connection.read_until(REFRESH).expect("it is given back");
    assert_eq!(refresh.attribute(LIFETIME), Some(&[0; 4][..]));
    assert!(connection.read().is_err(), "the connection is closed");
}

#[test]
fn a_server_that_says_nonsense_is_left_with_the_reason() {
    for (garbage, is_allocated) in
        [(&b"HTTP/1.1 400 Bad Request\r\n"[..], false), (b"\x01\x01\xff\xfd", true)]
    {
        let server = Server::start();
        let (_node, driver) = server.node();
        let (mut connection, request) = server.accept_ipv4(&mut Vec::new());
        if is_allocated {
            connection.grant(&request);
            wait_for(|| !driver.turn.relayed().is_empty());
        }
        connection.0.write_all(garbage).expect("it is connected");
        wait_for(|| error_of(&driver).is_some_and(|error| error.contains("no message of a TURN server")));
        assert!(driver.turn.relayed().is_empty());
        // The client reads no more from it.
        while connection.read().is_ok() {}
    }
}

#[test]
fn a_server_that_reads_nothing_holds_nobody_up_and_costs_a_bounded_queue() {
    let server = Server::start();
    let (_node, driver) = server.node();
    let (mut connection, request) = server.accept_ipv4(&mut Vec::new());
    connection.grant(&request);
    wait_for(|| !driver.turn.relayed().is_empty());
    driver.turn.send(&transmit(b"first"));
    let asked = connection.read_until(CREATE_PERMISSION).expect("a request");
    connection.grant(&asked);
    connection.read_until(SEND).expect("what has waited");
    let contents = [7; 1200];
    let queued = || match &sync_open(&driver).link {
        crate::driver::turn::Link::Stream(sender) => sender.queued(),
        crate::driver::turn::Link::Udp(_) => panic!("it is a stream"),
    };
    // 60 MB, of which the kernel and the server take only a little.
    let mut most = 0;
    for _ in 0..50_000 {
        driver.turn.send(&transmit(&contents));
        most = queued().max(most);
    }
    assert!(most <= 600 << 10, "{most} bytes wait");
}

#[test]
fn a_check_ends_in_time_though_the_server_takes_the_connection_and_says_nothing() {
    let server = Server::start();
    let begun = Instant::now();
    let [silent] = &check_turn(&[server.text().parse().expect("a server")], &["lo".into()])[..] else {
        panic!("one server was asked")
    };
    // The promise is 5 s; a busy machine may need longer for the rest.
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(!silent.reached && silent.relayed.is_none() && silent.rtt_ms.is_none(), "{silent:?}");
    assert_eq!(silent.error.as_deref(), Some("the server does not answer"));
    assert!(silent.what_to_do.is_some() && !format!("{silent:?}").contains("sesame"));
}

fn transmit(contents: &[u8]) -> Transmit<'_> {
    Transmit {
        socket: SocketIndex::turn(0),
        remote: (Ipv4Addr::LOCALHOST, 9).into(),
        contents,
        segment_size: None,
        ecn: 0,
    }
}

fn sync_open(driver: &Driver) -> Arc<crate::driver::turn::Allocation> {
    let open = crate::sync::read(&driver.turn.open);
    Arc::clone(open.values().next().expect("an allocation"))
}
