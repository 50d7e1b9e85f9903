use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Error as Argon2Error, Params, Version};
use peersock::overlay::{NetworkId, Psk};
use peersock::{Network, Seed};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::symbols::{self, ALL, RANDOM};

/// The TCP port on which senders listen, and the only port that their networks allow.
pub const PORT: u16 = 7421;

/// Number of characters between two hyphens.
const GROUP: usize = 5;

/// Salts that separate these uses of Argon2id from others. They are the same for all codes, because the other
/// end knows nothing but the code.
const SALT: &[u8] = b"peersock files v1";
const PIPE_SALT: &[u8] = b"peersock pipe v1";

/// KiB of memory per guess, and passes over it. They are part of the protocol: both ends must agree.
const MEMORY: u32 = 64 * 1024;
const PASSES: u32 = 3;

/// The code that admits a receiver: 15 characters, 13 of them random (65 bits) and two as check symbols.
///
/// The code is erased on drop, and `Debug` never prints it.
///
/// ```
/// use peersock_files::Code;
///
/// let code = Code::generate()?;
/// let text = code.to_text();
/// assert_eq!(text.len(), 17, "three groups of five, and two hyphens");
/// let typed = text.to_lowercase().replace('-', " ");
/// assert_eq!(typed.parse::<Code>()?.to_text(), text);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Code {
    symbols: [u8; ALL],
}

/// Rendezvous derived from a code. The derivation takes some tenths of a second.
#[derive(Debug)]
pub struct Meeting {
    /// The network of the two ends, with its key.
    pub network: Network,
    /// The sender's identity.
    pub seed: Seed,
    /// The sender's address in the network, where it listens on [`PORT`].
    pub address: Ipv6Addr,
}

/// Secrets of a pipe, derived from a code.
pub struct PipeKeys {
    /// Secret of the two ends' network.
    pub secret: Zeroizing<[u8; 16]>,
    /// Identity of the end that listens.
    pub seed: Seed,
}

impl Code {
    /// Generates a code from the system's randomness.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> io::Result<Code> {
        let mut random = Zeroizing::new([0; RANDOM]);
        getrandom::fill(random.as_mut_slice()).map_err(io::Error::other)?;
        let mut symbols = [0; ALL];
        for (symbol, byte) in symbols.iter_mut().zip(random.iter()) {
            // 32 divides 256, so all symbols are equally likely.
            *symbol = byte % 32;
        }
        symbols::complete(&mut symbols);
        let code = Code { symbols };
        symbols.zeroize();
        Ok(code)
    }

    /// Returns true for a text that is a code, or one in the printed form with a typing error: a character
    /// may be wrong in each group, be missing or be twice.
    pub fn is_claimed_by(text: &str) -> bool {
        let text = text.trim();
        let is_grouped = || {
            let groups = || text.split(['-', ' ']);
            let is_group = |group: &str| {
                group.len().abs_diff(GROUP) <= 1 && group.bytes().all(|c| c.is_ascii_alphanumeric())
            };
            // A host name may have three words, too.
            let is_word = |c: u8| c.is_ascii_lowercase() || c == b'-';
            groups().count() == ALL / GROUP && groups().all(is_group) && !text.bytes().all(is_word)
        };
        text.parse::<Code>().is_ok() || is_grouped()
    }

    /// Returns the code for people: capital letters and digits in groups.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Reserves the full capacity, because a reallocation would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * ALL));
        for (place, symbol) in self.symbols.iter().enumerate() {
            if place > 0 && place % GROUP == 0 {
                text.push('-');
            }
            text.push(symbols::character(*symbol));
        }
        text
    }

    /// Stretches the code with Argon2id (RFC 9106), version 0x13: 64 MiB, 3 passes, 1 lane, 64 bytes out,
    /// salt `"peersock files v1"`, over the 15 characters without hyphens. The first 32 bytes are the
    /// network's key, the others the sender's seed.
    ///
    /// Takes some tenths of a second, and 64 MiB for that time.
    ///
    /// # Errors
    /// The system refuses the memory.
    pub fn meeting(&self) -> io::Result<Meeting> {
        let keys = self.stretch::<64>(SALT)?;
        let (mut key, mut seed) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        key.copy_from_slice(&keys[..32]);
        seed.copy_from_slice(&keys[32..]);
        let id = NetworkId::ad_hoc(PORT..=PORT).expect("a range of one port");
        let seed = Seed(*seed);
        Ok(Meeting {
            network: Network::ad_hoc(id).with_psk(Psk::new(*key)),
            address: id.address_of(&seed.public_identity().node_id()),
            seed,
        })
    }

    /// Stretches the code for a pipe as [`meeting`](Self::meeting) does, with the salt `"peersock pipe v1"`
    /// and 48 bytes out: 16 bytes for the network's secret, and 32 for the seed of the node that listens. So
    /// a code leads to no pipe where its files are.
    ///
    /// # Errors
    /// The system refuses the memory.
    pub fn pipe(&self) -> io::Result<PipeKeys> {
        let keys = self.stretch::<48>(PIPE_SALT)?;
        let (mut secret, mut seed) = (Zeroizing::new([0; 16]), Zeroizing::new([0; 32]));
        secret.copy_from_slice(&keys[..16]);
        seed.copy_from_slice(&keys[16..]);
        Ok(PipeKeys { secret, seed: Seed(*seed) })
    }

    fn stretch<const N: usize>(&self, salt: &[u8]) -> io::Result<Zeroizing<[u8; N]>> {
        let params = Params::new(MEMORY, PASSES, 1, Some(N)).expect("within RFC 9106's limits");
        let mut characters = Zeroizing::new([0; ALL]);
        for (character, symbol) in characters.iter_mut().zip(self.symbols) {
            *character = symbols::character(symbol) as u8;
        }
        let mut keys = Zeroizing::new([0; N]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(characters.as_slice(), salt, keys.as_mut_slice())
            .map_err(|error| match error {
                Argon2Error::OutOfMemory => {
                    io::Error::new(io::ErrorKind::OutOfMemory, "there is no memory to stretch a code: 64 MiB")
                }
                error => unreachable!("salt and output have lengths that RFC 9106 allows: {error}"),
            })?;
        Ok(keys)
    }
}

impl FromStr for Code {
    type Err = CodeError;

    /// Parses a typed code. Case, hyphens and spaces are ignored; O is read as 0, I and L as 1.
    fn from_str(text: &str) -> Result<Code, CodeError> {
        let mut code = Code { symbols: [0; ALL] };
        let mut count = 0;
        for character in text.chars().filter(|c| *c != '-' && !c.is_whitespace()) {
            let value = symbols::value(character).ok_or(CodeError::Character(character))?;
            if let Some(symbol) = code.symbols.get_mut(count) {
                *symbol = value;
            }
            count += 1;
        }
        match count {
            ALL if symbols::is_complete(&code.symbols) => Ok(code),
            ALL => Err(CodeError::Typo),
            _ => Err(CodeError::Length(count)),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code([redacted])")
    }
}

/// Error of a text that is not a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodeError {
    /// The text has this number of characters, not counting hyphens and spaces.
    #[error("a code has 15 letters and digits, and this has {0}")]
    Length(usize),
    /// The text contains a character that codes do not use.
    #[error("codes do not have the character `{}`", .0.escape_default())]
    Character(char),
    /// One or two characters are wrong or swapped, or the text is not a code.
    #[error("the code has a typing error: its characters do not fit together")]
    Typo,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_with_a_typing_error_are_refused() {
        let code = Code::generate().unwrap();
        let text: Vec<char> = code.to_text().chars().collect();
        let parse = |text: &[char]| text.iter().collect::<String>().parse::<Code>();
        assert_eq!(parse(&text).unwrap().symbols, code.symbols);
        for place in (0..text.len()).filter(|place| text[*place] != '-') {
            for other in "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars().filter(|other| *other != text[place]) {
                let mut wrong = text.clone();
                wrong[place] = other;
                assert_eq!(parse(&wrong).unwrap_err(), CodeError::Typo);
            }
            for next in place + 1..text.len() {
                let mut wrong = text.clone();
                wrong.swap(place, next);
                if text[next] != '-' && text[place] != text[next] {
                    assert_eq!(parse(&wrong).unwrap_err(), CodeError::Typo);
                }
            }
            let mut short = text.clone();
            short.remove(place);
            assert_eq!(parse(&short).unwrap_err(), CodeError::Length(ALL - 1));
        }
        assert_eq!("U".repeat(15).parse::<Code>().unwrap_err(), CodeError::Character('U'));
        assert_eq!("".parse::<Code>().unwrap_err(), CodeError::Length(0));
        assert_eq!("0".repeat(1000).parse::<Code>().unwrap_err(), CodeError::Length(1000));
    }

    #[test]
    fn both_ends_of_a_code_meet_and_those_of_another_one_elsewhere() {
        let code = |text: &str| text.parse::<Code>().unwrap();
        // A code of zeros has zero check sums; no real code is likely to equal it.
        let zero = code("00000-00000-00000").meeting().unwrap();
        let again = code("ooooo ooooo ooooo").meeting().unwrap();
        assert_eq!(zero.address, again.address);
        assert_eq!(zero.seed.0, again.seed.0);
        // Pinned: other versions of the program must derive the same meeting.
        assert_eq!(zero.network.id().to_string(), "ff1cfd1cfd000000");
        let other = Code::generate().unwrap().meeting().unwrap();
        assert_ne!(zero.address, other.address);
        assert_eq!(zero.network.id(), other.network.id());
    }

    #[test]
    fn a_code_leads_to_one_pipe_which_is_not_where_its_files_are() {
        let code = |text: &str| text.parse::<Code>().unwrap();
        let (zero, again) =
            (code("00000-00000-00000").pipe().unwrap(), code("ooooo ooooo ooooo").pipe().unwrap());
        assert_eq!((&zero.secret, &zero.seed.0), (&again.secret, &again.seed.0));
        // Pinned: other versions of the program must derive the same pipe.
        assert_eq!(hex(zero.secret.as_slice()), "c1abe07ffabf37e2a0729523ff206489");
        assert_ne!(zero.seed.0, code("00000-00000-00000").meeting().unwrap().seed.0);
        assert_ne!(zero.secret, Code::generate().unwrap().pipe().unwrap().secret);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_code_is_not_printed() {
        assert_eq!(format!("{:?}", Code::generate().unwrap()), "Code([redacted])");
    }
}
