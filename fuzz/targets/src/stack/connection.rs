//! A connection about which a stranger knows everything except a way to stop it.

use std::net::IpAddr;
use std::time::Duration;

use arbitrary::Arbitrary;
use peersock_stack::CongestionControl;

use super::host::{A, B, RECEIVE_BUFFER, SEND_BUFFER, Travel, address};
use super::model::Connection;
use super::pair::Pair;
use crate::input::{pick, sequence};

/// Maximum number of operations in one input.
const MAX_OPERATIONS: usize = 300;

/// Time after the last forged segment within which all data has arrived, if all forged segments were
/// harmless.
const RECOVERY: Duration = Duration::from_secs(120);

/// Distance from the next expected sequence number that no honest number reaches.
const FAR: u32 = 1 << 20;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

#[derive(Debug, Arbitrary)]
enum Operation {
    Write { side: bool, len: u16 },
    Read { side: bool, len: u16 },
    Shutdown { side: bool },
    Deliver { count: u8 },
    Drop { which: u8 },
    Swap { one: u8, other: u8 },
    Wait { millis: u16 },
    Congestion { side: bool, which: u8 },
    Cork { side: bool, on: bool },
    QuickAck { side: bool, on: bool },
    Path { segment: u16, max_segments: u8, cap: u32 },
    Inject { to: bool, forged: Forged },
}

/// A segment that neither end has sent. It appears to come from the other end.
#[derive(Debug, Arbitrary)]
struct Forged {
    seq: Number,
    ack: Number,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN.
    flags: u8,
    window: u16,
    options: Options,
    payload: u16,
    /// The two bits of explicit congestion notification.
    ecn: u8,
}

#[derive(Debug, Arbitrary)]
enum Number {
    /// A distance after (or before) the next number.
    Near(i16),
    /// The same in units of 256.
    About(i16),
    /// A distance after the next number, plus a megabyte: outside any window.
    Far(u32),
}

#[derive(Debug, Arbitrary)]
enum Options {
    None,
    /// Ranges by their distances from the last acknowledgement, and their lengths.
    Sack([(i16, u16); 3]),
    Timestamps(u32, u32),
    Syn {
        mss: u16,
        scale: u8,
        sack: bool,
    },
    Any(Vec<u8>),
}

/// Checks two ends that exchange data while segments of every kind are forged to both. Nothing panics,
/// nothing runs for ever, and queues stay within their bounds. The read data equals the written data until
/// forged *data* could be in the window. If all forged segments lie outside the window, everything arrives.
pub fn connection(data: &[u8]) {
    let mut world = World::new(data.first().copied().unwrap_or_default());
    for operation in sequence::<Operation>(data.get(1..).unwrap_or_default(), MAX_OPERATIONS) {
        world.run(operation);
        world.settle();
    }
    world.recover();
    world.end();
}

struct World {
    ipv6: bool,
    /// True if the stranger does not know the window. `mute` is true if the stranger sends no data.
    blind: bool,
    mute: bool,
    pair: Pair,
    connection: Connection,
    /// Ports by host.
    ports: [u16; 2],
    /// Last acknowledgement that each host has sent.
    acked: [u32; 2],
    /// True once one end has finished its stream, so that its connection may no longer exist.
    ending: bool,
}

impl World {
    fn new(kind: u8) -> Self {
        let [ipv6, checksums, blind, mute] = [1, 2, 4, 8].map(|bit| kind & bit != 0);
        // Packets with checksums also use timestamps.
        let mut pair = Pair::new(if checksums { Travel::Checked } else { Travel::Plain });
        let (a, b) = pair.connected(ipv6);
        let ports = [a.local().port(), b.local().port()];
        let mut connection = Connection::new(A, a, pair.now);
        assert!(connection.accept(B, &b));
        let mut world = Self { ipv6, blind, mute, pair, connection, ports, acked: [0; 2], ending: false };
        // A byte each way reveals the sequence numbers of both ends.
        for side in [A, B] {
            world.connection.write(side, world.pair.now, 1, false);
            world.settle();
        }
        world
    }

    fn run(&mut self, operation: Operation) {
        let now = self.pair.now;
        match operation {
            Operation::Write { side, len } => self.connection.write(side.into(), now, len.into(), false),
            Operation::Read { side, len } => self.connection.read(side.into(), now, len.into(), false),
            Operation::Shutdown { side } => {
                self.connection.shutdown_write(side.into(), now);
                self.ending = true;
            }
            Operation::Deliver { count } => self.pair.deliver(count.into()),
            Operation::Drop { which } => drop(self.packet(which).and_then(|at| self.pair.wire.remove(at))),
            Operation::Swap { one, other } => {
                if let (Some(one), Some(other)) = (self.packet(one), self.packet(other)) {
                    self.pair.wire.swap(one, other);
                }
            }
            Operation::Wait { millis } => {
                self.pair.wait(Duration::from_millis(millis.into()), false);
                self.connection.grow_old(self.pair.now);
            }
            Operation::Congestion { side, which } => {
                let one = *pick(&CongestionControl::ALL, which).expect("there are some");
                self.connection.flow(side.into()).inspect(|flow| flow.set_congestion(now, one));
            }
            Operation::Cork { side, on } => {
                self.connection.flow(side.into()).inspect(|flow| flow.set_cork(on));
            }
            Operation::QuickAck { side, on } => {
                self.connection.flow(side.into()).inspect(|flow| flow.set_quick_ack(on));
            }
            Operation::Path { segment, max_segments, cap } => {
                let limits = &mut self.pair.limits;
                limits.segment = usize::from(segment).clamp(100, 16_000);
                limits.max_segments = usize::from(max_segments).max(1);
                limits.in_flight_cap = (cap as usize).max(1);
            }
            Operation::Inject { to, forged } => self.inject(to.into(), forged),
        }
    }

    fn packet(&self, which: u8) -> Option<usize> {
        usize::from(which).checked_rem(self.pair.wire.len())
    }

    fn inject(&mut self, to: usize, mut forged: Forged) {
        if let (true, Number::Near(by) | Number::About(by)) = (self.blind, &forged.seq) {
            forged.seq = Number::Far(u32::from(by.unsigned_abs()));
        }
        if self.mute {
            forged.payload = 0;
            forged.flags &= !FIN;
        }
        let seq = forged.seq.from(self.acked[to]);
        let ack = forged.ack.from(self.acked[1 - to]);
        let counts = forged.payload > 0 || forged.flags & FIN != 0;
        let outside = matches!(forged.seq, Number::Far(_));
        // A connection that has ended gives way to a SYN with any number.
        if !outside || self.ending && forged.flags & (SYN | RST) != 0 {
            self.connection.excused = true;
            if counts {
                self.connection.forge(1 - to);
            }
        }
        let packet = self.packet_of(to, &forged, seq, ack);
        self.pair.hosts[to].receive(self.pair.now, &packet);
    }

    fn packet_of(&self, to: usize, forged: &Forged, seq: u32, ack: u32) -> Vec<u8> {
        let options = forged.options.bytes(self.acked[1 - to]);
        let payload = usize::from(forged.payload % 3000);
        let [from_port, to_port] = [self.ports[1 - to], self.ports[to]].map(u16::to_be_bytes);
        let mut tcp = [&from_port[..], &to_port, &seq.to_be_bytes(), &ack.to_be_bytes()].concat();
        tcp.extend([(((20 + options.len()) / 4) << 4) as u8, forged.flags]);
        tcp.extend(forged.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.resize(tcp.len() + payload, 0x5a);
        let (source, destination) = (address(1 - to, self.ipv6).ip(), address(to, self.ipv6).ip());
        ip_packet(source, destination, forged.ecn & 3, tcp)
    }

    /// Lets both ends send, records what they have sent, and checks their queues.
    fn settle(&mut self) {
        self.pair.finish();
        for side in [A, B] {
            let Some(flow) = self.connection.flow(side).cloned() else { continue };
            self.pair.kick(side, &flow);
            assert!(flow.readable() <= RECEIVE_BUFFER && flow.unacked() <= SEND_BUFFER);
            let Some(info) = flow.info() else { continue };
            assert!(info.in_flight + info.sacked + info.lost <= info.unacked + 1, "{info:?}");
            assert!(info.unsent <= info.unacked && info.congestion_window > 0, "{info:?}");
        }
        for packet in &self.pair.wire {
            let from = 1 - packet.to;
            let tcp = &packet.bytes[if self.ipv6 { 40 } else { 20 }..];
            let field = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four bytes"));
            // A reset repeats numbers that may come from the stranger.
            let tells = tcp[13] & (ACK | RST) == ACK;
            let known = self.acked[from];
            if tells && (known == 0 || (field(8).wrapping_sub(known) as i32) > 0) {
                self.acked[from] = field(8);
            }
        }
    }

    /// Checks that all outstanding data arrives when no segment is forged and the network works.
    fn recover(&mut self) {
        let end = self.pair.now + RECOVERY;
        self.pair.limits.in_flight_cap = usize::MAX;
        loop {
            self.connection.read_all(self.pair.now);
            self.settle();
            if self.connection.is_complete() {
                return;
            }
            assert!(self.pair.now < end, "bytes are missing");
            self.pair.wait(Duration::from_millis(500), true);
        }
    }

    /// Closes both ends and checks that no state remains. Ends that a stranger has desynchronized may keep
    /// each other alive by contradicting, until they are aborted.
    fn end(&mut self) {
        for side in [A, B] {
            self.connection.close(side, self.pair.now);
        }
        self.settle();
        self.pair.wait(Duration::from_secs(400), true);
        if self.connection.excused {
            for side in [A, B] {
                self.connection.abort(side, self.pair.now);
            }
            self.settle();
            self.pair.deliver_all();
        }
        let left = self.pair.hosts.each_ref().map(|host| host.stack.flows());
        assert_eq!(left, [0, 0], "flows are left");
    }
}

impl Number {
    fn from(&self, base: u32) -> u32 {
        match *self {
            Self::Near(by) => base.wrapping_add_signed(by.into()),
            Self::About(by) => base.wrapping_add_signed(i32::from(by) << 8),
            Self::Far(by) => base.wrapping_add(FAR + by % (u32::MAX - 2 * FAR)),
        }
    }
}

impl Options {
    fn bytes(&self, acked: u32) -> Vec<u8> {
        let mut bytes = match self {
            Self::None => Vec::new(),
            Self::Sack(ranges) => {
                let mut bytes = vec![1, 1, 5, 26];
                for &(at, len) in ranges {
                    let start = acked.wrapping_add_signed(at.into());
                    bytes.extend(start.to_be_bytes());
                    bytes.extend(start.wrapping_add(len.into()).to_be_bytes());
                }
                bytes
            }
            Self::Timestamps(value, echo) => {
                [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
            }
            Self::Syn { mss, scale, sack } => {
                let mut bytes = [&[2, 4][..], &mss.to_be_bytes(), &[3, 3, *scale, 1]].concat();
                if *sack {
                    bytes.extend([4, 2, 1, 1]);
                }
                bytes
            }
            Self::Any(bytes) => bytes.iter().copied().take(40).collect(),
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

/// Makes an IP packet with correct checksums.
fn ip_packet(source: IpAddr, destination: IpAddr, ecn: u8, mut tcp: Vec<u8>) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let addresses = [octets(source), octets(destination)].concat();
    let len = tcp.len() as u16;
    let sum = checksum([&addresses[..], &[0, 6], &len.to_be_bytes(), &tcp].concat().as_slice());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut header = if source.is_ipv6() {
        let [high, low] = len.to_be_bytes();
        vec![0x60, ecn << 4, 0, 0, high, low, 6, 64]
    } else {
        let [high, low] = (20 + len).to_be_bytes();
        vec![0x45, ecn, high, low, 0, 0, 0, 0, 64, 6, 0, 0]
    };
    header.extend(addresses);
    if source.is_ipv4() {
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    header.extend(tcp);
    header
}

/// Computes the Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
