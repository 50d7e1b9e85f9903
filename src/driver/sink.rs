//! Output of the data path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use peersock_overlay::{SocketIndex, TcpAction, WantedSocket, WantedStream};

use super::extra::ExtraSockets;
use super::streams::Streams;
use super::tcp::PeerStreams;
use super::{Alarm, TurnSockets, UdpSockets};
use peersock_datapath::{Sink, Transmit};

/// Limit of datagrams handed to a stream at once, as to a socket with GSO.
const STREAM_SEGMENTS: usize = 64;

/// Output of the data path: the UDP sockets, the TURN allocations, the streams, and the engine's alarm.
pub(super) struct DriverSink {
    pub(super) sockets: Arc<UdpSockets>,
    pub(super) streams: Arc<Streams>,
    pub(super) turn: Arc<TurnSockets>,
    pub(super) extra: Arc<ExtraSockets>,
    pub(super) tcp: Arc<PeerStreams>,
    pub(super) alarm: Arc<Alarm>,
}

impl Sink for DriverSink {
    fn send(&self, transmit: &Transmit<'_>) {
        match transmit.socket {
            stream if stream.is_peer_stream() => self.tcp.send(transmit),
            stream if stream.is_stream() => self.streams.send(transmit),
            turn if turn.is_turn() => self.turn.send(transmit),
            _ => self.sockets.send(transmit),
        }
    }

    fn send_at_once(&self, transmit: &Transmit<'_>) {
        match transmit.socket {
            stream if stream.is_peer_stream() => self.tcp.send(transmit),
            stream if stream.is_stream() => self.streams.send(transmit),
            turn if turn.is_turn() => self.turn.send(transmit),
            _ => self.sockets.send_at_once(transmit),
        }
    }

    fn interface_of(&self, socket: SocketIndex, remote: SocketAddr) -> String {
        match socket {
            stream if stream.is_peer_stream() => "a TCP connection".to_owned(),
            stream if stream.is_stream() => "a stream".to_owned(),
            turn if turn.is_turn() => "a TURN server".to_owned(),
            _ => self.sockets.interface_of(socket, remote),
        }
    }

    fn max_segments(&self, socket: SocketIndex) -> usize {
        match socket {
            stream if stream.is_stream() => STREAM_SEGMENTS,
            turn if turn.is_turn() => self.turn.max_segments(socket),
            _ => self.sockets.max_segments(socket),
        }
    }

    fn wake_at(&self, at: Instant) {
        self.alarm.set(at);
    }

    fn want_streams(&self, wanted: Vec<WantedStream>) {
        self.streams.want(wanted);
    }

    fn want_extra_sockets(&self, wanted: Vec<WantedSocket>) {
        self.extra.want(wanted);
    }

    fn act_on_tcp(&self, action: TcpAction) {
        self.tcp.act(action);
    }
}
