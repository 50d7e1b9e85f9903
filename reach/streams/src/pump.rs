//! The task of one connection: reads, writes, keepalives.
//!
//! TCP does not report a dead peer while nothing is sent, and behind a proxy not even then. So a client sends
//! a keepalive after it has sent or heard nothing for a while, and the server answers. An end that has heard
//! nothing for long enough gives up. Only a complete datagram or keepalive counts as heard, so a peer that
//! sends a byte now and then is not alive.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};

use crate::carrier::{Arrived, Carrier, Flushed, Role};
use crate::connection::{Closed, Shared};
use crate::queue::Dropped;

/// Timers of a connection: when it sends a keepalive, and when it gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A client sends a keepalive after this time of silence in either direction. Default: 10 s.
    pub keepalive: Duration,
    /// A connection ends when nothing was heard, or nothing could be written, for this time. It should be at
    /// least twice `keepalive`. Default: 25 s.
    pub dead_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { keepalive: Duration::from_secs(10), dead_after: Duration::from_secs(25) }
    }
}

/// Time for datagrams that were sent just before the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of reads in a row before queued datagrams are sent.
const READS: usize = 16;

/// Runs a connection until it ends, and returns the reason. `shared` is closed then.
pub(crate) async fn run(
    carrier: Carrier,
    role: Role,
    shared: Arc<Shared>,
    timing: Timing,
    deliver: impl FnMut(Bytes) + Send,
) -> Closed {
    let now = Instant::now();
    let mut pump = Pump {
        carrier,
        role,
        shared,
        timing,
        deliver,
        heard: now,
        sent: now,
        asked: now,
        blocked: None,
        written: 0,
        probe: None,
    };
    if role == Role::Client {
        // The first frame tells the server the protocol; a WebSocket does not need it.
        pump.ask(now);
    }
    let shared = pump.shared.clone();
    let reason = tokio::select! {
        reason = pump.drive() => reason,
        () = shared.closing() => shared.reason(),
    };
    shared.close(reason);
    let reason = shared.reason();
    if matches!(reason, Closed::Here | Closed::There | Closed::Malformed(_) | Closed::NotAdmitted) {
        // The connection ends in either case.
        let _ = timeout(FLUSH_TIMEOUT, pump.finish()).await;
    }
    reason
}

struct Pump<D> {
    carrier: Carrier,
    role: Role,
    shared: Arc<Shared>,
    timing: Timing,
    deliver: D,
    /// Times of the last arrival, the last progress in sending, and the last keepalive.
    heard: Instant,
    sent: Instant,
    asked: Instant,
    /// Time since which the stream takes nothing, and the bytes it had taken when last polled.
    blocked: Option<Instant>,
    written: u64,
    /// Deadline for an answer to a probe, and the patience it was made with.
    probe: Option<(Instant, Duration)>,
}

impl<D: FnMut(Bytes) + Send> Pump<D> {
    async fn drive(&mut self) -> Closed {
        let mut timer = pin!(sleep_until(self.deadline()));
        let shared = self.shared.clone();
        let mut probed = pin!(shared.probed.notified());
        poll_fn(|cx| {
            if let Err(reason) = self.receive(cx) {
                return Poll::Ready(reason);
            }
            // After reading, because bytes that arrived before the probe are no answer to it.
            while probed.as_mut().poll(cx).is_ready() {
                probed.set(shared.probed.notified());
                self.begin_probe(Instant::now());
                timer.as_mut().reset(self.deadline());
            }
            if let Err(reason) = self.send(cx) {
                return Poll::Ready(reason);
            }
            // Reset the timer when it expires, and not with each datagram, because other deadlines only move
            // later.
            while timer.as_mut().poll(cx).is_ready() {
                if let Err(reason) = self.expire(cx, Instant::now()) {
                    return Poll::Ready(reason);
                }
                timer.as_mut().reset(self.deadline());
            }
            Poll::Pending
        })
        .await
    }

    fn receive(&mut self, cx: &mut Context<'_>) -> Result<(), Closed> {
        let Self { carrier, shared, deliver, role, .. } = self;
        let (mut arrived, mut answer) = (false, false);
        for _ in 0..READS {
            let polled = carrier.poll_receive(cx, &mut |what| {
                arrived = true;
                match what {
                    Arrived::Datagram(datagram) => {
                        shared.counters.received.increment();
                        shared.counters.received_bytes.add(datagram.len() as u64);
                        deliver(datagram);
                    }
                    Arrived::Keepalive => {
                        shared.counters.keepalives_received.increment();
                        answer |= *role == Role::Server;
                    }
                }
            });
            match polled {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    self.received(arrived, answer);
                    return Ok(());
                }
            }
        }
        self.received(arrived, answer);
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn received(&mut self, arrived: bool, answer: bool) {
        if arrived {
            self.heard = Instant::now();
            self.probe = None;
            self.shared.note_answer();
        }
        if answer {
            self.shared.counters.keepalives_sent.increment();
            self.carrier.keepalive();
        }
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Result<Poll<Flushed>, Closed> {
        let Self { carrier, shared, .. } = self;
        let counters = &shared.counters;
        let mut batches = 0;
        // One reading of the clock per batch is enough.
        let now = Instant::now();
        let mut source = |cx: &mut Context<'_>| {
            let (popped, Dropped(dropped)) = shared.outgoing.poll_pop(cx, now);
            counters.send_dropped_old.add(dropped);
            if let Poll::Ready(Some(datagram)) = &popped {
                counters.sent.increment();
                counters.sent_bytes.add(datagram.len() as u64);
            }
            popped
        };
        let polled = carrier.poll_send(cx, &mut source, &mut batches);
        counters.batches_sent.add(batches);
        let written = carrier.written();
        if written != std::mem::replace(&mut self.written, written) {
            self.sent = now;
            self.blocked = None;
        }
        Ok(match polled {
            Poll::Ready(flushed) => {
                self.blocked = None;
                Poll::Ready(flushed?)
            }
            Poll::Pending => {
                self.blocked.get_or_insert(now);
                Poll::Pending
            }
        })
    }

    fn begin_probe(&mut self, now: Instant) {
        let Some(patience) = self.shared.take_probe() else { return };
        if self.role.asks() && self.probe.is_none() {
            self.probe = Some((now + patience, patience));
            self.ask(now);
        }
    }

    fn ask(&mut self, now: Instant) {
        self.asked = now;
        self.shared.counters.keepalives_sent.increment();
        self.carrier.keepalive();
    }

    /// Handles the timers that are due.
    fn expire(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Closed> {
        let dead = self.timing.dead_after;
        if let Some((_, patience)) = self.probe.filter(|(until, _)| now >= *until) {
            return Err(Closed::Silent(patience));
        }
        if now.saturating_duration_since(self.heard) >= dead {
            return Err(Closed::Silent(dead));
        }
        if self.blocked.is_some_and(|since| now.saturating_duration_since(since) >= dead) {
            return Err(Closed::Stalled(dead));
        }
        if self.role.asks() && now >= self.keepalive_at() {
            self.ask(now);
            self.send(cx)?.is_ready();
        }
        Ok(())
    }

    /// Returns the next time at which a timer may be due.
    fn deadline(&self) -> Instant {
        let dead = self.blocked.unwrap_or(self.heard).min(self.heard) + self.timing.dead_after;
        let dead = self.probe.map_or(dead, |(until, _)| until.min(dead));
        match self.role {
            Role::Client | Role::Accepted => dead.min(self.keepalive_at()),
            Role::Server | Role::TurnClient => dead,
        }
    }

    fn keepalive_at(&self) -> Instant {
        // One keepalive in this time is enough, answered or not.
        self.heard.min(self.sent).max(self.asked) + self.timing.keepalive
    }

    /// Sends what was queued before the end, and closes the stream.
    async fn finish(&mut self) -> Result<(), Closed> {
        poll_fn(|cx| match self.send(cx)? {
            Poll::Ready(Flushed::Ended) => Poll::Ready(Ok::<_, Closed>(())),
            Poll::Ready(Flushed::Idle) | Poll::Pending => Poll::Pending,
        })
        .await?;
        poll_fn(|cx| self.carrier.poll_close(cx)).await
    }
}
