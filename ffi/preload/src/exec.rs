//! Replacements of the C library's functions that start programs. Started programs stay on the overlay,
//! regardless of the environment passed to them.
//!
//! The C library's own functions do not call each other by name, so each of them is replaced.

use std::arch::naked_asm;
use std::ffi::c_char;

use libc::{c_int, c_void};
use peersock_bsd::Errno;

use crate::inherit::{Environment, complete, complete_own, own, with_room};
use crate::kernel::{quietly, set_errno};
use crate::names::next;
use crate::supervise::{before_exec, before_exec_at, before_exec_of, before_search};

pub(crate) type Arguments = *const *const c_char;
type Fexecve = unsafe extern "C" fn(c_int, Arguments, Environment) -> c_int;
type Execvpe = unsafe extern "C" fn(*const c_char, Arguments, Environment) -> c_int;
/// Finds the C library's functions. A child of `fork` must not do that, because another thread may have held
/// the loader's lock.
pub(crate) fn find_originals() {
    let _ = (next_fexecve(), next_execvpe());
}

/// # Safety
/// As execve(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execve(
    path: *const c_char,
    arguments: Arguments,
    environment: Environment,
) -> c_int {
    // SAFETY: the program's pointer, as it must pass it to execve(2).
    let taken = match unsafe { before_exec(path) } {
        Ok(taken) => taken,
        Err(error) => return fail(error),
    };
    // SAFETY: the program's pointers, as it must pass them to execve(2).
    let failed = unsafe {
        complete(environment, taken, |environment| {
            peersock_fd::syscall!(libc::SYS_execve, path, arguments, environment)
        })
    };
    failed.map_or_else(|| fail(Errno::NOMEM), |failed| failed as c_int)
}

/// # Safety
/// As execveat(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execveat(
    folder: c_int,
    path: *const c_char,
    arguments: Arguments,
    environment: Environment,
    flags: c_int,
) -> c_int {
    // SAFETY: the program's pointer, as it must pass it to execveat(2).
    let taken = match unsafe { before_exec_at(folder, path, flags) } {
        Ok(taken) => taken,
        Err(error) => return fail(error),
    };
    // SAFETY: the program's pointers, as it must pass them to execveat(2).
    let failed = unsafe {
        complete(environment, taken, |environment| {
            peersock_fd::syscall!(libc::SYS_execveat, folder, path, arguments, environment, flags)
        })
    };
    failed.map_or_else(|| fail(Errno::NOMEM), |failed| failed as c_int)
}

/// # Safety
/// As fexecve(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fexecve(fd: c_int, arguments: Arguments, environment: Environment) -> c_int {
    let Some(next) = next_fexecve() else { return fail(Errno::NOSYS) };
    let taken = match before_exec_of(fd) {
        Ok(taken) => taken,
        Err(error) => return fail(error),
    };
    // SAFETY: the program's pointers, as it must pass them to fexecve(3).
    let failed = unsafe { complete(environment, taken, |environment| next(fd, arguments, environment)) };
    failed.unwrap_or_else(|| fail(Errno::NOMEM))
}

/// # Safety
/// As execv(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execv(path: *const c_char, arguments: Arguments) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to execv(3).
    unsafe { execve(path, arguments, own()) }
}

/// # Safety
/// As execvp(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execvp(file: *const c_char, arguments: Arguments) -> c_int {
    // SAFETY: the program's pointers, as it must pass them to execvp(3).
    unsafe { execvpe(file, arguments, own()) }
}

/// # Safety
/// As execvpe(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execvpe(
    file: *const c_char,
    arguments: Arguments,
    environment: Environment,
) -> c_int {
    let Some(next) = next_execvpe() else { return fail(Errno::NOSYS) };
    // SAFETY: the program's pointer, as it must pass it to execvpe(3).
    let taken = match unsafe { before_search(file) } {
        Ok(taken) => taken,
        Err(error) => return fail(error),
    };
    // SAFETY: the program's pointers, as it must pass them to execvpe(3).
    let failed = unsafe { complete(environment, taken, |environment| next(file, arguments, environment)) };
    failed.unwrap_or_else(|| fail(Errno::NOMEM))
}

/// Replaces system(3), a cancellation point.
///
/// # Safety
/// As system(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn system(command: *const c_char) -> c_int {
    type System = unsafe extern "C-unwind" fn(*const c_char) -> c_int;
    let Some(next) = next!(System, c"system") else { return fail(Errno::NOSYS) };
    complete_own();
    // SAFETY: the program's pointer, as it must pass it to system(3).
    unsafe { next(command) }
}

/// # Safety
/// As popen(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn popen(command: *const c_char, mode: *const c_char) -> *mut c_void {
    type Popen = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut c_void;
    let Some(next) = next!(Popen, c"popen") else {
        fail(Errno::NOSYS);
        return std::ptr::null_mut();
    };
    complete_own();
    // SAFETY: the program's pointers, as it must pass them to popen(3).
    quietly(|pipe: &*mut c_void| !pipe.is_null(), || unsafe { next(command, mode) })
}

/// Defines a variadic function. It passes to `$with` the first argument, the address where it has stored the
/// arguments from registers, and the address of the others. Rust has no stable way to define such a function.
macro_rules! with_list {
    ($name:ident, $with:ident) => {
        /// # Safety
        /// As the C library's function of this name.
        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name() {
            naked_asm!(
                // Keeps the stack aligned to 16 bytes, with the return address.
                "sub rsp, 56",
                "mov [rsp], rsi",
                "mov [rsp + 8], rdx",
                "mov [rsp + 16], rcx",
                "mov [rsp + 24], r8",
                "mov [rsp + 32], r9",
                "mov rsi, rsp",
                "lea rdx, [rsp + 64]",
                "call {with}",
                "add rsp, 56",
                "ret",
                with = sym $with,
            )
        }

        /// # Safety
        /// As the C library's function of this name.
        #[cfg(target_arch = "aarch64")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name() {
            naked_asm!(
                "stp x29, x30, [sp, #-80]!",
                "mov x29, sp",
                "stp x1, x2, [sp, #16]",
                "stp x3, x4, [sp, #32]",
                "stp x5, x6, [sp, #48]",
                "str x7, [sp, #64]",
                "add x1, sp, #16",
                "add x2, sp, #80",
                "bl {with}",
                "ldp x29, x30, [sp], #80",
                "ret",
                with = sym $with,
            )
        }

        /// # Safety
        /// As the C library's function of this name.
        #[cfg(target_arch = "riscv64")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name() {
            naked_asm!(
                "addi sp, sp, -64",
                "sd a1, 0(sp)",
                "sd a2, 8(sp)",
                "sd a3, 16(sp)",
                "sd a4, 24(sp)",
                "sd a5, 32(sp)",
                "sd a6, 40(sp)",
                "sd a7, 48(sp)",
                "sd ra, 56(sp)",
                "mv a1, sp",
                "addi a2, sp, 64",
                "call {with}",
                "ld ra, 56(sp)",
                "addi sp, sp, 64",
                "ret",
                with = sym $with,
            )
        }
    };
}

with_list!(execl, execl_with);
with_list!(execlp, execlp_with);
with_list!(execle, execle_with);

/// Number of arguments behind the first that are passed in registers.
const REGISTER_ARGUMENTS: usize = if cfg!(target_arch = "x86_64") { 5 } else { 7 };

/// execl(3).
unsafe extern "C" fn execl_with(path: *const c_char, registers: Arguments, stack: Arguments) -> c_int {
    // SAFETY: the arguments that the program has passed to execl(3).
    unsafe { List(registers, stack).with(|arguments, _| execve(path, arguments, own())) }
}

/// execlp(3).
unsafe extern "C" fn execlp_with(file: *const c_char, registers: Arguments, stack: Arguments) -> c_int {
    // SAFETY: the arguments that the program has passed to execlp(3).
    unsafe { List(registers, stack).with(|arguments, _| execvpe(file, arguments, own())) }
}

/// execle(3).
unsafe extern "C" fn execle_with(path: *const c_char, registers: Arguments, stack: Arguments) -> c_int {
    // SAFETY: the arguments that the program has passed to execle(3), where the environment follows the
    // arguments' end.
    unsafe {
        let list = List(registers, stack);
        list.with(|arguments, count| execve(path, arguments, list.at(count + 1).cast()))
    }
}

/// Arguments as they were passed: those in registers, and the others.
struct List(Arguments, Arguments);

impl List {
    /// # Safety
    /// The list has more than `index` arguments.
    unsafe fn at(&self, index: usize) -> *const c_char {
        // SAFETY: the caller's.
        unsafe {
            match index.checked_sub(REGISTER_ARGUMENTS) {
                None => *self.0.add(index),
                Some(index) => *self.1.add(index),
            }
        }
    }

    /// Calls `call` with a contiguous list of the arguments, and their number without the end.
    ///
    /// # Safety
    /// A null pointer ends them.
    unsafe fn with(&self, call: impl FnOnce(Arguments, usize) -> c_int) -> c_int {
        let mut count = 0;
        // SAFETY: the caller's.
        while !unsafe { self.at(count) }.is_null() {
            count += 1;
        }
        let done = with_room((count + 1) * size_of::<*const c_char>(), |room| {
            let arguments = room.cast::<*const c_char>();
            for index in 0..=count {
                // SAFETY: the list has this many arguments, and the buffer has room for them.
                unsafe { *arguments.add(index) = self.at(index) };
            }
            call(arguments, count)
        });
        done.unwrap_or_else(|| fail(Errno::NOMEM))
    }
}

fn next_fexecve() -> Option<Fexecve> {
    next!(Fexecve, c"fexecve")
}

fn next_execvpe() -> Option<Execvpe> {
    next!(Execvpe, c"execvpe")
}

fn fail(error: Errno) -> c_int {
    set_errno(error.raw_os_error());
    -1
}
