//! The words for the presence of members, the same in `members`, `status` and `top`.

use std::fmt;

use anstyle::{AnsiColor, Style};
use peersock::{NetworkStatus, PeerStatus, Presence, Status};
use serde::Serialize;

use crate::path;
use crate::status::age;

/// Style of members that are online.
pub(crate) const ONLINE: Style = AnsiColor::Green.on_default();

/// Returns words for the standing of this machine in a managed network that has no member of it; `None` for
/// other standings.
pub(crate) fn words_of_refusal(standing: &str) -> Option<&'static str> {
    Some(match standing {
        "removed" => "removed from this network by its controller",
        "denied" => "denied by this network's controller",
        "refused" => "removed from this network, as a member says",
        _ => return None,
    })
}

/// Style of things in the background.
pub(crate) const DIM: Style = Style::new().dimmed();

/// Silence after which a member without a session counts as offline, seconds. It sends a beacon every 30 s.
const SILENCE_S: f64 = 120.0;

/// Presence of a member, as far as the node can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Standing {
    /// The queried node.
    This,
    /// There is a session with the member, or it gave a sign lately.
    Online,
    /// The member said goodbye, fell silent, or has not answered.
    Offline,
    /// The node has had no sign of the member since it started.
    NeverSeen,
    /// A controller has removed the member; a session with it may still exist.
    Removed,
}

impl Standing {
    pub(crate) fn of(peer: &PeerStatus) -> Standing {
        match last_sign_s(peer) {
            _ if is_removed(peer) => Standing::Removed,
            _ if peer.connected => Standing::Online,
            None if peer.state == Presence::Gone => Standing::Offline,
            None => Standing::NeverSeen,
            Some(last) if peer.state != Presence::Gone && last < SILENCE_S => Standing::Online,
            Some(_) => Standing::Offline,
        }
    }

    /// Returns the presence of a member that was asked within the last `asked_s` seconds: then only a session
    /// with a sign since then counts.
    pub(crate) fn of_asked(peer: &PeerStatus, asked_s: f64) -> Standing {
        match (last_sign_s(peer), peer.last_seen_s) {
            _ if is_removed(peer) => Standing::Removed,
            (_, Some(seen)) if peer.connected && seen <= asked_s => Standing::Online,
            (Some(_), _) => Standing::Offline,
            (None, _) => Standing::NeverSeen,
        }
    }

    pub(crate) fn style(self) -> Style {
        match self {
            Standing::This | Standing::NeverSeen => Style::new(),
            Standing::Online => ONLINE,
            Standing::Offline | Standing::Removed => DIM,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Standing::This => "this node",
            Standing::Online => "online",
            Standing::Offline => "offline",
            Standing::NeverSeen => "never seen",
            Standing::Removed => "removed",
        })
    }
}

/// Numbers of members by their presence, without the node itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    online: usize,
    offline: usize,
    never_seen: usize,
    removed: usize,
}

impl Counts {
    /// Counts the members of a network in a node's answer, which may not list all of them.
    pub(crate) fn of(answer: &Status, network: &NetworkStatus) -> Counts {
        let peers = answer.peers.iter().filter(|peer| peer.network == network.id);
        let mut counts = Counts::sum(peers.map(Standing::of));
        let listed = counts.online + counts.offline + counts.never_seen + counts.removed;
        let unlisted = network.peers.saturating_sub(listed);
        // The ones heard of last are listed first, so the others are hardly online.
        *if network.closed { &mut counts.never_seen } else { &mut counts.offline } += unlisted;
        counts
    }

    pub(crate) fn of_all(answer: &Status) -> Counts {
        let networks = answer.networks.iter().map(|network| Counts::of(answer, network));
        networks.fold(Counts::default(), |sum, one| Counts {
            online: sum.online + one.online,
            offline: sum.offline + one.offline,
            never_seen: sum.never_seen + one.never_seen,
            removed: sum.removed + one.removed,
        })
    }

    pub(crate) fn sum(standings: impl Iterator<Item = Standing>) -> Counts {
        let mut counts = Counts::default();
        for standing in standings {
            match standing {
                Standing::This => {}
                Standing::Online => counts.online += 1,
                Standing::Offline => counts.offline += 1,
                Standing::NeverSeen => counts.never_seen += 1,
                Standing::Removed => counts.removed += 1,
            }
        }
        counts
    }

    pub(crate) fn get(&self, standing: Standing) -> usize {
        match standing {
            Standing::This => 0,
            Standing::Online => self.online,
            Standing::Offline => self.offline,
            Standing::NeverSeen => self.never_seen,
            Standing::Removed => self.removed,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} online, {} offline", self.online, self.offline)?;
        // Members of ad-hoc networks are known by their signs only.
        if self.never_seen > 0 {
            write!(f, ", {} never seen", self.never_seen)?;
        }
        if self.removed > 0 {
            write!(f, ", {} removed", self.removed)?;
        }
        Ok(())
    }
}

/// Returns true if a controller has removed the peer from its network, as the node knows.
pub(crate) fn is_removed(peer: &PeerStatus) -> bool {
    peer.standing.as_deref() == Some("removed")
}

/// Returns the time since the last sign of a member, seconds.
fn last_sign_s(peer: &PeerStatus) -> Option<f64> {
    [peer.last_seen_s, peer.last_heard_s].into_iter().flatten().min_by(f64::total_cmp)
}

/// Returns a text about a member besides its standing: its path, or its last sign.
pub(crate) fn detail(peer: &PeerStatus, standing: Standing) -> String {
    match (standing, peer.path_kind(), last_sign_s(peer)) {
        (Standing::Online, Some("root"), _) => {
            // The beginning of an ID suffices for people.
            peer.root.map_or_else(String::new, |root| format!("relayed by root {root:.8}"))
        }
        (Standing::Online, Some(_), _) => path::way(peer).unwrap_or_default().to_owned(),
        (Standing::This, ..) | (_, _, None) => String::new(),
        _ => last_sign(peer),
    }
}

/// Returns the last sign of a member.
pub(crate) fn last_sign(peer: &PeerStatus) -> String {
    match (peer.last_seen_s, peer.last_heard_s) {
        (Some(seen), heard) if peer.connected || heard.is_none_or(|heard| seen <= heard) => {
            format!("seen {} ago", age(seen))
        }
        (_, Some(heard)) => format!("heard {} ago", age(heard)),
        _ => Standing::NeverSeen.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::status::fixtures;

    fn peer(state: &str, seen: Option<f64>, heard: Option<f64>) -> PeerStatus {
        let status = fixtures::status(json!({
            "node_id": "aa", "uptime_s": 1, "endpoints": [], "networks": [], "flows": {"total": 0},
            "counters": {},
            "peers": [{"id": "bb", "network": "ff01", "addresses": [], "connected": state == "connected",
                       "state": state, "path": null, "last_seen_s": seen, "last_heard_s": heard}],
        }));
        status.peers[0].clone()
    }

    #[test]
    fn a_member_is_online_with_a_session_or_a_sign_of_late() {
        for (peer, standing, words) in [
            (peer("connected", Some(1.0), None), Standing::Online, "direct"),
            (peer("known", None, Some(30.0)), Standing::Online, "heard 30 s ago"),
            (peer("known", Some(119.0), Some(3600.0)), Standing::Online, "seen 1 min 59 s ago"),
            (peer("known", Some(121.0), None), Standing::Offline, "seen 2 min 1 s ago"),
            (peer("gone", Some(1.0), Some(1.0)), Standing::Offline, "seen 1 s ago"),
            (peer("gone", None, None), Standing::Offline, ""),
            (peer("known", None, None), Standing::NeverSeen, ""),
        ] {
            assert_eq!((Standing::of(&peer), detail(&peer, standing).as_str()), (standing, words));
        }
    }

    #[test]
    fn a_removed_member_is_no_member_whatever_its_session() {
        for state in ["connected", "known", "gone"] {
            let mut removed = peer(state, Some(1.0), None);
            removed.standing = Some("removed".into());
            assert_eq!(Standing::of(&removed), Standing::Removed);
            assert_eq!(Standing::of_asked(&removed, 5.0), Standing::Removed);
            assert_eq!(detail(&removed, Standing::Removed), "seen 1 s ago");
            let counts = Counts::sum([Standing::Online, Standing::Removed].into_iter());
            assert_eq!(counts.to_string(), "1 online, 0 offline, 1 removed");
        }
    }

    #[test]
    fn a_member_that_was_asked_is_online_only_if_it_has_answered() {
        for (peer, standing) in [
            (peer("connected", Some(1.0), None), Standing::Online),
            (peer("connected", Some(9.0), None), Standing::Offline),
            (peer("known", None, Some(1.0)), Standing::Offline),
            (peer("known", None, None), Standing::NeverSeen),
        ] {
            assert_eq!(Standing::of_asked(&peer, 5.0), standing);
        }
    }
}
