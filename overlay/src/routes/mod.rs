//! Who has which overlay address: what the data path asks about every packet that it sends.
//!
//! Control publishes here whenever a peer comes, goes or gets other addresses; readers never wait for
//! control. The table is split into parts by address, each behind a lock of its own that readers share, so
//! that threads which send to different peers do not meet. The longest matching prefix decides. How long
//! prefixes are is kept in a few atomic words: while all entries are single addresses, which is the common
//! case, a look-up is one probe of one part.
//!
//! A reader that keeps an answer notes the [generation](Routes::generation) *before* it asks. The answer
//! holds as long as the generation is the same, and that is one atomic load to see. Writers change the table
//! first and the generation last, so an answer that was read in between is asked for once more, and none
//! outlives the change.

mod lengths;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::network::{NetworkIndex, Prefix};
use crate::session::Peer;

// Relative, so that the tests can mount this module over locks whose interleavings they choose.
use super::sync::{self, AtomicU64, Ordering, RwLock};
use lengths::Lengths;

/// Where packets to an address go.
#[derive(Debug, Clone)]
pub enum Route {
    /// The address is this node's own.
    Local,
    /// It belongs to a peer, or to what is behind it.
    Peer(Arc<Peer>),
}

type Part = RwLock<BTreeMap<(NetworkIndex, Prefix), Route>>;

/// The addresses of all joined networks, by network and prefix. Shared by control, which writes it, and the
/// data path.
///
/// It holds one entry for each prefix of a peer, and so is bounded as the peers are.
pub struct Routes {
    parts: [Part; PARTS],
    lengths: Lengths,
    generation: AtomicU64,
}

impl Routes {
    /// An empty table.
    pub(crate) fn new() -> Self {
        Self {
            parts: std::array::from_fn(|_| RwLock::new(BTreeMap::new())),
            lengths: Lengths::new(),
            generation: AtomicU64::new(0),
        }
    }

    /// Who has `address` in a network: the owner of the longest prefix that contains it. `None` if nobody is
    /// known to.
    pub fn get(&self, network: NetworkIndex, address: IpAddr) -> Option<Route> {
        let shorter = |length| self.exact(network, Prefix::new(address, length)?);
        let whole = self.exact(network, address.into());
        whole.or_else(|| self.lengths.in_use(address).find_map(shorter))
    }

    /// How often the table has changed. An answer that was asked for after this is good until it changes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| sync::read(part).len()).sum()
    }

    /// Whether nobody has an address.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The owner of exactly that prefix.
    pub(crate) fn exact(&self, network: NetworkIndex, prefix: Prefix) -> Option<Route> {
        sync::read(self.part(network, &prefix)).get(&(network, prefix)).cloned()
    }

    /// Gives prefixes to an owner.
    pub(crate) fn publish(&self, network: NetworkIndex, prefixes: &[Prefix], route: &Route) {
        for prefix in prefixes {
            // The length first: who finds no such length does not look for the entry.
            self.lengths.add(prefix);
            if sync::write(self.part(network, prefix)).insert((network, *prefix), route.clone()).is_some() {
                self.lengths.remove(prefix);
            }
        }
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes prefixes from whoever has them.
    pub(crate) fn withdraw(&self, network: NetworkIndex, prefixes: &[Prefix]) {
        for prefix in prefixes {
            if sync::write(self.part(network, prefix)).remove(&(network, *prefix)).is_some() {
                self.lengths.remove(prefix);
            }
        }
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Peers choose the bits of their addresses: who makes many that fall into one part has it shared by
    /// those only.
    fn part(&self, network: NetworkIndex, prefix: &Prefix) -> &Part {
        let bits = match prefix.address() {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let folded = (bits ^ bits >> 64) as u64 ^ u64::from(network.0);
        // The high bits of a product depend on all bits of its factor (Fibonacci hashing).
        let spread = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.parts[(spread >> (u64::BITS - PARTS.ilog2())) as usize]
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routes").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Parts of the table: more than the threads of a node that send at the same time.
const PARTS: usize = 16;
