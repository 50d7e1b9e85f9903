use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::id::{Identity, NetworkId, NodeId, PublicIdentity};
use crate::wire::DATA_OVERHEAD;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

fn network() -> NetworkId {
    "8056c2e21c000001".parse().expect("a managed ID")
}

fn secret() -> NetworkSecret {
    NetworkSecret::from_seed(&[1; 32])
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn serial() -> Serial {
    Serial::next(NOW, None)
}

/// Returns a delegation of a year to the identity with seed 2.
fn delegation() -> Delegation {
    Delegation::sign(&secret(), network(), *identity(2).public(), serial(), 365 * DAY, Rights::ALL)
}

fn grant(node: NodeId) -> Grant {
    Grant::new(node, "alpha".parse().expect("a name"))
}

/// Returns credentials of a day for the identity with seed 3.
fn credentials() -> Credentials {
    let certificate = Certificate::sign(&identity(2), network(), grant(identity(3).node_id()), serial(), DAY);
    Credentials::new(secret().public(), delegation(), certificate.expect("a good grant"))
}

fn process(lifetime: Duration) -> Credentials {
    let label = Some("web".parse().expect("a name"));
    let process = identity(4).node_id();
    credentials().of_process(ProcessCertificate::sign(
        &identity(3),
        network(),
        &process,
        label,
        serial(),
        lifetime,
    ))
}

/// Returns the secret of the network's key after this number of successions.
fn nth_secret(number: u8) -> NetworkSecret {
    NetworkSecret::from_seed(&[1 + number; 32])
}

/// Returns successions from the first key on. Each former key ends an hour after the one before.
fn chain(length: u8) -> Vec<Succession> {
    (0..length).map(|at| succession(at, at + 1, NOW.plus(HOUR * (1 + u32::from(at))))).collect()
}

fn succession(from: u8, to: u8, end: UnixTime) -> Succession {
    Succession::sign(&nth_secret(from), network(), nth_secret(to).public(), end)
}

/// Returns credentials whose delegation the key with this number has signed, after these successions.
fn followed(key: u8, successions: &[Succession]) -> Credentials {
    let issuer = *identity(2).public();
    let delegation = Delegation::sign(&nth_secret(key), network(), issuer, serial(), 365 * DAY, Rights::ALL);
    let certificate = credentials().certificate().clone();
    Credentials::new(secret().public(), delegation, certificate).with_successions(successions)
}

/// Returns why a node that knows these keys does not accept credentials.
fn refusal_by(keys: &NetworkKeys, shown: &Credentials, now: UnixTime) -> Option<Refusal> {
    let checked = shown.authenticate_by(keys, network(), &identity(3).node_id());
    checked
        .and_then(|(admission, known)| {
            admission.check(now, &Revocations::default())?;
            known.check(admission.signer(), now)
        })
        .err()
}

fn keys(successions: &[Succession]) -> NetworkKeys {
    NetworkKeys::new(secret().public()).extended(network(), successions).expect("they lead on")
}

#[test]
fn a_successor_makes_issuers_for_those_who_know_the_first_key_alone() {
    let first = NetworkKeys::new(secret().public());
    for length in 0..=3 {
        let shown = followed(length, &chain(length));
        assert_eq!(Credentials::parse(&shown.to_bytes()), Ok(shown.clone()));
        assert_eq!(refusal_by(&first, &shown, NOW), None, "{length}");
        let (admission, learned) =
            shown.authenticate_by(&first, network(), &identity(3).node_id()).expect("signed");
        assert_eq!((admission.signer(), learned), (&nth_secret(length).public(), keys(&chain(length))));
        // The last key has to have signed, of those that are shown.
        for other in (0..=3).filter(|other| *other != length) {
            let wrong = followed(other, &chain(length));
            assert_eq!(refusal_by(&first, &wrong, NOW), Some(Refusal::Issuer), "{length} {other}");
        }
    }
}

#[test]
fn a_former_key_counts_until_its_end_where_the_next_one_is_known() {
    let known = keys(&chain(3));
    for key in 0..3 {
        let end = NOW.plus(HOUR * (1 + u32::from(key)));
        assert_eq!(known.end_of(&nth_secret(key).public()), Some(end), "{key}");
        let shown = followed(key, &chain(key));
        assert_eq!(refusal_by(&known, &shown, end.minus(Duration::from_millis(1))), None, "{key}");
        assert_eq!(refusal_by(&known, &shown, end), Some(Refusal::KeyEnded), "{key}");
        assert_eq!(
            refusal_by(&keys(&chain(key)), &shown, end),
            None,
            "who does not know the next one: {key}"
        );
    }
    assert_eq!(known.end_of(&nth_secret(3).public()), None);
    // Without successions, any known key may have signed.
    for key in 0..=3 {
        assert_eq!(refusal_by(&known, &followed(key, &[]), NOW), None, "{key}");
    }
    assert_eq!(refusal_by(&known, &followed(9, &[]), NOW), Some(Refusal::Issuer));
    // A key that ends at once takes the former one with it.
    let at_once = keys(&[chain(1).remove(0), succession(1, 2, NOW)]);
    assert_eq!(refusal_by(&at_once, &followed(0, &[]), NOW), Some(Refusal::KeyEnded));
    assert_eq!(refusal_by(&at_once, &followed(1, &chain(1)), NOW), Some(Refusal::KeyEnded));
    assert_eq!(refusal_by(&at_once, &followed(2, &[]), NOW), None);
}

#[test]
fn the_first_successor_that_is_learned_is_the_only_one() {
    let known = keys(&chain(1));
    let rival = succession(0, 9, NOW);
    assert_eq!(
        refusal_by(&known, &followed(9, std::slice::from_ref(&rival)), NOW),
        Some(Refusal::OtherSuccession)
    );
    assert_eq!(known.extended(network(), &[rival]), Err(Refusal::OtherSuccession));
    // A later end of the same successor changes nothing, and an earlier one counts.
    let later = succession(0, 1, NOW.plus(99 * DAY));
    assert_eq!(known.extended(network(), &[later]), Ok(known.clone()));
    let earlier = succession(0, 1, NOW);
    let shortened = known.extended(network(), std::slice::from_ref(&earlier)).expect("the same successor");
    assert_eq!(shortened.successions(), [earlier]);
    assert_eq!(shortened.extended(network(), &chain(1)), Ok(shortened.clone()));
    assert_eq!(
        keys(&chain(3)).extended(network(), shortened.successions()).map(|keys| keys.last().to_owned()),
        Ok(nth_secret(3).public()),
        "what follows stays"
    );
    // A shorter chain takes nothing back, and a longer one is learned.
    assert_eq!(keys(&chain(3)).extended(network(), &chain(1)), Ok(keys(&chain(3))));
    assert_eq!(known.extended(network(), &chain(3)), Ok(keys(&chain(3))));
    // What is not signed is no rival.
    let mut forged = succession(0, 9, NOW).to_bytes();
    forged[100] ^= 1;
    let forged = Succession::parse(&forged).expect("the form is right");
    assert_eq!(known.extended(network(), &[forged]), Err(Refusal::Issuer));
}

#[test]
fn successions_that_do_not_lead_on_count_for_nothing() {
    let first = NetworkKeys::new(secret().public());
    let foreign: NetworkId = "8056c2e21c000002".parse().expect("a managed ID");
    let other = Succession::sign(&secret(), foreign, nth_secret(1).public(), NOW);
    let back = succession(1, 0, NOW);
    let own = succession(0, 0, NOW);
    for wrong in [
        vec![succession(1, 2, NOW)],
        vec![chain(2).remove(1), chain(1).remove(0)],
        vec![chain(1).remove(0), chain(1).remove(0)],
        vec![chain(1).remove(0), back],
        vec![other],
        vec![own],
    ] {
        assert_eq!(first.extended(network(), &wrong), Err(Refusal::Issuer), "{wrong:?}");
    }
    // One byte of a good one.
    let good = chain(1).remove(0);
    for at in 0..Succession::LEN {
        let mut bytes = good.to_bytes();
        assert!(Succession::parse(&bytes[..at]).is_err());
        bytes[at] ^= 1;
        let counts = Succession::parse(&bytes).is_ok_and(|read| first.extended(network(), &[read]).is_ok());
        assert!(!counts, "byte {at}");
    }
    assert!(Succession::parse(&[good.to_bytes(), vec![0]].concat()).is_err());
}

#[test]
fn credentials_have_one_to_three_successions_or_no_field_of_them() {
    let one = followed(1, &chain(1)).to_bytes();
    for count in [0, 2, 3, 4, 255] {
        let mut bytes = one.clone();
        bytes[34] = count;
        assert!(Credentials::parse(&bytes).is_err(), "{count}");
    }
    let mut none = credentials().to_bytes();
    none[1] |= 2;
    none.insert(34, 0);
    assert!(Credentials::parse(&none).is_err(), "an empty field is another form");
    let mut four = followed(3, &chain(3)).to_bytes();
    four[34] = 4;
    let link = succession(3, 4, NOW).to_bytes();
    four.splice(35 + 3 * Succession::LEN..35 + 3 * Succession::LEN, link);
    assert!(Credentials::parse(&four).is_err());
    for unknown in [4, 8, 128] {
        let mut bytes = one.clone();
        bytes[1] |= unknown;
        assert!(Credentials::parse(&bytes).is_err());
    }
}

/// Bytes of the format as docs/reference/PROTOCOL.md has it, from these keys.
#[test]
fn a_succession_is_written_as_described() {
    let signed = succession(0, 1, NOW);
    let bytes = signed.to_bytes();
    assert_eq!(bytes[..32], *nth_secret(1).public().as_bytes());
    assert_eq!(bytes[32..40], NOW.as_millis().to_be_bytes());
    let message =
        [b"peersock succession v1".as_slice(), &network().as_u64().to_be_bytes(), &bytes[..40]].concat();
    assert_eq!(bytes[40..], secret().sign(&message));
    // OpenSSL signs the message so.
    let openssl = concat!(
        "9b8a01b32f2c4478083a7bf522acf4e87fd814d9c618c9274129d5b344653894",
        "ca96cbfd7a903be62248b119dce73f7b12d4b906a73c77db081128447aeac502"
    );
    assert_eq!(data_encoding::HEXLOWER.encode(&bytes[40..]), openssl);
}

/// Returns why a node with these credentials is no member.
fn refusal(credentials: &Credentials, holder: &NodeId, now: UnixTime) -> Option<Refusal> {
    let admission = credentials.authenticate(&secret().public(), network(), holder);
    admission.and_then(|admission| admission.check(now, &Revocations::default())).err()
}

#[test]
fn a_member_and_its_programs_are_admitted() {
    assert_eq!(refusal(&credentials(), &identity(3).node_id(), NOW), None);
    assert_eq!(refusal(&process(DAY), &identity(4).node_id(), NOW), None);
    let admission = process(DAY).authenticate(&secret().public(), network(), &identity(4).node_id());
    let admission = admission.expect("signed by its machine");
    assert!(admission.is_process() && !admission.is_issuer());
    assert_eq!(admission.label().map(MemberName::as_str), Some("web"));
    assert_eq!(admission.end(), NOW.plus(ProcessCertificate::MAX_LIFETIME), "an hour at most");
}

#[test]
fn credentials_belong_to_one_node() {
    for stranger in [4, 2, 5] {
        assert_eq!(refusal(&credentials(), &identity(stranger).node_id(), NOW), Some(Refusal::Holder));
    }
    // The machine's own keys cannot use a program's credentials either, nor another program.
    for stranger in [3, 5] {
        let refused = refusal(&process(DAY), &identity(stranger).node_id(), NOW);
        assert_eq!(refused, Some(Refusal::Unauthentic));
    }
}

#[test]
fn statements_of_other_signers_and_networks_do_not_count() {
    let holder = identity(3).node_id();
    let other = NetworkSecret::from_seed(&[9; 32]);
    let (good, network) = (credentials(), network());
    // Another key with the same ID.
    let foreign = Delegation::sign(&other, network, *identity(2).public(), serial(), DAY, Rights::ALL);
    let of_other = Credentials::new(other.public(), foreign.clone(), good.certificate().clone());
    assert_eq!(refusal(&of_other, &holder, NOW), Some(Refusal::OtherNetwork));
    // A delegation that another key has signed.
    let forged = Credentials::new(secret().public(), foreign, good.certificate().clone());
    assert_eq!(refusal(&forged, &holder, NOW), Some(Refusal::Issuer));
    // The same key in another network.
    let id: NetworkId = "8056c2e21c000002".parse().expect("a managed ID");
    let refused = good.authenticate(&secret().public(), id, &holder).err();
    assert_eq!(refused, Some(Refusal::Issuer));
    // A member is no issuer.
    let by_member = Certificate::sign(&identity(3), network, grant(identity(5).node_id()), serial(), DAY);
    let by_member = Credentials::new(secret().public(), delegation(), by_member.expect("a good grant"));
    assert_eq!(refusal(&by_member, &identity(5).node_id(), NOW), Some(Refusal::Unauthentic));
    // An issuer that may only revoke issues nothing.
    let rights = Rights { issues: false, ..Rights::ALL };
    let revoker = Delegation::sign(&secret(), network, *identity(2).public(), serial(), DAY, rights);
    let by_revoker = Credentials::new(secret().public(), revoker, good.certificate().clone());
    assert_eq!(refusal(&by_revoker, &holder, NOW), Some(Refusal::Issuer));
}

#[test]
fn times_count_with_a_tolerance_at_the_beginning_only() {
    let (holder, second) = (identity(3).node_id(), Duration::from_secs(1));
    let begin = NOW.minus(CLOCK_TOLERANCE);
    assert_eq!(refusal(&credentials(), &holder, begin), None);
    assert_eq!(refusal(&credentials(), &holder, begin.minus(second)), Some(Refusal::NotYetValid));
    assert_eq!(refusal(&credentials(), &holder, NOW.plus(DAY).minus(second)), None);
    assert_eq!(refusal(&credentials(), &holder, NOW.plus(DAY)), Some(Refusal::Expired));
    let process = process(DAY);
    let hour = NOW.plus(ProcessCertificate::MAX_LIFETIME);
    assert_eq!(refusal(&process, &identity(4).node_id(), hour.minus(second)), None);
    assert_eq!(refusal(&process, &identity(4).node_id(), hour), Some(Refusal::Expired));
    // A certificate does not outlive its issuer's delegation.
    let short = Delegation::sign(
        &secret(),
        network(),
        *identity(2).public(),
        serial(),
        Duration::from_secs(60),
        Rights::ALL,
    );
    let short = Credentials::new(secret().public(), short, credentials().certificate().clone());
    assert_eq!(refusal(&short, &holder, NOW.plus(60 * second)), Some(Refusal::IssuerExpired));
}

#[test]
fn revocations_count_for_members_issuers_and_programs_until_a_later_serial() {
    let process = process(DAY).authenticate(&secret().public(), network(), &identity(4).node_id());
    let process = process.expect("signed by its machine");
    let later = Serial::next(NOW, Some(serial()));
    let until = NOW.plus(DAY);
    for revoked in [2, 3, 4] {
        let mut set = Revocations::default();
        let node = identity(revoked).node_id();
        set.add(node, Revocation { min_serial: serial(), until });
        assert_eq!(process.check(NOW, &set), Ok(()), "the serial itself counts");
        set.add(node, Revocation { min_serial: later, until });
        assert_eq!(process.check(NOW, &set), Err(Refusal::Revoked));
        // The reason is the same after the end, so that no person thinks that a renewal would help.
        assert_eq!(process.check(NOW.plus(DAY), &set), Err(Refusal::Revoked));
        set.add(node, Revocation { min_serial: serial(), until: NOW });
        assert_eq!(process.check(NOW, &set), Err(Refusal::Revoked), "nothing takes a revocation back");
        set.forget(until);
        assert!(set.is_empty());
    }
}

/// A program of the time before must not count again by the certificate of a machine that was admitted again.
#[test]
fn a_removal_ends_what_the_machine_has_signed_until_then() {
    let later = Serial::next(NOW, Some(serial()));
    let mut removed = Revocations::default();
    let machine = identity(3).node_id();
    removed.add(machine, Revocation { min_serial: later, until: NOW.plus(DAY) });
    let certificate = Certificate::sign(&identity(2), network(), grant(machine), later, DAY);
    let again = Credentials::new(secret().public(), delegation(), certificate.expect("a good grant"));
    let hour = ProcessCertificate::MAX_LIFETIME;
    for (signed, verdict) in [(serial(), Err(Refusal::Revoked)), (later, Ok(()))] {
        let node = identity(4).node_id();
        let process = ProcessCertificate::sign(&identity(3), network(), &node, None, signed, hour);
        let admission = again.of_process(process).authenticate(&secret().public(), network(), &node);
        assert_eq!(admission.expect("signed by its machine").check(NOW, &removed), verdict);
    }
}

/// Else a removed machine could make all others keep its removal for ever.
#[test]
fn a_removal_is_kept_for_as_long_as_what_it_covers_and_no_longer() {
    let (machine, second, year) = (identity(3).node_id(), Duration::from_secs(1), 365 * DAY);
    let first = Revocation { min_serial: Serial::next(NOW.plus(second), None), until: NOW.plus(second) };
    let others = [identity(5), identity(6)].map(|other| (other.node_id(), first));
    let kept = |signed: UnixTime| {
        let mut removed: Revocations = others.into_iter().chain([(machine, first)]).collect();
        let node = identity(4).node_id();
        let serial = Serial::next(signed, None);
        let process = ProcessCertificate::sign(&identity(3), network(), &node, None, serial, year);
        let shown = credentials().of_process(process).authenticate(&secret().public(), network(), &node);
        let shown = shown.expect("signed by its machine");
        assert_eq!(shown.check(NOW, &removed), Err(Refusal::Revoked));
        removed.keep(&machine, &shown.statements());
        assert!(others.iter().all(|(other, _)| removed.iter().any(|one| one == (*other, first))));
        removed.iter().find(|(node, _)| *node == machine).expect("kept").1.until
    };
    let certificate = credentials().certificate().end();
    assert_eq!(kept(NOW), certificate.plus(CLOCK_TOLERANCE));
    // Such a program is refused, too: by its machine's certificate.
    assert_eq!(kept(NOW.plus(1000 * year)), certificate.plus(CLOCK_TOLERANCE));
    let mut removed: Revocations = [(machine, first)].into_iter().collect();
    removed.keep(&identity(5).node_id(), &[(serial(), NOW.plus(year))]);
    assert_eq!(removed.iter().collect::<Vec<_>>(), [(machine, first)], "only what is removed is kept");
}

#[test]
fn heads_name_one_set_and_their_issuer() {
    let (key, network) = (NetworkKeys::new(secret().public()), network());
    let mut set = Revocations::default();
    set.add(identity(3).node_id(), Revocation { min_serial: serial(), until: NOW.plus(DAY) });
    let head = Head::sign(&identity(2), delegation(), network, 7, NOW, &set);
    let none = Revocations::default();
    assert_eq!(Head::parse(&head.to_bytes()), Ok(head.clone()));
    assert_eq!(head.to_bytes().len(), Head::LEN);
    assert_eq!(head.verify(&key, network, NOW, &none), Ok(secret().public()));
    assert_eq!(head.read_set(&set.to_bytes()), Some(set.clone()));
    assert_eq!(head.read_set(&[]), None);

    let endless = Head::sign(&identity(2), delegation(), network, u64::MAX, NOW, &set);
    assert_eq!(endless.verify(&key, network, NOW, &none), Err(Refusal::Issuer));
    // Another signer, a signer without the right, a revoked one, and a head from the future.
    let forged = Head::sign(&identity(3), delegation(), network, 8, NOW, &set);
    assert_eq!(forged.verify(&key, network, NOW, &none), Err(Refusal::Unauthentic));
    let rights = Rights { revokes: false, ..Rights::ALL };
    let weak = Delegation::sign(&secret(), network, *identity(2).public(), serial(), DAY, rights);
    let weak = Head::sign(&identity(2), weak, network, 8, NOW, &set);
    assert_eq!(weak.verify(&key, network, NOW, &none), Err(Refusal::Issuer));
    let mut of_issuer = Revocations::default();
    let later = Serial::next(NOW, Some(serial()));
    of_issuer.add(identity(2).node_id(), Revocation { min_serial: later, until: NOW.plus(DAY) });
    assert_eq!(head.verify(&key, network, NOW, &of_issuer), Err(Refusal::Revoked));
    let early = NOW.minus(2 * CLOCK_TOLERANCE);
    assert_eq!(head.verify(&key, network, early, &none), Err(Refusal::NotYetValid));
}

#[test]
fn no_issuer_excludes_a_node_for_ever() {
    let mut set = Revocations::default();
    let (min_serial, until) = (Serial::from_u64(u64::MAX), UnixTime::from_millis(u64::MAX));
    set.add(identity(3).node_id(), Revocation { min_serial, until });
    let head = Head::sign(&identity(2), delegation(), network(), 1, NOW, &set);
    let read = head.read_set(&set.to_bytes()).expect("the set of the head");
    assert!(read.covers(&identity(3).node_id(), serial()));
    let later = Serial::next(NOW.plus(Duration::from_millis(2)), None);
    assert!(!read.covers(&identity(3).node_id(), later), "a later admission counts");
}

#[test]
fn the_largest_credentials_leave_room_in_a_datagram() {
    let mut grant = grant(identity(3).node_id());
    grant.name = "a".repeat(MemberName::MAX_LEN).parse().expect("a name");
    (grant.ipv4, grant.ipv6) = (Some([10, 7, 0, 3].into()), Some([7; 16].into()));
    let tag = |n: usize| format!("{n}{}", "t".repeat(30)).parse::<Tag>().expect("a tag");
    grant.tags = (1..=4).map(tag).collect();
    grant.claims = vec![0xff; Grant::MAX_CLAIMS_LEN];
    let certificate = Certificate::sign(&identity(2), network(), grant, serial(), DAY);
    let largest = Credentials::new(secret().public(), delegation(), certificate.expect("a good grant"));
    let label = "b".repeat(MemberName::MAX_LEN).parse().expect("a name");
    let process = identity(4).node_id();
    let largest = largest.of_process(ProcessCertificate::sign(
        &identity(3),
        network(),
        &process,
        Some(label),
        serial(),
        DAY,
    ));
    assert_eq!(largest.to_bytes().len(), Credentials::MAX_LEN_ALONE);
    let largest = largest.with_successions(&chain(3));
    assert_eq!(largest.to_bytes().len(), Credentials::MAX_LEN);
    const { assert!(Credentials::MAX_LEN_ALONE <= 900) };
    // As shown, and as the answer to a question for a program, which has no successions.
    const { assert!(1 + Credentials::MAX_LEN + DATA_OVERHEAD <= 1200) };
    const { assert!(6 + 1 + PublicIdentity::LEN + Credentials::MAX_LEN_ALONE + DATA_OVERHEAD <= 1200) };
    assert_eq!(Credentials::parse(&largest.to_bytes()), Ok(largest));
}

#[test]
fn each_altered_byte_is_noticed() {
    let two = followed(2, &chain(2));
    for (good, holder) in [(credentials(), identity(3)), (process(DAY), identity(4)), (two, identity(3))] {
        let bytes = good.to_bytes();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let accepted = Credentials::parse(&altered)
                .is_ok_and(|read| refusal(&read, &holder.node_id(), NOW).is_none());
            assert!(!accepted, "byte {at}");
            assert!(Credentials::parse(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(Credentials::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}

#[test]
fn grants_that_no_certificate_can_hold_are_refused() {
    let node = identity(3).node_id();
    let sign = |grant| Certificate::sign(&identity(2), network(), grant, serial(), DAY).err();
    let mut many = grant(node);
    many.tags = (10..40).map(|n| format!("tag-{n}").parse().expect("a tag")).collect();
    assert_eq!(sign(many.clone()), Some(InvalidGrant::TagsLength(30 * 7)));
    let mut twice = grant(node);
    twice.tags = vec![many.tags[1].clone(), many.tags[0].clone()];
    assert_eq!(sign(twice), Some(InvalidGrant::TagsOrder));
    let mut claims = grant(node);
    claims.claims = vec![0; 129];
    assert_eq!(sign(claims), Some(InvalidGrant::ClaimsLength(129)));
    for (has, length) in [(true, 7), (true, 33), (false, 24)] {
        let mut prefix = grant(node);
        prefix.ipv4 = has.then_some([10, 0, 0, 1].into());
        prefix.ipv4_length = length;
        assert_eq!(sign(prefix), Some(InvalidGrant::PrefixLength(length)));
    }
    for unusable in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
        let mut address = grant(node);
        address.ipv4 = Some(unusable.into());
        assert_eq!(sign(address), Some(InvalidGrant::Address(std::net::IpAddr::from(unusable))));
    }
}

#[test]
fn codes_are_read_as_people_type_them() {
    let code = Code::from_bits(0b00001_00000_10110_00010_11111_01010);
    assert_eq!(code.to_string(), "AZ2-P01");
    for typed in ["AZ2-P01", "az2p01", " aZ2-pOl ", "AZ2-POI"] {
        assert_eq!(typed.parse(), Ok(code), "{typed}");
    }
    for wrong in ["", "AZ2-P0", "AZ2-P011", "AZ2-PU1", "AZ2 P01", "ÄZ2-P01"] {
        assert!(wrong.parse::<Code>().is_err(), "{wrong}");
    }
}

#[test]
fn questions_and_answers_are_read_as_written() {
    let request = CertifyRequest {
        run: 1,
        starts: 2,
        token: Some(Token::from_bytes([7; Token::LEN])),
        name: Some("alpha".parse().expect("a name")),
        description: "Debian 12".into(),
    };
    for question in [
        Question::Certify(request.clone()),
        Question::Certify(CertifyRequest::default()),
        Question::FindName("beta".parse().expect("a name")),
        Question::FindAddress([10, 7, 0, 3].into()),
    ] {
        let bytes = question.to_bytes();
        assert_eq!(Question::parse(&bytes), Ok(question));
        assert!(Question::parse(&bytes[..bytes.len() - 1]).is_err());
    }
    let credentials = Box::new(credentials());
    let code = Code::from_bits(7);
    let spare = {
        let rights = Rights::RENEWALS;
        let right = Delegation::sign(&secret(), network(), *identity(3).public(), serial(), DAY, rights);
        Spare::new(right, DAY)
    };
    assert_eq!(Spare::parse(&spare.to_bytes()).as_ref(), Ok(&spare));
    for answer in [
        Answer::Certified { time: NOW, renew_after: 3600, credentials: credentials.clone(), spare: None },
        Answer::Certified {
            time: NOW,
            renew_after: 3600,
            credentials: credentials.clone(),
            spare: Some(Box::new(spare)),
        },
        Answer::Pending { time: NOW, retry_after: 5, code },
        Answer::Denied { time: NOW, reason: Denial::Cloned },
        Answer::Found { identity: *identity(3).public(), credentials },
        Answer::Program {
            identity: *identity(3).public(),
            certificate: Box::new(
                process(ProcessCertificate::MAX_LIFETIME).process().expect("a program's").clone(),
            ),
        },
        Answer::Absent,
    ] {
        let bytes = answer.to_bytes();
        assert_eq!(Answer::parse(&bytes), Ok(answer));
        assert!(Answer::parse(&bytes[..bytes.len() - 1]).is_err());
    }
    // Long descriptions are cut, and none steers a terminal.
    let long = CertifyRequest { description: "ä".repeat(40), ..request.clone() };
    let Ok(Question::Certify(read)) = Question::parse(&Question::Certify(long).to_bytes()) else {
        panic!("a description that is too long is cut")
    };
    assert_eq!(read.description, "ä".repeat(32));
    let steering = CertifyRequest { description: "\x1b[2J".into(), ..request.clone() };
    assert!(Question::parse(&Question::Certify(steering).to_bytes()).is_err());
    assert!(!format!("{request:?}").contains('7'), "a token is a secret");
}

#[test]
fn wishes_become_names() {
    for (wish, name) in
        [("alpha", "alpha"), ("Anna's Laptop.local", "anna-s-laptop"), ("__x__y__", "x-y"), ("größe", "gr-e")]
    {
        assert_eq!(MemberName::cleaned(wish).map(|name| name.to_string()), Some(name.into()), "{wish}");
    }
    for nothing in ["", "...", "日本", "---"] {
        assert_eq!(MemberName::cleaned(nothing), None, "{nothing}");
    }
    let long = MemberName::cleaned(&"a".repeat(100)).expect("letters");
    assert_eq!(long.as_str().len(), 63);
    assert_eq!(long.numbered(12).as_str(), format!("{}-12", "a".repeat(60)));
}

proptest! {
    #[test]
    fn certificates_have_one_form(
        name in "[a-z][a-z0-9]{0,62}",
        tags in prop::collection::btree_set("[a-z0-9]{1,20}", 0..6),
        claims in prop::collection::vec(any::<u8>(), 0..=128),
        role in 0..4_usize,
        is_ephemeral: bool,
        ipv4 in prop::option::of(1..=250_u8),
        ipv6 in prop::option::of(1..=250_u8),
        node: [u8; 32],
        serial: u64,
        keys in 0..=3_u8,
        seconds in 0..10_000_000_u64,
    ) {
        let grant = Grant {
            node: NodeId::from_bytes(node),
            name: name.parse().expect("a name"),
            role: [Role::Member, Role::Viewer, Role::Operator, Role::Admin][role],
            is_ephemeral,
            ipv4: ipv4.map(|last| [10, 0, 0, last].into()),
            ipv4_length: ipv4.map_or(32, |last| 8 + last % 25),
            ipv6: ipv6.map(|first| [u16::from(first) | 0x2000, 0, 0, 0, 0, 0, 0, 1].into()),
            ipv6_length: ipv6.map_or(128, |first| 16 + first % 113),
            tags: tags.iter().map(|tag| tag.parse().expect("a tag")).collect(),
            claims,
        };
        let serial = Serial::from_u64(serial);
        let signed =
            Certificate::sign(&identity(2), network(), grant, serial, Duration::from_secs(seconds));
        prop_assume!(signed.is_ok());
        let credentials = Credentials::new(secret().public(), delegation(), signed.expect("signed"));
        let credentials = credentials.with_successions(&chain(keys));
        let bytes = credentials.to_bytes();
        prop_assert_eq!(Credentials::parse(&bytes), Ok(credentials));
    }

    #[test]
    fn what_parses_is_what_would_be_written(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        // Most bytes begin like real ones, so that parsing gets further than the first field.
        let mut real = process(DAY).with_successions(&chain(bytes.len() as u8 % 4)).to_bytes();
        let at = bytes.len() % real.len();
        real.truncate(at);
        real.extend_from_slice(&bytes);
        if let Ok(read) = Credentials::parse(&real) {
            prop_assert_eq!(read.to_bytes(), real);
        }
        if let Ok(set) = Revocations::parse(&bytes) {
            prop_assert_eq!(set.to_bytes(), bytes);
        }
    }
}
