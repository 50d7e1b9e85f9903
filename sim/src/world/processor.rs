//! A node's processor. Work takes time, and meanwhile datagrams wait in the node's sockets.

use std::time::Duration;

use super::{Event, World};
use crate::Time;
use crate::wire::Sender;

/// Time that a node's work takes. Without a processor, work takes no time.
#[derive(Debug, Clone, Copy)]
pub struct Processor {
    /// Time of one X25519 operation.
    pub x25519: Duration,
    /// Time of all other work for a datagram received or sent.
    pub datagram: Duration,
}

impl Processor {
    /// One core of a usual machine.
    pub const USUAL: Self = Self { x25519: Duration::from_micros(45), datagram: Duration::from_micros(5) };
}

/// Work that a node had done at the last check, and the time until which it is busy.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) processor: Option<Processor>,
    pub(super) busy_until: Time,
    pub(super) x25519: u64,
}

impl World {
    /// Gives a node a processor.
    pub fn set_processor(&mut self, number: usize, processor: Processor) {
        self.machines[number].work.processor = Some(processor);
    }

    /// Pauses a node's process for this long, as SIGSTOP does, while its sockets buffer what they have room
    /// for.
    pub fn pause(&mut self, number: usize, time: Duration) {
        let (now, work) = (self.now, &mut self.machines[number].work);
        work.busy_until = work.busy_until.max(now + time);
        self.trace.note(now, format_args!("{number} stands still for {time:?}"), &[]);
    }

    /// Returns true if a node is busy. The event that is due now is then deferred until the node is idle.
    pub(super) fn defer(&mut self, sender: Sender, event: impl Fn(Sender) -> Event) -> bool {
        let busy_until = self.machines[sender.node].work.busy_until;
        let is_busy = busy_until > self.now;
        if is_busy {
            self.queue.push(busy_until, event(sender));
        }
        is_busy
    }

    /// Charges a node for the work it has just done. `datagrams` is the number received or sent.
    pub(super) fn charge(&mut self, number: usize, datagrams: usize) {
        let machine = &mut self.machines[number];
        let (Some(processor), Some(node)) = (machine.work.processor, &machine.node) else { return };
        let done = node.x25519();
        let new = done.saturating_sub(std::mem::replace(&mut machine.work.x25519, done));
        let took = processor.x25519 * new as u32 + processor.datagram * datagrams as u32;
        machine.work.busy_until = machine.work.busy_until.max(self.now) + took;
    }
}
