//! Networks as their ID, their file, or a name describes them.

use std::path::{Path, PathBuf};

use peersock::overlay::NetworkId;
use peersock::overlay::membership::MemberName;
use peersock::{Invite, Network};

use super::state::managed_state;
use crate::config::{self, LocalNetwork};
use crate::failure::{Failure, Outcome};
use crate::managed::{self, check_joined};
use crate::secret::Described;

/// Returns the network of the user's file that a text names, unless the text is an ID or a file.
pub(super) fn local_network(text: &str) -> Outcome<Option<&'static LocalNetwork>> {
    match text.parse::<NetworkId>().is_ok() || Path::new(text).is_file() || text.contains(['/', '.']) {
        true => Ok(None),
        false => config::network(text),
    }
}

/// Returns the path of a static network's file, which is named by its path or by a name in the user's file.
/// For a name, also the text that says where the name is from.
pub(crate) fn network_file(file: &Path) -> Outcome<(PathBuf, Option<String>)> {
    let Some((name, local)) = named_by_user(file)? else {
        let kept = file.to_str().filter(|_| !file.exists());
        let kept = kept.and_then(|name| managed::kept(&managed_state(), name));
        return Ok((kept.map_or_else(|| file.to_owned(), |kept| kept.path), None));
    };
    match local.network.parse::<NetworkId>() {
        Err(_) => Ok((PathBuf::from(&local.network), Some(local.origin(name)))),
        Ok(id) => Err(Failure::usage(
            format_args!("`{name}` is network {id} in {}, which has no file", local.place),
            format_args!("name a static network or its file; `peersock members -n {name}` asks who is there"),
        )),
    }
}

/// Refuses a new file of a network where it would hide the network that a name of the user's file names.
pub(crate) fn check_new_network_file(file: &Path) -> Outcome {
    let Some((name, local)) = named_by_user(file)? else { return Ok(()) };
    let hint = match local.network.parse::<NetworkId>() {
        Err(_) => format!("make its file with `peersock network new {}`", local.network),
        Ok(_) => format!("choose another name, such as {name}.toml"),
    };
    Err(Failure::usage(
        format_args!("`{name}` is a name in {}, which a file `{name}` would hide", local.place),
        hint,
    ))
}

/// Returns the network of the user's file that a file's path names, unless that is a path.
fn named_by_user(file: &Path) -> Outcome<Option<(&str, &'static LocalNetwork)>> {
    let Some(name) = file.to_str() else { return Ok(None) };
    Ok(local_network(name)?.map(|local| (name, local)))
}

/// Parses a network's ID, the path of a static network's file, or a name in the user's file.
pub(crate) fn parse_network(text: &str) -> Outcome<Network> {
    describe_network(text).map(|described| described.network)
}

/// Parses a network as [`parse_network`] does.
pub(super) fn describe_network(text: &str) -> Outcome<Described> {
    if Invite::is_claimed_by(text) {
        return Err(Failure::usage(
            "an invite makes this machine a member once, and is no network",
            "run `peersock join INVITE --as NAME` with it first; then give NAME or the network's ID to -n",
        ));
    }
    let Some(local) = local_network(text)? else {
        // IDs and paths do not need the state directory, which may be closed to this user.
        let may_be_name = text.parse::<NetworkId>().is_err() && text.parse::<MemberName>().is_ok();
        if may_be_name && let Some(id) = managed::named(&managed_state(), text)? {
            let network = parse_unnamed(&id.to_string())?;
            return Ok(Described { network, secret_file: None, origin: None });
        }
        if may_be_name && let Some(kept) = managed::kept(&managed_state(), text) {
            return Ok(Described { network: called(kept.read()?, text), secret_file: None, origin: None });
        }
        return Ok(Described { network: parse_unnamed(text)?, secret_file: None, origin: None });
    };
    let origin = Some(local.origin(text));
    let network = parse_unnamed(&local.network).map_err(|failure| failure.and(origin.iter()))?;
    let network = called(network, text);
    Ok(Described { network, secret_file: local.secret_file.clone(), origin })
}

/// Gives a network its local name, if members' names can end with it.
fn called(network: Network, name: &str) -> Network {
    match name.parse() {
        Ok(name) => network.with_local_name(name),
        Err(_) => network,
    }
}

/// Parses a network's ID or the path of a static network's file.
fn parse_unnamed(text: &str) -> Outcome<Network> {
    let looks_like_path = text.contains('/') || text.ends_with(".toml") || Path::new(text).is_file();
    match text.parse::<NetworkId>() {
        Err(_) if Path::new(text).is_dir() => Err(Failure::usage(
            format_args!("{text} is a directory, and a network is an ID or a file"),
            "give the path of the network's TOML file; a node's directory is for --state",
        )),
        Ok(id) => match check_joined(&managed_state(), id)? {
            Some(joined) => Ok(joined),
            None => Network::by_id(id).map_err(Failure::from),
        },
        Err(_) if looks_like_path => {
            Network::from_file(text).map_err(|error| Failure::network_file(text, error))
        }
        // Mostly the name of a managed network that was joined with another state directory, or not at all.
        Err(_) if text.parse::<MemberName>().is_ok() && !is_like_id(text) => {
            let names = config::path_with_networks().map(|path| format!(", nor a name in {path}"));
            Err(Failure::usage(
                format_args!(
                    "`{text}` is neither a network that this machine has joined nor a file{}",
                    names.unwrap_or_default()
                ),
                "list the networks of this machine with `peersock networks`, join one with `peersock join`, or \
                 make a file with `peersock network new`; an ID is as ff0001ffff000000",
            ))
        }
        Err(error) => {
            let names = config::path_with_networks().map(|path| format!(", nor a name in {path}"));
            Err(Failure::usage(
                format_args!(
                    "`{text}` is neither a network ID ({error}) nor a file{}",
                    names.unwrap_or_default()
                ),
                "give an ID such as ff0001ffff000000, or make a file with `peersock network new`",
            ))
        }
    }
}

/// Returns true if a text looks like an ID with a mistake.
fn is_like_id(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    (8..=24).contains(&text.len())
        && digits * 4 >= text.len() * 3
        && text.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn networks_that_cannot_be_joined_are_refused_with_the_reason() {
        let refuse = |text| parse_network(text).unwrap_err().to_string();
        assert!(refuse("ff0001ffff00000").contains("16"));
        assert!(refuse("fe00000000000001").contains("TOML"));
        assert!(refuse("8056c2e21c000001").contains("managed"));
        assert!(refuse("no/such/file.toml").contains("no/such/file.toml"));
        assert!(refuse("/").contains("is a directory"));
    }
}
