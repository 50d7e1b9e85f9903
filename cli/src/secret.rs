//! The passphrase of a network: its sources, and the networks to which it applies.

use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use peersock::Network;
use peersock::state::read_secret_file;
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};
use crate::output::note;

/// Environment variable with the passphrase, an alternative to `--secret-file`.
pub(crate) const SECRET_VARIABLE: &str = "PEERSOCK_SECRET";

/// Networks that a passphrase is not for.
const OTHERS: &str = "a static network has its secret in its own file, and a managed one has none";

/// Network, and where the user's file says that its passphrase is.
pub(crate) struct Described {
    pub(crate) network: Network,
    pub(crate) secret_file: Option<PathBuf>,
    /// The network's place in the user's file, for people.
    pub(crate) origin: Option<String>,
}

/// Passphrase of a network. It is never an argument, because every user of the machine can see arguments.
#[derive(clap::Args)]
pub(crate) struct SecretArgs {
    /// File (mode 0600) or pipe with the passphrase of an ad-hoc network
    ///
    /// The variable PEERSOCK_SECRET may hold the passphrase instead. A static network has its secret in its
    /// own file, and a managed one has none.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl SecretArgs {
    pub(crate) fn is_given(&self) -> bool {
        self.secret_file.is_some()
    }

    /// Returns true if others need a passphrase to join this network; where they keep it is unknown.
    pub(crate) fn is_for(&self, network: &Network) -> bool {
        !network.summary().by_file && network.is_secret()
    }

    /// Adds the passphrase, if one is given, to the networks that no file describes. An option, and then the
    /// variable, replaces the one that the user's file names.
    ///
    /// Members of a file's network share the secret in the file. Another one would silently separate this
    /// node from all of them.
    pub(crate) fn add_to(&self, networks: Vec<Described>) -> Outcome<Vec<Network>> {
        let has_its_own = |one: &Described| one.network.summary().by_file || one.network.id().is_managed();
        if let Some(one) = networks.iter().find(|one| has_its_own(one) && one.secret_file.is_some()) {
            let failure = Failure::usage(
                format_args!("`secret_file` in the user's settings is for ad-hoc networks: {OTHERS}"),
                "leave `secret_file` out; `passphrase = ...` in the network's file sets one",
            );
            return Err(failure.and(one.origin.iter()));
        }
        let passphrase = match networks.iter().all(has_its_own) {
            true => self.refuse_for_others().map(|()| None),
            false => self.passphrase(),
        }?;
        let with_secret = |one: Described| {
            let passphrase = match (&passphrase, &one.secret_file) {
                _ if has_its_own(&one) => None,
                (Some(given), _) => Some(given.clone()),
                (None, file) => {
                    let read = file.as_deref().map(read_passphrase).transpose();
                    read.map_err(|failure| failure.and(one.origin.iter()))?
                }
            };
            match passphrase {
                Some(passphrase) => Ok(one.network.with_passphrase(&passphrase)?),
                None => Ok(one.network),
            }
        };
        networks.into_iter().map(with_secret).collect()
    }

    /// Reports that a passphrase does not apply to these networks. A variable may be set for other networks,
    /// so it does not stop the command.
    fn refuse_for_others(&self) -> Outcome {
        if self.secret_file.is_some() {
            return Err(Failure::usage(
                format_args!("--secret-file is for ad-hoc networks: {OTHERS}"),
                "leave --secret-file out; `passphrase = ...` in the network's file, the same at all members, \
                 sets one",
            ));
        }
        if env::var_os(SECRET_VARIABLE).is_some_and(|secret| !secret.is_empty()) {
            note(format_args!(
                "warning: {SECRET_VARIABLE} is not used: it is for ad-hoc networks, as {OTHERS}; unset it"
            ));
        }
        Ok(())
    }

    fn passphrase(&self) -> Outcome<Option<Zeroizing<String>>> {
        if let Some(path) = &self.secret_file {
            return read_passphrase(path).map(Some);
        }
        match env::var(SECRET_VARIABLE) {
            Ok(passphrase) => {
                checked(Zeroizing::new(passphrase), format_args!("variable {SECRET_VARIABLE}")).map(Some)
            }
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err(Failure::usage(
                format_args!("variable {SECRET_VARIABLE} is not UTF-8"),
                "give the passphrase with --secret-file FILE, in UTF-8",
            )),
        }
    }
}

/// Reads a file with a passphrase.
fn read_passphrase(path: &Path) -> Outcome<Zeroizing<String>> {
    let hint = match path.as_os_str() == "-" {
        true => "give /dev/stdin to have it read from stdin",
        false => "write the passphrase into a file of mode 0600, and give its path",
    };
    let text = read_secret_file(path).map_err(|error| Failure::file(error, hint))?;
    // Removes the line feed that editors and echo append to a file.
    checked(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()), path.display())
}

fn checked(passphrase: Zeroizing<String>, origin: impl Display) -> Outcome<Zeroizing<String>> {
    match passphrase.is_empty() {
        false => Ok(passphrase),
        true => Err(Failure::usage(
            format_args!("{origin} holds an empty passphrase"),
            "write the passphrase there, or leave it out for a network without one; `peersock run` passes none \
             on to programs, where --secret-file FILE gives one",
        )),
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
        let described = |network: Network| Described { network, secret_file: None, origin: None };
        let networks = secret.add_to(vec![described(by_file.clone()), described(ad_hoc.clone())]).unwrap();
        let shown: Vec<_> = networks.iter().map(|one| (one.is_secret(), secret.is_for(one))).collect();
        assert_eq!(shown, [(false, false), (true, true)]);
        assert_eq!(secret.add_to(vec![described(by_file.clone())]).unwrap_err().status(), 2);

        // The file of a named network is for that one alone, and an option replaces it.
        let named = |network: &Network, path: &Path| Described {
            network: network.clone(),
            secret_file: Some(path.to_owned()),
            origin: None,
        };
        let path = place.path().join("secret");
        let absent = place.path().join("absent");
        let none = SecretArgs { secret_file: None };
        let other = Network::by_id("ff0002ffff000000".parse().unwrap()).unwrap();
        let networks = none.add_to(vec![named(&ad_hoc, &path), described(other)]).unwrap();
        assert_eq!(networks.iter().map(Network::is_secret).collect::<Vec<_>>(), [true, false]);
        assert!(none.add_to(vec![named(&ad_hoc, &absent)]).is_err());
        assert!(secret.add_to(vec![named(&ad_hoc, &absent)]).unwrap()[0].is_secret());
        assert_eq!(none.add_to(vec![named(&by_file, &path)]).unwrap_err().status(), 2);
    }
}
