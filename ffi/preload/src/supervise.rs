//! Programs that this one starts and that no library reaches, because they make system calls themselves: the
//! launcher takes their calls by a filter that the process gets before it becomes such a program. See the
//! module `admission` of `peersock-seccomp`, the other end.
//!
//! What runs here may be a child of `vfork` or of `fork` in a program with threads, so nothing here takes a
//! lock or memory of the heap: paths go to the kernel as they are, because `rustix` copies long ones to the
//! heap.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::slice;
use std::sync::OnceLock;

use libc::{c_int, sock_filter, sock_fprog};
use peersock_bsd::elf::{is_go, is_static, script_interpreter};
use peersock_bsd::kernel::check;
use peersock_bsd::{Errno, filter};
use peersock_fd::{Name, address, peer_credentials};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::kernel::quietly;
use crate::rules;

/// Bytes of a file's beginning that are looked at: there the program headers are, and Go's note.
const HEAD: usize = 8 << 10;

/// Interpreters of scripts that are scripts themselves, as deep as the kernel goes.
const DEEPEST: usize = 5;

/// The longest path that is looked at, with its end (PATH_MAX).
const MOST_PATH: usize = 4096;

/// The most instructions of a filter that is taken.
const MOST_INSTRUCTIONS: usize = 512;

/// Where the C library looks for programs if PATH is not set.
const USUAL_PATH: &CStr = c"/bin:/usr/bin";

/// Where the launcher is told.
static LAUNCHER: OnceLock<Option<SocketAddrUnix>> = OnceLock::new();

/// Makes ready what must not be made in a child.
pub(crate) fn prepare() {
    let launcher = || rules().filter(|rules| rules.admits);
    LAUNCHER.get_or_init(|| launcher().map(|rules| address(&Name::Programs(rules.client.tag()))));
}

/// Has the launcher take this process's calls if the program at `path`, which it is about to become, makes
/// them itself. Without a launcher that does so, and in kernels without such filters, nothing is done.
///
/// # Errors
/// EAGAIN if the launcher refuses, as where it has too many such programs, or somebody else has its name.
///
/// # Safety
/// `path` is null or a C string.
pub(crate) unsafe fn before_exec(path: *const c_char) -> Result<(), Errno> {
    // SAFETY: the caller's.
    match unsafe { bypasses(path) } {
        true => supervise(),
        false => Ok(()),
    }
}

/// The same for a name that is looked for in PATH.
///
/// # Errors
/// As [`before_exec`].
///
/// # Safety
/// `file` is null or a C string.
pub(crate) unsafe fn before_search(file: *const c_char) -> Result<(), Errno> {
    // SAFETY: the caller's.
    match unsafe { bypasses_by_name(file) } {
        true => supervise(),
        false => Ok(()),
    }
}

/// The same for an open file.
///
/// # Errors
/// As [`before_exec`].
pub(crate) fn before_exec_of(fd: RawFd) -> Result<(), Errno> {
    let bypasses = || peersock_bsd::kernel::borrow(fd).is_some_and(file_bypasses);
    if has_launcher() && bypasses() { supervise() } else { Ok(()) }
}

/// The same for execveat(2).
///
/// # Errors
/// As [`before_exec`].
///
/// # Safety
/// `path` is null or a C string.
pub(crate) unsafe fn before_exec_at(folder: RawFd, path: *const c_char, flags: c_int) -> Result<(), Errno> {
    if path.is_null() || !has_launcher() {
        return Ok(());
    }
    // SAFETY: the caller's.
    let path = unsafe { CStr::from_ptr(path) };
    if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        return before_exec_of(folder);
    }
    match open(folder, path).is_some_and(|file| file_bypasses(file.as_fd())) {
        true => supervise(),
        false => Ok(()),
    }
}

fn has_launcher() -> bool {
    LAUNCHER.get().is_some_and(Option::is_some)
}

/// Whether no library reaches the program at a path, and the launcher is to.
///
/// # Safety
/// As [`before_exec`].
pub(crate) unsafe fn bypasses(path: *const c_char) -> bool {
    // SAFETY: the caller's.
    has_launcher() && !path.is_null() && quietly(|_| true, || path_bypasses(unsafe { CStr::from_ptr(path) }))
}

/// The same of a name that is looked for in PATH.
///
/// # Safety
/// As [`before_exec`].
pub(crate) unsafe fn bypasses_by_name(file: *const c_char) -> bool {
    // SAFETY: the caller's.
    quietly(|_| true, || unsafe { found_bypasses(file) })
}

/// # Safety
/// As [`bypasses_by_name`].
unsafe fn found_bypasses(file: *const c_char) -> bool {
    if !has_launcher() || file.is_null() {
        return false;
    }
    // SAFETY: the caller's.
    let file = unsafe { CStr::from_ptr(file) };
    let name = file.to_bytes();
    if name.contains(&b'/') {
        return path_bypasses(file);
    }
    // SAFETY: the name is a C string; what it gives is one, which the program must not change meanwhile.
    let folders = unsafe { libc::getenv(c"PATH".as_ptr()) };
    // SAFETY: as above.
    let folders = if folders.is_null() { USUAL_PATH } else { unsafe { CStr::from_ptr(folders) } };
    let mut joined = [0; MOST_PATH];
    for folder in folders.to_bytes().split(|byte| *byte == b':') {
        let folder = if folder.is_empty() { b"." } else { folder };
        let length = folder.len() + 1 + name.len();
        let Some(path) = joined.get_mut(..=length) else { continue };
        path[..folder.len()].copy_from_slice(folder);
        path[folder.len()] = b'/';
        path[folder.len() + 1..length].copy_from_slice(name);
        path[length] = 0;
        let Ok(path) = CStr::from_bytes_with_nul(path) else { continue };
        let (call, folder) = (libc::SYS_faccessat, libc::AT_FDCWD);
        // SAFETY: the path is a C string.
        if check(unsafe { libc::syscall(call, folder, path.as_ptr(), libc::X_OK) }).is_ok() {
            return path_bypasses(path);
        }
    }
    false
}

fn path_bypasses(path: &CStr) -> bool {
    open(libc::AT_FDCWD, path).is_some_and(|file| file_bypasses(file.as_fd())) && may_execute(path)
}

/// Whether the caller may execute a file. What it may not is left to the kernel, which says so: a filter
/// could not be undone, and a shell says it in another way.
fn may_execute(path: &CStr) -> bool {
    let (folder, access, flags) = (libc::AT_FDCWD, libc::X_OK, libc::AT_EACCESS);
    // SAFETY: the path is a C string.
    let looked = unsafe { libc::syscall(libc::SYS_faccessat2, folder, path.as_ptr(), access, flags) };
    check(looked) != Err(Errno::ACCESS)
}

/// Opens a file to read it.
fn open(folder: RawFd, path: &CStr) -> Option<OwnedFd> {
    // A pipe of this name must not be waited for.
    let access = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the path is a C string.
    let fd = check(unsafe { libc::syscall(libc::SYS_openat, folder, path.as_ptr(), access) }).ok()?;
    // SAFETY: it was just opened, and nobody else knows of it.
    Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn file_bypasses(file: BorrowedFd<'_>) -> bool {
    // With room for the end of an interpreter's path.
    let mut room = [0; HEAD + 1];
    let mut interpreter: Option<OwnedFd> = None;
    for _ in 0..=DEEPEST {
        let file = interpreter.as_ref().map_or(file, |interpreter| interpreter.as_fd());
        let Ok(length) = rustix::io::pread(file, &mut room[..HEAD], 0) else { return false };
        let head = &room[..length];
        let Some(path) = script_interpreter(head) else { return is_static(head) || is_go(head) };
        let begin = path.as_ptr().addr() - head.as_ptr().addr();
        let end = begin + path.len();
        room[end] = 0;
        let Ok(path) = CStr::from_bytes_until_nul(&room[begin..=end]) else { return false };
        let Some(opened) = open(libc::AT_FDCWD, path) else { return false };
        interpreter = Some(opened);
    }
    false
}

/// Has this thread filtered, and the launcher answer its calls.
fn supervise() -> Result<(), Errno> {
    let Some(launcher) = LAUNCHER.get().and_then(Option::as_ref) else { return Ok(()) };
    let flags = SocketFlags::CLOEXEC;
    let Ok(socket) = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None) else {
        return Err(Errno::AGAIN);
    };
    // The launcher has ended, or is in another network namespace.
    if rustix::net::connect(&socket, launcher).is_err() {
        return Ok(());
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
    let Some(listener) = install(&mut program[..count]) else { return Ok(()) };
    // From here on only calls that the filter does not name.
    send(&socket, &listener.as_raw_fd().to_ne_bytes())?;
    // Without an answer the listener is closed, and the program's socket calls fail.
    read_exact(&socket, &mut [0; 1])
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
