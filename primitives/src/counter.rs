use std::sync::atomic::{AtomicU64, Ordering};

/// Count of events. Increments from any thread are never lost; reading orders nothing.
///
/// It starts at 0, and wraps after 2^64 - 1.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Returns the current value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares a struct of [`Counter`]s that implements `Debug` and `Default` and has a `snapshot()` and
/// `descriptions()`.
///
/// The input is a struct whose fields have a doc comment and no type. `snapshot()` is as visible as the
/// struct, and returns the name and the value of every counter in the order of declaration. `descriptions()`
/// returns the names with the doc comments. The struct's documentation has a table of all counters, because
/// users see the names even where the fields are private.
///
/// ```
/// peersock_primitives::counters! {
///     /// What a door has seen.
///     pub struct DoorCounters {
///         /// Times that it was opened.
///         pub opened,
///         /// Times that it was closed.
///         pub closed,
///     }
/// }
///
/// let door = DoorCounters::default();
/// door.opened.increment();
/// assert_eq!(door.snapshot(), [("opened", 1), ("closed", 0)]);
/// assert_eq!(DoorCounters::descriptions()[1], ("closed", "Times that it was closed."));
/// ```
#[macro_export]
macro_rules! counters {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[doc = $doc:literal])+ $field_vis:vis $field:ident,)+
        }
    ) => {
        $(#[$meta])*
        ///
        /// | name | counts |
        /// |---|---|
        $(#[doc = concat!("| `", stringify!($field), "` |", $($doc,)+ " |")])+
        #[derive(Debug, Default)]
        $vis struct $name {
            $($(#[doc = $doc])+ $field_vis $field: $crate::Counter,)+
        }

        impl $name {
            /// Returns the name and the value of every counter, in the order of declaration.
            $vis fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field.get()),)+]
            }

            /// Returns the name of every counter and what it counts, in the order of declaration.
            #[allow(dead_code)]
            $vis fn descriptions() -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($field), concat!($($doc,)+).trim_ascii()),)+]
            }
        }
    };
}
