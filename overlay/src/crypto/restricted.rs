//! One suite of a provider.

use std::sync::Arc;

use super::{AeadKey, Provider, Suite, SuiteSet};

/// One suite of another provider: a node with it uses no other. A peer that lacks the suite is not reached.
///
/// ```
/// use peersock_overlay::{Portable, Provider, Restricted, Suite, SuiteSet};
/// use std::sync::Arc;
///
/// let suite = Suite::ChaCha20Poly1305;
/// let provider = Restricted::new(Arc::new(Portable), suite).expect("it has this suite");
/// assert_eq!(provider.suites(), SuiteSet::CHACHA20_POLY1305);
/// assert!(provider.key(Suite::Aes256Gcm, &[1; 32]).is_none());
/// ```
pub struct Restricted {
    provider: Arc<dyn Provider>,
    suite: Suite,
}

impl Restricted {
    /// This suite of a provider, or `None` if the provider lacks it.
    pub fn new(provider: Arc<dyn Provider>, suite: Suite) -> Option<Self> {
        provider.suites().has(suite).then_some(Self { provider, suite })
    }
}

impl Provider for Restricted {
    fn suites(&self) -> SuiteSet {
        SuiteSet::of(self.suite)
    }

    fn key(&self, suite: Suite, key: &[u8; 32]) -> Option<Box<dyn AeadKey>> {
        (suite == self.suite).then(|| self.provider.key(suite, key))?
    }
}
