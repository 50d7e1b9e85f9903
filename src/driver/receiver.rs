//! Reading the UDP sockets into the data path.

use std::io::{self, IoSliceMut};
use std::time::Instant;

use peersock_overlay::{RecvMeta, is_endpoint};
use peersock_stack::Batch;

use super::interfaces::canonical;
use super::udp::{RECEIVE_BATCH, UdpSockets};
use crate::datapath::{Datapath, Ingress};

/// Bytes of one GRO batch at most.
const BUFFER: usize = 65536;
/// Receive calls for one socket before the others, and timers, have their turn.
const MAX_CALLS: usize = 8;

/// Errors taken at a time.
const MAX_ERRORS: usize = 64;

/// The buffers of whoever has the receive role.
pub(super) struct Receiver {
    /// Untouched pages of a fresh zeroed buffer take no memory.
    buffers: Vec<Vec<u8>>,
    ingress: Ingress,
    /// What errors have touched.
    batch: Batch,
}

/// What a receive call has brought.
enum Received {
    /// Every buffer is full: there may be more.
    Full,
    /// All that there was.
    Some,
    Nothing,
    /// An error instead.
    Failed,
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver {
            buffers: vec![vec![0; BUFFER]; RECEIVE_BATCH],
            ingress: Ingress::default(),
            batch: Batch::default(),
        }
    }
}

impl Receiver {
    /// Reads what the sockets marked in `readable` hold, up to a bound, and gives it to the data path.
    pub(super) fn receive(
        &mut self,
        mut now: Instant,
        sockets: &UdpSockets,
        datapath: &Datapath,
        readable: impl Iterator<Item = usize>,
    ) {
        for index in readable {
            for call in 0..MAX_CALLS {
                match self.receive_once(now, sockets, datapath, index) {
                    Received::Some => break,
                    Received::Full => {}
                    // A socket that wakes its reader for nothing has errors, unless another thread was
                    // faster.
                    Received::Nothing if call == 0 => {
                        self.take_errors(now, sockets, datapath, index);
                        break;
                    }
                    Received::Nothing => break,
                    Received::Failed => self.take_errors(now, sockets, datapath, index),
                }
                // More may be at hand: first acknowledge and deliver what has come.
                datapath.finish_receive(now, &mut self.ingress);
                now = Instant::now();
            }
        }
        datapath.finish_receive(now, &mut self.ingress);
    }

    /// One receive call.
    fn receive_once(
        &mut self,
        now: Instant,
        sockets: &UdpSockets,
        datapath: &Datapath,
        index: usize,
    ) -> Received {
        let mut meta = [quinn_udp::RecvMeta::default(); RECEIVE_BATCH];
        let received = {
            let mut buffers = self.buffers.iter_mut();
            let mut slices: [IoSliceMut<'_>; RECEIVE_BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| buffer)));
            match sockets.receive(index, &mut slices, &mut meta) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::Nothing,
                // Of an earlier datagram (ICMP); what has come can be read after it.
                Err(_) => return Received::Failed,
            }
        };
        for (meta, buffer) in meta.iter().zip(&self.buffers).take(received) {
            let Some((socket, multicast)) = sockets.origin(index, meta) else { continue };
            // Nobody is there; some of these addresses stand for streams.
            if !is_endpoint(&canonical(meta.addr)) {
                continue;
            }
            let origin = RecvMeta { remote: canonical(meta.addr), socket, multicast, relay: None };
            tracing::trace!(
                from = %origin.remote,
                bytes = meta.len,
                stride = meta.stride,
                "{} received",
                super::udp::name_of(&buffer[..meta.len])
            );
            let data = &buffer[..meta.len];
            let announces =
                || multicast && sockets.take_announcement(origin.remote, &data[..meta.stride.min(meta.len)]);
            if announces() || sockets.take_answer(&origin, data) {
                continue;
            }
            let marked = meta.ecn == Some(quinn_udp::EcnCodepoint::Ce);
            datapath.receive(now, &mut self.ingress, origin, &buffer[..meta.len], meta.stride, marked);
        }
        if received == RECEIVE_BATCH { Received::Full } else { Received::Some }
    }

    /// Gives the errors about a socket's datagrams to the data path.
    fn take_errors(&mut self, now: Instant, sockets: &UdpSockets, datapath: &Datapath, index: usize) {
        for _ in 0..MAX_ERRORS {
            let Some(error) = sockets.take_error(index) else { return };
            if let Some(refused) = error {
                let remote = canonical(refused.remote);
                datapath.handle_refusal(now, remote, refused.quoted(), &mut self.batch);
            }
        }
    }
}
