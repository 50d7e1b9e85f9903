//! Reading the UDP sockets into the data path.

use std::io::IoSliceMut;
use std::time::Instant;

use peersock_overlay::RecvMeta;

use super::interfaces::canonical;
use super::udp::{RECEIVE_BATCH, UdpSockets};
use crate::datapath::{Datapath, Ingress};

/// Bytes of one GRO batch at most.
const BUFFER: usize = 65536;
/// Receive calls for one socket before the others, and timers, have their turn.
const MAX_CALLS: usize = 8;

/// The buffers of whoever has the receive role.
pub(super) struct Receiver {
    /// Untouched pages of a fresh zeroed buffer take no memory.
    buffers: Vec<Vec<u8>>,
    ingress: Ingress,
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver { buffers: vec![vec![0; BUFFER]; RECEIVE_BATCH], ingress: Ingress::default() }
    }
}

impl Receiver {
    /// Reads what the sockets marked in `readable` hold, up to a bound, and gives it to the data path.
    pub(super) fn receive(
        &mut self,
        sockets: &UdpSockets,
        datapath: &Datapath,
        readable: impl Iterator<Item = usize>,
    ) {
        let mut now = Instant::now();
        for index in readable {
            for _ in 0..MAX_CALLS {
                if !self.receive_once(now, sockets, datapath, index) {
                    break;
                }
                // More may be at hand: first acknowledge and deliver what has come.
                datapath.finish_receive(now, &mut self.ingress);
                now = Instant::now();
            }
        }
        datapath.finish_receive(now, &mut self.ingress);
    }

    /// One receive call. True: it filled every buffer, so there may be more.
    fn receive_once(
        &mut self,
        now: Instant,
        sockets: &UdpSockets,
        datapath: &Datapath,
        index: usize,
    ) -> bool {
        let mut meta = [quinn_udp::RecvMeta::default(); RECEIVE_BATCH];
        let received = {
            let mut buffers = self.buffers.iter_mut();
            let mut slices: [IoSliceMut<'_>; RECEIVE_BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| buffer)));
            match sockets.receive(index, &mut slices, &mut meta) {
                Ok(received) => received,
                // Would block, or an error that an earlier datagram caused (ICMP): either way nothing came.
                Err(_) => return false,
            }
        };
        for (meta, buffer) in meta.iter().zip(&self.buffers).take(received) {
            let Some((socket, multicast)) = sockets.origin(index, meta) else { continue };
            let origin = RecvMeta { remote: canonical(meta.addr), socket, multicast };
            let marked = meta.ecn == Some(quinn_udp::EcnCodepoint::Ce);
            datapath.receive(now, &mut self.ingress, origin, &buffer[..meta.len], meta.stride, marked);
        }
        received == RECEIVE_BATCH
    }
}
