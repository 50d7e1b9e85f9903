//! Figures of a connection, and settings that may change during its life.

use std::net::SocketAddr;

use super::{Connection, Probing};
use crate::host::clock::Time;
use crate::socket::flow::TcpInfo;
use crate::tcp::segment::{Marking, header_len};
use crate::{CongestionControl, State};

impl Connection {
    pub(crate) fn info(&self, local: SocketAddr) -> TcpInfo {
        let sender = &self.sender;
        TcpInfo {
            state: self.state,
            congestion: self.settings.congestion,
            rtt: sender.rtt.smoothed(),
            rtt_variation: sender.rtt.variation(),
            min_rtt: sender.rtt.min(),
            retransmission_timeout: sender.rtt.timeout(),
            backoff: sender.rtt.backoff(),
            mss: sender.mss(),
            path_mtu: self.path_mtu(local),
            congestion_window: sender.window(),
            slow_start_threshold: sender.slow_start_threshold(),
            pacing_rate: sender.pacing_rate(),
            peer_window: sender.edge().saturating_sub(sender.una()),
            in_flight: sender.in_flight(),
            sacked: sender.sacked(),
            lost: sender.lost(),
            unacked: sender.queued() as u64,
            unsent: sender.unsent() as u64,
            delivered: sender.delivered(),
            retransmits: sender.retransmits(),
            // The SYN and the FIN take a number each, but are no data.
            received: self.receiver.nxt() - 1 - u64::from(self.receiver.is_finished()),
            send_buffer: self.send_buffer() as u64,
            receive_buffer: self.receiver.limit() as u64,
            ecn: self.ecn.on,
        }
    }

    pub(crate) fn congestion(&self) -> CongestionControl {
        self.settings.congestion
    }

    pub(crate) fn set_congestion(&mut self, now: Time, congestion: CongestionControl) {
        if congestion == std::mem::replace(&mut self.settings.congestion, congestion) {
            return;
        }
        // During the handshake, `establish` starts the algorithm later.
        if !matches!(self.state, State::SynSent | State::SynReceived) {
            self.sender.set_congestion(now, congestion);
        }
    }

    /// Returns the MTU of the path from `local`, as of the last emission: bytes of an IP packet.
    pub(crate) fn path_mtu(&self, local: SocketAddr) -> u64 {
        u64::from(self.segment) + header_len(local) as u64
    }

    /// Sets the marking of further IP headers.
    pub(crate) fn set_marking(&mut self, marking: Marking) {
        self.settings.marking = marking;
    }

    /// Sets TCP_MAXSEG.
    pub(crate) fn set_max_segment(&mut self, size: Option<u16>) {
        self.settings.max_segment = size;
    }

    pub(crate) fn nodelay(&self) -> bool {
        self.sender.nodelay
    }

    pub(crate) fn set_nodelay(&mut self, on: bool) {
        self.sender.nodelay = on;
    }

    pub(crate) fn set_keepalive(&mut self, keepalive: Probing) {
        self.settings.keepalive = keepalive;
    }

    pub(crate) fn set_cork(&mut self, on: bool) {
        self.sender.set_cork(on);
    }

    /// Notes that the application waits for data, which releases a held acknowledgement.
    pub(crate) fn wait_for_data(&mut self) {
        self.receiver.release();
    }

    pub(crate) fn set_quick_ack(&mut self, on: bool) {
        self.receiver.set_quick(on);
    }
}
