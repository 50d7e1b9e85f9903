//! The clients of a process, by node: a list that only grows, so that no lock is needed. In a forked child a
//! lock might be held by a thread that does not exist there. A thread that fails to get it must not treat the
//! node as unknown, because the token would be lost.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::client::Client;

/// The list, newest first.
#[derive(Debug)]
pub(crate) struct KnownClients(AtomicPtr<Known>);

#[derive(Debug)]
struct Known {
    client: Arc<Client>,
    older: *mut Known,
}

impl KnownClients {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Returns the newest client that `serves`, or makes one.
    pub(crate) fn get_or_add(
        &self,
        serves: impl Fn(&Client) -> bool,
        make: impl FnOnce() -> Client,
    ) -> Arc<Client> {
        let mut newest = self.0.load(Ordering::Acquire);
        if let Some(known) = Self::find(newest, &serves) {
            return known;
        }
        let client = Arc::new(make());
        let added = Box::into_raw(Box::new(Known { client: Arc::clone(&client), older: newest }));
        loop {
            match self.0.compare_exchange(newest, added, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return client,
                Err(now) => newest = now,
            }
            if let Some(known) = Self::find(newest, &serves) {
                // SAFETY: it comes from the box above, and was not published.
                drop(unsafe { Box::from_raw(added) });
                return known;
            }
            // SAFETY: as above, and no other thread knows it yet.
            unsafe { (*added).older = newest };
        }
    }

    fn find(newest: *mut Known, wanted: impl Fn(&Client) -> bool) -> Option<Arc<Client>> {
        let mut next = newest;
        // SAFETY: published entries are never changed and never freed.
        while let Some(known) = unsafe { next.as_ref() } {
            if wanted(&known.client) {
                return Some(Arc::clone(&known.client));
            }
            next = known.older;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::name::NodeTag;
    use crate::proof::Token;

    #[test]
    fn threads_that_look_at_the_same_time_do_not_lose_the_token() {
        let (tag, token) = (NodeTag(0x7057), Token(99));
        let nobody = NodeTag(0x7058);
        let _ = Client::new(tag, token);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        assert_eq!(Client::of(tag).token(), token);
                        assert_eq!(Client::of(nobody).token(), Token::NONE);
                    }
                });
            }
        });
        assert!(Arc::ptr_eq(&Client::of(tag), &Client::new(tag, token)), "the same client came twice");
        let _ = Client::new(nobody, token);
        assert_eq!(Client::of(nobody).token(), token, "a token that comes later is not used");
    }
}
