//! Owners of overlay addresses, which the data path looks up for every packet that it sends.
//!
//! Control publishes here whenever a peer appears, disappears or changes its addresses; readers never wait
//! for control. The table is split by address into parts with separate locks that readers share, so that
//! threads sending to different peers do not contend. The longest matching prefix decides. The prefix lengths
//! in use are in a few atomic words. While all entries are single addresses, the common case, a look-up is
//! one probe of one part.
//!
//! A reader that keeps an answer records the [generation](Routes::generation) *before* it asks. The answer is
//! valid while the generation is unchanged, which is one atomic load to check. Writers change the table first
//! and the generation last. So an answer read in between is only asked for once more, and none outlives the
//! change.

mod lengths;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::network::{NetworkIndex, Prefix};
use crate::session::Peer;

// Relative path, so that the tests can mount this module over locks whose interleavings they choose.
use super::sync::{self, AtomicU64, Ordering, RwLock};
use lengths::Lengths;

/// Destination of packets to an address.
#[derive(Debug, Clone)]
pub enum Route {
    /// The address is this node's own.
    Local,
    /// The address belongs to a peer, or to a block behind it.
    Peer(Arc<Peer>),
}

type Part = RwLock<BTreeMap<(NetworkIndex, Prefix), Route>>;

/// The addresses of all joined networks, by network and prefix. Control writes it, and the data path reads
/// it.
///
/// It holds one entry for each prefix of a peer, so its size is bounded by the peers'.
pub struct Routes {
    parts: [Part; PARTS],
    lengths: Lengths,
    generation: AtomicU64,
}

impl Routes {
    /// Creates an empty table.
    pub(crate) fn new() -> Self {
        Self {
            parts: std::array::from_fn(|_| RwLock::new(BTreeMap::new())),
            lengths: Lengths::new(),
            generation: AtomicU64::new(0),
        }
    }

    /// Returns the owner of `address` in a network, by the longest prefix that contains it. `None` if no
    /// owner is known.
    pub fn get(&self, network: NetworkIndex, address: IpAddr) -> Option<Route> {
        let shorter = |length| self.exact(network, Prefix::new(address, length)?);
        // First, because nearly all routes are single addresses.
        let whole = self.exact(network, address.into());
        whole.or_else(|| self.lengths.in_use(address).find_map(shorter))
    }

    /// Returns the number of changes of the table. An answer asked for after this call is valid until the
    /// number changes.
    pub fn generation(&self) -> u64 {
        // In one order with the changes, or a reader could keep an older route under a newer number.
        self.generation.load(Ordering::SeqCst)
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| sync::read(part).len()).sum()
    }

    /// Returns true if the table has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the owner of exactly this prefix.
    pub(crate) fn exact(&self, network: NetworkIndex, prefix: Prefix) -> Option<Route> {
        sync::read(self.part(network, &prefix)).get(&(network, prefix)).cloned()
    }

    /// Assigns prefixes to an owner.
    pub(crate) fn publish(&self, network: NetworkIndex, prefixes: &[Prefix], route: &Route) {
        for prefix in prefixes {
            // The length is added first, because a reader that does not find the length does not probe for
            // the entry.
            self.lengths.add(prefix);
            if sync::write(self.part(network, prefix)).insert((network, *prefix), route.clone()).is_some() {
                self.lengths.remove(prefix);
            }
        }
        // Last, so that no reader keeps an older answer under the new number.
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Removes prefixes from their owners.
    pub(crate) fn withdraw(&self, network: NetworkIndex, prefixes: &[Prefix]) {
        for prefix in prefixes {
            if sync::write(self.part(network, prefix)).remove(&(network, *prefix)).is_some() {
                self.lengths.remove(prefix);
            }
        }
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the part for a prefix. Peers choose the bits of their addresses, but addresses made to fall
    /// into one part only slow down that part.
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

/// Number of parts: more than the threads of a node that send at the same time.
const PARTS: usize = 16;
