//! Which programs no preloaded library reaches, by the beginning of their files: those that make system calls
//! themselves, and 32-bit ones. Nothing here takes memory of the heap.

/// Whether a file is a 32-bit program (ELFCLASS32): a library of 64 bits cannot be loaded into it, and its
/// system calls have other numbers.
///
/// ```
/// assert!(peersock_bsd::elf::is_32_bit(b"\x7fELF\x01\x01\x01"));
/// assert!(!peersock_bsd::elf::is_32_bit(b"\x7fELF\x02\x01\x01"));
/// ```
pub fn is_32_bit(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF\x01")
}

/// Whether an ELF file has the note of Go's build ID. Such a program makes system calls itself, also if it is
/// linked dynamically.
///
/// ```
/// assert!(!peersock_bsd::elf::is_go(b"\x7fELF"));
/// ```
pub fn is_go(head: &[u8]) -> bool {
    // The length of the name, that of the ID, the type, and the name.
    let is_note = |note: &[u8]| note.starts_with(&[4, 0, 0, 0]) && note.ends_with(b"\x04\0\0\0Go\0\0");
    head.starts_with(b"\x7fELF") && head.windows(16).step_by(4).any(is_note)
}

/// Whether an ELF file names no program interpreter (PT_INTERP): then nothing is loaded before it runs. False
/// of what is none, and of one whose table of program headers is not at its beginning.
///
/// ```
/// assert!(!peersock_bsd::elf::is_static(b"#!/bin/sh"));
/// ```
pub fn is_static(head: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    program_headers(head).is_some_and(|mut kinds| !kinds.any(|kind| kind == PT_INTERP))
}

/// The types of an ELF64 file's program headers.
fn program_headers(head: &[u8]) -> Option<impl Iterator<Item = u32> + '_> {
    const ELF64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    if !head.starts_with(ELF64_LITTLE_ENDIAN) {
        return None;
    }
    let at = usize::try_from(u64::from_le_bytes(*head.get(32..)?.first_chunk()?)).ok()?;
    let number = |at: usize| Some(usize::from(u16::from_le_bytes(*head.get(at..)?.first_chunk()?)));
    let (size, count) = (number(54)?, number(56)?);
    let table = head.get(at..at.checked_add(size * count)?)?;
    let kind = |entry: &[u8]| entry.first_chunk().map_or(0, |kind| u32::from_le_bytes(*kind));
    (size >= 4).then(|| table.chunks_exact(size).map(kind))
}

/// What the first line of a script names.
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
        // A table that is nowhere.
        head[32..40].fill(0xff);
        assert!(!is_static(&head));
    }
}
