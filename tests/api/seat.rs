//! The seat of a network's controller at a node that is a member before and afterwards.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use peersock::blocking::{TcpListener, TcpStream};
use peersock::overlay::membership::Refusal;
use peersock::{Joined, SeatError, Standing};

use crate::common::{PATIENCE, node};
use crate::managed::{DAY, Scene, echo, now};

fn pass(stream: &mut TcpStream, accepted: &mut TcpStream) {
    stream.write_all(b"y").expect("room");
    let mut byte = [0];
    accepted.read_exact(&mut byte).expect("a byte");
    assert_eq!(byte, *b"y");
}

fn serves(scene: &Scene) -> bool {
    let status = scene.node.status();
    let of_status = status.networks.iter().any(|network| network.id == scene.id && network.serves);
    assert_eq!(scene.joined.is_served(), of_status);
    of_status
}

#[test]
fn a_node_is_the_controller_while_somebody_has_the_seat_and_its_connections_go_on() {
    let mut scene = Scene::new();
    let [alpha, beta] = [node(), node()];
    let home = alpha.join(scene.invite()).expect("a good invite");
    home.wait_ready(PATIENCE).expect("admitted");
    let listener = TcpListener::bind_on(&alpha, "[::]:0").expect("a free port");
    let (mut stream, mut accepted) = echo(&scene.node, &listener, home.address().into());
    assert!(serves(&scene));
    assert!(matches!(scene.take_seat(&scene.own()), Err(SeatError::Taken(id)) if id == scene.id));
    assert!(serves(&scene), "a second one changes nothing");

    drop(scene.seat.take());
    assert!(!serves(&scene));
    let standing = |joined: &Joined| joined.membership().map(|known| known.standing);
    assert_eq!(standing(&scene.joined), Some(Standing::Member), "by the controller's last credentials");
    pass(&mut stream, &mut accepted);
    let away = beta.join(scene.invite()).expect("a good invite");
    away.wait_ready(Duration::from_secs(1)).expect_err("nobody answers");

    scene.seat = Some(scene.take_seat(&scene.own()).expect("the seat is free"));
    away.wait_ready(PATIENCE).expect("admitted");
    assert!(serves(&scene));
    pass(&mut stream, &mut accepted);
}

#[test]
fn wrong_credentials_take_no_seat_and_leave_the_membership_as_it_is() {
    let (mut scene, other) = (Scene::new(), Scene::new());
    let alpha = node();
    let home = alpha.join(scene.invite()).expect("a good invite");
    home.wait_ready(PATIENCE).expect("admitted");
    let listener = TcpListener::bind_on(&scene.node, "[::]:0").expect("a free port");
    let (mut stream, mut accepted) = echo(&alpha, &listener, scene.joined.address().into());
    drop(scene.seat.take());
    let before = scene.joined.addresses();
    let authority = &scene.authority;
    let ended = authority.credentials_of(scene.node.id(), 9, now().minus(3 * DAY));
    for (own, expected) in
        [(authority.credentials(alpha.id(), 9), Refusal::Holder), (ended, Refusal::Expired)]
    {
        let refused = scene.take_seat(&own).expect_err("they are wrong");
        assert!(matches!(refused, SeatError::Credentials(reason) if reason == expected), "{refused}");
        assert_eq!(scene.joined.set_credentials(&own), Err(expected));
    }
    let refused = scene.take_seat(&other.own()).expect_err("another network's");
    assert!(matches!(refused, SeatError::Key(_)), "{refused}");
    // A member's own credentials are another issuer's.
    let as_controller = |credentials| home.take_seat(&credentials, Box::new(drop));
    let refused = as_controller(authority.credentials(alpha.id(), 9)).expect_err("it is no issuer");
    assert!(matches!(refused, SeatError::Credentials(Refusal::Issuer)), "{refused}");
    assert!(!home.is_served() && !serves(&scene));
    assert_eq!(scene.joined.addresses(), before);
    pass(&mut stream, &mut accepted);
}
