//! A provider restricted to one suite.

use std::sync::Arc;

use super::{AeadKey, Provider, Suite, SuiteSet};

/// One suite of another provider. A node with it uses no other suite, and cannot reach a peer that lacks it.
pub struct Restricted {
    provider: Arc<dyn Provider>,
    suite: Suite,
}

impl Restricted {
    /// Returns this suite of a provider, or `None` if the provider lacks it.
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
