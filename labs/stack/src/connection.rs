//! Programs at both ends of a connection: each writes its data and reads what arrives.

use std::sync::Arc;
use std::time::Instant;

use peersock_stack::{Error, Flow, Ready};

use crate::{Plan, Time};

/// Result of one direction of a connection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamOutcome {
    /// Payload bytes that its reader got.
    pub bytes: u64,
    /// Payload bytes that came after [`Scenario::mark`](crate::Scenario::mark).
    pub bytes_after_mark: u64,
    /// Time at which the reader had everything, including the end; `None` if that did not come.
    pub finished: Option<Time>,
    /// Longest time in which the reader got nothing.
    pub longest_stall: Time,
}

/// State of one direction.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Bytes to send; `u64::MAX` for an endless stream.
    total: u64,
    written: u64,
    read: u64,
    before_mark: Option<u64>,
    last_progress: Time,
    longest_stall: Time,
    shut: bool,
    finished: Option<Time>,
    pause: Option<Pause>,
    /// Time until which the reader sleeps.
    asleep: Time,
    /// Number of read bytes at which the reader sleeps next.
    sleep_at: u64,
}

/// Periodic pauses of a reader, so that windows close.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pause {
    /// Bytes between two pauses.
    pub every: u64,
    /// Duration of a pause.
    pub lasting: Time,
}

/// State of both ends of a connection.
pub(crate) struct Connection {
    pub(crate) started: Time,
    pub(crate) client: Option<Arc<Flow>>,
    pub(crate) server: Option<Arc<Flow>>,
    /// Streams from the client to the server, and back.
    pub(crate) streams: [Stream; 2],
    /// Description of a failure.
    pub(crate) failure: Option<String>,
}

/// Context of a flow: the connection and its end.
pub(crate) struct Role {
    pub(crate) connection: usize,
    pub(crate) server: bool,
}

impl Role {
    pub(crate) fn of(flow: &Flow) -> Option<&Role> {
        flow.context().get()?.downcast_ref()
    }
}

impl Stream {
    fn new(total: u64, started: Time, pause: Option<Pause>) -> Self {
        Self {
            pause,
            asleep: 0,
            sleep_at: pause.map_or(u64::MAX, |pause| pause.every),
            total,
            written: 0,
            read: 0,
            before_mark: None,
            last_progress: started,
            longest_stall: 0,
            shut: false,
            finished: None,
        }
    }

    /// Writes as much as fits. Returns true if it wrote anything.
    fn write(&mut self, flow: &Flow, at: Instant, content: &Content) -> Result<bool, Error> {
        let before = self.written;
        while self.written < self.total {
            let most = (self.total - self.written).min(Content::PIECE as u64) as usize;
            match flow.write(at, content.at(self.written, most)) {
                Ok(len) => self.written += len as u64,
                Err(Error::WouldBlock) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.written > before)
    }

    /// Shuts the direction down after all data is written.
    fn shut(&mut self, flow: &Flow, at: Instant) -> Result<bool, Error> {
        let end = self.written == self.total && !self.shut;
        if end {
            flow.shutdown_write(at)?;
            self.shut = true;
        }
        Ok(end)
    }

    /// Reads what is available. Returns true if it read anything.
    fn read(
        &mut self,
        flow: &Flow,
        at: Instant,
        now: Time,
        mark: Time,
        content: &mut Content,
    ) -> Result<bool, String> {
        let before = self.read;
        while self.finished.is_none() && self.asleep <= now {
            if let Some(pause) = self.pause
                && self.read >= self.sleep_at
            {
                self.sleep_at = self.read + pause.every;
                self.asleep = now + pause.lasting;
                break;
            }
            match flow.read(at, &mut content.scratch) {
                Ok(0) => {
                    if self.read != self.total {
                        return Err(format!("the end came after {} of {} bytes", self.read, self.total));
                    }
                    self.finished = Some(now);
                }
                Ok(len) => {
                    if content.scratch[..len] != *content.at(self.read, len) {
                        return Err(format!(
                            "wrong bytes between {} and {}",
                            self.read,
                            self.read + len as u64
                        ));
                    }
                    self.read += len as u64;
                }
                Err(Error::WouldBlock) => break,
                Err(error) => return Err(format!("read: {error}")),
            }
        }
        let progress = self.read > before || self.finished == Some(now);
        if progress {
            // Only the bytes after the mark count, so the count at its passage is kept.
            if now >= mark {
                self.before_mark.get_or_insert(before);
            }
            self.note_progress(now);
        }
        Ok(progress)
    }

    fn note_progress(&mut self, now: Time) {
        self.longest_stall = self.longest_stall.max(now - self.last_progress);
        self.last_progress = now;
    }

    /// Returns the result at the end of the scenario.
    fn outcome(&mut self, now: Time) -> StreamOutcome {
        if self.finished.is_none() {
            self.note_progress(now);
        }
        StreamOutcome {
            bytes: self.read,
            bytes_after_mark: self.before_mark.map_or(0, |before| self.read - before),
            finished: self.finished,
            // A stream without data has no stalls.
            longest_stall: if self.total > 0 { self.longest_stall } else { 0 },
        }
    }
}

impl Connection {
    pub(crate) fn new(plan: &Plan, started: Time) -> Self {
        let streams = [plan.up, plan.down].map(|total| Stream::new(total, started, plan.pause));
        Self { started, client: None, server: None, streams, failure: None }
    }

    /// Runs the program at one end. Returns true if its flow may have something to send now.
    pub(crate) fn run(
        &mut self,
        server: bool,
        at: Instant,
        now: Time,
        mark: Time,
        content: &mut Content,
    ) -> bool {
        let flow = if server { &self.server } else { &self.client };
        let Some(flow) = flow.clone() else { return false };
        if self.failure.is_some() {
            return false;
        }
        let [up, down] = &mut self.streams;
        let (out, inn) = if server { (down, up) } else { (up, down) };
        let ready = flow.readiness();
        let mut active = false;
        if ready.intersects(Ready::READABLE | Ready::READ_CLOSED | Ready::ERROR) {
            match inn.read(&flow, at, now, mark, content) {
                Ok(read) => active |= read,
                Err(failure) => self.failure = Some(failure),
            }
        }
        if ready.contains(Ready::CONNECTED | Ready::WRITABLE) && !out.shut {
            // A server without data keeps its direction open until the client has finished.
            let may_end = !server || out.total > 0 || inn.finished.is_some();
            let wrote = out.write(&flow, at, content);
            let ended = wrote.and_then(|wrote| Ok(wrote | (may_end && out.shut(&flow, at)?)));
            match ended {
                Ok(did) => active |= did,
                Err(error) => self.failure = Some(format!("write: {error}")),
            }
        }
        if out.shut && inn.finished.is_some() {
            flow.close(at);
            active = true;
        }
        active
    }

    /// Returns the time at which the program at one end must run again by itself.
    pub(crate) fn wake(&self, server: bool, now: Time) -> Option<Time> {
        let asleep = self.streams[usize::from(!server)].asleep;
        (asleep > now).then_some(asleep)
    }

    /// Returns true if both directions have ended or the connection has failed.
    pub(crate) fn is_over(&self) -> bool {
        self.failure.is_some() || self.streams.iter().all(|stream| stream.finished.is_some())
    }

    pub(crate) fn outcome(&mut self, now: Time) -> [StreamOutcome; 2] {
        let [up, down] = &mut self.streams;
        [up.outcome(now), down.outcome(now)]
    }
}

/// Content of every stream: a pattern with a prime period, so that a shift by whole segments is detected.
pub(crate) struct Content {
    pattern: Vec<u8>,
    pub(crate) scratch: Vec<u8>,
}

impl Content {
    const PERIOD: usize = 65_521;
    /// Maximum length of one write or read, bytes.
    const PIECE: usize = 256 << 10;

    pub(crate) fn new() -> Self {
        let byte = |at: usize| {
            let at = (at % Self::PERIOD) as u32;
            (at.wrapping_mul(0x9e37_79b1) >> 13) as u8
        };
        Self { pattern: (0..Self::PERIOD + Self::PIECE).map(byte).collect(), scratch: vec![0; Self::PIECE] }
    }

    /// Returns `len` bytes from `position` on, at most [`Self::PIECE`].
    fn at(&self, position: u64, len: usize) -> &[u8] {
        let start = (position % Self::PERIOD as u64) as usize;
        &self.pattern[start..start + len]
    }
}
