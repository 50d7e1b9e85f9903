//! Networks that are named twice, and the differences between their descriptions.

use std::collections::BTreeSet;

use peersock::Network;
use peersock::overlay::StaticMember;

use crate::failure::{Failure, Outcome};

/// Fails if two networks have the same ID. `names` are the names given, in the same order.
pub(crate) fn check(names: &[&str], networks: &[Network]) -> Outcome {
    for (at, network) in networks.iter().enumerate() {
        let Some(first) = networks[..at].iter().position(|other| other.id() == network.id()) else {
            continue;
        };
        let (one, other) = (names[first], names[at]);
        return Err(match difference(&networks[first], network) {
            None => Failure::usage(
                format_args!("network {} is named twice, as {one} and as {other}", network.id()),
                "name each network once",
            ),
            Some(what) => Failure::usage(
                format_args!(
                    "network {} is named twice, as {one} and as {other}, which are not the same: {what}",
                    network.id()
                ),
                "give the one that all members have",
            ),
        });
    }
    Ok(())
}

/// Returns the differences between two descriptions of a network.
fn difference(one: &Network, other: &Network) -> Option<String> {
    let mut parts = Vec::new();
    let configs = [one, other].map(|network| network.clone().into_config());
    match (configs[0].psk(), configs[1].psk()) {
        (Some(one), Some(other)) if one != other => parts.push("their secrets differ".to_owned()),
        (Some(_), None) | (None, Some(_)) => parts.push("only one of them has a secret".to_owned()),
        _ => {}
    }
    let in_one = |network: &Network, member: &StaticMember| network.members().contains(member);
    let differing = one.members().iter().filter(|member| !in_one(other, member));
    let differing = differing.chain(other.members().iter().filter(|member| !in_one(one, member)));
    let differing: BTreeSet<_> = differing
        .map(|member| member.name.clone().unwrap_or_else(|| member.identity.node_id().to_string()))
        .collect();
    if !differing.is_empty() {
        let differing: Vec<_> = differing.into_iter().collect();
        parts.push(format!("they differ in the members {}", differing.join(", ")));
    }
    (!parts.is_empty()).then(|| parts.join(", and "))
}

#[cfg(test)]
mod tests {
    use peersock::overlay::Identity;

    use super::*;

    #[test]
    fn what_is_different_about_two_descriptions_is_named() {
        let file = |secret: &str, address: &str| {
            let [alpha, beta] = [1, 2].map(|seed| *Identity::from_seed(&[seed; 32]).public());
            Network::parse_toml(&format!(
                "network = \"fe00000000000001\"\n{secret}\n[[member]]\nname = \"alpha\"\nkey = \"{alpha}\"\n\
                 [[member]]\nname = \"beta\"\nkey = \"{beta}\"\naddresses = [\"{address}\"]\n"
            ))
            .unwrap()
        };
        let refused = |one: &Network, other: &Network| {
            let networks = [Network::ad_hoc("ff0001ffff000000".parse().unwrap()), one.clone(), other.clone()];
            check(&["ff0001ffff000000", "a.toml", "b.toml"], &networks).unwrap_err().to_string()
        };
        let (plain, secret) = (file("", "10.7.0.1"), file("passphrase = \"a b c\"", "10.7.0.1"));
        let said = refused(&plain, &plain);
        assert!(said.contains("is named twice, as a.toml and as b.toml\n"), "{said}");
        let said = refused(&plain, &file("", "10.7.0.2"));
        assert!(said.contains("not the same: they differ in the members beta\n"), "{said}");
        assert!(refused(&plain, &secret).contains("only one of them has a secret\n"));
        let said = refused(&file("passphrase = \"d e f\"", "10.7.0.2"), &secret);
        assert!(said.contains("their secrets differ, and they differ in the members beta\n"), "{said}");
        let others = [plain, Network::ad_hoc("ff0001ffff000000".parse().unwrap())];
        assert!(check(&["a.toml", "ff0001ffff000000"], &others).is_ok());
    }
}
