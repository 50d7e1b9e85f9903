//! Files and folders from one node to others.
//!
//! The sender makes a [`Code`], which a person types or pastes at the receiver. From it alone follow the key
//! of a network, and the sender's identity and address in it ([`Meeting`]): who has the code gets in, and
//! nobody else completes a handshake. Then one stream is one receipt:
//!
//! ```text
//!  both      greeting (magic, version)
//!  sender    the manifest: each entry with its path, kind, size and time
//!  receiver  which files it has, or has begun, and how many bytes of each
//!  sender    the hashes of as many bytes of its own (only if there are any)
//!  receiver  which files it wants, and from where on
//!  sender    for each of them: where it begins, the bytes, the hash of the whole file
//!  receiver  that everything is verified and written
//! ```
//!
//! There is no round trip for each file. Both ends may say at any time why they give up. [`send()`] and
//! [`receive`] do one receipt over any [`Stream`]; who calls them connects, and repeats what broke off. A
//! sender that looks through its files for each receiver does so after [`greet`], then calls
//! [`Greeted::send`].
//!
//! The receiver opens every path beneath its [`Folder`] step by step without following symbolic links, and
//! writes to a name of its own that becomes the final one when the hash of the whole file is right. Bytes
//! that come from the other end are bounded before they are kept: [`limits`] has the numbers.
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

pub use code::{Code, CodeError, Meeting, PORT};
pub use error::{ReceiveError, SendError};
pub use folder::Folder;
pub use greeting::{Greeted, greet, refuse};
pub use manifest::{Entry, Kind, Manifest, ManifestError, Time};
pub use path::{EntryPath, LinkTarget, PathError};
pub use receiving::{Options, Receipt, receive};
pub use scan::{LeftOut, ScanError, Source};
pub use sending::{Sent, send};
pub use stream::{Observer, Stream};
pub use wire::{FromReceiver, FromSender, WireError, read_greeting};
