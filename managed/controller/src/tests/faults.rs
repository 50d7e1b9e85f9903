use super::*;
use crate::{Approval, ChangeError, StoreError};

/// Returns a network in which machine 2 waits, machine 1 is a member, and a token replaces it.
fn prepared() -> (Lab, Token, String) {
    let mut lab = Lab::new();
    let open = lab.open_invite();
    lab.join(1, Some(&open));
    let token = lab.invite(&InviteOptions::from(Approval { replaces: Some(id(1)), ..Approval::default() }));
    let Answer::Pending { code, .. } = lab.ask(2, None) else { panic!("a stranger waits") };
    lab.controller.flush(lab.now).expect("writable");
    (lab, token, code.to_string())
}

/// Lets each statement of an operation fail once, and then the operation without faults.
fn with_faults(mut operation: impl FnMut(&mut Lab, &Token, &str) -> Result<(), Option<StoreError>>) {
    for statement in 0..100 {
        let (mut lab, token, code) = prepared();
        let before = dump(&lab.controller);
        lab.controller.store.faults.set(Some(statement));
        let done = operation(&mut lab, &token, &code);
        let is_over = lab.controller.store.faults.replace(None).is_some();
        if is_over {
            assert_eq!(done, Ok(()));
            assert!(statement > 3, "the operation has several statements");
            return;
        }
        assert!(done.is_err(), "statement {statement}");
        assert_eq!(dump(&lab.controller), before, "statement {statement}");
        // Others are served from memory, and the same again works.
        lab.join(1, None);
        operation(&mut lab, &token, &code).expect("no fault any more");
    }
    panic!("an operation without an end");
}

fn joined(answer: &Answer) -> Result<(), Option<StoreError>> {
    match answer {
        Answer::Certified { .. } => Ok(()),
        Answer::Denied { reason: Denial::Unavailable, .. } => Err(None),
        other => panic!("{other:?}"),
    }
}

fn store_error<T>(done: Result<T, ChangeError>) -> Result<(), Option<StoreError>> {
    match done {
        Ok(_) => Ok(()),
        Err(ChangeError::Store(error)) => Err(Some(error)),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn an_admission_that_fails_at_any_statement_changes_nothing() {
    with_faults(|lab, token, _| joined(&lab.ask(7, Some(token))));
    with_faults(|lab, _, code| {
        let approval = Approval { replaces: Some(id(1)), ..Approval::default() };
        store_error(lab.controller.approve(lab.now, &mut lab.rng, "alice", code, &approval))
    });
}

#[test]
fn a_removal_or_change_that_fails_at_any_statement_changes_nothing() {
    with_faults(|lab, _, _| store_error(lab.controller.revoke(lab.now, "alice", &["machine-1"], false)));
    with_faults(|lab, _, _| {
        let change =
            crate::Change { name: Some(name("other")), tags: Some(tags(&["x"])), ..Default::default() };
        let key = id(1).to_string();
        store_error(lab.controller.change(lab.now, "alice", &key, &change))
    });
    with_faults(|lab, _, code| store_error(lab.controller.deny(lab.now, "alice", code)));
}

#[test]
fn a_batch_with_a_refusal_admits_the_others() {
    let mut lab = Lab::new();
    let one = lab.invite(&InviteOptions {
        uses: 2,
        approval: Approval { name: Some(name("one")), ..Approval::default() },
        ..InviteOptions::default()
    });
    let asked = |node: u32| super::super::Asked {
        peer: *identity(node).public(),
        source: source_of(node).parse().expect("an address"),
        question: certify(node, Some(&one)),
    };
    let batch = [asked(1), asked(2), asked(1), asked(3)];
    let answers = lab.controller.answer_all(lab.now, &mut lab.rng, &batch);
    let denials: Vec<_> = answers.iter().map(denial).collect();
    assert_eq!(denials, [None, Some(Denial::NameTaken), None, Some(Denial::NameTaken)]);
    assert_eq!(lab.controller.members().expect("readable").len(), 2);
    let rows = dump(&lab.controller);
    assert_eq!(rows.matches("token_uses: ").count(), 1, "a refusal uses nothing");
}

/// Fills the store until it has no room.
fn fill(lab: &Lab) {
    let db = lab.controller.store.db();
    let pages: i64 = db.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("a number");
    db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).expect("a limit");
}

#[test]
fn a_full_disk_stops_admissions_and_not_renewals() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    fill(&lab);
    let mut admitted = Vec::new();
    let refused = (2..5_000).find(|node| match lab.ask(*node, Some(&token)) {
        Answer::Certified { .. } => {
            admitted.push(*node);
            false
        }
        other => denial(&other) == Some(Denial::Unavailable),
    });
    let refused = refused.expect("the limit is reached");
    assert_eq!(lab.controller.status(lab.now).expect("readable").fault, Some(StoreError::Full));
    lab.join(1, None);
    // Nothing that was acknowledged is lost, and with room the refused machine is admitted.
    let mut again = Lab::open(&path, 2);
    for node in admitted {
        again.join(node, None);
    }
    let rows = dump(&again.controller);
    again.join(refused, Some(&token));
    assert!(!rows.contains(&format!("machine-{refused}\"")));
    lab.controller.store.db().query_row("PRAGMA max_page_count = 100000", [], |_| Ok(())).expect("a limit");
    lab.join(refused + 1, Some(&token));
    assert_eq!(lab.controller.status(lab.now).expect("readable").fault, None);
}

#[test]
fn a_store_that_cannot_be_written_stops_admissions_and_not_renewals() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    lab.controller.store.db().execute_batch("PRAGMA query_only = ON").expect("a setting");
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::Unavailable));
    assert_eq!(denial(&lab.ask(3, None)), Some(Denial::Unavailable));
    assert_eq!(lab.controller.status(lab.now).expect("readable").fault, Some(StoreError::ReadOnly));
    lab.join(1, None);
    assert_eq!(lab.controller.flush(lab.now), Err(StoreError::ReadOnly));
    lab.controller.store.db().execute_batch("PRAGMA query_only = OFF").expect("a setting");
    lab.controller.flush(lab.now).expect("what was kept is written");
    lab.join(2, Some(&token));
}

#[test]
fn a_damaged_file_is_an_error_and_never_an_empty_list() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    let token = lab.open_invite();
    (1..300).for_each(|node| drop(lab.join(node, Some(&token))));
    lab.controller.flush(lab.now).expect("writable");
    let Controller { store, .. } = lab.controller;
    store.db().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("it is written");
    drop(store);
    let good = std::fs::read(&path).expect("a file");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("room");
        let mut controller = Controller::open(Store::open(&path)?, &SEED)?;
        controller.start(NOW, Duration::ZERO)?;
        controller.members().map(|members| members.len())
    };
    assert_eq!(open(&good), Ok(300));
    let mut damaged = 0;
    for page in 0..good.len() / 4096 {
        for fill in [0, 0xff] {
            let mut bytes = good.clone();
            bytes[page * 4096..][..4096].fill(fill);
            // A page that holds no member may be unnoticed, but no member is ever missing.
            match open(&bytes) {
                Ok(count) => assert_eq!(count, 300, "page {page}"),
                Err(_) => damaged += 1,
            }
        }
    }
    assert!(damaged > good.len() / 4096, "most damage is noticed: {damaged}");
    for length in [1, 100, 4096, good.len() / 2] {
        assert!(open(&good[..length]).is_err(), "cut at {length}");
    }
    assert!(
        open(b"not a database, but a text that is long enough to be read as a header of one, and more")
            .is_err()
    );
    assert_eq!(open(&[]), Err(StoreError::Empty), "an empty file holds no network");
}
