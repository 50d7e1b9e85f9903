//! Timers of all flows in one hierarchical timing wheel.
//!
//! The wheel has a resolution of one millisecond and six levels of 64 slots. An entry's level is the highest
//! digit (in base 64) in which its tick differs from the present one. The entry moves down when that digit's
//! turn comes. Inserting and firing are O(1) in the number of flows.
//!
//! A flow is entered only when it gets a deadline *earlier* than its entry. This is rare, because
//! acknowledgements mostly move the retransmission deadline later. When an entry fires and the flow's
//! deadline has moved, the flow is entered again. So packets cost no access to the wheel.
//!
//! The entry of a freed flow keeps a piece of its memory until its turn, which may be hours ahead. So the
//! wheel is swept for such entries whenever their number has doubled since the last sweep.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::host::clock::Time;
use crate::sync;

const LEVELS: usize = 6;
const SLOT_BITS: usize = 6;
const SLOTS: usize = 1 << SLOT_BITS;

/// Number of entries below which the wheel is never swept.
const MIN_SWEPT_ENTRIES: usize = 1024;

/// Maximum distance of an entry, a year: half a turn of the highest level, so that its slot is never the
/// present one. Later deadlines fire then and are entered again.
const HORIZON: Tick = 1 << (SLOT_BITS * LEVELS - 1);

/// Time in milliseconds of the stack's time. [`NEVER`] is no tick.
pub(crate) type Tick = u64;

/// Value later than every deadline.
pub(crate) const NEVER: Tick = u64::MAX;

/// Returns the first tick that is not before `time`.
pub(crate) fn tick_at(time: Time) -> Tick {
    // Rounded up, so that no timer fires before its time.
    u64::try_from(time.total_micros()).unwrap_or(0).div_ceil(1000)
}

/// Timing wheel behind its lock, with the next tick readable without it.
pub(crate) struct Timers<T> {
    wheel: Mutex<Wheel<T>>,
    next: AtomicU64,
}

impl<T> Timers<T> {
    /// Creates an empty wheel. Entries whose owner no longer `lasts` may be dropped.
    pub(crate) fn new(lasts: fn(&T) -> bool) -> Self {
        Self { wheel: Mutex::new(Wheel::new(lasts)), next: AtomicU64::new(NEVER) }
    }

    /// Adds an entry that fires `owner` at `tick`.
    pub(crate) fn insert(&self, tick: Tick, owner: T) {
        let mut wheel = self.lock();
        wheel.make_room();
        wheel.insert(Entry { tick, owner });
        wheel.entries += 1;
        self.publish(&wheel);
    }

    /// Returns the time at which [`fire`](Self::fire) next has something to do, or a somewhat earlier time.
    pub(crate) fn next(&self) -> Option<Time> {
        match self.next.load(Ordering::Acquire) {
            NEVER => None,
            tick => Some(Time::from_micros(i64::try_from(tick.saturating_mul(1000)).unwrap_or(i64::MAX))),
        }
    }

    /// Moves owners that are due at `time` into `due`, with their ticks, until it holds `limit`.
    pub(crate) fn fire(&self, time: Time, limit: usize, due: &mut Vec<(Tick, T)>) {
        let now = u64::try_from(time.total_micros()).unwrap_or(0) / 1000;
        // Mostly nothing is due, and then the call takes no lock.
        if self.next.load(Ordering::Acquire) > now {
            return;
        }
        let mut wheel = self.lock();
        // Bounded, so that a driver can send and receive between two parts of a burst of timers.
        while due.len() < limit {
            match wheel.fired.pop() {
                Some(entry) => {
                    wheel.entries -= 1;
                    due.push((entry.tick, entry.owner));
                }
                None if wheel.advance(now) => {}
                None => break,
            }
        }
        self.publish(&wheel);
    }

    fn publish(&self, wheel: &Wheel<T>) {
        self.next.store(wheel.next_tick(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Wheel<T>> {
        sync::lock(&self.wheel)
    }
}

struct Entry<T> {
    /// Tick requested by the owner.
    tick: Tick,
    owner: T,
}

struct Wheel<T> {
    /// Present tick. The turn of every entry, which is its tick within the horizon, is not before it.
    now: Tick,
    levels: [Level<T>; LEVELS],
    /// Entries that [`advance`](Self::advance) took out and [`Timers::fire`] has not returned yet.
    fired: Vec<Entry<T>>,
    lasts: fn(&T) -> bool,
    /// Number of entries in all slots and in `fired`.
    entries: usize,
    /// Number of entries at which the wheel is swept.
    most: usize,
}

struct Level<T> {
    occupied: u64,
    slots: [Vec<Entry<T>>; SLOTS],
}

impl<T> Wheel<T> {
    fn new(lasts: fn(&T) -> bool) -> Self {
        let level = || Level { occupied: 0, slots: std::array::from_fn(|_| Vec::new()) };
        let levels = std::array::from_fn(|_| level());
        Self { now: 0, levels, fired: Vec::new(), lasts, entries: 0, most: MIN_SWEPT_ENTRIES }
    }

    /// Removes entries of freed owners, if there are many entries.
    fn make_room(&mut self) {
        if self.entries < self.most {
            return;
        }
        let lasts = self.lasts;
        self.fired.retain(|entry| lasts(&entry.owner));
        self.entries = self.fired.len();
        for level in &mut self.levels {
            for (at, slot) in level.slots.iter_mut().enumerate() {
                slot.retain(|entry| lasts(&entry.owner));
                if slot.is_empty() {
                    level.occupied &= !(1 << at);
                }
                self.entries += slot.len();
            }
        }
        // Doubling keeps the cost of sweeps constant per entry, however many owners stay.
        self.most = MIN_SWEPT_ENTRIES.max(2 * self.entries);
    }

    fn insert(&mut self, entry: Entry<T>) {
        // Limited to the range for which the wheel has a slot.
        let turn = entry.tick.clamp(self.now, self.now + HORIZON);
        let level = level_of(self.now, turn);
        let slot = digit(turn, level);
        self.levels[level].occupied |= 1 << slot;
        self.levels[level].slots[slot].push(entry);
    }

    /// Returns the first tick at which a slot has its turn.
    fn next_tick(&self) -> Tick {
        // A limit may have left fired entries over, which are due at once.
        if !self.fired.is_empty() {
            return self.now;
        }
        self.next_slot().map_or(NEVER, |(_, _, tick)| tick)
    }

    /// Returns the level, index and first tick of the slot whose turn comes first.
    fn next_slot(&self) -> Option<(usize, usize, Tick)> {
        self.levels.iter().enumerate().find_map(|(index, level)| {
            let ahead = level.occupied.rotate_right(digit(self.now, index) as u32);
            if ahead == 0 {
                return None;
            }
            let slot = (digit(self.now, index) + ahead.trailing_zeros() as usize) % SLOTS;
            let unit = SLOT_BITS * index;
            let round = SLOT_BITS * (index + 1);
            let mut tick = (self.now >> round << round) + ((slot as u64) << unit);
            // The slot's digit is behind the present one, so its turn comes in the next round.
            if tick >> unit < self.now >> unit {
                tick += 1 << round;
            }
            Some((index, slot, tick.max(self.now)))
        })
    }

    /// Processes the next slot if its turn has come: its entries fire, or move to lower levels.
    fn advance(&mut self, now: Tick) -> bool {
        let Some((index, slot, tick)) = self.next_slot().filter(|&(_, _, tick)| tick <= now) else {
            return false;
        };
        self.now = tick;
        self.levels[index].occupied &= !(1 << slot);
        if index == 0 {
            self.fired.append(&mut self.levels[0].slots[slot]);
        } else {
            let mut moving = std::mem::take(&mut self.levels[index].slots[slot]);
            for entry in moving.drain(..) {
                self.insert(entry);
            }
            // The emptied vector goes back, so that the slot keeps its capacity.
            self.levels[index].slots[slot] = moving;
        }
        true
    }
}

/// Returns the level of an entry for `tick`.
fn level_of(now: Tick, tick: Tick) -> usize {
    // The lowest bit is set, so that equal ticks wait on the lowest level.
    let differing = (now ^ tick) | 1;
    let highest = 63 - differing.leading_zeros() as usize;
    (highest / SLOT_BITS).min(LEVELS - 1)
}

fn digit(tick: Tick, level: usize) -> usize {
    (tick >> (SLOT_BITS * level)) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis as i64)
    }

    proptest! {
        /// Compares the wheel with a sorted list: everything fires, in order, never early, and never later
        /// than the first call at or after its tick.
        #[test]
        fn fires_what_is_due_and_nothing_else(
            steps in prop::collection::vec((0u64..5_000_000, 0u64..400_000), 1..200),
        ) {
            let timers = Timers::new(|_| true);
            let mut waiting: Vec<u64> = Vec::new();
            let mut now = 1000;
            for (delay, step) in steps {
                timers.insert(now + delay, now + delay);
                waiting.push(now + delay);
                now += step;
                let next = timers.next().map(|time| time.total_millis() as u64);
                prop_assert!(next.is_some_and(|next| next <= *waiting.iter().min().unwrap()));
                let mut due = Vec::new();
                timers.fire(at(now), usize::MAX, &mut due);
                for (tick, owner) in due {
                    prop_assert_eq!(tick, owner);
                    prop_assert!(tick <= now);
                    waiting.swap_remove(waiting.iter().position(|&t| t == tick).unwrap());
                }
                prop_assert!(waiting.iter().all(|&tick| tick > now));
            }
        }
    }

    #[test]
    fn owners_that_are_gone_do_not_stay_until_their_turn() {
        use std::sync::{Arc, Weak};
        let timers = Timers::new(|owner: &Weak<u64>| owner.strong_count() > 0);
        let kept: Vec<Arc<u64>> = (0..100).map(|at| Arc::new(at * 1000)).collect();
        for (at, owner) in kept.iter().enumerate() {
            timers.insert(**owner, Arc::downgrade(owner));
            for tick in 0..1000 {
                timers.insert(7_200_000 + tick * at as u64, Arc::downgrade(&Arc::new(0)));
            }
        }
        let held = |wheel: &Wheel<_>| -> usize {
            let slots = wheel.levels.iter().flat_map(|level| &level.slots);
            slots.map(Vec::len).sum::<usize>() + wheel.fired.len()
        };
        let wheel = timers.lock();
        assert!(
            held(&wheel) == wheel.entries && wheel.entries <= MIN_SWEPT_ENTRIES + 2 * kept.len(),
            "{}",
            wheel.entries
        );
        drop(wheel);
        let mut due = Vec::new();
        timers.fire(at(99_000), usize::MAX, &mut due);
        assert!(due.len() == 100 && due.iter().all(|(tick, owner)| owner.upgrade().as_deref() == Some(tick)));
    }

    #[test]
    fn sleeping_until_the_next_tick_fires_a_lone_entry_after_few_looks() {
        let timers = Timers::new(|_| true);
        timers.insert(1_234_567, ());
        let mut due = Vec::new();
        let mut looks = 0;
        while let Some(next) = timers.next() {
            looks += 1;
            timers.fire(next, 10, &mut due);
        }
        assert_eq!(due.len(), 1);
        assert!(looks <= LEVELS + 1, "{looks}");
    }

    #[test]
    fn a_limit_leaves_the_rest_for_the_next_call() {
        let timers = Timers::new(|_| true);
        for tick in 0..100 {
            timers.insert(tick, tick);
        }
        let mut due = Vec::new();
        timers.fire(at(1000), 10, &mut due);
        assert_eq!(due.len(), 10);
        assert!(timers.next().is_some_and(|next| next <= at(1000)));
        timers.fire(at(1000), usize::MAX, &mut due);
        assert_eq!(due.len(), 100);
    }
}
