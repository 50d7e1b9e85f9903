//! Runs a probe on sockets of the operating system.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Prober, Settings};
use crate::behavior::Observations;
use crate::socket::udp;
use crate::stun::canonical;

/// Number of attempts to find successive ports. Without them a rare rule of ports is not recognised.
const MAX_PORT_RUN_ATTEMPTS: usize = 20;
/// Number of datagrams taken from one socket in a row, so that a flood does not delay the others.
const TAKEN_AT_ONCE: usize = 16;

/// Asks the servers about the NAT in front of one local address. Blocks for at most [`Settings::deadline`].
///
/// With a NAT64 `local` is an IPv6 address, and servers, mapped endpoints and other endpoints of servers are
/// IPv4 endpoints. If `interface` is set, datagrams leave by it; otherwise by the system's route.
///
/// ```no_run
/// use peersock_nat::probe::{self, Settings};
///
/// let settings = Settings::new(vec!["192.0.2.1:3478".parse()?]);
/// let nat = probe::run("192.168.1.2".parse()?, Some("eth0"), &settings)?.decide();
/// println!("{:?}", nat.kind());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Fails if the local address or the interface does not exist, or no socket can be made.
pub fn run(local: IpAddr, interface: Option<&str>, settings: &Settings) -> io::Result<Observations> {
    let sockets = sockets(local, interface)?;
    let own = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>()?;
    let own = own.into_iter().map(canonical).collect();
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    let mut prober = Prober::new(own, settings, seed, Instant::now());
    let mut buffer = [0; 2048];
    while !prober.is_finished() {
        while let Some(transmit) = prober.poll_transmit() {
            // A datagram that cannot be sent counts as lost: it is retransmitted, and then has no answer.
            let to = settings.nat64.map_or(transmit.to, |prefix| prefix.synthesize(transmit.to));
            if let Err(error) = sockets[transmit.socket].send_to(&transmit.data, to) {
                tracing::debug!(%error, to = %transmit.to, "a STUN request was not sent");
            }
        }
        if let Some(timeout) = prober.poll_timeout() {
            wait(&sockets, timeout)?;
        }
        for (index, socket) in sockets.iter().enumerate() {
            for _ in 0..TAKEN_AT_ONCE {
                // An error means an ICMP message about an earlier request, or an empty socket.
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { break };
                let from = settings.nat64.map_or(from, |prefix| prefix.restore(canonical(from)));
                prober.handle_datagram(Instant::now(), index, from, &buffer[..len]);
            }
        }
        prober.handle_timeout(Instant::now());
    }
    Ok(prober.into_observations())
}

/// Opens the sockets that [`Prober::new`] needs: after the first three, three with successive ports and three
/// more.
fn sockets(local: IpAddr, interface: Option<&str>) -> io::Result<Vec<UdpSocket>> {
    let open = |port| udp(SocketAddr::new(local, port), interface);
    let mut sockets = Vec::new();
    for _ in 0..Prober::MIN_SOCKETS {
        sockets.push(open(0)?);
    }
    for _ in 0..MAX_PORT_RUN_ATTEMPTS {
        let first = open(0)?;
        let port = first.local_addr()?.port();
        let Some(last) = port.checked_add(2) else { continue };
        if let (Ok(second), Ok(third)) = (open(port + 1), open(last)) {
            sockets.extend([first, second, third]);
            break;
        }
    }
    for _ in 0..3 {
        sockets.push(open(0)?);
    }
    Ok(sockets)
}

/// Waits until a socket is readable or the time has come.
fn wait(sockets: &[UdpSocket], until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut fds: Vec<_> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
