//! Key derivation from a memorable passphrase to the 32-byte pre-shared key of a network.

use std::io;

use peersock_overlay::{NetworkId, Psk};
use zeroize::Zeroizing;

use super::argon2id::{self, Cost};

/// Salt prefix that distinguishes this use of Argon2id from every other; the network's ID follows it.
const SALT_PREFIX: &[u8; 23] = b"peersock passphrase v1\0";

/// Cost of a guess, OWASP's recommended minimum. All members of a network must agree on these numbers, so
/// they are part of the protocol.
const COST: Cost = Cost { memory: 19, passes: 2 };

/// Stretches a passphrase with Argon2id (RFC 9106), version 0x13: 19 MiB, 2 passes, 1 lane, 32 bytes out,
/// salt `"peersock passphrase v1\0"` followed by the network's ID as 8 bytes in network order.
///
/// Takes some tens of milliseconds. Two networks with the same passphrase have different keys.
/// Fails with `OutOfMemory` if the system refuses the memory.
pub(super) fn stretch(network: NetworkId, passphrase: &str) -> io::Result<Psk> {
    let mut salt = [0; SALT_PREFIX.len() + 8];
    salt[..SALT_PREFIX.len()].copy_from_slice(SALT_PREFIX);
    salt[SALT_PREFIX.len()..].copy_from_slice(&network.as_u64().to_be_bytes());
    let mut key = Zeroizing::new([0; 32]);
    argon2id::stretch(passphrase.as_bytes(), &salt, COST, key.as_mut_slice(), "stretch a passphrase")?;
    Ok(Psk::new(*key))
}
