//! TCP options: RFC 9293 3.2, RFC 7323, RFC 2018.

/// Maximum number of SACK blocks in one header.
pub(crate) const MAX_BLOCKS: usize = 4;

/// Maximum bytes of options in one header.
pub(crate) const MAX_OPTIONS: usize = 40;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// The options of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Largest segment that the sender of this option accepts, bytes.
    pub(crate) mss: Option<u16>,
    /// Base-2 logarithm of the window's unit, at most 14.
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    pub(crate) sack: SackBlocks,
    /// TSval and TSecr.
    pub(crate) timestamps: Option<(u32, u32)>,
}

/// Ranges of sequence numbers, the end not included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SackBlocks {
    blocks: [(u32, u32); MAX_BLOCKS],
    count: u8,
}

impl SackBlocks {
    /// Adds a block if there is room.
    pub(crate) fn push(&mut self, block: (u32, u32)) {
        if let Some(free) = self.blocks.get_mut(usize::from(self.count)) {
            *free = block;
            self.count += 1;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.blocks.iter().copied().take(usize::from(self.count))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }
}

impl Options {
    /// Reads the options of a header. A malformed option ends the list.
    pub(crate) fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let Some((&kind, rest)) = bytes.split_first() {
            if kind == END {
                break;
            }
            if kind == NOP {
                bytes = rest;
                continue;
            }
            let Some(&length) = rest.first() else { break };
            // A length of 0 or 1 gives no value, so every round of the loop advances.
            let Some(value) = bytes.get(2..usize::from(length)) else { break };
            options.take(kind, value);
            bytes = &bytes[usize::from(length)..];
        }
        options
    }

    fn take(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (MSS, &[high, low]) => self.mss = Some(u16::from_be_bytes([high, low])),
            // RFC 7323 2.3: a larger shift counts as 14.
            (WINDOW_SCALE, &[shift]) => self.window_scale = Some(shift.min(14)),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            // A length that fits no blocks is ignored as a whole, because the first bytes of such an option
            // mean nothing.
            (SACK, blocks) if blocks.len() % 8 == 0 => {
                for block in blocks.chunks_exact(8) {
                    self.sack.push((word(&block[..4]), word(&block[4..])));
                }
            }
            (TIMESTAMPS, value) if value.len() == 8 => {
                self.timestamps = Some((word(&value[..4]), word(&value[4..])));
            }
            // RFC 9293 3.1: unknown options are skipped by their length.
            _ => {}
        }
    }

    /// Writes the options, padded to whole words; returns the length. SACK blocks without room are omitted.
    pub(crate) fn write(&self, buf: &mut [u8; MAX_OPTIONS]) -> usize {
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            buf[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
            len
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(&[MSS, 4, high, low]);
        }
        if let Some(shift) = self.window_scale {
            // NOPs in front keep the options at word boundaries, as RFC 7323 appendix A does for timestamps.
            put(&[NOP, WINDOW_SCALE, 3, shift]);
        }
        if self.sack_permitted {
            put(&[NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some((value, echo)) = self.timestamps {
            put(&[NOP, NOP, TIMESTAMPS, 10]);
            put(&value.to_be_bytes());
            put(&echo.to_be_bytes());
        }
        let used = put(&[]);
        // RFC 2018 section 3: four blocks fit alone, three beside timestamps.
        let blocks = self.sack.len().min((MAX_OPTIONS - used).saturating_sub(4) / 8);
        if blocks > 0 {
            put(&[NOP, NOP, SACK, 2 + 8 * blocks as u8]);
            for (start, end) in self.sack.iter().take(blocks) {
                put(&start.to_be_bytes());
                put(&end.to_be_bytes());
            }
        }
        put(&[])
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some((1, u32::MAX)),
            ..Options::default()
        };
        let mut buf = [0; MAX_OPTIONS];
        let len = options.write(&mut buf);
        assert_eq!(len, 24);
        assert_eq!(Options::parse(&buf[..len]), options);

        options = Options { timestamps: Some((3, 4)), ..Options::default() };
        for start in 0..5 {
            options.sack.push((start, start + 1));
        }
        assert_eq!(options.sack.len(), 4);
        let len = options.write(&mut buf);
        assert_eq!((len, Options::parse(&buf[..len]).sack.len()), (40, 3), "beside timestamps three fit");
    }

    #[test]
    fn odd_options_are_survived() {
        assert_eq!(Options::parse(&[MSS, 4, 5]), Options::default());
        assert_eq!(Options::parse(&[MSS]), Options::default());
        assert_eq!(Options::parse(&[99, 0, MSS, 4, 5, 6]), Options::default());
        assert_eq!(Options::parse(&[99, 3, 1, MSS, 4, 5, 6]).mss, Some(0x0506));
        assert_eq!(Options::parse(&[NOP, END, MSS, 4, 5, 6]).mss, None);
        assert_eq!(Options::parse(&[WINDOW_SCALE, 3, 200]).window_scale, Some(14));
        assert!(Options::parse(&[SACK, 9, 0, 0, 0, 0, 0, 0, 0]).sack.is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..=40)) {
            let options = Options::parse(&bytes);
            let mut buf = [0; MAX_OPTIONS];
            let len = options.write(&mut buf);
            prop_assert!(len.is_multiple_of(4));
        }
    }
}
