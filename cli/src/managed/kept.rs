//! Static networks that this machine knows by a local name: copies of their files in the state directory.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use peersock::overlay::membership::MemberName;
use peersock::state::{NameClaim, StateDir, StateError};
use peersock::{Network, NetworkId};

use crate::config;
use crate::failure::{Failure, Outcome};
use crate::network::file;
use crate::output;

/// End of the names of the copies in the folder for them.
const SUFFIX: &str = ".toml";

/// Maximum length of a file that is looked at, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Name of a network, and its file.
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl Kept {
    pub(crate) fn read(&self) -> Outcome<Network> {
        let path = self.path.display().to_string();
        Network::from_file(&self.path).map_err(|error| Failure::network_file(&path, error))
    }

    fn id(&self) -> Option<NetworkId> {
        self.read().ok().map(|network| network.id())
    }
}

/// Returns the static network with a local name in a state directory, if one has it.
pub(crate) fn kept(state: &Path, name: &str) -> Option<Kept> {
    let name = name.parse::<MemberName>().ok()?;
    let path = StateDir::static_networks(state).join(format!("{name}{SUFFIX}"));
    path.is_file().then(|| Kept { name: name.to_string(), path })
}

/// Returns all such networks in the order of their names.
pub(super) fn all_kept(state: &Path) -> Vec<Kept> {
    let entries = fs::read_dir(StateDir::static_networks(state)).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(SUFFIX).map(str::to_owned);
    let mut all: Vec<_> = entries.filter_map(name).filter_map(|name| kept(state, &name)).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// Returns the network that a local name or an ID names.
pub(super) fn find_kept(state: &Path, text: &str) -> Option<Kept> {
    kept(state, text).or_else(|| {
        let id = super::parse_id(text).ok()?;
        all_kept(state).into_iter().find(|one| one.id() == Some(id))
    })
}

/// Claims a local name as [`StateDir::claim_name`] does, also against static networks.
pub(super) fn claim_name(
    state: &Path,
    name: &MemberName,
    network: Option<NetworkId>,
) -> Result<NameClaim, StateError> {
    let claim = StateDir::claim_name(state, name, network)?;
    match kept(state, name.as_str()).map(|other| other.id()) {
        Some(other) if other.is_none() || other != network => {
            Err(StateError::NameTaken { name: name.clone(), network: other })
        }
        _ => Ok(claim),
    }
}

/// Returns the text of a static network's file that `join` is given; `None` for anything else.
pub(super) fn text_of(file: &Path) -> Option<String> {
    let has_name = file.extension().is_some_and(|end| end == "toml");
    let is_file = |data: &fs::Metadata| data.is_file() && data.len() <= MAX_BYTES;
    let text = fs::metadata(file).ok().filter(is_file).and_then(|_| fs::read_to_string(file).ok())?;
    let has_member = || text.lines().any(|line| line.trim() == "[[member]]");
    (!peersock::Invite::is_claimed_by(text.trim()) && (has_name || has_member())).then_some(text)
}

/// Keeps a static network by a local name, in place of an earlier copy of its file.
pub(super) fn keep(state: &Path, given: &Path, text: &str, local: Option<&MemberName>) -> Outcome<Kept> {
    let shown = given.display().to_string();
    let network = Network::from_file(given).map_err(|error| match config::syntax_error(text) {
        Some((line, column, what)) => Failure::usage(
            format_args!("{}:{line}:{column}: {what}", output::escape(&shown)),
            "correct the TOML there; docs/use/NETWORKS.md describes the file",
        ),
        None => Failure::network_file(&shown, error),
    })?;
    let id = network.id();
    let is_same = Network::parse_toml(text).is_ok_and(|parsed| parsed.id() == id);
    if !is_same {
        return Err(Failure::new(
            format_args!("{} has changed while it was read", output::escape(&shown)),
            "run the command again",
        ));
    }
    let earlier = all_kept(state).into_iter().find(|one| one.id() == Some(id));
    let stem = given.file_stem().and_then(|stem| stem.to_str()).map(str::to_ascii_lowercase);
    // The author of a file chooses the ID, so the ID alone replaces nothing.
    if let Some(earlier) = &earlier
        && local.map(MemberName::as_str).or(stem.as_deref()) != Some(&*earlier.name)
    {
        let name = &earlier.name;
        return Err(Failure::usage(
            format_args!("network {id} is kept here as {name} already, and its file may have other members"),
            format_args!(
                "give --as {name} to replace the file by this one, or run `peersock leave {name}` before"
            ),
        ));
    }
    let own = earlier.map(|earlier| earlier.name.parse().expect("its file has the name"));
    let (name, _claim) = match local.cloned().or(own) {
        Some(name) => {
            super::create::check_no_id(&name, Some(id))?;
            let claim = claim_name(state, &name, Some(id))?;
            (name, claim)
        }
        None => {
            let suggested = stem.and_then(|stem| stem.parse().ok());
            let claimed = suggested.map(|name| super::join::claimed(state, id, &name)).transpose()?.flatten();
            claimed.ok_or_else(|| {
                Failure::usage(
                    format_args!("{} suggests no name for the network", output::escape(&shown)),
                    "give it one with --as NAME",
                )
            })?
        }
    };
    let folder = StateDir::static_networks(state);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| {
        Failure::new(
            format_args!("{} cannot be made: {error}", folder.display()),
            "check the disk and the permissions of the state directory",
        )
    })?;
    let path = folder.join(format!("{name}{SUFFIX}"));
    file::replace_private(&path, text)?;
    Ok(Kept { name: name.to_string(), path })
}

/// Forgets a network.
pub(super) fn remove(kept: &Kept) -> Outcome {
    fs::remove_file(&kept.path).map_err(|error| {
        Failure::new(
            format_args!("{} cannot be removed: {error}", kept.path.display()),
            "check the permissions of the state directory",
        )
    })
}
