//! Subset of a TURN client (RFC 8656) for a comparison: an allocation over UDP and a channel.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::event::Timespec;

use crate::client::Socket;

const COOKIE: u32 = 0x2112_a442;
const ALLOCATE: u16 = 0x0003;
const BINDING: u16 = 0x0001;
const CHANNEL_BIND: u16 = 0x0009;

/// Channel number in the header of a channel's frames.
pub(crate) const CHANNEL: u16 = 0x4000;

const ANSWER_TIMEOUT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// TURN client with its socket.
pub(crate) struct Turn {
    pub(crate) socket: Socket,
}

impl Turn {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { socket: Socket::bind("127.0.0.1:0")? })
    }

    /// Makes the server relay between this socket and a peer's socket.
    pub(crate) fn open(&self, server: SocketAddr, peer: SocketAddr) -> io::Result<()> {
        // UDP is protocol 17.
        let transport = attribute(0x0019, &[17, 0, 0, 0]);
        let failed = |what| io::Error::other(format!("coturn refuses {what}"));
        self.ask(server, ALLOCATE, &transport).ok_or_else(|| failed("an allocation"))?;
        let number = attribute(0x000c, &[(CHANNEL >> 8) as u8, CHANNEL as u8, 0, 0]);
        let channel = [number, attribute(0x0012, &xored(peer))].concat();
        self.ask(server, CHANNEL_BIND, &channel).ok_or_else(|| failed("a channel"))
    }

    /// Returns `Some` if the server answers.
    pub(crate) fn binding(&self, server: SocketAddr) -> Option<()> {
        self.ask(server, BINDING, &[])
    }

    fn ask(&self, server: SocketAddr, method: u16, attributes: &[u8]) -> Option<()> {
        let len = attributes.len() as u16;
        let request =
            [&method.to_be_bytes()[..], &len.to_be_bytes(), &COOKIE.to_be_bytes(), &[7; 12], attributes]
                .concat();
        self.socket.send(None, server, &request, request.len());
        let mut buffer = [0; 2048];
        self.socket.wait(&ANSWER_TIMEOUT).then(|| self.socket.receive(&mut buffer))?.and_then(
            |(_, answer)| {
                // A success response has the second class bit.
                let kind = u16::from_be_bytes(*answer.first_chunk()?);
                (kind == method | 0x0100).then_some(())
            },
        )
    }

    /// Frames a datagram for the peer.
    pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
        [&CHANNEL.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat()
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

/// Encodes an IPv4 address as XOR-PEER-ADDRESS (RFC 8489, section 14.2).
fn xored(address: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = address.ip() else { unreachable!("the bench uses 127.0.0.1") };
    let port = address.port() ^ (COOKIE >> 16) as u16;
    let ip = ip.to_bits() ^ COOKIE;
    [&[0, 1][..], &port.to_be_bytes(), &ip.to_be_bytes()].concat()
}
