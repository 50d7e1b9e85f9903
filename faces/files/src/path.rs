//! Paths on the wire. None of them leads out of the folder in which it is used.

use std::cmp::Ordering;
use std::fmt;

use peersock_primitives::is_deceptive;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{DEPTH, NAME_BYTES, PATH_BYTES};

/// Suffix of partial files' names; entries must not have it.
pub(crate) const PART_SUFFIX: &str = ".peersock-part";

/// The path of an entry below the receiver's folder: names separated by slashes.
///
/// No name is empty, `.` or `..`, longer than 255 bytes, or contains a backslash or control characters. Those
/// include characters that change the direction of text: `gnp.exe` could be shown as `exe.png`. Paths are
/// ordered so that a folder precedes its content.
///
/// ```
/// use peersock_files::EntryPath;
///
/// let path = EntryPath::parse("photos/2026/sea.jpg")?;
/// assert_eq!((path.name(), path.depth()), ("sea.jpg", 3));
/// for bad in ["", "/etc/passwd", "..", "a/../b", "a//b", "a\\b", "a\0b", "./a", "a/", "\u{202e}gnp.exe"] {
///     assert!(EntryPath::parse(bad).is_err(), "{bad}");
/// }
/// # Ok::<(), peersock_files::PathError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryPath(String);

impl EntryPath {
    /// Checks a path.
    ///
    /// # Errors
    /// [`PathError`] names the broken rule.
    pub fn parse(text: &str) -> Result<EntryPath, PathError> {
        if text.len() > PATH_BYTES {
            return Err(PathError::Long);
        }
        let mut depth = 0;
        for name in text.split('/') {
            check_name(name)?;
            depth += 1;
        }
        if depth > DEPTH {
            return Err(PathError::Deep);
        }
        Ok(EntryPath(text.to_owned()))
    }

    /// Returns the path of the entry with this name in this folder.
    /// Errors: see [`EntryPath::parse`].
    pub fn join(&self, name: &str) -> Result<EntryPath, PathError> {
        // Rejects a slash, which would separate several names.
        check_name(name)?;
        EntryPath::parse(&format!("{}/{name}", self.0))
    }

    /// Returns the names, starting with the outermost folder.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Returns the last name.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().expect("one at least")
    }

    /// Returns the path of the folder that contains the entry; `None` at the outermost level.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// Returns the number of names.
    pub fn depth(&self) -> usize {
        self.names().count()
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for EntryPath {
    fn cmp(&self, other: &EntryPath) -> Ordering {
        self.names().cmp(other.names())
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &EntryPath) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for EntryPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<EntryPath, PathError> {
        EntryPath::parse(&text)
    }
}

impl From<EntryPath> for String {
    fn from(path: EntryPath) -> String {
        path.0
    }
}

/// Target of a symbolic link: relative, with `..` only at its beginning.
///
/// A name in the middle may be another link, so `..` after a name could lead anywhere. `..` at the beginning
/// goes up from the link's own folder, which is a real folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkTarget(String);

impl LinkTarget {
    /// Checks a target.
    ///
    /// # Errors
    /// [`PathError`] names the broken rule.
    pub fn parse(text: &str) -> Result<LinkTarget, PathError> {
        if text.len() > PATH_BYTES {
            return Err(PathError::Long);
        }
        let names = text.split('/').skip_while(|name| *name == "..");
        let mut count = 0;
        for name in names {
            check_name(name)?;
            count += 1;
        }
        if count > DEPTH || text.split('/').count() > DEPTH {
            return Err(PathError::Deep);
        }
        Ok(LinkTarget(text.to_owned()))
    }

    /// Returns true if a link at `path` stays in that path's outermost folder, regardless of other links.
    pub fn stays_inside(&self, path: &EntryPath) -> bool {
        let up = self.0.split('/').take_while(|name| *name == "..").count();
        // The link's name and each `..` remove one name; the outermost name must remain.
        path.depth() >= up + 2
    }

    /// Returns the target as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LinkTarget {
    type Error = PathError;

    fn try_from(text: String) -> Result<LinkTarget, PathError> {
        LinkTarget::parse(&text)
    }
}

impl From<LinkTarget> for String {
    fn from(target: LinkTarget) -> String {
        target.0
    }
}

fn check_name(name: &str) -> Result<(), PathError> {
    match name {
        "" => Err(PathError::Empty),
        "." | ".." => Err(PathError::Dots),
        _ if name.len() > NAME_BYTES => Err(PathError::Long),
        // Rejects a backslash, because it separates names on other systems.
        _ if name.contains(|c| is_deceptive(c) || c == '\\' || c == '/') => Err(PathError::Character),
        _ if name.ends_with(PART_SUFFIX) => Err(PathError::Part),
        _ => Ok(()),
    }
}

/// Reason why a path or a target is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathError {
    /// It begins or ends with a slash, has two slashes in a row, or is empty.
    #[error("it has an empty name in it")]
    Empty,
    /// It contains `.` or `..` in a place for names.
    #[error("it has . or .. in it")]
    Dots,
    /// A name is longer than 255 bytes, or the path longer than 4096.
    #[error("it is too long")]
    Long,
    /// It has more than 128 names.
    #[error("it has too many folders")]
    Deep,
    /// It contains a backslash, a zero byte or another control character (some of them change the direction
    /// of text), or an invisible character.
    #[error("it has a backslash, or a control or invisible character")]
    Character,
    /// It has a partial file's name.
    #[error("it has the name of a partial file")]
    Part,
}
