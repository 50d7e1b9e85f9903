use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// What one node has done and dropped since it started. Each counter only ever grows.
        ///
        /// ```
        /// use peersock_overlay::Counters;
        ///
        /// let counters = Counters::default();
        /// counters.data_replayed.increment();
        /// assert!(counters.snapshot().contains(&("data_replayed", 1)));
        /// ```
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])+ pub $name: Counter,)+
        }

        impl Counters {
            /// Every counter with its name, in the order of declaration.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }
        }
    };
}

counters! {
    /// Data packets dropped because they were too short or of another session.
    data_malformed,
    /// Data packets dropped because no key of ours made them.
    data_unauthentic,
    /// Authentic data packets dropped because they had been received before.
    data_replayed,
    /// Authentic data packets dropped because their counter is behind the replay window.
    data_too_old,
    /// Data packets dropped because their session is past its lifetime or erased.
    data_expired,
    /// Packets that were not sent because the session was past its lifetime or erased.
    seal_expired,
}

/// One counter. Increments from any thread are never lost; reading orders nothing.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
