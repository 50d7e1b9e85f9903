//! smoltcp's TCP under the same load: messages and buffers of the same size, the same number of packets per
//! message, no checksums.
//!
//! smoltcp searches all sockets of an interface for every packet, so by default each connection has its own
//! pair of interfaces. Then it has nothing to find, share or time: no table of flows, no locks, and no timers
//! except its next poll time. Its congestion control is Reno's.

use std::collections::VecDeque;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use peersock_stack_lab::SEGMENT;

use super::exchange::{BUFFER, MESSAGE, STEP};
use super::{Cost, cpu_time, next_turn};

const CLIENT: IpAddress = IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const SERVER: IpAddress = IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 0x22);
const PORT: u16 = 7;

/// Both ends of some connections.
pub(super) struct Reference {
    /// Time since the beginning.
    now: Duration,
    wire: Wire,
    pairs: Vec<[Side; 2]>,
    /// Pair of each connection, and its sockets there.
    connections: Vec<(usize, [SocketHandle; 2])>,
    at: usize,
}

/// State of one end of the wire.
struct Side {
    interface: Interface,
    sockets: SocketSet<'static>,
}

impl Reference {
    /// Creates `flows` connections, at most `together` on one pair of interfaces.
    pub(super) fn new(flows: usize, together: usize) -> Self {
        let mut wire = Wire::default();
        let pairs = (0..flows.div_ceil(together))
            .map(|id| [CLIENT, SERVER].map(|own| Side::new(own, id, together, &mut wire)));
        let pairs = pairs.collect();
        let mut reference = Self { now: Duration::from_secs(1), wire, pairs, connections: Vec::new(), at: 0 };
        for flow in 0..flows {
            reference.connect(flow, flow / together);
        }
        reference
    }

    fn connect(&mut self, flow: usize, pair: usize) {
        let now = self.tick();
        let [near, far] = &mut self.pairs[pair];
        let (near_handle, far_handle) = (near.add(), far.add());
        far.socket(far_handle).listen(PORT).expect("the port is free");
        // Port numbers may repeat, because by default every connection has its own interfaces.
        let local = 1024 + (flow % 60_000) as u16;
        let socket = near.sockets.get_mut::<tcp::Socket<'_>>(near_handle);
        socket.connect(near.interface.context(), (SERVER, PORT), local).expect("the port is free");
        near.send(now, &mut self.wire);
        far.take(now, &mut self.wire);
        far.send(now, &mut self.wire);
        near.take(now, &mut self.wire);
        near.send(now, &mut self.wire);
        far.take(now, &mut self.wire);
        assert!(near.socket(near_handle).may_send() && far.socket(far_handle).may_send());
        self.connections.push((pair, [near_handle, far_handle]));
    }

    /// Returns the cost of `turns` turns of `length` exchanges.
    pub(super) fn measure(&mut self, turns: usize, length: usize) -> Cost {
        let (before, began) = (self.wire.carried, cpu_time());
        for _ in 0..turns {
            self.at = next_turn(self.at, self.connections.len());
            for _ in 0..length {
                self.ping_pong();
            }
        }
        let messages = 2 * (turns * length) as u64;
        Cost { time: cpu_time() - began, packets: self.wire.carried - before, messages }
    }

    /// Exchanges one message in each direction.
    fn ping_pong(&mut self) {
        let now = self.tick();
        let mut data = [7; MESSAGE];
        let (pair, [near_handle, far_handle]) = self.connections[self.at];
        let [near, far] = &mut self.pairs[pair];
        assert_eq!(near.socket(near_handle).send_slice(&data), Ok(MESSAGE));
        near.send(now, &mut self.wire);
        far.take(now, &mut self.wire);
        assert_eq!(far.socket(far_handle).recv_slice(&mut data), Ok(MESSAGE));
        assert_eq!(far.socket(far_handle).send_slice(&data), Ok(MESSAGE));
        far.send(now, &mut self.wire);
        near.take(now, &mut self.wire);
        assert_eq!(near.socket(near_handle).recv_slice(&mut data), Ok(MESSAGE));
        near.look_again(now);
        far.look_again(now);
    }

    fn tick(&mut self) -> Instant {
        self.now += STEP;
        Instant::from_micros(self.now.as_micros() as i64)
    }
}

impl Side {
    fn new(address: IpAddress, id: usize, sockets: usize, wire: &mut Wire) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = id as u64;
        let mut interface = Interface::new(config, wire, Instant::from_secs(1));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address, 8)).expect("there is room for one");
        });
        // `leak` gives memory without an owner, as for the buffers in `add`.
        let storage = (0..sockets).map(|_| SocketStorage::EMPTY).collect::<Vec<_>>().leak();
        Self { interface, sockets: SocketSet::new(storage) }
    }

    fn add(&mut self) -> SocketHandle {
        // Without the feature `alloc`, which needs more crates, smoltcp borrows its buffers for ever.
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER].leak());
        self.sockets.add(tcp::Socket::new(buffer(), buffer()))
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Puts all output on the wire.
    fn send(&mut self, now: Instant, wire: &mut Wire) {
        let sent = smoltcp::iface::PollResult::SocketStateChanged;
        while self.interface.poll_egress(now, wire, &mut self.sockets) == sent {}
    }

    /// Takes the packets from the wire.
    fn take(&mut self, now: Instant, wire: &mut Wire) {
        while !wire.under_way.is_empty() {
            self.interface.poll_ingress_single(now, wire, &mut self.sockets);
        }
    }

    fn look_again(&mut self, now: Instant) {
        // `black_box` keeps the compiler from dropping the call, which a real driver needs.
        std::hint::black_box(self.interface.poll_at(now, &self.sockets));
    }
}

/// Packets between two ends, of which only one sends at a time.
#[derive(Default)]
struct Wire {
    under_way: VecDeque<Vec<u8>>,
    /// Packet that is being received.
    arriving: Vec<u8>,
    /// Buffers for further packets.
    spare: Vec<Vec<u8>>,
    carried: u64,
}

impl Device for Wire {
    type RxToken<'a> = Arrival<'a>;
    type TxToken<'a> = Departure<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = SEGMENT + 60;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }

    fn receive(&mut self, _: Instant) -> Option<(Arrival<'_>, Departure<'_>)> {
        let Self { under_way, arriving, spare, carried } = self;
        let taken = std::mem::replace(arriving, under_way.pop_front()?);
        spare.push(taken);
        *carried += 1;
        Some((Arrival(arriving), Departure { under_way, spare }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Departure<'_>> {
        let Self { under_way, spare, .. } = self;
        Some(Departure { under_way, spare })
    }
}

struct Arrival<'a>(&'a [u8]);

impl phy::RxToken for Arrival<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

struct Departure<'a> {
    under_way: &'a mut VecDeque<Vec<u8>>,
    spare: &'a mut Vec<Vec<u8>>,
}

impl phy::TxToken for Departure<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.resize(len, 0);
        let written = write(&mut packet);
        self.under_way.push_back(packet);
        written
    }
}
