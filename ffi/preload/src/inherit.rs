//! The environment of programs that this one starts: variables that this library needs are restored if the
//! program has left them out.
//!
//! This code may run in a child of `vfork`, or of `fork` in a program with threads, so it takes no lock and
//! no heap memory.

use std::env;
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::sync::OnceLock;

use libc::c_void;
use peersock_bsd::elf;

use crate::supervise::Taken;

/// A program's environment: pointers to C strings, with a null pointer at the end.
pub(crate) type Environment = *const *const c_char;

const PRELOAD_VARIABLE: &[u8] = b"LD_PRELOAD=";
const NODE_VARIABLE: &[u8] = b"PEERSOCK_NODE=";
const RULES_VARIABLE: &[u8] = b"PEERSOCK_RULES=";

/// Maximum number of variables added.
const MAX_ADDED_VARIABLES: usize = 3;

/// Stack sizes for a small, a usual and a large environment, bytes, because a thread may have only 16 KiB. A
/// larger environment gets separate pages.
const SMALL_STACK_BYTES: usize = 1 << 10;
const USUAL_STACK_BYTES: usize = 4 << 10;
const LARGE_STACK_BYTES: usize = 32 << 10;

static NEEDED: OnceLock<Option<Needed>> = OnceLock::new();

/// The variables a program needs to be on the overlay, as this one had them at its start.
#[derive(Debug)]
struct Needed {
    /// This library's path, as in LD_PRELOAD.
    library: CString,
    /// LD_PRELOAD with only this library.
    preload: CString,
    node: CString,
    rules: Option<CString>,
}

/// Reads the needed variables, before the program can overwrite its environment.
pub(crate) fn remember() {
    NEEDED.get_or_init(Needed::of_this_process);
}

/// Calls `call` with an environment that keeps a program on the overlay. Returns `None` if the system has no
/// memory for it.
///
/// `call` gets `environment` itself if nothing is missing, or if it names another node, because another
/// launcher has prepared it then. For a program whose calls are taken by a filter alone, LD_PRELOAD does not
/// name this library.
///
/// # Safety
/// `environment` is null, or valid for execve(2).
pub(crate) unsafe fn complete<T>(
    environment: Environment,
    taken: Taken,
    call: impl FnOnce(Environment) -> T,
) -> Option<T> {
    let Some(needed) = NEEDED.get().and_then(Option::as_ref) else { return Some(call(environment)) };
    // SAFETY: the caller's.
    let found = unsafe { Found::in_environment(environment, needed) };
    if taken == Taken::ByFilter {
        // SAFETY: the caller's.
        return unsafe { found.call_without_library(environment, needed, call) };
    }
    if found.is_complete(needed) {
        return Some(call(environment));
    }
    let slots = found.count + MAX_ADDED_VARIABLES + 1;
    let others = found.preload.map(|(_, others)| others).filter(|others| !others.is_empty());
    let text = others.map_or(0, |others| needed.preload.as_bytes().len() + others.len() + 2);
    with_room(slots * size_of::<*const c_char>() + text, |room| {
        let list = room.cast::<*const c_char>();
        // SAFETY: the room is for this many pointers and the text behind them, and aligned for pointers.
        unsafe {
            let joined = list.add(slots).cast::<u8>();
            found.write(environment, needed, list, others.map(|others| (others, joined)));
        }
        call(list)
    })
}

/// Adds missing variables to the environment of this process, for C library functions that start programs
/// with it.
pub(crate) fn complete_own() {
    let Some(needed) = NEEDED.get().and_then(Option::as_ref) else { return };
    // SAFETY: a variable of the C library, which always holds an environment.
    let found = unsafe { Found::in_environment(environ, needed) };
    if found.is_complete(needed) {
        return;
    }
    let own = needed.library.as_bytes();
    let preload = match found.preload {
        Some((_, others)) if !others.is_empty() => {
            elf::preload_order(own, others).collect::<Vec<_>>().join(&b':')
        }
        _ => own.to_vec(),
    };
    let preload = CString::new(preload).ok().filter(|_| !found.has_library);
    let node = Some(&needed.node).filter(|_| !found.has_node);
    let rules = needed.rules.as_ref().filter(|_| !found.has_rules);
    let values = [
        (c"LD_PRELOAD", preload.as_deref()),
        (c"PEERSOCK_NODE", node.map(|node| value(node, NODE_VARIABLE))),
        (c"PEERSOCK_RULES", rules.map(|rules| value(rules, RULES_VARIABLE))),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            // SAFETY: both are C strings, which it copies.
            unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
        }
    }
}

/// Returns the current environment of this process.
pub(crate) fn own() -> Environment {
    // SAFETY: a variable of the C library, which always holds an environment.
    unsafe { environ }
}

unsafe extern "C" {
    static mut environ: Environment;
}

impl Needed {
    /// Reads the variables. Returns `None` in a process that `peersock run` has not started.
    fn of_this_process() -> Option<Self> {
        let library = own_path()?;
        let variable = |name: &[u8]| {
            let key = std::str::from_utf8(&name[..name.len() - 1]).ok()?;
            CString::new([name, &env::var_os(key)?.into_vec()].concat()).ok()
        };
        let node = variable(NODE_VARIABLE)?;
        let preload = CString::new([PRELOAD_VARIABLE, library.as_bytes()].concat()).ok()?;
        Some(Self { library, preload, node, rules: variable(RULES_VARIABLE) })
    }
}

/// Returns the path by which the loader knows this library.
fn own_path() -> Option<CString> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    let here = own_path as fn() -> Option<CString> as *const c_void;
    // SAFETY: the address is one of this library's, and the call fills in the whole structure if it succeeds.
    let info = unsafe { (libc::dladdr(here, info.as_mut_ptr()) != 0).then(|| info.assume_init()) }?;
    // SAFETY: the loader's own text, which lives as long as the library.
    let path = unsafe { (!info.dli_fname.is_null()).then(|| CStr::from_ptr(info.dli_fname)) }?;
    path.to_bytes().starts_with(b"/").then(|| path.to_owned())
}

/// The needed variables found in an environment.
struct Found<'a> {
    /// Number of variables.
    count: usize,
    /// Position of LD_PRELOAD, and its value.
    preload: Option<(usize, &'a [u8])>,
    has_library: bool,
    has_node: bool,
    is_of_other_node: bool,
    has_rules: bool,
}

impl<'a> Found<'a> {
    /// # Safety
    /// As [`complete`]; the result must not outlive the environment.
    unsafe fn in_environment(environment: Environment, needed: &Needed) -> Found<'a> {
        let mut found = Found {
            count: 0,
            preload: None,
            has_library: false,
            has_node: false,
            is_of_other_node: false,
            has_rules: false,
        };
        while !environment.is_null() {
            // SAFETY: the caller's: all before the null pointer are texts.
            let variable = unsafe {
                let text = *environment.add(found.count);
                if text.is_null() {
                    break;
                }
                CStr::from_ptr(text).to_bytes()
            };
            if let Some(value) = variable.strip_prefix(PRELOAD_VARIABLE) {
                // The loader takes the first of two.
                found.preload.get_or_insert((found.count, value));
            } else if variable.starts_with(NODE_VARIABLE) {
                found.has_node = true;
                found.is_of_other_node |= variable != needed.node.as_bytes();
            } else if variable.starts_with(RULES_VARIABLE) {
                found.has_rules = true;
            }
            found.count += 1;
        }
        let own = needed.library.as_bytes();
        found.has_library =
            found.preload.is_some_and(|(_, value)| elf::preloaded(value).any(|path| path == own));
        found
    }

    fn is_complete(&self, needed: &Needed) -> bool {
        let has_rules = self.has_rules || needed.rules.is_none();
        self.is_of_other_node || (self.has_library && self.has_node && has_rules)
    }

    /// Calls `call` with the environment, in which LD_PRELOAD names only the other libraries.
    ///
    /// # Safety
    /// It is the environment that was inspected.
    unsafe fn call_without_library<T>(
        &self,
        environment: Environment,
        needed: &Needed,
        call: impl FnOnce(Environment) -> T,
    ) -> Option<T> {
        let Some((at, value)) = self.preload.filter(|_| self.has_library) else {
            return Some(call(environment));
        };
        let pointers = (self.count + 1) * size_of::<*const c_char>();
        with_room(pointers + PRELOAD_VARIABLE.len() + value.len() + 2, |room| {
            let list = room.cast::<*const c_char>();
            let others = elf::preloaded(value).filter(|path| *path != needed.library.as_bytes());
            // SAFETY: the room is for all pointers with their end, and the variable's text behind them, which
            // is not longer than it was.
            unsafe {
                ptr::copy_nonoverlapping(environment, list, self.count + 1);
                *list.add(at) = join(others, room.add(pointers));
            }
            call(list)
        })
    }

    /// Writes the environment with the missing variables.
    ///
    /// # Safety
    /// `list` has room for all variables, [`MAX_ADDED_VARIABLES`] more and the end. The joined text has room
    /// for LD_PRELOAD with the other libraries.
    unsafe fn write(
        &self,
        environment: Environment,
        needed: &Needed,
        list: *mut *const c_char,
        joined: Option<(&[u8], *mut u8)>,
    ) {
        let mut count = self.count;
        let mut add = |variable: *const c_char| {
            // SAFETY: the caller's: at most `MAX_ADDED_VARIABLES` are added.
            unsafe { *list.add(count) = variable };
            count += 1;
        };
        if self.count > 0 {
            // SAFETY: the caller's; the two do not overlap.
            unsafe { ptr::copy_nonoverlapping(environment, list, self.count) };
        }
        if !self.has_library {
            let preload = match joined {
                // SAFETY: the caller's.
                Some((others, room)) => unsafe {
                    join(elf::preload_order(needed.library.as_bytes(), others), room)
                },
                None => needed.preload.as_ptr(),
            };
            match self.preload {
                // SAFETY: it is one of the counted variables.
                Some((at, _)) => unsafe { *list.add(at) = preload },
                None => add(preload),
            }
        }
        if !self.has_node {
            add(needed.node.as_ptr());
        }
        if let Some(rules) = needed.rules.as_ref().filter(|_| !self.has_rules) {
            add(rules.as_ptr());
        }
        add(ptr::null());
    }
}

/// Writes LD_PRELOAD with these values, separated by colons, as a C string, and returns it.
///
/// # Safety
/// There is room for the variable's name, the values, and one more byte for each.
unsafe fn join<'a>(values: impl IntoIterator<Item = &'a [u8]>, room: *mut u8) -> *const c_char {
    let mut end = room;
    let mut write = |text: &[u8]| {
        // SAFETY: the caller's.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), end, text.len());
            end = end.add(text.len());
        }
    };
    write(PRELOAD_VARIABLE);
    for (at, value) in values.into_iter().enumerate() {
        if at > 0 {
            write(b":");
        }
        write(value);
    }
    write(b"\0");
    room.cast()
}

/// Returns the value that follows a variable's name.
fn value<'a>(variable: &'a CStr, name: &[u8]) -> &'a CStr {
    CStr::from_bytes_with_nul(&variable.to_bytes_with_nul()[name.len()..]).unwrap_or_default()
}

/// A buffer aligned for pointers.
#[repr(C, align(16))]
struct Room<const SIZE: usize>(MaybeUninit<[u8; SIZE]>);

/// Runs `body` with `bytes` bytes that are aligned for pointers. Returns `None` if the system has no memory.
pub(crate) fn with_room<T>(bytes: usize, body: impl FnOnce(*mut u8) -> T) -> Option<T> {
    if bytes <= SMALL_STACK_BYTES {
        return Some(on_stack::<SMALL_STACK_BYTES, T>(body));
    }
    if bytes <= USUAL_STACK_BYTES {
        return Some(on_stack::<USUAL_STACK_BYTES, T>(body));
    }
    if bytes <= LARGE_STACK_BYTES {
        return Some(on_stack::<LARGE_STACK_BYTES, T>(body));
    }
    // A child of vfork(2) in which `body` starts a program leaves the pages to its parent.
    with_pages(bytes, |room| body(room.as_mut_ptr()))
}

/// Runs `body` with `bytes` zero bytes in separate pages. Returns `None` if the system has no memory.
pub(crate) fn with_pages<T>(bytes: usize, body: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new private mapping at a place that the kernel chooses touches no other memory.
    let pages = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) };
    if pages == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping is as long, and nothing else uses it.
    let result = body(unsafe { std::slice::from_raw_parts_mut(pages.cast(), bytes) });
    // SAFETY: the whole mapping that was made above; `body` has ended.
    unsafe { libc::munmap(pages, bytes) };
    Some(result)
}

/// Runs `body` on a stack buffer. Not inlined, so that a usual environment does not take the stack of a large
/// one.
#[inline(never)]
fn on_stack<const SIZE: usize, T>(body: impl FnOnce(*mut u8) -> T) -> T {
    let mut room = Room::<SIZE>(MaybeUninit::uninit());
    body((&raw mut room.0).cast())
}
