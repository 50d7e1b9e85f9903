//! The table itself, and random interleavings of its readers and writers.

use std::net::IpAddr;
use std::sync::Arc;

use crate::id::Identity;
use crate::network::{NetworkIndex, Prefix};
use crate::routes::{Route, Routes};
use crate::session::{Peer, Watched};
use crate::testing::instant;

/// The locks and atomics of `shuttle`, which decides at each of them which thread continues.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Mutex, RwLock};
    use shuttle::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no panic under this lock")
    }

    pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
        lock.read().expect("no panic under this lock")
    }

    pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
        lock.write().expect("no panic under this lock")
    }
}

/// The table over these locks.
#[allow(
    dead_code,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "it is compiled a second time, over the locks of the scheduler that tests, which need not all of it"
)]
#[path = "mod.rs"]
mod interleaved;

const NETWORK: NetworkIndex = NetworkIndex(3);

fn peer(seed: u8) -> Arc<Peer> {
    let id = "fe00000000000001".parse().expect("an ID");
    Arc::new(Peer::new(
        *Identity::from_seed(&[seed; 32]).public(),
        NETWORK,
        id,
        &[],
        Watched::default(),
        instant(),
    ))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn prefix(text: &str, length: u8) -> Prefix {
    Prefix::new(ip(text), length).expect("not longer than an address")
}

/// Returns true if the table sends an address to a peer.
fn leads_to(routes: &Routes, address: &str, to: &Arc<Peer>) -> bool {
    matches!(routes.get(NETWORK, ip(address)), Some(Route::Peer(peer)) if Arc::ptr_eq(&peer, to))
}

#[test]
fn the_longest_prefix_decides_in_both_families() {
    let routes = Routes::new();
    let [everything, block, host] = [1, 2, 3].map(peer);
    let publish = |prefix, peer: &Arc<Peer>| routes.publish(NETWORK, &[prefix], &Route::Peer(peer.clone()));
    for (all, some, one) in [("0.0.0.0", "10.1.0.0", "10.1.2.3"), ("::", "fd01::", "fd01::7")] {
        let (short, long) = if ip(all).is_ipv4() { (16, 32) } else { (64, 128) };
        publish(prefix(all, 0), &everything);
        publish(prefix(some, short), &block);
        publish(prefix(one, long), &host);
    }
    for (address, owner) in [
        ("192.0.2.1", &everything),
        ("10.1.2.4", &block),
        ("10.1.2.3", &host),
        ("2001:db8::1", &everything),
        ("fd01::8", &block),
        ("fd01::7", &host),
    ] {
        assert!(leads_to(&routes, address, owner), "{address}");
        assert!(routes.get(NetworkIndex(4), ip(address)).is_none(), "another network");
    }
    routes.withdraw(NETWORK, &[prefix("10.1.0.0", 16), prefix("fd01::7", 128)]);
    assert!(leads_to(&routes, "10.1.2.4", &everything) && leads_to(&routes, "fd01::7", &block));
    assert_eq!(routes.len(), 4);
}

#[test]
fn a_prefix_that_changes_hands_is_counted_once() {
    let routes = Routes::new();
    let [first, second] = [1, 2].map(peer);
    let block = prefix("10.0.0.0", 8);
    routes.publish(NETWORK, &[block], &Route::Peer(first));
    routes.publish(NETWORK, &[block], &Route::Peer(second.clone()));
    assert!(leads_to(&routes, "10.9.9.9", &second));
    routes.withdraw(NETWORK, &[block]);
    routes.withdraw(NETWORK, &[block]);
    assert!(routes.get(NETWORK, ip("10.9.9.9")).is_none() && routes.is_empty());
}

#[test]
fn an_answer_that_is_kept_never_outlives_the_change() {
    shuttle::check_random(
        || {
            let routes = Arc::new(interleaved::Routes::new());
            let [before, after] = [1, 2].map(peer);
            let route = |peer: &Arc<Peer>| interleaved::Route::Peer(peer.clone());
            let address = ip("10.0.0.1");
            routes.publish(NETWORK, &[address.into()], &route(&before));
            let changed = Arc::new(shuttle::sync::atomic::AtomicBool::new(false));

            let writer = {
                let (routes, changed, route) = (routes.clone(), changed.clone(), route(&after));
                shuttle::thread::spawn(move || {
                    routes.publish(NETWORK, &[address.into()], &route);
                    changed.store(true, shuttle::sync::atomic::Ordering::SeqCst);
                })
            };
            // The data path records the generation, asks, and keeps the answer.
            let generation = routes.generation();
            let kept = routes.get(NETWORK, address);
            // Later.
            let was_changed = changed.load(shuttle::sync::atomic::Ordering::SeqCst);
            let is_good = routes.generation() == generation;
            let is_new = matches!(kept, Some(interleaved::Route::Peer(peer)) if Arc::ptr_eq(&peer, &after));
            assert!(!was_changed || !is_good || is_new, "the old owner is used after the change");
            writer.join().expect("it does not panic");
        },
        2_000,
    );
}

#[test]
fn whoever_has_a_prefix_throughout_is_found_throughout() {
    shuttle::check_random(
        || {
            let routes = Arc::new(interleaved::Routes::new());
            let [owner, other] = [1, 2].map(peer);
            let route = |peer: &Arc<Peer>| interleaved::Route::Peer(peer.clone());
            let block = prefix("10.0.0.0", 8);
            routes.publish(NETWORK, &[block], &route(&owner));
            routes.publish(NETWORK, &[prefix("10.1.0.0", 16)], &route(&other));

            let writer = {
                let (routes, again, other) = (routes.clone(), route(&owner), route(&other));
                shuttle::thread::spawn(move || {
                    // The prefix has the same length, so that the count goes up and down beside the entry
                    // that stays.
                    routes.publish(NETWORK, &[prefix("11.0.0.0", 8)], &other);
                    routes.publish(NETWORK, &[block], &again);
                    routes.withdraw(NETWORK, &[prefix("11.0.0.0", 8), prefix("10.1.0.0", 16)]);
                })
            };
            for address in ["10.9.0.1", "10.1.0.1"] {
                assert!(routes.get(NETWORK, ip(address)).is_some(), "{address}");
            }
            writer.join().expect("it does not panic");
            let found = routes.get(NETWORK, ip("10.1.0.1"));
            assert!(matches!(found, Some(interleaved::Route::Peer(peer)) if Arc::ptr_eq(&peer, &owner)));
            assert!(routes.get(NETWORK, ip("11.0.0.1")).is_none());
        },
        2_000,
    );
}
