//! Requests of programs.

use libc::c_int;
use netlink_packet_core::NetlinkBuffer;
use peersock_fd::Interface;

use super::{Answer, attributes, messages, u32_at};

/// Types of attributes (linux/if_link.h, linux/if_addr.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFLA_ALT_IFNAME: u16 = 53;
const IFA_TARGET_NETNSID: u16 = 10;

/// Length of a `struct ifinfomsg` and of a `struct ifaddrmsg`, bytes.
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// A request whose answer must include the networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) sequence: u32,
    pub(super) about: About,
    /// NLM_F_ACK.
    pub(super) wants_acknowledgement: bool,
}

/// Subject of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About {
    /// All interfaces, as a family sees them.
    Links(u8),
    /// The interface with this index.
    Index(u32),
    /// The interface with this name.
    Name(Vec<u8>),
    /// All addresses of a family, or of all families; only of one interface if there is an index.
    Addresses(c_int, Option<u32>),
}

/// Returns the requests for interfaces and addresses in sent data. `is_strict` tells if the socket has
/// NETLINK_GET_STRICT_CHK, and is called only where that matters.
pub(super) fn questions(sent: &[u8], is_strict: impl Fn() -> bool) -> Vec<Question> {
    let one = |(_, message): (usize, NetlinkBuffer<&[u8]>)| {
        let (flags, body) = (c_int::from(message.flags()), message.payload());
        let family = *body.first()?;
        let is_dump = flags & libc::NLM_F_DUMP != 0;
        let about = match message.message_type() {
            _ if flags & libc::NLM_F_REQUEST == 0 => return None,
            libc::RTM_GETLINK if is_dump => links(family, body)?,
            libc::RTM_GETLINK => link(body)?,
            libc::RTM_GETADDR if is_dump => addresses(family, body, &is_strict)?,
            _ => return None,
        };
        let wants_acknowledgement = flags & libc::NLM_F_ACK != 0;
        Some(Question { sequence: message.sequence_number(), about, wants_acknowledgement })
    };
    messages(sent).filter_map(one).collect()
}

fn links(family: u8, body: &[u8]) -> Option<About> {
    // The networks never belong to a master, to a link kind, or to another namespace.
    let others = [IFLA_MASTER, IFLA_LINKINFO, IFLA_TARGET_NETNSID];
    let is_filtered =
        attributes(body.get(LINK..).unwrap_or_default()).any(|one| others.contains(&one.kind()));
    let is_of_bridges = c_int::from(family) == libc::AF_BRIDGE;
    (!is_filtered && !is_of_bridges).then_some(About::Links(family))
}

fn link(body: &[u8]) -> Option<About> {
    let index = u32_at(body, 4)?;
    if index != 0 {
        return Some(About::Index(index));
    }
    let is_name = |kind| matches!(kind, IFLA_IFNAME | IFLA_ALT_IFNAME);
    let name = attributes(body.get(LINK..)?).find(|one| is_name(one.kind()))?;
    Some(About::Name(name.value().split(|byte| *byte == 0).next().unwrap_or_default().to_vec()))
}

fn addresses(family: u8, body: &[u8], is_strict: impl Fn() -> bool) -> Option<About> {
    if attributes(body.get(ADDRESS..).unwrap_or_default()).any(|one| one.kind() == IFA_TARGET_NETNSID) {
        return None;
    }
    // The kernel uses the index only in strict mode.
    let index = u32_at(body, 4).filter(|index| *index != 0 && is_strict());
    Some(About::Addresses(family.into(), index))
}

impl Question {
    /// Returns the networks' additions to the answer of the kernel, or `None` for nothing.
    pub(super) fn answer(&self, interfaces: &[Interface]) -> Option<Answer> {
        Answer::of(self, interfaces)
    }

    /// Returns true if the request concerns this interface.
    pub(super) fn is_about(&self, interface: &Interface) -> bool {
        match &self.about {
            About::Links(_) | About::Addresses(_, None) => true,
            About::Index(index) | About::Addresses(_, Some(index)) => *index == interface.index,
            About::Name(name) => name == interface.name.as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{message, put};
    use super::*;

    const DUMP: u16 = 0x301;

    fn about(sent: &[u8], is_strict: bool) -> Option<About> {
        let mut all = questions(sent, || is_strict);
        assert!(all.len() <= 1);
        all.pop().map(|question| question.about)
    }

    #[test]
    fn dumps_are_found_whatever_stands_behind_the_family() {
        // As dnsmasq asks, and as ip(8) does.
        assert_eq!(about(&message(22, DUMP, 1, &[2, 0, 0, 0]), false), Some(About::Addresses(2, None)));
        assert_eq!(about(&message(18, DUMP, 1, &[17; 1]), false), Some(About::Links(17)));
        assert_eq!(about(&message(18, DUMP, 1, &[0; 16]), true), Some(About::Links(0)));
        assert_eq!(about(&message(18, DUMP, 1, &[7; 16]), true), None, "bridges");
        let mut of_master = vec![0; 16];
        put(&mut of_master, IFLA_MASTER, &[1, 0, 0, 0]);
        assert_eq!(about(&message(18, DUMP, 1, &of_master), true), None);
    }

    #[test]
    fn an_index_counts_where_the_kernel_looks_at_it() {
        let body = [&[10, 0, 0, 0][..], &7_u32.to_ne_bytes()].concat();
        let sent = message(22, DUMP, 1, &body);
        assert_eq!(about(&sent, true), Some(About::Addresses(10, Some(7))));
        assert_eq!(about(&sent, false), Some(About::Addresses(10, None)));
    }

    #[test]
    fn one_interface_is_asked_for_by_index_or_name() {
        let mut body = vec![0; 16];
        put(&mut body, IFLA_IFNAME, b"ps1\0");
        assert_eq!(about(&message(18, 1, 1, &body), true), Some(About::Name(b"ps1".to_vec())));
        body[4..8].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!(about(&message(18, 5, 1, &body), true), Some(About::Index(9)));
    }

    #[test]
    fn several_questions_in_one_datagram_are_all_found() {
        let sent = [message(18, DUMP, 1, &[0; 16]), message(22, DUMP, 2, &[0; 8])].concat();
        let found = questions(&sent, || false);
        assert_eq!(found.iter().map(|question| question.sequence).collect::<Vec<_>>(), [1, 2]);
        // Messages without NLM_F_REQUEST are ignored, and so are requests for routes.
        assert!(questions(&message(18, 0x300, 1, &[0; 16]), || false).is_empty());
        assert!(questions(&message(26, DUMP, 1, &[0; 16]), || false).is_empty());
    }
}
