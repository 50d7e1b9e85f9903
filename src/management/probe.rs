//! Probes: a running node reaches or pings members for another program.

use std::net::IpAddr;
use std::path::Path;
use std::str::{FromStr, SplitAsciiWhitespace};
use std::time::Duration;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use peersock_overlay::membership::MemberName;
use peersock_overlay::{DiscoveryKey, NetworkId};
use serde::{Deserialize, Serialize};

use super::{ManagementError, request_within, was_cut};
use crate::config::Network;
use crate::node::PeerStatus;

/// Longest time that one probe may take. A client that waits longer asks again.
pub const MAX_PROBE: Duration = Duration::from_secs(60);

/// Largest payload of an echo request in bytes: an IPv4 packet has 65,535 bytes, and 28 of them are headers.
const MAX_PAYLOAD: usize = 65_507;

/// Length of a network's mark.
const MARK_LEN: usize = 16;

/// Salt of marks, in place of the random one of a beacon.
const MARK_SALT: &[u8; 16] = b"peersock socket\0";

/// Proof that two programs mean the same network: the same ID, secret and list of members. It reveals
/// neither.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark([u8; MARK_LEN]);

impl Mark {
    pub(crate) fn new(key: &DiscoveryKey) -> Mark {
        Mark(key.beacon_tag(MARK_SALT))
    }
}

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mark([redacted])")
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Mark, ()> {
        let mark = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(drop)?;
        let mark = mark.try_into().map_err(drop)?;
        Ok(Mark(mark))
    }
}

/// A member that a running node is to reach or ping, or all members of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub(crate) network: NetworkId,
    /// Address of the member; `None` for all members.
    pub(crate) address: Option<IpAddr>,
    /// Mark of the network; without it, the node's own description of the network counts.
    pub(crate) mark: Option<Mark>,
    pub(crate) timeout: Duration,
}

impl Probe {
    /// Returns a probe of the member with `address` in a network that the node has joined, which takes up to
    /// `timeout`, at most [`MAX_PROBE`].
    pub fn new(network: NetworkId, address: IpAddr, timeout: Duration) -> Probe {
        Probe { address: Some(address), ..Probe::of_members(network, timeout) }
    }

    /// Returns a probe of all members of a network, for [`ask_members`].
    pub fn of_members(network: NetworkId, timeout: Duration) -> Probe {
        Probe { network, address: None, mark: None, timeout: timeout.min(MAX_PROBE) }
    }

    /// Returns the network's ID.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Returns the same probe, but fails with [`ProbeOutcome::OtherNetwork`] if the node has joined the
    /// network with another secret or another list of members than `network` has.
    #[must_use]
    pub fn exactly(self, network: &Network) -> Probe {
        Probe { mark: Some(Mark::new(&network.discovery_key())), ..self }
    }

    fn words(&self) -> String {
        let Probe { network, address, mark, timeout } = self;
        let mark = mark.map_or_else(String::new, |Mark(mark)| format!(" mark={}", HEXLOWER.encode(&mark)));
        let address = address.map_or_else(String::new, |address| format!(" address={address}"));
        format!("network={network}{address} timeout={}{mark}", timeout.as_millis())
    }
}

/// Request for a probe, as the node has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeRequest {
    pub(crate) probe: Probe,
    pub(crate) task: ProbeTask,
}

/// Task of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProbeTask {
    /// Have a session with a member.
    Reach(IpAddr),
    /// Send an echo request to a member.
    Ping(IpAddr, Echo),
    /// Have a session with each member.
    AskMembers,
    /// Find the member with a name.
    Find(MemberName),
}

/// Echo request that a node is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Echo {
    /// Payload in bytes.
    pub(crate) size: usize,
    /// Time to learn, after a loss, if the path carries too little.
    pub(crate) check: Duration,
}

impl ProbeRequest {
    /// Reads a request. Returns `None` unless all its words are understood.
    pub(super) fn parse(request: &str, words: SplitAsciiWhitespace<'_>) -> Option<ProbeRequest> {
        let is_ping = request == "ping";
        let (mut network, mut address, mut mark, mut timeout) = (None, None, None, None);
        let (mut size, mut check, mut wanted) = (None, None, None);
        for word in words {
            let (name, value) = word.split_once('=')?;
            match name {
                "network" => once(&mut network, value)?,
                "address" => once(&mut address, value)?,
                "mark" => once(&mut mark, value)?,
                "timeout" => once(&mut timeout, value)?,
                "name" if request == "find" => once(&mut wanted, value)?,
                "size" if is_ping => once(&mut size, value)?,
                "check" if is_ping => once(&mut check, value)?,
                _ => return None,
            }
        }
        let bounded = |millis| Duration::from_millis(millis).min(MAX_PROBE);
        let size = size.unwrap_or(0);
        if size > MAX_PAYLOAD {
            return None;
        }
        let task = match (request, address) {
            ("find", None) => ProbeTask::Find(wanted?),
            ("reach", Some(address)) => ProbeTask::Reach(address),
            ("ping", Some(address)) => {
                ProbeTask::Ping(address, Echo { size, check: bounded(check.unwrap_or(0)) })
            }
            ("members", None) => ProbeTask::AskMembers,
            _ => return None,
        };
        let probe = Probe { network: network?, address, mark, timeout: bounded(timeout?) };
        Some(ProbeRequest { probe, task })
    }
}

/// Sets a value that is not set yet.
pub(super) fn once<T: FromStr>(place: &mut Option<T>, text: &str) -> Option<()> {
    let value = text.parse().ok()?;
    place.replace(value).is_none().then_some(())
}

/// Result of a probe. Serializes to the node's answer; fields that a later version has added are skipped.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Probed {
    /// Outcome.
    pub outcome: ProbeOutcome,
    /// Time from the echo request to its reply, milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Bytes of payload in the reply.
    pub bytes: Option<usize>,
    /// Remaining hop limit of the reply.
    pub hop_limit: Option<u8>,
    /// Error of the system or of an ICMP message, for [`ProbeOutcome::Failed`].
    pub reason: Option<String>,
    /// State of the member after the probe, as far as the node knows it.
    pub peer: Option<PeerStatus>,
}

/// Outcome of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProbeOutcome {
    /// The member is reached; an echo request was answered.
    Answered,
    /// The member has not answered in time.
    Silent,
    /// The member has not answered, and the path to it carries too little.
    PathTooSmall,
    /// No member of the network can have the address.
    NoSuchMember,
    /// The node has not joined the network.
    NotJoined,
    /// The node has joined the network with another secret or list of members.
    OtherNetwork,
    /// Something else; `reason` says it. An outcome that a later version has added is read as this one.
    #[serde(other)]
    Failed,
}

impl From<ProbeOutcome> for Probed {
    fn from(outcome: ProbeOutcome) -> Probed {
        Probed { outcome, round_trip_ms: None, bytes: None, hop_limit: None, reason: None, peer: None }
    }
}

/// Lets the node that uses the state directory at `state` reach a member: wait until it has a session with
/// it.
///
/// # Errors
///
/// See [`ManagementError`]. A node refuses if it has no room for more probes, or does not know the request,
/// because it is older.
///
/// ```
/// use std::time::Duration;
///
/// use peersock::management::{Probe, ProbeOutcome, reach};
/// use peersock::{IdentitySource, Interfaces, Network, Node};
///
/// let place = tempfile::tempdir()?;
/// let state = IdentitySource::StateDir(place.path().into());
/// let node = Node::builder().identity(state).interfaces(Interfaces::Loopback).start()?;
/// let network = node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
/// let probe = Probe::new(network.id(), network.address().into(), Duration::from_secs(1));
/// assert_eq!(reach(place.path(), &probe)?.outcome, ProbeOutcome::Answered);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn reach(state: &Path, probe: &Probe) -> Result<Probed, ManagementError> {
    ask(state, format!("reach {}", probe.words()), probe.timeout)
}

/// Lets the node that uses the state directory at `state` ask all members of a network, and wait until each
/// has answered. Their states are in its [`Status`](crate::Status) then; the outcome is
/// [`ProbeOutcome::Silent`] if some have not answered.
///
/// # Errors
///
/// As for [`reach`].
pub fn ask_members(state: &Path, probe: &Probe) -> Result<Probed, ManagementError> {
    ask(state, format!("members {}", probe.words()), probe.timeout)
}

/// Lets the node that uses the state directory at `state` find the member with a name, in a managed network
/// by asking its controller if need be. The outcome is [`ProbeOutcome::Answered`] with the member's state,
/// [`ProbeOutcome::NoSuchMember`] if no member has the name, or [`ProbeOutcome::Silent`] if the probe's time
/// has passed.
///
/// # Errors
///
/// As for [`reach`].
pub fn find_named(state: &Path, probe: &Probe, name: &MemberName) -> Result<Probed, ManagementError> {
    ask(state, format!("find {} name={name}", probe.words()), probe.timeout)
}

/// Lets the node that uses the state directory at `state` send a member one ICMP echo request with `size`
/// bytes of payload, at most 65,507, and wait for its reply. After a loss, the node takes up to `check` to
/// learn if the path carries too little.
///
/// # Errors
///
/// As for [`reach`].
pub fn ping(state: &Path, probe: &Probe, size: u16, check: Duration) -> Result<Probed, ManagementError> {
    let request = format!("ping {} size={size} check={}", probe.words(), check.as_millis());
    ask(state, request, probe.timeout + check)
}

fn ask(state: &Path, request: String, extra: Duration) -> Result<Probed, ManagementError> {
    let answer = request_within(state, &request, extra)?;
    serde_json::from_str(&answer).map_err(|error| match error.is_eof() {
        true => was_cut(state),
        false => ManagementError::Refused {
            error: format!("its answer is not understood: {error}"),
            version: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "000102030405060708090a0b0c0d0e0f";

    fn parse(line: &str) -> Option<ProbeRequest> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?;
        ProbeRequest::parse(name, words)
    }

    #[test]
    fn what_a_client_writes_a_node_reads() {
        let id: NetworkId = "ff00500050000000".parse().unwrap();
        let network = Network::ad_hoc(id);
        let address = "fd00::1".parse().unwrap();
        let plain = Probe::new(id, address, Duration::from_secs(2));
        for probe in [plain, plain.exactly(&network)] {
            let read = parse(&format!("reach {}", probe.words())).unwrap();
            assert_eq!((read.probe, read.task), (probe, ProbeTask::Reach(address)));
            let read = parse(&format!("ping {} size=65507 check=12000", probe.words())).unwrap();
            let echo = Echo { size: 65_507, check: Duration::from_secs(12) };
            assert_eq!((read.probe, read.task), (probe, ProbeTask::Ping(address, echo)));
        }
        let all = Probe::of_members(id, Duration::from_secs(3)).exactly(&network);
        let read = parse(&format!("members {}", all.words())).unwrap();
        assert_eq!((read.probe, read.task), (all, ProbeTask::AskMembers));
        let read = parse(&format!("find {} name=alpha", all.words())).unwrap();
        assert_eq!((read.probe, read.task), (all, ProbeTask::Find("alpha".parse().unwrap())));
        for bad in ["", " name=a.b", " name=a name=b", " name=a address=fd00::1"] {
            assert!(parse(&format!("find {}{bad}", all.words())).is_none(), "{bad}");
        }
        assert_ne!(
            plain.exactly(&network).mark,
            plain.exactly(&network.with_psk(peersock_overlay::Psk::new([1; 32]))).mark
        );
    }

    #[test]
    fn what_is_not_understood_is_no_request_and_times_are_bounded() {
        let good =
            format!("ping network=ff00500050000000 address=fd00::1 timeout=1 mark={MARK} size=1 check=1");
        assert!(parse(&good).is_some());
        for (from, to) in [
            ("network=ff00500050000000", "network=xyz"),
            ("network=ff00500050000000 ", ""),
            ("address=fd00::1", "address=alpha"),
            ("address=fd00::1", "address=[fd00::1]:80"),
            ("address=fd00::1 ", ""),
            ("timeout=1 ", ""),
            ("timeout=1", "timeout=-1"),
            ("timeout=1", "timeout=1 timeout=1"),
            ("timeout=1", "timeout=99999999999999999999"),
            ("size=1", "size=65508"),
            ("size=1", "size=1 size=2"),
            ("size=1", "size"),
            ("check=1", "later=1"),
            (MARK, "00"),
            (MARK, "00010203040506070809 0a0b0c0d0e0f"),
            (MARK, "é00102030405060708090a0b0c0d0e0"),
            (MARK, "+0+1+2+3+4+5+6+7+8+9+a+b+c+d+e+f"),
        ] {
            let bad = good.replace(from, to);
            assert!(bad != good && parse(&bad).is_none(), "{bad}");
        }
        let reach = good.replace("ping", "reach");
        assert!(parse(&reach).is_none(), "a size is for pings only");
        assert!(parse("members network=ff00500050000000 timeout=1 address=fd00::1").is_none());
        let long = parse(&good.replace("timeout=1", "timeout=18446744073709551615")).unwrap();
        assert_eq!(long.probe.timeout, MAX_PROBE);
        let long = parse(&good.replace("check=1", "check=999999")).unwrap();
        assert!(matches!(long.task, ProbeTask::Ping(_, echo) if echo.check == MAX_PROBE));
    }

    #[test]
    fn an_answer_is_read_and_what_a_later_node_adds_is_skipped() {
        let outcomes = [
            ("answered", ProbeOutcome::Answered),
            ("silent", ProbeOutcome::Silent),
            ("path-too-small", ProbeOutcome::PathTooSmall),
            ("no-such-member", ProbeOutcome::NoSuchMember),
            ("not-joined", ProbeOutcome::NotJoined),
            ("other-network", ProbeOutcome::OtherNetwork),
            ("failed", ProbeOutcome::Failed),
        ];
        for (name, outcome) in outcomes {
            let written = serde_json::to_string(&Probed::from(outcome)).unwrap();
            assert!(written.starts_with(&format!("{{\"outcome\":\"{name}\"")), "{written}");
            assert_eq!(serde_json::from_str::<Probed>(&written).unwrap().outcome, outcome);
        }
        let later: Probed = serde_json::from_str(r#"{"outcome":"dreaming","depth":2}"#).unwrap();
        assert_eq!(later.outcome, ProbeOutcome::Failed);
    }
}
