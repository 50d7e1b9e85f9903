//! Messages that the networks add to an answer of the kernel.

use std::net::IpAddr;

use libc::c_int;
use netlink_packet_core::NetlinkBuffer;
use peersock_fd::{Interface, Route};

use super::question::About;
use super::{HEADER, Question, message, messages, put, u32_at};
use crate::interface::{FLAGS, MTU};

/// Types of attributes (linux/if_link.h, linux/if_addr.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKMODE: u16 = 17;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;

/// IFLA_OPERSTATE: up (RFC 2863).
const IF_OPER_UP: u8 = 6;
/// Lifetime of addresses, which never expire.
const FOREVER: u32 = u32::MAX;

/// Maximum length of the networks' datagrams, bytes, unless a single message is longer. Programs have at
/// least this much room.
const DATAGRAM: usize = 2048;

/// Messages about the networks, to insert into an answer of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    sequence: u32,
    is_dump: bool,
    /// True if the request names an index or a name, which the kernel does not know.
    is_about_one: bool,
    wants_acknowledgement: bool,
    datagrams: Vec<Vec<u8>>,
}

/// Effect of an [`Answer`] on a datagram of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The datagram belongs to another answer, or this answer goes on.
    Unrelated,
    /// The program gets these datagrams instead, in this order.
    Instead(Vec<Vec<u8>>),
    /// The kernel has answered without room for more.
    Over,
}

impl Answer {
    pub(super) fn of(question: &Question, interfaces: &[Interface]) -> Option<Self> {
        let Question { sequence, about, wants_acknowledgement } = question;
        let (sequence, wants_acknowledgement) = (*sequence, *wants_acknowledgement);
        let is_dump = matches!(about, About::Links(_) | About::Addresses(..));
        let flags = if is_dump { libc::NLM_F_MULTI as u16 } else { 0 };
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        for interface in interfaces.iter().filter(|interface| question.is_about(interface)) {
            let messages = match about {
                About::Links(family) => vec![link(interface, *family)],
                About::Index(_) | About::Name(_) => vec![link(interface, 0)],
                About::Addresses(family, _) => addresses(interface, *family),
            };
            let kind =
                if matches!(about, About::Addresses(..)) { libc::RTM_NEWADDR } else { libc::RTM_NEWLINK };
            for body in messages {
                let message = message(kind, flags, sequence, &body);
                match datagrams.last_mut() {
                    Some(last) if last.len() + message.len() <= DATAGRAM => last.extend(message),
                    _ => datagrams.push(message),
                }
            }
        }
        let is_about_one = !matches!(about, About::Links(_) | About::Addresses(_, None));
        let answer = Self { sequence, is_dump, is_about_one, wants_acknowledgement, datagrams };
        (!answer.datagrams.is_empty()).then_some(answer)
    }

    /// Returns the sequence number of the request that it belongs to.
    pub(super) fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Returns the datagrams that replace a datagram of the kernel.
    pub(super) fn in_place_of(&self, datagram: &[u8]) -> Outcome {
        let mine = |(_, message): &(usize, NetlinkBuffer<_>)| message.sequence_number() == self.sequence;
        for (at, message) in messages(datagram).filter(mine) {
            let error = u32_at(message.payload(), 0).map_or(0, u32::cast_signed);
            match c_int::from(message.message_type()) {
                libc::NLMSG_DONE if self.is_dump => {
                    return self.before_end(datagram.split_at(at), message.port_number(), error);
                }
                libc::NLMSG_ERROR if !self.is_dump && error == -libc::ENODEV => {
                    return Outcome::Instead(self.with_acknowledgement(&message));
                }
                _ if self.is_dump && message.message_type() >= libc::RTM_NEWLINK => {}
                _ => return Outcome::Over,
            }
        }
        Outcome::Unrelated
    }

    /// Inserts the datagrams before `end`, the end of a dump.
    fn before_end(&self, (before, end): (&[u8], &[u8]), port: u32, error: i32) -> Outcome {
        // For an index that it does not know the kernel reports the error here.
        let is_unknown = self.is_about_one && error == -libc::ENODEV;
        if error < 0 && !is_unknown {
            return Outcome::Over;
        }
        let mut end = end.to_vec();
        if is_unknown && let Some(error) = end.get_mut(HEADER..HEADER + 4) {
            error.fill(0);
        }
        let mut all = Vec::new();
        all.extend((!before.is_empty()).then(|| before.to_vec()));
        all.extend(self.datagrams_to(port));
        all.push(end);
        Outcome::Instead(all)
    }

    /// Replaces `error`, by which the kernel reports an unknown interface.
    fn with_acknowledgement(&self, error: &NetlinkBuffer<&[u8]>) -> Vec<Vec<u8>> {
        let port = error.port_number();
        let mut all = self.datagrams_to(port);
        // An acknowledgement contains the header of the acknowledged message.
        let header = error.payload().get(4..4 + HEADER).filter(|_| self.wants_acknowledgement);
        if let Some(header) = header {
            let body = [&[0; 4], header].concat();
            let flags = libc::NLM_F_CAPPED as u16;
            all.push(to_port(&message(libc::NLMSG_ERROR as u16, flags, self.sequence, &body), port));
        }
        all
    }

    fn datagrams_to(&self, port: u32) -> Vec<Vec<u8>> {
        self.datagrams.iter().map(|datagram| to_port(datagram, port)).collect()
    }
}

/// Returns the same messages, addressed to the requesting socket.
fn to_port(datagram: &[u8], port: u32) -> Vec<u8> {
    let mut addressed = datagram.to_vec();
    for (at, _) in messages(datagram) {
        NetlinkBuffer::new(&mut addressed[at..]).set_port_number(port);
    }
    addressed
}

/// Encodes the body of RTM_NEWLINK.
fn link(of: &Interface, family: u8) -> Vec<u8> {
    // The family is that of all interfaces, unless IPv6's view was requested.
    let family = if c_int::from(family) == libc::AF_INET6 { family } else { libc::AF_UNSPEC as u8 };
    let mut body = vec![family, 0];
    body.extend(libc::ARPHRD_NONE.to_ne_bytes());
    body.extend(of.index.to_ne_bytes());
    body.extend((FLAGS | libc::IFF_LOWER_UP).to_ne_bytes());
    body.extend([0; 4]);
    put(&mut body, IFLA_IFNAME, &[of.name.as_bytes(), &[0]].concat());
    put(&mut body, IFLA_TXQLEN, &0_u32.to_ne_bytes());
    put(&mut body, IFLA_OPERSTATE, &[IF_OPER_UP]);
    put(&mut body, IFLA_LINKMODE, &[0]);
    put(&mut body, IFLA_MTU, &MTU.to_ne_bytes());
    body
}

/// Encodes the bodies of RTM_NEWADDR for the addresses of a family, or of all.
fn addresses(of: &Interface, family: c_int) -> Vec<Vec<u8>> {
    let is_wanted = |own: &&Route| match family {
        libc::AF_INET => own.address.is_ipv4(),
        libc::AF_INET6 => own.address.is_ipv6(),
        _ => true,
    };
    of.addresses.iter().filter(is_wanted).map(|own| address(of, own)).collect()
}

fn address(of: &Interface, own: &Route) -> Vec<u8> {
    let family = if own.address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // RT_SCOPE_UNIVERSE is 0.
    let mut body = vec![family as u8, own.prefix, libc::IFA_F_PERMANENT as u8, 0];
    body.extend(of.index.to_ne_bytes());
    match own.address {
        IpAddr::V4(address) => {
            put(&mut body, IFA_ADDRESS, &address.octets());
            put(&mut body, IFA_LOCAL, &address.octets());
            put(&mut body, IFA_LABEL, &[of.name.as_bytes(), &[0]].concat());
        }
        IpAddr::V6(address) => put(&mut body, IFA_ADDRESS, &address.octets()),
    }
    put(&mut body, IFA_FLAGS, &libc::IFA_F_PERMANENT.to_ne_bytes());
    // Preferred and valid lifetimes, and times of creation and change.
    let times = [FOREVER, FOREVER, 0, 0].map(u32::to_ne_bytes);
    put(&mut body, IFA_CACHEINFO, times.as_flattened());
    body
}

#[cfg(test)]
mod tests {
    use super::super::{attributes, questions};
    use super::*;
    use crate::interface::tests::networks;

    const PORT: u32 = 4711;

    fn asked(kind: u16, flags: u16, body: &[u8]) -> Option<Answer> {
        let [question] = &questions(&message(kind, flags, 9, body), || true)[..] else { panic!() };
        question.answer(&networks())
    }

    fn kernels(kind: c_int, body: &[u8]) -> Vec<u8> {
        to_port(&message(kind as u16, 2, 9, body), PORT)
    }

    fn instead(answer: &Answer, datagram: &[u8]) -> Vec<Vec<u8>> {
        match answer.in_place_of(datagram) {
            Outcome::Instead(datagrams) => datagrams,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_networks_come_before_the_end_of_a_dump() {
        let answer = asked(22, 0x301, &[0; 8]).unwrap();
        let (one, end) = (kernels(20, &[2; 24]), kernels(libc::NLMSG_DONE, &[0; 4]));
        assert_eq!(answer.in_place_of(&one), Outcome::Unrelated);
        let [ours, last] = &instead(&answer, &end)[..] else { panic!() };
        assert_eq!(last, &end);
        let header = |(_, one): (_, NetlinkBuffer<_>)| {
            (one.message_type(), one.flags(), one.sequence_number(), one.port_number())
        };
        let found: Vec<_> = messages(ours).map(header).collect();
        assert_eq!(found, [(20, 2, 9, PORT); 3]);
        let parts = instead(&answer, &[&one[..], &end].concat());
        assert_eq!(parts, [one, ours.clone(), end]);
    }

    #[test]
    fn addresses_are_of_the_family_that_is_asked_for() {
        let of = |family| {
            let answer = asked(22, 0x301, &[family, 0, 0, 0, 0, 0, 0, 0]).unwrap();
            let [ours, _] = &instead(&answer, &kernels(libc::NLMSG_DONE, &[0; 4]))[..] else { panic!() };
            let address = |(_, one): (usize, NetlinkBuffer<&[u8]>)| {
                let body = one.payload();
                let address = attributes(&body[8..]).find(|one| one.kind() == IFA_ADDRESS).unwrap();
                (body[0], body[1], u32_at(body, 4).unwrap(), address.value().to_vec())
            };
            messages(ours).map(address).collect::<Vec<_>>()
        };
        assert_eq!(of(2), [(2, 24, 16_777_217, vec![10, 77, 0, 3])]);
        assert_eq!(
            of(10).iter().map(|found| (found.1, found.2)).collect::<Vec<_>>(),
            [(64, 16_777_217), (48, 16_777_218)]
        );
        assert_eq!(of(0).len(), 3);
    }

    #[test]
    fn an_index_that_the_kernel_does_not_know_may_be_a_networks() {
        let of = |index: u32| asked(22, 0x301, &[&[0; 4][..], &index.to_ne_bytes()].concat());
        let no_device = (-libc::ENODEV).to_ne_bytes();
        let parts = instead(&of(16_777_218).unwrap(), &kernels(libc::NLMSG_DONE, &no_device));
        assert_eq!((messages(&parts[0]).count(), &parts[1]), (1, &kernels(libc::NLMSG_DONE, &[0; 4])));
        assert_eq!(of(3), None);
        // Other errors stay.
        let busy = (-libc::EBUSY).to_ne_bytes();
        let all = asked(22, 0x301, &[0; 8]).unwrap();
        assert_eq!(all.in_place_of(&kernels(libc::NLMSG_DONE, &busy)), Outcome::Over);
        assert_eq!(all.in_place_of(&kernels(libc::NLMSG_ERROR, &busy)), Outcome::Over);
    }

    #[test]
    fn one_interface_comes_in_place_of_the_error_with_its_acknowledgement() {
        let mut body = vec![0; 16];
        put(&mut body, IFLA_IFNAME, b"ps2\0");
        let request = message(18, 5, 9, &body);
        let refused = kernels(libc::NLMSG_ERROR, &[&(-libc::ENODEV).to_ne_bytes()[..], &request].concat());
        let parts = instead(&asked(18, 5, &body).unwrap(), &refused);
        let [link, acknowledgement] = &parts[..] else { panic!() };
        let (_, link) = messages(link).next().unwrap();
        let index = u32_at(link.payload(), 4);
        assert_eq!((link.message_type(), link.flags(), index), (16, 0, Some(16_777_218)));
        let (_, acknowledgement) = messages(acknowledgement).next().unwrap();
        assert_eq!((acknowledgement.message_type(), acknowledgement.port_number()), (2, PORT));
        assert_eq!(acknowledgement.payload(), [&[0; 4], &request[..HEADER]].concat());
        assert_eq!(instead(&asked(18, 1, &body).unwrap(), &refused).len(), 1, "nobody wants to know");
        // The machine has an interface of that name.
        assert_eq!(asked(18, 1, &body).unwrap().in_place_of(&kernels(16, &body)), Outcome::Over);
    }

    #[test]
    fn many_networks_come_in_datagrams_that_programs_have_room_for() {
        let many: Vec<_> = (1..=60)
            .map(|number| Interface { index: number, name: format!("ps{number}"), addresses: Vec::new() })
            .collect();
        let [question] = &questions(&message(18, 0x301, 9, &[0; 16]), || true)[..] else { panic!() };
        let parts = instead(&question.answer(&many).unwrap(), &kernels(libc::NLMSG_DONE, &[0; 4]));
        assert!(parts.len() > 3 && parts.iter().all(|part| part.len() <= DATAGRAM));
        assert_eq!(parts.iter().map(|part| messages(part).count()).sum::<usize>(), 61);
    }
}
