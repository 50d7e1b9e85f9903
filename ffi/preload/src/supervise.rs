//! Programs that this one starts and that no library reaches, because they make system calls themselves or
//! have capabilities in their files: the launcher takes their calls by a filter that the process gets before
//! it becomes such a program. See the module `admission` of `peersock-seccomp`, the other end. What no filter
//! reaches, either, is not started: it would use the machine's network in silence.
//!
//! What runs here may be a child of `vfork` or of `fork` in a program with threads, so nothing here takes a
//! lock or memory of the heap.

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

/// The most instructions of a filter that is taken.
const MOST_INSTRUCTIONS: usize = 512;

/// Where the launcher is told; `None` inside where none takes the calls. Not set where this process is not to
/// be on the overlay.
static LAUNCHER: OnceLock<Option<SocketAddrUnix>> = OnceLock::new();

/// By what the calls of a program are taken that is about to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// By this library, which belongs into its environment; if it does not reach the program, into that of
    /// what the program starts.
    ByLibrary,
    /// By a filter, and this library must not be loaded.
    ByFilter,
}

/// Makes ready what must not be made in a child.
pub(crate) fn prepare() {
    let Some(rules) = rules() else { return };
    LAUNCHER.get_or_init(|| rules.admits.then(|| address(&Name::Programs(rules.client.tag()))));
}

/// Sees to the calls of the program at `path`, which this process is about to become. Where the library does
/// not reach it, the launcher takes them; without a launcher that does so, and in kernels without such
/// filters, nothing is done.
///
/// # Errors
/// EAGAIN if the launcher refuses, as where it has too many such programs, or somebody else has its name;
/// EPERM for a program whose calls nobody can take.
///
/// # Safety
/// `path` is null or a C string.
pub(crate) unsafe fn before_exec(path: *const c_char) -> Result<Taken, Errno> {
    // SAFETY: the caller's.
    take(unsafe { reach(path) }, path)
}

/// The same for a name that is looked for in PATH.
///
/// # Errors
/// As [`before_exec`].
///
/// # Safety
/// `file` is null or a C string.
pub(crate) unsafe fn before_search(file: *const c_char) -> Result<Taken, Errno> {
    // SAFETY: the caller's.
    take(unsafe { reach_by_name(file) }, file)
}

/// The same for an open file.
///
/// # Errors
/// As [`before_exec`].
pub(crate) fn before_exec_of(fd: RawFd) -> Result<Taken, Errno> {
    let file = is_to_be_reached().then(|| peersock_bsd::kernel::borrow(fd)).flatten();
    take(file.map_or(Reach::Library, Reach::of_file), std::ptr::null())
}

/// The same for execveat(2).
///
/// # Errors
/// As [`before_exec`].
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

/// Whether what this process starts is to be on the overlay.
fn is_to_be_reached() -> bool {
    LAUNCHER.get().is_some()
}

/// How the calls of the program at a path are taken, if they are to be.
///
/// # Safety
/// As [`before_exec`].
pub(crate) unsafe fn reach(path: *const c_char) -> Reach {
    // SAFETY: the caller's.
    if is_to_be_reached() { unsafe { Reach::of(path) } } else { Reach::Library }
}

/// The same of a name that is looked for in PATH.
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
        // Where nobody supervises it, it ends itself, which is better than the machine's network in silence.
        Reach::FilterAlone => {
            supervise().map(|is_supervised| if is_supervised { Taken::ByFilter } else { Taken::ByLibrary })
        }
        Reach::Nowhere => {
            say_nowhere(path);
            Err(Errno::PERM)
        }
    }
}

/// Whether a launcher takes the calls of what the library does not reach.
pub(crate) fn has_launcher() -> bool {
    LAUNCHER.get().is_some_and(Option::is_some)
}

/// Has this thread filtered, and the launcher answer its calls. False if nobody does so here.
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
    // Somebody else has taken its name.
    if !peer_credentials(socket.as_fd()).is_ok_and(|peer| [0, own].contains(&peer.uid)) {
        return Err(Errno::AGAIN);
    }
    let mut hello = [0_u8; 20];
    read_exact(&socket, &mut hello)?;
    let (challenge, count) = hello.split_at(16);
    let challenge = challenge.first_chunk().map_or(0, |bytes| u128::from_ne_bytes(*bytes));
    let count = count.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes)) as usize;
    if count == 0 || count > MOST_INSTRUCTIONS {
        return Err(Errno::AGAIN);
    }
    let mut program = [const { MaybeUninit::<sock_filter>::zeroed() }; MOST_INSTRUCTIONS];
    let size = count * size_of::<sock_filter>();
    // SAFETY: the array has room for so many bytes, which are zeros; every bit pattern is an instruction.
    let bytes = unsafe { slice::from_raw_parts_mut(program.as_mut_ptr().cast::<u8>(), size) };
    read_exact(&socket, bytes)?;
    let mut answer = [0; 20];
    let proof = rules().map_or(0, |rules| rules.client.prove(challenge));
    answer[..4].copy_from_slice(&socket.as_raw_fd().to_ne_bytes());
    answer[4..].copy_from_slice(&proof.to_ne_bytes());
    send(&socket, &answer)?;
    // The launcher can fetch descriptors of this process, and has a place for it. A filter could not be
    // undone.
    read_exact(&socket, &mut [0; 1])?;
    // One that has such a filter already is supervised, and a kernel that has none cannot be helped.
    let Some(listener) = install(&mut program[..count]) else { return Ok(true) };
    // From here on only calls that the filter does not name.
    send(&socket, &listener.as_raw_fd().to_ne_bytes())?;
    // Without an answer the listener is closed, and the program's socket calls fail.
    read_exact(&socket, &mut [0; 1]).map(|()| true)
}

/// Sends a piece at once, as the launcher wants it.
fn send(socket: &OwnedFd, piece: &[u8]) -> Result<(), Errno> {
    match rustix::net::send(socket, piece, SendFlags::NOSIGNAL) {
        Ok(sent) if sent == piece.len() => Ok(()),
        _ => Err(Errno::AGAIN),
    }
}

/// seccomp(2) with a listener; `None` if there is one already, or the kernel refuses.
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
