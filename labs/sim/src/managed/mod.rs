//! Managed networks: real endpoints and real controllers in virtual time.
//!
//! A [`Managed`] story has members on several sites, and three issuers. Paths flap, the network is cut in
//! two, clocks are wrong, people remove members and take them back, the key of an issuer is stolen, an old
//! store comes back while a third of the members are away, and all controllers are away for almost as long
//! as the network promises to go on.
//!
//! An oracle knows what people have decided and what honest controllers have signed. It follows removals
//! along the sessions between machines, and never asks an endpoint or a controller what it knows. A removed
//! node's packets must not be accepted 5 s after a session with somebody who must know, nor a while after the
//! end of the last certificate. A removal delays no packets between others. No two nodes have certificates
//! with one address at a time. No certificate of a member ends, and after all faults everybody is back in
//! bounded time.
//!
//! [`Fleet`] is for 10,000 members: real controllers, and of the members only the times at which they ask.

mod acts;
mod field;
mod fleet;
mod office;
mod oracle;
mod story;
mod thief;

pub use fleet::{Absence, Fleet};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::trace::Trace;
use crate::{Time, Violation};

/// One seed's story of a managed network.
#[derive(Debug)]
pub struct Managed {
    /// Seed of the whole story.
    pub seed: u64,
    /// Number of members: [`Self::LEAST_MEMBERS`] or more, if all acts are played.
    pub members: usize,
    /// Number of acts of random order between the ones that every story has, at most all of them.
    pub acts: usize,
    /// True to write every event to standard error.
    pub trace: bool,
}

/// Result of a story.
#[derive(Debug, Clone)]
pub struct ManagedReport {
    /// Seed.
    pub seed: u64,
    /// Event that must never happen, if one occurred.
    pub violation: Option<Violation>,
    /// Hash of all datagrams.
    pub hash: u64,
    /// Virtual time.
    pub virtual_time: Time,
    /// Datagrams that nodes sent.
    pub sent: u64,
    /// Initiations of handshakes among them.
    pub begun: u64,
    /// Packets of programs that were accepted.
    pub accepted: u64,
    /// Certificates that honest controllers have signed.
    pub certificates: u64,
    /// Addresses that members have.
    pub addresses: usize,
    /// Time after the last fault until everybody was back.
    pub back: Duration,
    /// Median and 99th percentile of the times that removals took without faults.
    pub removals: (Duration, Duration),
    /// Number of these times: one for each removal and member in reach.
    pub reached: usize,
    /// Pings between others that were answered before, during and after these removals.
    pub pings: usize,
}

impl Managed {
    /// Least number of members with which a story with all acts has somebody left to remove at its end.
    pub const LEAST_MEMBERS: usize = 20;

    /// Makes the story of a seed.
    pub fn new(seed: u64, members: usize) -> Self {
        Self { seed, members, acts: usize::MAX, trace: false }
    }

    /// Plays it. A panic is a violation like any other.
    pub fn run(&self) -> ManagedReport {
        let mut story = story::Story::new(self.seed, Trace::new(self.trace));
        let mut back = Duration::ZERO;
        let told = catch_unwind(AssertUnwindSafe(|| acts::play(&mut story, self, &mut back)));
        let violation = match told {
            Ok(Ok(())) => None,
            Ok(Err(violation)) => Some(violation),
            Err(panic) => Some(Violation(format!("panic: {}", crate::scenario::panic_text(&*panic)))),
        };
        story.delays.sort_unstable();
        let delay = |per_cent: usize| {
            let place = (story.delays.len() * per_cent / 100).min(story.delays.len().saturating_sub(1));
            story.delays.get(place).copied().unwrap_or_default()
        };
        ManagedReport {
            seed: self.seed,
            violation,
            hash: story.field.trace.hash(),
            virtual_time: story.field.now,
            sent: story.field.sent,
            begun: story.field.begun,
            accepted: story.oracle.accepted,
            certificates: story.oracle.certificates,
            addresses: story.oracle.addresses(),
            back,
            removals: (delay(50), delay(99)),
            reached: story.delays.len(),
            pings: story.pings,
        }
    }
}
