//! Helpers of the crate's own tests.

use std::time::Instant;

use crate::{Config, InterfaceConfig, InterfaceId, Stack};

/// Returns a stack with one interface whose network is 10.0.0.0/8, and the present time.
pub(crate) fn stack() -> (Stack, InterfaceId, Instant) {
    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    let now = Instant::now();
    let stack = Stack::new(Config::default(), [7; 32], now);
    let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse().unwrap()]));
    (stack, net, now)
}
