//! Replacement of `dns` in builds without that feature: no nameserver is asked. A list in the DNS was already
//! refused earlier.

use std::io;
use std::time::Duration;

use crate::config::{Feature, RootAddress, RootDomain};

/// Roots that a domain lists.
pub(super) struct Listed {
    pub(super) roots: Vec<RootAddress>,
    pub(super) ttl: Duration,
}

/// Fails in any case.
pub(super) fn look_up(domain: &RootDomain, _: Duration) -> io::Result<Listed> {
    Err(Feature::Dns.missing(format_args!("the list of roots dns:{domain}")).into())
}
