//! Replacements of the C library's posix_spawn(3) and posix_spawnp(3).

use std::ffi::{CStr, c_char};

use libc::{c_int, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};

use crate::exec::Arguments;
use crate::inherit::{Environment, complete, with_room};
use crate::kernel::quietly;
use crate::names::next;
use crate::reach::{Reach, say_nowhere};
use crate::supervise::{Taken, has_launcher, reach, reach_by_name};

type PosixSpawn = unsafe extern "C" fn(
    *mut pid_t,
    *const c_char,
    *const posix_spawn_file_actions_t,
    *const posix_spawnattr_t,
    Arguments,
    Environment,
) -> c_int;

/// Finds the C library's functions. A child of `fork` must not do that, because another thread may have held
/// the loader's lock.
pub(crate) fn find_originals() {
    let _ = (next_posix_spawn(), next_posix_spawnp());
}

/// # Safety
/// As posix_spawn(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn posix_spawn(
    process: *mut pid_t,
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    arguments: Arguments,
    environment: Environment,
) -> c_int {
    let Some(next) = next_posix_spawn() else { return libc::ENOSYS };
    // SAFETY: the program's pointers, as it must pass them to posix_spawn(3).
    unsafe {
        match reach(path) {
            Reach::Filter | Reach::FilterAlone if has_launcher() => {
                spawn_by_shell(process, path, false, (actions, attributes), arguments, environment)
            }
            Reach::Nowhere => refuse(path),
            Reach::Library | Reach::Filter | Reach::FilterAlone => {
                spawn(next, process, path, (actions, attributes), arguments, environment)
            }
        }
    }
}

/// # Safety
/// As posix_spawnp(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn posix_spawnp(
    process: *mut pid_t,
    file: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    arguments: Arguments,
    environment: Environment,
) -> c_int {
    let Some(next) = next_posix_spawnp() else { return libc::ENOSYS };
    // SAFETY: the program's pointers, as it must pass them to posix_spawnp(3).
    unsafe {
        match reach_by_name(file) {
            Reach::Filter | Reach::FilterAlone if has_launcher() => {
                spawn_by_shell(process, file, true, (actions, attributes), arguments, environment)
            }
            Reach::Nowhere => refuse(file),
            Reach::Library | Reach::Filter | Reach::FilterAlone => {
                spawn(next, process, file, (actions, attributes), arguments, environment)
            }
        }
    }
}

/// Refuses to start a program whose calls cannot be taken.
fn refuse(file: *const c_char) -> c_int {
    say_nowhere(file);
    libc::EPERM
}

/// Starts a program by one of the C library's two functions, with a completed environment. A search leaves
/// errors of earlier folders in `errno`.
///
/// # Safety
/// As posix_spawn(3).
unsafe fn spawn(
    next: PosixSpawn,
    process: *mut pid_t,
    file: *const c_char,
    (actions, attributes): (*const posix_spawn_file_actions_t, *const posix_spawnattr_t),
    arguments: Arguments,
    environment: Environment,
) -> c_int {
    let spawn = |environment| {
        // SAFETY: the caller's.
        unsafe { next(process, file, actions, attributes, arguments, environment) }
    };
    // SAFETY: the caller's.
    quietly(
        |error| *error == 0,
        || unsafe { complete(environment, Taken::ByLibrary, spawn) }.unwrap_or(libc::ENOMEM),
    )
}

/// Starts a program that no library reaches as posix_spawn(3) does. The C library's own child cannot be
/// filtered, so a shell with the library executes the program in its place. The program's name is then
/// `file`, whatever its first argument is. The shell searches a name without a slash in PATH. If
/// posix_spawn(3) does not `search`, such a program is in the working directory.
///
/// # Safety
/// As posix_spawn(3).
unsafe fn spawn_by_shell(
    process: *mut pid_t,
    file: *const c_char,
    search: bool,
    (actions, attributes): (*const posix_spawn_file_actions_t, *const posix_spawnattr_t),
    arguments: Arguments,
    environment: Environment,
) -> c_int {
    const SHELL: &CStr = c"/bin/sh";
    let Some(next) = next_posix_spawn() else { return libc::ENOSYS };
    let mut count = 0;
    // SAFETY: the caller's: a null pointer ends them.
    while !arguments.is_null() && !unsafe { *arguments.add(count) }.is_null() {
        count += 1;
    }
    // SAFETY: the caller's; it is not null.
    let is_path = unsafe { CStr::from_ptr(file) }.to_bytes().contains(&b'/');
    let script = if search || is_path { c"exec \"$0\" \"$@\"" } else { c"exec \"./$0\" \"$@\"" };
    let first = [SHELL.as_ptr(), c"-c".as_ptr(), script.as_ptr(), file];
    let all = first.len() + count.saturating_sub(1) + 1;
    let spawned = with_room(all * size_of::<*const c_char>(), |room| {
        let list = room.cast::<*const c_char>();
        for (at, argument) in first.into_iter().enumerate() {
            // SAFETY: there is room for all.
            unsafe { *list.add(at) = argument };
        }
        for at in 1..=count.max(1) {
            // SAFETY: as above; the last one is the end, also without arguments.
            unsafe {
                *list.add(first.len() + at - 1) =
                    if at < count { *arguments.add(at) } else { std::ptr::null() };
            }
        }
        // SAFETY: the caller's.
        unsafe { spawn(next, process, SHELL.as_ptr(), (actions, attributes), list, environment) }
    });
    spawned.unwrap_or(libc::ENOMEM)
}

fn next_posix_spawn() -> Option<PosixSpawn> {
    next!(PosixSpawn, c"posix_spawn")
}

fn next_posix_spawnp() -> Option<PosixSpawn> {
    next!(PosixSpawn, c"posix_spawnp")
}
