//! How the socket calls of a program are taken that is about to be started: by the beginning of its file.
//!
//! What runs here may be a child of `vfork` or of `fork` in a program with threads, so nothing here takes a
//! lock or memory of the heap: paths go to the kernel as they are, because `rustix` copies long ones to the
//! heap.

use std::ffi::{CStr, c_char};
use std::io::IoSlice;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use peersock_bsd::Errno;
use peersock_bsd::elf::{is_32_bit, is_go, is_static, script_interpreter};
use peersock_bsd::kernel::check;

use crate::kernel::quietly;

/// Bytes of a file's beginning that are looked at: there the program headers are, and Go's note.
const HEAD: usize = 8 << 10;

/// Interpreters of scripts that are scripts themselves, as deep as the kernel goes.
const DEEPEST: usize = 5;

/// The longest path that is looked at, with its end (PATH_MAX).
const MOST_PATH: usize = 4096;

/// Where the C library looks for programs if PATH is not set.
const USUAL_PATH: &CStr = c"/bin:/usr/bin";

/// How a program's socket calls are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// By this library; of what is no program the kernel says so.
    Library,
    /// Only by a filter: it makes system calls itself, or the system preloads nothing into it.
    Filter,
    /// Not at all: it is a 32-bit program, whose calls have other numbers.
    Nowhere,
}

impl Reach {
    /// Of the program at a path.
    ///
    /// # Safety
    /// `path` is null or a C string.
    pub(crate) unsafe fn of(path: *const c_char) -> Self {
        if path.is_null() {
            return Self::Library;
        }
        // SAFETY: the caller's.
        quietly(|_| true, || Self::of_path(unsafe { CStr::from_ptr(path) }))
    }

    /// Of the program of a name that is looked for in PATH.
    ///
    /// # Safety
    /// As [`Reach::of`].
    pub(crate) unsafe fn of_name(file: *const c_char) -> Self {
        // SAFETY: the caller's.
        quietly(|_| true, || unsafe { Self::of_found(file) })
    }

    /// # Safety
    /// As [`Reach::of`].
    unsafe fn of_found(file: *const c_char) -> Self {
        if file.is_null() {
            return Self::Library;
        }
        // SAFETY: the caller's.
        let file = unsafe { CStr::from_ptr(file) };
        let name = file.to_bytes();
        if name.contains(&b'/') {
            return Self::of_path(file);
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
                return Self::of_path(path);
            }
        }
        Self::Library
    }

    fn of_path(path: &CStr) -> Self {
        match open(libc::AT_FDCWD, path).map_or(Self::Library, |file| Self::of_file(file.as_fd())) {
            Self::Filter | Self::Nowhere if !may_execute(path) => Self::Library,
            reach => reach,
        }
    }

    /// Of the program at a path below a folder.
    pub(crate) fn of_path_in(folder: RawFd, path: &CStr) -> Self {
        open(folder, path).map_or(Self::Library, |file| Self::of_file(file.as_fd()))
    }

    /// Of the program in an open file.
    pub(crate) fn of_file(file: BorrowedFd<'_>) -> Self {
        // With room for the end of an interpreter's path.
        let mut room = [0; HEAD + 1];
        let mut interpreter: Option<OwnedFd> = None;
        for _ in 0..=DEEPEST {
            let file = interpreter.as_ref().map_or(file, |interpreter| interpreter.as_fd());
            let Ok(length) = rustix::io::pread(file, &mut room[..HEAD], 0) else { return Self::Library };
            let head = &room[..length];
            let Some(path) = script_interpreter(head) else {
                return match () {
                    () if is_32_bit(head) => Self::Nowhere,
                    () if is_static(head) || is_go(head) || gains_capabilities(file) => Self::Filter,
                    () => Self::Library,
                };
            };
            let begin = path.as_ptr().addr() - head.as_ptr().addr();
            let end = begin + path.len();
            room[end] = 0;
            let Ok(path) = CStr::from_bytes_until_nul(&room[begin..=end]) else { return Self::Library };
            let Some(opened) = open(libc::AT_FDCWD, path) else { return Self::Library };
            interpreter = Some(opened);
        }
        Self::Library
    }
}

/// Whether a program has capabilities in its file (capabilities(7)), which root has anyway: then the loader
/// takes it for one with privileges, whether it gets them or not, and preloads only what the system's folders
/// have.
fn gains_capabilities(file: BorrowedFd<'_>) -> bool {
    // SAFETY: the name is a C string; nothing is written.
    let length = || unsafe {
        let name = c"security.capability".as_ptr();
        libc::syscall(libc::SYS_fgetxattr, file, name, std::ptr::null_mut::<u8>(), 0)
    };
    !rustix::process::getuid().is_root() && check(length()).is_ok()
}

/// Says on stderr why a program is not started: who starts it knows only an errno.
pub(crate) fn say_nowhere(path: *const c_char) {
    // SAFETY: it is null or a C string.
    let path = if path.is_null() { b"this" } else { unsafe { CStr::from_ptr(path) }.to_bytes() };
    let pieces: [&[u8]; 3] = [
        b"peersock: ",
        path,
        b" is a 32-bit program, whose sockets cannot be put on the overlay: use a 64-bit build\n",
    ];
    // SAFETY: where there is no stderr, it is an error that nobody needs.
    let stderr = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
    let _ = rustix::io::writev(stderr, &pieces.map(IoSlice::new));
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
