//! All requests of the protocol, each with the test that sends it while it injects signals, forks and other
//! calls into the sender's system calls.

use std::collections::BTreeSet;

use peersock_fd::Request;

use crate::each_request::{
    a_child_of_another_network_asks_through_its_parent, a_closed_stream_has_delivered_wherever_signals_come,
    a_connection_that_is_dissolved_may_connect_again, a_listener_on_both_networks_accepts_from_both,
    a_listener_that_is_shut_down_listens_again, a_listener_that_is_shut_down_refuses,
    a_new_process_is_served_wherever_signals_come, an_attempt_is_ended_wherever_signals_come,
    an_error_is_kept_for_the_next_call, closing_with_unread_data_is_a_reset_after_the_end_of_both_directions,
    errors_of_datagrams_are_reported_once, options_are_what_was_set,
    questions_are_answered_wherever_signals_come, raw_packets_come_wherever_signals_come,
    what_is_asked_of_one_datagram_arrives,
};
use crate::interrupted::{
    datagrams_come_wherever_signals_come, signals_do_not_disturb_who_connects_without_waiting,
    who_connects_again_after_a_signal_sends_and_receives_what_was_sent,
    whom_signals_interrupt_while_he_accepts_loses_nobody,
};
use crate::tracer::{Forked, Seen, Signals, Steps, trace};

/// Defines the table. A request without a test does not compile, because the `match` is exhaustive, and a
/// test that does not send what the table says fails in [`is_the_same_by`].
macro_rules! requests {
    ($($request:ident: $test:ident;)*) => {
        /// Returns the name of a request's kind.
        pub(crate) fn name_of(request: &Request) -> &'static str {
            match request { $(Request::$request { .. } => stringify!($request),)* }
        }

        /// The name of each kind of request, and the name of the test that sends it, with the test itself.
        const SENT_BY: &[(&str, &str, fn())] = &[$((stringify!($request), stringify!($test), $test),)*];
    };
}

requests! {
    Prove: a_new_process_is_served_wherever_signals_come;
    Open: raw_packets_come_wherever_signals_come;
    Bind: whom_signals_interrupt_while_he_accepts_loses_nobody;
    Listen: whom_signals_interrupt_while_he_accepts_loses_nobody;
    Connect: who_connects_again_after_a_signal_sends_and_receives_what_was_sent;
    ConnectAgain: who_connects_again_after_a_signal_sends_and_receives_what_was_sent;
    StopWaiting: who_connects_again_after_a_signal_sends_and_receives_what_was_sent;
    Filled: signals_do_not_disturb_who_connects_without_waiting;
    NameKey: datagrams_come_wherever_signals_come;
    Associate: datagrams_come_wherever_signals_come;
    Reach: what_is_asked_of_one_datagram_arrives;
    Fits: what_is_asked_of_one_datagram_arrives;
    Addresses: whom_signals_interrupt_while_he_accepts_loses_nobody;
    SetOption: options_are_what_was_set;
    TellOption: options_are_what_was_set;
    Option: options_are_what_was_set;
    TakeError: signals_do_not_disturb_who_connects_without_waiting;
    Ending: a_connection_that_is_dissolved_may_connect_again;
    TakeReport: errors_of_datagrams_are_reported_once;
    Hold: a_closed_stream_has_delivered_wherever_signals_come;
    Linger: a_closed_stream_has_delivered_wherever_signals_come;
    Routes: questions_are_answered_wherever_signals_come;
    Resolve: questions_are_answered_wherever_signals_come;
    NameOf: questions_are_answered_wherever_signals_come;
    Interfaces: questions_are_answered_wherever_signals_come;
    Alongside: a_listener_on_both_networks_accepts_from_both;
    Vacate: a_listener_on_both_networks_accepts_from_both;
    Unacknowledged: a_closed_stream_has_delivered_wherever_signals_come;
    WhyBroken: questions_are_answered_wherever_signals_come;
    MayListen: questions_are_answered_wherever_signals_come;
    Closed: a_listener_that_is_shut_down_refuses;
    MakePrivate: a_listener_that_is_shut_down_listens_again;
    HasSecret: questions_are_answered_wherever_signals_come;
    KeepError: an_error_is_kept_for_the_next_call;
    AbortConnecting: an_attempt_is_ended_wherever_signals_come;
    End: a_listener_that_is_shut_down_listens_again;
    Adopt: a_child_of_another_network_asks_through_its_parent;
    ShutDown: closing_with_unread_data_is_a_reset_after_the_end_of_both_directions;
}

/// Limit of rounds of a test until each of its requests was sent.
const MAX_ROUNDS: usize = 10;

pub(crate) const SIGNALS: [Signals; 3] = [Signals::One, Signals::OneThenWait, Signals::Storm];
pub(crate) const FORKS: [Signals; 3] =
    [Signals::Fork(Forked::Exits), Signals::Fork(Forked::Closes), Signals::Fork(Forked::Uses)];

/// Checks that the program sees the same with kernel sockets and with overlay sockets, wherever signals come,
/// and that it sends the requests that the table of this test says.
pub(crate) fn is_the_same<S: Steps>(test: &str, all: &[Signals], steps: impl Fn(bool) -> S, wanted: &str) {
    is_the_same_by(test, all, |signals, is_overlay| trace(signals, steps(is_overlay)), wanted);
}

/// Does the same with what `trace` sees of kernel sockets, and of overlay sockets if its argument is true.
pub(crate) fn is_the_same_by(
    test: &str,
    all: &[Signals],
    trace: impl Fn(Signals, bool) -> Seen,
    wanted: &str,
) {
    let table = SENT_BY.iter().filter(|(_, by, _)| *by == test);
    let mut missing: Vec<&str> = table.map(|(request, ..)| *request).collect();
    let mut sent = BTreeSet::new();
    // On a busy machine an attempt may have ended before the call that asks for it again.
    for _ in 0..MAX_ROUNDS {
        sent.extend(requests_of(all, &trace, wanted));
        missing.retain(|name| !sent.contains(name));
        if missing.is_empty() {
            return;
        }
    }
    panic!("the test does not send {missing:?}, only {sent:?}");
}

/// Returns the names of the requests of all steps, which have to end alike.
fn requests_of(
    all: &[Signals],
    trace: &impl Fn(Signals, bool) -> Seen,
    wanted: &str,
) -> BTreeSet<&'static str> {
    let mut sent = BTreeSet::new();
    for &signals in all {
        for is_overlay in [false, true] {
            let (seen, requests) = trace(signals, is_overlay);
            // A socket is at least opened and used.
            assert!(seen.len() > 2, "{}", seen.len());
            for (call, seen) in seen.iter().enumerate() {
                assert_eq!(seen, wanted, "{signals:?} at call {call}, overlay: {is_overlay}");
            }
            sent.extend(requests);
        }
    }
    sent
}
