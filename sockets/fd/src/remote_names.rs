//! Cache of the last address that a thread has sent to, because most threads send to the same one again.
//! Computing a seal takes a tenth of a system call.

use std::cell::Cell;
use std::net::SocketAddr;

use rustix::net::SocketAddrUnix;

use crate::client::address;
use crate::name::{Details, Name, NodeTag, SocketId};
use crate::proof::NameKey;

/// The values that determine an address.
type Parts = (NodeTag, NameKey, SocketId, SocketAddr, Option<Details>);

thread_local! {
    /// Taken out during use, because a signal handler may send, too.
    static LAST_ADDRESS: Cell<Option<(Parts, SocketAddrUnix)>> = const { Cell::new(None) };
}

/// Returns the address of the node's end for datagrams to `remote`.
pub(crate) fn address_of(
    tag: NodeTag,
    key: NameKey,
    id: SocketId,
    remote: SocketAddr,
    details: Option<Details>,
) -> SocketAddrUnix {
    let parts = (tag, key, id, remote, details);
    let kept = LAST_ADDRESS.try_with(Cell::take).ok().flatten();
    let kept = kept.filter(|(of, _)| *of == parts);
    let (_, made) = kept.unwrap_or_else(|| {
        let name = Name::Remote(tag, key.remote(id, remote, details));
        (parts, address(&name))
    });
    // A thread that is ending no longer has the variable.
    let _ = LAST_ADDRESS.try_with(|last| last.set(Some((parts, made.clone()))));
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_for_the_same_name_only() {
        let remote = |port| SocketAddr::from(([10, 7, 0, 1], port));
        let of = |key, id, port, hop_limit| {
            let details = Some(Details { hop_limit, ..Details::default() });
            let made = address_of(NodeTag(1), NameKey(key), SocketId(id), remote(port), details);
            let name = Name::Remote(NodeTag(1), NameKey(key).remote(SocketId(id), remote(port), details));
            assert_eq!(made, address(&name));
            made
        };
        let first = of(1, 1, 53, None);
        assert_eq!(of(1, 1, 53, None), first);
        for other in [of(2, 1, 53, None), of(1, 2, 53, None), of(1, 1, 54, None), of(1, 1, 53, Some(1))] {
            assert_ne!(other, first);
        }
    }
}
