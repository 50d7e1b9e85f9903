//! Holders of the abstract names of applications' sockets, from `/proc/net/unix` (proc(5)).
//!
//! Every user of the machine sees these names, and can take one as soon as its socket is closed. The inode
//! shows whether a socket is still the one that an application has opened.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use peersock_fd::{Name, NodeTag, Opened};

/// Minimum interval between reads, as a multiple of a read's duration, unless a caller demands a fresh list.
const READ_TIME_MULTIPLE: u32 = 20;

/// The list of names as last read.
pub(crate) struct NameHolders {
    tag: NodeTag,
    inodes: HashMap<Opened, u64>,
    /// Time and duration of the last read.
    read: Option<(Instant, Duration)>,
}

impl NameHolders {
    /// Creates the list of one node's sockets; nothing has been read.
    pub(crate) fn new(tag: NodeTag) -> Self {
        Self { tag, inodes: HashMap::new(), read: None }
    }

    /// Returns the inode of the socket that has a name. The list may be up to `age` old, or older if many
    /// sockets make it expensive to read. Returns `None` if no socket has the name, or the system hides it.
    pub(crate) fn inode(&mut self, socket: Opened, age: Duration) -> Option<u64> {
        let now = Instant::now();
        let is_fresh = |(at, took): (Instant, Duration)| {
            !age.is_zero() && now.duration_since(at) < age.max(took.saturating_mul(READ_TIME_MULTIPLE))
        };
        if !self.read.is_some_and(is_fresh) {
            self.read();
            self.read = Some((now, now.elapsed()));
        }
        self.inodes.get(&socket).copied()
    }

    fn read(&mut self) {
        self.inodes.clear();
        let listed = std::fs::read("/proc/net/unix").unwrap_or_default();
        // Other programs' names may contain any bytes, even line feeds. They cannot match an application's
        // name, which contains the node's tag and a 48-bit ID.
        for line in listed.split(|byte| *byte == b'\n') {
            let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).skip(6);
            let inode = fields.next().and_then(|inode| std::str::from_utf8(inode).ok()?.parse().ok());
            let name = fields.next().and_then(|name| Name::parse(name.strip_prefix(b"@")?));
            if let (Some(inode), Some(Name::Opened(tag, socket))) = (inode, name)
                && tag == self.tag
            {
                self.inodes.insert(socket, inode);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use peersock_fd::{Family, Kind, SocketId, address};
    use rustix::net::SocketType;

    use super::*;
    use crate::unix::unix;

    #[test]
    fn a_name_belongs_to_the_socket_that_has_it_now() {
        let id = SocketId::new(getrandom::u64().unwrap());
        let (tag, socket) = (NodeTag(7), Opened { family: Family::V6, kind: Kind::Datagram, id });
        let mut holders = NameHolders::new(tag);
        let bound = || {
            let fd = unix(SocketType::DGRAM).unwrap();
            rustix::net::bind(&fd, &address(&Name::Opened(tag, socket))).unwrap();
            let inode = rustix::fs::fstat(&fd).unwrap().st_ino;
            (fd, inode)
        };
        assert_eq!(holders.inode(socket, Duration::ZERO), None);
        let (first, inode) = bound();
        assert_eq!(holders.inode(socket, Duration::ZERO), Some(inode));
        drop(first);
        let (_second, other) = bound();
        // A recently read list may be out of date.
        assert_eq!(holders.inode(socket, Duration::from_secs(3600)), Some(inode));
        assert_eq!(holders.inode(socket, Duration::ZERO), Some(other));
        assert_eq!(NameHolders::new(NodeTag(8)).inode(socket, Duration::ZERO), None);
    }
}
