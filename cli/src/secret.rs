//! The passphrase of a network: its sources, and the networks to which it applies.

use std::env;
use std::path::PathBuf;

use peersock::Network;
use peersock::state::read_secret_file;
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};
use crate::output::note;

/// Environment variable with the passphrase, an alternative to `--secret-file`.
pub(crate) const SECRET_VARIABLE: &str = "PEERSOCK_SECRET";

/// Passphrase of a network. It is never an argument, because every user of the machine can see arguments.
#[derive(clap::Args)]
pub(crate) struct SecretArgs {
    /// File (mode 0600) or pipe with the passphrase of an ad-hoc network
    ///
    /// The variable PEERSOCK_SECRET may hold the passphrase instead. A static network has its secret in its
    /// own file.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl SecretArgs {
    /// Returns true if others need a passphrase to join this network; where they keep it is unknown.
    pub(crate) fn is_for(&self, network: &Network) -> bool {
        !network.summary().by_file && network.is_secret()
    }

    /// Adds the passphrase, if one is given, to the networks that no file describes.
    ///
    /// Members of a file's network share the secret in the file. Another one would silently separate this
    /// node from all of them.
    pub(crate) fn add_to(&self, networks: Vec<Network>) -> Outcome<Vec<Network>> {
        if networks.iter().all(|network| network.summary().by_file) {
            self.refuse_for_files()?;
            return Ok(networks);
        }
        let Some(passphrase) = self.passphrase()? else { return Ok(networks) };
        let with_secret = |network: Network| match network.summary().by_file {
            true => Ok(network),
            false => Ok(network.with_passphrase(&passphrase)?),
        };
        networks.into_iter().map(with_secret).collect()
    }

    /// Reports that a passphrase does not apply to static networks. A variable may be set for other networks,
    /// so it does not stop the command.
    fn refuse_for_files(&self) -> Outcome {
        if self.secret_file.is_some() {
            return Err(Failure::usage(
                "--secret-file is for ad-hoc networks: a static network has its secret in its own file",
                "leave --secret-file out; `passphrase = ...` in the network's file, the same at all members, \
                 sets one",
            ));
        }
        if env::var_os(SECRET_VARIABLE).is_some_and(|secret| !secret.is_empty()) {
            note(format_args!(
                "warning: {SECRET_VARIABLE} is not used: it is for ad-hoc networks, and a static network has \
                 its secret in its own file; unset it"
            ));
        }
        Ok(())
    }

    fn passphrase(&self) -> Outcome<Option<Zeroizing<String>>> {
        let (passphrase, origin) = if let Some(path) = &self.secret_file {
            let hint = match path.as_os_str() == "-" {
                true => "give /dev/stdin to have it read from stdin",
                false => "write the passphrase into a file of mode 0600, and give its path",
            };
            let text = read_secret_file(path).map_err(|error| Failure::file(error, hint))?;
            // Removes the line feed that editors and echo append to a file.
            let passphrase = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
            (passphrase, path.display().to_string())
        } else {
            match env::var(SECRET_VARIABLE) {
                Ok(passphrase) => (Zeroizing::new(passphrase), format!("variable {SECRET_VARIABLE}")),
                Err(env::VarError::NotPresent) => return Ok(None),
                Err(env::VarError::NotUnicode(_)) => {
                    return Err(Failure::usage(
                        format_args!("variable {SECRET_VARIABLE} is not UTF-8"),
                        "give the passphrase with --secret-file FILE, in UTF-8",
                    ));
                }
            }
        };
        if passphrase.is_empty() {
            return Err(Failure::usage(
                format_args!("{origin} holds an empty passphrase"),
                "write the passphrase there, or leave it out for a network without one; `peersock run` passes none \
                 on to programs, where --secret-file FILE gives one",
            ));
        }
        Ok(Some(passphrase))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use peersock::overlay::Identity;

    use super::*;

    #[test]
    fn a_passphrase_is_for_the_networks_that_no_file_describes() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("secret");
        fs::write(&path, "correct horse\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let key = Identity::from_seed(&[1; 32]).public().to_string();
        let by_file =
            Network::parse_toml(&format!("network = \"fe00000000000001\"\n[[member]]\nkey = \"{key}\"\n"))
                .unwrap();
        let ad_hoc = Network::by_id("ff0001ffff000000".parse().unwrap()).unwrap();
        let secret = SecretArgs { secret_file: Some(path) };
        let networks = secret.add_to(vec![by_file.clone(), ad_hoc]).unwrap();
        let shown: Vec<_> = networks.iter().map(|one| (one.is_secret(), secret.is_for(one))).collect();
        assert_eq!(shown, [(false, false), (true, true)]);
        assert_eq!(secret.add_to(vec![by_file]).unwrap_err().status(), 2);
    }
}
