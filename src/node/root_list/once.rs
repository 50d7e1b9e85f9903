//! One-time query of root sources, without a node, for the network check.

use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{MAX_DOMAINS, dns, lan, spawn};
use crate::config::{RootAddress, RootSource};
use crate::driver::Interfaces;

/// Timeouts of each nameserver, and of a domain's list with all nameservers.
const NAMESERVER: Duration = Duration::from_millis(1500);
const DOMAIN: Duration = Duration::from_secs(4);

/// Time to listen for roots: each announces itself every 5 s.
const LAN: Duration = Duration::from_millis(5500);

/// Queries all sources that are lists (at most four domains, and the local networks) at the same time. Takes
/// at most four seconds, with `lan` five and a half.
pub(crate) fn ask_lists(
    sources: Vec<RootSource>,
    allowed: &Interfaces,
    discovery_port: u16,
) -> Vec<(RootSource, io::Result<Vec<RootAddress>>)> {
    let mut lists: Vec<RootSource> = Vec::new();
    for source in sources.into_iter().filter(|source| !matches!(source, RootSource::Address(_))) {
        let domains = lists.iter().filter(|known| matches!(known, RootSource::Dns(_))).count();
        if !lists.contains(&source) && (source == RootSource::Lan || domains < MAX_DOMAINS) {
            lists.push(source);
        }
    }
    let begin = Instant::now();
    let ask = |source: RootSource| {
        let (sender, answer) = mpsc::channel();
        let (its, allowed) = (source.clone(), allowed.clone());
        spawn("peersock-list", move || {
            let found = match &its {
                RootSource::Dns(domain) => dns::look_up(domain, NAMESERVER).map(|listed| listed.roots),
                _ => lan::hear(&allowed, discovery_port, begin + LAN),
            };
            // The receiver is gone if the caller timed out.
            let _ = sender.send(found);
        });
        (source, answer)
    };
    let asked: Vec<_> = lists.into_iter().map(ask).collect();
    let wait = |(source, answer): (RootSource, mpsc::Receiver<_>)| {
        // Listening ends by itself, a moment after its time.
        let until = begin + if source == RootSource::Lan { LAN * 2 } else { DOMAIN };
        let found = answer.recv_timeout(until.saturating_duration_since(Instant::now()));
        (source, found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
    };
    asked.into_iter().map(wait).collect()
}

#[cfg(all(test, feature = "dns"))]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use peersock_overlay::Identity;
    use peersock_overlay::wire::Announcement;

    use super::*;

    #[test]
    fn a_domain_and_the_local_networks_are_asked_and_what_is_named_is_not() {
        let key = |seed: u8| *Identity::from_seed(&[seed; 32]).public();
        let text = format!("{}@127.0.0.1:11", key(2));
        let listed = text.clone();
        let (domain, serving) =
            dns::tests::nameserver(move |question| vec![dns::tests::reply(question, &[&text], 60)], None);
        let root = UdpSocket::bind("127.0.0.1:0").expect("a port");
        root.set_broadcast(true).expect("it can be");
        // No other program uses this port for discovery.
        let port = UdpSocket::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let (at, is_over) = (root.local_addr().expect("its address"), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&is_over);
        let announcing = thread::spawn(move || {
            let mut datagram = Vec::new();
            Announcement { identity: key(3) }.emit(&mut datagram);
            while !ended.load(Ordering::SeqCst) {
                root.send_to(&datagram, ("127.255.255.255", port)).expect("room");
                thread::sleep(Duration::from_millis(500));
            }
        });
        let named = format!("{}@127.0.0.1:9", key(1)).parse().expect("a root");
        let sources = vec![
            RootSource::Lan,
            RootSource::Address(named),
            RootSource::Dns(domain.clone()),
            RootSource::Dns(domain.clone()),
        ];
        let found = ask_lists(sources, &Interfaces::Loopback, port);
        is_over.store(true, Ordering::SeqCst);
        announcing.join().expect("no panic");
        serving.join().expect("no panic");
        let shown = |(source, roots): (RootSource, io::Result<Vec<RootAddress>>)| {
            let roots: Vec<_> = roots.expect("roots").iter().map(ToString::to_string).collect();
            format!("{source} {}", roots.join(" "))
        };
        let found: Vec<_> = found.into_iter().map(shown).collect();
        assert_eq!(found, [format!("lan {}@{at}", key(3)), format!("dns:{domain} {listed}")]);
    }
}
