use peersock_overlay::membership::{Code, Grant, Role};

use super::*;
use crate::{Approval, Change, ChangeError};

#[test]
fn a_token_gives_a_name_tags_and_an_address_and_is_used_once() {
    let mut lab = Lab::new();
    let options = InviteOptions::from(Approval {
        tags: tags(&["web", "db"]),
        role: Role::Viewer,
        ..Approval::default()
    });
    let token = lab.invite(&options);
    let credentials = lab.join(1, Some(&token));
    let grant = credentials.certificate().grant();
    assert_eq!(grant.name, name("machine-1"));
    assert_eq!(grant.tags, tags(&["db", "web"]));
    assert_eq!(grant.role, Role::Viewer);
    assert_eq!(grant.ipv4, Some([10, 7, 0, 2].into()), "the controller has the first address");
    assert_eq!((grant.ipv4_length, grant.ipv6_length), (24, 128));
    assert!(!grant.is_ephemeral);
    let lifetime = credentials.certificate().end().since(lab.now);
    assert!(lifetime >= 24 * HOUR && lifetime <= 24 * HOUR + MINUTE, "23 h without a controller, and 1 h");
    // Again: the same row, and nothing is used.
    let again = lab.join(1, Some(&token));
    assert_eq!(again.certificate().grant(), grant);
    assert!(again.certificate().serial() > credentials.certificate().serial());
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::UsedInvite));
    assert_eq!(lab.controller.members().expect("readable").len(), 2);
    // A renewal needs no token, and a wrong one does no harm.
    assert_eq!(lab.join(1, None).certificate().grant(), grant);
    assert_eq!(lab.join(1, Some(&Token::from_bytes([9; Token::LEN]))).certificate().grant(), grant);
}

#[test]
fn tokens_end_by_the_controllers_clock_and_are_stored_as_hashes() {
    let mut lab = Lab::new();
    let token = lab.invite(&InviteOptions { uses: 9, ..InviteOptions::default() });
    assert_eq!(denial(&lab.ask(1, Some(&Token::from_bytes([1; Token::LEN])))), Some(Denial::UnknownInvite));
    lab.pass(HOUR - Duration::from_millis(1));
    lab.join(1, Some(&token));
    lab.pass(Duration::from_millis(1));
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::ExpiredInvite));
    lab.join(1, Some(&token));
    let rows = dump(&lab.controller);
    assert!(rows.contains("tokens: ") && !rows.contains(&format!("{:?}", token.as_bytes())));
    let withdrawn = lab.open_invite();
    lab.pass(MINUTE);
    let label: String = withdrawn.hash()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    lab.controller.end_invite(lab.now, "alice", &label).expect("it exists");
    let invites = lab.controller.invites().expect("readable");
    let shown: Vec<_> = invites.iter().map(|invite| (invite.used, invite.uses, invite.ends)).collect();
    assert_eq!(shown, [(1, 9, NOW.plus(HOUR)), (0, 1_000_000, lab.now)]);
    assert_eq!((&invites[1].label, &*invites[1].made_by), (&label, "alice"));
    assert_eq!(denial(&lab.ask(2, Some(&withdrawn))), Some(Denial::ExpiredInvite));
    assert!(lab.controller.end_invite(lab.now, "alice", "00000000").is_err());
}

#[test]
fn a_fixed_name_is_given_or_refused_and_a_refusal_burns_nothing() {
    let mut lab = Lab::new();
    let options = InviteOptions {
        uses: 2,
        approval: Approval { name: Some(name("beta")), ..Approval::default() },
        ..InviteOptions::default()
    };
    let token = lab.invite(&options);
    assert_eq!(lab.join(1, Some(&token)).certificate().grant().name, name("beta"));
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::NameTaken));
    lab.revoke(1);
    assert_eq!(lab.join(2, Some(&token)).certificate().grant().name, name("beta"));
}

#[test]
fn times_without_a_controller_come_from_token_tag_and_network() {
    let mut lab = Lab::new();
    let lifetime = |lab: &mut Lab, node, options: &InviteOptions| {
        let token = lab.invite(options);
        let certificate = lab.join(node, Some(&token)).certificate().clone();
        certificate.end().since(certificate.serial().time())
    };
    let [week, four] = [7 * DAY, 4 * HOUR];
    lab.controller.set_tag_outlive(lab.now, "alice", &tags(&["far"])[0], Some(week)).expect("in range");
    lab.controller.set_tag_outlive(lab.now, "alice", &tags(&["near"])[0], Some(four)).expect("in range");
    let of_tag = InviteOptions::from(Approval { tags: tags(&["far"]), ..Approval::default() });
    assert_eq!(lifetime(&mut lab, 1, &of_tag), week + HOUR);
    let of_two = InviteOptions::from(Approval { tags: tags(&["far", "near"]), ..Approval::default() });
    assert_eq!(lifetime(&mut lab, 2, &of_two), four + HOUR);
    let own = InviteOptions { approval: Approval { outlive: Some(HOUR), ..of_two.approval }, ..of_two };
    assert_eq!(lifetime(&mut lab, 3, &own), 2 * HOUR);
    let short = InviteOptions { approval: Approval { is_ephemeral: true, ..own.approval }, ..own };
    assert_eq!(lifetime(&mut lab, 4, &short), 10 * MINUTE);
    let wrong = InviteOptions::from(Approval { outlive: Some(31 * DAY), ..Approval::default() });
    assert!(matches!(
        lab.controller.invite(lab.now, &mut lab.rng, "alice", &wrong),
        Err(ChangeError::Range(_))
    ));
}

fn code(answer: &Answer) -> Code {
    match answer {
        Answer::Pending { code, retry_after: 1, .. } => *code,
        other => panic!("not pending: {other:?}"),
    }
}

#[test]
fn a_machine_that_waits_asks_each_second_at_first() {
    let mut lab = Lab::new();
    lab.ask(1, None);
    for (time, expected) in [(9 * MINUTE, 1), (MINUTE, 5), (DAY, 5)] {
        lab.pass(time);
        match lab.ask(1, None) {
            Answer::Pending { retry_after, .. } => assert_eq!(retry_after, expected, "{time:?}"),
            other => panic!("not pending: {other:?}"),
        }
    }
}

#[test]
fn a_person_approves_by_code_or_key_and_codes_stay() {
    let mut lab = Lab::new();
    let first = code(&lab.ask(1, None));
    lab.pass(Duration::from_millis(1));
    let second = code(&lab.ask(2, None));
    assert_ne!(first, second);
    lab.pass(MINUTE);
    assert_eq!(code(&lab.ask(1, None)), first);
    let waiting = lab.controller.pending().expect("readable");
    assert_eq!(waiting.iter().map(|waiting| waiting.code).collect::<Vec<_>>(), [first, second]);
    assert_eq!((&*waiting[0].description, waiting[0].name.clone()), ("Debian", Some(name("machine-1"))));
    let approval = Approval { tags: tags(&["db"]), ..Approval::default() };
    let typed = first.to_string().to_lowercase();
    let member = lab.controller.approve(lab.now, &mut lab.rng, "alice", &typed, &approval).expect("it waits");
    assert_eq!((&*member.admitted_by, member.grant.ipv4), ("alice", Some([10, 7, 0, 2].into())));
    let grant = lab.join(1, None).certificate().grant().clone();
    assert_eq!((grant.name, grant.tags), (name("machine-1"), tags(&["db"])));
    // By the beginning of its key, with a name that is taken first.
    let key = &id(2).to_string()[..12];
    let taken = Approval { name: Some(name("machine-1")), ..Approval::default() };
    let refused = lab.controller.approve(lab.now, &mut lab.rng, "alice", key, &taken);
    assert_eq!(refused.err(), Some(ChangeError::NameTaken(name("machine-1"))));
    assert_eq!(code(&lab.ask(2, None)), second);
    let other = Approval { name: Some(name("beta")), ..Approval::default() };
    lab.controller.approve(lab.now, &mut lab.rng, "alice", key, &other).expect("it waits");
    assert_eq!(lab.join(2, None).certificate().grant().name, name("beta"));
    let short = lab.controller.approve(lab.now, &mut lab.rng, "alice", "abc", &approval);
    assert_eq!(short.err(), Some(ChangeError::FewDigits("abc".into())));
    for nothing in ["ZZZ-ZZZ", "ffffffffff", "", "machine-7", "%"] {
        let found = lab.controller.approve(lab.now, &mut lab.rng, "alice", nothing, &approval);
        assert_eq!(found.err(), Some(ChangeError::NotFound(nothing.into())));
    }
}

#[test]
fn a_code_is_typed_with_or_without_its_hyphen_in_either_case() {
    let mut lab = Lab::new();
    for node in 1..=4 {
        let code = code(&lab.ask(node, None)).to_string();
        let typed = match node {
            1 => code.replace('-', ""),
            2 => code.replace('-', "").to_lowercase(),
            3 => format!(" {} ", code.to_lowercase()),
            _ => code,
        };
        let approval = Approval::default();
        let member = lab.controller.approve(lab.now, &mut lab.rng, "alice", &typed, &approval);
        assert_eq!(member.expect("it waits").grant.node, id(node), "{typed}");
    }
    let denied = code(&lab.ask(5, None)).to_string().replace('-', "").to_lowercase();
    lab.controller.deny(lab.now, "alice", &denied).expect("it waits");
}

#[test]
fn a_code_without_its_hyphen_that_begins_another_nodes_id_is_ambiguous() {
    let mut lab = Lab::new();
    let first = code(&lab.ask(1, None));
    lab.ask(2, None);
    // A code of hexadecimal digits, as one of 64 is.
    let begins = id(2).to_string()[..6].to_owned();
    let like: Code = begins.parse().expect("hexadecimal digits are digits of a code");
    lab.controller.memory().pending.get_mut(&id(1)).expect("it waits").code = like;
    assert_ne!(like, first);
    let approve = |lab: &mut Lab, typed: &str| {
        let approval = Approval::default();
        lab.controller.approve(lab.now, &mut lab.rng, "alice", typed, &approval).map(|one| one.grant.node)
    };
    for typed in [begins.to_uppercase(), begins.clone()] {
        assert_eq!(approve(&mut lab, &typed), Err(ChangeError::Ambiguous(typed.clone())));
        assert_eq!(lab.controller.deny(lab.now, "alice", &typed), Err(ChangeError::Ambiguous(typed)));
    }
    assert_eq!(approve(&mut lab, &id(2).to_string()[..8]), Ok(id(2)));
    assert_eq!(approve(&mut lab, &like.to_string()), Ok(id(1)));
}

#[test]
fn a_refused_machine_stays_refused_until_it_is_approved_or_invited() {
    let mut lab = Lab::new();
    let old = lab.open_invite();
    for node in [1, 2] {
        let first = code(&lab.ask(node, None));
        lab.controller.deny(lab.now, "alice", &first.to_string()).expect("it waits");
        assert_eq!(denial(&lab.ask(node, None)), Some(Denial::Declined));
        assert_eq!(denial(&lab.ask(node, Some(&old))), Some(Denial::Declined), "an earlier invite");
    }
    assert!(lab.controller.pending().expect("readable").is_empty());
    let key = id(1).to_string();
    lab.controller.approve(lab.now, &mut lab.rng, "alice", &key, &Approval::default()).expect("known");
    lab.join(1, None);
    lab.pass(MINUTE);
    let later = lab.open_invite();
    lab.join(2, Some(&later));
}

#[test]
fn strangers_cannot_fill_the_list_of_waiting_machines() {
    let mut lab = Lab::new();
    let real = code(&lab.ask_from(1, "198.51.100.1", certify(1, None)));
    // 5,000 strangers of 50 prefixes, each of which asks as often as it may, and then again and again.
    let mut node = 100;
    for minute in 0..10 {
        for prefix in 0..50 {
            for host in 0..10 {
                let source = format!("203.0.{prefix}.{host}");
                let answer = lab.ask_from(node, &source, certify(node, None));
                assert!(matches!(
                    answer,
                    Answer::Pending { .. } | Answer::Denied { reason: Denial::TooMany, .. }
                ));
                node += 1;
            }
        }
        assert_eq!(code(&lab.ask_from(1, "198.51.100.1", certify(1, None))), real, "minute {minute}");
        assert!(lab.controller.pending().expect("readable").len() <= 1_000);
        lab.pass(MINUTE);
    }
    let eleven: Vec<_> =
        (0..11).map(|n| lab.ask_from(9_000 + n, "192.0.2.1", certify(9_000 + n, None))).collect();
    assert_eq!(denial(&eleven[10]), Some(Denial::TooMany));
    assert_eq!(denial(&eleven[9]), None);
    lab.controller
        .approve(lab.now, &mut lab.rng, "alice", &real.to_string(), &Approval::default())
        .expect("it waits");
    lab.join(1, None);
}

#[test]
fn an_active_list_keeps_machines_of_rare_prefixes() {
    let mut lab = Lab::new();
    for node in 0..1_000 {
        if node % 10 == 0 {
            lab.pass(Duration::from_millis(1));
        }
        lab.ask_from(node, &format!("203.0.{}.1", node % 100), certify(node, None));
    }
    assert_eq!(lab.controller.pending().expect("readable").len(), 1_000);
    // All are active, so one of the fullest prefix goes. A newcomer of such a prefix is refused itself.
    code(&lab.ask_from(5_000, "198.51.100.1", certify(5_000, None)));
    lab.pass(MINUTE);
    (0..1_000).for_each(|node| drop(lab.ask_from(node, "203.0.113.1", certify(node, None))));
    let answer = lab.ask_from(5_001, "203.0.7.9", certify(5_001, None));
    assert!(matches!(answer, Answer::Pending { .. } | Answer::Denied { reason: Denial::TooMany, .. }));
    assert_eq!(lab.controller.pending().expect("readable").len(), 1_000);
}

#[test]
fn colliding_wishes_get_numbers_and_renames_are_refused() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let named = |wish: &str| {
        let name = MemberName::cleaned(wish);
        Question::Certify(CertifyRequest { name, ..request(1, Some(&token)) })
    };
    let mut names = Vec::new();
    for node in 1..=40 {
        let Answer::Certified { credentials, .. } =
            lab.ask_from(node, &source_of(node), named("Alpha.local"))
        else {
            panic!("no certificate")
        };
        names.push(credentials.certificate().grant().name.to_string());
    }
    assert_eq!(names[..3], ["alpha", "alpha-2", "alpha-3"]);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 40);
    let change = Change { name: Some(name("alpha")), ..Default::default() };
    let refused = lab.controller.change(lab.now, "alice", "alpha-2", &change);
    assert_eq!(refused.err(), Some(ChangeError::NameTaken(name("alpha"))));
    let change = Change { name: Some(name("gamma")), ..Default::default() };
    lab.controller.change(lab.now, "alice", "alpha-2", &change).expect("free");
    assert_eq!(lab.join(2, None).certificate().grant().name, name("gamma"));
    // Without a wish.
    let nameless = Question::Certify(CertifyRequest { name: None, ..request(50, Some(&token)) });
    let Answer::Certified { credentials, .. } = lab.ask_from(50, "2001:db8::50", nameless) else { panic!() };
    assert_eq!(
        credentials.certificate().grant().name.to_string(),
        format!("node-{}", &id(50).to_string()[..8])
    );
}

#[test]
fn an_ephemeral_successor_takes_the_name_of_a_silent_one() {
    let mut lab = Lab::new();
    let options = InviteOptions {
        uses: 9,
        approval: Approval { name: Some(name("runner")), is_ephemeral: true, ..Approval::default() },
        ..InviteOptions::default()
    };
    let token = lab.invite(&options);
    let first = lab.join(1, Some(&token));
    assert_eq!(first.certificate().grant().ipv4, None, "none for ephemeral members by default");
    lab.pass(Duration::from_secs(20));
    lab.controller.note_heard(lab.now, &id(1), source_of(1).parse().expect("an address"));
    lab.pass(Duration::from_secs(29));
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::NameTaken));
    lab.pass(Duration::from_secs(1));
    let second = lab.join(2, Some(&token));
    assert_eq!(second.certificate().grant().name, name("runner"));
    assert_eq!(lab.refusal(&first, 1), Some(Refusal::Revoked), "one holder of a name");
    assert_eq!(lab.join(1, None).certificate().grant().name, name("runner-2"));
    // Ephemeral members are forgotten when they are not heard any more.
    lab.pass(DAY);
    lab.flush_steadily();
    lab.pass(DAY);
    lab.flush_steadily();
    assert_eq!(lab.controller.members().expect("readable").len(), 1);
    assert!(!dump(&lab.controller).contains("runner\""));
    assert!(lab.head_set().is_empty());
}

#[test]
fn replacing_hands_over_name_and_addresses_and_removes_the_old_machine() {
    let mut lab = Lab::new();
    let open = lab.open_invite();
    let old = lab.join(1, Some(&open));
    let token = lab.invite(&InviteOptions::from(Approval { replaces: Some(id(1)), ..Approval::default() }));
    let new = lab.join(2, Some(&token));
    let (before, after) = (old.certificate().grant(), new.certificate().grant());
    assert_eq!((&after.name, after.ipv4), (&before.name, before.ipv4));
    assert_eq!(lab.refusal(&old, 1), Some(Refusal::Revoked));
    assert_eq!(denial(&lab.ask(1, Some(&open))), Some(Denial::Removed));
    assert_eq!(lab.join(2, Some(&token)).certificate().grant(), after, "again, nothing happens");
    // By hand.
    let code = code(&lab.ask(3, None)).to_string();
    let approval = Approval { replaces: Some(id(2)), ..Approval::default() };
    let third = lab.controller.approve(lab.now, &mut lab.rng, "alice", &code, &approval).expect("it waits");
    assert_eq!((third.grant.name, third.grant.ipv4), (before.name.clone(), before.ipv4));
    assert_eq!(lab.refusal(&new, 2), Some(Refusal::Revoked));
}

#[test]
fn claims_of_an_invite_or_an_approval_are_in_the_certificate() {
    let mut lab = Lab::new();
    let claims = vec![0, 255, b'='];
    let with_claims = InviteOptions::from(Approval { claims: claims.clone(), ..Approval::default() });
    let token = lab.controller.invite(NOW, &mut lab.rng, "alice", &with_claims).expect("a good invite");
    assert_eq!(lab.controller.invites().expect("readable")[0].claims, claims);
    assert_eq!(lab.join(1, Some(&token)).certificate().grant().claims, claims);
    // They stay at renewals, and go over to the machine that replaces the member.
    assert_eq!(lab.join(1, None).certificate().grant().claims, claims);
    let replaces = Some(identity(1).node_id());
    let instead = InviteOptions::from(Approval { replaces, ..Approval::default() });
    let token = lab.controller.invite(NOW, &mut lab.rng, "alice", &instead).expect("a good invite");
    assert_eq!(lab.join(2, Some(&token)).certificate().grant().claims, claims);
    let change = Change { claims: Some(Vec::new()), ..Change::default() };
    let node = identity(2).node_id().to_string();
    lab.controller.change(lab.now, "alice", &node, &change).expect("a member");
    lab.now = lab.now.plus(Duration::from_secs(1));
    assert_eq!(lab.join(2, None).certificate().grant().claims, [] as [u8; 0]);
    for length in [Grant::MAX_CLAIMS_LEN, Grant::MAX_CLAIMS_LEN + 1] {
        let claims = vec![1; length];
        let long = InviteOptions::from(Approval { claims: claims.clone(), ..Approval::default() });
        let made = lab.controller.invite(NOW, &mut lab.rng, "alice", &long);
        assert_eq!(made.is_ok(), length <= Grant::MAX_CLAIMS_LEN, "{length}");
        let change = Change { claims: Some(claims), ..Change::default() };
        let changed = lab.controller.change(lab.now, "alice", &node, &change);
        assert_eq!(changed.is_ok(), length <= Grant::MAX_CLAIMS_LEN, "{length}");
    }
}

/// A machine that joins by an invite chooses its name, and must not take over what is meant for another member.
#[test]
fn a_name_that_begins_another_member_s_id_leads_to_neither() {
    let mut lab = Lab::new();
    let open = lab.open_invite();
    lab.join(1, Some(&open));
    let digits = id(1).to_string()[..12].to_owned();
    let wish = CertifyRequest { name: digits.parse().ok(), ..request(2, Some(&open)) };
    let answer = lab.ask_from(2, "10.1.1.2", Question::Certify(wish));
    assert!(matches!(answer, Answer::Certified { .. }), "{answer:?}");
    let found = |subject: &str| lab.controller.find(subject).map(|member| member.grant.node);
    assert_eq!(found(&digits), Err(ChangeError::Ambiguous(digits.clone())));
    assert_eq!(found(&id(1).to_string()[..13]), Ok(id(1)));
    assert_eq!(found(&id(1).to_string()), Ok(id(1)));
    assert_eq!(found(&id(2).to_string()), Ok(id(2)));
    let now = lab.now;
    assert!(lab.controller.revoke(now, "alice", &[&digits], false).is_err());
}

#[test]
fn a_spent_or_ended_invite_costs_no_write() {
    let mut lab = Lab::new();
    let spent = lab.invite(&InviteOptions::default());
    lab.join(1, Some(&spent));
    let ended = lab.invite(&InviteOptions { lifetime: Duration::ZERO, ..InviteOptions::default() });
    let replaces =
        lab.invite(&InviteOptions::from(Approval { replaces: Some(id(1)), ..Approval::default() }));
    lab.join(4, Some(&replaces));
    let changes = |lab: &Lab| {
        let db = lab.controller.store.db();
        db.query_row("SELECT change FROM network", [], |row| row.get::<_, i64>(0)).expect("a network")
    };
    let before = changes(&lab);
    for node in [2, 3, 2] {
        assert_eq!(denial(&lab.ask(node, Some(&spent))), Some(Denial::UsedInvite));
        assert_eq!(denial(&lab.ask(node, Some(&ended))), Some(Denial::ExpiredInvite));
    }
    // The removed machine, by the invite that it has used.
    assert_eq!(denial(&lab.ask(1, Some(&spent))), Some(Denial::Removed));
    assert_eq!(changes(&lab), before);
}

#[test]
fn a_request_that_asks_no_more_is_forgotten_after_a_week() {
    let mut lab = Lab::new();
    let first = code(&lab.ask(1, None));
    lab.ask(2, None);
    for _ in 0..7 {
        lab.pass(DAY);
        lab.ask(2, None);
        lab.flush_steadily();
    }
    let waiting: Vec<_> =
        lab.controller.pending().expect("readable").iter().map(|one| one.identity.node_id()).collect();
    assert_eq!(waiting, [id(2)]);
    // The row goes with the next look, and the machine may ask again.
    lab.pass(21 * MINUTE);
    lab.flush_steadily();
    let db = lab.controller.store.db();
    let rows = db.query_row("SELECT count(*) FROM pending", [], |row| row.get::<_, i64>(0));
    assert_eq!(rows.expect("a number"), 1);
    assert_eq!(code(&lab.ask(1, None)), first);
}
