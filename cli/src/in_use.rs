//! Failures because another process uses a state directory. Their hints lead to two commands that run.

use std::fs;
use std::path::Path;

use peersock::Network;
use peersock::state::{StateDir, StateError};
use peersock_attach::{Attached, has_low_limits};

use crate::args::{OWN_NODE, StateArgs};
use crate::config;
use crate::failure::{Failure, Outcome};

/// Commands that share a node unless their user wants otherwise.
const SHARING: [&str; 8] = ["run", "dial", "listen", "forward", "proxy", "rest", "ping", "members"];

/// Uses of a directory, for people.
const UNSHARED: &str = "which shares no node there";
const SHARED: &str = "whose node other programs share, and this command needs a separate node";

/// Process that uses a state directory.
struct Holder {
    process: Option<u32>,
    /// Words of its command line.
    words: Vec<String>,
}

impl Holder {
    fn of(process: Option<u32>) -> Holder {
        let line = process.and_then(|process| fs::read(format!("/proc/{process}/cmdline")).ok());
        let words = line.unwrap_or_default();
        let words = words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        Holder { process, words: words.collect() }
    }

    /// Returns the process, for people.
    fn name(&self) -> String {
        self.process.map_or_else(|| "another process".to_owned(), |process| format!("process {process}"))
    }

    /// Returns the command of `peersock`; `None` for another program, or an unknown one.
    fn command(&self) -> Option<&str> {
        let (program, words) = self.words.split_first()?;
        let is_own = program.rsplit('/').next() == Some("peersock");
        words.iter().find(|word| is_own && !word.starts_with('-')).map(String::as_str)
    }

    /// Returns true if it would share a node, and its user wants another one.
    fn wants_own_node(&self) -> bool {
        let shares = self.command().is_some_and(|command| SHARING.contains(&command));
        let is_wish = |word: &String| {
            let option = word.split('=').next().unwrap_or_default();
            option == "--own-node" || option == "--as"
        };
        shares && (self.words.iter().any(is_wish) || self.has_variable("PEERSOCK_OWN_NODE"))
    }

    fn has_variable(&self, name: &str) -> bool {
        let Some(process) = self.process else { return false };
        let variables = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let value =
            |variable: &[u8]| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::len);
        variables.split(|byte| *byte == 0).filter_map(value).any(|len| len > 0)
    }

    /// Returns true if it would share a node, and its limits keep it from starting one for others.
    fn is_limited(&self) -> bool {
        let shares = self.command().is_none_or(|command| SHARING.contains(&command));
        shares && self.process.is_some_and(has_low_limits)
    }

    /// Returns true for a node in the background, which ends after its last program.
    fn is_in_background(&self) -> bool {
        self.words.iter().any(|word| word == "--detached")
    }

    /// Returns the advice to end it.
    fn end(&self) -> String {
        match self.process {
            Some(process) => format!("end it (`kill {process}`)"),
            None => "end it".to_owned(),
        }
    }
}

/// Returns the failure of a command that would share a node, if the holder shares none.
pub(crate) fn by_unshared(path: &Path, holder: Option<u32>, networks: &[Network]) -> Failure {
    let found = Holder::of(holder);
    let end = found.end();
    let advice = match found.command() {
        _ if found.wants_own_node() => {
            format!(
                "{end} and start it again without --own-node or PEERSOCK_OWN_NODE, so that both share a node"
            )
        }
        _ if found.is_limited() => {
            format!(
                "{end}, start `peersock node` where its limits (`ulimit -a`) are not set, and then both \
                 again, which share that node"
            )
        }
        // Its socket was removed.
        Some("node") => format!("try again in 10 s, when the node has made its socket again, or {end}"),
        Some(_) => end,
        // A program in C or Python uses the shared node that runs when it starts.
        None => format!("{end}, start this command, and then that program again, which shares its node"),
    };
    failure(path, &found, UNSHARED, &advice, networks)
}

/// Returns the failure of a command that needs its own node.
pub(crate) fn for_own_node(path: &Path, holder: Option<u32>, networks: &[Network]) -> Failure {
    let found = Holder::of(holder);
    let own = config::name_used(OWN_NODE.0).map(|name| match name.starts_with('-') {
        true => format!("leave {name} out"),
        false => format!("unset {name}"),
    });
    if !Attached::is_offered(path) {
        let advice = match own {
            Some(own) if found.wants_own_node() => {
                format!("{}, and {own} here and there, so that both share a node", found.end())
            }
            _ => found.end(),
        };
        return failure(path, &found, UNSHARED, &advice, networks);
    }
    let advice = match own {
        Some(own) => format!("{own}, to share that node"),
        None => end_shared(path, &found),
    };
    failure(path, &found, SHARED, &advice, networks)
}

/// Opens the directory of `peersock node` or `peersock root`.
pub(crate) fn open(path: &Path) -> Outcome<StateDir> {
    StateDir::open(path).map_err(|error| {
        let StateError::InUse { path, holder } = error else { return error.into() };
        let found = Holder::of(holder);
        let advice = match Attached::is_offered(&path) {
            true => end_shared(&path, &found),
            false => found.end(),
        };
        Failure::new(
            format_args!("state directory {} is in use by {}", path.display(), found.name()),
            format_args!("{advice}; or, to keep both, give another directory by --state DIR"),
        )
    })
}

/// Returns the failure of a command in these networks. `what` says how the holder uses the directory.
fn failure(path: &Path, holder: &Holder, what: &str, advice: &str, networks: &[Network]) -> Failure {
    // Only an identity that a network's file lists is a member there.
    let identity = match networks.iter().any(|network| network.summary().closed) {
        true => "another member's --state DIR",
        false => "--ephemeral or another --state DIR",
    };
    Failure::new(
        format_args!("state directory {} is in use by {}, {what}", path.display(), holder.name()),
        format_args!("{advice}; or, to keep both, give {identity}"),
    )
}

/// Returns the advice to end a shared node.
fn end_shared(path: &Path, holder: &Holder) -> String {
    if !holder.is_in_background() {
        return holder.end();
    }
    let usual =
        StateArgs { state: None, ephemeral: false }.path().and_then(|usual| Ok(usual.canonicalize()?));
    let state = match usual {
        Ok(usual) if path.canonicalize().is_ok_and(|path| path == usual) => String::new(),
        _ => format!(" --state {}", quoted(&path.display().to_string())),
    };
    format!("end the programs that use it (`peersock status{state}` names them)")
}

/// Returns a word as a shell reads it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,+@%".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_holder_is_found() {
        let command = |words: &[&str]| {
            let words = words.iter().map(ToString::to_string).collect();
            Holder { process: None, words }.command().map(str::to_owned)
        };
        assert_eq!(command(&["/usr/bin/peersock", "-v", "rest", "-n", "x"]).as_deref(), Some("rest"));
        assert_eq!(command(&["python3", "rest.py"]), None);
        assert_eq!(command(&[]), None);
    }
}
