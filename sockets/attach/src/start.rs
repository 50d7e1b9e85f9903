//! Start of the node by the first program.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use peersock::settings::{BUSY_POLL_VARIABLE, DHT_VARIABLE, ROOTS_VARIABLE, STUN_VARIABLE, TURN_VARIABLE};
use rustix::process::{Resource, child_subreaper, getegid, geteuid, getgid, getpid, getrlimit, getuid};

/// Variable that names the program `peersock` for programs that start a node by it.
const PROGRAM: &str = "PEERSOCK_PROGRAM";

/// Name of the program in the folders of `PATH`.
const NAME: &str = "peersock";

/// Limit of processes below which this process starts no node for others, which takes threads for each.
const MIN_PROCESSES: u64 = 1024;

/// Limit of descriptors below which this process starts no node for others.
const MIN_DESCRIPTORS: u64 = 1024;

/// Time in which the started process hands over to the node's, which takes milliseconds.
const HANDOVER: Duration = Duration::from_secs(10);

/// Intervals of checks whether it has: the first, and the longest.
const FIRST_LOOK: Duration = Duration::from_micros(500);
const LAST_LOOK: Duration = Duration::from_millis(20);

/// Variables that a node does not inherit: the first program's libraries and secret, and the node of an outer
/// program.
const FOREIGN: [&str; 8] = [
    "LD_PRELOAD",
    "PEERSOCK_NODE",
    "PEERSOCK_RULES",
    "PEERSOCK_SECRET",
    "PEERSOCK_TICKET",
    "PEERSOCK_CODE",
    "PEERSOCK_SEND_CODE",
    "PEERSOCK_INVITE",
];

/// Variables of settings. A node does not inherit their values, which the first message has, but inherits
/// empty ones: they replace settings of the user's file by nothing.
const OF_SETTINGS: [&str; 6] =
    ["PEERSOCK_INTERFACE", ROOTS_VARIABLE, DHT_VARIABLE, TURN_VARIABLE, STUN_VARIABLE, BUSY_POLL_VARIABLE];

/// The command that starts the node.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The `peersock` program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Launch {
    /// Returns the command by which a program starts the node in a state directory.
    pub fn new(program: PathBuf, state: &Path) -> Launch {
        let mut named = OsString::from("--state=");
        named.push(state);
        Launch { program, arguments: vec!["node".into(), "--background".into(), named] }
    }

    /// Returns the command with the installed program: the one that `PEERSOCK_PROGRAM` names, or else the
    /// first `peersock` in `PATH`. Relative paths do not count. Returns `None` if there is no such program,
    /// or this process may start no node.
    pub fn installed(state: &Path) -> Option<Launch> {
        // A program with more rights than its starter must not follow variables that the starter has chosen.
        if has_more_rights() || !may_start_node() {
            return None;
        }
        let program = find_program(env::var_os(PROGRAM).as_deref(), env::var_os("PATH").as_deref())?;
        Some(Launch::new(program, state))
    }

    /// Starts the node's process, which serves the returned connection first. The process is no child of this
    /// one when this returns, so it is not waited for, and its end is not noticed.
    ///
    /// # Errors
    /// The program cannot be started, or is none that starts a node.
    pub(crate) fn start(&self) -> io::Result<UnixStream> {
        let (own, its) = UnixStream::pair()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(OwnedFd::from(its)).stdout(Stdio::null()).stderr(Stdio::null());
        let has_value = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
        for variable in FOREIGN.into_iter().chain(OF_SETTINGS.into_iter().filter(has_value)) {
            command.env_remove(variable);
        }
        wait_for_handover(command.spawn()?, HANDOVER)?;
        Ok(own)
    }
}

/// Waits for the started process, which ends at once: its own child is the node.
fn wait_for_handover(mut child: Child, within: Duration) -> io::Result<()> {
    let (begun, mut look) = (Instant::now(), FIRST_LOOK);
    loop {
        match child.try_wait() {
            Ok(Some(status)) if !status.success() => {
                return Err(io::Error::other(format!("the node's process has ended at once: {status}")));
            }
            // If SIGCHLD is ignored, or another thread waits for any child, the status is lost.
            Ok(Some(_)) | Err(_) => return Ok(()),
            Ok(None) if begun.elapsed() >= within => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the program starts no node"));
            }
            Ok(None) => thread::sleep(look),
        }
        look = LAST_LOOK.min(look * 2);
    }
}

/// Returns true if this process may start a node for others. The limits of one program would end it, and an
/// outer `peersock run`, or this process if it adopts orphans, would wait for it.
pub fn may_start_node() -> bool {
    let limits = [Resource::Cpu, Resource::As, Resource::Data, Resource::Fsize];
    let has_descriptors = getrlimit(Resource::Nofile).maximum.is_none_or(|limit| limit >= MIN_DESCRIPTORS);
    let has_processes = getrlimit(Resource::Nproc).current.is_none_or(|limit| limit >= MIN_PROCESSES);
    let adopts = getpid().is_init() || child_subreaper().is_ok_and(|reaper| reaper.is_some());
    !adopts
        && has_descriptors
        && (has_processes || geteuid().is_root())
        && limits.into_iter().all(|limit| getrlimit(limit).current.is_none())
        && env::var_os(peersock_socket_server::ENVIRONMENT).is_none_or(|value| value.is_empty())
}

/// Returns true if another process starts no node for others because of its limits; see [`may_start_node`].
pub fn has_low_limits(process: u32) -> bool {
    let files = PathBuf::from(format!("/proc/{process}"));
    let is_root = files.metadata().is_ok_and(|file| file.uid() == 0);
    fs::read_to_string(files.join("limits")).is_ok_and(|limits| are_low(&limits, is_root))
}

/// Returns true if a process with these limits, as `/proc/PID/limits` lists them, starts no node.
fn are_low(limits: &str, is_root: bool) -> bool {
    let limit = |name: &str, column| {
        let of_name = limits.lines().find_map(|line| line.strip_prefix(name))?;
        of_name.split_whitespace().nth(column)?.parse::<u64>().ok()
    };
    let is_limited = |name: &&str| limit(name, SOFT).is_some();
    let all = ["Max cpu time", "Max address space", "Max data size", "Max file size"];
    all.iter().any(is_limited)
        || limit("Max open files", HARD).is_some_and(|limit| limit < MIN_DESCRIPTORS)
        || !is_root && limit("Max processes", SOFT).is_some_and(|limit| limit < MIN_PROCESSES)
}

/// Columns of `/proc/PID/limits` after the name.
const SOFT: usize = 0;
const HARD: usize = 1;

/// Returns true if this process has rights that its starter lacks, or has put aside some that it had.
fn has_more_rights() -> bool {
    peersock_socket_server::is_secure_execution() || getuid() != geteuid() || getgid() != getegid()
}

/// Returns the program that a variable names, or else the first one in the folders of `path`.
fn find_program(named: Option<&OsStr>, path: Option<&OsStr>) -> Option<PathBuf> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        return is_program(&named).then_some(named);
    }
    env::split_paths(path?).map(|folder| folder.join(NAME)).find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    let is_executable = |file: fs::Metadata| file.is_file() && file.permissions().mode() & 0o111 != 0;
    path.is_absolute() && path.metadata().is_ok_and(is_executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_named_one_or_the_first_in_the_path_and_never_a_relative_one() {
        let place = tempfile::tempdir().expect("room");
        let folders = ["empty", "first", "second", "plain"].map(|name| place.path().join(name));
        folders.iter().for_each(|folder| fs::create_dir(folder).expect("a new folder"));
        let [empty, first, second, plain] = folders;
        for (folder, mode) in [(&first, 0o755), (&second, 0o700), (&plain, 0o644)] {
            let program = folder.join(NAME);
            fs::write(&program, "").expect("room");
            fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("an own file");
        }
        fs::create_dir(empty.join(NAME)).expect("a new folder");
        let path = |folders: &[&Path]| env::join_paths(folders).expect("no colons");
        let in_path = |folders: &[&Path]| find_program(None, Some(&path(folders)));
        assert_eq!(in_path(&[&empty, &plain, &second, &first]), Some(second.join(NAME)));
        assert_eq!(in_path(&[&empty, &plain]), None);
        assert_eq!(find_program(None, None), None);
        // A relative path to the same file.
        let here = env::current_dir().expect("a folder");
        let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
        let relative = up.join(first.strip_prefix("/").expect("it is absolute"));
        assert!(relative.join(NAME).is_file(), "the file is found by it");
        assert_eq!(in_path(&[&relative, Path::new(""), Path::new(".")]), None);
        let all = path(&[&first]);
        let named = |named: &Path| find_program(Some(named.as_os_str()), Some(&all));
        assert_eq!(named(&second.join(NAME)), Some(second.join(NAME)));
        assert_eq!(named(Path::new("")), Some(first.join(NAME)), "an empty variable names none");
        for wrong in [relative.join(NAME), plain.join(NAME), place.path().join("none"), NAME.into()] {
            assert_eq!(named(&wrong), None, "{}", wrong.display());
        }
    }

    #[test]
    fn limits_of_another_process_are_read_as_those_of_this_one() {
        let limits = |space: &str, files: u64, processes: u64| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max cpu time              unlimited            unlimited            seconds   \n\
                 Max address space         {space:<20} unlimited            bytes     \n\
                 Max open files            256                  {files:<20} files     \n\
                 Max processes             {processes:<20} 4096                 processes \n"
            )
        };
        assert!(!are_low(&limits("unlimited", 1024, 1024), false));
        assert!(are_low(&limits("1000000", 1024, 1024), false));
        assert!(are_low(&limits("unlimited", 1023, 1024), true));
        assert!(are_low(&limits("unlimited", 1024, 1023), false));
        assert!(!are_low(&limits("unlimited", 1024, 1023), true), "root has no limit of processes");
        assert!(!has_low_limits(0), "there is no such process");
    }

    #[test]
    fn a_program_that_does_not_hand_over_is_ended() {
        let program = || Command::new("sleep").arg("1000").spawn().expect("it is installed");
        let child = program();
        let process = child.id();
        let error = wait_for_handover(child, Duration::from_millis(50)).expect_err("it goes on");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(!Path::new(&format!("/proc/{process}")).exists(), "it has ended, and was waited for");
    }

    #[test]
    fn a_program_that_fails_starts_no_node() {
        let launch = Launch::new("/bin/false".into(), Path::new("/nowhere"));
        assert_eq!(launch.arguments, ["node", "--background", "--state=/nowhere"]);
        let error = launch.start().expect_err("it ends with 1");
        assert!(error.to_string().contains("exit status: 1"), "{error}");
        assert!(Launch::new("/none/such".into(), Path::new("/nowhere")).start().is_err());
    }
}
