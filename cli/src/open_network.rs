//! The note about networks that anybody can join.

use peersock::Network;

use crate::stdio;

/// Says of each open network that it is open, and what closes it. For commands at which members connect.
pub(crate) fn tell<'a>(networks: impl IntoIterator<Item = &'a Network>) {
    for network in networks.into_iter().filter(|network| is_open(network)) {
        stdio::note(format_args!(
            "network {} is open: anybody who reaches this node can join it; --secret-file FILE closes it",
            network.id()
        ));
    }
}

fn is_open(network: &Network) -> bool {
    !network.summary().closed && !network.is_secret()
}

#[cfg(test)]
mod tests {
    use peersock::overlay::Identity;

    use super::*;

    #[test]
    fn a_passphrase_or_a_list_of_members_closes_a_network() {
        let ad_hoc = Network::ad_hoc("ff0001ffff000000".parse().unwrap());
        let key = Identity::from_seed(&[1; 32]).public().to_string();
        let text = format!("network = \"fe00000000000001\"\n[[member]]\nkey = \"{key}\"\n");
        assert!(is_open(&ad_hoc));
        assert!(!is_open(&ad_hoc.with_passphrase("correct horse").unwrap()));
        assert!(!is_open(&Network::parse_toml(&text).unwrap()));
    }
}
