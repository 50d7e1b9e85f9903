//! Permissions and channels of peers.

use super::*;

fn known(i: usize) -> String {
    format!("198.51.100.{}:7", 1 + i)
}

fn stranger(i: usize) -> String {
    format!("192.0.{}.{}:7", i / 250, 1 + i % 250)
}

#[test]
fn a_datagram_waits_for_its_permission_and_a_peer_that_answers_gets_a_channel() {
    let mut world = World::new(Server::default());
    assert_eq!(world.send(PEER, b"1"), Sent::Held);
    assert_eq!(world.send("192.0.2.1:7001", b"2"), Sent::Written, "the permission is for the host");
    for _ in 0..8 {
        assert_eq!(world.send(PEER, b"on"), Sent::Written);
    }
    assert_eq!(world.server.channel, None, "who does not answer needs none");
    let answer = Server::data(PEER, b"here");
    let received = world.client.handle(world.now, &answer).expect("it is a peer's");
    assert_eq!((received.peer, received.data), (at(PEER), &b"here"[..]));
    assert_eq!(world.send(PEER, b"again"), Sent::Written);
    world.pass(Duration::from_millis(1));
    let number = world.server.channel.expect("a channel");
    assert_eq!(world.send(PEER, b"short"), Sent::Written);
    assert_eq!(world.server.passed.last(), Some(&("channel".to_owned(), b"short".to_vec())));

    let frame = |number: u16| [&number.to_be_bytes()[..], &[0, 3], b"yes", &[0]].concat();
    let (good, other) = (frame(number), frame(number + 1));
    let received = world.client.handle(world.now, &good).map(|received| (received.peer, received.data));
    assert_eq!(received, Some((at(PEER), &b"yes"[..])));
    assert_eq!(world.client.handle(world.now, &other), None, "a channel that was not bound");
    assert_eq!(world.client.handle(world.now, &Server::data("192.0.2.99:1", b"x")), None, "no permission");
    assert_eq!(world.client.handle(world.now, &good[..5]), None, "cut off");
}

#[test]
fn what_is_used_is_renewed_and_the_rest_is_forgotten() {
    let mut world = World::new(Server::default());
    world.send("192.0.2.2:1", b"once");
    world.send(PEER, b"1");
    world.client.handle(world.now, &Server::data(PEER, b"here"));
    for _ in 0..60 {
        world.pass(MINUTE);
        world.send(PEER, b"on");
    }
    // One hour: every 4 minutes, and once for the other peer, which was used within the first five.
    assert_eq!(world.server.count(CREATE_PERMISSION), 2 + 15 + 1);
    assert_eq!(world.server.count(CHANNEL_BIND), 1 + 6, "each 9 minutes");
    let before = world.server.seen.len();
    world.pass(20 * MINUTE);
    assert!(world.server.seen[before..].iter().filter(|one| **one == CREATE_PERMISSION).count() <= 2);
    assert_eq!(world.client.handle(world.now, &Server::data(PEER, b"late")), None);
}

#[test]
fn a_crowd_of_peers_has_its_bounds() {
    let mut world = World::new(Server::default());
    let sent: Vec<_> = (0..1000).map(|i| world.send(&stranger(i), b"x")).collect();
    assert_eq!(sent.iter().filter(|sent| **sent == Sent::Held).count(), 8);
    assert_eq!(world.server.count(CREATE_PERMISSION), 8);

    let mut world = World::new(Server::default());
    for i in 0..MAX_PERMISSIONS {
        assert_eq!(world.send(&known(i), b"x"), Sent::Held, "{i}");
        assert!(world.client.handle(world.now, &Server::data(&known(i), b"here")).is_some());
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.send(&stranger(0), b"x"), Sent::Dropped);
    world.pass(MINUTE);
    assert_eq!(world.send(&stranger(0), b"x"), Sent::Dropped, "all others have answered");
    assert_eq!(world.server.count(CREATE_PERMISSION), MAX_PERMISSIONS);
    world.pass(4 * MINUTE);
    assert_eq!(world.send(&stranger(0), b"x"), Sent::Held, "what is not used is forgotten");
}

#[test]
fn what_the_server_refuses_is_not_asked_for_again_at_once() {
    let mut world = World::new(Server::default());
    world.server.refuses = [(CREATE_PERMISSION.value(), 403)].into();
    assert_eq!(world.send(PEER, b"x"), Sent::Held);
    let asked = world.server.count(CREATE_PERMISSION);
    assert_eq!(world.send(PEER, b"x"), Sent::Dropped);
    world.pass(Duration::from_secs(59));
    assert_eq!((world.send(PEER, b"x"), world.server.count(CREATE_PERMISSION)), (Sent::Dropped, asked));
    world.pass(Duration::from_secs(2));
    assert_eq!((world.send(PEER, b"x"), world.server.count(CREATE_PERMISSION)), (Sent::Held, asked + 1));
}

#[test]
fn strangers_do_not_drive_out_who_has_answered() {
    let mut world = World::new(Server::default());
    for i in 0..40 {
        assert_eq!(world.send(&known(i), b"x"), Sent::Held, "{i}");
        assert!(world.client.handle(world.now, &Server::data(&known(i), b"here")).is_some());
        world.pass(Duration::from_secs(1));
    }
    // A crowd gets only the free permissions, and not all at once.
    world.pass(MINUTE);
    let mut granted = 0;
    for second in 0..120 {
        for i in 0..20 {
            granted += usize::from(world.send(&stranger(20 * second + i), b"x") == Sent::Held);
        }
        if second == 0 {
            assert_eq!(granted, 8);
        }
        world.pass(Duration::from_secs(1));
    }
    // 24 are free, and each makes room after 30 s.
    assert_eq!(granted, 24 * 4);
    for i in 0..40 {
        assert_eq!(world.send(&known(i), b"x"), Sent::Written, "{i}");
    }
}

#[test]
fn strangers_leave_half_of_the_permissions_to_others() {
    let mut world = World::new(Server::default());
    let mut granted = 0;
    for second in 0..29 {
        for i in 0..20 {
            granted += usize::from(world.send(&stranger(20 * second + i), b"x") == Sent::Held);
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(granted, MAX_PERMISSIONS / 2);
}
