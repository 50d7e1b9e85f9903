//! Decision how the socket calls of a program about to be started are taken, by the beginning of its file.
//!
//! This code may run in a child of `vfork`, or of `fork` in a program with threads, so it takes no lock and
//! no heap memory. Paths go to the kernel as they are, because `rustix` copies long ones to the heap.

use std::ffi::{CStr, c_char};
use std::io::IoSlice;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use peersock_bsd::Errno;
use peersock_bsd::elf::{is_32_bit, is_go, is_static, needs_sanitizer, script_interpreter};
use peersock_bsd::kernel::check;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::inherit::with_pages;
use crate::kernel::quietly;

/// Number of bytes at a file's beginning that are inspected; they contain the program headers, and Go's note.
///
/// The buffer for them, and for a path, is in separate pages, because a thread may have only 16 KiB of stack.
const HEAD_BYTES: usize = 8 << 10;

/// Maximum depth of script interpreters that are scripts themselves, as in the kernel.
const MAX_INTERPRETERS: usize = 5;

/// Maximum length of a path, with its end (PATH_MAX), bytes.
const MAX_PATH_BYTES: usize = 4096;

/// Folders that the C library searches for programs if PATH is not set.
const DEFAULT_PATH: &CStr = c"/bin:/usr/bin";

/// Method by which a program's socket calls are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// By this library. Includes files that are not programs, which the kernel rejects.
    Library,
    /// Only by a filter: the program makes system calls itself, or the system does not preload this library
    /// into it.
    Filter,
    /// Only by a filter, and without this library: the program exits if anything is loaded before its
    /// sanitizer.
    FilterAlone,
    /// By no method: it is a 32-bit program, whose calls have other numbers.
    Nowhere,
}

impl Reach {
    /// Returns the method for the program at a path.
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

    /// Returns the method for a program whose name is searched in PATH.
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
        // SAFETY: the name is a C string; the result is one, which the program must not change meanwhile.
        let folders = unsafe { libc::getenv(c"PATH".as_ptr()) };
        // SAFETY: as above.
        let folders = if folders.is_null() { DEFAULT_PATH } else { unsafe { CStr::from_ptr(folders) } };
        let found = with_pages(MAX_PATH_BYTES, |joined| {
            let mut folders = folders.to_bytes().split(|byte| *byte == b':');
            folders.find_map(|folder| Self::of_name_in(folder, name, joined))
        });
        found.flatten().unwrap_or(Self::Library)
    }

    /// Returns the method for the program of a name in a folder of PATH, or `None` if there is none. `joined`
    /// is the buffer for the path.
    fn of_name_in(folder: &[u8], name: &[u8], joined: &mut [u8]) -> Option<Self> {
        let folder = if folder.is_empty() { b"." } else { folder };
        let length = folder.len() + 1 + name.len();
        let path = joined.get_mut(..=length)?;
        path[..folder.len()].copy_from_slice(folder);
        path[folder.len()] = b'/';
        path[folder.len() + 1..length].copy_from_slice(name);
        path[length] = 0;
        let path = CStr::from_bytes_with_nul(path).ok()?;
        let (call, folder) = (libc::SYS_faccessat, libc::AT_FDCWD);
        // SAFETY: the path is a C string.
        let found = check(unsafe { peersock_fd::syscall!(call, folder, path.as_ptr(), libc::X_OK) });
        found.is_ok().then(|| Self::of_path(path))
    }

    fn of_path(path: &CStr) -> Self {
        Self::of_path_in(libc::AT_FDCWD, path)
    }

    /// Returns the method for the program at a path below a folder.
    pub(crate) fn of_path_in(folder: RawFd, path: &CStr) -> Self {
        let reach = match open(folder, path) {
            Ok(file) => Self::of_file(file.as_fd()),
            // An unreadable file may still be executable.
            Err(Errno::ACCESS) if folder == libc::AT_FDCWD && has_capabilities_at(path) => Self::Filter,
            Err(_) => Self::Library,
        };
        match reach {
            Self::Library => reach,
            _ if !may_execute(folder, path) => Self::Library,
            reach => reach,
        }
    }

    /// Returns the method for the program in an open file.
    pub(crate) fn of_file(file: BorrowedFd<'_>) -> Self {
        // With room for the end of an interpreter's path.
        with_pages(HEAD_BYTES + 1, |room| Self::of_file_read_into(file, room)).unwrap_or(Self::Library)
    }

    fn of_file_read_into(file: BorrowedFd<'_>, room: &mut [u8]) -> Self {
        let mut interpreter: Option<OwnedFd> = None;
        for _ in 0..=MAX_INTERPRETERS {
            let file = interpreter.as_ref().map_or(file, |interpreter| interpreter.as_fd());
            let Ok(length) = rustix::io::pread(file, &mut room[..HEAD_BYTES], 0) else {
                return Self::Library;
            };
            let head = &room[..length];
            let Some(path) = script_interpreter(head) else {
                return match () {
                    () if is_32_bit(head) => Self::Nowhere,
                    () if is_static(head) || is_go(head) || has_capabilities(file) => Self::Filter,
                    () if needs_sanitizer(file, head) => Self::FilterAlone,
                    () => Self::Library,
                };
            };
            let begin = path.as_ptr().addr() - head.as_ptr().addr();
            let end = begin + path.len();
            room[end] = 0;
            let Ok(path) = CStr::from_bytes_until_nul(&room[begin..=end]) else { return Self::Library };
            let Ok(opened) = open(libc::AT_FDCWD, path) else { return Self::Library };
            interpreter = Some(opened);
        }
        Self::Library
    }
}

/// Name of the attribute with a file's capabilities (capabilities(7)).
const CAPABILITIES_ATTRIBUTE: &CStr = c"security.capability";

/// Returns true if a program has capabilities in its file and the user is not root. The loader then treats it
/// as privileged, even if it gets no capabilities, and preloads only libraries in the system's folders.
fn has_capabilities(file: BorrowedFd<'_>) -> bool {
    // SAFETY: the name is a C string; nothing is written.
    let length = || unsafe {
        let (file, none) = (file.as_raw_fd(), std::ptr::null_mut::<u8>());
        peersock_fd::syscall!(libc::SYS_fgetxattr, file, CAPABILITIES_ATTRIBUTE.as_ptr(), none, 0_usize)
    };
    !rustix::process::getuid().is_root() && check(length()).is_ok()
}

/// Does the same by path, for a file that may not be read.
fn has_capabilities_at(path: &CStr) -> bool {
    // SAFETY: both are C strings; nothing is written.
    let length = || unsafe {
        let none = std::ptr::null_mut::<u8>();
        peersock_fd::syscall!(
            libc::SYS_getxattr,
            path.as_ptr(),
            CAPABILITIES_ATTRIBUTE.as_ptr(),
            none,
            0_usize
        )
    };
    !rustix::process::getuid().is_root() && check(length()).is_ok()
}

/// Writes to stderr why a program is not started, because its starter gets only an errno. Writes nothing if
/// that would block, or there is no reader.
pub(crate) fn say_nowhere(path: *const c_char) {
    // SAFETY: it is null or a C string.
    let path = if path.is_null() { b"this" } else { unsafe { CStr::from_ptr(path) }.to_bytes() };
    let why = b" is a 32-bit program, whose sockets cannot be put on the overlay: use a 64-bit build\n";
    let pieces: [&[u8]; 3] = [b"peersock: ", path, why];
    // SAFETY: if there is no stderr, the call fails harmlessly.
    let stderr = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
    // A pipe without a reader would cause SIGPIPE.
    let mut polled = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
    let has_room = rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled[0].revents() == PollFlags::OUT;
    if has_room {
        let _ = rustix::io::writev(stderr, &pieces.map(IoSlice::new));
    }
}

/// Returns true if the caller may execute a file. Otherwise the kernel reports the error, because a filter
/// could not be undone, and a shell would report it differently.
fn may_execute(folder: RawFd, path: &CStr) -> bool {
    let (access, flags) = (libc::X_OK, libc::AT_EACCESS);
    // SAFETY: the path is a C string.
    let looked = unsafe { peersock_fd::syscall!(libc::SYS_faccessat2, folder, path.as_ptr(), access, flags) };
    check(looked) != Err(Errno::ACCESS)
}

/// Opens a file for reading.
fn open(folder: RawFd, path: &CStr) -> Result<OwnedFd, Errno> {
    // Opening a pipe of this name must not block.
    let access = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the path is a C string.
    let fd = check(unsafe { peersock_fd::syscall!(libc::SYS_openat, folder, path.as_ptr(), access) })?;
    // SAFETY: it was just opened, and no other code knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
