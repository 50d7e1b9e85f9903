use super::*;
use crate::{Approval, ChangeError, Holder};

fn ipv4(credentials: &Credentials) -> Option<u8> {
    credentials.certificate().grant().ipv4.map(|address| address.octets()[3])
}

#[test]
fn the_lowest_free_address_is_given_until_the_pool_is_full() {
    let mut lab = Lab::with(Settings { ipv4: pool("10.7.0.0", 29), ..Settings::default() });
    let token = lab.open_invite();
    for node in 2..=6 {
        let is_warned = lab.controller.status(lab.now).expect("readable").pools[0].is_nearly_full();
        assert_eq!(is_warned, node == 6, "4 of 6 are not 80 %");
        assert_eq!(ipv4(&lab.join(node, Some(&token))), Some(node as u8));
    }
    let status = lab.controller.status(lab.now).expect("readable");
    assert_eq!((status.pools[0].used, status.pools[0].size), (6, 6));
    assert!(status.pools[0].is_nearly_full());
    assert_eq!(denial(&lab.ask(7, Some(&token))), Some(Denial::NoAddress));
    // Renewals go on, and a removed member's address rests for twice the lifetime.
    lab.join(3, None);
    lab.revoke(4);
    lab.pass(2 * 24 * HOUR - Duration::from_secs(1));
    lab.flush_steadily();
    assert_eq!(denial(&lab.ask(7, Some(&token))), Some(Denial::NoAddress));
    lab.pass(Duration::from_secs(1));
    lab.flush_steadily();
    assert_eq!(ipv4(&lab.join(7, Some(&token))), Some(4));
}

#[test]
fn a_clock_that_is_ahead_ends_no_rest_of_an_address() {
    let mut lab = Lab::with(Settings { ipv4: pool("10.7.0.0", 30), ..Settings::default() });
    let token = lab.open_invite();
    lab.join(2, Some(&token));
    lab.revoke(2);
    lab.flush_steadily();
    let right = lab.now;
    lab.controller.watch_clock();
    lab.pass(365 * DAY);
    // A minute of flushes after the leap, then the clock is set right.
    for _ in 0..2 {
        lab.pass(Duration::from_secs(30));
        lab.controller.flush(lab.now).expect("writable");
        assert_eq!(denial(&lab.ask(3, Some(&token))), Some(Denial::Unavailable));
    }
    lab.controller.accept_clock(right.plus(DAY), "alice").expect("writable");
    lab.now = right.plus(DAY);
    lab.flush_steadily();
    assert_eq!(denial(&lab.ask(3, Some(&token))), Some(Denial::NoAddress));
    lab.pass(DAY);
    lab.controller.accept_clock(lab.now, "alice").expect("writable");
    lab.flush_steadily();
    assert_eq!(ipv4(&lab.join(3, Some(&token))), Some(2));
}

#[test]
fn the_same_key_gets_its_resting_address_and_its_name_again() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    for node in 1..=3 {
        lab.join(node, Some(&token));
    }
    let before = lab.join(2, None).certificate().grant().clone();
    lab.revoke(2);
    lab.pass(HOUR);
    assert_eq!(ipv4(&lab.join(4, Some(&token))), Some(5), "2 rests");
    let key = id(2).to_string();
    lab.controller.approve(lab.now, &mut lab.rng, "alice", &key, &Default::default()).expect("known");
    assert_eq!(*lab.join(2, None).certificate().grant(), before);
}

#[test]
fn ephemeral_addresses_rest_for_20_minutes() {
    let settings = Settings { ipv4: pool("10.7.0.0", 30), ephemeral_ipv4: true, ..Settings::default() };
    let mut lab = Lab::with(settings);
    let token = lab.invite(&InviteOptions {
        uses: 99,
        lifetime: DAY,
        approval: Approval { is_ephemeral: true, ..Approval::default() },
    });
    assert_eq!(ipv4(&lab.join(1, Some(&token))), Some(2));
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::NoAddress));
    lab.revoke(1);
    lab.pass(20 * MINUTE - Duration::from_secs(1));
    lab.flush_steadily();
    assert_eq!(denial(&lab.ask(2, Some(&token))), Some(Denial::NoAddress));
    lab.pass(Duration::from_secs(1));
    lab.flush_steadily();
    assert_eq!(ipv4(&lab.join(2, Some(&token))), Some(2));
    // One that goes without a word is forgotten: 10 minutes of its certificate, and the rest.
    lab.pass(31 * MINUTE);
    lab.flush_steadily();
    assert_eq!(ipv4(&lab.join(3, Some(&token))), Some(2));
}

#[test]
fn reserved_addresses_wait_for_their_key_or_name() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    let reserve = |lab: &mut Lab, last: u8, holder: Holder| {
        lab.controller.reserve(lab.now, "alice", [10, 7, 0, last].into(), &holder)
    };
    reserve(&mut lab, 2, Holder::Node(id(1))).expect("free");
    reserve(&mut lab, 3, Holder::Name(name("machine-2"))).expect("free");
    let other = Holder::Name(name("machine-2"));
    let reserved = Err(ChangeError::Reserved([10, 7, 0, 3].into(), other));
    assert_eq!(reserve(&mut lab, 3, Holder::Node(id(9))), reserved);
    let taken = reserve(&mut lab, 1, Holder::Node(id(9)));
    assert!(matches!(taken, Err(ChangeError::AddressTaken(..))), "{taken:?}");
    let elsewhere = [10, 8, 0, 1].into();
    let no_pool = lab.controller.reserve(lab.now, "alice", elsewhere, &Holder::Node(id(1)));
    assert_eq!(no_pool, Err(ChangeError::NotInPool(elsewhere)));
    // Pool 10.7.0.0/24: no member has the first or the last address.
    for last in [0, 255] {
        let refused = Err(ChangeError::Unassignable([10, 7, 0, last].into()));
        assert_eq!(reserve(&mut lab, last, Holder::Node(id(8))), refused, "{last}");
    }
    let reserved = lab.controller.reservations().expect("readable");
    assert_eq!(reserved[1], ([10, 7, 0, 3].into(), Holder::Name(name("machine-2"))));
    assert_eq!(ipv4(&lab.join(5, Some(&token))), Some(4));
    assert_eq!(ipv4(&lab.join(1, Some(&token))), Some(2));
    assert_eq!(ipv4(&lab.join(2, Some(&token))), Some(3));
    // The reservation of a name goes to the next machine of the name at once.
    lab.revoke(2);
    let Answer::Certified { credentials, .. } = lab.ask_from(7, "2001:db8::7", certify(2, Some(&token)))
    else {
        panic!("no certificate")
    };
    assert_eq!(ipv4(&credentials), Some(3));
    let address = [10, 7, 0, 2].into();
    lab.controller.end_reservation(lab.now, "alice", address).expect("reserved");
    assert_eq!(
        lab.controller.end_reservation(lab.now, "alice", address),
        Err(ChangeError::NotReserved(address))
    );
    assert_eq!(ipv4(&lab.join(1, None)), Some(2));
}

#[test]
fn a_reservation_follows_the_name_of_its_member() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(2, Some(&token));
    for (last, holder) in [(9, "machine-2"), (10, "machine-3")] {
        let holder = Holder::Name(name(holder));
        lab.controller.reserve(lab.now, "alice", [10, 7, 0, last].into(), &holder).expect("free");
    }
    let change = crate::Change { name: Some(name("database")), ..Default::default() };
    lab.controller.change(lab.now, "alice", "machine-2", &change).expect("a free name");
    let reserved = lab.controller.reservations().expect("readable");
    let holders: Vec<_> = reserved.into_iter().map(|(_, holder)| holder).collect();
    assert_eq!(holders, ["database", "machine-3"].map(|of| Holder::Name(name(of))));
    // A machine that gets the old name later gets no address with it.
    let Answer::Certified { credentials, .. } = lab.ask_from(7, "2001:db8::7", certify(2, Some(&token)))
    else {
        panic!("no certificate")
    };
    assert_eq!((credentials.certificate().grant().name.as_str(), ipv4(&credentials)), ("machine-2", Some(3)));
}

#[test]
fn members_get_addresses_of_pools_that_come_later() {
    let mut lab = Lab::with(Settings::default());
    let token = lab.open_invite();
    assert_eq!(ipv4(&lab.join(1, Some(&token))), None);
    assert_eq!(ipv4(&lab.join(2, Some(&token))), None);
    let settings = Settings { ipv4: pool("10.9.0.0", 30), ipv6: pool("fd00:1::", 64), ..Settings::default() };
    lab.controller.set_settings(lab.now, "alice", &settings).expect("valid");
    let grant = lab.join(1, None).certificate().grant().clone();
    assert_eq!((grant.ipv4, grant.ipv6), (Some([10, 9, 0, 1].into()), "fd00:1::1".parse().ok()));
    let own = lab.controller.credentials(lab.now).expect("a delegation");
    assert_eq!(ipv4(&own), Some(2));
    // A member that finds the pool empty is renewed without an address; a new one is refused.
    assert_eq!(ipv4(&lab.join(2, None)), None);
    assert_eq!(denial(&lab.ask(3, Some(&token))), Some(Denial::NoAddress));
    lab.ask(u32::from_be_bytes([200; 4]), None);
    // Without the pools, members keep their addresses, which are none of a block any more.
    lab.controller.set_settings(lab.now, "alice", &Settings::default()).expect("valid");
    let kept = lab.join(1, None).certificate().grant().clone();
    assert_eq!((kept.ipv4, kept.ipv6), (grant.ipv4, grant.ipv6));
    assert_eq!((grant.ipv4_length, grant.ipv6_length), (30, 64));
    assert_eq!((kept.ipv4_length, kept.ipv6_length), (32, 128));
    assert_eq!(ipv4(&lab.join(3, Some(&token))), None);
    let wrong = Settings { ipv4: pool("fd00::", 64), ..Settings::default() };
    assert_eq!(
        lab.controller.set_settings(lab.now, "alice", &wrong),
        Err(ChangeError::Range("the settings"))
    );
}

#[test]
fn names_and_addresses_are_found_with_credentials_that_count() {
    let mut lab = Lab::new();
    let token = lab.open_invite();
    lab.join(1, Some(&token));
    let second = lab.join(2, Some(&token));
    let by_name = Question::FindName(name("machine-2"));
    let by_address = Question::FindAddress(second.certificate().grant().ipv4.expect("from the pool").into());
    for question in [by_name.clone(), by_address] {
        let Answer::Found { identity: found, credentials } = lab.ask_from(1, "2001:db8::1", question) else {
            panic!("not found")
        };
        assert_eq!(found.node_id(), id(2));
        assert_eq!(*credentials, second, "the same signature");
    }
    assert_eq!(lab.ask_from(9, "2001:db8::1", by_name.clone()), Answer::Absent, "strangers learn nothing");
    assert_eq!(lab.ask_from(1, "2001:db8::1", Question::FindName(name("none"))), Answer::Absent);
    // After a change of its tags, the certificate that counts.
    let change = crate::Change { tags: Some(tags(&["db"])), ..Default::default() };
    lab.controller.change(lab.now, "alice", "machine-2", &change).expect("a member");
    let Answer::Found { credentials, .. } = lab.ask_from(1, "2001:db8::1", by_name.clone()) else { panic!() };
    assert_eq!(lab.refusal(&credentials, 2), None);
    assert_eq!(credentials.certificate().grant().tags, tags(&["db"]));
    // A member that has been away for a day is absent, and so is a removed one.
    lab.revoke(2);
    assert_eq!(lab.ask_from(1, "2001:db8::1", by_name), Answer::Absent);
    lab.pass(25 * HOUR);
    assert_eq!(lab.ask_from(1, "2001:db8::1", Question::FindName(name("controller"))), Answer::Absent);
}
