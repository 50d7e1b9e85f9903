//! Roots and TURN servers named by options: parsing of texts, and files with them.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use peersock::interfaces::{LoadTurnError, Target, Transport, load_turn_servers};
use peersock::state::read_secret_file;
use peersock::{RootAddress, RootSource, TurnServer, TurnServerError};
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome, ROOT_HINT, roots_failure};

/// Format hint for TURN servers.
const TURN_HINT: &str = "write % and two hexadecimal digits for a colon in the user name, and for spaces; docs/use/TURN.md says more";

/// Parses the texts of `--root`; roots with keys get the token from the file.
pub(crate) fn roots(texts: &[String], token_file: Option<&Path>) -> Outcome<Vec<RootSource>> {
    let mut roots = Vec::new();
    for text in texts {
        let found = RootSource::load(text).map_err(|error| roots_failure("--root", error))?;
        if found.is_empty() {
            return Err(Failure::usage("--root names no root: its text is empty", ROOT_HINT));
        }
        roots.extend(found);
    }
    if let Some(path) = token_file {
        let token = read_token(path)?;
        for source in &mut roots {
            if let RootSource::Address(root) = source
                && root.token().is_none()
            {
                let root = root.clone().with_token(token.as_bytes());
                *source = root.expect("the length of the token was checked").into();
            }
        }
    }
    Ok(roots)
}

/// Parses the texts of `--turn`.
pub(crate) fn turn_servers(texts: &[Zeroizing<String>]) -> Outcome<Vec<TurnServer>> {
    let mut servers = Vec::new();
    for text in texts {
        if text.trim().is_empty() {
            return Err(Failure::usage(format_args!("--turn: {}", TurnServerError::Empty), TURN_HINT));
        }
        servers.extend(load_turn_servers(text).map_err(turn_failure)?);
    }
    Ok(servers)
}

/// Returns the failure without the text, because it contains a password.
fn turn_failure(error: LoadTurnError) -> Failure {
    match error {
        LoadTurnError::File(error) => Failure::file(
            error,
            "correct --turn, or write the texts into a file of mode 0600, and give its path",
        ),
        LoadTurnError::Nothing(_) => Failure::usage(
            format_args!("--turn: {error}"),
            "write turn:USER:PASSWORD@HOST:PORT into it, or leave --turn out",
        ),
        error => Failure::usage(format_args!("--turn: {error}"), TURN_HINT),
    }
}

/// Minimum length of an access token without a warning, in bytes: 128 random bits in base64.
pub(crate) const STRONG_TOKEN: usize = 22;

/// Generates an access token of 192 random bits, as text, and writes it to a new file of mode 0600.
pub(crate) fn new_token(path: &Path) -> Outcome<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; 24]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| {
        Failure::new(format_args!("the system has no randomness: {error}"), "try again in a moment")
    })?;
    let token = Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_slice()));
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
            file.write_all(format!("{}\n", *token).as_bytes())?;
            file.sync_all()
        });
    written.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AlreadyExists => "use the token in it with --access-token-file, or give another path",
            _ => "give a path of a file that can be made",
        };
        Failure::new(format_args!("{} cannot be written: {error}", path.display()), hint)
    })?;
    Ok(token)
}

/// Parses a STUN server's address.
pub(crate) fn parse_stun_server(text: &str) -> Result<Target, String> {
    Target::parse(text, Transport::Udp).ok_or_else(|| format!("'{text}' is not HOST:PORT"))
}

/// Reads the token that a root requires.
pub(crate) fn read_token(path: &Path) -> Outcome<Zeroizing<String>> {
    let text = read_secret_file(path).map_err(|error| {
        Failure::file(error, "write the token into a file of mode 0600, and give its path")
    })?;
    // Removes the line feed that editors and echo append to a file.
    let token = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if token.is_empty() || token.len() > RootAddress::MAX_TOKEN {
        return Err(Failure::usage(
            format_args!("{} holds no token of 1 to 255 bytes", path.display()),
            "write the text of the root's file into it, which `peersock root --new-token FILE` makes",
        ));
    }
    Ok(token)
}
