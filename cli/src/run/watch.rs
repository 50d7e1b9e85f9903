//! Verification that the preloaded library is loaded in the program, and in programs that it execs.
//!
//! Without the library, a program would silently use the system's network. So it is killed as soon as its
//! memory map shows that the loader has skipped the library. Preloaded libraries are mapped before all
//! others.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock_bsd::elf::{is_sanitizer, is_static};
use peersock_seccomp::Supervised;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::program;
use crate::stdio;

/// Phases with their polling intervals: often at first, when programs exec others, and rarely later.
const POLL_PHASES: [(Duration, Duration); 3] = [
    (Duration::from_millis(500), Duration::from_millis(5)),
    (Duration::from_secs(5), Duration::from_millis(25)),
    (Duration::MAX, Duration::from_secs(1)),
];

/// Path of Valgrind's tools: static programs that load the examined program, and the library with it.
const VALGRIND: &str = "/valgrind/";

/// A thread that inspects the program.
pub(super) struct Watch {
    /// Dropping it ends the thread.
    stop: Sender<()>,
    thread: JoinHandle<Verdict>,
    contacts: Box<dyn Fn() -> u64 + Send>,
}

/// The result of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The library was loaded.
    Reached,
    /// The library was not loaded, and the program was killed.
    Passed,
    /// The program ended before that could be determined.
    Unknown,
    /// As `Unknown`, because this process had no descriptors left for the inspection.
    Unseen,
}

/// The program that lacked the library in the previous inspection.
///
/// One inspection proves nothing, because the kernel returns a memory map in pieces. If the program execs
/// another meanwhile, the rest is missing, and with it the library, which is mapped above the others. While
/// libraries are being loaded, a piece can be older than the next one. So the next inspection must find the
/// same program without the library.
#[derive(Debug, Default)]
struct Suspicion(Option<Vec<u8>>);

impl Suspicion {
    /// Records an inspection that did not find the library. Returns true if the previous one did not find it
    /// in the same program, either.
    fn is_confirmed_by(&mut self, image: Option<Vec<u8>>) -> bool {
        image.is_some() && std::mem::replace(&mut self.0, image.clone()) == image
    }
}

/// The state that a process's memory map shows.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    Library,
    /// Other libraries, or a program that loads none; with the program's path.
    Passed(PathBuf),
    /// The program is still being loaded, or cannot be inspected.
    Nothing,
    /// This process has no descriptors left for the inspection.
    Unseen,
    /// The process has ended.
    End,
}

impl Watch {
    /// Starts watching a child that has not been waited for. `library` is a name in its memory map. A program
    /// without the library is accepted if it is `supervised`.
    pub(super) fn start(
        program: Pid,
        library: &str,
        supervised: Supervised,
        contacts: Box<dyn Fn() -> u64 + Send>,
    ) -> io::Result<Watch> {
        let handle = rustix::process::pidfd_open(program, PidfdFlags::empty())?;
        // Files below this directory belong to the same process, even if its PID is reused.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = rustix::fs::open(format!("/proc/{program}"), flags, Mode::empty())?;
        let (stop, stopped) = mpsc::channel::<()>();
        let library = library.to_owned();
        let thread = thread::Builder::new().name("watch".into()).spawn(move || {
            let start = Instant::now();
            let mut verdict = Verdict::Unknown;
            let mut image = None;
            let mut suspicion = Suspicion::default();
            loop {
                // The kernel generates this data anew for each exec, including random addresses.
                let now = read(&process, "auxv").ok().filter(|auxv| !auxv.is_empty());
                if now.is_none() || now != image {
                    match look(&process, &library) {
                        Sight::Library => (verdict, image) = (Verdict::Reached, now),
                        Sight::Passed(_) if supervised.has(program) => {
                            (verdict, image) = (Verdict::Reached, now);
                        }
                        Sight::Passed(_) if !suspicion.is_confirmed_by(now) => continue,
                        Sight::Passed(path) => {
                            // The process may have ended just now, or belong to another user since.
                            let _ = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
                            complain(&path);
                            return Verdict::Passed;
                        }
                        Sight::Nothing => {}
                        Sight::Unseen if verdict == Verdict::Unknown => verdict = Verdict::Unseen,
                        Sight::Unseen => {}
                        Sight::End => return verdict,
                    }
                }
                let step = POLL_PHASES.iter().find(|(until, _)| start.elapsed() < *until);
                let step = step.map_or(Duration::from_secs(1), |(_, step)| *step);
                if !matches!(stopped.recv_timeout(step), Err(RecvTimeoutError::Timeout)) {
                    return verdict;
                }
            }
        })?;
        Ok(Watch { stop, thread, contacts })
    }

    /// Ends the watch after the program has ended. Returns true if the library was loaded all the time.
    pub(super) fn finish(self, program: &std::path::Path) -> bool {
        drop(self.stop);
        match self.thread.join() {
            Ok(Verdict::Reached) => true,
            Ok(Verdict::Passed) => false,
            // The library contacts the node before the program begins.
            Ok(Verdict::Unknown | Verdict::Unseen) | Err(_) if (self.contacts)() > 0 => true,
            // The exit status counts, because a lack of descriptors does not mean a missing library.
            Ok(Verdict::Unseen) => {
                stdio::note(format_args!(
                    "this process had no descriptors to look whether {} has the library of peersock loaded, \
                     without which its sockets are the system's: raise the limit (`ulimit -n`)",
                    program.display()
                ));
                true
            }
            Ok(Verdict::Unknown) | Err(_) => {
                complain(program);
                false
            }
        }
    }
}

fn complain(program: &std::path::Path) {
    stdio::note(format!(
        "{} does not have the library of peersock loaded, so its sockets are the system's: it is ended. It is linked \
         statically, or what started it has called the system itself with another environment, or the system ignores \
         LD_PRELOAD for it; `--mode seccomp` does without the library",
        program.display()
    ));
}

/// Inspects the memory map of a process.
fn look(process: &OwnedFd, library: &str) -> Sight {
    let maps = match read(process, "maps") {
        Ok(maps) if maps.is_empty() => return Sight::End,
        Ok(maps) => String::from_utf8_lossy(&maps).into_owned(),
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::NOENT) => return Sight::End,
        Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => return Sight::Unseen,
        // The process protects itself (PR_SET_DUMPABLE).
        Err(_) => return Sight::Nothing,
    };
    let Ok(program) = rustix::fs::readlinkat(process, "exe", Vec::new()) else { return Sight::Nothing };
    let program = PathBuf::from(OsString::from_vec(program.into_bytes()));
    let is_static = || {
        let head = rustix::fs::openat(process, "exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        head.is_ok_and(|file| program::head(&File::from(file)).is_ok_and(|head| is_static(&head)))
    };
    judge(&maps, program, library, is_static)
}

fn judge(maps: &str, program: PathBuf, library: &str, is_static: impl FnOnce() -> bool) -> Sight {
    let mut loaded: Vec<&str> = maps.lines().filter_map(mapped_code).collect();
    if maps.lines().any(|line| line.contains(library)) {
        return Sight::Library;
    }
    let name = program.to_string_lossy();
    if name.contains(VALGRIND) {
        return Sight::Nothing;
    }
    let has_begun = loaded.contains(&&*name);
    loaded.sort_unstable();
    loaded.dedup();
    // The loader itself is one of them. A sanitizer is loaded before this library.
    let is_other = |path: &&&str| **path != name && !is_sanitizer(path.as_bytes());
    let libraries = loaded.iter().filter(is_other).count();
    match libraries > 1 || has_begun && is_static() {
        true => Sight::Passed(program),
        false => Sight::Nothing,
    }
}

/// Returns the file that a line of a memory map maps as executable.
fn mapped_code(line: &str) -> Option<&str> {
    // Fields: addresses, permissions, offset, device, inode, and the path, which may contain spaces.
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.split_once(' ')?;
        rest = after.trim_start_matches(' ');
        Some(field)
    };
    let (_, permissions, _, _, inode) = (field()?, field()?, field()?, field()?, field()?);
    (permissions.contains('x') && inode != "0" && !rest.is_empty()).then_some(rest)
}

fn read(process: &OwnedFd, name: &str) -> rustix::io::Result<Vec<u8>> {
    let file = rustix::fs::openat(process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = Vec::new();
    File::from(file)
        .read_to_end(&mut content)
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "\
55d0c0000000-55d0c0002000 r--p 00000000 08:01 100   /usr/bin/the program
55d0c0002000-55d0c0007000 r-xp 00002000 08:01 100   /usr/bin/the program
7f0000000000-7f0000002000 r-xp 00001000 08:01 200   /usr/lib/ld-linux.so.2
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0     [stack]
7ffd00030000-7ffd00032000 r-xp 00000000 00:00 0     [vdso]
";
    const LIBC: &str = "7f1000000000-7f1000002000 r-xp 00001000 08:01 300   /usr/lib/libc.so.6\n";
    const OURS: &str = "7f2000000000-7f2000002000 r--p 00000000 00:01 9   /memfd:ours-0123.so (deleted)\n";

    fn sight(maps: &str, is_static: bool) -> Sight {
        judge(maps, "/usr/bin/the program".into(), "ours-0123.so", || is_static)
    }

    #[test]
    fn libraries_are_loaded_after_ours_or_ours_was_passed_over() {
        assert_eq!(sight(PROGRAM, false), Sight::Nothing);
        assert_eq!(sight(&format!("{PROGRAM}{OURS}"), false), Sight::Library);
        assert_eq!(sight(&format!("{PROGRAM}{OURS}{LIBC}"), false), Sight::Library);
        let passed = Sight::Passed("/usr/bin/the program".into());
        assert_eq!(sight(&format!("{PROGRAM}{LIBC}"), false), passed);
        let asan = LIBC.replace("libc.so.6", "libasan.so.8");
        assert_eq!(sight(&format!("{PROGRAM}{asan}"), false), Sight::Nothing);
        assert_eq!(sight(&format!("{PROGRAM}{asan}{LIBC}"), false), passed);
    }

    #[test]
    fn static_programs_load_nothing_but_valgrind_s_tools_do() {
        let passed = Sight::Passed("/usr/bin/the program".into());
        assert_eq!(sight(PROGRAM, true), passed);
        // The program's code is not mapped yet.
        assert_eq!(sight("", true), Sight::Nothing);
        let maps = PROGRAM.replace("/usr/bin/the program", "/usr/libexec/valgrind/memcheck") + LIBC;
        assert_eq!(judge(&maps, "/usr/libexec/valgrind/memcheck".into(), "ours", || true), Sight::Nothing);
    }

    #[test]
    fn a_program_that_starts_another_while_it_is_looked_at_is_not_blamed() {
        // The end of the map is missing, and the library with it.
        let cut = format!("{LIBC}{PROGRAM}{OURS}");
        let cut = &cut[..cut.find("[stack]").unwrap()];
        assert_eq!(sight(cut, false), Sight::Passed("/usr/bin/the program".into()));
        let mut suspicion = Suspicion::default();
        assert!(!suspicion.is_confirmed_by(Some(b"the first".to_vec())));
        assert!(!suspicion.is_confirmed_by(Some(b"the second".to_vec())));
        assert!(suspicion.is_confirmed_by(Some(b"the second".to_vec())));
        // The program has ended.
        assert!(!suspicion.is_confirmed_by(None));
        assert!(!suspicion.is_confirmed_by(None));
    }

    #[test]
    fn a_process_that_has_ended_is_told_from_one_that_runs() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = rustix::fs::open(format!("/proc/{}", child.id()), flags, Mode::empty()).unwrap();
        let name = "no such library";
        while look(&process, name) == Sight::Nothing {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(
            matches!(look(&process, name), Sight::Passed(path) if path.ends_with("sleep") || path.exists())
        );
        assert_eq!(look(&process, "libc.so"), Sight::Library);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(look(&process, name), Sight::End);
    }
}
