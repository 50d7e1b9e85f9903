//! Managed networks that this machine has joined, by their local names.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::membership::{CLOCK_TOLERANCE, CertifyRequest, Denial};
use peersock::state::{MembershipRecord, StateDir};
use peersock::{Network, NetworkId};

use crate::args::managed_state;
use crate::failure::{Failure, Outcome};

/// Returns the managed network with a local name in a state directory, if one has it.
pub(crate) fn named(state: &Path, name: &str) -> Outcome<Option<NetworkId>> {
    let (records, damaged) = StateDir::readable_memberships(state)?;
    let found = records.into_iter().find(|record| record.name.as_deref() == Some(name));
    match (found, damaged.into_iter().next()) {
        // The damaged one may be meant.
        (None, Some(error)) if super::kept::kept(state, name).is_none() => Err(error.into()),
        (found, _) => Ok(found.map(|record| record.id)),
    }
}

/// Returns a managed network as it was joined with a state directory; `None` for another kind. Fails if it
/// was not joined, because a program cannot wait for a person.
pub(crate) fn check_joined(state: &Path, network: NetworkId) -> Outcome<Option<Network>> {
    if !network.is_managed() {
        return Ok(None);
    }
    let record = StateDir::membership(state, network)?;
    if let Some(failure) = record.as_ref().and_then(denied) {
        return Err(failure);
    }
    match record {
        Some(record) if record.credentials.is_some() => {
            let name = record.name.as_deref().and_then(|name| name.parse().ok());
            let network = Network::managed(record.network(CertifyRequest::default()));
            Ok(Some(name.into_iter().fold(network, Network::with_local_name)))
        }
        Some(_) => Err(Failure::new(
            format_args!("no controller has admitted this machine to network {network} yet"),
            format_args!("wait with `peersock join {network}`, which shows the code to approve"),
        )),
        None => Err(Failure::usage(
            format_args!("this machine has not joined the managed network {network}"),
            format_args!("run `peersock join {network}` first, or `peersock join` with an invite"),
        )),
    }
}

/// Returns the failure of a machine that a controller has removed, or whose request it has denied.
fn denied(record: &MembershipRecord) -> Option<Failure> {
    Some(Failure::new(format_args!("this machine was {}", words_of_denial(record)?), NEXT))
}

/// Returns words for what a controller has done to this machine; `None` if it is a member, or waits.
pub(super) fn words_of_denial(record: &MembershipRecord) -> Option<String> {
    let name = record.name.clone().unwrap_or_else(|| record.id.to_string());
    Some(match record.denied? {
        Denial::Declined => format!("denied by the controller of network {name}"),
        _ => format!("removed from network {name} by its controller"),
    })
}

/// Says that the right by which a controller issues certificates ends in a time, or has ended.
pub(crate) fn words_of_ending(left: Option<String>) -> String {
    let ends = left.map_or_else(|| "has ended".to_owned(), |left| format!("ends in {left}"));
    format!(
        "the network's right to issue certificates {ends}: run `peersock network renew` at its controller"
    )
}

/// Says that this machine's clock differs from the controllers' by more than members tolerate. `behind` is in
/// milliseconds.
pub(crate) fn words_of_clock(behind: i64) -> Option<String> {
    let by = Duration::from_millis(behind.unsigned_abs());
    let how = if behind < 0 { "ahead of" } else { "behind" };
    (by > CLOCK_TOLERANCE).then(|| {
        format!(
            "this machine's clock is {} {how} the controller's, as it has answered last: correct the one that is wrong",
            super::duration::shown(by)
        )
    })
}

/// Says how long a member's certificate lasts; `None` once it has ended.
pub(crate) fn words_of_certificate(left: Option<String>) -> String {
    match left {
        Some(left) => format!("certificate for {left}"),
        None => "certificate has ended; a controller renews it".to_owned(),
    }
}

/// Hint for a machine that was removed or denied.
const NEXT: &str = "ask who runs the network for an invite, and give it to `peersock join`";

/// Time after the end of a connection in which the node notes that a member refuses this machine.
const NOTED: Duration = Duration::from_millis(250);

/// Time in which a controller says whether it has removed this machine.
const DECIDED: Duration = Duration::from_secs(5);

/// Returns the failure of a machine that was removed in place of the failure of its connection. `standing` is
/// the word of the node's status.
pub(crate) fn explained(
    state: &Path,
    network: NetworkId,
    failure: Failure,
    standing: impl Fn() -> Option<String>,
) -> Failure {
    let begun = Instant::now();
    while network.is_managed() {
        let limit = match standing().as_deref() {
            Some("removed" | "denied") => break,
            Some("refused") => DECIDED,
            _ => NOTED,
        };
        if begun.elapsed() >= limit {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    removal(state, network).unwrap_or(failure)
}

/// Interval of looks whether this machine was removed from a network.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Calls `then` once a controller has removed this machine from a managed network, as its node keeps it. For
/// programs that wait for others, to whom nothing fails then.
pub(crate) fn on_removal(network: NetworkId, then: impl FnOnce(Failure) + Send + 'static) -> io::Result<()> {
    if !network.is_managed() {
        return Ok(());
    }
    let state = managed_state();
    let watch = move || {
        // A record may be too large to be read often. One that replaces another changes the directory.
        let changed = || fs::metadata(&state).and_then(|directory| directory.modified()).ok();
        let mut seen = None;
        loop {
            let now = changed();
            if now != seen || now.is_none() {
                seen = now;
                let record = StateDir::membership(&state, network).ok().flatten();
                let removed = record.filter(|record| record.denied == Some(Denial::Removed));
                if let Some(words) = removed.as_ref().and_then(words_of_denial) {
                    return then(Failure::new(format_args!("this machine was {words}"), NEXT));
                }
            }
            thread::sleep(LOOK_INTERVAL);
        }
    };
    thread::Builder::new().name("removal".into()).spawn(watch).map(drop)
}

/// Says the failure of a machine that was removed, for a program that goes on.
pub(crate) fn told(failure: &Failure) -> String {
    let next = failure.hint().unwrap_or_default();
    format!("{}: no member reaches it there, and it reaches no member; {next}", failure.message())
}

/// Returns the failure of a machine that was removed from a network, as its node has kept it.
pub(crate) fn removal(state: &Path, network: NetworkId) -> Option<Failure> {
    StateDir::membership(state, network).ok()?.as_ref().and_then(denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_named_that_differs_by_more_than_members_tolerate() {
        assert_eq!(words_of_clock(0), None);
        assert_eq!([600_000, -600_000].map(words_of_clock), [None, None]);
        let behind = words_of_clock(7_380_000).expect("two hours");
        assert!(behind.starts_with("this machine's clock is 2h 3m behind the controller's, "), "{behind}");
        let ahead = words_of_clock(-86_400_000).expect("a day");
        assert!(ahead.starts_with("this machine's clock is 1d ahead of the controller's, "), "{ahead}");
    }
}
