//! Multicast groups: memberships of sockets (`membership`), source filters (`source_filter`), and reports for
//! other hosts (`report`).

pub(crate) mod membership;
pub(crate) mod report;
pub(crate) mod source_filter;
