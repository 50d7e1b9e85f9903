//! Limits on the memory and time that the other end of a stream can consume.

use std::time::Duration;

/// Maximum number of entries of a manifest: files, folders and links.
pub const ENTRIES: u32 = 1 << 18;

/// Maximum length of an entry's path, and of a link's target, in bytes.
pub const PATH_BYTES: usize = 4096;

/// Maximum length of a name in a path, in bytes, as in most file systems.
pub const NAME_BYTES: usize = 255;

/// Maximum number of names in a path.
pub const DEPTH: usize = 128;

/// Maximum total length of all paths and targets of a manifest: 32 MiB.
pub const TEXT_BYTES: u64 = 32 << 20;

/// Maximum size of a file, and of all files together, in bytes: the range of a signed 64-bit number.
pub const FILE_BYTES: u64 = i64::MAX as u64;

/// Maximum length of a message, in bytes. An entry with the longest path and target fits.
pub const MESSAGE_BYTES: usize = 16 << 10;

/// Maximum number of content bytes in one frame, and per read from a file: 256 KiB.
pub const DATA_BYTES: usize = 256 << 10;

/// Maximum length of the text in which one end says why it gives up, in bytes.
pub const REASON_BYTES: usize = 1024;

/// Timeout for the other end's greeting, from the first byte to the last.
pub const GREETING: Duration = Duration::from_secs(30);

/// Total time a sender waits for a receiver's requests; longer for large manifests, see [`wanted_within`].
pub const WANTED: Duration = Duration::from_secs(600);

/// Returns the total time a sender waits for a receiver's requests, given the numbers of entries and bytes.
/// Time the sender itself spends reading does not count. The allowance is 2 MiB/s plus 50 ms per entry,
/// because the receiver may have all files and hash them before its requests. At most 30 days.
pub fn wanted_within(entries: usize, bytes: u64) -> Duration {
    let reading = Duration::from_secs(bytes / (2 << 20));
    let talking = Duration::from_millis(50 * entries as u64);
    (WANTED + reading + talking).min(Duration::from_secs(30 * 86_400))
}

/// Timeout for a sender that sends or accepts nothing when it is its turn, for example while it scans its
/// folders: 10 minutes.
pub const SILENT: Duration = Duration::from_secs(600);

/// Returns the timeout for a sender that hashes this number of bytes of its files: [`SILENT`] plus the time
/// at 2 MiB/s. At most 30 days.
///
/// ```
/// use peersock_files::limits::{SILENT, silent_within};
///
/// assert_eq!(silent_within(0), SILENT);
/// assert!(silent_within(1 << 30) < 2 * SILENT);
/// ```
pub fn silent_within(bytes: u64) -> Duration {
    (SILENT + Duration::from_secs(bytes / (2 << 20))).min(Duration::from_secs(30 * 86_400))
}

/// Timeout for a receiver that accepts nothing: 5 minutes. A slow disk may need as long to write.
pub const STALLED: Duration = Duration::from_secs(300);

/// Time the other end has to end the stream after it was told why this end gives up.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// Maximum number of bytes read after this end has given up, until the other end ends the stream: 64 MiB.
pub const DRAINED: u64 = 64 << 20;

/// Maximum number of partial files resumed in one receipt; further files restart. Also the number of small
/// files synced together before they get their names.
pub const PARTS: usize = 64;
