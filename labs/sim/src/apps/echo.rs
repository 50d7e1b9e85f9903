use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::NetworkId;
use peersock_stack::{Error, UdpSocket};

use super::{Context, Side, Violation};
use crate::{Content, Random, Time};

/// Bytes in front of the content: the exchange, the datagram's number, and its sender's side.
const HEADER: usize = 17;
/// Maximum number of content bytes.
const MAX_CONTENT: usize = 1400;

/// Program that sends back every UDP datagram that comes to a port.
pub(crate) struct EchoServer {
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) node: usize,
}

/// Program that sends datagrams to an [`EchoServer`]. The network may lose datagrams but not double or alter
/// them.
pub(crate) struct EchoClient {
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) node: usize,
    pub(crate) network: NetworkId,
    pub(crate) exchange: u64,
    pub(crate) server: SocketAddr,
    /// Number of datagrams still to send, and the interval between them.
    pub(crate) left: u32,
    pub(crate) interval: Duration,
    pub(crate) next: Time,
    /// True if one answer is enough.
    pub(crate) until_answered: bool,
    pub(crate) random: Random,
}

impl EchoServer {
    pub(crate) fn run(&self, context: &mut Context<'_>) -> Result<(), Violation> {
        let mut buf = [0; HEADER + MAX_CONTENT];
        while let Ok(received) = self.socket.recv_from(&mut buf) {
            let network = network_of(context, received.interface)?;
            let datagram = &mut buf[..received.len];
            let (exchange, number) = check(network, self.node, datagram, Side::Server)?;
            context.ledger.receive_datagram(exchange, number, Side::Server, network, self.node)?;
            make(network, exchange, number, datagram, Side::Server);
            // Ignore the error, because any datagram may be lost here.
            let _ = context.datapath.send_udp(context.at, &self.socket, Some(received.source), datagram);
        }
        Ok(())
    }
}

impl EchoClient {
    pub(crate) fn next_wake(&self) -> Option<Time> {
        (self.left > 0).then_some(self.next)
    }

    /// Returns true once it has sent all datagrams and waited 5 s for answers, or has the one answer it
    /// wanted.
    pub(crate) fn is_done(&self, context: &Context<'_>) -> bool {
        let answered = self.until_answered && context.ledger.datagrams(self.exchange, Side::Client) > 0;
        answered || self.left == 0 && context.now > self.next + Duration::from_secs(5)
    }

    pub(crate) fn run(&mut self, context: &mut Context<'_>) -> Result<(), Violation> {
        let mut buf = [0; HEADER + MAX_CONTENT];
        loop {
            match self.socket.recv_from(&mut buf) {
                Ok(received) => {
                    let network = network_of(context, received.interface)?;
                    let (exchange, number) = check(network, self.node, &buf[..received.len], Side::Client)?;
                    context.ledger.receive_datagram(exchange, number, Side::Client, network, self.node)?;
                }
                Err(Error::WouldBlock) => break,
                // An error such as port unreachable means that the other side may have crashed.
                Err(_) => {}
            }
        }
        if self.left > 0 && context.now >= self.next {
            self.left -= 1;
            self.next = context.now + self.interval;
            let number = context.ledger.send_datagram(self.exchange);
            let len = HEADER + self.random.size(1..=1000) as usize;
            make(self.network, self.exchange, number, &mut buf[..len], Side::Client);
            let _ = context.datapath.send_udp(context.at, &self.socket, Some(self.server), &buf[..len]);
        }
        Ok(())
    }
}

fn network_of(context: &Context<'_>, interface: peersock_stack::InterfaceId) -> Result<NetworkId, Violation> {
    let networks = context.datapath.networks();
    let network = networks.iter().find(|network| network.interface == interface);
    network
        .map(|network| network.id)
        .ok_or_else(|| Violation(format!("a datagram came over {interface:?}, which was left")))
}

/// Writes header and content into a datagram that `side` sends.
fn make(network: NetworkId, exchange: u64, number: u64, datagram: &mut [u8], side: Side) {
    datagram[..8].copy_from_slice(&exchange.to_be_bytes());
    datagram[8..16].copy_from_slice(&number.to_be_bytes());
    datagram[16] = side as u8;
    content(network, exchange, side).write(place(number), &mut datagram[HEADER..]);
}

/// Checks a datagram made by the side opposite to `side`.
fn check(network: NetworkId, node: usize, datagram: &[u8], side: Side) -> Result<(u64, u64), Violation> {
    let wrong = || Violation(format!("node {node} received a UDP datagram that no node wrote in {network}"));
    let header = datagram.get(..HEADER).ok_or_else(wrong)?;
    let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let (exchange, number) = (number(0), number(8));
    let right = content(network, exchange, side.other()).check(place(number), &datagram[HEADER..]).is_ok();
    if header[16] == side.other() as u8 && right { Ok((exchange, number)) } else { Err(wrong()) }
}

fn content(network: NetworkId, exchange: u64, side: Side) -> Content {
    Content::new(network, exchange, 2 + side as u64)
}

fn place(number: u64) -> u64 {
    number.wrapping_mul(MAX_CONTENT as u64)
}
