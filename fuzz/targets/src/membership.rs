//! Signed statements of managed networks, and messages between nodes and controllers.
//!
//! The oracle for statements is a table of all that the keys of a small world have signed, with their
//! meaning. An input chooses statements of the table, puts them together, and damages the result. No input
//! knows a secret key, so bytes may be accepted exactly if all of their statements are in the table, byte by
//! byte, and fit together. The oracle reads bytes by their positions, and shares no code with what it checks.

use std::sync::LazyLock;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use peersock::Invite;
use peersock_overlay::membership::{
    Answer, Certificate, CertifyRequest, Credentials, Delegation, Grant, Head, MemberName, NetworkKey,
    NetworkKeys, NetworkSecret, ProcessCertificate, Question, Revocation, Revocations, Rights, Serial,
    Succession, Tag, UnixTime,
};
use peersock_overlay::{Identity, NetworkId, NodeId};

const NOW: u64 = 1_800_000_000_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const TOLERANCE: u64 = 10 * MINUTE;

/// Times at which statements are judged.
const TIMES: [u64; 8] =
    [NOW, NOW - 11 * MINUTE, NOW + 30 * MINUTE, NOW + 2 * HOUR, NOW + 2 * DAY, NOW + 400 * DAY, 0, u64::MAX];

/// Number of identities of the world: an issuer with all rights, one that issues, one that revokes, a former
/// one, one whose right begins later, two members, a program, and a stranger.
const IDENTITIES: u8 = 9;

/// Members of the world, and the program of the first one.
const MEMBER: u8 = 5;
const PROGRAM: u8 = 7;

/// Points of small order (RFC 8032's base field): under such a key, or with such an R, one signature would
/// fit many messages.
const SMALL_ORDER: [[u8; 32]; 3] = {
    let (zero, mut one, mut minus_one) = ([0; 32], [0; 32], [0xff; 32]);
    one[0] = 1;
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    [zero, one, minus_one]
};

/// Order of the group. S + L is another encoding of the same S.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

const KEY_AT: usize = 2;
/// Places in credentials without successions.
const DELEGATION_AT: usize = KEY_AT + NetworkKey::LEN;
const CERTIFICATE_AT: usize = DELEGATION_AT + Delegation::LEN;

/// Successions in the order in which an input shows them, by their numbers in the world.
const CHAINS: [&[usize]; 10] = [&[], &[0], &[0, 1], &[1], &[2], &[3], &[4], &[0, 0], &[0, 5], &[0, 1, 6]];
const SIGNATURE: usize = 64;

/// A signed statement and its meaning.
struct Signed {
    bytes: Vec<u8>,
    network: NetworkId,
    /// Number of the network key or identity that has signed.
    signer: u8,
    /// Number of the identity that the statement is about.
    about: u8,
    begin: u64,
    end: u64,
    /// Rights of a delegation.
    rights: Rights,
}

impl Signed {
    fn counts(&self, now: u64) -> bool {
        self.begin <= now.saturating_add(TOLERANCE) && now < self.end
    }
}

/// A succession from one network key to another.
struct Link {
    signed: Succession,
    network: NetworkId,
    from: usize,
    to: usize,
    end: u64,
}

struct SignedHead {
    bytes: Vec<u8>,
    delegation: usize,
    network: NetworkId,
    signer: u8,
    time: u64,
    epoch: u64,
    set: usize,
}

struct World {
    /// Two first keys, and some that follow.
    keys: Vec<NetworkKey>,
    links: Vec<Link>,
    networks: [NetworkId; 2],
    nodes: Vec<NodeId>,
    delegations: Vec<Signed>,
    certificates: Vec<Signed>,
    programs: Vec<Signed>,
    heads: Vec<SignedHead>,
    sets: Vec<Vec<u8>>,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[10 + number; 32])
}

fn milliseconds(from: u64, to: u64) -> Duration {
    Duration::from_millis(to - from)
}

impl World {
    fn new() -> World {
        let secrets = [1, 2, 3, 4, 5].map(|seed| NetworkSecret::from_seed(&[seed; 32]));
        let networks = [1, 2].map(|id| NetworkId::new(0x8056_c2e2_1c00_0000 | id).expect("a managed ID"));
        let nodes: Vec<_> = (0..IDENTITIES).map(|number| identity(number).node_id()).collect();
        let (issues, revokes) =
            (Rights { revokes: false, ..Rights::ALL }, Rights { issues: false, ..Rights::ALL });
        let mut statements = Vec::new();
        // Key, network, issuer, begin, end, rights.
        for (signer, network, about, begin, end, rights) in [
            (0, 0, 0, NOW - DAY, NOW + 90 * DAY, Rights::ALL),
            (0, 1, 0, NOW - DAY, NOW + 90 * DAY, Rights::ALL),
            (1, 0, 0, NOW - DAY, NOW + 90 * DAY, Rights::ALL),
            (0, 0, 1, NOW - DAY, NOW + 90 * DAY, issues),
            (0, 0, 2, NOW - DAY, NOW + 90 * DAY, revokes),
            (0, 0, 3, NOW - 90 * DAY, NOW - DAY, Rights::ALL),
            (0, 0, 4, NOW + DAY, NOW + 90 * DAY, Rights::ALL),
            (0, 0, 0, NOW - HOUR, NOW + HOUR, Rights::ALL),
            (2, 0, 0, NOW - DAY, NOW + 90 * DAY, Rights::ALL),
            (3, 0, 0, NOW - DAY, NOW + 90 * DAY, Rights::ALL),
        ] {
            let (secret, id): (&NetworkSecret, _) = (&secrets[usize::from(signer)], networks[network]);
            let (serial, lifetime) = (Serial::from_u64(begin), milliseconds(begin, end));
            let signed = Delegation::sign(secret, id, *identity(about).public(), serial, lifetime, rights);
            let meaning = Signed { bytes: Vec::new(), network: id, signer, about, begin, end, rights };
            statements.push((signed, meaning));
        }
        let carried = |certificate: &Certificate| {
            let (key, delegation) = (secrets[0].public(), statements[0].0.clone());
            Credentials::new(key, delegation, certificate.clone())
        };
        let (mut certificates, mut plain) = (Vec::new(), None);
        // Signer, network, holder, begin, end.
        for (signer, network, about, begin, end) in [
            (0, 0, MEMBER, NOW, NOW + DAY),
            (0, 1, MEMBER, NOW, NOW + DAY),
            (0, 0, 6, NOW - HOUR, NOW + HOUR),
            (1, 0, MEMBER, NOW, NOW + DAY),
            (2, 0, MEMBER, NOW, NOW + DAY),
            (3, 0, MEMBER, NOW, NOW + DAY),
            (4, 0, MEMBER, NOW, NOW + 2 * DAY),
            // A member and a program sign as if they were issuers.
            (MEMBER, 0, 6, NOW, NOW + DAY),
            (PROGRAM, 0, PROGRAM, NOW, NOW + DAY),
            // An issuer is a member, too.
            (0, 0, 0, NOW, NOW + DAY),
            (0, 0, MEMBER, NOW + DAY, NOW + 3 * DAY),
        ] {
            let id = networks[network];
            let mut grant = Grant::new(nodes[usize::from(about)], "alpha".parse().expect("a name"));
            if about == MEMBER {
                let tags = (0..3).map(|at| format!("tag-{at}").parse::<Tag>().expect("a tag"));
                (grant.tags, grant.claims) = (tags.collect(), vec![7; 20]);
                (grant.ipv4, grant.ipv4_length) = (Some([10, 0, 0, 9].into()), 24);
            }
            let (serial, lifetime) = (Serial::from_u64(begin), milliseconds(begin, end));
            let signed = Certificate::sign(&identity(signer), id, grant, serial, lifetime).expect("valid");
            let bytes = carried(&signed).to_bytes()[CERTIFICATE_AT..].to_vec();
            plain.get_or_insert(signed);
            let rights = Rights::ALL;
            certificates.push(Signed { bytes, network: id, signer, about, begin, end, rights });
        }
        let plain = carried(&plain.expect("the first one"));
        let rest = plain.to_bytes().len();
        let mut programs = Vec::new();
        // Machine, network, program, begin, end.
        for (signer, network, about, begin, end) in [
            (MEMBER, 0, PROGRAM, NOW, NOW + HOUR),
            (MEMBER, 1, PROGRAM, NOW, NOW + HOUR),
            (6, 0, PROGRAM, NOW, NOW + HOUR),
            (PROGRAM, 0, 8, NOW, NOW + HOUR),
            (0, 0, PROGRAM, NOW, NOW + HOUR),
            (MEMBER, 0, MEMBER, NOW, NOW + HOUR),
        ] {
            let (id, node) = (networks[network], nodes[usize::from(about)]);
            let (serial, lifetime) = (Serial::from_u64(begin), milliseconds(begin, end));
            let label = Some("web".parse().expect("a name"));
            let signed = ProcessCertificate::sign(&identity(signer), id, &node, label, serial, lifetime);
            let bytes = plain.of_process(signed).to_bytes()[rest..].to_vec();
            programs.push(Signed { bytes, network: id, signer, about, begin, end, rights: Rights::ALL });
        }
        let mut sets = [Revocations::default(), Revocations::default()];
        for (number, min_serial) in [(6, NOW + 1), (8, u64::MAX)] {
            let (min_serial, until) = (Serial::from_u64(min_serial), UnixTime::from_millis(NOW + DAY));
            sets[1].add(nodes[number], Revocation { min_serial, until });
        }
        let mut heads = Vec::new();
        // Delegation, network, signer, epoch, time, set.
        for (delegation, network, signer, epoch, time, set) in [
            (0, 0, 0, 5, NOW, 1),
            (0, 0, 0, 6, NOW + HOUR, 0),
            (1, 1, 0, 5, NOW, 1),
            (3, 0, 1, 5, NOW, 1),
            (4, 0, 2, 5, NOW, 1),
            (5, 0, 3, 5, NOW, 1),
            (6, 0, 4, 5, NOW, 1),
            // Another identity signs for the issuer, the network key has not made the issuer, an epoch is too
            // far.
            (0, 0, MEMBER, 5, NOW, 1),
            (2, 0, 0, 5, NOW, 1),
            (0, 0, 0, u64::MAX, NOW, 1),
            (8, 0, 0, 5, NOW, 1),
            (9, 0, 0, 5, NOW, 1),
        ] {
            let (id, at): (NetworkId, _) = (networks[network], UnixTime::from_millis(time));
            let by = statements[delegation].0.clone();
            let head = Head::sign(&identity(signer), by, id, epoch, at, &sets[set]);
            heads.push(SignedHead {
                bytes: head.to_bytes(),
                delegation,
                network: id,
                signer,
                time,
                epoch,
                set,
            });
        }
        let delegations = statements.iter().map(|(signed, meaning)| {
            let head = Head::sign(
                &identity(0),
                signed.clone(),
                networks[0],
                0,
                UnixTime::from_millis(NOW),
                &Revocations::default(),
            );
            let bytes = head.to_bytes()[..Delegation::LEN].to_vec();
            let Signed { network, signer, about, begin, end, rights, .. } = *meaning;
            Signed { bytes, network, signer, about, begin, end, rights }
        });
        // Network, former key, key, end of the former one.
        let links = [
            (0, 0, 2, NOW + HOUR),
            (0, 2, 3, NOW + DAY),
            // Of another network, by another key, a rival of the first one, one that leads back, a third one.
            (1, 0, 2, NOW + HOUR),
            (0, 1, 2, NOW + HOUR),
            (0, 0, 3, NOW),
            (0, 2, 0, NOW),
            (0, 3, 4, 0),
        ]
        .map(|(network, from, to, end): (usize, usize, usize, u64)| {
            let (id, ends) = (networks[network], UnixTime::from_millis(end));
            let signed = Succession::sign(&secrets[from], id, secrets[to].public(), ends);
            Link { signed, network: id, from, to, end }
        });
        World {
            keys: secrets.iter().map(NetworkSecret::public).collect(),
            links: links.into(),
            networks,
            delegations: delegations.collect(),
            nodes,
            certificates,
            programs,
            heads,
            sets: sets.iter().map(Revocations::to_bytes).collect(),
        }
    }

    /// Returns true if a node with these credentials is a member, by the table.
    fn admits(&self, bytes: &[u8], key: usize, network: NetworkId, holder: u8, now: u64) -> bool {
        let Some((start, rest)) = bytes.split_at_checked(DELEGATION_AT) else { return false };
        if start[0] != 1 || start[1] > 3 || start[KEY_AT..] != *self.keys[key].as_bytes() {
            return false;
        }
        let (mut shown, mut rest) = (vec![key], rest);
        if start[1] & 2 != 0 {
            let Some((count, links)) = rest.split_first() else { return false };
            let Some((links, after)) = links.split_at_checked(usize::from(*count) * Succession::LEN) else {
                return false;
            };
            for bytes in links.chunks(Succession::LEN) {
                let last = shown[shown.len() - 1];
                let leads_on = |link: &&Link| link.from == last && link.network == network;
                let link = self.links.iter().filter(leads_on).find(|link| link.signed.to_bytes() == bytes);
                let Some(link) = link.filter(|link| !shown.contains(&link.to)) else { return false };
                shown.push(link.to);
            }
            if !(1..=3).contains(count) {
                return false;
            }
            rest = after;
        }
        let Some((delegation, rest)) = rest.split_at_checked(Delegation::LEN) else { return false };
        let is_this = |one: &&Signed| one.bytes == delegation;
        let Some(delegation) = self.delegations.iter().find(is_this) else { return false };
        let Some(certificate) = self.certificates.iter().find(|one| rest.starts_with(&one.bytes)) else {
            return false;
        };
        let rest = &rest[certificate.bytes.len()..];
        let mut machine = holder;
        if start[1] & 1 != 0 {
            let is_this = |one: &&Signed| one.bytes == rest && one.about == holder;
            let Some(program) = self.programs.iter().find(is_this) else { return false };
            if program.network != network || !program.counts(now) {
                return false;
            }
            machine = program.signer;
        } else if !rest.is_empty() {
            return false;
        }
        shown.last() == Some(&delegation.signer.into())
            && delegation.network == network
            && delegation.rights.issues
            && delegation.counts(now)
            && certificate.signer == delegation.about
            && certificate.about == machine
            && certificate.network == network
            && certificate.counts(now)
    }

    /// Returns the head that a node accepts, by the table.
    fn accepted_head(
        &self,
        bytes: &[u8],
        keys: &[usize],
        network: NetworkId,
        now: u64,
    ) -> Option<&SignedHead> {
        let head = self.heads.iter().find(|head| head.bytes == bytes)?;
        let delegation = &self.delegations[head.delegation];
        let signer = keys.iter().position(|key| *key == usize::from(delegation.signer))?;
        // A key ends when one of its successors does, at the latest.
        let next = keys[signer..].windows(2).filter_map(|pair| {
            self.links
                .iter()
                .find(|link| (link.from, link.to) == (pair[0], pair[1]) && link.network == network)
        });
        let counts = next.map(|link| link.end).min().is_none_or(|end| now < end)
            && delegation.network == network
            && delegation.rights.revokes
            && delegation.counts(now)
            && delegation.about == head.signer
            && head.network == network
            && head.epoch <= head.time
            && head.time <= now.saturating_add(TOLERANCE);
        counts.then_some(head)
    }
}

/// Reads numbers from the front of the input; zeros after its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn choice(&mut self, of: usize) -> usize {
        usize::from(self.byte()) % of
    }

    /// Returns the number of a first key, and a chain that may follow it.
    fn keys(&mut self) -> (usize, &'static [usize]) {
        let byte = usize::from(self.byte());
        (byte % 2, CHAINS[byte / 2 % CHAINS.len()])
    }

    /// Applies the damages that the rest describes, four bytes each. `signatures` are the offsets of the
    /// signatures, and `others` ones that were made for other statements.
    fn damage(&mut self, message: &mut Vec<u8>, signatures: &[usize], others: &[&[u8]]) {
        for _ in 0..8 {
            if self.0.is_empty() {
                return;
            }
            let (kind, value) = (self.byte(), self.byte());
            let at = usize::from(self.byte()) << 8 | usize::from(self.byte());
            let at = at % message.len().max(1);
            let signature = signatures.get(usize::from(value) % signatures.len().max(1)).copied();
            let signature = signature.filter(|from| from + SIGNATURE <= message.len());
            match (kind % 8, signature) {
                (0, _) => message.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= value),
                (1, _) => message.truncate(at),
                (2, _) => message.extend(std::iter::repeat_n(value, at % 300)),
                (3, Some(from)) => add_order(&mut message[from + 32..from + SIGNATURE]),
                (4, Some(from)) => {
                    let half = if at.is_multiple_of(2) { from } else { from + 32 };
                    message[half..half + 32].copy_from_slice(&SMALL_ORDER[at % 3]);
                }
                (5, Some(from)) => {
                    let other = others[at % others.len()];
                    message[from..from + SIGNATURE].copy_from_slice(other);
                }
                // A key of small order in place of any 32 bytes, with a signature that would fit it.
                (6, Some(from)) => {
                    let until = (at + 32).min(message.len());
                    message[at..until].copy_from_slice(&SMALL_ORDER[1][..until - at]);
                    message[from..from + 32].copy_from_slice(&SMALL_ORDER[1]);
                    message[from + 32..from + SIGNATURE].fill(0);
                }
                (7, _) => drop(message.splice(at..at, [value])),
                _ => {}
            }
        }
    }
}

/// Adds the order of the group to a number of 32 bytes, the lowest first.
fn add_order(number: &mut [u8]) {
    let mut carry = 0;
    for (byte, more) in number.iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
}

/// Returns the last bytes of each statement, which are its signature.
fn signatures(statements: &[Signed]) -> impl Iterator<Item = &[u8]> {
    statements.iter().map(|one| &one.bytes[one.bytes.len() - SIGNATURE..])
}

/// Checks that credentials make a node a member exactly if the network key, an issuer and a member have
/// signed them so, for this network, node and time.
pub fn credentials(data: &[u8]) {
    let (world, mut input) = (&*WORLD, Input(data));
    let (key, chain) = input.keys();
    let network = world.networks[input.choice(2)];
    let (holder, now) = (input.choice(IDENTITIES.into()) as u8, TIMES[input.choice(TIMES.len())]);
    let delegation = &world.delegations[input.choice(world.delegations.len())];
    let certificate = &world.certificates[input.choice(world.certificates.len())];
    let program = input.choice(world.programs.len() + 1).checked_sub(1).map(|at| &world.programs[at]);
    let mut bytes = vec![1, u8::from(program.is_some()) | u8::from(!chain.is_empty()) << 1];
    bytes.extend_from_slice(world.keys[key].as_bytes());
    let mut ends = Vec::new();
    if !chain.is_empty() {
        bytes.push(chain.len() as u8);
    }
    for link in chain {
        bytes.extend_from_slice(&world.links[*link].signed.to_bytes());
        ends.push(bytes.len() - SIGNATURE);
    }
    for one in [Some(delegation), Some(certificate), program].into_iter().flatten() {
        bytes.extend_from_slice(&one.bytes);
        ends.push(bytes.len() - SIGNATURE);
    }
    let others: Vec<_> = signatures(&world.delegations)
        .chain(signatures(&world.certificates))
        .chain(signatures(&world.programs))
        .collect();
    input.damage(&mut bytes, &ends, &others);

    let node = &world.nodes[usize::from(holder)];
    let parsed = Credentials::parse(&bytes);
    if let Ok(parsed) = &parsed {
        assert_eq!(parsed.to_bytes(), bytes, "credentials have one form");
        assert!(bytes.len() <= Credentials::MAX_LEN);
    }
    let admission = parsed.ok().and_then(|one| one.authenticate(&world.keys[key], network, node).ok());
    let is_admitted =
        admission.is_some_and(|one| one.check(UnixTime::from_millis(now), &Revocations::default()).is_ok());
    assert_eq!(is_admitted, world.admits(&bytes, key, network, holder, now));
}

/// Checks that a head counts exactly if an issuer with that right has signed it, and its set only whole.
pub fn revocation_heads(data: &[u8]) {
    let (world, mut input) = (&*WORLD, Input(data));
    let (key, chain) = input.keys();
    let network = world.networks[input.choice(2)];
    let now = TIMES[input.choice(TIMES.len())];
    let chosen = &world.heads[input.choice(world.heads.len())];
    // The head's own statement, or another delegation before it.
    let delegation = input.choice(world.delegations.len() + 1).checked_sub(1);
    let mut set = world.sets[input.choice(world.sets.len())].clone();
    let in_set = input.byte();
    let mut bytes = chosen.bytes.clone();
    if let Some(other) = delegation {
        bytes[..Delegation::LEN].copy_from_slice(&world.delegations[other].bytes);
    }
    let ends = [Delegation::LEN - SIGNATURE, Head::LEN - SIGNATURE];
    let others: Vec<_> = signatures(&world.delegations)
        .chain(world.heads.iter().map(|head| &head.bytes[Head::LEN - SIGNATURE..]))
        .collect();
    match in_set % 2 {
        0 => input.damage(&mut bytes, &ends, &others),
        _ => input.damage(&mut set, &[], &others),
    }

    let none = Revocations::default();
    let parsed = Head::parse(&bytes);
    if let Ok(parsed) = &parsed {
        assert_eq!(parsed.to_bytes(), bytes, "a head has one form");
    }
    let time = UnixTime::from_millis(now);
    let links: Vec<_> = chain.iter().map(|at| world.links[*at].signed.clone()).collect();
    // A chain that is not right is not learned.
    let learned = NetworkKeys::new(world.keys[key]).extended(network, &links);
    let known = learned.as_ref().map_or(vec![key], |_| {
        std::iter::once(key).chain(chain.iter().map(|at| world.links[*at].to)).collect()
    });
    let keys = learned.unwrap_or(NetworkKeys::new(world.keys[key]));
    let head = parsed.ok().filter(|head| head.verify(&keys, network, time, &none).is_ok());
    let expected = world.accepted_head(&bytes, &known, network, now);
    assert_eq!(head.is_some(), expected.is_some());
    let (Some(head), Some(expected)) = (head, expected) else { return };
    let read = head.read_set(&set);
    assert_eq!(read.is_some(), set == world.sets[expected.set], "a set counts whole or not at all");
    for (_, entry) in read.iter().flat_map(Revocations::iter) {
        assert!(entry.min_serial.as_u64() <= expected.time + 1, "a removal is not for ever");
    }
    let mut revoked = Revocations::default();
    let end = UnixTime::from_millis(u64::MAX);
    revoked.add(head.issuer(), Revocation { min_serial: Serial::from_u64(u64::MAX), until: end });
    assert!(head.verify(&keys, network, time, &revoked).is_err(), "of a removed issuer");
}

/// Checks questions to controllers, their answers, and invites. Each has one form, and no text in it steers a
/// terminal.
pub fn controller_messages(data: &[u8]) {
    if let Ok(question) = Question::parse(data) {
        assert_eq!(question.to_bytes(), data);
        if let Question::Certify(request) = question {
            assert!(request.description.len() <= CertifyRequest::MAX_DESCRIPTION);
            assert!(!request.description.chars().any(char::is_control));
            assert!(request.name.is_none_or(|name| name.as_str().parse::<MemberName>().is_ok()));
        }
    }
    if let Ok(answer) = Answer::parse(data) {
        let again = Answer::parse(&answer.to_bytes());
        assert_eq!(again.as_ref(), Ok(&answer));
        // A reason of a later version reads as one of this.
        if !matches!(answer, Answer::Denied { .. }) {
            assert_eq!(answer.to_bytes(), data);
        }
    }
    let parse = |text: &str| {
        let Ok(invite) = text.parse::<Invite>() else { return };
        assert_eq!(*invite.to_text(), text.trim());
        assert!(text.trim().len() <= Invite::MAX_LEN && invite.id().is_managed());
        assert!(Invite::is_claimed_by(text));
    };
    if let Ok(text) = str::from_utf8(data) {
        parse(text);
    }
    parse(&format!("peersock://e18a4c0277d19b3f/{}", BASE64URL_NOPAD.encode(data)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The oracle would be worth nothing if it refused everything. The targets check that it is right.
    #[test]
    fn the_world_has_members() {
        let world = &*WORLD;
        let admits = |holder: u8, delegation: usize, certificate: usize, program: Option<usize>, now| {
            let mut bytes = vec![1, u8::from(program.is_some())];
            bytes.extend_from_slice(world.keys[0].as_bytes());
            bytes.extend_from_slice(&world.delegations[delegation].bytes);
            bytes.extend_from_slice(&world.certificates[certificate].bytes);
            program.iter().for_each(|at| bytes.extend_from_slice(&world.programs[*at].bytes));
            world.admits(&bytes, 0, world.networks[0], holder, now)
        };
        assert!(admits(MEMBER, 0, 0, None, NOW) && admits(PROGRAM, 0, 0, Some(0), NOW));
        assert!(admits(0, 0, 9, None, NOW) && admits(MEMBER, 3, 3, None, NOW));
        assert!(!admits(MEMBER, 4, 4, None, NOW) && !admits(6, 0, 0, None, NOW));
        assert!(!admits(PROGRAM, 0, 0, Some(0), NOW + HOUR) && !admits(MEMBER, 7, 0, None, NOW + HOUR));
        let accepted = |keys: &[usize], now| -> Vec<_> {
            let head = |at: usize| world.accepted_head(&world.heads[at].bytes, keys, world.networks[0], now);
            (0..world.heads.len()).filter(|at| head(*at).is_some()).collect()
        };
        assert_eq!(accepted(&[0], NOW), [0, 4]);
        assert_eq!(accepted(&[0, 2, 3], NOW), [0, 4, 10, 11]);
        assert_eq!(accepted(&[0, 2, 3], NOW + 2 * HOUR), [10, 11]);
        let with_links = |links: &[usize], delegation: usize| {
            let mut bytes = vec![1, 2];
            bytes.extend_from_slice(world.keys[0].as_bytes());
            bytes.push(links.len() as u8);
            links.iter().for_each(|at| bytes.extend_from_slice(&world.links[*at].signed.to_bytes()));
            bytes.extend_from_slice(&world.delegations[delegation].bytes);
            bytes.extend_from_slice(&world.certificates[0].bytes);
            world.admits(&bytes, 0, world.networks[0], MEMBER, NOW)
        };
        assert!(with_links(&[0], 8) && with_links(&[0, 1], 9) && with_links(&[4], 9));
        assert!(
            !with_links(&[0], 0) && !with_links(&[1], 9) && !with_links(&[2], 8) && !with_links(&[0, 5], 0)
        );
    }
}
