//! Files that only their owner may see: checked on reading, atomic on writing.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::StateError;
use crate::sync;

/// Reads a text file that holds a secret.
///
/// It checks the open file, so that the file cannot be exchanged between check and use. A pipe, as shells
/// make for `<(command)`, is read to its end; its owner and mode are checked, too. The text is wiped from
/// memory when dropped.
///
/// # Errors
///
/// Returns [`StateError::Exposed`] if group or others have any access, [`StateError::ForeignOwner`] if it
/// belongs to another user, [`StateError::WrongKind`] if it is neither a regular file nor a pipe,
/// [`StateError::Io`] if it cannot be read, is longer than 1 MiB or is not UTF-8.
pub fn read_secret_file(path: &Path) -> Result<Zeroizing<String>, StateError> {
    let (text, metadata) = read_text_file(path)?;
    check_secret_file(path, &metadata)?;
    Ok(text)
}

/// Reads like [`read_secret_file`], but refuses a pipe.
pub(crate) fn read_regular_secret_file(path: &Path) -> Result<Zeroizing<String>, StateError> {
    read_large_secret_file(path, MAX_FILE_BYTES)
}

/// Reads a file like [`read_regular_secret_file`], of at most `max` bytes.
pub(crate) fn read_large_secret_file(path: &Path, max: u64) -> Result<Zeroizing<String>, StateError> {
    // Opening a pipe without a writer would block, and a fixed path must not block the program.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(StateError::io("open", path))?;
    let metadata = file.metadata().map_err(StateError::io("examine", path))?;
    if !metadata.is_file() {
        return Err(StateError::WrongKind { path: path.into(), expected: "regular file" });
    }
    check_secret_file(path, &metadata)?;
    read_text(path, file, &metadata, max)
}

/// Reads a text file or a pipe, of at most 1 MiB, and returns the metadata for [`check_secret_file`] in case
/// it holds a secret.
pub(crate) fn read_text_file(path: &Path) -> Result<(Zeroizing<String>, Metadata), StateError> {
    let file = File::open(path).map_err(StateError::io("open", path))?;
    let metadata = file.metadata().map_err(StateError::io("examine", path))?;
    if !metadata.is_file() && !metadata.file_type().is_fifo() {
        return Err(StateError::WrongKind { path: path.into(), expected: "regular file or pipe" });
    }
    Ok((read_text(path, file, &metadata, MAX_FILE_BYTES)?, metadata))
}

/// Maximum length of a file unless its kind has another one.
const MAX_FILE_BYTES: u64 = 1 << 20;

fn read_text(
    path: &Path,
    file: File,
    metadata: &Metadata,
    max: u64,
) -> Result<Zeroizing<String>, StateError> {
    let too_large = || StateError::io("read", path)(std::io::ErrorKind::FileTooLarge.into());
    if metadata.len() > max {
        return Err(too_large());
    }
    // The length of a pipe's data is unknown.
    let expected = if metadata.is_file() { metadata.len() } else { max };
    // Reserved in one piece, because a growing string would leave copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(expected as usize + 1));
    // One byte more reveals a file that has grown.
    file.take(expected + 1).read_to_string(&mut text).map_err(StateError::io("read", path))?;
    match text.len() as u64 > max {
        true => Err(too_large()),
        false => Ok(text),
    }
}

/// Refuses a file or a pipe that users other than its owner can access, or that belongs to another user. A
/// shell's `<(…)` is the caller's, with mode 0600.
pub(crate) fn check_secret_file(path: &Path, metadata: &Metadata) -> Result<(), StateError> {
    check_owner(path, metadata)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StateError::Exposed { path: path.into(), mode });
    }
    Ok(())
}

/// Refuses a directory in which other users could put, or exchange, files.
pub(crate) fn check_directory(path: &Path) -> Result<(), StateError> {
    let metadata = fs::metadata(path).map_err(StateError::io("examine", path))?;
    if !metadata.is_dir() {
        return Err(StateError::WrongKind { path: path.into(), expected: "directory" });
    }
    check_owner(path, &metadata)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(StateError::WritableByOthers { path: path.into(), mode });
    }
    Ok(())
}

/// Refuses a file or a pipe of trusted nodes that everybody on the machine could change. Write access of a
/// group counts as the owner's choice.
pub(crate) fn check_trusted_file(path: &Path, metadata: &Metadata) -> Result<(), StateError> {
    let mode = metadata.mode() & 0o7777;
    match mode & 0o002 {
        0 => Ok(()),
        _ => Err(StateError::Changeable { path: path.into(), mode }),
    }
}

/// Refuses a file of another user than the effective one.
pub(crate) fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), StateError> {
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(StateError::ForeignOwner { path: path.into(), owner: metadata.uid(), user });
    }
    Ok(())
}

/// Replaces `directory/name` by a file of mode 0600 with this content.
///
/// After a crash at any point the old file or the new one exists, whole and on the disk. The caller holds the
/// directory's lock, so one fixed temporary name is enough.
pub(crate) fn write_atomically(directory: &Path, name: &str, content: &[u8]) -> Result<(), StateError> {
    // The lock of the directory keeps other processes out. Of two threads, one would move the other's
    // half-written file into place.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = sync::lock(&WRITING);
    let target = directory.join(name);
    let temporary = directory.join(format!(".{name}.new"));
    // A crash may have left it behind.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StateError::io("remove", &temporary)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(StateError::io("create", &temporary))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, &target))
        .map_err(StateError::io("write", &target))?;
    // The rename is durable only once the directory is.
    File::open(directory).and_then(|d| d.sync_all()).map_err(StateError::io("write", directory))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_written_file_is_private_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        write_atomically(dir.path(), "secret", b"one").unwrap();
        write_atomically(dir.path(), "secret", b"two").unwrap();
        assert_eq!(*read_secret_file(&dir.path().join("secret")).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn threads_that_write_one_file_leave_a_whole_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let contents = [vec![b'a'; 100_000], vec![b'b'; 10]];
        write_atomically(dir.path(), "secret", &contents[0]).unwrap();
        std::thread::scope(|scope| {
            for content in &contents {
                scope
                    .spawn(|| (0..50).for_each(|_| write_atomically(dir.path(), "secret", content).unwrap()));
            }
            for _ in 0..200 {
                let read = fs::read(&path).unwrap();
                assert!(contents.contains(&read), "{} bytes", read.len());
            }
        });
    }

    #[test]
    fn a_leftover_temporary_file_does_not_stand_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".secret.new"), "torn").unwrap();
        write_atomically(dir.path(), "secret", b"whole").unwrap();
        assert_eq!(*read_secret_file(&dir.path().join("secret")).unwrap(), "whole");
    }

    #[test]
    fn files_that_others_can_use_are_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "x").unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_secret_file(&path).unwrap_err();
            assert!(matches!(error, StateError::Exposed { mode: m, .. } if m == mode), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        read_secret_file(&path).unwrap();
    }

    #[test]
    fn pipes_are_read_to_their_end_where_somebody_names_them_and_refused_without_blocking_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let is_wrong_kind = |result: Result<Zeroizing<String>, StateError>| {
            matches!(result.unwrap_err(), StateError::WrongKind { .. })
        };
        assert!(is_wrong_kind(read_secret_file(dir.path())));
        assert!(is_wrong_kind(read_regular_secret_file(dir.path())));
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(is_wrong_kind(read_regular_secret_file(&fifo)));
        let write = |content: Vec<u8>| {
            let fifo = fifo.clone();
            std::thread::spawn(move || fs::write(fifo, content))
        };
        let writing = write(b"correct horse".into());
        assert_eq!(*read_secret_file(&fifo).unwrap(), "correct horse");
        writing.join().unwrap().unwrap();
        let writing = write(vec![b'x'; (1 << 20) + 1]);
        assert!(matches!(read_secret_file(&fifo).unwrap_err(), StateError::Io { .. }));
        // The reader does not take all; whether the writer notices depends on the pipe's size.
        let _ = writing.join().unwrap();
    }
}
