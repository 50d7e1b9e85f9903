//! Managed networks: a running node joins and leaves them for another program of its user.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::SplitAsciiWhitespace;
use std::time::{Duration, Instant};

use peersock_overlay::membership::{MemberName, NetworkKey};
use peersock_overlay::{NetworkId, NetworkIdError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{IO_TIMEOUT, ManagementError, Refusal, STOPPED, connected, request};
use crate::config::{Invite, Network, RootSource};
use crate::node::Standing;
use crate::state::{MembershipRecord, StateDir};

/// Longest line of a node about a membership in bytes.
const MAX_LINE: u64 = 4096;

/// Longest wait for the first of them: the node stretches the network's key before, which takes seconds on a
/// busy machine.
const FIRST_LINE: Duration = Duration::from_secs(20);

/// A managed network that a running node is to join.
#[derive(Clone, PartialEq)]
pub struct JoinRequest {
    /// ID of the network.
    pub network: NetworkId,
    /// Invite, if the machine has one.
    pub invite: Option<Invite>,
    /// Name that the machine wishes to have in the network.
    pub wish: Option<MemberName>,
    /// Name of the network on the machine.
    pub local: Option<MemberName>,
    /// Roots that the node uses from now on, besides those of the invite.
    pub roots: Vec<RootSource>,
}

impl JoinRequest {
    /// Returns the request for a network by its ID alone.
    pub fn new(network: NetworkId) -> JoinRequest {
        JoinRequest { network, invite: None, wish: None, local: None, roots: Vec::new() }
    }

    /// Returns the network as a node joins it.
    ///
    /// # Errors
    /// The ID is of a kind of networks that an ID alone does not describe.
    pub fn described(&self) -> Result<Network, NetworkIdError> {
        let network = match &self.invite {
            Some(invite) => invite.network(),
            None => Network::by_id(self.network)?,
        };
        Ok(match &self.wish {
            Some(wish) => network.with_wished_name(wish.clone()),
            None => network,
        })
    }

    /// Notes the network's name on this machine, and the roots at which its members meet, in a record. A root
    /// that has moved replaces its former endpoints. Returns false if the record has all of it.
    pub fn note_in(&self, record: &mut MembershipRecord) -> bool {
        let name = self.local.as_ref().map(ToString::to_string).or_else(|| record.name.clone());
        let roots = self.invite.as_ref().map_or(&[][..], Invite::roots);
        let new: Vec<_> = roots.iter().filter(|root| !record.roots.contains(root)).cloned().collect();
        let is_new = name != record.name || !new.is_empty();
        record.name = name;
        for root in new {
            let former = record.roots.iter().position(|known| is_same_root(known, &root));
            let former = former.map(|at| record.roots.remove(at));
            record.roots.push(with_token_of(root, former));
        }
        is_new
    }

    /// Returns the request as a line, with the invite's secret.
    fn words(&self) -> Zeroizing<String> {
        let mut line = Zeroizing::new(format!("join network={}", self.network));
        if let Some(invite) = &self.invite {
            line.push_str(" invite=");
            line.push_str(&invite.to_text());
        }
        let names = [("wish", &self.wish), ("local", &self.local)];
        for (word, name) in names.into_iter().filter_map(|(word, name)| Some((word, name.as_ref()?))) {
            line.push_str(&format!(" {word}={name}"));
        }
        for root in &self.roots {
            line.push_str(" root=");
            line.push_str(&root.to_portable());
        }
        line
    }

    /// Reads a request. Returns `None` unless all its words are understood.
    pub(super) fn parse(words: SplitAsciiWhitespace<'_>) -> Option<JoinRequest> {
        let (mut network, mut invite, mut wish, mut local) = (None, None, None, None);
        let mut roots = Vec::new();
        for word in words {
            let (name, value) = word.split_once('=')?;
            match name {
                "network" => super::probe::once(&mut network, value)?,
                "invite" => super::probe::once(&mut invite, value)?,
                "wish" => super::probe::once(&mut wish, value)?,
                "local" => super::probe::once(&mut local, value)?,
                "root" => roots.extend(RootSource::parse_list(value).ok()?),
                _ => return None,
            }
        }
        let network = network.filter(|id: &NetworkId| id.is_managed())?;
        let is_meant = invite.as_ref().is_none_or(|invite: &Invite| invite.id() == network);
        is_meant.then_some(JoinRequest { network, invite, wish, local, roots })
    }
}

impl fmt::Debug for JoinRequest {
    /// Leaves out the invite and the roots, which may contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest").field("network", &self.network).finish_non_exhaustive()
    }
}

/// Reads the network of `leave network=ID`.
pub(super) fn parse_leave(mut words: SplitAsciiWhitespace<'_>) -> Option<NetworkId> {
    let network = words.next()?.strip_prefix("network=")?.parse().ok()?;
    words.next().is_none().then_some(network)
}

/// Answer of a node that leaves a network.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Left {
    /// True if the machine had joined it.
    pub(crate) left: bool,
}

/// Line of a node about its membership.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MembershipNews {
    standing: String,
    key: Option<String>,
    /// True once the node has kept a controller's newest revocations. Older nodes do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_up_to_date: Option<bool>,
}

impl MembershipNews {
    pub(crate) fn new(standing: &Standing, is_up_to_date: bool, key: Option<NetworkKey>) -> MembershipNews {
        MembershipNews {
            standing: standing.to_text(),
            key: key.map(|key| key.to_string()),
            is_up_to_date: Some(is_up_to_date),
        }
    }
}

/// Membership that a running node asks for, as long as this lives: the node leaves the network afterwards,
/// unless a program has joined it meanwhile.
#[derive(Debug)]
pub struct Joining {
    lines: BufReader<UnixStream>,
    socket: PathBuf,
    /// Beginning of a line whose rest has not come yet.
    partial: Vec<u8>,
    standing: Standing,
    key: Option<NetworkKey>,
    /// `None` if the node does not say.
    is_up_to_date: Option<bool>,
}

/// Lets the node that uses the state directory at `state` join a managed network, or ask for its membership
/// again if it has joined the network already. What it learns is kept in the directory.
///
/// # Errors
///
/// See [`ManagementError`]. The node refuses if it is older, has another key of the network, or no room.
pub fn join(state: &Path, request: &JoinRequest) -> Result<Joining, ManagementError> {
    let (socket, mut stream) = connected(state)?;
    let failed = |source| ManagementError::Io { path: socket.clone(), source };
    stream.set_write_timeout(Some(IO_TIMEOUT)).map_err(failed)?;
    stream.write_all(request.words().as_bytes()).and_then(|()| stream.write_all(b"\n")).map_err(failed)?;
    let mut joining = Joining {
        lines: BufReader::new(stream),
        socket: socket.clone(),
        partial: Vec::new(),
        standing: Standing::Asking,
        key: None,
        is_up_to_date: None,
    };
    match joining.read_line(FIRST_LINE).map_err(failed)? {
        Some(line) => joining.take(&line)?,
        None => return Err(super::silent(joining.lines.get_ref())),
    }
    Ok(joining)
}

/// Lets the node that uses the state directory at `state` leave a managed network for good: connections in
/// it end, and its credentials are forgotten. Returns false if the machine has not joined it.
///
/// # Errors
///
/// See [`ManagementError`].
pub fn leave(state: &Path, network: NetworkId) -> Result<bool, ManagementError> {
    let answer = request(state, &format!("leave network={network}"))?;
    let left: Left =
        serde_json::from_str(&answer).map_err(|_| not_understood(&StateDir::management_socket(state)))?;
    Ok(left.left)
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NetworkDown, "the running node has ended")
}

fn not_understood(path: &Path) -> ManagementError {
    let source = io::Error::new(io::ErrorKind::InvalidData, "its answer is not understood");
    ManagementError::Io { path: path.into(), source }
}

impl Joining {
    /// Returns the standing that was told last.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Returns the network's key, once it is known.
    pub fn key(&self) -> Option<NetworkKey> {
        self.key
    }

    /// Waits until the node is a member, and returns its standing then, or when `timeout` has passed. `told`
    /// hears the standing at first and after each change.
    ///
    /// # Errors
    /// Returns `NetworkDown` if the node has ended or left the network.
    pub fn wait_admitted(
        &mut self,
        timeout: Duration,
        mut told: impl FnMut(&Standing, Option<NetworkKey>),
    ) -> io::Result<Standing> {
        self.wait_until(timeout, |now| {
            told(&now.standing, now.key);
            now.standing == Standing::Member
        })?;
        Ok(self.standing.clone())
    }

    /// Waits until the node has kept the newest revocations of a controller, or until `timeout` has passed.
    /// Returns false in that case: the node may then accept a member that was removed before. A node of an
    /// older version does not say, and is not waited for.
    ///
    /// # Errors
    /// Returns `NetworkDown` if the node has ended or left the network.
    pub fn wait_up_to_date(&mut self, timeout: Duration) -> io::Result<bool> {
        self.wait_until(timeout, |now| now.is_up_to_date != Some(false))?;
        Ok(self.is_up_to_date.unwrap_or(true))
    }

    /// Waits until `is_enough`, which is called at first and after each message of the node, or until
    /// `timeout` has passed.
    fn wait_until(
        &mut self,
        timeout: Duration,
        mut is_enough: impl FnMut(&Joining) -> bool,
    ) -> io::Result<()> {
        let deadline = Instant::now().checked_add(timeout);
        while !is_enough(self) {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            match self.read_line(left)? {
                Some(line) => self.take_news(&line)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Reads a line; `None` if none comes in time.
    fn read_line(&mut self, within: Duration) -> io::Result<Option<Vec<u8>>> {
        use std::io::Read as _;
        // Zero would mean no limit.
        let within = within.clamp(Duration::from_millis(1), Duration::from_secs(3600));
        self.lines.get_ref().set_read_timeout(Some(within))?;
        let room = MAX_LINE.saturating_sub(self.partial.len() as u64);
        match (&mut self.lines).take(room).read_until(b'\n', &mut self.partial) {
            Ok(_) if self.partial.ends_with(b"\n") => Ok(Some(std::mem::take(&mut self.partial))),
            // A refusal has no end of a line.
            Ok(_) if self.partial.starts_with(b"{\"error\"") => Ok(Some(std::mem::take(&mut self.partial))),
            Ok(_) => Err(ended()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn take_news(&mut self, line: &[u8]) -> io::Result<()> {
        self.take(line).map_err(|error| match error {
            ManagementError::Io { source, .. } => source,
            error => io::Error::other(error),
        })
    }

    fn take(&mut self, line: &[u8]) -> Result<(), ManagementError> {
        if let Ok(Refusal { error, version }) = serde_json::from_slice(line) {
            return Err(match error == STOPPED {
                true => ManagementError::Io { path: self.socket.clone(), source: ended() },
                false => ManagementError::Refused { error, version },
            });
        }
        let news = serde_json::from_slice(line).ok();
        let read = news.and_then(|news: MembershipNews| {
            let key = news.key.map(|key| key.parse()).transpose().ok()?;
            Some((Standing::from_text(&news.standing)?, key, news.is_up_to_date))
        });
        let (standing, key, is_up_to_date) = read.ok_or_else(|| not_understood(&self.socket))?;
        (self.standing, self.key, self.is_up_to_date) = (standing, key, is_up_to_date);
        Ok(())
    }
}

/// Returns true if two roots are named by one key.
fn is_same_root(one: &RootSource, other: &RootSource) -> bool {
    match (one, other) {
        (RootSource::Address(one), RootSource::Address(other)) => one.identity() == other.identity(),
        _ => false,
    }
}

/// Returns a root with the access token of its former line, unless it has one.
fn with_token_of(root: RootSource, former: Option<RootSource>) -> RootSource {
    let (RootSource::Address(new), Some(RootSource::Address(former))) = (&root, &former) else { return root };
    match (new.token(), former.token()) {
        (None, Some(token)) => new.clone().with_token(token).map_or(root, RootSource::Address),
        _ => root,
    }
}

#[cfg(test)]
mod tests {
    use peersock_overlay::NodeId;
    use peersock_overlay::membership::{Code, Denial, NetworkSecret, Refusal as Refused, Token};

    use super::*;

    fn parse(line: &str) -> Option<JoinRequest> {
        let mut words = line.split_ascii_whitespace();
        assert_eq!(words.next(), Some("join"));
        JoinRequest::parse(words)
    }

    #[test]
    fn a_root_that_has_moved_replaces_its_former_endpoints_and_keeps_its_token() {
        let id: NetworkId = "e18a4c0277d19b3f".parse().expect("an ID");
        let key = NetworkSecret::from_seed(&[1; 32]).public();
        let root = |seed: u8, place: &str| {
            let identity = peersock_overlay::Identity::from_seed(&[seed; 32]);
            format!("{}@{place}", identity.public()).parse::<RootSource>().expect("a root")
        };
        let joins = |roots: Vec<RootSource>| {
            let invite =
                Invite::new(id, key, Token::from_bytes([2; 12]), &NodeId::from_bytes([3; 32]), roots);
            JoinRequest { invite: Some(invite), ..JoinRequest::new(id) }
        };
        let RootSource::Address(first) = root(1, "192.0.2.1:7420") else { panic!("an address") };
        let mut record = MembershipRecord::new(id, key);
        record.roots =
            vec![RootSource::Address(first.with_token("secret").expect("a token")), root(2, "192.0.2.2:1")];
        let moved = joins(vec![root(1, "192.0.2.9:7420")]);
        assert!(moved.note_in(&mut record));
        let RootSource::Address(now) = &record.roots[1] else { panic!("an address") };
        assert_eq!((record.roots.len(), &record.roots[0]), (2, &root(2, "192.0.2.2:1")));
        assert!(now.to_string().ends_with("@192.0.2.9:7420"), "{now}");
        assert_eq!(now.token(), Some(&b"secret"[..]));
        let before = record.roots.clone();
        moved.note_in(&mut record);
        assert_eq!(record.roots, before);
    }

    #[test]
    fn a_node_reads_what_a_program_asks_for_and_nothing_else() {
        let id: NetworkId = "e18a4c0277d19b3f".parse().expect("an ID");
        let plain = JoinRequest::new(id);
        let key = NetworkSecret::from_seed(&[1; 32]).public();
        let roots: Vec<RootSource> = vec!["dns:example.org".parse().expect("a root")];
        let node = NodeId::from_bytes([3; 32]);
        let invite = Invite::new(id, key, Token::from_bytes([2; 12]), &node, roots.clone());
        let full = JoinRequest {
            invite: Some(invite),
            wish: Some("beta".parse().expect("a name")),
            local: Some("team".parse().expect("a name")),
            roots,
            ..plain.clone()
        };
        for request in [&plain, &full] {
            let read = parse(&request.words()).expect("its own words");
            assert!(read == *request);
            assert!(!format!("{read:?}").contains("peersock://"));
        }
        let words = full.words();
        for (from, to) in [
            ("network=e18a4c0277d19b3f", "network=e18a4c0277d19b3e"),
            ("network=e18a4c0277d19b3f", "network=ff00500050000000"),
            ("network=e18a4c0277d19b3f ", ""),
            ("wish=beta", "wish=be.ta"),
            ("wish=beta", "wish=beta wish=beta"),
            ("local=", "other="),
            ("root=dns:", "root=nonsense:"),
        ] {
            let bad = words.replace(from, to);
            assert!(bad != *words && parse(&bad).is_none(), "{bad}");
        }
        let leave = |words: &str| parse_leave(words.split_ascii_whitespace());
        assert_eq!(leave("network=e18a4c0277d19b3f"), Some(id));
        for bad in ["", "network=", "network=e18a4c0277d19b3f now", "e18a4c0277d19b3f"] {
            assert_eq!(leave(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_standing_survives_its_text() {
        let code = Code::from_bits(12345);
        for standing in [
            Standing::Asking,
            Standing::Pending(code),
            Standing::Denied(Denial::UsedInvite),
            Standing::Refused(Refused::Revoked),
            Standing::Member,
        ] {
            assert_eq!(Standing::from_text(&standing.to_text()), Some(standing));
        }
        for bad in ["", "member now", "pending", "denied 0", "refused x", "pending 0"] {
            assert_eq!(Standing::from_text(bad), None, "{bad}");
        }
        // A reason of a later version is a denial nevertheless.
        assert_eq!(Standing::from_text("denied 250"), Some(Standing::Denied(Denial::Refused)));
    }
}
