//! Execution of a script: a stack, a peer that the script controls, and a clock that moves only on command.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::*;

use crate::parse::{Delay, Line, Script, read_line};
use crate::setup::{Host, Setup, address};
use crate::spec::{Numbers, Spec};
use crate::wire::{self, Choice, Segment};

/// Tolerance of an event's time: the timers' resolution, and rounding.
const TOLERANCE: Duration = Duration::from_micros(1500);

/// Port of the stack when it listens; the peer's ports follow [`PEER_PORTS`].
pub(crate) const PORT: u16 = 80;
const PEER_PORTS: u16 = 7000;

/// Number of segments at one time from which a flow counts as endless.
const ENDLESS_SEGMENTS: usize = 5000;

/// Number of timers in one wait from which the stack counts as restless.
const RESTLESS: usize = 20_000;

/// State of a running script.
pub(crate) struct Runner {
    pub(crate) ipv6: bool,
    pub(crate) setup: Setup,
    host: Option<Host>,
    pub(crate) now: Instant,
    start: Instant,
    /// Time of the line before.
    before: Instant,
    pub(crate) peers: BTreeMap<u16, Peer>,
    pub(crate) listener: Option<Arc<Listener>>,
    /// Segments of the stack that no line has expected yet.
    pending: VecDeque<Segment>,
    pub(crate) last: Option<Segment>,
    pub(crate) trace: String,
}

/// One connection, as the peer sees it.
pub(crate) struct Peer {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) numbers: Numbers,
    pub(crate) flow: Option<Arc<Flow>>,
    window: u16,
    /// True for each end that has sent timestamps: the stack, and the peer.
    stamps: (bool, bool),
    pub(crate) written: usize,
    pub(crate) read: usize,
}

/// Runs a script. An error contains the place and the trace so far.
pub(crate) fn run(script: &Script, ipv6: bool) -> Result<(), String> {
    let mut runner = Runner::new(ipv6);
    for line in &script.lines {
        runner.play(line).map_err(|problem| {
            let family = if ipv6 { "IPv6" } else { "IPv4" };
            let Runner { trace, .. } = &runner;
            format!(
                "{}:{}: {}\n{problem}\nso far, over {family}:\n{trace}",
                script.file, line.number, line.text
            )
        })?;
    }
    runner.expect_silence().map_err(|problem| {
        format!("{}: {}: at its end: {problem}\nso far:\n{}", script.file, script.name, runner.trace)
    })
}

impl Runner {
    pub(crate) fn new(ipv6: bool) -> Self {
        // Any instant will do, because only differences matter.
        #[allow(clippy::disallowed_methods)]
        let start = Instant::now();
        Self {
            ipv6,
            setup: Setup::default(),
            host: None,
            now: start,
            start,
            before: start,
            peers: BTreeMap::new(),
            listener: None,
            pending: VecDeque::new(),
            last: None,
            trace: String::new(),
        }
    }

    /// Executes a line.
    pub(crate) fn play(&mut self, line: &Line) -> Result<(), String> {
        if let Some(text) = line.text.strip_prefix('>') {
            self.expect(line.delay, line.connection, text)?;
        } else {
            if let Some(delay) = line.delay {
                let patient = line.text == "drain";
                if !patient {
                    self.expect_silence()?;
                }
                self.advance(self.before + delay.most, patient)?;
            }
            if let Some(text) = line.text.strip_prefix('<') {
                let (text, more) = text.strip_suffix('&').map_or((text, false), |text| (text, true));
                self.inject(line.connection, text.trim())?;
                if !more {
                    self.finish_batch()?;
                }
            } else if !line.text.is_empty() {
                self.note(&line.text);
                self.call(line.connection, &line.text)?;
            }
        }
        self.before = self.now;
        Ok(())
    }

    /// Executes the lines that a word abbreviates.
    pub(crate) fn play_all(&mut self, connection: u16, lines: &[String]) -> Result<(), String> {
        for text in lines {
            let line = Line { connection, ..read_line(0, text)? };
            self.play(&line).map_err(|problem| format!("in `{text}`: {problem}"))?;
        }
        Ok(())
    }

    /// Returns the stack, created on first use.
    pub(crate) fn host(&mut self) -> &mut Host {
        let (setup, now, ipv6) = (&self.setup, self.now, self.ipv6);
        self.host.get_or_insert_with(|| setup.host(ipv6, now))
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.host.is_some()
    }

    pub(crate) fn peer(&mut self, connection: u16) -> &mut Peer {
        let own = address(self.ipv6, true);
        let peer = address(self.ipv6, false);
        let isn = self.setup.peer_isn;
        self.peers.entry(connection).or_insert_with(|| Peer {
            local: SocketAddr::new(own, PORT),
            remote: SocketAddr::new(peer, PEER_PORTS + connection),
            numbers: Numbers { peer: isn, ..Numbers::default() },
            flow: None,
            window: u16::MAX,
            stamps: (false, false),
            written: 0,
            read: 0,
        })
    }

    pub(crate) fn flow(&mut self, connection: u16) -> Result<Arc<Flow>, String> {
        self.peer(connection).flow.clone().ok_or_else(|| "there is no such connection".to_owned())
    }

    /// Delivers a segment of the peer.
    fn inject(&mut self, connection: u16, text: &str) -> Result<(), String> {
        let spec = Spec::read(text)?;
        let stamp = 1000 + (self.now - self.start).as_millis() as u32;
        let peer = self.peer(connection);
        let numbers = peer.numbers;
        let (start, end) = (spec.seq.unwrap_or(0), spec.end.or(spec.seq).unwrap_or(0));
        let pattern = |at| if spec.marked("forged") { !pattern(at) } else { pattern(at) };
        if let Some(win) = spec.win {
            peer.window = u16::try_from(win).map_err(|error| error.to_string())?;
        }
        let given = |options: &Vec<_>| {
            options.iter().map(|option: &crate::spec::Given| option.of_peer(&numbers)).collect()
        };
        let mut options: Vec<Choice> = spec.options.as_ref().map(given).unwrap_or_default();
        if spec.options.is_none() && peer.stamps == (true, true) && spec.flags & wire::RST == 0 {
            options.push(Choice::Timestamps(stamp, numbers.last_stamp));
        }
        let mut segment = Segment {
            source: peer.remote,
            destination: peer.local,
            seq: numbers.peer(start),
            ack: spec.ack.map_or(0, |ack| numbers.own(ack)),
            flags: spec.flags,
            window: peer.window,
            urgent: spec.urgent.unwrap_or(0),
            ecn: spec.ecn.unwrap_or(0),
            dscp: 0,
            hops: 64,
            options,
            payload: (start..end).map(pattern).collect(),
        };
        // Only the handshake's SYN decides on options.
        if segment.has(wire::SYN) && start == 0 {
            peer.stamps.1 = segment.timestamps().is_some();
            let scaled = segment.options.iter().any(|option| matches!(option, Choice::Scale(_)));
            peer.numbers.peer_scales = scaled;
        }
        let shown = numbers.show(&segment, false);
        let group: IpAddr = if self.ipv6 { "ff02::1" } else { "224.0.0.1" }.parse().expect("an address");
        if spec.marked("fromgroup") {
            segment.source.set_ip(group);
        }
        if spec.marked("togroup") {
            segment.destination.set_ip(group);
        }
        self.note(&format!("{connection}: < {shown} {}", spec.marks.join(" ")));
        let mut packet = segment.write();
        let header = if self.ipv6 { 40 } else { 20 };
        if spec.marked("badsum") {
            packet[header + 16] ^= 1;
        }
        if spec.marked("badipsum") {
            packet[10] ^= 1;
        }
        if spec.marked("shortheader") {
            packet[header + 12] = 4 << 4;
        }
        self.receive(&mut packet);
        Ok(())
    }

    /// Delivers an ICMP error about the stack's last segment.
    pub(crate) fn complain(&mut self, kind: u8, code: u8) -> Result<(), String> {
        let last = self.last.as_ref().ok_or("nothing was sent that could be complained about")?;
        let mut packet = last.complaint(kind, code);
        self.receive(&mut packet);
        self.finish_batch()
    }

    fn receive(&mut self, packet: &mut [u8]) {
        let now = self.now;
        let Host { stack, net, batch } = self.host();
        stack.receive(now, *net, packet, batch);
    }

    /// Does a driver's work after packets and timers.
    pub(crate) fn finish_batch(&mut self) -> Result<(), String> {
        let mut batch = std::mem::take(&mut self.host().batch);
        let replies: Vec<Vec<u8>> = batch.replies().map(|reply| reply.packet.to_vec()).collect();
        for packet in replies {
            self.emitted(&packet, self.setup.checksums)?;
        }
        for flow in &batch.flows {
            let known = self.peers.values_mut().find(|peer| peer.remote == flow.remote());
            if let Some(peer) = known
                && peer.flow.as_ref().is_none_or(|old| old.state() == State::Closed)
            {
                peer.flow = Some(flow.clone());
            }
            self.kick(flow)?;
        }
        batch.clear();
        self.host().batch = batch;
        Ok(())
    }

    /// Sends the output of a flow.
    pub(crate) fn kick(&mut self, flow: &Flow) -> Result<(), String> {
        let mut buf = vec![0; MAX_PACKET];
        let limits = self.setup.limits(self.ipv6);
        let before = self.pending.len();
        while let Some(mut packets) = flow.egress(self.now, &limits, &mut buf) {
            while let Some(packet) = packets.next(&mut buf) {
                let packet = packet.to_vec();
                self.emitted(&packet, limits.checksums)?;
            }
            if self.pending.len() > before + ENDLESS_SEGMENTS {
                return Err("it does not stop sending".to_owned());
            }
        }
        match flow.has_output(self.now) {
            true => Err("the flow says that it has output and gives none".to_owned()),
            false => Ok(()),
        }
    }

    fn emitted(&mut self, packet: &[u8], verify: bool) -> Result<(), String> {
        let segment = Segment::read(packet, verify)?;
        let known = self.peers.iter_mut().find(|(_, peer)| peer.remote == segment.destination);
        let (&connection, peer) = known.ok_or_else(|| format!("a packet to nobody: {segment:?}"))?;
        if segment.source != peer.local {
            return Err(format!("a packet of {}, not of {}", segment.source, peer.local));
        }
        peer.numbers.learn(&segment);
        if segment.has(wire::SYN) {
            peer.stamps.0 = segment.timestamps().is_some();
        }
        let start = i64::from(segment.seq.wrapping_sub(peer.numbers.own(0)) as i32);
        let right = segment.payload.iter().enumerate().all(|(at, &byte)| byte == pattern(start + at as i64));
        let shown = peer.numbers.show(&segment, true);
        self.note(&format!("{connection}: > {shown}"));
        self.last = Some(segment.clone());
        self.pending.push_back(segment);
        if right { Ok(()) } else { Err("data was sent that nobody has written".to_owned()) }
    }

    /// Checks that the stack's next segment matches `text`.
    fn expect(&mut self, delay: Option<Delay>, connection: u16, text: &str) -> Result<(), String> {
        let spec = Spec::read(text)?;
        if let Some(Delay { least, most }) = delay {
            self.expect_silence()?;
            let latest = self.before + most + TOLERANCE;
            while self.pending.is_empty() && self.step(latest)? {}
            if !self.pending.is_empty() && self.now + TOLERANCE < self.before + least {
                return Err(format!("it came {:?} too early", self.before + least - self.now));
            }
        }
        let Some(segment) = self.pending.pop_front() else { return Err("nothing came".to_owned()) };
        if spec.renumber {
            self.peer(connection).numbers.own = Some(segment.seq);
        }
        let peer = self.peer(connection);
        let mut wrong = spec.differs(&segment, &peer.numbers);
        if segment.destination != peer.remote {
            wrong.push("another connection".to_owned());
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => {
                let came = peer.numbers.show(&segment, true);
                Err(format!("expected: {}\ncame:     {came}\nwrong:    {}", text.trim(), wrong.join(", ")))
            }
        }
    }

    /// Checks that the stack has sent no unexpected segment.
    pub(crate) fn expect_silence(&mut self) -> Result<(), String> {
        let Some(segment) = self.pending.front() else { return Ok(()) };
        let peer = self.peers.values().find(|peer| peer.remote == segment.destination);
        let numbers = peer.map(|peer| peer.numbers).unwrap_or_default();
        Err(format!("not expected: {}", numbers.show(segment, true)))
    }

    /// Drops the pending segments.
    pub(crate) fn drain(&mut self) {
        self.pending.clear();
    }

    /// Advances the clock; the stack must be silent unless `patient`.
    fn advance(&mut self, to: Instant, patient: bool) -> Result<(), String> {
        let mut steps = 0;
        while self.step(to)? {
            if !patient {
                self.expect_silence()?;
            }
            steps += 1;
            if steps > RESTLESS {
                return Err("its timers never rest".to_owned());
            }
        }
        self.now = to;
        Ok(())
    }

    /// Handles the next timers due until `latest`; returns `false` if there are none.
    fn step(&mut self, latest: Instant) -> Result<bool, String> {
        let due = self.host().stack.poll_timeout();
        let Some(due) = due.filter(|due| *due <= latest) else { return Ok(false) };
        self.now = self.now.max(due);
        let now = self.now;
        let Host { stack, batch, .. } = self.host();
        stack.handle_timeout(now, batch);
        self.finish_batch()?;
        Ok(true)
    }

    fn note(&mut self, text: &str) {
        let time = (self.now - self.start).as_secs_f64();
        let _ = writeln!(self.trace, "{time:12.6}  {text}");
    }
}

/// Returns the byte at an offset of every stream, in both directions.
pub(crate) fn pattern(at: i64) -> u8 {
    (at ^ at >> 8 ^ at >> 16) as u8
}
