//! Multicast groups: which sockets have joined which (`membership`), whom they listen to there
//! (`source_filter`), and how that is said to others (`report`).

pub(crate) mod membership;
pub(crate) mod report;
pub(crate) mod source_filter;
