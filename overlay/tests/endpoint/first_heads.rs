//! Newcomers of a managed network: when they know of the removals from before.

use std::time::Duration;

use peersock_overlay::NetworkConfig;

use crate::managed::{
    Authority, CONTROLLER, SECOND, certified, config, kept, members, network, observes, separate, serve,
    set_revocations,
};
use crate::net::{Net, UNIX_TIME};

const MS: Duration = Duration::from_millis(1);

/// Removed member of these tests.
const REMOVED: u8 = 66;

fn is_up_to_date(net: &Net, node: usize) -> bool {
    net.nodes[node].endpoint.membership(network(net, node)).expect("managed").is_up_to_date()
}

fn is_member(net: &Net, node: usize) -> bool {
    net.nodes[node].endpoint.membership(network(net, node)).expect("managed").credentials().is_some()
}

/// Runs until something holds, and answers questions meanwhile. Returns the time that it took.
fn serve_until(net: &mut Net, authority: &Authority, is_done: impl Fn(&Net) -> bool) -> Duration {
    let begun = net.now;
    while !is_done(net) {
        assert!(net.now - begun < 60 * SECOND, "not within a minute");
        net.run(MS);
        serve(net, 0, |node, _, at| certified(authority, node, at));
    }
    net.now - begun
}

#[test]
fn a_newcomer_knows_the_removals_from_before_some_round_trips_after_its_admission() {
    for latency in [1, 50, 200] {
        let mut authority = Authority::new();
        let mut net = members(&authority, &[CONTROLLER]);
        set_revocations(&mut net, 0, &authority.revoke(REMOVED, 4 * SECOND));
        net.latency = latency * MS;
        let new = net.add(2);
        net.join(new, &config(None));
        serve_until(&mut net, &authority, |net| is_member(net, new));
        // That is the moment at which a program that only waits for the admission goes on.
        assert!(!is_up_to_date(&net, new) && !observes(&net, new, REMOVED), "{latency} ms");
        let took = serve_until(&mut net, &authority, |net| is_up_to_date(net, new));
        assert!(observes(&net, new, REMOVED), "{latency} ms");
        // Both show their credentials, and the head, the question for its set and the set follow.
        assert!(took <= net.latency * 6 + 10 * MS, "{latency} ms: {took:?}");
    }
}

#[test]
fn a_controller_that_has_removed_no_member_says_so() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER]);
    // Its entry has ended by then, so the set is as good as empty.
    set_revocations(&mut net, 0, &authority.revoke_for(REMOVED, 4 * SECOND, Duration::ZERO));
    net.latency = 50 * MS;
    let new = net.add(2);
    net.join(new, &config(None));
    serve_until(&mut net, &authority, |net| is_member(net, new));
    assert!(serve_until(&mut net, &authority, |net| is_up_to_date(net, new)) <= 310 * MS);
}

#[test]
fn what_another_member_shows_may_not_be_the_newest() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    let former = authority.revoke(65, 4 * SECOND);
    set_revocations(&mut net, 0, &former);
    net.send(0, 1, b"open");
    net.run(SECOND);
    assert!(observes(&net, 1, 65) && is_up_to_date(&net, 1));
    // The member does not hear of the second removal, and the newcomer hears the member alone.
    let new = net.add(2);
    separate(&mut net, &[(0, 1), (0, new)]);
    set_revocations(&mut net, 0, &authority.revoke(REMOVED, 6 * SECOND));
    let NetworkConfig::Managed(mut given) = config(None) else { unreachable!() };
    given.credentials = Some(authority.credentials(2, 6 * SECOND));
    net.join(new, &NetworkConfig::Managed(given));
    net.send(new, 1, b"open");
    net.run(5 * SECOND);
    assert!(observes(&net, new, 65) && !observes(&net, new, REMOVED));
    assert!(!is_up_to_date(&net, new), "it has not heard the controller");
    separate(&mut net, &[(0, 1)]);
    net.send(new, 0, b"open");
    serve_until(&mut net, &authority, |net| is_up_to_date(net, new));
    assert!(observes(&net, new, REMOVED));
}

#[test]
fn a_member_that_restarts_is_up_to_date_once_its_controller_has_confirmed_what_it_has() {
    let mut authority = Authority::new();
    let mut net = members(&authority, &[CONTROLLER, 1]);
    set_revocations(&mut net, 0, &authority.revoke(REMOVED, 4 * SECOND));
    net.send(0, 1, b"open");
    net.run(SECOND);
    let given = kept(&net, 1);
    net.restart(1, 4001, UNIX_TIME + 10 * SECOND);
    net.join(1, &NetworkConfig::Managed(Box::new(given)));
    assert!(observes(&net, 1, REMOVED) && !is_up_to_date(&net, 1));
    serve_until(&mut net, &authority, |net| is_up_to_date(net, 1));
}
