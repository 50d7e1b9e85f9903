//! The client with messages over TCP.

use super::*;

#[test]
fn a_request_is_sent_once_and_given_up_as_late_as_over_udp() {
    let mut world = World::over_stream(Server { is_silent: true, ..Server::default() });
    assert_eq!(world.client.poll_timeout(world.now), Some(world.now + Duration::from_millis(15_500)));
    world.pass(Duration::from_secs(15));
    assert_eq!((world.server.asked, world.events()), (1, vec![]));
    world.pass(Duration::from_secs(1));
    assert_eq!((world.server.asked, world.events()), (1, vec![Event::Ended(Failure::Silent)]));
}

#[test]
fn a_dead_connection_is_noticed_within_36_s() {
    let mut world = World::over_stream(Server::default());
    assert_eq!(world.events(), [Event::Allocated(at(RELAYED))]);
    world.pass(Duration::from_secs(60));
    assert_eq!((world.server.count(BINDING), world.server.count(REFRESH)), (6, 0), "each 10 s");
    world.server.is_silent = true;
    let dies = world.now;
    while world.client.relayed().is_some() {
        world.pass(Duration::from_secs(1));
        assert!(world.now - dies <= Duration::from_secs(36), "{:?}", world.client);
    }
    assert_eq!(world.events(), [Event::Ended(Failure::Silent)]);
}

#[test]
fn a_server_that_answers_no_binding_requests_is_asked_by_refreshes() {
    let mut world = World::over_stream(Server { knows_binding: false, ..Server::default() });
    world.events();
    world.pass(10 * MINUTE);
    assert_eq!((world.events(), world.client.relayed()), (vec![], Some(at(RELAYED))));
    assert!((55..=60).contains(&world.server.count(REFRESH)), "{}", world.server.count(REFRESH));
}
