//! Visits: networks that a node joins because another program of its user asks for a membership, until that
//! program has its answer. The node leaves them afterwards, unless a program has joined them meanwhile.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use peersock_overlay::membership::CertifyRequest;
use peersock_overlay::{JoinError, NetworkConfig, NetworkId, NetworkIndex};

use super::{Inner, Joined, Node, Standing};
use crate::config::Network;
use crate::management::{
    Answer, Client, EffectOfRules, EffectRequest, JoinRequest, Left, MembershipNews, STOPPED,
};
use crate::state::{NameClaim, StateDir, StateError};
use crate::sync;

/// Time for which a visit keeps the node running: it looks that often for the end of its client, and asks
/// for the controller that the invite names.
const SLICE: Duration = Duration::from_secs(1);

/// Networks for which programs wait.
#[derive(Debug, Default)]
pub(super) struct Visits {
    by_network: BTreeMap<NetworkId, Visit>,
    /// Number of the last visit.
    last: u64,
}

#[derive(Debug)]
struct Visit {
    /// Programs of an earlier visit, which the machine's user has ended, are not counted in this one.
    number: u64,
    /// Number of programs that wait.
    programs: usize,
    /// True if the node is in the network for them alone.
    is_joined: bool,
}

impl Visits {
    /// Counts one more program that waits. Returns the number of the visit.
    fn begin(&mut self, network: NetworkId) -> u64 {
        let visit = self.by_network.entry(network).or_insert_with(|| {
            self.last += 1;
            Visit { number: self.last, programs: 0, is_joined: false }
        });
        visit.programs += 1;
        visit.number
    }

    fn goes_on(&self, network: NetworkId, number: u64) -> bool {
        self.by_network.get(&network).is_some_and(|visit| visit.number == number)
    }

    /// Notes the end of a program's wait. Returns true if the node has to leave the network.
    fn end(&mut self, network: NetworkId, number: u64) -> bool {
        let Some(visit) = self.by_network.get_mut(&network).filter(|visit| visit.number == number) else {
            return false;
        };
        visit.programs = visit.programs.saturating_sub(1);
        visit.programs == 0 && self.by_network.remove(&network).is_some_and(|visit| visit.is_joined)
    }

    /// Notes that the node has joined a network for programs that wait.
    pub(super) fn note_joined(&mut self, network: NetworkId) {
        if let Some(visit) = self.by_network.get_mut(&network) {
            visit.is_joined = true;
        }
    }

    /// Notes that the node leaves a network.
    pub(super) fn note_left(&mut self, network: NetworkId) {
        self.take(network);
    }

    /// Takes a network that the node has joined for programs that wait. Returns false if it has not.
    fn take(&mut self, network: NetworkId) -> bool {
        self.by_network.get_mut(&network).is_some_and(|visit| std::mem::take(&mut visit.is_joined))
    }

    /// Ends all waits for a network, which its user leaves for good.
    fn expel(&mut self, network: NetworkId) {
        self.by_network.remove(&network);
    }
}

impl Node {
    /// Joins a network in which the node is for programs that wait alone. Returns `None` if it is not.
    pub(super) fn take_over(&self, network: &Network) -> Result<Option<Joined>, JoinError> {
        let id = network.id();
        let _membership = sync::lock(&self.inner.membership);
        let Some(joined) = self.network(id).filter(|_| sync::lock(&self.inner.visits).take(id)) else {
            return Ok(None);
        };
        let request = joined.pin(network.clone())?;
        if let Some(CertifyRequest { token: token @ Some(_), name, .. }) = request {
            joined.ask_again(token, name);
        }
        Ok(Some(joined))
    }

    /// Leaves a network in which the node is for programs that wait alone: they join it again as it is then.
    pub(super) fn end_visit(&self, network: NetworkId) {
        let _membership = sync::lock(&self.inner.membership);
        if sync::lock(&self.inner.visits).take(network) {
            self.leave_locked(network);
        }
    }
}

impl Joined {
    /// Fixes the network's key if a description has it. Returns the request of the description.
    fn pin(&self, network: Network) -> Result<Option<CertifyRequest>, JoinError> {
        let NetworkConfig::Managed(config) = network.into_config() else { return Ok(None) };
        if let Some(key) = config.key {
            self.set_key(key)?;
        }
        Ok(Some(config.request))
    }
}

/// A program's wait, until it is dropped.
struct Waiting<'a> {
    node: &'a Weak<Inner>,
    network: NetworkId,
    /// Number of the visit.
    visit: u64,
}

impl<'a> Waiting<'a> {
    fn begin(node: &'a Weak<Inner>, network: NetworkId) -> Result<Waiting<'a>, &'static str> {
        let inner = node.upgrade().filter(|inner| !inner.is_down()).ok_or(STOPPED)?;
        // After the end of an earlier visit, which leaves the network.
        let _membership = sync::lock(&inner.membership);
        let visit = sync::lock(&inner.visits).begin(network);
        Ok(Waiting { node, network, visit })
    }

    /// Returns the network, in which the node asks as the request says. The node joins it if it is not in it.
    /// The result keeps the node running. `asked` is the handle of the network in which it asks already.
    fn joined(
        &self,
        request: &JoinRequest,
        asked: &mut Option<NetworkIndex>,
    ) -> Result<Joined, Cow<'static, str>> {
        let node = Node { inner: self.node.upgrade().ok_or(STOPPED)? };
        if node.inner.is_down() {
            return Err(STOPPED.into());
        }
        if !sync::lock(&node.inner.visits).goes_on(self.network, self.visit) {
            return Err(format!("network {} was left by another program", self.network).into());
        }
        let described = || request.described().map_err(|error| error.to_string());
        let failed = |error: JoinError| error.to_string();
        if node.network(self.network).is_none() {
            match node.join_for(described()?, None, true) {
                Ok(joined) => {
                    *asked = Some(joined.index());
                    return Ok(joined);
                }
                // By another program, in between.
                Err(JoinError::AlreadyJoined(_)) => {}
                Err(error) => return Err(failed(error).into()),
            }
        }
        let joined = node.network(self.network).ok_or(STOPPED)?;
        // Another program has joined it, perhaps after the node was killed, and does not have this invite.
        if asked.replace(joined.index()) != Some(joined.index()) {
            let network = described()?;
            node.add_roots_of_network(network.roots().to_vec(), Vec::new());
            if let Some(CertifyRequest { token, name, .. }) = joined.pin(network).map_err(failed)? {
                joined.ask_again(token, name);
            }
        }
        Ok(joined)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(node) = self.node.upgrade().map(|inner| Node { inner }) else { return };
        let _membership = sync::lock(&node.inner.membership);
        if sync::lock(&node.inner.visits).end(self.network, self.visit) && !node.inner.is_down() {
            node.leave_locked(self.network);
        }
    }
}

/// Tells a program of the node's membership in a network until the program hangs up.
pub(super) fn serve(node: &Weak<Inner>, request: &JoinRequest, client: &Client) -> Answer {
    let waiting = Waiting::begin(node, request.network)?;
    let _claim = begin(node, request)?;
    let (mut asked, mut told) = (None, None::<(Standing, bool, _)>);
    while !client.has_left() {
        let joined = waiting.joined(request, &mut asked)?;
        if let Some(invite) = &request.invite
            && told.as_ref().is_none_or(|(standing, ..)| *standing != Standing::Member)
        {
            // Its session shows the controller, and the roots know the way to it.
            joined.ask(invite.controller_address().into());
        }
        let key = |joined: &Joined| joined.membership().and_then(|known| known.key);
        let is_new = |standing: &Standing, is_up_to_date: bool| {
            told.as_ref().is_none_or(|(last, before, _)| (last, *before) != (standing, is_up_to_date))
        };
        // The network may be left meanwhile, and is joined again then.
        let Ok((standing, is_up_to_date)) = joined.wait_word(SLICE, |_| (), is_new) else { continue };
        let news = (standing, is_up_to_date, key(&joined));
        // A program that has gone may not rename what another one has named since.
        if told.as_ref() != Some(&news) && !client.has_left() {
            joined.keep_names(request);
            let line = serde_json::to_string(&MembershipNews::new(&news.0, news.1, news.2));
            let line = line.map_err(|_| "the standing cannot be written down")?;
            if client.tell(&line).is_err() {
                break;
            }
            told = Some(news);
        }
    }
    Ok(String::new())
}

/// Uses the roots of a request, and claims the network's local name until the result is dropped.
fn begin(node: &Weak<Inner>, request: &JoinRequest) -> Result<Option<NameClaim>, Cow<'static, str>> {
    let node = Node { inner: node.upgrade().ok_or(STOPPED)? };
    node.add_roots(request.roots.clone());
    let (Some(local), Some(state)) = (&request.local, &node.inner.state) else { return Ok(None) };
    match StateDir::claim_name(state.path(), local, Some(request.network)) {
        Ok(claim) => Ok(Some(claim)),
        Err(error @ StateError::NameTaken { .. }) => Err(error.to_string().into()),
        Err(error) => {
            tracing::warn!(%error, "the local name of a managed network is not claimed");
            Ok(None)
        }
    }
}

/// Leaves a network for good. The answer says whether the machine had joined it.
pub(super) fn leave(node: &Weak<Inner>, network: NetworkId) -> Answer {
    let node = Node { inner: node.upgrade().ok_or(STOPPED)? };
    let state = node.inner.state.as_ref().ok_or("it has no state directory")?;
    if node.network(network).is_some_and(|joined| joined.is_served()) {
        return Err(format!("a controller serves network {network} here, so end it first").into());
    }
    let forgotten = {
        let _membership = sync::lock(&node.inner.membership);
        sync::lock(&node.inner.visits).expel(network);
        node.leave_locked(network);
        // Within the lock, so that no thread joins with what is about to be forgotten.
        state.forget_membership(network)
    };
    let had = forgotten.map_err(|error| error.to_string())?;
    serde_json::to_string(&Left { left: had }).map_err(|_| "the answer cannot be written down".into())
}

/// Says which open flows of the node some rules would end.
pub(super) fn effect(node: &Weak<Inner>, request: &EffectRequest) -> Answer {
    let node = node.upgrade().ok_or(STOPPED)?;
    let datapath = &node.driver.datapath;
    let network = datapath.network(request.network).ok_or("it is not in this network")?;
    let effect = datapath.effect_of(Instant::now(), network.index, &request.rules);
    let effect = EffectOfRules::of(&effect.ok_or("it cannot read these rules")?);
    serde_json::to_string(&effect).map_err(|_| "the answer cannot be written down".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_earlier_visit_ends_no_later_one() {
        let network = "e18a4c0277d19b3f".parse().expect("an ID");
        let mut visits = Visits::default();
        let first = visits.begin(network);
        assert_eq!(visits.begin(network), first);
        visits.note_joined(network);
        visits.expel(network);
        let second = visits.begin(network);
        visits.note_joined(network);
        assert!(!visits.goes_on(network, first) && visits.goes_on(network, second));
        // The programs of the first one notice later that it is over.
        assert!(!visits.end(network, first) && !visits.end(network, first));
        assert!(visits.goes_on(network, second));
        assert!(visits.end(network, second), "the node was in the network for it alone");
        assert!(!visits.goes_on(network, second));
        // A network that a program has taken over stays.
        let third = visits.begin(network);
        visits.note_joined(network);
        assert!(visits.take(network) && !visits.end(network, third));
    }
}
