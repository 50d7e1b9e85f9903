//! DNS names of members.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use simple_dns::rdata::{OPT, PTR, RData, SOA};
use simple_dns::{
    CLASS, Label, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use crate::reverse::address_in;

/// The domain of all networks' members. `internal` is for private use (resolution of ICANN's board of
/// 2024-07-29).
pub const DOMAIN: &str = "peersock.internal";

/// Time in seconds for which resolvers may cache an answer, or a negative one.
const TTL: u32 = 60;

/// The same where a network is asked for each name, because members come and go there.
const TTL_OF_ASKED: u32 = 5;

/// Largest datagram in bytes (the size that DNS flag day 2020 recommends).
pub(crate) const DATAGRAM: usize = 1232;

/// The names of members: `alpha`, `alpha.peersock.internal` and `alpha.ff0001ffff000000.peersock.internal`. A
/// name without a network ID belongs to the first network that has it.
#[derive(Debug, Clone)]
pub struct Names {
    /// The networks, in the order in which they were added.
    networks: Vec<NetworkNames>,
    /// Time in seconds for which answers may be cached.
    ttl: u32,
}

/// The names of one network's members.
#[derive(Debug, Clone)]
struct NetworkNames {
    /// The network's domain.
    domain: String,
    /// Name of the network on this machine.
    local: Option<String>,
    members: Arc<dyn Members>,
    is_asked: bool,
}

/// Members of a network that is asked for each name.
pub trait Members: Debug + Send + Sync {
    /// Looks a member up by its name, which is in lower case. It may wait for about a second.
    fn find(&self, name: &str) -> Found;

    /// Returns the name of the member with an address.
    fn name_of(&self, address: IpAddr) -> Option<String>;
}

/// Result of looking up a member's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The member's addresses.
    Member(Vec<IpAddr>),
    /// No member has the name.
    Nobody,
    /// No node that would know it can be reached now.
    Unanswered,
}

/// Members that are all known.
#[derive(Debug, Default)]
struct Table {
    addresses: BTreeMap<String, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, String>,
}

impl Members for Table {
    fn find(&self, name: &str) -> Found {
        self.addresses.get(name).map_or(Found::Nobody, |its| Found::Member(its.clone()))
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.names.get(&address).cloned()
    }
}

impl Default for Names {
    fn default() -> Names {
        Names { networks: Vec::new(), ttl: TTL }
    }
}

impl NetworkNames {
    /// Returns the member in a name that ends with the network's local name.
    fn member_in<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_suffix(self.local.as_deref()?)?.strip_suffix('.')
    }
}

impl Names {
    /// Makes the names of one network: members with names and addresses, in the network with this ID.
    pub fn new<'a>(network: &str, members: impl IntoIterator<Item = (&'a str, Vec<IpAddr>)>) -> Names {
        let mut names = Names::default();
        names.add(network, None, members);
        names
    }

    /// Adds a network after the existing ones, as [`new`](Self::new) adds the first. With the local name
    /// `office`, its member `alpha` is `alpha.office`, too, unless a network before has that name.
    pub fn add<'a>(
        &mut self,
        network: &str,
        local: Option<&str>,
        members: impl IntoIterator<Item = (&'a str, Vec<IpAddr>)>,
    ) {
        let mut table = Table::default();
        for (name, its) in members {
            let name = name.to_ascii_lowercase();
            table.names.extend(its.iter().map(|address| (*address, name.clone())));
            table.addresses.insert(name, its);
        }
        self.push(network, local, Arc::new(table), false);
    }

    /// Adds a network that is asked for each name.
    pub fn add_asked(&mut self, network: &str, local: Option<&str>, members: Arc<dyn Members>) {
        self.ttl = TTL_OF_ASKED;
        self.push(network, local, members, true);
    }

    fn push(&mut self, network: &str, local: Option<&str>, members: Arc<dyn Members>, is_asked: bool) {
        let (domain, local) = (format!("{network}.{DOMAIN}"), local.map(str::to_ascii_lowercase));
        self.networks.push(NetworkNames { domain, local, members, is_asked });
    }

    /// Returns true if an answer may take a while.
    pub(crate) fn may_wait(&self) -> bool {
        self.networks.iter().any(|network| network.is_asked)
    }

    /// Returns the reply to a DNS message (RFC 1035); `None` if the message is no query.
    pub fn reply(&self, query: &[u8]) -> Option<Vec<u8>> {
        let id = u16::from_be_bytes(*query.first_chunk()?);
        let is_query = query.get(2)? & 0x80 == 0;
        let asked = Packet::parse(query);
        let mut reply = Packet::new_reply(id);
        *reply.rcode_mut() = match &asked {
            _ if !is_query => return None,
            Err(_) => match question_of_any_type(query) {
                Some(question) => {
                    reply.questions.push(question.clone());
                    self.answer(&question, &mut reply)
                }
                None => RCODE::FormatError,
            },
            Ok(asked) => {
                *reply.opcode_mut() = asked.opcode();
                if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
                    reply.set_flags(PacketFlag::RECURSION_DESIRED);
                }
                let udp_packet_size = DATAGRAM as u16;
                *reply.opt_mut() =
                    asked.opt().map(|_| OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 });
                match (asked.opcode(), asked.questions.as_slice()) {
                    // For any query, the answer contains the supported version (RFC 6891, 6.1.3).
                    _ if edns_version(query).is_some_and(|version| version != 0) => {
                        return bad_version(reply);
                    }
                    (OPCODE::StandardQuery, [question]) => {
                        reply.questions.push(question.clone());
                        self.answer(question, &mut reply)
                    }
                    (OPCODE::StandardQuery, _) => RCODE::FormatError,
                    _ => RCODE::NotImplemented,
                }
            }
        };
        reply.build_bytes_vec_compressed().ok()
    }

    /// Puts the answer into the reply, and returns the response code.
    fn answer<'a>(&'a self, question: &Question<'a>, reply: &mut Packet<'a>) -> RCODE {
        if !matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) {
            return RCODE::Refused;
        }
        let name = question.qname.to_string().to_ascii_lowercase();
        let wants = |kind: TYPE| question.qtype == QTYPE::TYPE(kind) || question.qtype == QTYPE::ANY;
        let answer = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, self.ttl, data);
        if let Some(address) = address_in(&name) {
            // Another server knows the names of other addresses.
            let Some(name) = self.name_of(address) else { return RCODE::Refused };
            reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
            if wants(TYPE::PTR)
                && let Ok(name) = Name::new(&name)
            {
                reply.answers.push(answer(RData::PTR(PTR(name.into_owned()))));
            }
            return RCODE::NoError;
        }
        let addresses = match self.member(&name) {
            Asked::Member(addresses) => addresses,
            // A query for the zone's SOA record gets the record.
            Asked::Domain if name == DOMAIN && wants(TYPE::SOA) => {
                reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
                reply.answers.push(authority(self.ttl));
                return RCODE::NoError;
            }
            Asked::Domain => Vec::new(),
            Asked::Nobody => {
                reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
                reply.name_servers.push(authority(self.ttl));
                return RCODE::NameError;
            }
            Asked::Unanswered => return RCODE::ServerFailure,
            Asked::Others => return RCODE::Refused,
        };
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        for address in addresses {
            match address {
                IpAddr::V4(address) if wants(TYPE::A) => reply.answers.push(answer(RData::A(address.into()))),
                IpAddr::V6(address) if wants(TYPE::AAAA) => {
                    reply.answers.push(answer(RData::AAAA(address.into())));
                }
                _ => {}
            }
        }
        if reply.answers.is_empty() {
            reply.name_servers.push(authority(self.ttl));
        }
        RCODE::NoError
    }

    /// Looks up a name, in lower case and without the last dot.
    fn member(&self, name: &str) -> Asked {
        let within = |domain: &str| name.strip_suffix(domain)?.strip_suffix('.');
        for network in &self.networks {
            if name == network.domain {
                return Asked::Domain;
            }
            if let Some(member) = within(&network.domain) {
                return network.members.find(member).into();
            }
        }
        match within(DOMAIN) {
            _ if name == DOMAIN => Asked::Domain,
            // Another server knows the members of that network.
            Some(member) if member.rsplit('.').next().is_some_and(is_network) => Asked::Others,
            Some(member) => self.first_named(member, true),
            // Other names with a dot are mostly of the DNS, and no node is asked for them.
            None => match self.first_named(name, !name.contains('.')) {
                Asked::Nobody if self.networks.iter().all(|network| network.member_in(name).is_none()) => {
                    Asked::Others
                }
                asked => asked,
            },
        }
    }

    /// Looks up a name in the networks, in their order. One that cannot tell now ends the search: a later one
    /// must not get its names.
    fn first_named(&self, name: &str, asks: bool) -> Asked {
        let of_network = |network: &NetworkNames| Some(network.members.find(network.member_in(name)?));
        if let Some(found) = self.networks.iter().find_map(of_network) {
            return found.into();
        }
        let meant = self.networks.iter().filter(|network| asks || !network.is_asked);
        let found = meant.map(|network| network.members.find(name)).find(|found| *found != Found::Nobody);
        found.map_or(Asked::Nobody, Asked::from)
    }

    /// Returns a name that resolves to the address: the short one if it belongs to this network.
    fn name_of(&self, address: IpAddr) -> Option<String> {
        let (at, name) = self
            .networks
            .iter()
            .enumerate()
            .find_map(|(at, network)| Some((at, network.members.name_of(address)?)))?;
        let is_taken = self.networks[..at].iter().any(|network| network.members.find(&name) != Found::Nobody);
        let domain = if is_taken { &self.networks[at].domain } else { DOMAIN };
        Some(format!("{name}.{domain}"))
    }
}

/// Returns true if a label is the ID of a network.
fn is_network(label: &str) -> bool {
    label.len() == 16 && label.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The result of looking up a name.
enum Asked {
    /// A member with these addresses.
    Member(Vec<IpAddr>),
    /// A domain of this server.
    Domain,
    /// A name in a domain of this server, which no member has.
    Nobody,
    /// A name of which no node can say now if a member has it.
    Unanswered,
    Others,
}

impl From<Found> for Asked {
    fn from(found: Found) -> Asked {
        match found {
            Found::Member(addresses) => Asked::Member(addresses),
            Found::Nobody => Asked::Nobody,
            Found::Unanswered => Asked::Unanswered,
        }
    }
}

/// Returns the record that limits the caching of negative answers (RFC 2308).
fn authority<'a>(seconds: u32) -> ResourceRecord<'a> {
    let domain = || Name::new_unchecked(DOMAIN);
    let ttl = seconds as i32;
    let soa = SOA {
        mname: domain(),
        rname: domain(),
        serial: 1,
        refresh: ttl,
        retry: ttl,
        expire: ttl,
        minimum: seconds,
    };
    ResourceRecord::new(domain(), CLASS::IN, seconds, RData::SOA(soa))
}

/// Returns the version in the EDNS record (RFC 6891, 6.1.3), if that record directly follows the question, as
/// in practice. The parser reads the wrong byte, which contains the flag DO.
fn edns_version(query: &[u8]) -> Option<u8> {
    // One question, and no answers or authorities.
    let mut rest = query.get(12..).filter(|_| query[4..10] == [0, 1, 0, 0, 0, 0])?;
    loop {
        let (length, after) = rest.split_first().filter(|(length, _)| **length < 64)?;
        rest = after.get(usize::from(*length)..)?;
        if *length == 0 {
            break;
        }
    }
    match rest.get(4..)? {
        [0, 0, 41, _, _, _, version, ..] => Some(*version),
        _ => None,
    }
}

/// Makes a reply with BADVERS (16), whose upper bits are in the EDNS record. That record has no options and
/// ends the reply: name (1), type (2), size (2), upper bits of the code, version, flags (2), length (2).
fn bad_version(reply: Packet<'_>) -> Option<Vec<u8>> {
    let mut bytes = reply.build_bytes_vec_compressed().ok()?;
    let upper = bytes.len().checked_sub(6)?;
    *bytes.get_mut(upper)? = 1;
    Some(bytes)
}

/// Returns the question of a query for records of a type that the parser does not know (RFC 3597), if the
/// query is otherwise valid.
fn question_of_any_type(query: &[u8]) -> Option<Question<'_>> {
    let (header, mut rest) = query.split_first_chunk::<12>()?;
    // A plain query (opcode 0) with one question.
    if header[2] & 0x78 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    // Count one byte for the length of each label, and the last, empty label (RFC 1035, 2.3.4).
    let (mut labels, mut room) = (Vec::new(), 255);
    loop {
        let (length, after) = rest.split_first()?;
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        room = usize::checked_sub(room, 1 + label.len())?;
        if label.is_empty() {
            break;
        }
        labels.push(Label::new(label).ok()?);
    }
    let [a, b, 0, 1, ..] = *rest else { return None };
    let kind = QTYPE::TYPE(TYPE::Unknown(u16::from_be_bytes([a, b])));
    Some(Question::new(Name::new_with_labels(&labels), kind, QCLASS::CLASS(CLASS::IN), false))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "ff0001ffff000000";

    pub(crate) fn names() -> Names {
        let address = |text: &str| text.parse().expect("an address");
        let alpha = ("alpha", vec![address("fd77::1"), address("10.77.0.1")]);
        Names::new(ID, [alpha, ("Beta", vec![address("fd77::2")])])
    }

    pub(crate) fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).expect("a short label"));
            query.extend(label.as_bytes());
        }
        query.extend([0]);
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        query
    }

    /// Returns the response code, the answers, and true if the reply limits negative caching.
    fn ask(name: &str, kind: u16) -> (RCODE, Vec<String>, bool) {
        told(&names().reply(&query(name, kind)).expect("a reply"))
    }

    pub(crate) fn told(reply: &[u8]) -> (RCODE, Vec<String>, bool) {
        let reply = Packet::parse(reply).expect("a message");
        assert_eq!(reply.id(), 0x0709);
        assert!(reply.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        let texts = reply.answers.iter().map(|record| match &record.rdata {
            RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            other => panic!("{other:?}"),
        });
        (reply.rcode(), texts.collect(), !reply.name_servers.is_empty())
    }

    #[test]
    fn members_are_found_by_each_of_their_names() {
        for name in ["alpha", "ALPHA", "alpha.peersock.internal", "Alpha.ff0001ffff000000.Peersock.Internal"]
        {
            assert_eq!(ask(name, 1), (RCODE::NoError, vec!["10.77.0.1".to_owned()], false), "{name}");
            assert_eq!(ask(name, 28), (RCODE::NoError, vec!["fd77::1".to_owned()], false), "{name}");
            assert_eq!(ask(name, 255).1.len(), 2, "{name}");
        }
        assert_eq!(ask("beta", 28).1, ["fd77::2"]);
    }

    #[test]
    fn addresses_have_names() {
        assert_eq!(ask("1.0.77.10.in-addr.arpa", 12).1, ["alpha.peersock.internal"]);
        let reversed = format!("2.{}7.7.d.f.ip6.arpa", "0.".repeat(27));
        assert_eq!(ask(&reversed, 12).1, ["beta.peersock.internal"]);
        for others in ["1.0.0.127.in-addr.arpa", "77.10.in-addr.arpa", "0.7.7.d.f.ip6.arpa", "x.in-addr.arpa"]
        {
            assert_eq!(ask(others, 12).0, RCODE::Refused, "{others}");
        }
    }

    #[test]
    fn of_two_networks_the_first_that_has_a_name_answers_to_it() {
        let address = |text: &str| text.parse().expect("an address");
        let mut names = names();
        let second = [("beta", vec![address("fd88::2")]), ("gamma", vec![address("fd88::3")])];
        names.add("ff0002ffff000000", Some("office"), second);
        let ask = |name: &str, kind| told(&names.reply(&query(name, kind)).expect("a reply"));
        for (name, expected) in [
            ("beta.peersock.internal", "fd77::2"),
            ("beta.ff0001ffff000000.peersock.internal", "fd77::2"),
            ("beta.ff0002ffff000000.peersock.internal", "fd88::2"),
            ("gamma", "fd88::3"),
            ("gamma.peersock.internal", "fd88::3"),
            ("beta.office", "fd88::2"),
            ("beta.office.peersock.internal", "fd88::2"),
        ] {
            assert_eq!(ask(name, 28), (RCODE::NoError, vec![expected.to_owned()], false), "{name}");
        }
        // A member of one network is none of the other.
        for name in [
            "gamma.ff0001ffff000000.peersock.internal",
            "alpha.ff0002ffff000000.peersock.internal",
            "alpha.office.peersock.internal",
        ] {
            assert_eq!(ask(name, 28).0, RCODE::NameError, "{name}");
        }
        // No other server is asked for a name that ends with a local one.
        assert_eq!(ask("alpha.office", 28).0, RCODE::NameError);
        assert_eq!(ask("ff0002ffff000000.peersock.internal", 28), (RCODE::NoError, vec![], true));
        assert_eq!(ask("beta.ff0003ffff000000.peersock.internal", 28).0, RCODE::Refused);
        // Each address has a name that resolves to it.
        for (digits, name) in [
            ("2.{}8.8.d.f.ip6.arpa", "beta.ff0002ffff000000.peersock.internal"),
            ("2.{}7.7.d.f.ip6.arpa", "beta.peersock.internal"),
            ("3.{}8.8.d.f.ip6.arpa", "gamma.peersock.internal"),
        ] {
            assert_eq!(ask(&digits.replace("{}", &"0.".repeat(27)), 12).1, [name]);
        }
    }

    /// A network that knows `gamma`, and whose controller answers no question that begins with a `u`.
    #[derive(Debug)]
    struct Asked;

    impl Members for Asked {
        fn find(&self, name: &str) -> Found {
            match name {
                "gamma" | "web.gamma" => Found::Member(vec!["fd99::3".parse().expect("an address")]),
                _ if name.starts_with('u') => Found::Unanswered,
                _ => Found::Nobody,
            }
        }

        fn name_of(&self, address: IpAddr) -> Option<String> {
            (address.to_string() == "fd99::3").then(|| "gamma".to_owned())
        }
    }

    #[test]
    fn a_network_that_is_asked_for_names_may_not_answer() {
        let mut names = names();
        assert!(!names.may_wait());
        names.add_asked("8056c2e21c000001", Some("team"), Arc::new(Asked));
        assert!(names.may_wait());
        let ask = |name: &str, kind| told(&names.reply(&query(name, kind)).expect("a reply"));
        for name in [
            "gamma",
            "gamma.peersock.internal",
            "web.gamma.peersock.internal",
            "Gamma.8056c2e21c000001.peersock.internal",
        ] {
            assert_eq!(ask(name, 28), (RCODE::NoError, vec!["fd99::3".to_owned()], false), "{name}");
            assert_eq!(ask(name, 1), (RCODE::NoError, vec![], true), "{name}");
        }
        // A member that cannot be asked now may have the name, so no resolver may keep that there is none.
        for name in ["unknown", "unknown.peersock.internal", "u.8056c2e21c000001.peersock.internal"] {
            assert_eq!(ask(name, 28), (RCODE::ServerFailure, vec![], false), "{name}");
        }
        assert_eq!(ask("nobody.peersock.internal", 28), (RCODE::NameError, vec![], true));
        assert_eq!(ask("nobody", 28).0, RCODE::Refused);
        assert_eq!(ask("unknown.example.org", 28).0, RCODE::Refused, "a name of the DNS");
        // A later network does not get the names of one that cannot be asked now.
        names.add("ff0002ffff000000", None, [("unknown", vec!["fd88::2".parse().expect("an address")])]);
        let ask = |name: &str, kind| told(&names.reply(&query(name, kind)).expect("a reply"));
        assert_eq!(ask("unknown.peersock.internal", 28), (RCODE::ServerFailure, vec![], false));
        assert_eq!(ask("unknown.ff0002ffff000000.peersock.internal", 28).1, ["fd88::2"]);
        // The others answer as before.
        assert_eq!(ask("alpha.peersock.internal", 28).1, ["fd77::1"]);
        assert_eq!(ask("u.ff0001ffff000000.peersock.internal", 28).0, RCODE::NameError);
        let reversed = format!("3.{}9.9.d.f.ip6.arpa", "0.".repeat(27));
        assert_eq!(ask(&reversed, 12).1, ["gamma.peersock.internal"]);
        let reply = names.reply(&query("gamma", 28)).expect("a reply");
        let reply = Packet::parse(&reply).expect("a message");
        assert_eq!(reply.answers[0].ttl, TTL_OF_ASKED);
    }

    #[test]
    fn what_is_not_there_is_said() {
        // No such record, no such member, and names of other servers.
        for (name, kind) in [("beta", 1), ("alpha", 16), ("alpha", 65), (DOMAIN, 1)] {
            assert_eq!(ask(name, kind), (RCODE::NoError, vec![], true), "{name} {kind}");
        }
        // A type that is not defined.
        let reply = names().reply(&query("alpha", 65_000)).expect("a reply");
        assert_eq!((reply[2] & 0x84, reply[3] & 0x0f, &reply[6..8]), (0x84, 0, &[0, 0][..]));
        for name in ["gamma.peersock.internal", "x.alpha.peersock.internal", "alpha.ff00.peersock.internal"] {
            assert_eq!(ask(name, 28), (RCODE::NameError, vec![], true), "{name}");
        }
        let other = "alpha.ff0002ffff000000.peersock.internal";
        for name in ["gamma", "example.org", "alpha.example.org", "alphapeersock.internal", other] {
            assert_eq!(ask(name, 28), (RCODE::Refused, vec![], false), "{name}");
        }
    }

    #[test]
    fn what_is_no_query_gets_an_error_or_nothing() {
        let code =
            |query: &[u8]| Packet::parse(&names().reply(query).expect("a reply")).expect("a message").rcode();
        let whole = query("alpha", 1);
        assert_eq!(code(&whole[..whole.len() - 1]), RCODE::FormatError);
        let with = |at: usize, byte: u8| {
            let mut changed = whole.clone();
            changed[at] = byte;
            changed
        };
        assert_eq!(code(&with(5, 0)), RCODE::FormatError);
        assert_eq!(code(&with(2, 0x10)), RCODE::NotImplemented);
        assert_eq!(code(&with(whole.len() - 1, 3)), RCODE::Refused, "of the class CHAOS");
        let long = query(&vec!["a"; 200].join("."), 65_000);
        assert_eq!(code(&long), RCODE::FormatError);
        assert_eq!(names().reply(&with(2, 0x81)), None, "a reply");
        assert_eq!(names().reply(&whole[..2]), None);
    }

    #[test]
    fn edns_is_answered_with_edns() {
        let mut query = query("alpha", 1);
        query[11] = 1;
        query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        let reply = names().reply(&query).expect("a reply");
        assert_eq!(
            Packet::parse(&reply).expect("a message").opt().map(|opt| opt.udp_packet_size),
            Some(1232)
        );
        // With the flag DO.
        let flags = query.len() - 4;
        query[flags] = 0x80;
        assert_eq!(told(&names().reply(&query).expect("a reply")).1, ["10.77.0.1"]);
    }

    #[test]
    fn versions_of_edns_that_are_not_known_are_refused() {
        let mut query = query("alpha", 1);
        query[11] = 1;
        query.extend([0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0]);
        let reply = names().reply(&query).expect("a reply");
        // The code is 16: 1 in the upper eight bits, 0 in the lower four. The version is the supported one.
        let (header, opt) = (&reply[..12], &reply[reply.len() - 11..]);
        assert_eq!(
            (header[3] & 0x0f, &header[6..8], opt),
            (0, &[0, 0][..], &[0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0][..])
        );
    }

    #[test]
    fn the_zone_s_own_record_is_an_answer() {
        let reply = names().reply(&query(DOMAIN, 6)).expect("a reply");
        let reply = Packet::parse(&reply).expect("a message");
        assert!(matches!(reply.answers[..], [ResourceRecord { rdata: RData::SOA(_), .. }]));
        assert!(reply.name_servers.is_empty() && reply.has_flags(PacketFlag::AUTHORITATIVE_ANSWER));
        // No other name has this record.
        assert_eq!(ask("alpha.peersock.internal", 6), (RCODE::NoError, vec![], true));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), question: bool) {
            let mut query = bytes;
            if question && query.len() > 12 {
                query[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            }
            let _ = names().reply(&query);
        }
    }
}
