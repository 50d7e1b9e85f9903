use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Approval, Change, Holder};

const NODES: u32 = 8;

#[derive(Debug, Clone)]
enum Step {
    Ask(u32, bool),
    AskEphemeral(u32),
    Approve(u32),
    Deny(u32),
    Revoke(u32),
    Rename(u32, u8),
    Retag(u32, bool),
    Replace(u32, u32),
    ReplaceByInvite(u32, u32),
    Reserve(u32, u8),
    Pass(u32),
    Flush,
    Reopen,
}

/// Steps, of which each is made by one of two processes.
fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let node = || 1..=NODES;
    let step = prop_oneof![
        6 => (node(), any::<bool>()).prop_map(|(node, has_token)| Step::Ask(node, has_token)),
        2 => node().prop_map(Step::AskEphemeral),
        3 => node().prop_map(Step::Approve),
        1 => node().prop_map(Step::Deny),
        3 => node().prop_map(Step::Revoke),
        1 => (node(), 0..3_u8).prop_map(|(node, name)| Step::Rename(node, name)),
        1 => (node(), any::<bool>()).prop_map(|(node, has)| Step::Retag(node, has)),
        1 => (node(), node()).prop_map(|(old, new)| Step::Replace(old, new)),
        2 => (node(), node()).prop_map(|(old, new)| Step::ReplaceByInvite(old, new)),
        1 => (node(), 1..7_u8).prop_map(|(node, last)| Step::Reserve(node, last)),
        2 => prop_oneof![Just(1), Just(40), Just(1_000), Just(90_000), Just(180_000)].prop_map(Step::Pass),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec((any::<bool>(), step), 1..60)
}

fn open(path: &Path, seed: u64) -> Lab {
    let lab = Lab::open(path, seed);
    // The test is about decisions; others are about the disk.
    lab.controller.store.db().execute_batch("PRAGMA synchronous = OFF").expect("a setting");
    lab
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_name_or_address_ever_has_two_holders(steps in steps()) {
        let (_folder, path) = place();
        drop(Lab::at(&path));
        let mut labs = [open(&path, 1), open(&path, 2)];
        labs[0].controller.start(NOW, Duration::ZERO).expect("a good store");
        let mut now = NOW;
        let settings =
            Settings { ipv4: pool("10.7.0.0", 29), ephemeral_ipv4: true, ..Settings::default() };
        labs[0].controller.set_settings(now, "alice", &settings).expect("valid");
        let options = InviteOptions { uses: 1_000, lifetime: 1000 * DAY, ..InviteOptions::default() };
        let token = labs[0].invite(&options);
        let ephemeral = labs[0].invite(&InviteOptions { approval: Approval { is_ephemeral: true, ..options.approval }, ..options });
        let mut issued: Vec<(u32, Credentials)> = Vec::new();
        // Without replacement and reservation, also members without the newest head see one holder only.
        let mut is_gentle = true;
        for (is_first, step) in steps {
            let lab = &mut labs[usize::from(!is_first)];
            lab.now = now;
            let key = |node| id(node).to_string();
            let mut ask = |lab: &mut Lab, node, token: Option<&Token>| {
                if let Answer::Certified { credentials, .. } = lab.ask(node, token) {
                    issued.push((node, *credentials));
                }
            };
            let member_name = |which| name(["machine-1", "machine-2", "x"][usize::from(which)]);
            match step {
                // The first process serves; a second issuer with the same key would be a clone.
                Step::Ask(node, has_token) => {
                    labs[0].now = now;
                    ask(&mut labs[0], node, has_token.then_some(&token));
                }
                Step::AskEphemeral(node) => {
                    labs[0].now = now;
                    ask(&mut labs[0], node, Some(&ephemeral));
                }
                Step::Approve(node) => {
                    let _ = lab.controller.approve(now, &mut lab.rng, "alice", &key(node), &Approval::default());
                }
                Step::Deny(node) => drop(lab.controller.deny(now, "alice", &key(node))),
                Step::Revoke(node) => drop(lab.controller.revoke(now, "alice", &[&key(node)], true)),
                Step::Rename(node, which) => {
                    let change = Change { name: Some(member_name(which)), ..Change::default() };
                    let _ = lab.controller.change(now, "alice", &key(node), &change);
                }
                Step::Retag(node, has) => {
                    let list = if has { tags(&["a"]) } else { Vec::new() };
                    let change = Change { tags: Some(list), ..Change::default() };
                    let _ = lab.controller.change(now, "alice", &key(node), &change);
                }
                Step::Replace(old, new) => {
                    is_gentle = false;
                    let approval = Approval { replaces: Some(id(old)), ..Approval::default() };
                    let _ = lab.controller.approve(now, &mut lab.rng, "alice", &key(new), &approval);
                }
                Step::ReplaceByInvite(old, new) => {
                    is_gentle = false;
                    let options = InviteOptions::from(Approval { replaces: Some(id(old)), ..Approval::default() });
                    if let Ok(token) = lab.controller.invite(now, &mut lab.rng, "alice", &options) {
                        labs[0].now = now;
                        for node in [new, new % NODES + 1, new] {
                            ask(&mut labs[0], node, Some(&token));
                        }
                    }
                }
                Step::Reserve(node, last) => {
                    is_gentle = false;
                    let _ = lab.controller.reserve(now, "alice", [10, 7, 0, last].into(), &Holder::Node(id(node)));
                }
                Step::Pass(seconds) => now = now.plus(Duration::from_secs(seconds.into())),
                Step::Flush => drop(lab.controller.flush(now)),
                Step::Reopen if is_first => {
                    labs[0].controller.flush(now).expect("room");
                    labs[0] = open(&path, 3);
                    labs[0].controller.start(now, Duration::ZERO).expect("a good store");
                }
                Step::Reopen => labs[1] = open(&path, 4),
            }
            labs[0].now = now;
            let set = labs[0].head_set();
            let none = Revocations::default();
            let (mut names, mut addresses, mut uninformed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for (node, credentials) in &issued {
                let grant = credentials.certificate().grant();
                let controller = &labs[0].controller;
                if check(controller, credentials, *node, now, &set).is_ok() {
                    prop_assert_eq!(*names.entry(grant.name.clone()).or_insert(*node), *node);
                    for address in grant.addresses() {
                        prop_assert_eq!(*addresses.entry(address).or_insert(*node), *node);
                    }
                }
                if is_gentle && check(controller, credentials, *node, now, &none).is_ok() {
                    for address in grant.addresses() {
                        prop_assert_eq!(*uninformed.entry(address).or_insert(*node), *node);
                    }
                }
            }
            // Serials of one member strictly increase.
            let mut last: BTreeMap<u32, u64> = BTreeMap::new();
            for (node, credentials) in &issued {
                let serial = credentials.certificate().serial().as_u64();
                prop_assert!(last.insert(*node, serial).is_none_or(|before| before < serial));
            }
        }
        // What is in memory is what is in the store, apart from what waits to be written.
        labs[0].controller.flush(now).expect("room");
        let fresh = open(&path, 5);
        let known = |controller: &Controller| {
            let memory = controller.memory();
            let members: Vec<_> = memory.members.values().map(|one| (one.grant.clone(), one.standing, one.serial)).collect();
            (members, memory.names.clone(), memory.addresses.clone(), memory.revoked.clone(), memory.epoch)
        };
        prop_assert_eq!(known(&labs[0].controller), known(&fresh.controller));
    }
}
