//! Which roots a node uses: those that were named, those that domains list, and those that announce
//! themselves on the local networks.
//!
//! Each domain has a thread, because asking blocks; so have announcements. Whatever one of them finds takes
//! the place of what it found before, and the node uses the union, in the order of the sources.

mod cache;
mod dns;
mod lan;

use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::resolver::ask_system;
use super::{Inner, roots};
use crate::config::{RootAddress, RootDomain, RootSource};
use crate::datapath::Subscription;
use crate::sync;
use cache::Cache;

/// The most roots that one domain can list.
const MAX_LISTED: usize = 8;

/// The most domains that are asked.
const MAX_DOMAINS: usize = 4;

/// How long a nameserver has to answer: at first, when a list that was kept may serve, and later.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after a domain was asked in vain it is asked again: at first, and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Has the node use the roots of these sources, and follow their changes until it ends.
pub(super) fn start(node: &Arc<Inner>, sources: Vec<RootSource>) {
    start_with(node, sources, Cache::of_user());
}

fn start_with(node: &Arc<Inner>, sources: Vec<RootSource>, cache: Option<Cache>) {
    let mut fixed = vec![Vec::new(); sources.len()];
    let mut domains = Vec::new();
    let mut lan = None;
    for (part, source) in sources.into_iter().enumerate() {
        match source {
            RootSource::Address(root) => fixed[part].push(root),
            RootSource::Dns(domain) if domains.iter().any(|(_, known)| *known == domain) => {}
            RootSource::Dns(_) if domains.len() == MAX_DOMAINS => {
                tracing::warn!(most = MAX_DOMAINS, "no further domain is asked for roots");
            }
            RootSource::Dns(domain) => domains.push((part, domain)),
            RootSource::Lan => lan = lan.or(Some(part)),
        }
    }
    let list =
        Arc::new(List { node: Arc::downgrade(node), parts: Mutex::new(Parts { found: fixed, used: None }) });
    list.publish(&mut sync::lock(&list.parts));
    for (part, domain) in domains {
        let (list, cache, events) = (Arc::clone(&list), cache.clone(), node.driver.datapath.subscribe());
        spawn("peersock-dns", move || follow(&list, part, &domain, cache.as_ref(), &events));
    }
    if let Some(part) = lan {
        lan::start(node, list, part);
    }
}

fn spawn(name: &str, job: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.into()).spawn(job) {
        tracing::warn!(%error, "a source of roots is not used");
    }
}

/// What all sources have found.
struct List {
    node: Weak<Inner>,
    parts: Mutex<Parts>,
}

struct Parts {
    /// By source.
    found: Vec<Vec<RootAddress>>,
    /// What keeps the names of the present ones resolved.
    used: Option<roots::Used>,
}

impl List {
    /// Puts what a source has found in the place of what it found before.
    fn set(&self, part: usize, roots: Vec<RootAddress>) {
        let mut parts = sync::lock(&self.parts);
        if parts.found[part] != roots {
            parts.found[part] = roots;
            self.publish(&mut parts);
        }
    }

    fn publish(&self, parts: &mut Parts) {
        let all: Vec<_> = parts.found.iter().flatten().cloned().collect();
        let Some(node) = self.node.upgrade() else { return };
        if all.is_empty() && parts.used.is_none() {
            return;
        }
        // It publishes nothing any more from here on.
        parts.used = None;
        parts.used = Some(roots::start(&node, &all, Box::new(ask_system)));
    }
}

/// Keeps the list of a domain's roots up to date until the node ends.
fn follow(list: &List, part: usize, domain: &RootDomain, cache: Option<&Cache>, events: &Subscription) {
    let (mut patience, mut retry) = (FIRST_PATIENCE, RETRY_MIN);
    let mut has_list = false;
    while !events.is_over() {
        let wait = match dns::look_up(domain, patience) {
            Ok(listed) => {
                tracing::debug!(%domain, roots = listed.roots.len(), "a domain lists roots");
                if let Some(Err(error)) = cache.map(|cache| cache.write(domain.name(), &listed.roots)) {
                    tracing::debug!(%error, "the list of roots is not kept");
                }
                list.set(part, listed.roots);
                (has_list, retry) = (true, RETRY_MIN);
                listed.ttl
            }
            Err(error) => {
                tracing::debug!(%domain, %error, "a domain does not tell its roots");
                if !has_list {
                    let kept = cache.map(|cache| cache.read(domain.name())).unwrap_or_default();
                    tracing::warn!(
                        kept = kept.len(),
                        "the DNS does not tell the roots; trying again (-vv names the domain)"
                    );
                    list.set(part, kept);
                    has_list = true;
                }
                let wait = retry;
                retry = RETRY_MAX.min(retry * 2);
                wait
            }
        };
        patience = PATIENCE;
        let end = Instant::now() + wait;
        // Events wake this thread when the node ends; those of peers do not matter.
        while !events.is_over() && Instant::now() < end {
            events.next_timeout(end.saturating_duration_since(Instant::now()));
        }
    }
}
