//! One TCP connection as a state machine: segments in ([`Connection::process`]), segments out
//! ([`Connection::emit`]), deadlines ([`Connection::deadline`]) and two buffers.
//!
//! * `input`: arriving segments, RFC 9293 3.10.7.
//! * `output`: outgoing segments and their times.
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
use super::sender::{INITIAL_WINDOW, Sender};
use super::sequence;
use crate::State;
use crate::host::clock::{Time, after, since};
use crate::ip::MAX_PACKET;

/// Text of a reset (RFC 9293 3.5.3) whose sender's application has read everything up to the acknowledgement
/// number. Other stacks neither send nor read it.
const ALL_READ: &[u8] = b"all read";

/// Segment sizes of a peer that sends no MSS option (RFC 9293 3.7.1, MUST-15; RFC 2675 for IPv6).
const DEFAULT_MSS_V4: u16 = 536;
const DEFAULT_MSS_V6: u16 = 1220;

/// Minimum segment size that a peer may request. Smaller segments would cost both ends mostly headers.
const MIN_MSS: u16 = 48;

/// Minimum segment size that an application may request, as in Linux (TCP_MIN_MSS).
const MIN_OWN_MSS: u16 = 88;

/// Size of an automatic send buffer in congestion windows, and its minimum in bytes.
const WINDOWS: u64 = 3;
const MIN_SEND_BUFFER: usize = 256 << 10;

/// Maximum size of a buffer while memory is short, bytes.
const PRESSED_BUFFER: usize = 64 << 10;

/// Maximum number of answers per second to segments outside the window and to probes (RFC 5961 section 7).
const CHALLENGES: u16 = 100;

/// Settings with which a connection is created.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Maximum bytes queued for sending and for reading. A buffer has its maximum from the start if it is
    /// fixed.
    pub(crate) send_buffer: u32,
    pub(crate) send_fixed: bool,
    pub(crate) receive_buffer: u32,
    pub(crate) receive_fixed: bool,
    pub(crate) nodelay: bool,
    /// Setting of [`TcpOptions::prompt`](crate::TcpOptions::prompt).
    pub(crate) prompt: bool,
    pub(crate) keepalive: Probing,
    /// Value of TCP_MAXSEG.
    pub(crate) max_segment: Option<u16>,
    pub(crate) marking: Marking,
    pub(crate) congestion: CongestionControl,
    /// True to offer RFC 7323 timestamps, which help towards other stacks.
    pub(crate) timestamps: bool,
    /// True to request and accept explicit congestion notification (RFC 3168).
    pub(crate) ecn: bool,
    /// Memory account of the peer.
    pub(crate) memory: Arc<Share>,
}

impl Settings {
    /// Returns a new connection's receiving half.
    fn receiver(&self, now: Time) -> Receiver {
        Receiver::new(now, self.receive_buffer as usize, self.receive_fixed, self.memory.has_room())
    }
}

/// State machine of one connection (see the module).
pub(crate) struct Connection {
    state: State,
    settings: Settings,
    /// Initial sequence numbers, ours and the peer's.
    isn: u32,
    irs: u32,
    sender: Sender,
    receiver: Receiver,
    syn: Syn,
    /// True if a reset must leave; it is then the only output.
    reset_due: bool,
    /// True if the reset says that the application has read everything that arrived.
    says_read: bool,
    /// True if the peer's reset said so of everything written here.
    was_read: bool,
    /// True after the path has come back, until the next emission.
    expedite_due: bool,
    /// Largest segment that the peer accepts, with its options.
    peer_mss: u16,
    /// Base-2 logarithms of the window units: the peer's, and ours if the peer has sent its own (RFC 7323
    /// 2.2).
    peer_scale: u8,
    own_scale: Option<u8>,
    timestamps: Option<Timestamps>,
    ecn: Ecn,
    /// Sequence number and acknowledgement of the last segment that set the window (RFC 9293 3.10.7.4).
    window_seq: u64,
    window_ack: u64,
    /// Payload of a segment without options on this path, as of the last emission.
    segment: u16,
    /// Times of the last arriving segment, and of the last keep-alive or window probe.
    heard: Time,
    probed: Time,
    /// Milliseconds from the first unanswered probe to the last one.
    unanswered: u32,
    /// Number of challenges (RFC 5961) in the present second.
    challenges: u16,
    /// Start of that second, milliseconds modulo 2^32.
    challenged: u32,
    charge: Charge,
}

/// Transmissions of the handshake.
#[derive(Debug, Clone, Copy, Default)]
struct Syn {
    /// True if the SYN must leave now.
    due: bool,
    /// Time of its retransmission.
    again: Option<Time>,
    tries: u8,
    /// Number of these tries that followed a challenge at once.
    early_retries: u8,
}

/// State of explicit congestion notification (RFC 3168).
#[derive(Debug, Clone, Copy, Default)]
struct Ecn {
    /// True if both ends support it.
    on: bool,
    /// True from the arrival of a mark until the peer confirms its reaction.
    echo: bool,
}

/// Content of acknowledgements in TIME-WAIT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) snd_nxt: u32,
    pub(crate) rcv_nxt: u32,
    pub(crate) timestamps: Option<Timestamps>,
    pub(crate) marking: Marking,
}

impl Connection {
    /// Creates a connection that starts with a SYN.
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

    /// Creates a connection that answers a SYN.
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
            // The initial sequence number is unpredictable, so the offset hides the node's clock.
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

    /// Returns the logarithm of our window unit, so that the largest buffer fits the field (RFC 7323 2.3).
    fn wanted_scale(&self) -> u8 {
        let largest = self.settings.receive_buffer as usize;
        (0..14).find(|shift| largest >> shift <= usize::from(u16::MAX)).unwrap_or(14)
    }

    /// Returns the payload of a full segment.
    pub(crate) fn mss(&self) -> u64 {
        // RFC 6691: the MSS option counts no options, so the payload is smaller by theirs.
        let options = if self.timestamps.is_some() { 12 } else { 0 };
        // The path's segment is always smaller than u16::MAX.
        let own = self.settings.max_segment.map_or(u16::MAX, |wanted| wanted.max(MIN_OWN_MSS));
        u64::from(self.segment.min(own).min(self.peer_mss)).saturating_sub(options).max(1)
    }

    /// Takes over the options of the peer's SYN.
    fn take_syn(&mut self, now: Time, syn: &Segment<'_>) {
        let Options { mss, window_scale, sack_permitted, timestamps, .. } = syn.options;
        self.irs = syn.seq;
        // A peer that asks for a tiny segment would make this end send mostly headers.
        self.peer_mss = mss.unwrap_or(self.peer_mss).max(MIN_MSS);
        self.sender.sack = sack_permitted;
        if let Some(scale) = window_scale {
            self.peer_scale = scale;
            let own = self.wanted_scale();
            self.own_scale = Some(own);
            self.receiver.scale = own;
        }
        // RFC 7323 3.2: timestamps are in use only if both SYNs carry them.
        self.timestamps = match (&self.timestamps, timestamps) {
            (Some(own), Some((value, _))) => Some(own.heard(now, value)),
            _ => None,
        };
        // RFC 3168 6.1.1: a SYN sets ECE and CWR, a SYN-ACK only ECE. A SYN-ACK with both comes from a host
        // that reflects unknown bits.
        self.ecn.on = self.settings.ecn && syn.ece && syn.cwr == syn.ack.is_none();
    }

    /// Completes the handshake.
    fn establish(&mut self, now: Time) {
        self.state = State::Established;
        // The retransmission is due SYN_TIMEOUT after the first SYN. After a second SYN, the round trip is
        // ambiguous.
        if let Some(again) = self.syn.again.filter(|_| self.syn.tries == 1) {
            self.sender.handshake_took(now, since(after(now, SYN_TIMEOUT), again));
        }
        self.syn.due = false;
        self.syn.again = None;
        let mss = self.mss();
        // Only now, because the initial window counts segments of the size that the peer's SYN allows.
        self.sender.begin(now, self.settings.congestion, mss, INITIAL_WINDOW * mss);
    }

    /// Queues the part of `data` that fits.
    pub(crate) fn write(&mut self, data: &[u8]) -> usize {
        // The rest stays with the application, which waits for room: the queue bounds the memory of a
        // connection.
        let fits = data.len().min(self.writable());
        self.sender.write(&data[..fits]);
        self.account();
        fits
    }

    /// Moves bytes from the receive queue into `buf`, as many as fit.
    pub(crate) fn read(&mut self, now: Time, buf: &mut [u8]) -> usize {
        let rtt = self.sender.rtt.min();
        let room = self.settings.memory.has_room();
        let read = self.receiver.read(now, buf, rtt, room);
        self.account();
        read
    }

    /// Returns the readable bytes, one slice per chunk.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.receiver.pieces()
    }

    /// Removes `length` bytes from the receive queue, which the application copied in place.
    pub(crate) fn consume(&mut self, now: Time, length: usize) {
        let rtt = self.sender.rtt.min();
        let room = self.settings.memory.has_room();
        self.receiver.consume(now, length, rtt, room);
        self.account();
    }

    /// Copies bytes from the receive queue into `buf` without removing them.
    pub(crate) fn peek(&self, buf: &mut [u8]) -> usize {
        self.receiver.peek(buf)
    }

    /// Discards the receive queue.
    pub(crate) fn discard(&mut self) {
        self.receiver.discard();
        self.account();
    }

    /// Returns true if memory is short for the peer's connections.
    pub(crate) fn lacks_memory(&self) -> bool {
        !self.settings.memory.has_room()
    }

    /// Returns true if memory is nearly used up for the peer's connections.
    pub(crate) fn wants_memory(&self) -> bool {
        self.settings.memory.is_nearly_full()
    }

    /// Drops all unacknowledged data at once, because the connection is being reset.
    pub(crate) fn give_up_queue(&mut self) {
        self.sender.give_up();
        self.account();
    }

    /// Drops out-of-order data; returns `false` if there was none.
    pub(crate) fn prune(&mut self) -> bool {
        let pruned = self.receiver.prune();
        self.account();
        pruned
    }

    /// Returns the time since which the application has not read available data.
    pub(crate) fn unread_since(&self) -> Option<Time> {
        self.receiver.unread_since()
    }

    /// Sends FIN after the queued data.
    pub(crate) fn shutdown(&mut self) {
        match self.state {
            State::Established => self.state = State::FinWait1,
            State::CloseWait => self.state = State::LastAck,
            // RFC 9293 3.10.4 queues the call until the handshake is done; here the application aborts the
            // connection instead.
            _ => return,
        }
        self.sender.finish();
    }

    /// Closes the connection without sending anything, because the peer is gone.
    pub(crate) fn forget(&mut self) {
        self.state = State::Closed;
    }

    /// Sends RST and closes the connection. The reset says whether the application has read everything that
    /// came.
    pub(crate) fn abort(&mut self, is_read: bool) {
        // In SYN-SENT the peer has no connection that a reset could end (RFC 9293 3.10.5).
        if !matches!(self.state, State::Closed | State::SynSent | State::TimeWait) {
            self.reset_due = true;
            self.says_read = is_read && self.receiver.has_received();
        }
        self.state = State::Closed;
    }

    /// Sends RST because of data that will never be read. This includes TIME-WAIT, if the data came with the
    /// FIN.
    pub(crate) fn refuse(&mut self) {
        self.reset_due = true;
        self.state = State::Closed;
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Returns the time of the last acceptable segment.
    pub(crate) fn heard(&self) -> Time {
        self.heard
    }

    /// Returns the time since which the peer has owed an answer.
    pub(crate) fn silent_since(&self) -> Option<Time> {
        // A peer without room is only probed from time to time, so the result is `None` if the last probe was
        // answered.
        match self.sender.waits_for_room() {
            true => (self.probed > self.heard)
                .then(|| Time::from_micros(self.probed.total_micros() - i64::from(self.unanswered) * 1000)),
            false => Some(self.heard),
        }
    }

    /// Returns the time since which no sent data was acknowledged; `None` if nothing is outstanding.
    pub(crate) fn stalled_since(&self) -> Option<Time> {
        self.sender.stalled_since()
    }

    /// Returns the time of the last acknowledgement, or of the first transmission of the oldest outstanding
    /// data.
    pub(crate) fn progress(&self) -> Time {
        self.sender.progress()
    }

    /// Returns true if the peer has too little room for the next data, or for data already sent.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.sender.waits_for_room() || self.sender.is_shut()
    }

    /// Returns true if the connection is closed and has nothing left to send.
    pub(crate) fn is_finished(&self) -> bool {
        // A reset that has not left yet must still be emitted, or the peer keeps its half of the connection.
        self.state == State::Closed && !self.reset_due
    }

    /// Returns the bytes queued by the application and not acknowledged.
    pub(crate) fn unacked(&self) -> usize {
        self.sender.queued()
    }

    /// Returns true if the application has ever written data.
    pub(crate) fn has_written(&self) -> bool {
        // Offset 0 is the SYN, so data begins at 1.
        self.sender.queued_end() > 1
    }

    /// Returns true if the peer's reset said that its application has read everything written here.
    pub(crate) fn was_read(&self) -> bool {
        self.was_read
    }

    /// Returns true if the peer has acknowledged the FIN.
    pub(crate) fn end_acked(&self) -> bool {
        self.sender.fin_acked()
    }

    /// Returns the bytes queued by the application and never sent.
    pub(crate) fn unsent(&self) -> usize {
        self.sender.unsent()
    }

    /// Returns the bytes sent and neither acknowledged, SACKed nor lost.
    pub(crate) fn in_flight(&self) -> usize {
        self.sender.in_flight() as usize
    }

    /// Returns the present size of the send queue, bytes.
    pub(crate) fn send_buffer(&self) -> usize {
        let most = self.settings.send_buffer as usize;
        let room = self.settings.memory.has_room();
        if !room && self.settings.memory.is_full() {
            // Not zero, because every connection must be able to finish and so free its memory.
            return most.min(LEAST_BUFFER);
        }
        if self.settings.send_fixed {
            // The peer acknowledges every second full segment at once, and less than that after a delay (RFC
            // 9293 3.8.6.3). A smaller queue would wait for that delay each time it is full.
            return most.max(2 * self.mss() as usize);
        }
        if !room {
            return most.min(PRESSED_BUFFER);
        }
        let wanted = usize::try_from(WINDOWS * self.sender.window()).unwrap_or(usize::MAX);
        // The lower bound must not exceed the upper one, or `clamp` panics.
        wanted.clamp(MIN_SEND_BUFFER.min(most), most)
    }

    /// Returns the bytes that the application can queue.
    pub(crate) fn writable(&self) -> usize {
        self.send_room().0
    }

    /// Returns the same, and the present size of the queue.
    pub(crate) fn send_room(&self) -> (usize, usize) {
        let size = self.send_buffer();
        (size.saturating_sub(self.unacked()), size)
    }

    /// Returns the bytes that the application can read.
    pub(crate) fn readable(&self) -> usize {
        self.receiver.readable()
    }

    /// Returns true if a SYN, data or a FIN awaits an acknowledgement.
    pub(crate) fn awaits_ack(&self) -> bool {
        match self.state {
            State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck => true,
            State::Established | State::CloseWait => self.sender.awaits_ack(),
            State::FinWait2 | State::TimeWait | State::Closed => false,
        }
    }

    /// Returns true if a retransmission timer has fired and nothing was acknowledged since.
    pub(crate) fn is_stalled(&self) -> bool {
        match self.state {
            // Until the handshake ends, the tries of the SYN take the place of the backoff.
            State::SynSent | State::SynReceived => self.syn.tries > 1,
            _ => self.sender.rtt.backoff() > 0,
        }
    }

    pub(crate) fn retransmits(&self) -> u64 {
        self.sender.retransmits()
    }

    /// Returns the state for answers after an orderly end.
    pub(crate) fn ending(&self) -> Ending {
        let Settings { marking, .. } = self.settings;
        Ending { snd_nxt: self.wire_nxt(), rcv_nxt: self.wire_ack(), timestamps: self.timestamps, marking }
    }

    /// Returns true if a packet with this sequence number may be on its way: unacknowledged data, or an
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

    /// Returns true if data that begins with this sequence number was sent and is not acknowledged.
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

    /// Reports the buffers' memory to the account.
    fn account(&mut self) {
        let bytes = self.sender.allocated() + self.receiver.allocated();
        self.charge.update(&self.settings.memory, bytes);
    }
}

/// Returns the time in milliseconds, modulo 2^32.
fn millis(time: Time) -> u32 {
    time.total_millis() as u32
}

/// Returns the largest segment that this node accepts at `local`: any IP packet (RFC 6691 section 2), unless
/// the application wants less.
fn own_mss(local: SocketAddr, wanted: Option<u16>) -> u16 {
    let largest = (MAX_PACKET - header_len(local)) as u16;
    wanted.map_or(largest, |wanted| wanted.clamp(MIN_OWN_MSS, largest))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.charge.end(&self.settings.memory);
    }
}
