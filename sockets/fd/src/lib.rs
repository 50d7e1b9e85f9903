//! Overlay sockets as real file descriptors.
//!
//! Every overlay socket of an application is a kernel AF_UNIX socket whose other end its node holds. So
//! `read`, `write`, `poll`, `epoll`, `dup`, `fork` and descriptor passing are plain kernel operations. The
//! node may be in the same process, in a parent, or in any other process of the machine.
//!
//! * [`Name`]: content of the abstract name of such a socket;
//! * [`Request`] and [`Reply`]: messages between an application and its node;
//! * [`Client`], [`open()`] and [`Socket`]: the application's side, on which the C library, the preloaded
//!   library and Python build. The node's side is in the crate `peersock-socket-server`.
//!
//! The crate makes system calls without the C library's functions, so that a library that replaces them may
//! call it.

mod accept;
mod borrowed_memory;
mod client;
mod connect;
mod datagram;
mod encoding;
mod error_delay;
mod filling;
mod headers;
mod high_fd;
mod interface_index;
mod known_clients;
mod known_sizes;
mod name;
mod name_text;
pub mod option_table;
mod options;
mod passed;
mod private;
mod proof;
mod remote_names;
mod requests;
mod socket;
mod sys;
mod system_call;

pub use client::{Client, Held, address, receive, send_with};
pub use datagram::Received;
pub use encoding::{decode, encode};
pub use filling::Filling;
pub use headers::{AncillaryData, Header, HeaderKind};
pub use high_fd::{high_copy, prepare_high_numbers};
pub use interface_index::{interface_index, network_of_index};
pub use known_sizes::{ALWAYS_FITS, ALWAYS_WHOLE};
pub use name::{
    Accepted, Details, Family, Kind, MAX_NAME, Name, NodeTag, Opened, PacketInfo, Passed, Remote, SocketId,
};
pub use private::inherit_status;
pub use proof::{NameKey, Token, admission_proof, proof};
pub use requests::{
    Broken, Interface, MAX_MESSAGE, Message, Reply, Report, Request, Route, Unacknowledged, VERSION, Which,
};
pub use rustix::io::Errno;
pub use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};
pub use socket::{BUFFER, Socket, enlarge, events_of, name_of, open};
pub use sys::{Credentials, Identity, Timestamp, identity, int_option, peer_credentials, set_int_option};
pub use system_call::system_call;
