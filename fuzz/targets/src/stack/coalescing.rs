//! Coalesced packets have the same effect as the separate packets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use peersock_stack::{Egress, Error, Flow, TcpOptions};
use peersock_testnet::StackHost;

use super::host::{A, B, Travel, address, host, listen};
use crate::input::{instant, sequence};

/// Maximum number of operations in one input.
const MAX_PACKETS: usize = 200;

/// Minimum segment length in bytes. Shorter segments could leave more gaps in the data under way than a
/// receiver tracks, and then coalesced ones would rightly advance further.
const MIN_SEGMENT: usize = 1000;
const MIN_WRITE: u16 = 1200;

#[derive(Debug, Arbitrary)]
enum Operation {
    /// The sender writes, and its data is cut into segments of `segment` bytes.
    Write {
        len: u16,
        segment: u16,
    },
    Finish,
    /// A packet under way arrives, perhaps to arrive again later, with other fields that do not affect the
    /// stream.
    Arrive {
        which: u8,
        again: bool,
        hop_limit: Option<u8>,
        class: Option<u8>,
        push: bool,
    },
    Lose {
        which: u8,
    },
    /// An unrelated packet arrives in between.
    Noise {
        bytes: Vec<u8>,
    },
    /// A slot is taken for a datagram that does not open.
    GiveUp {
        len: u16,
    },
    /// A batch ends `millis` later.
    Flush {
        millis: u16,
    },
    /// A packet under way is followed by one of the other family with the next sequence number.
    OtherFamily {
        which: u8,
        options: u8,
        len: u8,
    },
}

/// Checks one sender and two identical receivers, except that one coalesces. The first receiver's answers
/// return to the sender. Both receivers must read the same.
pub fn coalescer(data: &[u8]) {
    let mut world = World::new(data.first().is_some_and(|byte| byte & 1 == 1));
    for operation in sequence::<Operation>(data.get(1..).unwrap_or_default(), MAX_PACKETS) {
        world.run(operation);
    }
    world.flush();
}

struct World {
    now: Instant,
    limits: Egress,
    sender: StackHost,
    source: Arc<Flow>,
    receivers: [(StackHost, Arc<Flow>); 2],
    /// Packets under way to the receivers.
    wire: Vec<Vec<u8>>,
}

impl World {
    fn new(ipv6: bool) -> Self {
        let now = instant();
        let limits = Egress { segment: 1000, max_segments: 44, in_flight_cap: usize::MAX, checksums: false };
        let mut sender = host(A, now, Travel::Plain);
        let options = TcpOptions { nodelay: true, ..TcpOptions::default() };
        let source = sender.stack.tcp_connect(now, sender.net, None, address(B, ipv6), options);
        let source = source.expect("a free port");
        let mut wire = Vec::new();
        sender.kick(now, &source, &limits, |packet| wire.push(packet.to_vec()));

        // Use one seed, so that both choose the same initial sequence number.
        let mut hosts = [Travel::Plain, Travel::Coalesced].map(|travel| host(B, now, travel));
        let listeners = hosts.each_ref().map(|host| listen(host, now, ipv6, 1));
        let [plain, _] = answers(&mut hosts, now, &limits, &wire);
        plain.iter().for_each(|packet| sender.receive(now, packet));
        wire.clear();
        sender.finish(now, &limits, |packet| wire.push(packet.to_vec()));
        answers(&mut hosts, now, &limits, &wire);
        wire.clear();

        let mut flows = listeners.into_iter().map(|listener| listener.accept(now).expect("a connection"));
        let receivers = hosts.map(|host| (host, flows.next().expect("one per host")));
        Self { now, limits, sender, source, receivers, wire }
    }

    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Write { len, segment } => {
                self.limits.segment = usize::from(segment).clamp(MIN_SEGMENT, 9000);
                let data: Vec<u8> = (0..len.max(MIN_WRITE)).map(|at| (at ^ at >> 8) as u8).collect();
                let _ = self.source.write(self.now, &data);
                self.kick();
            }
            Operation::Finish => {
                let _ = self.source.shutdown_write(self.now);
                self.kick();
            }
            Operation::Arrive { which, again, hop_limit, class, push } => {
                if let Some(at) = self.index(which) {
                    let mut packet = if again { self.wire[at].clone() } else { self.wire.remove(at) };
                    decorate(&mut packet, hop_limit, class, push);
                    self.arrive(&packet);
                }
            }
            Operation::Lose { which } => drop(self.index(which).map(|at| self.wire.remove(at))),
            Operation::Noise { bytes } => self.arrive(&bytes),
            Operation::GiveUp { len } => self.receivers[1].0.give_slot_up(len.into()),
            Operation::Flush { millis } => {
                self.now += Duration::from_millis(millis.into());
                self.flush();
            }
            Operation::OtherFamily { which, options, len } => {
                if let Some(at) = self.index(which) {
                    let packet = self.wire.remove(at);
                    let next = other_family(&packet, options, len);
                    self.arrive(&packet);
                    self.arrive(&next);
                }
            }
        }
    }

    fn index(&self, which: u8) -> Option<usize> {
        usize::from(which).checked_rem(self.wire.len())
    }

    fn kick(&mut self) {
        let wire = &mut self.wire;
        self.sender.kick(self.now, &self.source, &self.limits, |packet| wire.push(packet.to_vec()));
    }

    fn arrive(&mut self, packet: &[u8]) {
        for (host, _) in &mut self.receivers {
            host.receive(self.now, packet);
        }
    }

    /// Ends the batch, compares the readable data, and passes the answers to the sender.
    fn flush(&mut self) {
        let Self { now, limits, sender, receivers, wire, .. } = self;
        let (mut answers, mut read) = ([Vec::new(), Vec::new()], Vec::new());
        for ((host, flow), answers) in receivers.iter_mut().zip(&mut answers) {
            let mut answer = |packet: &[u8]| answers.push(packet.to_vec());
            host.handle_timeout(*now);
            host.finish(*now, limits, &mut answer);
            read.push(read_all(flow, *now));
            host.kick(*now, flow, limits, &mut answer);
        }
        assert_eq!(read[0].1, read[1].1, "the stream's end");
        assert!(read[0].0 == read[1].0, "{} and {} bytes", read[0].0.len(), read[1].0.len());
        answers[0].iter().for_each(|packet| sender.receive(*now, packet));
        sender.handle_timeout(*now);
        sender.finish(*now, limits, |packet| wire.push(packet.to_vec()));
    }
}

/// Returns both hosts' answers to the same packets.
fn answers(
    hosts: &mut [StackHost; 2],
    now: Instant,
    limits: &Egress,
    packets: &[Vec<u8>],
) -> [Vec<Vec<u8>>; 2] {
    hosts.each_mut().map(|host| {
        let mut answers = Vec::new();
        packets.iter().for_each(|packet| host.receive(now, packet));
        host.finish(now, limits, |packet| answers.push(packet.to_vec()));
        answers
    })
}

/// Returns all data that can be read now, and the result that follows it.
fn read_all(flow: &Flow, now: Instant) -> (Vec<u8>, Result<usize, Error>) {
    let (mut stream, mut buf) = (Vec::new(), [0; 4096]);
    loop {
        match flow.read(now, &mut buf) {
            Ok(len @ 1..) => stream.extend_from_slice(&buf[..len]),
            end => return (stream, end),
        }
    }
}

/// Makes a packet of the other family without a connection, but with the TCP packet's ports and next sequence
/// number.
fn other_family(packet: &[u8], options: u8, len: u8) -> Vec<u8> {
    let ipv6 = packet[0] >> 4 == 6;
    let tcp = &packet[if ipv6 { 40 } else { 20 }..];
    let payload = tcp.len() - usize::from(tcp[12] >> 4) * 4;
    let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(payload as u32);
    let options = options % 11;
    let mut next = tcp[..20].to_vec();
    next[4..8].copy_from_slice(&seq.to_be_bytes());
    next[12] = (5 + options) << 4;
    next[13] = 0x10;
    next.resize(20 + 4 * usize::from(options), 1);
    next.resize(next.len() + usize::from(len), 7);
    let [high, low] = (next.len() as u16 + if ipv6 { 20 } else { 0 }).to_be_bytes();
    let [source, destination] = [A, B].map(|side| address(side, !ipv6).ip());
    let mut ip = match ipv6 {
        true => vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0],
        false => vec![0x60, 0, 0, 0, high, low, 6, 64],
    };
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => ip.extend(v4.octets()),
            IpAddr::V6(v6) => ip.extend(v6.octets()),
        }
    }
    [ip, next].concat()
}

/// Changes fields that may differ within one stream.
fn decorate(packet: &mut [u8], hop_limit: Option<u8>, class: Option<u8>, push: bool) {
    let ipv6 = packet[0] >> 4 == 6;
    let (hop_at, flags_at) = if ipv6 { (7, 53) } else { (8, 33) };
    if let Some(hop_limit) = hop_limit {
        packet[hop_at] = hop_limit.max(1);
    }
    if let Some(class) = class {
        // ECN marks and similar bits: the low half of the second byte in IPv6, all of it in IPv4.
        packet[1] = if ipv6 { packet[1] & 0x0f | class << 4 } else { class };
    }
    if push {
        packet[flags_at] |= 0x08;
    }
}
