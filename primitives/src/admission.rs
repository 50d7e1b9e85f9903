//! Admission of connections to a server's places, when strangers open more than the server has.
//!
//! ```text
//! accept(2) ──> a place left? ──no──> of the source with most unproven ones the oldest makes room ──> unproven
//!                  │yes                                │there is none: refused                          │
//!                  └──────────────────────────────────────────────────────────────────────────> unproven
//!                                                                       token, password, session ──> proven
//! ```
//!
//! A connection is *unproven* until its client has shown that it may use the server. An unproven one may lose
//! its place to a new connection; a proven one never does. So a flood of silent connections evicts its own,
//! and a client that proves itself at once is served, however large the flood.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::hash::Hash;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::{self, AtomicBool, Mutex, Ordering};

/// Limits on places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Limit for all connections together.
    pub all: usize,
    /// Limit for connections that have a source; the rest is reserved for connections without one.
    pub of_sources: usize,
    /// Limit for connections of one source.
    pub of_one: usize,
    /// Limit for unproven connections.
    pub unproven: usize,
}

/// Refusal: no place is left and no connection can be evicted, because all are proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Limit of all places.
    All,
    /// Limit of connections with a source.
    Sources,
    /// Limit of this source.
    Source,
}

/// Places of a server, and their holders. Sources are of type `K`: one client's address or prefix, or a
/// member. A connection without a source comes from this machine, where all clients look alike.
///
/// ```
/// use peersock_primitives::admission::{Admission, Places};
///
/// let places = Places { all: 2, of_sources: 2, of_one: 2, unproven: 2 };
/// let admission: Admission<u32> = Admission::new(places);
/// let silent = admission.admit(Some(1)).expect("a place");
/// let user = admission.admit(Some(2)).expect("a place");
/// assert!(user.standing().prove());
/// let new = admission.admit(Some(3)).expect("the silent one makes room");
/// assert!(silent.standing().is_evicted() && new.standing().prove());
/// assert!(admission.admit(Some(4)).is_err(), "all have shown who they are");
/// ```
#[derive(Debug)]
pub struct Admission<K: Eq + Hash + Copy>(Arc<Shared<K>>);

#[derive(Debug)]
struct Shared<K> {
    places: Places,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    of_sources: usize,
    sources: HashMap<Option<K>, Count>,
    /// Unproven connections by age.
    unproven: BTreeMap<u64, (Option<K>, Arc<Eviction>)>,
    next: u64,
}

#[derive(Debug, Default)]
struct Count {
    all: usize,
    unproven: usize,
}

/// Signal to a connection that it has lost its place.
#[derive(Debug, Default)]
struct Eviction {
    has_come: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// Place of one connection, until the permit is dropped.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash + Copy>(Standing<K>);

/// Standing of a connection's place.
#[derive(Debug)]
pub struct Standing<K: Eq + Hash + Copy> {
    shared: Arc<Shared<K>>,
    number: u64,
    source: Option<K>,
    eviction: Arc<Eviction>,
}

impl<K: Eq + Hash + Copy> Admission<K> {
    /// Returns an admission with these limits and no place taken.
    pub fn new(places: Places) -> Self {
        let (sources, unproven) = (HashMap::new(), BTreeMap::new());
        let taken = Taken { all: 0, of_sources: 0, sources, unproven, next: 0 };
        Self(Arc::new(Shared { places, taken: Mutex::new(taken) }))
    }

    /// Takes a place for an unproven connection; other unproven ones may lose theirs for that.
    /// Fails with the limit that proven connections have used up.
    pub fn admit(&self, source: Option<K>) -> Result<Permit<K>, Full> {
        let Places { all, of_sources, of_one, unproven } = self.0.places;
        let mut evicted = Vec::new();
        let mut taken = sync::lock(&self.0.taken);
        let admitted = loop {
            let own = taken.sources.get(&source).map_or(0, |count| count.all);
            // The narrowest limit decides first, so that a source at its limit evicts its own connection, not
            // another's.
            let victim = if source.is_some() && own >= of_one {
                taken.oldest(|of| *of == source).ok_or(Full::Source)
            } else if source.is_some() && taken.of_sources >= of_sources {
                taken.oldest_of_heaviest(source, Option::is_some).ok_or(Full::Sources)
            } else if taken.all >= all || taken.unproven.len() >= unproven {
                taken.oldest_of_heaviest(source, |_| true).ok_or(Full::All)
            } else {
                break Ok(taken.add(source));
            };
            match victim {
                Ok(number) => evicted.extend(taken.remove_unproven(number)),
                Err(full) => break Err(full),
            }
        };
        drop(taken);
        // Wakers run without the lock because they may call back.
        evicted.iter().for_each(|eviction| eviction.wake());
        let (number, eviction) = admitted?;
        Ok(Permit(Standing { shared: Arc::clone(&self.0), number, source, eviction }))
    }

    /// Returns the number of places that are taken.
    pub fn taken(&self) -> usize {
        sync::lock(&self.0.taken).all
    }

    /// Returns the number of places that unproven connections have taken.
    pub fn unproven(&self) -> usize {
        sync::lock(&self.0.taken).unproven.len()
    }
}

impl<K: Eq + Hash + Copy> Clone for Admission<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash + Copy> Taken<K> {
    fn add(&mut self, source: Option<K>) -> (u64, Arc<Eviction>) {
        self.all += 1;
        self.of_sources += usize::from(source.is_some());
        let count = self.sources.entry(source).or_default();
        count.all += 1;
        count.unproven += 1;
        let (number, eviction) = (self.next, Arc::<Eviction>::default());
        self.next += 1;
        self.unproven.insert(number, (source, Arc::clone(&eviction)));
        (number, eviction)
    }

    fn oldest(&self, is_meant: impl Fn(&Option<K>) -> bool) -> Option<u64> {
        self.unproven.iter().find(|(_, (source, _))| is_meant(source)).map(|(number, _)| *number)
    }

    /// Returns the oldest unproven connection of the source with the most of them, counting the one that
    /// `new` opens.
    fn oldest_of_heaviest(&self, new: Option<K>, is_meant: impl Fn(&Option<K>) -> bool) -> Option<u64> {
        let weights = self.sources.iter().filter(|(source, count)| count.unproven > 0 && is_meant(source));
        let heaviest = weights.map(|(source, count)| count.unproven + usize::from(*source == new)).max()?;
        self.oldest(|source| {
            let weight = self.sources.get(source).map_or(0, |count| count.unproven);
            is_meant(source) && weight + usize::from(*source == new) == heaviest
        })
    }

    /// Frees the place of an unproven connection.
    fn remove_unproven(&mut self, number: u64) -> Option<Arc<Eviction>> {
        let (source, eviction) = self.unproven.remove(&number)?;
        eviction.has_come.store(true, Ordering::SeqCst);
        self.count_less(source);
        self.free(source);
        Some(eviction)
    }

    /// Counts one unproven connection of a source less.
    fn count_less(&mut self, source: Option<K>) {
        if let Some(count) = self.sources.get_mut(&source) {
            count.unproven -= 1;
        }
    }

    fn free(&mut self, source: Option<K>) {
        self.all -= 1;
        self.of_sources -= usize::from(source.is_some());
        if let Some(count) = self.sources.get_mut(&source) {
            count.all -= 1;
            // Otherwise the map would grow with every source that ever connected.
            if count.all == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl Eviction {
    fn has_come(&self) -> bool {
        self.has_come.load(Ordering::SeqCst)
    }

    /// Wakes the waiting task or thread, after the eviction.
    fn wake(&self) {
        let waker = sync::lock(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<K: Eq + Hash + Copy> Permit<K> {
    /// Returns the standing of the place, which others than the holder may keep.
    pub fn standing(&self) -> &Standing<K> {
        &self.0
    }
}

impl<K: Eq + Hash + Copy> Drop for Permit<K> {
    fn drop(&mut self) {
        let Standing { shared, number, source, eviction } = &self.0;
        let mut taken = sync::lock(&shared.taken);
        // An evicted place was freed by its eviction; it must not be freed twice.
        if taken.remove_unproven(*number).is_none() && !eviction.has_come() {
            taken.free(*source);
        }
    }
}

impl<K: Eq + Hash + Copy> Standing<K> {
    /// Keeps the place from now on, because the client has shown that it may use the server. Returns true if
    /// the place was not lost before.
    pub fn prove(&self) -> bool {
        let mut taken = sync::lock(&self.shared.taken);
        if taken.unproven.remove(&self.number).is_some() {
            taken.count_less(self.source);
        }
        !self.eviction.has_come()
    }

    /// Returns true if its client has shown that it may use the server.
    pub fn is_proven(&self) -> bool {
        let taken = sync::lock(&self.shared.taken);
        !taken.unproven.contains_key(&self.number) && !self.eviction.has_come()
    }

    /// Returns true if the connection has lost its place.
    pub fn is_evicted(&self) -> bool {
        self.eviction.has_come()
    }

    /// Waits until the connection has lost its place: it must be closed then. Only one task or thread may
    /// wait.
    pub fn evicted(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|cx| self.poll_evicted(cx))
    }

    fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        // The waker is stored before the check, because an eviction after the check must wake it.
        *sync::lock(&self.eviction.waker) = Some(cx.waker().clone());
        if self.eviction.has_come() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Calls `close` when the connection loses its place, on the thread that evicts it, or at once if it is
    /// lost already. For connections that a thread serves.
    pub fn when_evicted(&self, close: impl Fn() + Send + Sync + 'static) {
        struct Call<F>(F);
        impl<F: Fn() + Send + Sync> Wake for Call<F> {
            fn wake(self: Arc<Self>) {
                (self.0)();
            }
        }
        let waker = Waker::from(Arc::new(Call(close)));
        if self.poll_evicted(&mut Context::from_waker(&waker)).is_ready() {
            waker.wake();
        }
    }
}

impl<K: Eq + Hash + Copy> Clone for Standing<K> {
    fn clone(&self) -> Self {
        let (shared, eviction) = (Arc::clone(&self.shared), Arc::clone(&self.eviction));
        Self { shared, number: self.number, source: self.source, eviction }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    type Held = Vec<Permit<u32>>;

    fn admission(all: usize, of_sources: usize, of_one: usize, unproven: usize) -> Admission<u32> {
        Admission::new(Places { all, of_sources, of_one, unproven })
    }

    fn evicted(held: &Held) -> Vec<bool> {
        held.iter().map(|permit| permit.standing().is_evicted()).collect()
    }

    #[test]
    fn who_opens_many_pushes_out_his_own() {
        let admission = admission(6, 6, 6, 6);
        let slow = admission.admit(Some(1)).expect("a place");
        let mut flood: Held = (0..5).map(|_| admission.admit(Some(2)).expect("a place")).collect();
        for turn in 0..100 {
            flood.push(admission.admit(Some(2)).expect("the oldest of its own makes room"));
            assert_eq!(evicted(&flood).iter().filter(|gone| **gone).count(), turn + 1);
            assert!(flood[turn].standing().is_evicted(), "the oldest first");
        }
        assert!(!slow.standing().is_evicted() && slow.standing().prove());
        assert_eq!((admission.taken(), admission.unproven()), (6, 5));
        // The oldest connections do not lose to a source that has more, however many sources the client has.
        let others: Held = (3..6).map(|source| admission.admit(Some(source)).expect("a place")).collect();
        assert_eq!(evicted(&others), [false; 3]);
        drop((slow, flood, others));
        assert_eq!(admission.taken(), 0);
        assert!(sync::lock(&admission.0.taken).sources.is_empty());
    }

    #[test]
    fn clients_without_a_source_push_out_the_oldest_of_them() {
        let admission = admission(4, 3, 2, 4);
        let silent: Held = (0..4).map(|_| admission.admit(None).expect("a place")).collect();
        let user = admission.admit(None).expect("a place");
        assert_eq!(evicted(&silent), [true, false, false, false]);
        assert!(user.standing().prove());
        let more: Held = (0..9).map(|_| admission.admit(None).expect("a place")).collect();
        assert!(!user.standing().is_evicted());
        assert_eq!(evicted(&silent), [true; 4]);
        assert_eq!(evicted(&more).iter().filter(|gone| **gone).count(), 6);
    }

    #[test]
    fn who_is_proven_keeps_the_place_and_each_bound_holds() {
        let admission = admission(4, 3, 2, 4);
        let prove = |source| {
            let permit = admission.admit(source)?;
            assert!(permit.standing().prove() && permit.standing().is_proven());
            Ok::<_, Full>(permit)
        };
        let first = [prove(Some(1)).expect("a place"), prove(Some(1)).expect("a place")];
        assert_eq!(prove(Some(1)).err(), Some(Full::Source));
        let other = prove(Some(2)).expect("a place");
        assert_eq!(prove(Some(3)).err(), Some(Full::Sources));
        let local = prove(None).expect("a place");
        assert_eq!(prove(None).err(), Some(Full::All));
        drop(first);
        let silent = [admission.admit(Some(1)).expect("a place"), admission.admit(None).expect("a place")];
        let _third = admission.admit(Some(3)).expect("a place");
        assert!(silent[0].standing().is_evicted(), "places of sources are taken from a source");
        assert!(!silent[0].standing().prove(), "it has come too late");
        assert!(![&other, &local].iter().any(|permit| permit.standing().is_evicted()));
    }

    #[test]
    fn unproven_ones_have_a_bound_of_their_own() {
        let admission = admission(10, 10, 10, 2);
        let held: Held = (0..5).map(|source| admission.admit(Some(source)).expect("a place")).collect();
        assert_eq!(evicted(&held), [true, true, true, false, false]);
        assert_eq!(admission.taken(), 2);
    }

    #[test]
    fn who_waits_is_woken() {
        let admission = admission(1, 1, 1, 1);
        let count = Arc::new(AtomicUsize::new(0));
        let told = || {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let silent = admission.admit(Some(1)).expect("a place");
        silent.standing().when_evicted(told());
        assert_eq!(count.load(Ordering::SeqCst), 0);
        let _new = admission.admit(Some(2)).expect("a place");
        assert_eq!(count.load(Ordering::SeqCst), 1);
        silent.standing().when_evicted(told());
        assert_eq!(count.load(Ordering::SeqCst), 2, "it is lost already");
    }
}
