//! Description of a network for another process of the same user.

use data_encoding::HEXLOWER;
use peersock_overlay::Psk;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{ConfigError, Invite, Network, RootSource};

/// Fields of the text, a JSON object.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Portable {
    id: String,
    /// Text of a static network's file, or an invite.
    text: Option<String>,
    /// Pre-shared key, 64 hexadecimal digits.
    psk: Option<String>,
    /// Name that the machine gives to the network.
    local_name: Option<String>,
}

impl Network {
    /// Returns the network as a text from which [`Network::from_portable`] makes it again, for another
    /// process of this user. The text contains the network's secret. It lacks the exit of
    /// [`with_exit`](Network::with_exit).
    ///
    /// ```
    /// # use peersock::Network;
    /// let network = Network::ad_hoc("ff0001ffff000000".parse()?).with_passphrase("correct horse")?;
    /// assert!(Network::from_portable(&network.to_portable())? == network);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_portable(&self) -> Zeroizing<String> {
        let psk = self.config.psk().map(|psk| HEXLOWER.encode(psk.as_bytes()));
        let text = self.text.as_ref().map(|text| text.to_string());
        let local_name = self.local_name().map(ToString::to_string);
        let portable = Portable { id: self.id().to_string(), text, psk, local_name };
        Zeroizing::new(serde_json::to_string(&portable).expect("strings can be written"))
    }

    /// Makes a network from the text of [`Network::to_portable`].
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::Invalid`].
    pub fn from_portable(text: &str) -> Result<Network, ConfigError> {
        let invalid = |what: &str| ConfigError::Invalid { line: 1, what: what.to_owned() };
        let portable: Portable =
            serde_json::from_str(text).map_err(|_| invalid("it is no network's description"))?;
        let network = match &portable.text {
            Some(text) if Invite::is_claimed_by(text) => {
                let invite: Invite = text.parse().map_err(|error| invalid(&format!("{error}")))?;
                invite.network()
            }
            Some(file) => Network::parse_toml(file)?,
            None => {
                let id = portable.id.parse().map_err(|_| invalid("it has no network ID"))?;
                Network::by_id(id).map_err(|error| invalid(&error.to_string()))?
            }
        };
        let network = match &portable.local_name {
            Some(name) => network.with_local_name(name.parse().map_err(|_| invalid("its name is none"))?),
            None => network,
        };
        let Some(psk) = &portable.psk else { return Ok(network) };
        let mut key = Zeroizing::new([0; 32]);
        match HEXLOWER.decode_len(psk.len()) {
            Ok(32) => {}
            _ => return Err(invalid("its key has not 64 digits")),
        }
        HEXLOWER
            .decode_mut(psk.as_bytes(), key.as_mut_slice())
            .map_err(|_| invalid("its key is not hexadecimal"))?;
        Ok(network.with_psk(Psk::new(*key)))
    }
}

impl RootSource {
    /// Returns the source as a text that [`RootSource::load`] reads, with the root's access token, which is a
    /// secret.
    ///
    /// ```
    /// # use peersock::{RootSource, overlay::Identity};
    /// let key = *Identity::from_seed(&[1; 32]).public();
    /// let root = RootSource::load(&format!("{key}@192.0.2.1:7420?token=a%20b"))?.remove(0);
    /// assert_eq!(RootSource::load(&root.to_portable())?, [root]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_portable(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(self.to_string());
        if let RootSource::Address(root) = self
            && let Some(token) = root.token()
        {
            text.reserve("?token=".len() + 3 * token.len());
            text.push_str("?token=");
            token.iter().for_each(|byte| text.push_str(&format!("%{byte:02x}")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_made_again_and_other_texts_are_refused() {
        let open = Network::ad_hoc("ff0001ffff000000".parse().expect("an ID"));
        let secret = open.clone().with_passphrase("correct horse").expect("memory");
        for network in [&open, &secret] {
            let again = Network::from_portable(&network.to_portable()).expect("its own text");
            assert!(again == *network && again.is_secret() == network.is_secret());
        }
        assert!(open != secret && secret != open.clone().with_passphrase("wrong horse").expect("memory"));
        let psk = "5".repeat(64);
        for text in [
            "",
            "{}",
            r#"{"id":"ff0001ffff0000"}"#,
            r#"{"id":"fe00000000000001"}"#,
            r#"{"id":"ff0001ffff000000","psk":"55"}"#,
            &format!(r#"{{"id":"ff0001ffff000000","psk":"{psk}5"}}"#),
            &format!(r#"{{"id":"ff0001ffff000000","psk":"x{}"}}"#, &psk[1..]),
            r#"{"id":"ff0001ffff000000","text":"nothing"}"#,
            r#"{"id":"0123456789abcdef","text":"peersock://0123456789abcdef/55"}"#,
        ] {
            let refused = Network::from_portable(text).expect_err(text).to_string();
            assert!(!refused.contains("5555"), "{refused}");
        }
    }

    #[test]
    #[cfg(feature = "static-networks")]
    fn a_file_s_members_and_names_stay() {
        let key = peersock_overlay::Identity::from_seed(&[1; 32]).public().to_string();
        let member = format!("[[member]]\nkey = '{key}'\nname = 'alpha'\nendpoints = ['host.example:1']\n");
        let file = format!("network = 'fe00000000000001'\npassphrase = 'x'\n{member}");
        let network = Network::parse_toml(&file).expect("a file");
        let again = Network::from_portable(&network.to_portable()).expect("its own text");
        assert!(again == network && !again.addresses_named("alpha").is_empty());
        let renamed = Network::parse_toml(&file.replace("alpha", "beta")).expect("a file");
        assert!(again != renamed);
        let commented = Network::parse_toml(&format!("# a comment\n{file}")).expect("a file");
        assert!(again == commented, "the members decide, not the text");
    }
}
