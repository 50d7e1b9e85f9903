//! IPv4 options (RFC 791 3.1): skipped, except source routes.

/// Reason to drop a packet because of its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionError {
    /// Loose or strict source route, which would let packets bypass filters on their real source (RFC 7126
    /// 4.3, 4.4).
    SourceRoute,
    /// Length of an option does not fit; the offset of that byte in the header.
    Malformed(usize),
}

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// Checks the options of an IPv4 header, which is the whole of `header`.
pub(crate) fn check(header: &[u8]) -> Result<(), OptionError> {
    let mut at = 20;
    while let Some(&kind) = header.get(at) {
        match kind {
            END => break,
            NO_OPERATION => at += 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(OptionError::SourceRoute),
            _ => {
                let len = header.get(at + 1).map_or(0, |&len| usize::from(len));
                // A length byte may be missing, so the pointer is kept within the header.
                if len < 2 || at + len > header.len() {
                    return Err(OptionError::Malformed((at + 1).min(header.len() - 1)));
                }
                // Unknown options are skipped (RFC 1122 3.2.1.8).
                at += len;
            }
        }
    }
    Ok(())
}

/// Returns the options of an IPv4 header, which is the whole of `header`, without padding. They end at the
/// first option with an invalid length.
pub(crate) fn each(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = header.get(20..).unwrap_or_default();
    std::iter::from_fn(move || {
        while let Some((&NO_OPERATION, rest)) = left.split_first() {
            left = rest;
        }
        let len = left.get(1).map_or(0, |&len| usize::from(len));
        if left.first() == Some(&END) || len < 2 {
            return None;
        }
        let (option, rest) = left.split_at_checked(len)?;
        left = rest;
        Some(option)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_skipped_and_source_routes_are_not() {
        use OptionError::*;
        for (options, expected) in [
            (&[][..], Ok(())),
            (&[1, 1, 0, 131], Ok(())),
            (&[148, 4, 0, 0], Ok(())),
            (&[1, 131, 3, 4], Err(SourceRoute)),
            (&[148, 4, 0, 0, 137, 3, 4, 0], Err(SourceRoute)),
            (&[7, 1, 0, 0], Err(Malformed(21))),
            (&[1, 7, 9, 0], Err(Malformed(22))),
            (&[1, 1, 1, 7], Err(Malformed(23))),
        ] {
            assert_eq!(check(&[&[0; 20], options].concat()), expected, "{options:?}");
        }
    }
}
