//! Shared code of tests of `proxy` and `forward`: the programs, the test's node, and a SOCKS 5 client.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use peersock::Node;
use peersock::blocking;

use crate::common::{Lab, PATIENCE, PORT, Running};
use crate::delivery::member;

/// A network with a node of the test in it.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) node: Node,
    /// Address of the test's node, with a port that the network allows.
    pub(crate) own: SocketAddr,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let lab = Lab::new();
        let (node, own) = member(&lab);
        Scene { lab, node, own: SocketAddr::new(own.ip(), PORT) }
    }

    /// Starts `proxy` on a free port.
    pub(crate) fn proxy(&self, words: &[&str]) -> Proxy {
        let words = [&["proxy", "--listen", "127.0.0.1:0"], words].concat();
        let running = Running::start(self.lab.node("proxy", &words));
        let line = running.wait_for_stdout("\n");
        let place = line.trim().strip_prefix("socks5h://").expect("the URL of a proxy").to_owned();
        Proxy { place, running }
    }

    /// Starts `forward`, and returns the places where it listens.
    pub(crate) fn forward(&self, node: &str, words: &[&str]) -> (Running, Vec<String>) {
        let running = Running::start(self.lab.node(node, &[&["forward"], words].concat()));
        // Expects one line for each pair.
        let pairs = words.iter().take_while(|word| !word.starts_with("--")).count() / 2;
        let begin = Instant::now();
        while running.wait_for_stdout("\n").lines().count() < pairs || !running.shown().ends_with('\n') {
            assert!(begin.elapsed() < PATIENCE, "{}", running.said());
            thread::sleep(Duration::from_millis(5));
        }
        let lines = running.shown();
        let local = |line: &str| line.split(' ').next().expect("two places").to_owned();
        (running, lines.lines().map(local).collect())
    }

    /// Forwards an overlay port to a web server of the test; returns the program and the address.
    pub(crate) fn web(&self) -> (Running, String) {
        let (running, places) = self.forward("web", &["overlay:0", &web_server().to_string()]);
        let at = places[0].strip_prefix("tcp:overlay:").expect("a place on the overlay");
        (running, at.to_owned())
    }

    /// Opens a listener of the test on the overlay.
    pub(crate) fn listen(&self) -> blocking::TcpListener {
        blocking::TcpListener::bind_on(&self.node, self.own).expect("the port is free")
    }
}

/// A running proxy.
pub(crate) struct Proxy {
    /// `127.0.0.1:PORT`
    pub(crate) place: String,
    pub(crate) running: Running,
}

impl Proxy {
    /// Connects to the proxy.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.place).expect("the proxy listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("some time");
        stream
    }

    /// Returns a SOCKS client whose request was granted.
    pub(crate) fn socks(&self, to: SocketAddr) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(&[5, 1, 0]).unwrap();
        assert_eq!(read::<2>(&mut stream), [5, 0]);
        stream.write_all(&request(1, to)).unwrap();
        assert_eq!(reply(&mut stream).0, 0);
        stream
    }

    /// Returns the code of the reply to a request.
    pub(crate) fn code(&self, request: &[u8]) -> u8 {
        let mut stream = self.connect();
        stream.write_all(&[5, 1, 0]).unwrap();
        assert_eq!(read::<2>(&mut stream), [5, 0]);
        stream.write_all(request).unwrap();
        reply(&mut stream).0
    }

    /// Returns all bytes of the answer, until the end.
    pub(crate) fn answer(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an end, and no reset");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Returns a SOCKS 5 request.
pub(crate) fn request(command: u8, to: SocketAddr) -> Vec<u8> {
    let mut message = vec![5, command, 0];
    match to {
        SocketAddr::V4(to) => message.extend([&[1][..], &to.ip().octets()].concat()),
        SocketAddr::V6(to) => message.extend([&[4][..], &to.ip().octets()].concat()),
    }
    message.extend(to.port().to_be_bytes());
    message
}

/// Reads a reply: its code and the address in it.
pub(crate) fn reply(stream: &mut TcpStream) -> (u8, SocketAddr) {
    let [version, code, _, kind] = read(stream);
    assert_eq!(version, 5);
    let ip = match kind {
        1 => Ipv4Addr::from(read::<4>(stream)).into(),
        4 => std::net::Ipv6Addr::from(read::<16>(stream)).into(),
        other => panic!("an address of type {other}"),
    };
    (code, SocketAddr::new(ip, u16::from_be_bytes(read(stream))))
}

/// Reads this number of bytes.
pub(crate) fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).expect("as many bytes");
    bytes
}

/// Starts a web server on this machine that answers each request with its header and body in upper case.
pub(crate) fn web_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve_web(stream));
        }
    });
    address
}

/// Serves one connection, request after request, until it ends.
fn serve_web(mut stream: TcpStream) {
    let mut came = Vec::new();
    let more = |came: &mut Vec<u8>, stream: &mut TcpStream| {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap_or(0);
        came.extend_from_slice(&piece[..count]);
        count > 0
    };
    loop {
        let end = loop {
            if let Some(at) = came.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !more(&mut came, &mut stream) {
                return;
            }
        };
        let head = String::from_utf8_lossy(&came[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let whole = end + length.unwrap_or(0usize);
        while came.len() < whole {
            if !more(&mut came, &mut stream) {
                return;
            }
        }
        let body = String::from_utf8_lossy(&came[..whole]).to_uppercase();
        came.drain(..whole);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\n\r\n",
            body.len()
        );
        if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

/// Checks that a reset at one end of a connection is a reset at the other, in both directions. `connect`
/// returns the ends of a new connection.
pub(crate) fn check_resets(connect: impl Fn() -> (TcpStream, blocking::TcpStream)) {
    let (mut client, server) = connect();
    server.set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    assert_eq!(client.read(&mut [0; 1]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    let (client, mut server) = connect();
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
}
