//! A last look at a root that does not answer, for a route to it and for anything that answers there.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use peersock_nat::stun::{Answer, AnswerFrom, TransactionId, binding_request};

/// Time for an answer, enough for a root on the other side of the Earth.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest answer to a STUN request that is read; the rest is not needed.
const ANSWER_BYTES: usize = 512;

/// The result of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// This machine has no route to any of the addresses.
    NoRoute,
    Nothing,
    /// A STUN server answers. Every root is one, and answers whatever key a node expects.
    StunServer,
}

/// Looks at the addresses of a root, for a second at most.
pub(crate) fn look(addresses: &[SocketAddr]) -> Found {
    let asked: Vec<_> = addresses.iter().map(|address| ask(*address)).collect();
    let has_route = |asked: &io::Result<_>| {
        !asked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NetworkUnreachable)
    };
    if !asked.is_empty() && !asked.iter().any(has_route) {
        return Found::NoRoute;
    }
    let until = Instant::now() + ANSWER_TIMEOUT;
    match asked.iter().flatten().any(|(socket, id)| answers(socket, *id, until)) {
        true => Found::StunServer,
        false => Found::Nothing,
    }
}

/// Sends a request to the address.
fn ask(address: SocketAddr) -> io::Result<(UdpSocket, TransactionId)> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let id = TransactionId::new(u128::from_ne_bytes(random));
    socket.send(&binding_request(id, AnswerFrom::Same))?;
    Ok((socket, id))
}

/// Returns true if the request is answered in time. What has come earlier is read even then.
fn answers(socket: &UdpSocket, id: TransactionId, until: Instant) -> bool {
    let mut buffer = [0; ANSWER_BYTES];
    loop {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let received = socket.set_read_timeout(Some(left)).and_then(|()| socket.recv(&mut buffer));
        match received.map(|length| Answer::parse(&buffer[..length])) {
            Ok(Some(answer)) if answer.id == id => return true,
            Ok(_) if Instant::now() < until => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use peersock_nat::stun::request_id;

    use super::*;

    #[test]
    fn a_stun_server_is_told_from_a_silent_port_and_from_nothing() {
        let [server, silent] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let at = |socket: &UdpSocket| socket.local_addr().unwrap();
        let (there, quiet) = (at(&server), at(&silent));
        thread::spawn(move || {
            let mut buffer = [0; ANSWER_BYTES];
            let (length, mapped) = server.recv_from(&mut buffer).unwrap();
            let id = request_id(&buffer[..length]).unwrap();
            let answer = Answer { id, mapped, origin: None, other: None, second_port: None };
            server.send_to(&answer.emit(), mapped).unwrap();
        });
        assert_eq!(look(&[quiet, there]), Found::StunServer);
        assert_eq!(look(&[quiet]), Found::Nothing);
        assert_eq!(look(&[]), Found::Nothing);
    }
}
