//! Transfer of files and folders from one node to others.
//!
//! The sender creates a [`Code`], which a person types or pastes at the receiver. The code determines a
//! network's key and the sender's identity and address in that network ([`Meeting`]), so only holders of the
//! code complete a handshake. Then one stream carries one receipt:
//!
//! ```text
//!  both      greeting (magic, version)
//!  sender    the manifest: each entry with its path, kind, size, permissions and time
//!  receiver  which files it has, or has begun, and how many bytes of each
//!  sender    the hashes of as many bytes of its files (only if there are any)
//!  receiver  which files it wants, and from where on
//!  sender    for each of them: where it begins, the bytes, the hash of the whole file
//!  receiver  that everything is verified and written
//! ```
//!
//! There is no round trip per file. Both ends may give up at any time and say why. [`send()`] and [`receive`]
//! do one receipt over any [`Stream`]; callers connect, and retry after interruptions. A sender that scans
//! its files for each receiver does so after [`greet`], then calls [`Greeted::send`]. A receiver that asks a
//! person does so after [`offered`], then calls [`Offered::receive`].
//!
//! The receiver opens every path beneath its [`Folder`] step by step without following symbolic links. It
//! writes to a partial file, which gets its final name once the hash of the whole file is right. All input
//! from the other end is bounded before it is stored: [`limits`] has the numbers.
#![forbid(unsafe_code)]

mod code;
mod error;
mod folder;
mod greeting;
pub mod limits;
mod manifest;
mod path;
mod plan;
mod receiving;
mod scan;
mod sending;
mod stream;
mod symbols;
mod wire;

pub use code::{Code, CodeError, Meeting, PORT, PipeKeys};
pub use error::{ReceiveError, SendError};
pub use folder::Folder;
pub use greeting::{Greeted, greet, refuse};
pub use manifest::{Entry, Kind, Manifest, ManifestError, Permissions, Time};
pub use path::{EntryPath, LinkTarget, PathError};
pub use receiving::{Offered, Options, Receipt, decline, offered, receive};
pub use scan::{LeftOut, ScanError, Source};
pub use sending::{Sent, send};
pub use stream::{Observer, Stream};
pub use wire::{FromReceiver, FromSender, WireError, read_greeting};
