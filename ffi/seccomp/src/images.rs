//! Detection of programs with the preloaded library, which takes their calls; only calls it passes on come
//! here.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::sync::Mutex;

use peersock_bsd::elf::is_go;

/// Maximum number of programs remembered; beyond it the oldest is forgotten.
const MAX_PROGRAMS: usize = 256;

/// Number of bytes at a program's beginning that are inspected.
const HEAD_BYTES: u64 = 64 << 10;

/// Results for running programs.
#[derive(Debug)]
pub(crate) struct Images {
    /// A name that appears in the memory map of a program with the library.
    library: Option<String>,
    known: Mutex<VecDeque<(Image, bool)>>,
}

/// Data that the kernel creates for each program start, random addresses among it. Forked children have their
/// parent's data, and its libraries.
type Image = Vec<u8>;

impl Images {
    pub(crate) fn new(library: Option<String>) -> Self {
        Self { library, known: Mutex::default() }
    }

    /// Returns true if the library takes the calls of the program that a thread runs. Programs written in Go
    /// make them directly, even with the library.
    pub(crate) fn is_preloaded(&self, thread: i32) -> bool {
        let Some(library) = &self.library else { return false };
        let image = match fs::read(format!("/proc/{thread}/auxv")) {
            Ok(image) => image,
            // The program protects itself (PR_SET_DUMPABLE), as ssh-agent does. Programs do that while they
            // run, and by then the library is loaded if it can be.
            Err(error) => return error.kind() == io::ErrorKind::PermissionDenied,
        };
        let mut known = self.known.lock().expect("no panic under this lock");
        if let Some((_, preloaded)) = known.iter().rev().find(|(known, _)| *known == image) {
            return *preloaded;
        }
        let maps = fs::read(format!("/proc/{thread}/maps")).unwrap_or_default();
        let has_library = String::from_utf8_lossy(&maps).contains(library.as_str());
        let preloaded = has_library && !head(thread).is_some_and(|head| is_go(&head));
        if known.len() >= MAX_PROGRAMS {
            known.pop_front();
        }
        known.push_back((image, preloaded));
        preloaded
    }
}

fn head(thread: i32) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(format!("/proc/{thread}/exe")).ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_the_libraries_that_its_map_shows() {
        let thread = std::process::id() as i32;
        assert!(!Images::new(None).is_preloaded(thread));
        assert!(!Images::new(Some("no such library".into())).is_preloaded(thread));
        let name = std::env::current_exe().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let images = Images::new(Some(name));
        assert!(images.is_preloaded(thread) && images.is_preloaded(thread));
        assert_eq!(images.known.lock().unwrap().len(), 1);
    }
}
