//! Started programs that no library reaches, because they make system calls themselves or have capabilities
//! in their files. The launcher takes their calls by a filter that the process gets before it becomes such a
//! program. See the module `admission` of `peersock-seccomp`, the other end. Programs that no filter reaches
//! either are not started, because they would use the machine's network unnoticed.
//!
//! This code may run in a child of `vfork`, or of `fork` in a program with threads, so it takes no lock and
//! no heap memory.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::slice;
use std::sync::OnceLock;

use libc::{c_int, sock_filter, sock_fprog};
use peersock_bsd::{Errno, filter};
use peersock_fd::{Name, address, peer_credentials};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::reach::{Reach, say_nowhere};
use crate::rules;

/// Maximum number of instructions of an accepted filter.
const MAX_INSTRUCTIONS: usize = 512;

/// Address of the launcher; the inner value is `None` if no launcher takes the calls. Not set if this process
/// must not be on the overlay.
static LAUNCHER: OnceLock<Option<SocketAddrUnix>> = OnceLock::new();

/// Method for the calls of a program about to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// By this library, which its environment must name. If the library does not reach the program, it may
    /// reach the program's children.
    ByLibrary,
    /// By a filter, and this library must not be loaded.
    ByFilter,
}

/// Prepares values that must not be made in a child.
pub(crate) fn prepare() {
    let Some(rules) = rules() else { return };
    LAUNCHER.get_or_init(|| rules.admits.then(|| address(&Name::Programs(rules.client.tag()))));
}

/// Prepares the calls of the program at `path`, which this process is about to become. If the library does
/// not reach it, the launcher takes them. Without such a launcher, or without filters in the kernel, this
/// does nothing.
///
/// # Errors
/// EAGAIN if the launcher refuses, for example because it has too many such programs, or if another process
/// has its name. EPERM for a program whose calls cannot be taken.
///
/// # Safety
/// `path` is null or a C string.
pub(crate) unsafe fn before_exec(path: *const c_char) -> Result<Taken, Errno> {
    // SAFETY: the caller's.
    take(unsafe { reach(path) }, path)
}

/// Does the same for a name that is searched in PATH.
///
/// # Errors
/// Errors of [`before_exec`].
///
/// # Safety
/// `file` is null or a C string.
pub(crate) unsafe fn before_search(file: *const c_char) -> Result<Taken, Errno> {
    // SAFETY: the caller's.
    take(unsafe { reach_by_name(file) }, file)
}

/// Does the same for an open file.
///
/// # Errors
/// Errors of [`before_exec`].
pub(crate) fn before_exec_of(fd: RawFd) -> Result<Taken, Errno> {
    let file = is_to_be_reached().then(|| peersock_bsd::kernel::borrow(fd)).flatten();
    take(file.map_or(Reach::Library, Reach::of_file), std::ptr::null())
}

/// Does the same for execveat(2).
///
/// # Errors
/// Errors of [`before_exec`].
///
/// # Safety
/// `path` is null or a C string.
pub(crate) unsafe fn before_exec_at(
    folder: RawFd,
    path: *const c_char,
    flags: c_int,
) -> Result<Taken, Errno> {
    if path.is_null() || !is_to_be_reached() {
        return Ok(Taken::ByLibrary);
    }
    // SAFETY: the caller's.
    let file = unsafe { CStr::from_ptr(path) };
    if file.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        return before_exec_of(folder);
    }
    take(Reach::of_path_in(folder, file), path)
}

/// Returns true if programs started by this process must be on the overlay.
fn is_to_be_reached() -> bool {
    LAUNCHER.get().is_some()
}

/// Returns the method for the calls of the program at a path, if they must be taken.
///
/// # Safety
/// As [`before_exec`].
pub(crate) unsafe fn reach(path: *const c_char) -> Reach {
    // SAFETY: the caller's.
    if is_to_be_reached() { unsafe { Reach::of(path) } } else { Reach::Library }
}

/// Does the same for a name that is searched in PATH.
///
/// # Safety
/// As [`before_exec`].
pub(crate) unsafe fn reach_by_name(file: *const c_char) -> Reach {
    // SAFETY: the caller's.
    if is_to_be_reached() { unsafe { Reach::of_name(file) } } else { Reach::Library }
}

fn take(reach: Reach, path: *const c_char) -> Result<Taken, Errno> {
    match reach {
        Reach::Library => Ok(Taken::ByLibrary),
        Reach::Filter => supervise().map(|_| Taken::ByLibrary),
        // Without a supervisor the program exits, which is better than using the machine's network unnoticed.
        Reach::FilterAlone => {
            supervise().map(|is_supervised| if is_supervised { Taken::ByFilter } else { Taken::ByLibrary })
        }
        Reach::Nowhere => {
            say_nowhere(path);
            Err(Errno::PERM)
        }
    }
}

/// Returns true if a launcher takes the calls of programs that the library does not reach.
pub(crate) fn has_launcher() -> bool {
    LAUNCHER.get().is_some_and(Option::is_some)
}

/// Filters this thread, and makes the launcher answer its calls. Returns false if there is no launcher here.
fn supervise() -> Result<bool, Errno> {
    let Some(launcher) = LAUNCHER.get().and_then(Option::as_ref) else { return Ok(false) };
    let flags = SocketFlags::CLOEXEC;
    let Ok(socket) = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None) else {
        return Err(Errno::AGAIN);
    };
    // The launcher has ended, or is in another network namespace.
    if rustix::net::connect(&socket, launcher).is_err() {
        return Ok(false);
    }
    let own = rustix::process::geteuid().as_raw();
    // Another user's process has taken its name.
    if !peer_credentials(socket.as_fd()).is_ok_and(|peer| [0, own].contains(&peer.uid)) {
        return Err(Errno::AGAIN);
    }
    let mut hello = [0_u8; 20];
    read_exact(&socket, &mut hello)?;
    let (challenge, count) = hello.split_at(16);
    let challenge = challenge.first_chunk().map_or(0, |bytes| u128::from_ne_bytes(*bytes));
    let count = count.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes)) as usize;
    if count == 0 || count > MAX_INSTRUCTIONS {
        return Err(Errno::AGAIN);
    }
    let mut program = [const { MaybeUninit::<sock_filter>::zeroed() }; MAX_INSTRUCTIONS];
    let size = count * size_of::<sock_filter>();
    // SAFETY: the array has room for this many bytes, which are zeros; every bit pattern is an instruction.
    let bytes = unsafe { slice::from_raw_parts_mut(program.as_mut_ptr().cast::<u8>(), size) };
    read_exact(&socket, bytes)?;
    let mut answer = [0; 20];
    let proof = rules().map_or(0, |rules| rules.client.prove(challenge));
    answer[..4].copy_from_slice(&socket.as_raw_fd().to_ne_bytes());
    answer[4..].copy_from_slice(&proof.to_ne_bytes());
    send(&socket, &answer)?;
    // Wait for the launcher's consent: it can fetch descriptors of this process, and has a place for it. A
    // filter could not be undone.
    read_exact(&socket, &mut [0; 1])?;
    // A process with such a filter is supervised already, and a kernel without filters offers no alternative.
    let Some(listener) = install(&mut program[..count]) else { return Ok(true) };
    // From here on make only calls that the filter does not name.
    send(&socket, &listener.as_raw_fd().to_ne_bytes())?;
    // Without an answer the listener is closed, and the program's socket calls fail.
    read_exact(&socket, &mut [0; 1]).map(|()| true)
}

/// Sends a message in one piece, as the launcher expects it.
fn send(socket: &OwnedFd, piece: &[u8]) -> Result<(), Errno> {
    match rustix::net::send(socket, piece, SendFlags::NOSIGNAL) {
        Ok(sent) if sent == piece.len() => Ok(()),
        _ => Err(Errno::AGAIN),
    }
}

/// Calls seccomp(2) for a filter with a listener. Returns `None` if there is one already, or the kernel
/// refuses.
fn install(program: &mut [MaybeUninit<sock_filter>]) -> Option<OwnedFd> {
    let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr().cast() };
    // SAFETY: the program is live, as long as it says, and all of it was written.
    unsafe { filter::listen(&program) }.ok()
}

fn read_exact(socket: &OwnedFd, mut room: &mut [u8]) -> Result<(), Errno> {
    while !room.is_empty() {
        match rustix::io::read(socket, &mut *room) {
            Ok(0) => return Err(Errno::AGAIN),
            Ok(read) => room = &mut room[read..],
            Err(Errno::INTR) => {}
            Err(_) => return Err(Errno::AGAIN),
        }
    }
    Ok(())
}
