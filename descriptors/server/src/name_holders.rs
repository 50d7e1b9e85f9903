//! Who has the abstract names of applications' sockets: proc(5), `/proc/net/unix`.
//!
//! Every user of the machine sees these names, and can take one as soon as its socket is closed. The inode
//! says whether a socket is still the one that an application has opened.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use peersock_fd::{Name, NodeTag, Opened};

/// For each time that reading takes, so much time passes before it is read again, unless it has to be.
const SHARE: u32 = 20;

/// The list of the names, as it was read last.
pub(crate) struct NameHolders {
    tag: NodeTag,
    inodes: HashMap<Opened, u64>,
    /// When it was read, and how long that took.
    read: Option<(Instant, Duration)>,
}

impl NameHolders {
    /// Of the sockets of one node. Nothing has been read.
    pub(crate) fn new(tag: NodeTag) -> Self {
        Self { tag, inodes: HashMap::new(), read: None }
    }

    /// The inode of the socket that has a name, from a list that is not older than `age`, or than many
    /// sockets make it dear to read. `None` if nobody has the name, or the system does not tell.
    pub(crate) fn inode(&mut self, socket: Opened, age: Duration) -> Option<u64> {
        let now = Instant::now();
        let is_fresh = |(at, took): (Instant, Duration)| {
            !age.is_zero() && now.duration_since(at) < age.max(took.saturating_mul(SHARE))
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
        // Other programs' names may be any bytes, line feeds among them, but none of theirs is an
        // application's: a node's tag and an ID of 48 bits are in it.
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
        // What was read lately may be what was.
        assert_eq!(holders.inode(socket, Duration::from_secs(3600)), Some(inode));
        assert_eq!(holders.inode(socket, Duration::ZERO), Some(other));
        assert_eq!(NameHolders::new(NodeTag(8)).inode(socket, Duration::ZERO), None);
    }
}
