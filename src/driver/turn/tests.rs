//! Tests of allocations from a server on loopback that grants every request.

mod stream;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keeper::{choose, round};
use crate::driver::Driver;
use crate::driver::interfaces::source_towards;
use crate::{IdentitySource, Interfaces, Node};

const ALLOCATE: u16 = 0x0003;
const REFRESH: u16 = 0x0004;

/// Attribute numbers.
const LIFETIME: u16 = 0x000d;
const RELAYED_ADDRESS: u16 = 0x0016;
const FAMILY: u16 = 0x0017;

/// Longer than any wait.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Fields of a request that the tests need.
struct Request {
    from: SocketAddr,
    method: u16,
    id: [u8; 16],
    lifetime: Option<u32>,
}

struct Server(UdpSocket);

impl Server {
    fn start() -> Server {
        Server(UdpSocket::bind("127.0.0.1:0").expect("a socket"))
    }

    /// Returns the next request of a method for the IPv4 allocation; `None` after a timeout.
    fn request(&self, method: u16, patience: Duration) -> Option<Request> {
        let until = Instant::now() + patience;
        let mut buffer = [0; 2048];
        loop {
            let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.0.set_read_timeout(Some(left)).expect("a timeout");
            let Ok((length, from)) = self.0.recv_from(&mut buffer) else { continue };
            let (head, mut rest) = buffer[..length].split_at(20);
            let (mut lifetime, mut is_ipv6) = (None, false);
            while let [a, b, c, d, tail @ ..] = rest {
                let length = usize::from(u16::from_be_bytes([*c, *d]));
                match u16::from_be_bytes([*a, *b]) {
                    LIFETIME => lifetime = tail[..4].try_into().ok().map(u32::from_be_bytes),
                    FAMILY => is_ipv6 = true,
                    _ => {}
                }
                rest = &tail[length.next_multiple_of(4)..];
            }
            let id = head[4..].try_into().expect("16 bytes");
            if !is_ipv6 && u16::from_be_bytes([head[0], head[1]]) == method {
                return Some(Request { from, method, id, lifetime });
            }
        }
    }

    fn grant(&self, request: &Request) {
        let mut answer = (request.method | 0x0100).to_be_bytes().to_vec();
        answer.extend([0, 20]);
        answer.extend(request.id);
        answer.extend(LIFETIME.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(600u32.to_be_bytes());
        answer.extend(RELAYED_ADDRESS.to_be_bytes());
        // IPv4, port and address, XORed with the magic cookie to an arbitrary value.
        answer.extend([0, 8, 0, 1, 7, 7, 7, 7, 7, 7]);
        self.0.send_to(&answer, request.from).expect("an answer");
    }

    fn allocate(&self) -> Request {
        let request = self.request(ALLOCATE, TEST_TIMEOUT).expect("the node asks for an allocation");
        self.grant(&request);
        request
    }

    /// Waits for the request that releases the allocation.
    fn is_given_back(&self, allocated: &Request) -> bool {
        self.request(REFRESH, Duration::from_secs(5))
            .is_some_and(|refresh| refresh.lifetime == Some(0) && refresh.from == allocated.from)
    }
}

fn node(server: &Server) -> (Node, Arc<Driver>) {
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.turn([]).start().expect("a node");
    let driver = Arc::clone(&node.inner.driver);
    let at = server.0.local_addr().expect("an address");
    let server = format!("turn:alice:sesame@{at}").parse().expect("a server");
    driver.start_turn(&[server]).expect("a thread");
    (node, driver)
}

fn wait_for(what: impl Fn() -> bool) {
    let until = Instant::now() + TEST_TIMEOUT;
    while !what() {
        assert!(Instant::now() < until, "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn without_an_interface_that_may_be_used_no_socket_is_opened() {
    let error = choose(&[], 3).expect_err("no interface is up");
    assert_eq!(error.to_string(), "no network interface that may be used is up");
    assert_eq!(choose(&[None], 3).expect("any interface"), None);
    let two = [Some("eth0".to_owned()), Some("wg0".to_owned())];
    assert_eq!(choose(&two, 3).expect("the second one").as_deref(), Some("wg0"));
    // Each pair of address and interface is tried, even if their numbers are equal.
    let pair = |tries| (choose(&two, tries).expect("one of them"), round(&two, tries) % 2);
    let pairs: std::collections::BTreeSet<_> = (0..4).map(pair).collect();
    assert_eq!(pairs.len(), 4, "{pairs:?}");
}

#[test]
fn the_way_to_the_server_is_looked_up_on_the_interface_that_the_socket_is_bound_to() {
    let server = "127.0.0.1:3478".parse().expect("an address");
    let source = source_towards(server, Some("lo")).expect("a way");
    assert_eq!(source.to_string(), "127.0.0.1");
    assert!(source_towards(server, Some("no-such-if")).is_err(), "another interface leads there");
}

#[test]
fn an_allocation_that_is_granted_while_the_node_stops_is_given_back() {
    let server = Server::start();
    let (node, driver) = node(&server);
    let request = server.request(ALLOCATE, TEST_TIMEOUT).expect("the node asks for an allocation");
    let stopping = std::thread::spawn(move || driver.stop_turn());
    wait_for(|| node.inner.driver.turn.is_stopped());
    // The thread notices that no answer has come yet.
    std::thread::sleep(Duration::from_millis(50));
    server.grant(&request);
    assert!(server.is_given_back(&request));
    stopping.join().expect("it stops");
}

#[test]
fn after_a_suspension_the_allocation_is_given_back_and_had_anew() {
    let server = Server::start();
    let (_node, driver) = node(&server);
    let first = server.allocate();
    wait_for(|| !driver.turn.relayed().is_empty());
    driver.was_suspended();
    assert!(server.is_given_back(&first));
    let second = server.allocate();
    assert_ne!(second.from, first.from, "by another socket");
    wait_for(|| !driver.turn.relayed().is_empty());
}

#[test]
fn wake_ups_and_interfaces_that_change_nothing_on_the_way_keep_the_allocation() {
    let server = Server::start();
    let (_node, driver) = node(&server);
    server.allocate();
    wait_for(|| !driver.turn.relayed().is_empty());
    for _ in 0..3 {
        driver.turn.interfaces_changed();
        assert!(server.request(REFRESH, Duration::from_millis(100)).is_none());
    }
    assert_eq!(driver.turn.relayed().len(), 1);
}
