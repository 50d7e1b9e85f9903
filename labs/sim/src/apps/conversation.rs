use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::NetworkId;
use peersock_stack::{Error, Flow, Ready};

use super::{Context, Plan, Side, Step, Violation};
use crate::{Content, Time};

/// One end of a conversation, with its connection.
pub(crate) struct Conversation {
    flow: Arc<Flow>,
    network: NetworkId,
    node: usize,
    side: Side,
    /// Set once a server has read the client's greeting.
    known: Option<Known>,
    greeting: Vec<u8>,
    step: usize,
    /// Bytes written in the present step, and in total without the greeting.
    in_step: u64,
    written: u64,
    read: u64,
    paused_until: Option<Time>,
    rests_until: Time,
    shut: bool,
    saw_end: bool,
}

#[derive(Debug, Clone)]
struct Known {
    id: u64,
    plan: Arc<Plan>,
    writes: Content,
    reads: Content,
}

impl Known {
    fn new(id: u64, plan: Arc<Plan>, side: Side) -> Self {
        let (writes, reads) = (plan.content(id, side), plan.content(id, side.other()));
        Self { id, plan, writes, reads }
    }
}

/// State of one end after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The conversation goes on.
    Going,
    /// Everything was written and read, and the connection is closed.
    Done,
    /// The connection failed before it was established.
    Unconnected(u64, Error),
    /// The connection failed, and the ledger knows it.
    Failed,
}

impl Conversation {
    /// Makes the end that has just begun to connect.
    pub(crate) fn client(flow: Arc<Flow>, id: u64, plan: Arc<Plan>) -> Self {
        let greeting = id.to_be_bytes().to_vec();
        let (network, node) = (plan.network, plan.client);
        let known = Some(Known::new(id, plan, Side::Client));
        Self { known, greeting, ..Self::new(flow, network, node, Side::Client) }
    }

    /// Makes the end that `node` has just accepted in `network`.
    pub(crate) fn server(flow: Arc<Flow>, network: NetworkId, node: usize) -> Self {
        Self::new(flow, network, node, Side::Server)
    }

    fn new(flow: Arc<Flow>, network: NetworkId, node: usize, side: Side) -> Self {
        Self {
            flow,
            network,
            node,
            side,
            known: None,
            greeting: Vec::new(),
            step: 0,
            in_step: 0,
            written: 0,
            read: 0,
            paused_until: None,
            rests_until: Time::ZERO,
            shut: false,
            saw_end: false,
        }
    }

    /// Returns the connection.
    pub(crate) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Returns the conversation's number and a text that describes its progress.
    pub(crate) fn describe(&self) -> (Option<u64>, String) {
        let (side, flow) = (self.side, &self.flow);
        let text = format!(
            "{side:?} at step {} ({} bytes written, {} read, {:?}): {}, {} unacknowledged, {} unsent, {} unread",
            self.step,
            self.written,
            self.read,
            flow.readiness(),
            flow.state(),
            flow.unacked(),
            flow.unsent(),
            flow.readable(),
        );
        (self.known.as_ref().map(|known| known.id), text)
    }

    /// Returns the time of the next run if no data comes.
    pub(crate) fn next_wake(&self) -> Option<Time> {
        let rests = Some(self.rests_until).filter(|at| *at > Time::ZERO && !self.saw_end);
        self.paused_until.into_iter().chain(rests).min()
    }

    /// Makes all progress that is possible now.
    pub(crate) fn run(&mut self, context: &mut Context<'_>) -> Result<Outcome, Violation> {
        let ready = self.flow.readiness();
        if ready.contains(Ready::ERROR)
            && let Some(error) = self.flow.take_error()
        {
            return self.fail(context, error);
        }
        if !ready.contains(Ready::CONNECTED) {
            return Ok(Outcome::Going);
        }
        if context.now >= self.rests_until {
            self.rests_until = Time::ZERO;
        }
        let rested = self.rests_until == Time::ZERO;
        if rested
            && ready.intersects(Ready::READABLE | Ready::READ_CLOSED)
            && let Err(error) = self.read(context)?
        {
            return self.fail(context, error);
        }
        match self.write(context) {
            Ok(false) => {}
            Ok(true) => context.datapath.pump(context.at, &self.flow, context.batch),
            Err(error) => return self.fail(context, error),
        }
        if !(self.shut && self.saw_end) {
            return Ok(Outcome::Going);
        }
        if let Some(known) = &self.known {
            context.ledger.done(known.id, self.side);
        }
        self.close(context);
        Ok(Outcome::Done)
    }

    fn fail(&mut self, context: &mut Context<'_>, error: Error) -> Result<Outcome, Violation> {
        let connected = self.flow.readiness().contains(Ready::CONNECTED) || self.read + self.written > 0;
        self.close(context);
        let Some(known) = &self.known else { return Ok(Outcome::Failed) };
        if self.side == Side::Client && !connected {
            return Ok(Outcome::Unconnected(known.id, error));
        }
        context.ledger.failed(known.id, self.side, error)?;
        Ok(Outcome::Failed)
    }

    fn close(&self, context: &mut Context<'_>) {
        self.flow.close(context.at);
        context.datapath.pump(context.at, &self.flow, context.batch);
    }

    /// Reads and checks the data that has come. The inner error is the connection's error.
    fn read(&mut self, context: &mut Context<'_>) -> Result<Result<(), Error>, Violation> {
        while !self.saw_end {
            if self.known.is_none() && !self.read_greeting(context)? {
                return Ok(Ok(()));
            }
            let Some(known) = &self.known else { return Ok(Ok(())) };
            let reader = known.plan.reader(self.side);
            let room = reader.chunk.clamp(1, context.scratch.len());
            let len = match self.flow.read(context.at, &mut context.scratch[..room]) {
                Ok(len) => len,
                Err(Error::WouldBlock) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            let total = known.plan.script(self.side.other()).total();
            if len == 0 {
                if self.read != total {
                    let excused = context.ledger.is_disturbed(known.id);
                    let read = self.read;
                    let told = self.complain(format_args!("saw the end after {read} of {total} bytes"));
                    return if excused { Ok(Err(Error::ConnectionReset)) } else { Err(told) };
                }
                self.saw_end = true;
                break;
            }
            if let Err(place) = known.reads.check(self.read, &context.scratch[..len]) {
                return Err(self.complain(format_args!("read a wrong byte at {place} of {total}")));
            }
            self.read += len as u64;
            context.ledger.bytes_checked += len as u64;
            if self.flow.has_output(context.at) {
                context.datapath.pump(context.at, &self.flow, context.batch);
            }
            if reader.rest > Duration::ZERO {
                self.rests_until = context.now + reader.rest;
                break;
            }
        }
        Ok(Ok(()))
    }

    fn complain(&self, what: std::fmt::Arguments<'_>) -> Violation {
        let id = self.known.as_ref().map_or(0, |known| known.id);
        let (side, node) = (self.side, self.node);
        Violation(format!("the {side:?} of conversation {id} (node {node}) {what}"))
    }

    /// Reads the number of the conversation. Returns false while a part of it is missing.
    fn read_greeting(&mut self, context: &mut Context<'_>) -> Result<bool, Violation> {
        while self.greeting.len() < GREETING {
            let mut rest = [0; GREETING];
            let missing = GREETING - self.greeting.len();
            match self.flow.read(context.at, &mut rest[..missing]) {
                Ok(0) => {
                    // The client crashed or left before it could say anything.
                    self.saw_end = true;
                    self.shut = true;
                    return Ok(false);
                }
                Ok(len) => self.greeting.extend_from_slice(&rest[..len]),
                Err(_) => return Ok(false),
            }
        }
        let bytes = self.greeting.as_slice().try_into().expect("the greeting is complete");
        let id = u64::from_be_bytes(bytes);
        self.greeting.clear();
        let plan = context.ledger.accept(id, self.network, self.node, self.flow.local().port())?;
        self.known = Some(Known::new(id, plan, self.side));
        Ok(true)
    }

    /// Writes as much of the script as the connection takes. Returns true if there is new data to send.
    fn write(&mut self, context: &mut Context<'_>) -> Result<bool, Error> {
        let Some(known) = &self.known else { return Ok(false) };
        let mut changed = false;
        if self.side == Side::Client && !self.greeting.is_empty() {
            match self.flow.write(context.at, &self.greeting) {
                Ok(len) => drop(self.greeting.drain(..len)),
                Err(Error::WouldBlock) => return Ok(false),
                Err(error) => return Err(error),
            }
            changed = true;
        }
        while let Some(step) = known.plan.script(self.side).0.get(self.step) {
            match *step {
                Step::Write(bytes) => {
                    if !self.flow.readiness().contains(Ready::WRITABLE) {
                        return Ok(changed);
                    }
                    let len = MAX_WRITE.min((bytes - self.in_step) as usize);
                    let part = &mut context.scratch[..len];
                    known.writes.write(self.written, part);
                    match self.flow.write(context.at, part) {
                        Ok(len) => {
                            self.in_step += len as u64;
                            self.written += len as u64;
                            changed = true;
                        }
                        Err(Error::WouldBlock) => return Ok(changed),
                        Err(error) => return Err(error),
                    }
                    if self.in_step < bytes {
                        continue;
                    }
                }
                Step::Await(bytes) if self.read < bytes => return Ok(changed),
                Step::Await(_) => {}
                Step::Pause(duration) => {
                    let until = *self.paused_until.get_or_insert(context.now + duration);
                    if context.now < until {
                        return Ok(changed);
                    }
                    self.paused_until = None;
                }
            }
            self.step += 1;
            self.in_step = 0;
        }
        if !self.shut {
            self.flow.shutdown_write(context.at)?;
            self.shut = true;
            changed = true;
        }
        Ok(changed)
    }
}

/// Bytes passed to one call of `write`.
const MAX_WRITE: usize = 16 * 1024;
/// Length in bytes of the conversation number that a client sends first.
const GREETING: usize = 8;
