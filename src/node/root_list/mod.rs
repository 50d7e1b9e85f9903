//! Roots that a node uses: named ones, ones that domains list, and ones that announce themselves on the local
//! networks.
//!
//! Each domain has a thread, because DNS queries block; so do announcements. A new result of a source
//! replaces its earlier one. The node uses the union: first the roots named by their keys, then those of its
//! networks, which invites and files have named before, then the others in the order of their sources.

mod cache;
#[cfg_attr(not(feature = "dns"), path = "no_dns.rs")]
mod dns;
mod lan;
mod once;

use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::resolver::ask_system;
use super::{Inner, RootListStatus, roots};
use crate::config::{RootAddress, RootDomain, RootSource};
use crate::sync;
use cache::Cache;
pub(crate) use once::ask_lists;
use peersock_datapath::{Heard, Subscription};
use peersock_overlay::{MAX_ROOTS, NodeId};

/// Limit of roots that one domain can list.
const MAX_LISTED: usize = 8;

/// Limit of domains that are asked.
const MAX_DOMAINS: usize = 4;

/// Timeouts of a nameserver: of the first query, when a stored list may help, and of later ones.
const FIRST_QUERY_TIMEOUT: Duration = Duration::from_secs(1);
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Minimum and maximum of the backoff after a failed query of a domain.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Parses the roots in a nameserver's answer, with their validity. Returns `None` if there are none, or the
/// message does not answer this query. For the fuzz targets.
#[cfg(feature = "dns")]
pub fn listed_in(answer: &[u8], question: Option<&[u8]>) -> Option<(Vec<RootAddress>, Duration)> {
    let is_its = question.is_none_or(|question| dns::check(answer, question).is_ok());
    let listed = is_its.then(|| dns::read(answer).ok()).flatten()?;
    Some((listed.roots, listed.ttl))
}

/// Function that adds one root.
type Add = fn(&mut Parts, RootAddress);

/// Sources of a node's roots, followed until the node ends.
pub(super) struct RootLists(Arc<List>);

impl RootLists {
    /// Begins without sources.
    pub(super) fn new(node: &Arc<Inner>) -> RootLists {
        RootLists(Arc::new(List::new(node)))
    }

    /// Makes the node use the roots of more sources. Returns false if there are too many roots or domains.
    pub(super) fn add(&self, node: &Arc<Inner>, sources: Vec<RootSource>) -> bool {
        self.add_with(node, [(sources, Parts::add_named)], Cache::of_user().as_ref())
    }

    /// Does the same with the roots of a network, behind those that the user has named. Those that an invite
    /// or a file names now come before `kept` ones of an earlier one, at which a root may be no more.
    pub(super) fn add_of_network(&self, node: &Arc<Inner>, now: Vec<RootSource>, kept: Vec<RootSource>) {
        let groups: [(_, Add); 2] = [(now, Parts::renew_of_network), (kept, Parts::add_of_network)];
        self.add_with(node, groups, Cache::of_user().as_ref());
    }

    /// Adds groups of sources, and publishes once. The function of a group adds each of its roots.
    fn add_with(
        &self,
        node: &Arc<Inner>,
        groups: impl IntoIterator<Item = (Vec<RootSource>, impl Fn(&mut Parts, RootAddress))>,
        cache: Option<&Cache>,
    ) -> bool {
        let list = &self.0;
        let (mut domains, mut lan, mut has_more_domains) = (Vec::new(), None, false);
        let mut given = Vec::new();
        let has_more_roots;
        {
            let mut parts = sync::lock(&list.parts);
            for (sources, add) in groups {
                for source in sources {
                    match source {
                        RootSource::Address(root) => {
                            given.push(root.identity().node_id());
                            add(&mut parts, root);
                        }
                        source if parts.followed.contains(&source) => {}
                        RootSource::Dns(_) if parts.domains() == MAX_DOMAINS => has_more_domains = true,
                        RootSource::Dns(domain) => {
                            domains.push((parts.follow(RootSource::Dns(domain.clone())), domain));
                        }
                        RootSource::Lan => lan = Some(parts.follow(RootSource::Lan)),
                    }
                }
            }
            has_more_roots = parts.leaves_out(&given);
            list.publish(&mut parts);
        }
        if has_more_roots {
            tracing::warn!(most = MAX_ROOTS, "no further root is used");
        }
        if has_more_domains {
            tracing::warn!(most = MAX_DOMAINS, "no further domain is asked for roots");
        }
        for (part, domain) in domains {
            let (list, cache) = (Arc::clone(list), cache.cloned());
            let events = node.driver.datapath.subscribe();
            spawn("peersock-dns", move || follow(&list, part, &domain, cache.as_ref(), &events));
        }
        if let Some(part) = lan {
            lan::start(node, Arc::clone(list), part);
        }
        !has_more_domains && !has_more_roots
    }

    /// Removes roots that were named by their keys.
    pub(super) fn remove(&self, sources: &[RootSource]) {
        let mut parts = sync::lock(&self.0.parts);
        let is_removed = |root: &RootAddress| {
            sources.iter().any(|one| matches!(one, RootSource::Address(its) if its == root))
        };
        let before = parts.named.len();
        parts.named.retain(|root| !is_removed(root));
        if parts.named.len() != before {
            self.0.publish(&mut parts);
        }
    }
}

fn spawn(name: &str, job: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.into()).spawn(job) {
        tracing::warn!(%error, "a source of roots is not used");
    }
}

/// Roots found by all sources.
struct List {
    node: Weak<Inner>,
    used: Arc<roots::Used>,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    /// Roots named by their keys. They come first, so that a list can neither replace one nor change its
    /// endpoints.
    named: Vec<RootAddress>,
    /// Roots that networks have, by invites and files, one for each key. They come second: who names a root
    /// at another place knows that it has moved.
    of_networks: Vec<RootAddress>,
    /// Other sources.
    followed: Vec<RootSource>,
    /// The roots that each of them has found.
    found: Vec<Vec<RootAddress>>,
    /// True once there were any roots.
    is_used: bool,
}

impl Parts {
    /// Adds a root that the user has named. The first entry of a key counts, up to the limit.
    fn add_named(&mut self, root: RootAddress) {
        if !self.named.contains(&root) {
            self.named.push(root);
        }
    }

    /// Adds a root of a network, unless one with its key is known.
    fn add_of_network(&mut self, root: RootAddress) {
        if !self.of_networks.iter().any(|known| known.identity() == root.identity()) {
            self.of_networks.push(root);
        }
    }

    /// Adds a root of a network, in place of one with its key.
    fn renew_of_network(&mut self, root: RootAddress) {
        match self.of_networks.iter_mut().find(|known| known.identity() == root.identity()) {
            Some(known) => *known = root.with_token_of(known),
            None => self.of_networks.push(root),
        }
    }

    /// Returns all roots, those that count first. Of each key the first one counts, and it has the token of
    /// another one if it has none.
    fn all(&self) -> Vec<RootAddress> {
        let of_network =
            |root: &RootAddress| self.of_networks.iter().find(|known| known.identity() == root.identity());
        let named = self.named.iter().map(|root| match of_network(root) {
            Some(known) => root.clone().with_token_of(known),
            None => root.clone(),
        });
        named.chain(self.of_networks.iter().cloned()).chain(self.found.iter().flatten().cloned()).collect()
    }

    /// Adds a source; returns its number.
    fn follow(&mut self, source: RootSource) -> usize {
        self.followed.push(source);
        self.found.push(Vec::new());
        self.found.len() - 1
    }

    /// Returns true if one of these roots is beyond the limit of roots.
    fn leaves_out(&self, roots: &[NodeId]) -> bool {
        let mut used = Vec::new();
        let roots_by_key = self.named.iter().chain(&self.of_networks);
        for root in roots_by_key.map(|root| root.identity().node_id()) {
            if used.len() < MAX_ROOTS && !used.contains(&root) {
                used.push(root);
            }
        }
        roots.iter().any(|root| !used.contains(root))
    }

    fn domains(&self) -> usize {
        self.followed.iter().filter(|source| matches!(source, RootSource::Dns(_))).count()
    }
}

impl List {
    fn new(node: &Arc<Inner>) -> List {
        let used = roots::Used::new(node, Box::new(ask_system));
        List { node: Arc::downgrade(node), used, parts: Mutex::default() }
    }

    /// Replaces the roots that a source found before.
    fn set(&self, part: usize, roots: Vec<RootAddress>) {
        // Marked, because such roots are not asked for nicknames beside one that the user has named.
        let roots: Vec<_> = roots.into_iter().map(RootAddress::listed).collect();
        let mut parts = sync::lock(&self.parts);
        if parts.found[part] != roots {
            parts.found[part] = roots;
            self.publish(&mut parts);
        }
    }

    /// Stores the last result of a list, for the status.
    fn note(&self, source: &RootSource, roots: usize, error: Option<String>) {
        let Some(node) = self.node.upgrade() else { return };
        let status = RootListStatus::new(source, roots, error);
        let mut lists = sync::lock(&node.root_lists);
        match lists.iter_mut().find(|known| known.source == status.source) {
            Some(known) => *known = status,
            None => lists.push(status),
        }
    }

    fn publish(&self, parts: &mut Parts) {
        let all = parts.all();
        // An empty list is only published if it replaces roots, because publishing starts the node's contact
        // search.
        if parts.is_used || !all.is_empty() {
            parts.is_used = true;
            self.used.set(&all);
        }
    }
}

/// Keeps the list of a domain's roots up to date until the node ends.
fn follow(list: &List, part: usize, domain: &RootDomain, cache: Option<&Cache>, events: &Subscription) {
    let (mut patience, mut retry) = (FIRST_QUERY_TIMEOUT, MIN_BACKOFF);
    let (mut has_list, mut kept) = (false, 0);
    let source = RootSource::Dns(domain.clone());
    while !events.is_over() {
        let told = dns::look_up(domain, patience);
        let is_told = told.is_ok();
        let wait = match told {
            Ok(listed) => {
                let roots = listed.roots.len();
                tracing::debug!(%domain, roots, "a domain lists roots");
                if let Some(Err(error)) = cache.map(|cache| cache.write(domain, &listed.roots)) {
                    tracing::debug!(%error, "the list of roots is not kept");
                }
                list.note(&source, roots, None);
                list.set(part, listed.roots);
                (has_list, retry) = (true, MIN_BACKOFF);
                kept = roots;
                listed.ttl
            }
            Err(error) => {
                tracing::debug!(%domain, %error, "a domain does not tell its roots");
                if !has_list {
                    let roots = cache.map(|cache| cache.read(domain)).unwrap_or_default();
                    warn_of_no_list(&error, roots.len());
                    kept = roots.len();
                    list.set(part, roots);
                    has_list = true;
                }
                list.note(&source, kept, Some(error.to_string()));
                let wait = retry;
                retry = MAX_BACKOFF.min(retry * 2);
                wait
            }
        };
        patience = QUERY_TIMEOUT;
        let asked = Instant::now();
        let mut end = asked + wait;
        // Peers' events do not matter here; the end of the node wakes this thread, too.
        while !events.is_over() && Instant::now() < end {
            let heard = events.next_or_change(end.saturating_duration_since(Instant::now()));
            // A list that was received stays valid in another network.
            if matches!(heard, Heard::NetworkChange) && !is_told {
                (end, retry) = (end.min(asked + MIN_BACKOFF), MIN_BACKOFF);
            }
        }
    }
}

/// Warns that a domain has no list for this node now.
fn warn_of_no_list(error: &io::Error, kept: usize) {
    // The text does not name the domain, because readers of a log need not know it; -vv logs it.
    let why = match error.kind() {
        io::ErrorKind::NotFound => "the DNS has no list of roots under the domain that was named",
        _ => "the DNS does not answer which roots there are",
    };
    match kept {
        0 => {
            tracing::warn!(
                "{why}, and none was kept from earlier; the node asks again (-vv names the domain)"
            )
        }
        kept => {
            tracing::warn!("{why}; those listed earlier are used, {kept} in all, and the node asks again")
        }
    }
}

#[cfg(all(test, feature = "dns"))]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use peersock_overlay::{Identity, NodeId};

    use super::*;
    use crate::{IdentitySource, Interfaces, Node};

    /// Limits the duration of a hang.
    const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

    fn node() -> Node {
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let builder = builder.discovery(false).roots(Vec::<RootSource>::new());
        builder.start().expect("loopback sockets")
    }

    fn wait_for(node: &Node, wanted: &[NodeId]) {
        let since = Instant::now();
        loop {
            let roots: Vec<_> = node.status().roots.into_iter().map(|root| root.id).collect();
            if roots == wanted {
                return;
            }
            assert!(since.elapsed() < QUERY_TIMEOUT, "{roots:?} are not {wanted:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_for_kept(cache: &Cache, domain: &RootDomain, wanted: &[RootAddress]) {
        let since = Instant::now();
        while cache.read(domain) != wanted {
            assert!(since.elapsed() < QUERY_TIMEOUT, "the list is not kept");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_a_domain_lists_is_used_kept_and_used_again_when_the_dns_is_silent() {
        let place = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(place.path().join("cache"));
        let key = |seed: u8| *Identity::from_seed(&[seed; 32]).public();
        let named: RootAddress = format!("{}@127.0.0.1:9", key(1)).parse().expect("a root");
        let listed = format!("{}@127.0.0.1:11", key(2));
        let text = listed.clone();
        let (domain, serving) =
            dns::tests::nameserver(move |question| vec![dns::tests::reply(question, &[&text], 60)], None);
        let alpha = node();
        let sources = vec![RootSource::Dns(domain.clone()), RootSource::Address(named.clone())];
        RootLists::new(&alpha.inner).add_with(&alpha.inner, [(sources, Parts::add_named)], Some(&cache));
        wait_for(&alpha, &[key(1).node_id(), key(2).node_id()]);
        wait_for_kept(&cache, &domain, &[listed.parse().expect("a root")]);
        serving.join().expect("no panic");

        let silent = UdpSocket::bind(domain.server().expect("it is named")).expect("nobody has it any more");
        let beta = node();
        let of_beta = vec![RootSource::Dns(domain.clone())];
        RootLists::new(&beta.inner).add_with(&beta.inner, [(of_beta, Parts::add_named)], Some(&cache));
        wait_for(&beta, &[key(2).node_id()]);
        let said = loop {
            if let [said] = &beta.root_lists()[..] {
                break said.clone();
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!((said.source, said.roots), (format!("dns:{domain}"), 1));
        assert!(said.error.is_some_and(|error| error.contains("does not answer")));

        // Without a stored list, the roots named by their keys are used all the same.
        let gamma = node();
        let of_gamma = vec![RootSource::Dns(domain), named.into()];
        RootLists::new(&gamma.inner).add_with(&gamma.inner, [(of_gamma, Parts::add_named)], None);
        wait_for(&gamma, &[key(1).node_id()]);
        drop(silent);
    }

    /// The answers of two nameservers about a domain are stored separately.
    #[test]
    fn a_list_is_kept_for_the_nameserver_that_told_it() {
        let place = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(place.path().join("cache"));
        let domain = |text: &str| -> RootDomain { text.parse().expect("a domain") };
        let names = ["example.org", "example.org@127.0.0.1:5353", "example.org@[::1]:5353"].map(domain);
        let root = |seed: u8| -> RootAddress {
            format!("{}@127.0.0.1:9", Identity::from_seed(&[seed; 32]).public()).parse().expect("a root")
        };
        for (seed, domain) in (1..).zip(&names) {
            cache.write(domain, &[root(seed)]).expect("room");
        }
        for (seed, domain) in (1..).zip(&names) {
            assert_eq!(cache.read(domain), [root(seed)], "{domain}");
        }
    }

    #[test]
    fn roots_of_later_sources_are_added_once() {
        let node = node();
        let root = |seed: u8| -> RootSource {
            let key = *Identity::from_seed(&[seed; 32]).public();
            RootSource::Address(format!("{key}@127.0.0.1:9").parse().expect("a root"))
        };
        let ids = |seeds: &[u8]| -> Vec<_> {
            seeds.iter().map(|seed| Identity::from_seed(&[*seed; 32]).node_id()).collect()
        };
        let used = || node.roots().iter().map(|root| root.id).collect::<Vec<_>>();
        assert!(node.add_roots([root(1), root(2)]));
        assert_eq!(used(), ids(&[1, 2]));
        assert!(node.add_roots([root(2), root(3)]));
        assert_eq!(used(), ids(&[1, 2, 3]));
    }

    #[test]
    fn a_named_root_goes_before_the_same_root_of_a_network_at_another_place() {
        let key = *Identity::from_seed(&[1; 32]).public();
        let root = |text: &str| -> RootSource { format!("{key}@{text}").parse().expect("a root") };
        let node = node();
        let lists = node.inner.root_sources.get().expect("it has started");
        let used = || {
            let roots = node.inner.driver.datapath.roots(Instant::now());
            assert_eq!(roots.len(), 1, "one root, however many places");
            roots[0].endpoints[0].port()
        };
        let port = |port: u16| root(&format!("127.0.0.1:{port}"));
        lists.add_of_network(&node.inner, vec![], vec![root("127.0.0.1:1?token=x")]);
        assert_eq!(used(), 1);
        // An invite names it at another place, and an older record does not take that back.
        lists.add_of_network(&node.inner, vec![port(2)], vec![port(1)]);
        assert_eq!(used(), 2);
        // A person does.
        node.add_roots([port(3)]);
        assert_eq!(used(), 3);
        lists.add_of_network(&node.inner, vec![port(2)], vec![]);
        assert_eq!(used(), 3);
        let all = sync::lock(&lists.0.parts).all();
        assert_eq!(all[0].token(), Some(&b"x"[..]), "the place is another one, and the root is the same");
        // The network keeps its root when a program that has named the same one ends.
        node.add_roots([port(2)]);
        node.remove_roots(&[port(3), port(2)]);
        assert_eq!(used(), 2);
    }

    #[test]
    fn a_list_takes_no_named_roots_place_and_does_not_say_where_it_is() {
        let key = |seed: u8| *Identity::from_seed(&[seed; 32]).public();
        let named: RootAddress = format!("{}@127.0.0.1:9?token=x", key(1)).parse().expect("a root");
        let listed: Vec<_> = (1..=8).map(|seed| format!("{}@127.0.0.1:11", key(seed))).collect();
        let listed_roots = listed.len();
        let (domain, serving) = dns::tests::nameserver(
            move |question| {
                let texts: Vec<_> = listed.iter().map(String::as_str).collect();
                vec![dns::tests::reply(question, &texts, 60)]
            },
            None,
        );
        let node = node();
        let sources = vec![RootSource::Dns(domain), RootSource::Address(named)];
        RootLists::new(&node.inner).add_with(&node.inner, [(sources, Parts::add_named)], None);
        let since = Instant::now();
        let roots = loop {
            let roots = node.inner.driver.datapath.roots(Instant::now());
            if roots.len() == listed_roots {
                break roots;
            }
            assert!(since.elapsed() < QUERY_TIMEOUT, "{} roots", roots.len());
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(roots[0].node, key(1).node_id());
        assert_eq!(roots[0].endpoints[..], [SocketAddr::from(([127, 0, 0, 1], 9))]);
        serving.join().expect("no panic");
    }

    #[test]
    fn a_root_that_is_listed_no_more_is_used_no_more() {
        let key = |seed: u8| *Identity::from_seed(&[seed; 32]).public();
        let root =
            |seed: u8| -> RootAddress { format!("{}@localhost:9", key(seed)).parse().expect("a root") };
        let node = node();
        let list = List::new(&node.inner);
        sync::lock(&list.parts).found = vec![Vec::new(); 2];
        list.set(1, vec![root(1)]);
        wait_for(&node, &[key(1).node_id()]);
        list.set(0, vec![root(2), root(3)]);
        let now: Vec<_> = node.status().roots.iter().map(|root| root.id).collect();
        assert_eq!(now.len(), 3);
        list.set(1, Vec::new());
        list.set(0, vec![root(3)]);
        wait_for(&node, &[key(3).node_id()]);
        list.set(0, Vec::new());
        wait_for(&node, &[]);
    }
}
