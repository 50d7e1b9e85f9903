//! `peersock controller --install`: a systemd unit that runs the controller.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use peersock::NetworkId;
use tempfile::NamedTempFile;

use crate::config::has_secret;
use crate::failure::{Failure, Outcome};
use crate::output::{escape, print};
use crate::stdio;

/// First line of the units that this module writes, so that no other file is replaced.
const MARK: &str = "# Written by `peersock controller --install`";

/// Variables that the unit keeps. Others may be secrets, and all users can read those of a system unit.
const KEPT: [&str; 12] = [
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "PEERSOCK_BUSY_POLL",
    "PEERSOCK_CONFIG",
    "PEERSOCK_DHT",
    "PEERSOCK_INTERFACE",
    "PEERSOCK_LOG",
    "PEERSOCK_PERSIST",
    "PEERSOCK_ROOTS",
    "PEERSOCK_STUN",
    "PEERSOCK_TURN",
];

/// Writes the unit of a controller: a system unit for root, a user unit for others. Tells its use.
pub(super) fn install(state: &Path, name: &str, id: NetworkId, is_named: bool) -> Outcome {
    let is_system = rustix::process::geteuid().is_root();
    let unit = format!("peersock-controller-{id}.service");
    let folder = folder(is_system)?;
    let path = folder.join(&unit);
    let failed = |error: io::Error| {
        Failure::new(
            format_args!("{} cannot be written: {error}", escape(&path.display().to_string())),
            "check the directory and its permissions",
        )
    };
    match fs::read_to_string(&path) {
        Ok(text) if !text.starts_with(MARK) => {
            return Err(Failure::new(
                format_args!("{} is there, and not written by this command", path.display()),
                "remove it first",
            ));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let text = text(state, name, id, is_named, is_system)?;
    fs::create_dir_all(&folder).map_err(failed)?;
    // Other users must not see what runs here.
    let mut file = NamedTempFile::new_in(&folder).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    print(format_args!("wrote {}", escape(&path.display().to_string())))?;
    let (user, shown) = (if is_system { "" } else { " --user" }, quoted(&path.display().to_string()));
    let lines = [
        format!("start it: systemctl{user} daemon-reload && systemctl{user} enable --now {unit}"),
        format!("look at it: systemctl{user} status {unit}; journalctl{user} -u {unit}"),
        format!("remove it: systemctl{user} disable --now {unit} && rm {shown}"),
    ];
    lines.iter().for_each(stdio::note);
    if !is_system {
        stdio::note("it ends when you log out, unless `loginctl enable-linger` was run once");
    }
    Ok(())
}

/// Returns the directory of units.
fn folder(is_system: bool) -> Outcome<PathBuf> {
    if is_system {
        return Ok("/etc/systemd/system".into());
    }
    let named = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = named.or_else(|| Some(env::home_dir()?.join(".config")));
    let config = config.ok_or_else(|| Failure::new("this user has no home directory", "set HOME"))?;
    Ok(config.join("systemd/user"))
}

/// Returns the text of the unit, which runs this program with the arguments that it has now.
fn text(state: &Path, name: &str, id: NetworkId, is_named: bool, is_system: bool) -> Outcome<String> {
    let (program, here) = (env::current_exe()?, env::current_dir()?);
    let arguments = env::args_os().skip(1).filter(|argument| argument != "--install");
    // The only network here today need not be the only one tomorrow.
    let network = [OsString::from("-n"), id.to_string().into()];
    let network = network.into_iter().filter(|_| !is_named);
    let mut words = vec![word_of(program.into_os_string(), Kind::Literal)?];
    for word in arguments.chain(network) {
        refuse_secret("roots", &word)?;
        words.push(word_of(word, Kind::Word)?);
    }
    let kept = env::vars_os().filter(|(variable, _)| KEPT.contains(&&*variable.to_string_lossy()));
    // systemd ends a node that a unit has started in the background together with the unit.
    let own = [("PEERSOCK_OWN_NODE", "1".into()), ("PEERSOCK_STATE", std::path::absolute(state)?.into())];
    let own = own.map(|(variable, value): (&str, OsString)| (variable.into(), value));
    let mut all: Vec<(OsString, OsString)> = kept.chain(own).collect();
    all.sort();
    let mut environment = String::new();
    for (variable, value) in all {
        refuse_secret(if variable == "PEERSOCK_TURN" { "turn" } else { "roots" }, &value)?;
        let mut assigned = variable;
        assigned.push("=");
        assigned.push(value);
        let _ = writeln!(environment, "Environment={}", word_of(assigned, Kind::Literal)?);
    }
    let (after, wanted_by) = match is_system {
        true => ("Wants=network-online.target\nAfter=network-online.target\n", "multi-user.target"),
        false => ("", "default.target"),
    };
    Ok(format!(
        "{MARK}\n[Unit]\nDescription=Controller of the peersock network {}\n\
         Documentation=man:peersock-controller(1)\n{after}\n\
         [Service]\nType=exec\n{environment}WorkingDirectory={}\nExecStart={}\n\
         SuccessExitStatus=130 143\nRestart=on-failure\nRestartSec=2\nTimeoutStopSec=30\nLimitNOFILE=65536\nNoNewPrivileges=yes\n\
         UMask=0077\n\n[Install]\nWantedBy={wanted_by}\n",
        escape(name).replace('%', "%%"),
        directory(here)?,
        words.join(" "),
    ))
}

/// Refuses a text with a secret, which all users could read in a system unit.
fn refuse_secret(setting: &str, text: &OsStr) -> Outcome {
    match has_secret(setting, &text.to_string_lossy()) {
        true => Err(Failure::usage(
            "the roots or TURN servers have a secret, which others could read in the unit",
            "write it into a file of mode 0600, and give @FILE, or --root-token-file FILE",
        )),
        false => Ok(()),
    }
}

/// Kind of a word of a unit.
#[derive(PartialEq)]
enum Kind {
    /// Part of a command line, in which systemd replaces variables.
    Word,
    /// The program, or an assignment, in which systemd replaces none.
    Literal,
}

/// Returns a word in the quotes of systemd.syntax(7), so that systemd reads the word itself.
fn word_of(word: OsString, kind: Kind) -> Outcome<String> {
    let word = utf8(word)?;
    let mut quoted = String::from("\"");
    for one in word.chars() {
        match one {
            '"' | '\\' => quoted.extend(['\\', one]),
            '%' => quoted.push_str("%%"),
            '$' if kind == Kind::Word => quoted.push_str("$$"),
            one if one.is_ascii_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(one));
            }
            one => quoted.push(one),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

/// Returns a directory for `WorkingDirectory=`, which knows no quotes.
fn directory(path: PathBuf) -> Outcome<String> {
    let text = utf8(path.into_os_string())?;
    match text.chars().any(char::is_control) || text.trim() != text || text.ends_with('\\') {
        true => Err(Failure::new(
            format_args!("a unit cannot name the directory {}", escape(&text)),
            "run the command in another directory",
        )),
        false => Ok(text.replace('%', "%%")),
    }
}

fn utf8(word: OsString) -> Outcome<String> {
    word.into_string().map_err(|word| {
        Failure::new(
            format_args!("a unit cannot have the text {}", escape(&word.to_string_lossy())),
            "use texts and paths in UTF-8",
        )
    })
}

/// Returns a path as a shell reads it.
fn quoted(path: &str) -> String {
    match path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        let word = |text: &str| word_of(text.into(), Kind::Word).expect("text");
        assert_eq!(word("a b"), r#""a b""#);
        assert_eq!(word("50% of $HOME \"\\"), r#""50%% of $$HOME \"\\""#);
        assert_eq!(word("a\nb"), r#""a\x0ab""#);
        let variable = word_of("A=$B %".into(), Kind::Literal).expect("text");
        assert_eq!(variable, r#""A=$B %%""#);
        assert_eq!(quoted("/home/it's/a"), r"'/home/it'\''s/a'");
        assert_eq!(quoted("/home/a.service"), "/home/a.service");
        assert!(directory("/a\nb".into()).is_err());
    }
}
