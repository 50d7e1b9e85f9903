//! One request to the port of PCP and NAT-PMP, and its answer.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Gateway, MapError, Protocol};
use crate::socket::udp;

/// Port at which routers listen for PCP and NAT-PMP.
const PORT: u16 = 5351;
/// RFC 6886 (3.1): the first retransmission leaves after 250 ms, the next after twice as long, and so on.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// A reader's verdict on a datagram.
pub(super) enum Reading<T> {
    /// The datagram answers another request.
    Foreign,
    /// The datagram is the answer.
    Answer(Result<T, MapError>),
}

/// Sends and retransmits until an answer arrives or the time is over.
pub(super) fn exchange<T>(
    protocol: Protocol,
    gateway: &Gateway,
    request: &[u8],
    until: Instant,
    read: impl Fn(&[u8]) -> Reading<T>,
) -> Result<T, MapError> {
    let silent = |source| MapError::Silent { protocol, source };
    let socket = udp(SocketAddr::new(gateway.local, 0), gateway.interface.as_deref()).map_err(silent)?;
    socket.set_nonblocking(false).map_err(silent)?;
    let mut router = gateway.router;
    router.set_port(PORT);
    // Connected, so that only the router's datagrams arrive, and its ICMP errors too.
    socket.connect(router).map_err(silent)?;
    let mut wait = FIRST_WAIT;
    // RFC 6887 (11): at most 1100 bytes.
    let mut buffer = [0; 1100];
    while Instant::now() < until {
        socket.send(request).map_err(silent)?;
        let next = (Instant::now() + wait).min(until);
        wait *= 2;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left)).map_err(silent)?;
            match socket.recv(&mut buffer) {
                Ok(len) => {
                    if let Reading::Answer(answer) = read(&buffer[..len]) {
                        return answer;
                    }
                }
                Err(error) if is_patience(&error) => {}
                Err(error) => return Err(silent(error)),
            }
        }
    }
    Err(silent(io::ErrorKind::TimedOut.into()))
}

fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
