//! One TCP connection as a state machine: segments in ([`Connection::process`]), segments out
//! ([`Connection::emit`]), deadlines ([`Connection::deadline`]) and two buffers.
//!
//! * `input`: arriving segments, RFC 9293 3.10.7.
//! * `output`: what leaves, and when.
//! * `timestamps`: RFC 7323; `probing`: keep-alives; `urgent`: urgent data.
//!
//! The two halves are a [`Sender`](super::sender::Sender) and a [`Receiver`](super::receiver::Receiver).

mod cookie;
mod info;
mod input;
mod output;
mod probing;
mod timestamps;
mod urgent;

use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) use input::Verdict;
pub(crate) use output::{SYN_TIMEOUT, Written};

pub(crate) use self::probing::Probing;
pub(crate) use self::timestamps::Timestamps;
use super::congestion::CongestionControl;
use super::memory::{Charge, LEAST_BUFFER, Share};
use super::options::Options;
use super::receiver::Receiver;
use super::segment::{Marking, Segment, header_len};
use super::sender::Sender;
use super::sequence;
use crate::State;
use crate::host::clock::{Time, after, since};
use crate::ip::MAX_PACKET;

/// Text of a reset (RFC 9293 3.5.3) whose sender's application has read everything up to the acknowledgement
/// number. Other stacks send none and look at none.
const ALL_READ: &[u8] = b"all read";

/// The segment size of a peer that names none (RFC 9293 3.7.1, MUST-15; RFC 2675 for IPv6).
const DEFAULT_MSS_V4: u16 = 536;
const DEFAULT_MSS_V6: u16 = 1220;

/// The smallest segment size that a peer may ask for; less only wastes everybody's time.
const LEAST_MSS: u16 = 48;

/// The smallest that an application may ask for, as Linux (TCP_MIN_MSS).
const LEAST_OWN_MSS: u16 = 88;

/// A send buffer that adapts itself holds so many congestion windows, and at least this many bytes.
const WINDOWS: u64 = 3;
const LEAST_SEND_BUFFER: usize = 256 << 10;

/// A buffer's bytes while the node has no memory left for more.
const PRESSED_BUFFER: usize = 64 << 10;

/// The initial window, segments: RFC 6928.
pub(crate) const INITIAL_WINDOW: u64 = 10;

/// Segments outside the window and probes that are answered in a second (RFC 5961 section 7).
const CHALLENGES: u16 = 100;

/// What a connection is made with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Most bytes queued for sending and for reading, and whether these are to be so from the start.
    pub(crate) send_buffer: u32,
    pub(crate) send_fixed: bool,
    pub(crate) receive_buffer: u32,
    pub(crate) receive_fixed: bool,
    pub(crate) nodelay: bool,
    /// See [`TcpOptions::prompt`](crate::TcpOptions::prompt).
    pub(crate) prompt: bool,
    pub(crate) keepalive: Probing,
    /// TCP_MAXSEG.
    pub(crate) max_segment: Option<u16>,
    pub(crate) marking: Marking,
    pub(crate) congestion: CongestionControl,
    /// RFC 7323 timestamps: of use towards other stacks.
    pub(crate) timestamps: bool,
    /// RFC 3168: ask for and accept explicit congestion notification.
    pub(crate) ecn: bool,
    /// The account of the peer.
    pub(crate) memory: Arc<Share>,
}

impl Settings {
    /// A new connection's receiving half.
    fn receiver(&self, now: Time) -> Receiver {
        Receiver::new(now, self.receive_buffer as usize, self.receive_fixed, self.memory.has_room())
    }
}

/// See the module.
pub(crate) struct Connection {
    state: State,
    settings: Settings,
    /// The initial sequence numbers, ours and the peer's.
    isn: u32,
    irs: u32,
    sender: Sender,
    receiver: Receiver,
    syn: Syn,
    /// A reset is to leave; nothing else does then.
    reset_due: bool,
    /// The reset says that the application has read all that came.
    says_read: bool,
    /// The peer's reset has said so, of all that was written.
    was_read: bool,
    /// The path has come back.
    expedite_due: bool,
    /// The largest segment that the peer takes, with its options.
    peer_mss: u16,
    /// Log2 of the units of windows: the peer's, and ours if the peer has said its own (RFC 7323 2.2).
    peer_scale: u8,
    own_scale: Option<u8>,
    timestamps: Option<Timestamps>,
    ecn: Ecn,
    /// The sequence number and the acknowledgement of the last segment that set the window (RFC 9293
    /// 3.10.7.4).
    window_seq: u64,
    window_ack: u64,
    /// The path's payload of a segment without options, as of the last emission.
    segment: u16,
    /// When the last segment came, and the last keep-alive or window probe left.
    heard: Time,
    probed: Time,
    /// How long before that one the first left that has no answer either, milliseconds.
    unanswered: u32,
    /// Challenges (RFC 5961) since the first of them in this second.
    challenges: u16,
    /// When that was, milliseconds, modulo 2^32.
    challenged: u32,
    charge: Charge,
}

/// The handshake's own transmissions.
#[derive(Debug, Clone, Copy, Default)]
struct Syn {
    /// It is to leave now.
    due: bool,
    /// When it leaves again.
    again: Option<Time>,
    tries: u8,
    /// How many of these followed a challenge at once.
    early_retries: u8,
}

/// RFC 3168.
#[derive(Debug, Clone, Copy, Default)]
struct Ecn {
    /// Both ends take part.
    on: bool,
    /// A mark has come, and the peer has not said that it has reacted.
    echo: bool,
}

/// What acknowledgements in TIME-WAIT say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) snd_nxt: u32,
    pub(crate) rcv_nxt: u32,
    pub(crate) timestamps: Option<Timestamps>,
    pub(crate) marking: Marking,
}

impl Connection {
    /// A connection that starts with a SYN.
    pub(crate) fn connect(
        settings: Settings,
        now: Time,
        addresses: (SocketAddr, SocketAddr),
        isn: u32,
    ) -> Self {
        let mut connection = Self::new(settings, now, addresses, isn);
        connection.state = State::SynSent;
        connection.syn.due = true;
        connection
    }

    /// A connection that answers a SYN.
    pub(crate) fn accept(
        settings: Settings,
        now: Time,
        addresses: (SocketAddr, SocketAddr),
        isn: u32,
        syn: &Segment<'_>,
    ) -> Self {
        let mut connection = Self::new(settings, now, addresses, isn);
        connection.take_syn(now, syn);
        connection.state = State::SynReceived;
        connection.syn.due = true;
        connection
    }

    fn new(settings: Settings, now: Time, (local, _): (SocketAddr, SocketAddr), isn: u32) -> Self {
        let default = if local.is_ipv4() { DEFAULT_MSS_V4 } else { DEFAULT_MSS_V6 };
        let mut sender = Sender::new(now, settings.congestion, u64::from(default), 0);
        sender.nodelay = settings.nodelay;
        sender.set_chunk_pool(settings.memory.chunks());
        let mut receiver = settings.receiver(now);
        receiver.set_chunk_pool(settings.memory.chunks());
        receiver.set_prompt(settings.prompt);
        Self {
            state: State::Closed,
            isn,
            irs: 0,
            sender,
            receiver,
            syn: Syn::default(),
            reset_due: false,
            says_read: false,
            was_read: false,
            expedite_due: false,
            peer_mss: default,
            peer_scale: 0,
            own_scale: None,
            timestamps: settings.timestamps.then(|| Timestamps::new(isn)),
            ecn: Ecn::default(),
            window_seq: 0,
            window_ack: 0,
            segment: default,
            heard: now,
            probed: now,
            unanswered: 0,
            challenges: 0,
            challenged: millis(now),
            charge: Charge::default(),
            settings,
        }
    }

    /// Log2 of the unit of our windows, so that the largest buffer fits the field (RFC 7323 2.3).
    fn wanted_scale(&self) -> u8 {
        let largest = self.settings.receive_buffer as usize;
        (0..14).find(|shift| largest >> shift <= usize::from(u16::MAX)).unwrap_or(14)
    }

    /// Payload of a full segment.
    pub(crate) fn mss(&self) -> u64 {
        let options = if self.timestamps.is_some() { 12 } else { 0 };
        // The path takes less than an IP packet's most in any case.
        let own = self.settings.max_segment.map_or(u16::MAX, |wanted| wanted.max(LEAST_OWN_MSS));
        u64::from(self.segment.min(own).min(self.peer_mss)).saturating_sub(options).max(1)
    }

    /// Learns from the peer's SYN.
    fn take_syn(&mut self, now: Time, syn: &Segment<'_>) {
        let Options { mss, window_scale, sack_permitted, timestamps, .. } = syn.options;
        self.irs = syn.seq;
        self.peer_mss = mss.unwrap_or(self.peer_mss).max(LEAST_MSS);
        self.sender.sack = sack_permitted;
        if let Some(scale) = window_scale {
            self.peer_scale = scale;
            let own = self.wanted_scale();
            self.own_scale = Some(own);
            self.receiver.scale = own;
        }
        self.timestamps = match (&self.timestamps, timestamps) {
            (Some(own), Some((value, _))) => Some(own.heard(now, value)),
            _ => None,
        };
        // RFC 3168 6.1.1: a SYN says both, an answer one; both in an answer are an echo of somebody's
        // ignorance.
        self.ecn.on = self.settings.ecn && syn.ece && syn.cwr == syn.ack.is_none();
    }

    /// The handshake is done.
    fn establish(&mut self, now: Time) {
        self.state = State::Established;
        // The first one leaves again after the first timeout.
        if let Some(again) = self.syn.again.filter(|_| self.syn.tries == 1) {
            self.sender.handshake_took(now, since(after(now, SYN_TIMEOUT), again));
        }
        self.syn.due = false;
        self.syn.again = None;
        let mss = self.mss();
        self.sender.begin(now, self.settings.congestion, mss, INITIAL_WINDOW * mss);
    }

    /// Queues what fits of `data`.
    pub(crate) fn write(&mut self, data: &[u8]) -> usize {
        let fits = data.len().min(self.writable());
        self.sender.write(&data[..fits]);
        self.account();
        fits
    }

    /// Takes what fits into `buf` from the receive queue.
    pub(crate) fn read(&mut self, now: Time, buf: &mut [u8]) -> usize {
        let rtt = self.sender.rtt.min();
        let room = self.settings.memory.has_room();
        let read = self.receiver.read(now, buf, rtt, room);
        self.account();
        read
    }

    /// What the application can read, in as many pieces as it lies in.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.receiver.pieces()
    }

    /// Takes so many bytes from the receive queue: they were copied where they lie.
    pub(crate) fn consume(&mut self, now: Time, length: usize) {
        let rtt = self.sender.rtt.min();
        let room = self.settings.memory.has_room();
        self.receiver.consume(now, length, rtt, room);
        self.account();
    }

    /// Copies what fits into `buf` and leaves it queued.
    pub(crate) fn peek(&self, buf: &mut [u8]) -> usize {
        self.receiver.peek(buf)
    }

    /// Throws the receive queue away.
    pub(crate) fn discard(&mut self) {
        self.receiver.discard();
        self.account();
    }

    /// Whether memory is short for its peer's connections.
    pub(crate) fn lacks_memory(&self) -> bool {
        !self.settings.memory.has_room()
    }

    /// Whether memory is nearly used up for its peer's connections.
    pub(crate) fn wants_memory(&self) -> bool {
        self.settings.memory.is_nearly_full()
    }

    /// Forgets what waits for an acknowledgement, at once; the connection is reset.
    pub(crate) fn give_up_queue(&mut self) {
        self.sender.give_up();
        self.account();
    }

    /// Forgets what came out of order; `false` if there was nothing.
    pub(crate) fn prune(&mut self) -> bool {
        let pruned = self.receiver.prune();
        self.account();
        pruned
    }

    /// Since when the application has not read what it could.
    pub(crate) fn unread_since(&self) -> Option<Time> {
        self.receiver.unread_since()
    }

    /// Sends FIN after the queue.
    pub(crate) fn shutdown(&mut self) {
        match self.state {
            State::Established => self.state = State::FinWait1,
            State::CloseWait => self.state = State::LastAck,
            // RFC 9293 3.10.4: it is queued until the handshake is done; the application gives it up instead.
            _ => return,
        }
        self.sender.finish();
    }

    /// Ends without a word: the peer is gone.
    pub(crate) fn forget(&mut self) {
        self.state = State::Closed;
    }

    /// Sends RST and forgets everything. The reset says whether the application has read all that came.
    pub(crate) fn abort(&mut self, is_read: bool) {
        if !matches!(self.state, State::Closed | State::SynSent | State::TimeWait) {
            self.reset_due = true;
            self.says_read = is_read && self.receiver.has_received();
        }
        self.state = State::Closed;
    }

    /// Sends RST because of data that nobody will read, in TIME-WAIT too: the data came with the FIN.
    pub(crate) fn refuse(&mut self) {
        self.reset_due = true;
        self.state = State::Closed;
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When the last acceptable segment came.
    pub(crate) fn heard(&self) -> Time {
        self.heard
    }

    /// Since when the peer has said nothing though it was to. While it has no room it is asked from time to
    /// time only: `None` if it has answered the last time.
    pub(crate) fn silent_since(&self) -> Option<Time> {
        match self.sender.waits_for_room() {
            true => (self.probed > self.heard)
                .then(|| Time::from_micros(self.probed.total_micros() - i64::from(self.unanswered) * 1000)),
            false => Some(self.heard),
        }
    }

    /// Since when nothing of what was sent has been acknowledged; `None` if nothing waits for that.
    pub(crate) fn stalled_since(&self) -> Option<Time> {
        self.sender.stalled_since()
    }

    /// When something was last acknowledged, or the oldest of what is not left for the first time.
    pub(crate) fn progress(&self) -> Time {
        self.sender.progress()
    }

    /// Whether the peer has too little room for what is next, or for what was sent.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.sender.waits_for_room() || self.sender.is_shut()
    }

    /// Whether it is closed and has nothing left to send.
    pub(crate) fn is_finished(&self) -> bool {
        self.state == State::Closed && !self.reset_due
    }

    /// Bytes queued by the application and not acknowledged.
    pub(crate) fn unacked(&self) -> usize {
        self.sender.queued()
    }

    /// Whether the application has ever written anything.
    pub(crate) fn has_written(&self) -> bool {
        self.sender.queued_end() > 1
    }

    /// Whether the peer has reset the connection and said that its application has read all of that.
    pub(crate) fn was_read(&self) -> bool {
        self.was_read
    }

    /// Whether the peer has acknowledged the FIN.
    pub(crate) fn end_acked(&self) -> bool {
        self.sender.fin_acked()
    }

    /// Bytes queued by the application and never sent.
    pub(crate) fn unsent(&self) -> usize {
        self.sender.unsent()
    }

    /// Bytes sent and neither acknowledged, SACKed nor lost.
    pub(crate) fn in_flight(&self) -> usize {
        self.sender.in_flight() as usize
    }

    /// The present size of the queue for sending, bytes.
    pub(crate) fn send_buffer(&self) -> usize {
        let most = self.settings.send_buffer as usize;
        let room = self.settings.memory.has_room();
        if !room && self.settings.memory.is_full() {
            return most.min(LEAST_BUFFER);
        }
        if self.settings.send_fixed {
            // The peer acknowledges every second full segment at once, and less than that after a delay (RFC
            // 9293 3.8.6.3): a smaller queue would wait for that delay each time it is full.
            return most.max(2 * self.mss() as usize);
        }
        if !room {
            return most.min(PRESSED_BUFFER);
        }
        let wanted = usize::try_from(WINDOWS * self.sender.window()).unwrap_or(usize::MAX);
        wanted.clamp(LEAST_SEND_BUFFER.min(most), most)
    }

    /// Bytes that the application can queue.
    pub(crate) fn writable(&self) -> usize {
        self.send_room().0
    }

    /// The same, and the present size of the queue.
    pub(crate) fn send_room(&self) -> (usize, usize) {
        let size = self.send_buffer();
        (size.saturating_sub(self.unacked()), size)
    }

    /// Bytes that the application can read.
    pub(crate) fn readable(&self) -> usize {
        self.receiver.readable()
    }

    /// Whether something waits for an acknowledgement: SYN, data or FIN.
    pub(crate) fn awaits_ack(&self) -> bool {
        match self.state {
            State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck => true,
            State::Established | State::CloseWait => self.sender.awaits_ack(),
            State::FinWait2 | State::TimeWait | State::Closed => false,
        }
    }

    /// Whether a retransmission timer has fired, and nothing was acknowledged since.
    pub(crate) fn is_stalled(&self) -> bool {
        match self.state {
            State::SynSent | State::SynReceived => self.syn.tries > 1,
            _ => self.sender.rtt.backoff() > 0,
        }
    }

    pub(crate) fn retransmits(&self) -> u64 {
        self.sender.retransmits()
    }

    /// What is left to say once it has ended in order.
    pub(crate) fn ending(&self) -> Ending {
        let Settings { marking, .. } = self.settings;
        Ending { snd_nxt: self.wire_nxt(), rcv_nxt: self.wire_ack(), timestamps: self.timestamps, marking }
    }

    /// Whether a packet with this sequence number may be under way: one of what is not acknowledged, or an
    /// acknowledgement.
    pub(crate) fn is_under_way(&self, seq: u32) -> bool {
        match self.state {
            State::Closed => false,
            State::SynSent | State::SynReceived => seq == self.isn && self.syn.tries > 0,
            _ => {
                let una = self.sender.una();
                let seq = sequence::offset(self.isn, una, seq);
                seq.is_some_and(|seq| (una..=self.sender.nxt()).contains(&seq))
            }
        }
    }

    /// Whether data that begins with this sequence number was sent and is not acknowledged.
    pub(crate) fn has_in_flight(&self, seq: u32) -> bool {
        let una = self.sender.una();
        let seq = sequence::offset(self.isn, una, seq);
        seq.is_some_and(|seq| (una..self.sender.nxt()).contains(&seq))
    }

    fn wire_nxt(&self) -> u32 {
        match self.state {
            State::SynSent | State::SynReceived => sequence::wire(self.isn, u64::from(self.syn.tries > 0)),
            _ => sequence::wire(self.isn, self.sender.nxt()),
        }
    }

    fn wire_ack(&self) -> u32 {
        sequence::wire(self.irs, self.receiver.nxt())
    }

    /// Tells the node's account what the buffers occupy.
    fn account(&mut self) {
        let bytes = self.sender.allocated() + self.receiver.allocated();
        self.charge.update(&self.settings.memory, bytes);
    }
}

/// The time in milliseconds, modulo 2^32.
fn millis(time: Time) -> u32 {
    time.total_millis() as u32
}

/// The largest segment that this node takes in at `local`: any IP packet (RFC 6691 section 2), unless the
/// application wants less.
fn own_mss(local: SocketAddr, wanted: Option<u16>) -> u16 {
    let largest = (MAX_PACKET - header_len(local)) as u16;
    wanted.map_or(largest, |wanted| wanted.clamp(LEAST_OWN_MSS, largest))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.charge.end(&self.settings.memory);
    }
}
