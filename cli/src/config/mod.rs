//! The user's file of settings, `~/.config/peersock/config.toml`: where it is, and what it holds.
//!
//! [`apply()`] makes its settings the defaults of the options of a node, so that all other code sees them as
//! if they were given on the command line. An option, and then an environment variable, replaces a setting of
//! the file. `-n` finds the names of its networks ([`network`]).

mod apply;
mod parse;
mod read;

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::sync::OnceLock;

use peersock::settings::Setting;

use crate::failure::Outcome;

pub(crate) use apply::{apply, is_of_file, name_used, with_origin};
pub(crate) use parse::{has_secret, syntax_error};

/// Content of the file.
#[derive(Default)]
pub(crate) struct Config {
    path: PathBuf,
    options: Vec<Assigned>,
    networks: BTreeMap<String, LocalNetwork>,
}

/// Setting of the file.
struct Assigned {
    setting: &'static Setting,
    /// Values of the setting's option.
    values: Vec<String>,
    /// The file and the line in it, for people.
    place: String,
}

/// Network that the file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalNetwork {
    /// ID, or the path of the file of a static network.
    pub(crate) network: String,
    /// File with the passphrase of an ad-hoc network.
    pub(crate) secret_file: Option<PathBuf>,
    /// The user's file and the line in it, for people.
    pub(crate) place: String,
}

impl LocalNetwork {
    /// Returns the text that says where a network's name is from.
    pub(crate) fn origin(&self, name: &str) -> String {
        format!("{name} is from {}", self.place)
    }
}

/// Returns the content of the user's file, which is read once. It is empty if there is no file.
fn config() -> Outcome<&'static Config> {
    config_in(env::home_dir())
}

/// Returns the content of the file of the user with this home; see [`config`].
fn config_in(home: Option<PathBuf>) -> Outcome<&'static Config> {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config);
    }
    let config = match read::read(home.as_deref())? {
        Some((path, text)) => parse::parse(path, home, &text)?,
        None => Config::default(),
    };
    Ok(CONFIG.get_or_init(|| config))
}

/// Returns the network that has a local name.
pub(crate) fn network(name: &str) -> Outcome<Option<&'static LocalNetwork>> {
    Ok(config()?.networks.get(name))
}

/// Returns the file's path, if it names networks.
pub(crate) fn path_with_networks() -> Option<String> {
    let config = config().ok().filter(|config| !config.networks.is_empty())?;
    Some(config.path.display().to_string())
}
