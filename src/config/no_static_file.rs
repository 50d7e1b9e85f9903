//! Replacement of `static_file` in builds without the feature `static-networks`: no file is read.

use std::collections::BTreeMap;

use peersock_overlay::{NodeId, StaticNetwork};

use super::{ConfigError, Feature, HostEndpoint, RootSource};

/// Endpoints of members that are host names.
type Hosts = BTreeMap<NodeId, Vec<HostEndpoint>>;

/// Fails in any case.
pub(super) fn parse(_: &str) -> Result<(StaticNetwork, Hosts, Vec<RootSource>), ConfigError> {
    Err(Feature::StaticNetworks.missing("a static network").into())
}

#[cfg(test)]
mod tests {
    use crate::Network;

    #[test]
    fn a_static_network_is_told_to_need_the_feature() {
        let error =
            Network::parse_toml("network = 'fe00000000000001'").expect_err("it cannot be read").to_string();
        assert!(error.starts_with("a static network needs the feature `static-networks`"), "{error}");
    }
}
