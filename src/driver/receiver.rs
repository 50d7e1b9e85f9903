//! Transfer from the UDP sockets to the data path.

use std::io;
use std::time::Instant;

use peersock_overlay::is_endpoint;
use peersock_stack::Batch;

use super::busy_poll::Looking;
use super::udp::{RECEIVE_BATCH, UdpSockets, as_slices, receive_buffers};
use peersock_datapath::{Datapath, Ingress};

/// Size limit of a GRO batch in bytes.
const BUFFER: usize = 65536;
/// Limit of receive calls for one socket before the others, and timers, get their turn.
const MAX_CALLS: usize = 8;

/// Limit of errors taken at a time.
const MAX_ERRORS: usize = 64;

/// Buffers of the holder of the receive role.
pub(super) struct Receiver {
    buffers: [Vec<u8>; RECEIVE_BATCH],
    ingress: Ingress,
    /// Flows and sockets woken by errors.
    batch: Batch,
    /// Busy polling of the application's threads, one of which at a time reads.
    pub(super) looking: Looking,
}

/// Offers each datagram of a batch to `take`, and passes runs of the others to `pass`, because a batch may
/// have datagrams of both kinds.
fn split(batch: &[u8], stride: usize, mut take: impl FnMut(&[u8]) -> bool, mut pass: impl FnMut(&[u8])) {
    let mut begin = 0;
    for at in (0..batch.len()).step_by(stride) {
        let end = batch.len().min(at + stride);
        if take(&batch[at..end]) {
            if begin < at {
                pass(&batch[begin..at]);
            }
            begin = end;
        }
    }
    if begin < batch.len() {
        pass(&batch[begin..]);
    }
}

/// Result of a receive call.
enum Received {
    /// Every buffer is full, so more datagrams may be available.
    Full,
    /// All available datagrams.
    Some,
    Nothing,
    /// Error of an earlier datagram.
    Failed,
}

impl Receiver {
    pub(super) fn new(looking: Looking) -> Receiver {
        let (ingress, batch) = (Ingress::default(), Batch::default());
        Receiver { buffers: receive_buffers(BUFFER), ingress, batch, looking }
    }

    /// Reads the sockets in `readable`, up to a limit, and passes the datagrams to the data path.
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
                    // A socket that is readable without a datagram has errors, unless another thread was
                    // faster.
                    Received::Nothing if call == 0 => {
                        self.take_errors(now, sockets, datapath, index);
                        break;
                    }
                    Received::Nothing => break,
                    Received::Failed => self.take_errors(now, sockets, datapath, index),
                }
                // More may be available, but first acknowledge and deliver the received data.
                datapath.finish_receive(now, &mut self.ingress);
                // Handling the batch took time, which the next packets' timestamps must include.
                now = Instant::now();
            }
        }
        datapath.finish_receive(now, &mut self.ingress);
    }

    /// Makes one receive call.
    fn receive_once(
        &mut self,
        now: Instant,
        sockets: &UdpSockets,
        datapath: &Datapath,
        index: usize,
    ) -> Received {
        let mut meta = [quinn_udp::RecvMeta::default(); RECEIVE_BATCH];
        let received = match sockets.receive(index, &mut as_slices(&mut self.buffers), &mut meta) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::Nothing,
            // The error belongs to an earlier datagram (ICMP); received ones can be read after it.
            Err(_) => return Received::Failed,
        };
        for (meta, buffer) in meta.iter().zip(&self.buffers).take(received) {
            let Some(origin) = sockets.origin(index, meta) else { continue };
            // No peer has such an address; some of them stand for streams inside the node.
            if !is_endpoint(&origin.remote) {
                continue;
            }
            tracing::trace!(
                from = %origin.remote,
                bytes = meta.len,
                stride = meta.stride,
                "{} received",
                super::udp::name_of(&buffer[..meta.len])
            );
            let marked = meta.ecn == Some(quinn_udp::EcnCodepoint::Ce);
            let mut pass = |part: &[u8]| {
                datapath.receive(now, &mut self.ingress, origin, part, meta.stride, marked);
            };
            let (data, stride) = (&buffer[..meta.len], meta.stride.max(1));
            match () {
                () if origin.multicast => {
                    split(data, stride, |one| sockets.take_announcement(now, origin.remote, one), pass);
                }
                () if sockets.expects_answers() => {
                    split(data, stride, |one| sockets.take_answer(&origin, one), pass);
                }
                () => pass(data),
            }
        }
        if received == RECEIVE_BATCH { Received::Full } else { Received::Some }
    }

    /// Passes the errors about a socket's datagrams to the data path.
    fn take_errors(&mut self, now: Instant, sockets: &UdpSockets, datapath: &Datapath, index: usize) {
        for _ in 0..MAX_ERRORS {
            let Some(error) = sockets.take_error(index) else { return };
            if let Some(refused) = error {
                datapath.handle_refusal(now, refused.remote, refused.quoted(), &mut self.batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
    use std::time::Duration;

    use quinn_udp::{UdpSockRef, UdpSocketState};

    use super::*;
    use crate::{IdentitySource, Interfaces, Node, RootSource};

    /// Limits the duration of a hang.
    const HANG_TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_not_taken_is_passed_on_in_rows() {
        let rows = |batch: &str, taken: &str| {
            let mut passed = Vec::new();
            let take = |one: &[u8]| taken.as_bytes().contains(&one[0]);
            split(batch.as_bytes(), 2, take, |part| {
                passed.push(String::from_utf8(part.to_vec()).expect("it is ASCII"));
            });
            passed.join(" ")
        };
        assert_eq!(rows("a1b2c3d", ""), "a1b2c3d");
        assert_eq!(rows("a1b2c3d", "abcd"), "");
        assert_eq!(rows("a1b2c3d", "a"), "b2c3d");
        assert_eq!(rows("a1b2c3d", "bd"), "a1 c3");
        assert_eq!(rows("", "a"), "");
    }

    #[test]
    fn answers_that_come_as_one_train_are_several() {
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let node = builder.discovery(false).roots(Vec::<RootSource>::new()).start().expect("sockets");
        let sockets = &node.inner.driver.sockets;
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let from = server.local_addr().expect("its address");
        let to = sockets.local_addrs().into_iter().find(SocketAddr::is_ipv4).expect("an IPv4 socket");
        sockets.expect_answers(vec![from]);
        // A message of the overlay, which the data path gets, between two answers.
        let train = [[b'd'; 32], [0xD4; 32], [b'e'; 32]].concat();
        let state = UdpSocketState::new(UdpSockRef::from(&server)).expect("options");
        let transmit = quinn_udp::Transmit {
            destination: to,
            ecn: None,
            contents: &train,
            segment_size: Some(32),
            src_ip: None,
        };
        state.try_send(UdpSockRef::from(&server), &transmit).expect("room");
        let until = Instant::now() + HANG_TIMEOUT;
        let mut answers = Vec::new();
        while answers.len() < 2 && Instant::now() < until {
            answers.extend(sockets.answers(until).into_iter().map(|answer| answer.datagram));
            if answers.iter().any(|one: &Vec<u8>| one.len() != 32) {
                break;
            }
        }
        assert_eq!(answers, [vec![b'd'; 32], vec![b'e'; 32]]);
    }
}
