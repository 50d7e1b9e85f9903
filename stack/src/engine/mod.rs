//! One TCP connection's protocol machine, behind an interface that another engine can take:
//! segments in ([`Engine::process`]), segments out ([`Engine::emit`]), deadlines
//! ([`Engine::deadline`]) and two buffers ([`Engine::write`], [`Engine::read`]).
//!
//! This one is smoltcp's socket. `smoltcp::iface::Interface` is linear in the sockets of its set, so
//! each engine has a set of one, and the interface, which is only a context then, is made anew for each
//! call (about 100 bytes). Around it are the things that smoltcp lacks or fixes otherwise:
//!
//! - **Super-segments.** smoltcp believes in segmentation offload and emits up to 64 KiB at once.
//! - **MSS.** The SYN announces what a node can take in, which is any IP packet (RFC 6691 2), and not what the
//!   path carries now, which may grow. smoltcp is told [`BLOCK`] segments of the peer's instead: its congestion
//!   window grows by one MSS per acknowledgement, and we acknowledge once per batch, not every two
//!   segments. The price is a smallest congestion window of as many segments.
//! - **Nagle and cork.** smoltcp's Nagle switch is set before each use, see [`Engine::tune`].
//! - **Acknowledgements.** smoltcp always delays; [`Engine::emit`] overrides it after bulk data.
//! - **In-flight cap.** The window in arriving segments is lowered to it.
//! - **Sequence numbers.** See [`isn`].
//! - **TIME-WAIT.** smoltcp forgets unread data when it ends, so it is not let end before.

mod device;
pub(crate) mod isn;
mod pool;

use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::iface::{self, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, CongestionControl, Socket};
use smoltcp::wire::{HardwareAddress, IpListenEndpoint, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber};

pub(crate) use pool::Pool;

use self::device::{Device, Limit};
use crate::clock::{Time, after};
use crate::flow::Egress;
use crate::gso::SuperSegment;
use crate::ip::MAX_PACKET;
use crate::ready::State;

/// How long the acknowledgement of little data waits for data to ride on (RFC 1122 4.2.3.2 allows
/// 500 ms).
const ACK_DELAY: Duration = Duration::from_millis(10);

/// How many of the peer's segments smoltcp takes for one.
const BLOCK: usize = 16;

/// The segment that a block is made of where the peer takes larger ones: an Ethernet path's.
const USUAL_SEGMENT: usize = 1388;

/// The segment size of a peer that names none (RFC 9293 3.7.1, MUST-15).
const DEFAULT_MSS: usize = 536;

/// What an engine is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) send_buffer: usize,
    pub(crate) receive_buffer: usize,
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Duration>,
}

/// What [`Engine::process`] made of a segment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Processed {
    /// Bytes of the packet that answers at once, 0 for none.
    pub(crate) reply: usize,
    /// How often to send it. A duplicate acknowledgement stands for each segment of a coalesced one,
    /// up to the three that start a fast retransmission (RFC 5681 3.2).
    pub(crate) copies: usize,
}

/// See the module.
pub(crate) struct Engine {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    settings: Settings,
    /// Bytes of the IP and TCP headers.
    headers: usize,
    isn: u32,
    /// Stream bytes that the peer has acknowledged.
    acked: u64,
    /// Stream bytes that were sent at least once.
    sent: u64,
    /// Stream bytes that arrived, duplicates included.
    received: u64,
    /// Until this much is acknowledged, lost data is being sent again.
    recovery: u64,
    retransmits: u64,
    /// The largest segment the peer takes. None known before its SYN.
    peer_mss: Option<usize>,
    /// The wire's segment size as of the last [`emit`](Self::emit).
    segment: usize,
    /// Most of them in one super-segment.
    max_segments: usize,
    /// What smoltcp takes for the peer's MSS, bytes.
    block: usize,
    /// The peer's window, bytes, lowered to the cap.
    window: usize,
    window_scale: u8,
    in_flight_cap: usize,
    /// Bytes received and not acknowledged.
    unanswered: usize,
    ack_now: bool,
    /// Unacknowledged data is to be sent again without waiting for the retransmission timer.
    retransmit_now: bool,
    large_write: bool,
    /// The application has sent its last byte, and smoltcp does not know yet; see [`Engine::shutdown`].
    shutting: bool,
    /// Sequence number after the last one sent.
    snd_nxt: u32,
    /// The last acknowledgement sent.
    rcv_nxt: u32,
    /// Stream bytes behind it that have arrived in order.
    arrived: u32,
}

impl Engine {
    /// A connection that starts with a SYN.
    pub(crate) fn connect(
        pool: &Pool,
        settings: Settings,
        time: Time,
        (local, remote): (SocketAddr, SocketAddr),
        isn: u32,
    ) -> Option<Self> {
        let mut engine = Self::new(pool, settings, local, isn);
        let mut context =
            interface(time, isn::seed_for(isn), &mut Device::sending(&mut [], Limit::default()));
        engine.socket_mut().connect(context.context(), remote, local).ok()?;
        Some(engine)
    }

    /// A connection that answers the SYN in `packet`.
    pub(crate) fn accept(
        pool: &Pool,
        settings: Settings,
        time: Time,
        local: SocketAddr,
        isn: u32,
        packet: &mut [u8],
        ip_len: usize,
    ) -> Option<Self> {
        let mut engine = Self::new(pool, settings, local, isn);
        let endpoint = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
        engine.socket_mut().listen(endpoint).ok()?;
        engine.read_syn(&mut packet[ip_len..]);
        engine.ingress(time, isn::seed_for(isn), packet, &mut []);
        (engine.state() == State::SynReceived).then_some(engine)
    }

    fn new(pool: &Pool, settings: Settings, local: SocketAddr, isn: u32) -> Self {
        let (mut sockets, handle) = pool.take(settings.send_buffer, settings.receive_buffer);
        let socket = sockets.get_mut::<Socket>(handle);
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_keep_alive(settings.keepalive.map(Into::into));
        socket.set_ack_delay(Some(ACK_DELAY.into()));
        Self {
            sockets,
            handle,
            settings,
            headers: if local.is_ipv4() { 40 } else { 60 },
            isn,
            acked: 0,
            sent: 0,
            received: 0,
            recovery: 0,
            retransmits: 0,
            peer_mss: None,
            segment: DEFAULT_MSS,
            max_segments: usize::MAX,
            block: DEFAULT_MSS,
            window: 0,
            window_scale: 0,
            in_flight_cap: usize::MAX,
            unanswered: 0,
            ack_now: false,
            retransmit_now: false,
            large_write: false,
            shutting: false,
            snd_nxt: isn,
            rcv_nxt: 0,
            arrived: 0,
        }
    }

    /// Gives the buffers back.
    pub(crate) fn recycle(self, pool: &Pool) {
        let touched = self.acked as usize + self.unacked() + self.received as usize;
        let clean = self.recovery == 0 && self.readable() == 0;
        pool.put(self.sockets, self.handle, &self.settings, clean.then_some(touched));
    }

    /// Takes one segment in: the IP packet `packet`, whose TCP header starts at `ip_len` and is well
    /// formed. A reply, headers only, goes to `reply`.
    pub(crate) fn process(
        &mut self,
        time: Time,
        packet: &mut [u8],
        ip_len: usize,
        reply: &mut [u8],
    ) -> Processed {
        let tcp = &mut packet[ip_len..];
        let view = TcpPacket::new_unchecked(&*tcp);
        let (syn, fin, payload) = (view.syn(), view.fin(), view.payload().len());
        let acknowledges_only = view.ack() && !syn && !fin && !view.rst() && payload == 0;
        if acknowledges_only && self.lacks_only_fin(view.ack_number().0 as u32) {
            // smoltcp's fast retransmission sends data, and a FIN is none: the third duplicate would send nothing
            // and stop the retransmission timer as well.
            return Processed::default();
        }
        if view.rst() && self.state() == State::TimeWait {
            // RFC 1337: the connection has ended in order, and the application may still read.
            return Processed::default();
        }
        if syn {
            self.read_syn(tcp);
        } else {
            self.clamp_window(tcp);
        }
        let (queued, readable) = (self.unacked(), self.readable());
        let packet = if fin && payload > 0 { self.trim_known(packet, ip_len) } else { packet };
        let written = self.ingress(time, 0, packet, reply);
        self.arrived += self.readable().saturating_sub(readable) as u32;
        self.acked += queued.saturating_sub(self.unacked()) as u64;
        self.sent = self.sent.max(self.acked);
        self.shut_if_ready();

        // RFC 5681 4.2: at least every second full segment is acknowledged without delay; a coalesced
        // one stands for several. So is a FIN, which nothing may follow.
        self.received += payload as u64;
        self.unanswered += payload;
        self.ack_now |= fin || payload > self.segment || self.unanswered >= 2 * self.segment;
        if written == 0 {
            return Processed::default();
        }
        self.note_sent(&mut reply[..written]);
        let lost_order = payload > 0 && self.readable() == readable;
        let copies = if lost_order { payload.div_ceil(self.segment).min(3) } else { 1 };
        Processed { reply: written, copies }
    }

    /// Writes at most one super-segment to `buf`, which holds [`MAX_PACKET`] bytes. `None` means that
    /// there is nothing to send before [`deadline`](Self::deadline).
    pub(crate) fn emit(&mut self, time: Time, limits: &Egress, buf: &mut [u8]) -> Option<SuperSegment> {
        let mss = self.peer_mss.unwrap_or(usize::MAX);
        self.segment = limits.segment.min(mss).clamp(1, MAX_PACKET - 60);
        self.max_segments = limits.max_segments.max(1);
        self.in_flight_cap = limits.in_flight_cap;
        self.tune();
        // The peer's FIN is acknowledged at once, whenever the application reads what came before it.
        let silent = !self.ack_now && self.keeps_unread_data(time);
        if buf.len() < MAX_PACKET || silent {
            return None;
        }
        // smoltcp retransmits when its timer is over, so let it believe that it is.
        let expedited = std::mem::take(&mut self.retransmit_now).then(|| self.poll_at(time)).flatten();
        let mut written = self.egress(expedited.map_or(time, |due| due.max(time)), buf);
        if written == 0 && self.ack_now {
            self.ack_now = false;
            // smoltcp holds its acknowledgement back for ACK_DELAY, so let it believe that this has
            // passed. If its retransmission timer ends within that time, it ends that much early.
            let due = self.poll_at(time).filter(|&due| due <= after(time, ACK_DELAY));
            written = due.map_or(0, |due| self.egress(due, buf));
        }
        if written == 0 {
            return None;
        }
        self.note_sent(&mut buf[..written]);
        SuperSegment::new(&buf[..written], self.segment, limits.checksums)
    }

    /// When [`emit`](Self::emit) has something to do; now or earlier if it has already.
    pub(crate) fn deadline(&mut self, time: Time) -> Option<Time> {
        self.tune();
        if self.ack_now || self.retransmit_now {
            return Some(time);
        }
        if self.keeps_unread_data(time) {
            return None;
        }
        self.poll_at(time)
    }

    /// Has the next [`emit`](Self::emit) send again what is not acknowledged, if anything is.
    pub(crate) fn expedite(&mut self) {
        self.retransmit_now = self.awaits_ack() && (self.in_flight() > 0 || self.unsent() == 0);
    }

    /// Queues what fits of `data`.
    pub(crate) fn write(&mut self, data: &[u8]) -> usize {
        self.large_write = data.len() >= self.block;
        self.socket_mut().send_slice(data).unwrap_or(0)
    }

    /// Takes what fits into `buf` from the receive queue.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> usize {
        self.socket_mut().recv_slice(buf).unwrap_or(0)
    }

    /// Copies what fits into `buf` and leaves it queued.
    pub(crate) fn peek(&mut self, buf: &mut [u8]) -> usize {
        self.socket_mut().peek_slice(buf).unwrap_or(0)
    }

    /// Throws the receive queue away.
    pub(crate) fn discard(&mut self) {
        // A ring buffer's content may be in two pieces.
        while self.readable() > 0 {
            if self.socket_mut().recv(|piece| (piece.len(), ())).is_err() {
                break;
            }
        }
    }

    /// Sends FIN after the queue.
    ///
    /// In LAST-ACK smoltcp ignores whatever acknowledges nothing new, and so the news that a window has opened. So
    /// after the peer's FIN, ours waits until everything before it is acknowledged.
    pub(crate) fn shutdown(&mut self) {
        self.shutting = true;
        self.shut_if_ready();
    }

    fn shut_if_ready(&mut self) {
        if self.shutting && (self.state() != State::CloseWait || self.unacked() == 0) {
            self.shutting = false;
            self.socket_mut().close();
        }
    }

    /// Sends RST and forgets everything.
    pub(crate) fn abort(&mut self) {
        self.socket_mut().abort();
    }

    pub(crate) fn state(&self) -> State {
        match self.socket().state() {
            tcp::State::SynSent => State::SynSent,
            tcp::State::SynReceived => State::SynReceived,
            tcp::State::Established => State::Established,
            tcp::State::FinWait1 => State::FinWait1,
            tcp::State::FinWait2 => State::FinWait2,
            tcp::State::CloseWait => State::CloseWait,
            tcp::State::Closing => State::Closing,
            tcp::State::LastAck => State::LastAck,
            tcp::State::TimeWait => State::TimeWait,
            // It listens again if a handshake is reset; that is over for us.
            tcp::State::Closed | tcp::State::Listen => State::Closed,
        }
    }

    /// Whether it is closed and has nothing left to send.
    pub(crate) fn is_finished(&self) -> bool {
        self.state() == State::Closed && self.socket().local_endpoint().is_none()
    }

    /// Bytes queued by the application and not acknowledged.
    pub(crate) fn unacked(&self) -> usize {
        self.socket().send_queue()
    }

    /// Bytes queued by the application and never sent.
    pub(crate) fn unsent(&self) -> usize {
        self.unacked().saturating_sub(self.in_flight())
    }

    /// The size of the queue for sending, bytes.
    pub(crate) fn send_buffer(&self) -> usize {
        self.settings.send_buffer
    }

    /// Bytes that the application can queue.
    pub(crate) fn writable(&self) -> usize {
        self.settings.send_buffer - self.unacked()
    }

    /// Bytes that the application can read.
    pub(crate) fn readable(&self) -> usize {
        self.socket().recv_queue()
    }

    /// Whether something waits for an acknowledgement: SYN, data or FIN.
    pub(crate) fn awaits_ack(&self) -> bool {
        match self.state() {
            State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck => true,
            State::Established | State::CloseWait => self.unacked() > 0,
            State::FinWait2 | State::TimeWait | State::Closed => false,
        }
    }

    /// Leaves the FIN alone of a segment whose data has arrived before. smoltcp takes no account of the
    /// FIN's sequence number, so to it such a segment lies before the window.
    fn trim_known<'a>(&self, packet: &'a mut [u8], ip_len: usize) -> &'a mut [u8] {
        let mut tcp = TcpPacket::new_unchecked(&mut packet[ip_len..]);
        let (header, payload) = (usize::from(tcp.header_len()), tcp.payload_mut().len());
        let end = tcp.seq_number() + payload;
        if end.0 as u32 != self.rcv_nxt.wrapping_add(self.arrived) {
            return packet;
        }
        tcp.set_seq_number(end);
        let packet = &mut packet[..ip_len + header];
        match self.headers {
            40 => Ipv4Packet::new_unchecked(&mut *packet).set_total_len((ip_len + header) as u16),
            _ => Ipv6Packet::new_unchecked(&mut *packet).set_payload_len(header as u16),
        }
        packet
    }

    /// Whether `ack` repeats what is known, and all that it lacks is our FIN.
    fn lacks_only_fin(&self, ack: u32) -> bool {
        let sent_fin = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
        sent_fin && self.unacked() == 0 && ack.wrapping_add(1) == self.snd_nxt
    }

    pub(crate) fn retransmits(&self) -> u64 {
        self.retransmits
    }

    /// The sequence number after the last one sent, and the last acknowledgement sent.
    pub(crate) fn edges(&self) -> (u32, u32) {
        (self.snd_nxt, self.rcv_nxt)
    }

    pub(crate) fn initial_sequence(&self) -> u32 {
        self.isn
    }

    pub(crate) fn nodelay(&self) -> bool {
        self.settings.nodelay
    }

    pub(crate) fn set_nodelay(&mut self, on: bool) {
        self.settings.nodelay = on;
    }

    pub(crate) fn set_keepalive(&mut self, interval: Option<Duration>) {
        self.settings.keepalive = interval;
        self.socket_mut().set_keep_alive(interval.map(Into::into));
    }

    /// Decides whether a part of a block waits, which smoltcp calls Nagle's algorithm: with it on and
    /// data in flight, nothing under a block leaves.
    fn tune(&mut self) {
        let (in_flight, unsent) = (self.in_flight(), self.unsent());
        let block = self.block.min(self.limit().payload);
        let hold = if self.acked < self.recovery {
            false
        } else if unsent >= block {
            // Bulk: wait until windows let a whole block pass, unless they never will.
            self.window >= 4 * block
        } else if in_flight >= block && self.large_write {
            // The rest of a large write: more will follow, or an acknowledgement will release it.
            true
        } else {
            // RFC 9293 3.7.4.
            !self.settings.nodelay && unsent < self.segment
        };
        self.socket_mut().set_nagle_enabled(hold);
    }

    /// The largest super-segment. smoltcp's fast retransmission sends as much, whatever the peer's window.
    fn limit(&self) -> Limit {
        let segments = ((MAX_PACKET - self.headers) / self.segment).clamp(1, self.max_segments);
        let within_window = (self.window / self.segment).max(1);
        Limit { headers: self.headers, payload: segments.min(within_window) * self.segment }
    }

    /// Bytes of the stream sent and not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        (self.sent - self.acked) as usize
    }

    /// In TIME-WAIT, smoltcp would drop unread data at the end of it. Later the flow takes over.
    fn keeps_unread_data(&mut self, time: Time) -> bool {
        self.state() == State::TimeWait
            && self.readable() > 0
            && self.poll_at(time).is_none_or(|due| due > Time::ZERO)
    }

    fn poll_at(&mut self, time: Time) -> Option<Time> {
        let mut context = interface(time, 0, &mut Device::sending(&mut [], self.limit()));
        context.poll_at(time, &self.sockets)
    }

    fn ingress(&mut self, time: Time, seed: u64, packet: &[u8], reply: &mut [u8]) -> usize {
        let mut device = Device { arriving: Some(packet), ..Device::sending(reply, self.limit()) };
        let mut context = interface(time, seed, &mut device);
        context.poll_ingress_single(time, &mut device, &mut self.sockets);
        device.written
    }

    fn egress(&mut self, time: Time, buf: &mut [u8]) -> usize {
        let mut device = Device::sending(buf, self.limit());
        let mut context = interface(time, 0, &mut device);
        context.poll_egress(time, &mut device, &mut self.sockets);
        device.written
    }

    /// Learns from the peer's SYN, and lets smoltcp believe in larger segments.
    fn read_syn(&mut self, tcp: &mut [u8]) {
        let mut view = TcpPacket::new_unchecked(tcp);
        self.window = usize::from(view.window_len());
        let options = view.options_mut();
        self.window_scale = option(options, 3).map_or(0, |shift| shift[0].min(14));
        let mss = option(options, 2).map(|value| {
            let mss = usize::from(u16::from_be_bytes([value[0], value[1]])).max(48);
            self.block = mss.min(USUAL_SEGMENT) * BLOCK;
            value.copy_from_slice(&(self.block as u16).to_be_bytes());
            mss
        });
        self.peer_mss = Some(mss.unwrap_or(DEFAULT_MSS));
        self.segment = self.segment.min(mss.unwrap_or(DEFAULT_MSS));
    }

    /// Lowers the window that the peer offers to the cap on what may be in flight.
    ///
    /// A closed one counts as the smallest while sent data lacks its acknowledgement: smoltcp would probe the window
    /// instead of retransmitting, and do neither once the window is open.
    fn clamp_window(&mut self, tcp: &mut [u8]) {
        let mut view = TcpPacket::new_unchecked(tcp);
        let cap = (self.in_flight_cap >> self.window_scale).max(1);
        let sent = self.isn.wrapping_add(1).wrapping_add(self.sent as u32);
        let lacking = sent.wrapping_sub(view.ack_number().0 as u32) as i32 > 0;
        let window = usize::from(view.window_len()).min(cap).max(usize::from(lacking));
        view.set_window_len(window as u16);
        self.window = window << self.window_scale;
    }

    /// Keeps account of a packet that smoltcp has made, and puts our MSS into its SYN.
    fn note_sent(&mut self, packet: &mut [u8]) {
        let mut view = TcpPacket::new_unchecked(&mut packet[self.headers - 20..]);
        if view.syn()
            && let Some(value) = option(view.options_mut(), 2)
        {
            value.copy_from_slice(&((MAX_PACKET - self.headers) as u16).to_be_bytes());
        }
        let seq = view.seq_number().0 as u32;
        let payload = view.payload_mut().len();
        if payload == 0 && !view.syn() && !view.fin() {
            // SND.NXT (RFC 9293 3.10.7.4), and not where smoltcp is with sending again: the peer would take the
            // packet for an old one and ignore what it acknowledges, as we might ignore its in turn.
            view.set_seq_number(TcpSeqNumber(self.snd_nxt as i32));
        }
        let end = seq.wrapping_add((payload + usize::from(view.syn()) + usize::from(view.fin())) as u32);
        if end.wrapping_sub(self.snd_nxt) as i32 > 0 {
            self.snd_nxt = end;
        }
        if view.ack() {
            self.rcv_nxt = view.ack_number().0 as u32;
            self.arrived = 0;
            self.unanswered = 0;
            self.ack_now = false;
        }
        // Distance from the oldest unacknowledged byte; a keep-alive lies before it.
        let ahead = seq.wrapping_sub(self.isn.wrapping_add(1).wrapping_add(self.acked as u32));
        // A probe of a closed window is not in flight: smoltcp sends its byte again as if for the first time.
        let probe = self.window == 0;
        if payload > 0 && (ahead as i32) >= 0 && !probe {
            let start = self.acked + u64::from(ahead);
            if start < self.sent {
                self.retransmits += 1;
                self.recovery = self.sent;
            }
            self.sent = self.sent.max(start + payload as u64);
        }
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// smoltcp's context for one call.
fn interface(time: Time, seed: u64, device: &mut Device<'_>) -> Interface {
    let mut config = iface::Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, device, time);
    // The demultiplexer has checked the addresses.
    interface.set_any_ip(true);
    interface
}

/// The value of the first TCP option of `kind`, if it has the length that kind has.
fn option(mut options: &mut [u8], kind: u8) -> Option<&mut [u8]> {
    let value_len = if kind == 2 { 2 } else { 1 };
    loop {
        match *options.first()? {
            0 => return None,
            1 => options = &mut options[1..],
            found => {
                let len = usize::from(*options.get(1)?);
                if len < 2 || len > options.len() {
                    return None;
                }
                let (this, rest) = options.split_at_mut(len);
                if found == kind && len == value_len + 2 {
                    return Some(&mut this[2..]);
                }
                options = rest;
            }
        }
    }
}
