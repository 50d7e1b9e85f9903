//! IDs of managed networks, and the networks themselves.

use std::io;

use peersock_overlay::membership::{MemberName, NetworkKey};
use peersock_overlay::{ManagedNetwork, NetworkConfig, NetworkId};

use super::Network;
use super::argon2id::{self, Cost};

/// Salt of this use of Argon2id.
const SALT: &[u8] = b"peersock network id v1";

/// Cost of one key. An attacker who wants a key with the ID of another network tries 2^63 keys on average,
/// each at this cost. All nodes have to agree on these numbers.
const COST: Cost = Cost { memory: 64, passes: 3 };

/// Returns the ID of the managed network with this key: the first 8 bytes of Argon2id (RFC 9106), version
/// 0x13, of the key, with 64 MiB, 3 passes, 1 lane and the salt `"peersock network id v1"`. Returns `None` if
/// these bytes are the ID of another kind of network, which happens to one key in 128.
///
/// Takes some tenths of a second. A test has a second as the limit.
///
/// # Errors
/// Returns `OutOfMemory` if the system refuses the memory.
pub fn network_id(key: &NetworkKey) -> io::Result<Option<NetworkId>> {
    let mut bytes = [0; 8];
    argon2id::stretch(key.as_bytes(), SALT, COST, &mut bytes, "check a network's key")?;
    let id = NetworkId::new(u64::from_be_bytes(bytes)).ok();
    Ok(id.filter(NetworkId::is_managed))
}

impl Network {
    /// Returns the same managed network, in which this node wishes to have a name. The controller decides.
    #[must_use]
    pub fn with_wished_name(mut self, name: MemberName) -> Network {
        if let NetworkConfig::Managed(network) = &mut self.config {
            network.request.name = Some(name);
        }
        self
    }

    /// Returns a managed network with what is known of it. A node with a state directory completes it by what
    /// it keeps there.
    pub fn managed(network: ManagedNetwork) -> Network {
        Network::of(NetworkConfig::Managed(Box::new(network)))
    }
}

#[cfg(test)]
mod tests {
    use peersock_overlay::membership::NetworkSecret;

    use super::*;

    #[test]
    fn an_id_follows_from_its_key_alone() {
        let key = NetworkSecret::from_seed(&[1; 32]).public();
        let other = NetworkSecret::from_seed(&[2; 32]).public();
        let id = network_id(&key).expect("memory");
        assert_eq!(id, network_id(&key).expect("memory"));
        assert_ne!(id, network_id(&other).expect("memory"));
        assert!(id.is_some_and(|id| id.is_managed()));
        // The one of the test vectors, which another implementation of Argon2 has computed.
        let of_vectors = network_id(&NetworkSecret::from_seed(&[0x31; 32]).public()).expect("memory");
        assert_eq!(of_vectors.map(|id| id.to_string()).as_deref(), Some("aacf828316ff3bec"));
    }

    #[test]
    #[ignore = "cargo xtask test --only slow: it measures"]
    fn a_join_stretches_the_key_within_a_second() {
        let key = NetworkSecret::from_seed(&[1; 32]).public();
        let mut times: Vec<_> = (0..11)
            .map(|_| {
                let begun = std::time::Instant::now();
                network_id(&key).expect("memory");
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        eprintln!("a network's key is stretched in {:?} to {most:?}, median {median:?}", times[0]);
        assert!(most <= std::time::Duration::from_secs(1), "{times:?}");
    }
}
