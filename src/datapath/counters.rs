//! Counters of what the data path drops between the cores, and of how often it asks control.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

/// Packets that were dropped between the overlay and the stack, and how often the control lock was taken.
#[derive(Debug, Default)]
pub struct DatapathCounters {
    pub(super) source_not_owned: Counter,
    pub(super) malformed_inner: Counter,
    pub(super) no_network: Counter,
    pub(super) congested: Counter,
    pub(super) no_route: Counter,
    pub(super) unreachable: Counter,
    pub(super) too_big: Counter,
    pub(super) waiting_dropped: Counter,
    pub(super) group_peers_skipped: Counter,
    pub(super) group_peers_left: Counter,
    pub(super) control_locked: Counter,
}

impl DatapathCounters {
    /// Names and values, in a fixed order.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let DatapathCounters {
            source_not_owned,
            malformed_inner,
            no_network,
            congested,
            no_route,
            unreachable,
            too_big,
            waiting_dropped,
            group_peers_skipped,
            group_peers_left,
            control_locked,
        } = self;
        [
            ("inner_source_not_owned", source_not_owned),
            ("inner_malformed", malformed_inner),
            ("inner_no_network", no_network),
            ("inner_congested", congested),
            ("out_no_route", no_route),
            ("out_unreachable", unreachable),
            ("out_too_big", too_big),
            ("out_waiting_dropped", waiting_dropped),
            ("out_group_peers_skipped", group_peers_skipped),
            ("out_group_peers_left", group_peers_left),
            ("control_locked", control_locked),
        ]
        .map(|(name, counter)| (name, counter.0.load(Ordering::Relaxed)))
        .to_vec()
    }
}
