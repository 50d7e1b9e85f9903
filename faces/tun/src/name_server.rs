//! The name server for a network's members, which answers only this machine.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use peersock_primitives::admission::{Admission, Permit, Places};

use crate::Names;
use crate::names::DATAGRAM;

/// Limit of simultaneous connections, all from this machine, and timeout of each message. At the limit, the
/// oldest connection makes room for the next.
const PLACES: Places = Places { all: 16, of_sources: 0, of_one: 0, unproven: 16 };
const BIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of threads that answer datagrams where an answer may take a while.
const THREADS_THAT_WAIT: usize = 8;

/// Time for which an address may be unusable after its assignment, while the kernel checks for duplicates
/// (RFC 4862 5.4). With the system's settings that takes at most two seconds.
const NEW_ADDRESS: Duration = Duration::from_secs(3);
/// Interval between two attempts to use the address.
const BIND_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// A name server on an address of this machine, until the process ends.
///
/// ```
/// use peersock_tun::{NameServer, Names};
///
/// let server = NameServer::bind("127.0.0.1:0".parse()?)?;
/// assert_ne!(server.address().port(), 0);
/// server.serve(Names::new("ff0001ffff000000", []))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NameServer {
    udp: UdpSocket,
    tcp: TcpListener,
    at: SocketAddr,
}

/// The server once it answers.
struct Serving {
    server: NameServer,
    names: Names,
    connections: Admission<()>,
}

impl NameServer {
    /// Binds an address, by UDP and TCP. Port 53 needs `CAP_NET_BIND_SERVICE`. Waits for an address that an
    /// interface has just received.
    ///
    /// # Errors
    /// The errors of bind(2).
    pub fn bind(at: SocketAddr) -> io::Result<NameServer> {
        let (udp, tcp) = bind_both(at)?;
        let at = udp.local_addr()?;
        Ok(NameServer { udp, tcp, at })
    }

    /// Returns the server's address.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// Answers from now on, in two threads, or some more if the networks of these names are asked.
    ///
    /// # Errors
    /// If no thread can be created.
    pub fn serve(self, names: Names) -> io::Result<()> {
        // A look-up of an unknown name must not hold up the others.
        let threads = if names.may_wait() { THREADS_THAT_WAIT } else { 1 };
        let serving = Arc::new(Serving { server: self, names, connections: Admission::new(PLACES) });
        for _ in 0..threads {
            let by_udp = Arc::clone(&serving);
            thread::Builder::new().name("dns-udp".into()).spawn(move || by_udp.serve_udp())?;
        }
        thread::Builder::new().name("dns-tcp".into()).spawn(move || serving.serve_tcp())?;
        Ok(())
    }

    /// Returns true if this machine asks: its packets to one of its addresses come from that address, or from
    /// another one that peers do not have.
    fn is_own(&self, from: SocketAddr) -> bool {
        from.ip() == self.at.ip() || from.ip().is_loopback()
    }
}

impl Serving {
    fn serve_udp(&self) {
        let mut query = [0; DATAGRAM];
        loop {
            match self.server.udp.recv_from(&mut query) {
                Ok((length, from)) if self.server.is_own(from) => {
                    if let Some(reply) = self.names.reply(&query[..length]) {
                        // The resolver repeats the query if the reply is lost.
                        let _ = self.server.udp.send_to(&reply, from);
                    }
                }
                Ok(_) => {}
                Err(error) => pause(&error),
            }
        }
    }

    fn serve_tcp(self: Arc<Self>) {
        loop {
            match self.server.tcp.accept() {
                Ok((stream, from)) if self.server.is_own(from) => {
                    let serving = Arc::clone(&self);
                    let answering = self.place_for(&stream).and_then(|place| {
                        thread::Builder::new().name("dns-tcp".into()).spawn(move || {
                            // A client that ends the connection needs no answer.
                            let _ = serving.answer_stream(stream);
                            drop(place);
                        })
                    });
                    if let Err(error) = answering {
                        pause(&error);
                    }
                }
                Ok(_) => {}
                Err(error) => pause(&error),
            }
        }
    }

    /// Takes a place for a connection, which is shut down when another connection takes the place.
    fn place_for(&self, stream: &TcpStream) -> io::Result<Permit<()>> {
        let place = self.connections.admit(None).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        let again = stream.try_clone()?;
        // The connection may already have ended.
        place.standing().when_evicted(move || drop(again.shutdown(Shutdown::Both)));
        Ok(place)
    }

    /// Answers messages, each preceded by its length (RFC 7766).
    fn answer_stream(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(BIND_TIMEOUT))?;
        loop {
            let deadline = Instant::now() + BIND_TIMEOUT;
            let mut length = [0; 2];
            read_until(&mut stream, &mut length, deadline)?;
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            read_until(&mut stream, &mut query, deadline)?;
            let Some(reply) = self.names.reply(&query) else { return Ok(()) };
            let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes()[..], &reply].concat())?;
        }
    }
}

/// Fills `buf` by the deadline, in any number of reads.
fn read_until(stream: &mut TcpStream, mut buf: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buf.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(buf) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => buf = &mut buf[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Number of ports that are tried if any port will do.
const MAX_PORT_ATTEMPTS: u32 = 16;

/// Binds the same port for UDP and TCP. A port that is free for UDP may be another program's for TCP.
fn bind_both(at: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if at.port() == 0 { MAX_PORT_ATTEMPTS } else { 1 };
    loop {
        let udp = bind_udp(at)?;
        tries -= 1;
        match TcpListener::bind(udp.local_addr()?) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            bound => return Ok((udp, bound?)),
        }
    }
}

/// Binds the address once the interface may use it.
fn bind_udp(at: SocketAddr) -> io::Result<UdpSocket> {
    let until = Instant::now() + NEW_ADDRESS;
    loop {
        match UdpSocket::bind(at) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && at.is_ipv6() => {
                if Instant::now() >= until {
                    return Err(error);
                }
                thread::sleep(BIND_RETRY_INTERVAL);
            }
            bound => return bound,
        }
    }
}

/// Pauses after an error, which might repeat at once.
fn pause(error: &io::Error) {
    if error.kind() != io::ErrorKind::Interrupted {
        thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use peersock_testnet::Lab;

    use super::*;
    use crate::names::tests::{names, query, told};

    #[test]
    fn an_address_that_an_interface_has_just_got_is_waited_for() {
        let Some(lab) = Lab::build("new_address", "here=public") else { return };
        let ip = |words: &str| {
            let mut ip = Command::new("ip");
            assert!(ip.args(words.split(' ')).status().expect("it runs").success(), "ip {words}");
        };
        lab.within("here", || {
            ip("link add new0 type veth peer name new1");
            // Enables duplicate address detection on this interface.
            fs::write("/proc/sys/net/ipv6/conf/new0/accept_dad", "1").expect("a setting");
            ip("link set new1 up");
            ip("link set new0 up");
            ip("addr add fd77::1/64 dev new0");
            let at = "[fd77::1]:0".parse().expect("an address");
            let refused = UdpSocket::bind(at).expect_err("it is new");
            assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);
            NameServer::bind(at).expect("it is there soon");
        });
    }

    #[test]
    fn who_says_nothing_keeps_out_nobody() {
        let server = NameServer::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let at = server.address();
        server.serve(names()).expect("threads");
        let connect = || TcpStream::connect(at).expect("it listens");
        let mut silent: Vec<_> = (0..2 * PLACES.all).map(|_| connect()).collect();
        let mut asking = connect();
        let query = query("alpha", 1);
        asking.write_all(&[0, u8::try_from(query.len()).expect("short")]).expect("sent");
        asking.write_all(&query).expect("sent");
        asking.read_exact(&mut [0; 2]).expect("a reply");
        for silent in &mut silent[..=PLACES.all] {
            assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
        }
    }

    #[test]
    fn a_server_answers_by_udp_and_tcp() {
        let server = NameServer::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let at = server.address();
        server.serve(names()).expect("threads");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        client.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
        client.send_to(&query("alpha", 1), at).expect("sent");
        let mut reply = [0; 512];
        let length = client.recv(&mut reply).expect("a reply");
        assert_eq!(told(&reply[..length]).1, ["10.77.0.1"]);
        let mut stream = TcpStream::connect(at).expect("connected");
        for name in ["alpha", "beta"] {
            let query = query(name, 28);
            stream.write_all(&[0, u8::try_from(query.len()).expect("short")]).expect("sent");
            stream.write_all(&query).expect("sent");
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a reply");
            let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut reply).expect("a reply");
            assert_eq!(told(&reply).1.len(), 1);
        }
    }
}
