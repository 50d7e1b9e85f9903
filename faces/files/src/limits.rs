//! What bounds the memory and the time that the other end of a stream can cost.

use std::time::Duration;

/// The most entries of a manifest: files, folders and links.
pub const ENTRIES: u32 = 1 << 18;

/// The longest path of an entry, and the longest target of a link, in bytes.
pub const PATH_BYTES: usize = 4096;

/// The longest name in a path, in bytes, as most file systems have it.
pub const NAME_BYTES: usize = 255;

/// The most names in a path.
pub const DEPTH: usize = 128;

/// The most bytes of all paths and targets of a manifest together: 32 MiB.
pub const TEXT_BYTES: u64 = 32 << 20;

/// The largest file, in bytes, and the largest sum of all files: what a signed 64-bit number holds.
pub const FILE_BYTES: u64 = i64::MAX as u64;

/// The longest message, in bytes. An entry with the longest path and target fits.
pub const MESSAGE_BYTES: usize = 16 << 10;

/// The most bytes of content in one frame, and what is read from a file at once: 256 KiB.
pub const DATA_BYTES: usize = 256 << 10;

/// The longest text in which one end says why it gives up, in bytes.
pub const REASON_BYTES: usize = 1024;

/// How long the other end may take to greet, from the first byte to the last.
pub const GREETING: Duration = Duration::from_secs(30);

/// How long a sender waits in all until a receiver has said what it wants; longer for large manifests, see
/// [`wanted_within`].
pub const WANTED: Duration = Duration::from_secs(600);

/// How long a sender waits in all until a receiver has said what it wants of so many entries with so many
/// bytes. What the sender itself reads meanwhile does not count. The receiver may have everything already,
/// and hash all of it before it says what it wants: that is granted at 2 MiB/s, and 50 ms for each entry. At
/// most 30 days.
///
/// ```
/// use peersock_files::limits::{WANTED, wanted_within};
///
/// assert_eq!(wanted_within(0, 0), WANTED);
/// assert!(wanted_within(1000, 1 << 30) < 2 * WANTED);
/// ```
pub fn wanted_within(entries: usize, bytes: u64) -> Duration {
    let reading = Duration::from_secs(bytes / (2 << 20));
    let talking = Duration::from_millis(50 * entries as u64);
    (WANTED + reading + talking).min(Duration::from_secs(30 * 86_400))
}

/// How long a sender may say or take nothing when it is its turn, as while it looks through its folders: 10
/// minutes.
pub const SILENT: Duration = Duration::from_secs(600);

/// How long a sender may say nothing while it hashes so many bytes of its files: [`SILENT`], and what that
/// takes at 2 MiB/s. At most 30 days.
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

/// How long a receiver may take nothing of what is sent to it: 5 minutes. A slow disk may take as long to
/// write what has come.
pub const STALLED: Duration = Duration::from_secs(300);

/// How long the other end may take to end the stream once it was told why this end gives up.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// The most bytes that are read after this end has given up, until the other end ends the stream: 64 MiB.
pub const DRAINED: u64 = 64 << 20;

/// The most partial files that are gone on with in one receipt; further ones begin anew. So many small files
/// are written to the disk together before they get their names.
pub const PARTS: usize = 64;
