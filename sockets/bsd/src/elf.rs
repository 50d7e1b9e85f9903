//! Detection of programs that no preloaded library reaches, by the beginning of their files. These are
//! programs that make system calls themselves, 32-bit programs, and programs that exit if the library is
//! loaded first. Nothing here uses heap memory.

use std::os::fd::BorrowedFd;

/// Returns true if a file is a 32-bit program (ELFCLASS32). A 64-bit library cannot be loaded into it, and
/// its system calls have other numbers.
///
/// ```
/// assert!(peersock_bsd::elf::is_32_bit(b"\x7fELF\x01\x01\x01"));
/// assert!(!peersock_bsd::elf::is_32_bit(b"\x7fELF\x02\x01\x01"));
/// ```
pub fn is_32_bit(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF\x01")
}

/// Returns true if an ELF file has the note of Go's build ID. Such a program makes system calls itself, even
/// if it is linked dynamically.
///
/// ```
/// assert!(!peersock_bsd::elf::is_go(b"\x7fELF"));
/// ```
pub fn is_go(head: &[u8]) -> bool {
    // The length of the name, the length of the ID, the type, and the name.
    let is_note = |note: &[u8]| note.starts_with(&[4, 0, 0, 0]) && note.ends_with(b"\x04\0\0\0Go\0\0");
    head.starts_with(b"\x7fELF") && head.windows(16).step_by(4).any(is_note)
}

/// Returns true if an ELF file names no program interpreter (PT_INTERP), so that nothing is loaded before it
/// runs. Returns false for other files, and if the table of program headers is not within `head`.
///
/// ```
/// assert!(!peersock_bsd::elf::is_static(b"#!/bin/sh"));
/// ```
pub fn is_static(head: &[u8]) -> bool {
    segments(head).is_some_and(|mut segments| !segments.any(|segment| segment.kind == Segment::INTERPRETER))
}

/// Returns true if a dynamically linked program needs the library of AddressSanitizer, which ends the program
/// unless it is loaded before all others. `head` is the beginning of the file.
///
/// ```
/// let program = std::fs::File::open("/proc/self/exe")?;
/// let head = std::fs::read("/proc/self/exe")?;
/// assert!(!peersock_bsd::elf::needs_sanitizer(std::os::fd::AsFd::as_fd(&program), &head));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn needs_sanitizer(file: BorrowedFd<'_>, head: &[u8]) -> bool {
    needs(file, head, is_sanitizer).unwrap_or(false)
}

/// Returns true if a library, by its name or path, is that of AddressSanitizer: GCC's or LLVM's.
///
/// ```
/// use peersock_bsd::elf::is_sanitizer;
///
/// assert!(is_sanitizer(b"libasan.so.8") && is_sanitizer(b"/usr/lib/libclang_rt.asan-x86_64.so"));
/// assert!(!is_sanitizer(b"libtsan.so.2") && !is_sanitizer(b"/libasan.so/libc.so.6"));
/// ```
pub fn is_sanitizer(library: &[u8]) -> bool {
    let name = library.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    [&b"libasan.so"[..], b"libclang_rt.asan"].iter().any(|prefix| name.starts_with(prefix))
}

/// Returns the libraries that LD_PRELOAD names.
///
/// ```
/// let named = peersock_bsd::elf::preloaded(b"liba.so:/b.so c.so");
/// assert_eq!(named.collect::<Vec<_>>(), [&b"liba.so"[..], b"/b.so", b"c.so"]);
/// ```
pub fn preloaded(variable: &[u8]) -> impl Iterator<Item = &[u8]> {
    variable.split(|byte| matches!(byte, b':' | b' ')).filter(|library| !library.is_empty())
}

/// Returns the libraries to load for a program, ours and the others that LD_PRELOAD names. Ours comes first,
/// because it must take the calls before others do. It comes behind a sanitizer, which ends the program
/// otherwise and calls the libraries behind it.
///
/// ```
/// let order = peersock_bsd::elf::preload_order(b"ours.so", b"a.so:libasan.so.8");
/// assert_eq!(order.collect::<Vec<_>>(), [&b"libasan.so.8"[..], b"ours.so", b"a.so"]);
/// ```
pub fn preload_order<'a>(ours: &'a [u8], others: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let sanitizers = preloaded(others).filter(|library| is_sanitizer(library));
    sanitizers.chain([ours]).chain(preloaded(others).filter(|library| !is_sanitizer(library)))
}

/// Returns true if a library that a program needs (DT_NEEDED) has a wanted name, by its first bytes. Returns
/// `None` for a file that is not a dynamically linked ELF64 file.
fn needs(file: BorrowedFd<'_>, head: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> Option<bool> {
    const DT_NEEDED: u64 = 1;
    const DT_STRTAB: u64 = 5;
    let section = segments(head)?.find(|segment| segment.kind == Segment::DYNAMIC)?;
    let entry = |index: u64| {
        let mut entry = [0; 16];
        let at = section.offset.checked_add(index * 16)?;
        let is_whole = rustix::io::pread(file, &mut entry, at) == Ok(16);
        is_whole.then(|| (word(&entry, 0), word(&entry, 8)))
    };
    // The file may claim an excessive number of entries.
    let entries = || (0..(section.size / 16).min(MAX_ENTRIES)).map_while(entry);
    let (_, texts) = entries().find(|(tag, _)| *tag == Some(DT_STRTAB))?;
    let texts = segments(head)?.find_map(|segment| segment.offset_of(texts?))?;
    Some(entries().filter(|(tag, _)| *tag == Some(DT_NEEDED)).any(|(_, name)| {
        let mut text = [0; 24];
        let at = name.and_then(|name| texts.checked_add(name));
        let length = at.and_then(|at| rustix::io::pread(file, &mut text, at).ok()).unwrap_or(0);
        is_wanted(&text[..length])
    }))
}

/// Maximum number of inspected entries of a dynamic section; real ones have some 30, and a few for each
/// library.
const MAX_ENTRIES: u64 = 512;

/// A segment of an ELF64 file.
#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

impl Segment {
    const LOAD: u32 = 1;
    const DYNAMIC: u32 = 2;
    const INTERPRETER: u32 = 3;

    fn of(header: &[u8]) -> Self {
        let kind = header.first_chunk().map_or(0, |kind| u32::from_le_bytes(*kind));
        let word = |at| word(header, at).unwrap_or(0);
        Self { kind, offset: word(8), address: word(16), size: word(32) }
    }

    /// Returns the position in the file of the bytes that are loaded to an address.
    fn offset_of(&self, address: u64) -> Option<u64> {
        let at = address.checked_sub(self.address).filter(|at| self.kind == Self::LOAD && *at < self.size)?;
        self.offset.checked_add(at)
    }
}

/// Reads the program headers of an ELF64 file.
fn segments(head: &[u8]) -> Option<impl Iterator<Item = Segment> + '_> {
    const ELF64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    if !head.starts_with(ELF64_LITTLE_ENDIAN) {
        return None;
    }
    let at = usize::try_from(word(head, 32)?).ok()?;
    let number = |at: usize| Some(usize::from(u16::from_le_bytes(*head.get(at..)?.first_chunk()?)));
    let (size, count) = (number(54)?, number(56)?);
    let table = head.get(at..at.checked_add(size * count)?)?;
    (size >= 4).then(|| table.chunks_exact(size).map(Segment::of))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Returns the interpreter in the first line of a script.
///
/// ```
/// use peersock_bsd::elf::script_interpreter;
///
/// assert_eq!(script_interpreter(b"#! /bin/busybox sh\necho"), Some(&b"/bin/busybox"[..]));
/// assert_eq!(script_interpreter(b"\x7fELF"), None);
/// ```
pub fn script_interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn this_test_is_linked_dynamically_and_a_program_without_interpreter_is_not() {
        let mut head = std::fs::read("/proc/self/exe").unwrap();
        head.truncate(8 << 10);
        assert!(!is_static(&head) && !is_go(&head));
        // The same without its program headers.
        head[56..58].fill(0);
        assert!(is_static(&head));
        for length in 0..100 {
            let _ = is_static(&head[..length]);
        }
        // A table beyond the end.
        head[32..40].fill(0xff);
        assert!(!is_static(&head));
    }

    #[test]
    fn the_libraries_that_a_program_needs_are_found() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let head = std::fs::read("/proc/self/exe").unwrap();
        let has = |head: &[u8], prefix: &'static [u8]| {
            needs(file.as_fd(), head, |name: &[u8]| name.starts_with(prefix))
        };
        assert_eq!(has(&head[..8 << 10], b"libc.so"), Some(true));
        assert_eq!(has(&head[..8 << 10], b"libasan.so"), Some(false));
        for length in 0..1000 {
            has(&head[..length], b"libc.so");
        }
        // Headers with arbitrary content.
        let mut broken = head[..8 << 10].to_vec();
        for at in 64..1000 {
            let byte = std::mem::replace(&mut broken[at], 0xff);
            has(&broken, b"libc.so");
            broken[at] = byte;
        }
    }
}
