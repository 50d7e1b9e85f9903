use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{Additions, Approval, Decision, Inquiry, MAX_RUNNING};

const SECOND: Duration = Duration::from_secs(1);

/// A network whose controller has an approval program.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.controller.set_approval_program(true);
    lab
}

fn take(lab: &mut Lab) -> Vec<Inquiry> {
    lab.controller.take_inquiries(lab.now).expect("readable")
}

/// Returns the only question.
fn one(lab: &mut Lab) -> Inquiry {
    let mut taken = take(lab);
    assert_eq!(taken.len(), 1);
    taken.remove(0)
}

fn decide(lab: &mut Lab, inquiry: &Inquiry, decision: Option<Decision>) {
    lab.controller.decide(lab.now, &mut lab.rng, inquiry, decision).expect("it can be followed");
}

fn allow(added: &[&str], removed: &[&str]) -> Option<Decision> {
    Some(Decision::Allow(Additions { name: None, tags: tags(added), removed_tags: tags(removed) }))
}

fn is_pending(answer: &Answer) -> bool {
    matches!(answer, Answer::Pending { .. })
}

fn uses(lab: &Lab) -> u32 {
    lab.controller.invites().expect("readable").iter().map(|invite| invite.used).sum()
}

#[test]
fn a_machine_without_an_invite_is_admitted_by_the_program() {
    let mut lab = lab();
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Unavailable), "it asks again in a second");
    let inquiry = one(&mut lab);
    assert_eq!((inquiry.identity, inquiry.is_renewal), (*identity(1).public(), false));
    assert_eq!((inquiry.name.clone(), &*inquiry.description), (Some(name("machine-1")), "Debian"));
    assert_eq!((inquiry.invite.clone(), inquiry.tags.len()), (None, 0));
    assert_eq!(inquiry.source, source_of(1).parse().ok());
    assert!(take(&mut lab).is_empty(), "a question is asked once");
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Unavailable));
    let (added, removed_tags) = (tags(&["ops", "both"]), tags(&["both"]));
    let additions = Additions { name: Some(name("by-program")), tags: added, removed_tags };
    decide(&mut lab, &inquiry, Some(Decision::Allow(additions)));
    let grant = lab.join(1, None).certificate().grant().clone();
    assert_eq!((grant.name, grant.tags), (name("by-program"), tags(&["ops"])));
    assert_eq!(&*lab.controller.find("by-program").expect("a member").admitted_by, "approval program");
    // A name is a wish, so a taken one is no failure.
    lab.ask(2, None);
    let inquiry = one(&mut lab);
    let additions = Additions { name: Some(name("by-program")), ..Additions::default() };
    decide(&mut lab, &inquiry, Some(Decision::Allow(additions)));
    assert_eq!(lab.join(2, None).certificate().grant().name, name("by-program-2"));
}

#[test]
fn a_refusal_by_the_program_burns_no_token_and_ends() {
    let mut lab = lab();
    let token = lab.invite(&InviteOptions::from(Approval { tags: tags(&["db"]), ..Approval::default() }));
    assert_eq!(denial(&lab.ask(1, Some(&token))), Some(Denial::Unavailable));
    let inquiry = one(&mut lab);
    let invite = inquiry.invite.clone().expect("it shows one");
    assert_eq!((invite.made_by.as_str(), inquiry.tags.clone()), ("alice", tags(&["db"])));
    assert_eq!(invite.label, lab.controller.invites().expect("readable")[0].label);
    decide(&mut lab, &inquiry, Some(Decision::Deny));
    for _ in 0..3 {
        assert_eq!(denial(&lab.ask(1, Some(&token))), Some(Denial::Refused));
    }
    assert!(take(&mut lab).is_empty(), "a minute long the controller answers itself");
    assert_eq!(uses(&lab), 0);
    assert!(lab.controller.pending().expect("readable").is_empty());
    // A person's list of refused machines is not touched, so that strangers cannot fill it.
    assert!(!dump(&lab.controller).contains("refused: "));
    // Another machine can use the token, and so can this one later.
    lab.pass(MINUTE);
    lab.ask(1, Some(&token));
    let inquiry = one(&mut lab);
    decide(&mut lab, &inquiry, allow(&["sso", "db"], &[]));
    assert_eq!(uses(&lab), 0, "a permission that nobody takes burns nothing");
    assert_eq!(lab.join(1, Some(&token)).certificate().grant().tags, tags(&["db", "sso"]));
    assert_eq!(lab.join(1, Some(&token)).certificate().grant().tags, tags(&["db", "sso"]));
    assert_eq!(uses(&lab), 1);
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::UsedInvite));
    assert!(take(&mut lab).is_empty(), "a used invite does not reach the program");
}

#[test]
fn with_ask_all_is_as_without_a_program() {
    let mut lab = lab();
    let token = lab.open_invite();
    lab.ask(1, None);
    lab.ask(2, Some(&token));
    for inquiry in take(&mut lab) {
        decide(&mut lab, &inquiry, Some(Decision::Ask));
    }
    assert!(is_pending(&lab.ask(1, None)), "a person decides");
    lab.join(2, Some(&token));
    lab.pass(30 * MINUTE);
    assert!(is_pending(&lab.ask(1, None)));
    assert_eq!(denial(&lab.ask(2, None)), Some(Denial::Unavailable));
    let inquiry = one(&mut lab);
    assert!(inquiry.is_renewal, "the request of machine 1 is not put to the program again");
    decide(&mut lab, &inquiry, Some(Decision::Ask));
    lab.join(2, None);
}

#[test]
fn a_program_that_fails_leaves_machines_to_a_person_and_members_without_a_renewal() {
    let mut lab = lab();
    let token = lab.open_invite();
    lab.ask(1, None);
    lab.ask(2, Some(&token));
    for inquiry in take(&mut lab) {
        decide(&mut lab, &inquiry, None);
    }
    assert!(is_pending(&lab.ask(2, Some(&token))), "an invite alone admits nobody");
    let Answer::Pending { code, .. } = lab.ask(1, None) else { panic!("a person can decide") };
    let approval = Approval::default();
    lab.controller.approve(lab.now, &mut lab.rng, "alice", &code.to_string(), &approval).expect("it waits");
    // The person's decision gives a certificate, also if its first answer is lost.
    let first = lab.join(1, None);
    lab.pass(MINUTE);
    lab.join(1, None);
    // It is asked again about machine 2 after a minute.
    lab.ask(2, Some(&token));
    let inquiry = one(&mut lab);
    assert!(is_pending(&lab.ask(2, Some(&token))), "the code stays while it is asked again");
    decide(&mut lab, &inquiry, allow(&[], &[]));
    lab.join(2, Some(&token));

    lab.pass(HOUR);
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Unavailable));
    let inquiry = one(&mut lab);
    decide(&mut lab, &inquiry, None);
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Undecided), "the member is told");
    assert!(take(&mut lab).is_empty());
    assert_eq!(lab.refusal(&first, 1), None, "its certificate counts on");
    lab.pass(MINUTE);
    lab.ask(1, None);
    let inquiry = one(&mut lab);
    decide(&mut lab, &inquiry, allow(&[], &[]));
    lab.join(1, None);
}

#[test]
fn a_member_is_asked_about_at_renewals_and_told_of_a_refusal() {
    let mut lab = lab();
    let token = lab.invite(&InviteOptions::from(Approval { tags: tags(&["db"]), ..Approval::default() }));
    lab.ask(1, Some(&token));
    let inquiry = one(&mut lab);
    decide(&mut lab, &inquiry, allow(&["sso"], &[]));
    let before = lab.join(1, Some(&token));
    lab.pass(HOUR);
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Unavailable));
    let inquiry = one(&mut lab);
    assert_eq!((inquiry.is_renewal, inquiry.name.clone()), (true, Some(name("machine-1"))));
    assert_eq!((inquiry.tags.clone(), inquiry.code), (tags(&["db", "sso"]), None));
    decide(&mut lab, &inquiry, Some(Decision::Deny));
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Refused));
    assert_eq!(lab.refusal(&before, 1), None, "only `revoke` ends a certificate");
    lab.pass(MINUTE);
    lab.ask(1, None);
    let inquiry = one(&mut lab);
    decide(&mut lab, &inquiry, allow(&["sso"], &[]));
    assert_eq!(lab.refusal(&before, 1), None, "the same tags change nothing");
    lab.join(1, None);
    lab.pass(HOUR);
    lab.ask(1, None);
    let inquiry = one(&mut lab);
    decide(&mut lab, &inquiry, allow(&["web"], &["sso"]));
    assert_eq!(lab.refusal(&before, 1), Some(Refusal::Revoked), "open flows follow the tags");
    assert_eq!(lab.join(1, None).certificate().grant().tags, tags(&["db", "web"]));
}

/// A look-up by another member makes a certificate if the last one is void.
#[test]
fn look_ups_make_no_certificate_that_the_program_has_not_allowed() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    lab.join(2, Some(&token));
    lab.controller.set_approval_program(true);
    let change = crate::Change { tags: Some(tags(&["a"])), ..crate::Change::default() };
    lab.controller.change(lab.now, "alice", "machine-1", &change).expect("a member");
    let question = Question::FindName(name("machine-1"));
    assert_eq!(lab.ask_from(2, &source_of(2), question.clone()), Answer::Absent);
    lab.ask(1, None);
    let inquiry = one(&mut lab);
    decide(&mut lab, &inquiry, allow(&[], &[]));
    assert!(matches!(lab.ask_from(2, &source_of(2), question), Answer::Found { .. }));
}

#[test]
fn members_come_first_and_strangers_never_occupy_all_places() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    (1..=3).for_each(|node| drop(lab.join(node, Some(&token))));
    lab.pass(HOUR);
    lab.controller.set_approval_program(true);
    (100..140).for_each(|node| drop(lab.ask(node, None)));
    let strangers = take(&mut lab);
    assert_eq!(strangers.len(), 2);
    lab.ask(50, Some(&token));
    (1..=3).for_each(|node| drop(lab.ask(node, None)));
    let members = take(&mut lab);
    assert_eq!(members.len(), 2);
    assert!(members.iter().all(|inquiry| inquiry.is_renewal));
    // One program sleeps; the others go on.
    for _ in 0..2 {
        decide(&mut lab, &members[0], allow(&[], &[]));
    }
    lab.join(1, None);
    let next = one(&mut lab);
    assert!(next.is_renewal);
    decide(&mut lab, &next, allow(&[], &[]));
    assert!(one(&mut lab).invite.is_some());
    assert!(take(&mut lab).is_empty());
    // After ten seconds, a person sees the code of a stranger for whom there is no place.
    lab.pass(10 * SECOND);
    assert!(is_pending(&lab.ask(120, None)));
}

#[test]
fn after_a_failure_one_program_runs_at_a_time_until_one_succeeds() {
    let mut lab = lab();
    let token = lab.open_invite();
    (1..=20).for_each(|node| drop(lab.ask(node, Some(&token))));
    for inquiry in take(&mut lab) {
        decide(&mut lab, &inquiry, None);
    }
    let inquiry = one(&mut lab);
    assert!(take(&mut lab).is_empty());
    decide(&mut lab, &inquiry, allow(&[], &[]));
    assert_eq!(take(&mut lab).len(), MAX_RUNNING);
}

#[test]
fn a_person_who_decides_while_the_program_runs_has_the_last_word() {
    let mut lab = lab();
    lab.ask(1, None);
    lab.ask(2, None);
    let taken = take(&mut lab);
    let codes: BTreeMap<_, _> = taken.iter().map(|one| (one.identity.node_id(), one.code)).collect();
    let code = |node| codes[&id(node)].expect("a code").to_string();
    lab.controller.deny(lab.now, "alice", &code(1)).expect("it waits");
    let approval = Approval::default();
    lab.controller.approve(lab.now, &mut lab.rng, "alice", &code(2), &approval).expect("it waits");
    for inquiry in &taken {
        let is_first = inquiry.identity.node_id() == id(1);
        decide(&mut lab, inquiry, if is_first { allow(&[], &[]) } else { Some(Decision::Deny) });
    }
    assert_eq!(denial(&lab.ask(1, None)), Some(Denial::Declined));
    lab.join(2, None);
    // A member that was removed meanwhile.
    lab.pass(HOUR);
    lab.ask(2, None);
    let inquiry = one(&mut lab);
    lab.revoke(2);
    decide(&mut lab, &inquiry, allow(&["a"], &[]));
    assert_eq!(denial(&lab.ask(2, None)), Some(Denial::Removed));
}

#[test]
fn an_answer_that_cannot_be_followed_admits_nobody() {
    let mut lab = lab();
    let token = lab.open_invite();
    lab.ask(1, None);
    lab.ask(2, Some(&token));
    let long: Vec<String> = (0..9).map(|n| format!("{n}{}", "x".repeat(31))).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    for inquiry in take(&mut lab) {
        let answer = allow(&long, &[]);
        assert!(lab.controller.decide(lab.now, &mut lab.rng, &inquiry, answer).is_err());
    }
    assert!(is_pending(&lab.ask(1, None)) && is_pending(&lab.ask(2, Some(&token))));
    assert_eq!(uses(&lab), 0);
    assert_eq!(lab.controller.members().expect("readable").len(), 1);
}

#[test]
fn members_that_wait_for_the_program_are_bounded() {
    let mut lab = Lab::with(Settings::default());
    let token = lab.open_invite();
    (1..=300).for_each(|node| drop(lab.join(node, Some(&token))));
    lab.pass(HOUR);
    lab.controller.set_approval_program(true);
    let reasons: Vec<_> = (1..=300).map(|node| denial(&lab.ask(node, None))).collect();
    assert_eq!(reasons.iter().filter(|one| **one == Some(Denial::Unavailable)).count(), 256);
    assert_eq!(reasons.iter().filter(|one| **one == Some(Denial::Undecided)).count(), 44);
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u32, Option<usize>),
    Take,
    /// Decides about one of the open questions: 0 deny, 1 allow, 2 ask, 3 failure.
    Decide(usize, u8),
    Approve(u32),
    Deny(u32),
    Revoke(u32),
    Pass(u32),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 1..=5_u32;
    let step = prop_oneof![
        6 => (node(), prop::option::of(0..2_usize)).prop_map(|(node, token)| Step::Ask(node, token)),
        4 => Just(Step::Take),
        5 => (0..4_usize, 0..4_u8).prop_map(|(at, what)| Step::Decide(at, what)),
        1 => node().prop_map(Step::Approve),
        1 => node().prop_map(Step::Deny),
        1 => node().prop_map(Step::Revoke),
        2 => prop_oneof![Just(1), Just(11), Just(61), Just(601), Just(3_700)].prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Each certificate follows from a decision that counts, and each use of a token is one machine's.
    #[test]
    fn nobody_gets_a_certificate_that_was_not_decided(steps in steps()) {
        let (_folder, path) = place();
        drop(Lab::at(&path));
        let open = |seed, now| {
            let mut lab = Lab { now, ..Lab::open(&path, seed) };
            lab.controller.store.db().execute_batch("PRAGMA synchronous = OFF").expect("a setting");
            lab.controller.start(now, Duration::ZERO).expect("a good store");
            lab.controller.set_approval_program(true);
            lab
        };
        let mut lab = open(1, NOW);
        let options = InviteOptions { uses: 2, lifetime: 1000 * DAY, ..InviteOptions::default() };
        let tokens = [lab.invite(&options), lab.invite(&options)];
        // Times until which decisions of the program or of persons count, as this test has made them.
        let mut may: BTreeMap<u32, UnixTime> = BTreeMap::new();
        let mut open_questions: Vec<Inquiry> = Vec::new();
        for step in steps {
            match step {
                Step::Ask(node, token) => {
                    let answer = lab.ask(node, token.map(|at| &tokens[at]));
                    if matches!(answer, Answer::Certified { .. }) {
                        let until = may.get(&node).copied().unwrap_or_default();
                        prop_assert!(lab.now <= until, "machine {node}, {:?} after {until:?}", lab.now);
                    }
                }
                Step::Take => {
                    open_questions.extend(take(&mut lab));
                    prop_assert!(open_questions.len() <= MAX_RUNNING);
                    let nodes: BTreeSet<_> = open_questions.iter().map(|one| one.identity.node_id()).collect();
                    prop_assert!(nodes.len() <= MAX_RUNNING);
                }
                Step::Decide(at, what) if at < open_questions.len() => {
                    let inquiry = open_questions.remove(at);
                    let node = (1..=5).find(|node| id(*node) == inquiry.identity.node_id()).expect("one of five");
                    let decision = match what {
                        0 => Some(Decision::Deny),
                        1 => allow(&["by-program"], &[]),
                        2 => Some(Decision::Ask),
                        _ => None,
                    };
                    let permits = what == 1 || what == 2 && (inquiry.is_renewal || inquiry.invite.is_some());
                    if permits {
                        // The permission, then the first certificate and its repetitions.
                        let rest = if inquiry.is_renewal { 10 * MINUTE } else { 1000 * DAY };
                        let until = may.entry(node).or_default();
                        *until = (*until).max(lab.now.plus(rest));
                    }
                    let _ = lab.controller.decide(lab.now, &mut lab.rng, &inquiry, decision);
                }
                Step::Decide(..) => {}
                Step::Approve(node) => {
                    let key = id(node).to_string();
                    if lab.controller.approve(lab.now, &mut lab.rng, "alice", &key, &Approval::default()).is_ok() {
                        may.insert(node, lab.now.plus(1000 * DAY));
                    }
                }
                Step::Deny(node) => drop(lab.controller.deny(lab.now, "alice", &id(node).to_string())),
                Step::Revoke(node) => {
                    let key = id(node).to_string();
                    drop(lab.controller.revoke(lab.now, "alice", &[&key], true));
                }
                Step::Pass(seconds) => lab.pass(Duration::from_secs(seconds.into())),
                Step::Restart => {
                    lab.controller.flush(lab.now).expect("room");
                    open_questions.clear();
                    lab = open(2, lab.now);
                }
            }
            let used: BTreeMap<_, _> =
                lab.controller.invites().expect("readable").iter().map(|one| (one.label.clone(), one.used)).collect();
            let db = lab.controller.store.db();
            let count: u32 =
                db.query_row("SELECT count(*) FROM token_uses", [], |row| row.get(0)).expect("a number");
            prop_assert_eq!(used.values().sum::<u32>(), count);
        }
    }
}
