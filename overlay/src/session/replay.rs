/// Record of which of the latest [`ReplayWindow::WIDTH`] counters were received (RFC 6479).
///
/// It is a ring of 64-bit words, one more than the window is wide, so that advancing it only clears whole
/// words.
#[derive(Debug)]
pub(super) struct ReplayWindow {
    /// One more than the highest marked counter; 0 before the first.
    next: u64,
    words: [u64; WORDS],
}

const WORD: u64 = u64::BITS as u64;
const WORDS: usize = (ReplayWindow::WIDTH / WORD) as usize + 1;

/// Reason why a counter is not new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stale {
    /// The counter was marked before.
    Replayed,
    /// The counter is behind the window, so whether it was marked is unknown.
    TooOld,
}

impl ReplayWindow {
    /// Maximum distance of a packet behind the highest counter, in packets.
    pub(super) const WIDTH: u64 = 8192;

    pub(super) const fn new() -> Self {
        Self { next: 0, words: [0; WORDS] }
    }

    /// Marks `counter`, which must belong to an authenticated packet, unless it is stale.
    pub(super) fn mark(&mut self, counter: u64) -> Result<(), Stale> {
        // The packet is authentic here. A forged high counter would otherwise move the window past all true
        // packets, which would then count as too old.
        if counter >= self.next {
            self.advance(counter);
        } else if self.next - counter > Self::WIDTH {
            return Err(Stale::TooOld);
        }
        // The ring has one word more than the window, so a word that is only partly inside is never cleared
        // early (RFC 6479).
        let word = &mut self.words[slot(counter / WORD)];
        let bit = 1 << (counter % WORD);
        if *word & bit != 0 {
            return Err(Stale::Replayed);
        }
        *word |= bit;
        Ok(())
    }

    /// Returns one more than the highest marked counter.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Makes `counter` the highest and clears the words that enter the window.
    fn advance(&mut self, counter: u64) {
        let (old, new) = (self.next.saturating_sub(1) / WORD, counter / WORD);
        // A jump over more than the whole ring clears each word once, however far it goes.
        for block in (old + 1..=new).take(WORDS) {
            self.words[slot(block)] = 0;
        }
        self.next = counter + 1;
    }
}

fn slot(block: u64) -> usize {
    (block % WORDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Simple model of the window.
    #[derive(Default)]
    struct Reference {
        seen: BTreeSet<u64>,
    }

    impl Reference {
        fn mark(&mut self, counter: u64) -> Result<(), Stale> {
            let highest = self.seen.last().copied().unwrap_or(0);
            if counter + ReplayWindow::WIDTH <= highest {
                Err(Stale::TooOld)
            } else if self.seen.insert(counter) {
                Ok(())
            } else {
                Err(Stale::Replayed)
            }
        }
    }

    #[test]
    fn window_is_8192_wide() {
        let mut window = ReplayWindow::new();
        assert_eq!(window.mark(8192), Ok(()));
        assert_eq!(window.mark(0), Err(Stale::TooOld));
        assert_eq!(window.mark(1), Ok(()));
        assert_eq!(window.mark(1), Err(Stale::Replayed));
    }

    #[test]
    fn highest_counters_do_not_overflow() {
        let mut window = ReplayWindow::new();
        assert_eq!(window.mark(u64::MAX - 1), Ok(()));
        assert_eq!(window.mark(u64::MAX - 1), Err(Stale::Replayed));
        assert_eq!(window.mark(0), Err(Stale::TooOld));
        assert_eq!(window.mark(u64::MAX - ReplayWindow::WIDTH), Ok(()));
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(
            steps in prop::collection::vec((prop_oneof![8 => 0u64..40, 2 => 0u64..9000, 1 => 0u64..1 << 40], any::<bool>()), 1..400)
        ) {
            let (mut window, mut reference) = (ReplayWindow::new(), Reference::default());
            let mut at = 0u64;
            for (step, back) in steps {
                at = if back { at.saturating_sub(step) } else { at + step };
                prop_assert_eq!(window.mark(at), reference.mark(at), "counter {}", at);
            }
        }
    }
}
