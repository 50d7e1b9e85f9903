//! Source filters of group members (RFC 3376 3.1, RFC 3678).

use std::net::IpAddr;

use crate::Error;

/// Maximum number of sources in one filter, as Linux: `igmp_max_msf` and `mld_max_msf`.
const MAX_SOURCES_V4: usize = 10;
const MAX_SOURCES_V6: usize = 64;

/// Change of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceChange {
    /// Receive from the source: IP_ADD_SOURCE_MEMBERSHIP, MCAST_JOIN_SOURCE_GROUP.
    Join,
    /// Undo a join: IP_DROP_SOURCE_MEMBERSHIP, MCAST_LEAVE_SOURCE_GROUP.
    Leave,
    /// Receive from all but the source: IP_BLOCK_SOURCE, MCAST_BLOCK_SOURCE.
    Block,
    /// Undo a block: IP_UNBLOCK_SOURCE, MCAST_UNBLOCK_SOURCE.
    Unblock,
}

/// Set of sources from which a group member receives: all but some, which is the default, or only some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceFilter {
    /// True if only listed sources pass; false if only unlisted ones do.
    includes: bool,
    sources: Vec<IpAddr>,
}

impl SourceFilter {
    /// Returns a filter that blocks every source until one is joined.
    pub fn none() -> Self {
        Self { includes: true, sources: Vec::new() }
    }

    /// Returns true if datagrams of `source` are received.
    pub fn passes(&self, source: IpAddr) -> bool {
        self.sources.contains(&source) == self.includes
    }

    /// Returns true if no source passes, which means no membership.
    pub fn is_none(&self) -> bool {
        self.includes && self.sources.is_empty()
    }

    /// Changes one source. A filter with an empty list can change its kind, as in Linux.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if the filter is of the other kind and not empty, [`Error::AddrNotAvailable`]
    /// if the source is already listed, or is removed without being listed, [`Error::OutOfMemory`] beyond 10
    /// IPv4 sources or 64 IPv6 sources.
    pub fn change(&mut self, change: SourceChange, source: IpAddr) -> Result<(), Error> {
        let (includes, adds) = match change {
            SourceChange::Join => (true, true),
            SourceChange::Leave => (true, false),
            SourceChange::Block => (false, true),
            SourceChange::Unblock => (false, false),
        };
        // RFC 3678 section 4: a filter is either a list of wanted sources or one of blocked ones.
        if includes != self.includes && !self.sources.is_empty() {
            return Err(Error::InvalidInput);
        }
        let at = self.sources.iter().position(|known| *known == source);
        match (at, adds) {
            (None, true) => {
                let most = if source.is_ipv4() { MAX_SOURCES_V4 } else { MAX_SOURCES_V6 };
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

/// Change of a socket's membership in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupChange {
    /// Join the group and receive from sources that pass.
    Join(SourceFilter),
    /// Leave the group.
    Leave,
    /// Change one source. Joining a first source joins the group, and removing the last one leaves it (RFC
    /// 3376 3.1).
    Source(SourceChange, IpAddr),
}

impl GroupChange {
    /// Returns the changed membership; `None` means no membership.
    ///
    /// # Errors
    /// [`Error::AddrInUse`] for a join by a member, [`Error::AddrNotAvailable`] for a leave by a non-member,
    /// [`Error::InvalidInput`] for other changes by a non-member, and the errors of [`SourceFilter::change`].
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
        // On a copy, so that an error leaves the membership as it was.
        filter.change(change, source)?;
        // RFC 3678 section 4: removing the last wanted source leaves the group.
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
        // The list is empty, so the kind may change.
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
