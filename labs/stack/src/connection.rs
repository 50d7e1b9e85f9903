//! The programs at both ends of a connection: each writes what it is to write and reads what comes.

use std::sync::Arc;
use std::time::Instant;

use peersock_stack::{Error, Flow, Ready};

use crate::{Plan, Time};

/// What became of one direction of a connection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamOutcome {
    /// Payload bytes that its reader got.
    pub bytes: u64,
    /// Those of them that came after [`Scenario::mark`](crate::Scenario::mark).
    pub bytes_after_mark: u64,
    /// When the reader had everything, the end included; `None` if that did not come.
    pub finished: Option<Time>,
    /// The longest time in which its reader got nothing.
    pub longest_stall: Time,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Bytes to send; `u64::MAX`: as many as there is time for.
    total: u64,
    written: u64,
    read: u64,
    before_mark: Option<u64>,
    last_progress: Time,
    longest_stall: Time,
    shut: bool,
    finished: Option<Time>,
    pause: Option<Pause>,
    /// The reader sleeps until then.
    asleep: Time,
    /// When it shall sleep next, bytes read.
    sleep_at: u64,
}

/// A reader that now and then does not read for a while, so that windows close.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pause {
    /// After so many bytes.
    pub every: u64,
    /// For so long.
    pub lasting: Time,
}

/// Both ends of a connection.
pub(crate) struct Connection {
    pub(crate) started: Time,
    pub(crate) client: Option<Arc<Flow>>,
    pub(crate) server: Option<Arc<Flow>>,
    /// From the client to the server, and back.
    pub(crate) streams: [Stream; 2],
    /// What went wrong.
    pub(crate) failure: Option<String>,
}

/// What a flow's context holds: which connection it is an end of.
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

    /// Writes what there is room for. True if it did anything.
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

    /// Sends the end after everything.
    fn shut(&mut self, flow: &Flow, at: Instant) -> Result<bool, Error> {
        let end = self.written == self.total && !self.shut;
        if end {
            flow.shutdown_write(at)?;
            self.shut = true;
        }
        Ok(end)
    }

    /// Reads what there is. True if that was anything.
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

    /// The time is over.
    fn outcome(&mut self, now: Time) -> StreamOutcome {
        if self.finished.is_none() {
            self.note_progress(now);
        }
        StreamOutcome {
            bytes: self.read,
            bytes_after_mark: self.before_mark.map_or(0, |before| self.read - before),
            finished: self.finished,
            // Who is sent nothing but the end waits for no data.
            longest_stall: if self.total > 0 { self.longest_stall } else { 0 },
        }
    }
}

impl Connection {
    pub(crate) fn new(plan: &Plan, started: Time) -> Self {
        let streams = [plan.up, plan.down].map(|total| Stream::new(total, started, plan.pause));
        Self { started, client: None, server: None, streams, failure: None }
    }

    /// Runs the program at one end. True if its flow may have something to send now.
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
            // A server that has nothing to say keeps its direction open until the client has said everything.
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

    /// When the program at one end wants to run again by itself.
    pub(crate) fn wake(&self, server: bool, now: Time) -> Option<Time> {
        let asleep = self.streams[usize::from(!server)].asleep;
        (asleep > now).then_some(asleep)
    }

    /// Whether both directions have come to their end, or nothing more can be expected.
    pub(crate) fn is_over(&self) -> bool {
        self.failure.is_some() || self.streams.iter().all(|stream| stream.finished.is_some())
    }

    pub(crate) fn outcome(&mut self, now: Time) -> [StreamOutcome; 2] {
        let [up, down] = &mut self.streams;
        [up.outcome(now), down.outcome(now)]
    }
}

/// What every stream carries: a pattern whose period is prime, so that no shift of it by whole segments looks
/// the same.
pub(crate) struct Content {
    pattern: Vec<u8>,
    pub(crate) scratch: Vec<u8>,
}

impl Content {
    const PERIOD: usize = 65_521;
    /// The most that is written or read at once, bytes.
    const PIECE: usize = 256 << 10;

    pub(crate) fn new() -> Self {
        let byte = |at: usize| {
            let at = (at % Self::PERIOD) as u32;
            (at.wrapping_mul(0x9e37_79b1) >> 13) as u8
        };
        Self { pattern: (0..Self::PERIOD + Self::PIECE).map(byte).collect(), scratch: vec![0; Self::PIECE] }
    }

    /// `len` bytes from `position` on, at most [`Self::PIECE`].
    fn at(&self, position: u64, len: usize) -> &[u8] {
        let start = (position % Self::PERIOD as u64) as usize;
        &self.pattern[start..start + len]
    }
}
