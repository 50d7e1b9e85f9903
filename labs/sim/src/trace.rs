use std::fmt;

use crate::Time;

/// Hash of the event history. Two runs of a seed must produce the same hash.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    lines: u64,
    print: bool,
}

impl Trace {
    /// Makes a trace that also writes every event to standard error if `print` is set.
    pub fn new(print: bool) -> Self {
        Self { print, ..Self::default() }
    }

    /// Notes an event and its bytes.
    pub fn note(&mut self, now: Time, what: fmt::Arguments<'_>, bytes: &[u8]) {
        self.lines += 1;
        self.mix(now.as_nanos() as u64);
        self.mix_bytes(bytes);
        if self.print {
            eprintln!("{:>12.6} {what}", now.as_secs_f64());
        }
    }

    /// Returns the hash of all events.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns the number of events.
    pub fn len(&self) -> u64 {
        self.lines
    }

    /// Returns true if there were no events.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}
