//! The TURN client with coturn, on loopback. Without `turnserver` the test is skipped with a message.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use peersock_nat::stun::{AnswerFrom, TransactionId, binding_request};
use peersock_nat::turn::{Client, Event, Failure, Sent, TurnServer};
use peersock_testnet::{find_in_path, free_port};

/// Timeout of all waits, much longer than needed.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn coturn_grants_an_address_and_passes_datagrams_both_ways() {
    let Some(server) = Coturn::start() else { return };
    let mut run = Run::new(&server, "sesame", true);
    let Event::Allocated(relayed) = run.event() else { panic!("it is refused") };
    assert!(relayed.ip().is_loopback() && relayed != server.address);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a port");
    peer.set_read_timeout(Some(TEST_TIMEOUT)).expect("a timeout");
    let at = peer.local_addr().expect("an address");
    let mut buffer = [0; 2000];

    // Permissions apply to addresses: this address never gets one, however late coturn reads the datagram.
    let stranger = UdpSocket::bind("127.0.0.2:0").expect("a port");
    stranger.send_to(b"uninvited", relayed).expect("it leaves");
    assert_eq!(run.send(at, b"first"), Sent::Held, "coturn is asked for a permission");
    run.step_until(|run| run.client.relayed().is_some() && run.is_idle());
    for i in 0..100_u32 {
        let text = [&i.to_be_bytes()[..], &vec![7; 10 * i as usize]].concat();
        if i > 0 {
            assert_eq!(run.send(at, &text), Sent::Written);
        }
        let (length, from) = peer.recv_from(&mut buffer).expect("it arrives");
        assert_eq!(from, relayed);
        assert_eq!(&buffer[..length], if i > 0 { &text[..] } else { &b"first"[..] });
        peer.send_to(&text, relayed).expect("it leaves");
        let back = run.receive();
        assert_eq!((back.0, &back.1[..]), (at, &text[..]), "the stranger was let in by nobody");
    }
    assert!(run.has_channel, "most went by a channel");
    run.client.close();
    run.flush();
}

#[test]
fn coturn_refuses_a_wrong_password_and_a_family_that_it_has_not() {
    let Some(server) = Coturn::start() else { return };
    assert_eq!(Run::new(&server, "simsim", true).event(), Event::Ended(Failure::Unauthorized));
    let mut run = Run::new(&server, "sesame", false);
    assert_eq!(run.event(), Event::Ended(Failure::NoFamily));
}

/// A client with its socket.
struct Run {
    client: Client,
    socket: UdpSocket,
    arrived: Vec<(SocketAddr, Vec<u8>)>,
    /// Set once a datagram left in a ChannelData frame.
    has_channel: bool,
}

impl Run {
    fn new(server: &Coturn, password: &str, is_ipv4: bool) -> Self {
        let text = format!("turn:alice:{password}@{}", server.address);
        let named: TurnServer = text.parse().expect("a server");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(server.address).expect("an address");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&socket.local_addr().expect("an address").port().to_be_bytes());
        let client = Client::new(&named, is_ipv4, seed, Instant::now());
        Self { client, socket, arrived: Vec::new(), has_channel: false }
    }

    fn flush(&mut self) {
        while let Some(datagram) = self.client.poll_transmit() {
            self.socket.send(&datagram).expect("it leaves");
        }
    }

    fn step(&mut self) {
        self.flush();
        let mut buffer = [0; 2000];
        if let Ok(length) = self.socket.recv(&mut buffer)
            && let Some(received) = self.client.handle(Instant::now(), &buffer[..length])
        {
            self.arrived.push((received.peer, received.data.to_vec()));
        }
        self.client.handle_timeout(Instant::now());
        self.flush();
    }

    fn step_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{:?}", self.client);
            self.step();
        }
    }

    /// Returns true if no request waits for its answer, as far as the public interface shows.
    fn is_idle(&self) -> bool {
        let next = self.client.poll_timeout(Instant::now());
        next.is_none_or(|next| next > Instant::now() + Duration::from_secs(16))
    }

    fn event(&mut self) -> Event {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            if let Some(event) = self.client.poll_event() {
                return event;
            }
            assert!(Instant::now() < deadline, "{:?}", self.client);
            self.step();
        }
    }

    fn send(&mut self, peer: SocketAddr, data: &[u8]) -> Sent {
        let mut out = Vec::new();
        let sent = self.client.send(Instant::now(), peer, data, &mut out);
        if sent == Sent::Written {
            self.has_channel |= out.len() == data.len() + 4;
            self.socket.send(&out).expect("it leaves");
        }
        self.flush();
        sent
    }

    fn receive(&mut self) -> (SocketAddr, Vec<u8>) {
        self.step_until(|run| !run.arrived.is_empty());
        self.arrived.remove(0)
    }
}

/// A coturn process on a loopback address, until dropped.
struct Coturn {
    child: Child,
    address: SocketAddr,
}

impl Coturn {
    fn start() -> Option<Self> {
        let Some(program) = find_in_path("turnserver") else {
            eprintln!("SKIP coturn: there is no turnserver (package coturn)");
            return None;
        };
        let port = free_port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let options = "-n --lt-cred-mech --user alice:sesame --realm example.org --no-tls --no-dtls --no-tcp \
                       --no-tcp-relay --no-cli --allow-loopback-peers --listening-ip 127.0.0.1 \
                       --relay-ip 127.0.0.1 --log-file /dev/null --no-stdout-log --pidfile /dev/null \
                       --userdb /dev/null";
        let mut command = Command::new(program);
        command.args(options.split_ascii_whitespace()).arg("--listening-port").arg(port.to_string());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let server = Self { child, address };
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let request = binding_request(TransactionId::new(1), AnswerFrom::Same);
            socket.send_to(&request, address).expect("it leaves");
            if socket.recv(&mut [0; 500]).is_ok() {
                return Some(server);
            }
            assert!(Instant::now() < deadline, "coturn does not answer");
        }
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
