//! Flows in the order of an event, until they end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use crate::{Flow, sync};

/// Number of entries below which entries of ended flows are never removed.
const MIN_SWEPT_ENTRIES: usize = 64;

/// A queue of flows that keeps no flow alive. It has at most [`MIN_SWEPT_ENTRIES`] entries, or twice the
/// number of its living flows.
///
/// Lock order: a flow's lock may be held when this lock is taken, but not the reverse.
pub(crate) struct FlowList(Mutex<Entries>);

struct Entries {
    flows: VecDeque<Weak<Flow>>,
    /// Number of entries at which ended flows are removed.
    most: usize,
}

impl FlowList {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Entries { flows: VecDeque::new(), most: MIN_SWEPT_ENTRIES }))
    }

    /// Appends a flow.
    pub(crate) fn push(&self, flow: Weak<Flow>) {
        let mut entries = sync::lock(&self.0);
        // Doubling the limit makes the sweep cheap per insertion.
        if entries.flows.len() >= entries.most {
            entries.flows.retain(|flow| flow.strong_count() > 0);
            entries.most = MIN_SWEPT_ENTRIES.max(2 * entries.flows.len());
        }
        entries.flows.push_back(flow);
    }

    /// Takes out the first `limit` entries. The caller gives back the flows that must stay.
    pub(crate) fn take(&self, limit: usize) -> Vec<Arc<Flow>> {
        let mut entries = sync::lock(&self.0);
        let count = limit.min(entries.flows.len());
        entries.flows.drain(..count).filter_map(|flow| flow.upgrade()).collect()
    }

    /// Puts flows back at the front, in their order.
    pub(crate) fn give_back(&self, flows: &[Arc<Flow>]) {
        let mut entries = sync::lock(&self.0);
        // In reverse, because each goes before the others.
        flows.iter().rev().for_each(|flow| entries.flows.push_front(Arc::downgrade(flow)));
    }

    pub(crate) fn clear(&self) {
        sync::lock(&self.0).flows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TcpOptions;
    use crate::testing::stack;

    #[test]
    fn flows_that_are_gone_do_not_stay() {
        let (stack, net, now) = stack();
        let to = "10.0.0.2:80".parse().unwrap();
        let connect = || stack.tcp_connect(now, net, None, to, TcpOptions::default()).unwrap();
        let kept: Vec<_> = (0..10).map(|_| connect()).collect();
        let list = FlowList::new();
        kept.iter().for_each(|flow| list.push(Arc::downgrade(flow)));
        for _ in 0..1000 {
            let flow = connect();
            list.push(Arc::downgrade(&flow));
            flow.close(now);
        }
        assert!(sync::lock(&list.0).flows.len() <= MIN_SWEPT_ENTRIES + 2 * kept.len());
        let first = list.take(4);
        assert!(first.iter().zip(&kept).all(|(one, other)| Arc::ptr_eq(one, other)));
        assert_eq!((first.len(), list.take(usize::MAX).len()), (4, 6));
    }
}
