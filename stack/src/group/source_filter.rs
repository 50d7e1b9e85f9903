//! Which senders a member of a group listens to (RFC 3376 3.1, RFC 3678).

use std::net::IpAddr;

use crate::Error;

/// Most senders that one filter names, as Linux: `igmp_max_msf` and `mld_max_msf`.
const MOST_V4: usize = 10;
const MOST_V6: usize = 64;

/// A change of one sender.
///
/// ```
/// use peersock_stack::{SourceChange, SourceFilter};
///
/// let mut filter = SourceFilter::default();
/// filter.change(SourceChange::Block, "10.0.0.9".parse()?)?;
/// assert!(!filter.passes("10.0.0.9".parse()?) && filter.passes("10.0.0.1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceChange {
    /// What it sends is received: IP_ADD_SOURCE_MEMBERSHIP, MCAST_JOIN_SOURCE_GROUP.
    Join,
    /// No longer: IP_DROP_SOURCE_MEMBERSHIP, MCAST_LEAVE_SOURCE_GROUP.
    Leave,
    /// What it sends is not received, unlike what others do: IP_BLOCK_SOURCE, MCAST_BLOCK_SOURCE.
    Block,
    /// It is again: IP_UNBLOCK_SOURCE, MCAST_UNBLOCK_SOURCE.
    Unblock,
}

/// Which senders a member of a group listens to: all but some, which is the default, or only some.
///
/// ```
/// use peersock_stack::{SourceChange, SourceFilter};
///
/// let mut filter = SourceFilter::none();
/// assert!(!filter.passes("fd00::1".parse()?));
/// filter.change(SourceChange::Join, "fd00::1".parse()?)?;
/// assert!(filter.passes("fd00::1".parse()?) && !filter.passes("fd00::2".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceFilter {
    /// Only those that are named pass, not only those that are not.
    includes: bool,
    sources: Vec<IpAddr>,
}

impl SourceFilter {
    /// One that nobody passes until a sender is joined.
    pub fn none() -> Self {
        Self { includes: true, sources: Vec::new() }
    }

    /// Whether what `source` sends is received.
    pub fn passes(&self, source: IpAddr) -> bool {
        self.sources.contains(&source) == self.includes
    }

    /// Whether nobody passes: then it is no membership.
    pub fn is_none(&self) -> bool {
        self.includes && self.sources.is_empty()
    }

    /// Changes it for one sender. A filter that names nobody becomes one of the other kind if need be, as in
    /// Linux.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if it is of the other kind and names somebody, [`Error::AddrNotAvailable`] if
    /// the sender is named already, or is to be taken out and not named, [`Error::OutOfMemory`] beyond 10
    /// IPv4 senders or 64 IPv6 ones.
    pub fn change(&mut self, change: SourceChange, source: IpAddr) -> Result<(), Error> {
        let (includes, adds) = match change {
            SourceChange::Join => (true, true),
            SourceChange::Leave => (true, false),
            SourceChange::Block => (false, true),
            SourceChange::Unblock => (false, false),
        };
        if includes != self.includes && !self.sources.is_empty() {
            return Err(Error::InvalidInput);
        }
        let at = self.sources.iter().position(|known| *known == source);
        match (at, adds) {
            (None, true) => {
                let most = if source.is_ipv4() { MOST_V4 } else { MOST_V6 };
                if self.sources.len() == most {
                    return Err(Error::OutOfMemory);
                }
                self.includes = includes;
                self.sources.push(source);
            }
            (Some(at), false) => drop(self.sources.swap_remove(at)),
            (Some(_), true) | (None, false) => return Err(Error::AddrNotAvailable),
        }
        Ok(())
    }
}

/// What a socket wants of a group.
///
/// ```
/// use peersock_stack::{Error, GroupChange, SourceFilter};
///
/// let member = GroupChange::Join(SourceFilter::default()).apply(None)?;
/// assert_eq!(member, Some(SourceFilter::default()));
/// assert_eq!(GroupChange::Leave.apply(member), Ok(None));
/// assert_eq!(GroupChange::Leave.apply(None), Err(Error::AddrNotAvailable));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupChange {
    /// To receive what comes from those who pass.
    Join(SourceFilter),
    /// To receive nothing more.
    Leave,
    /// To listen to one sender more or less. Who joins the first one joins the group, and who listens to
    /// nobody any more has left it (RFC 3376 3.1).
    Source(SourceChange, IpAddr),
}

impl GroupChange {
    /// What becomes of a membership. `None` is none.
    ///
    /// # Errors
    /// [`Error::AddrInUse`] for joining as a member, [`Error::AddrNotAvailable`] for leaving as none,
    /// [`Error::InvalidInput`] for other changes of who is none, and those of [`SourceFilter::change`].
    pub fn apply(self, member: Option<SourceFilter>) -> Result<Option<SourceFilter>, Error> {
        let (change, source, mut filter) = match (self, member) {
            (Self::Join(_), Some(_)) => return Err(Error::AddrInUse),
            (Self::Join(filter), None) => return Ok(Some(filter)),
            (Self::Leave, Some(_)) => return Ok(None),
            (Self::Leave, None) => return Err(Error::AddrNotAvailable),
            (Self::Source(change, source), Some(filter)) => (change, source, filter),
            (Self::Source(SourceChange::Join, source), None) => {
                (SourceChange::Join, source, SourceFilter::none())
            }
            (Self::Source(..), None) => return Err(Error::InvalidInput),
        };
        filter.change(change, source)?;
        Ok((!filter.is_none()).then_some(filter))
    }
}

#[cfg(test)]
mod tests {
    use super::SourceChange::{Block, Join, Leave, Unblock};
    use super::*;

    fn source(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    #[test]
    fn a_filter_names_those_who_pass_or_those_who_do_not() {
        let mut filter = SourceFilter::default();
        assert!(filter.passes(source(1)));
        filter.change(Block, source(1)).unwrap();
        assert!(!filter.passes(source(1)) && filter.passes(source(2)));
        assert_eq!(filter.change(Block, source(1)), Err(Error::AddrNotAvailable));
        assert_eq!(filter.change(Join, source(2)), Err(Error::InvalidInput));
        assert_eq!(filter.change(Unblock, source(2)), Err(Error::AddrNotAvailable));
        filter.change(Unblock, source(1)).unwrap();
        // It names nobody: then it may become one of the other kind.
        filter.change(Join, source(2)).unwrap();
        assert!(filter.passes(source(2)) && !filter.passes(source(1)));
        assert_eq!(filter.change(Block, source(1)), Err(Error::InvalidInput));
        filter.change(Leave, source(2)).unwrap();
        assert!(filter.is_none() && !filter.passes(source(2)));
        assert_eq!(filter.change(Leave, source(2)), Err(Error::AddrNotAvailable));
    }

    #[test]
    fn a_filter_names_no_more_than_linux_s() {
        let mut filter = SourceFilter::none();
        (1..=10).for_each(|host| filter.change(Join, source(host)).unwrap());
        assert_eq!(filter.change(Join, source(11)), Err(Error::OutOfMemory));
        filter.change(Leave, source(1)).unwrap();
        assert_eq!(filter.change(Join, source(11)), Ok(()));
    }
}
