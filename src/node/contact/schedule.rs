//! Steps of the contact thread and their schedule.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use peersock_nat::host::{self, HostInterface};
use peersock_nat::nat64::Nat64Prefix;
use peersock_nat::{self as nat, probe};
use peersock_overlay::{Contact, RootState};
use peersock_primitives::beside;

use super::Settings;
use super::ask::{self, MAX_ASKED, Outsider};
use super::gather::{Known, Seen, is_private};
pub(in crate::node) use super::ports::Forwarded;
use super::ports::{self, Ports};
use crate::driver::{TurnSockets, UdpSockets};
use crate::interfaces::addresses_of;
use crate::node::Inner;

/// Intervals of a complete repetition without changes. They only catch unnoticed changes, because a restarted
/// NAT behaves as before.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10 * 60);
const PROBE_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// Interval of NAT probes if its next port is predictable, because each flow of any host behind it moves it
/// on. If a probe fails, the prediction is kept only slightly longer.
const PREDICTION_INTERVAL: Duration = Duration::from_secs(5 * 60);
const PREDICTED_FOR: Duration = Duration::from_secs(6 * 60);

/// Interval of keepalives for a socket's mapping that no root keeps alive: many NATs forget one after 30 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(25);

/// Retry interval while no STUN server or root is known.
const RETRY_EMPTY: Duration = Duration::from_secs(1);

/// Time that the first contact waits for outsiders, because a DHT record without a usable address makes peers
/// fail.
const FIRST_CONTACT_WAIT: Duration = Duration::from_secs(5);

/// Limit of interfaces and families that are probed.
const MAX_PROBES: usize = 4;

/// State that the thread keeps between its steps.
pub(super) struct Look {
    settings: Settings,
    begun: Instant,
    interfaces: Vec<HostInterface>,
    /// NAT64 prefix by which IPv4 outsiders were asked.
    nat64: Option<Nat64Prefix>,
    /// Addresses of the STUN servers; their names are resolved when the network changes.
    stun: Vec<SocketAddr>,
    ports: Arc<Ports>,
    tell: Arc<dyn Fn() + Send + Sync>,
    seen: Vec<Seen>,
    has_asked: bool,
    ask_due: Instant,
    ask_all_due: Instant,
    probed: Vec<Probed>,
    probed_at: Instant,
    probe_due: Instant,
}

/// Result of a probe on one interface and family.
struct Probed {
    interface: String,
    nat: nat::Nat,
    /// Mapped address of its newest flow.
    newest: Option<SocketAddr>,
}

/// State of the node that matters here.
pub(super) struct Surroundings {
    sockets: Arc<UdpSockets>,
    turn: Arc<TurnSockets>,
    roots: Vec<SocketAddr>,
    /// Addresses of roots at which this node is registered by UDP. They see its socket of that family, and
    /// keep its mappings alive.
    registered_at: Vec<SocketAddr>,
}

/// Findings besides the contact, for the status.
#[derive(Debug, Clone, Default)]
pub(in crate::node) struct Found {
    /// NATs found by a probe, by interface.
    pub(in crate::node) nats: Vec<(String, nat::Nat)>,
    pub(in crate::node) forwarded: Vec<Forwarded>,
}

impl Look {
    pub(super) fn new(
        settings: Settings,
        ports: Arc<Ports>,
        tell: Arc<dyn Fn() + Send + Sync>,
        now: Instant,
    ) -> Look {
        Look {
            settings,
            begun: now,
            interfaces: Vec::new(),
            nat64: None,
            stun: Vec::new(),
            ports,
            tell,
            seen: Vec::new(),
            has_asked: false,
            ask_due: now,
            ask_all_due: now,
            probed: Vec::new(),
            probed_at: now,
            probe_due: now,
        }
    }

    /// Runs the due work, at most one step that takes seconds; returns the time of the next step.
    pub(super) fn step(
        &mut self,
        now: Instant,
        around: &Surroundings,
        dht_nodes: &[SocketAddrV4],
        is_over: &dyn Fn() -> bool,
    ) -> Instant {
        self.look_at_interfaces(now, around);
        let outsiders = self.outsiders(around, dht_nodes);
        if self.ask_due.min(self.ask_all_due) <= now && !outsiders.is_empty() {
            // A confirmation asks only one outsider per family.
            let all = self.ask_all_due <= now || !self.confirm(around, &outsiders, is_over);
            if all {
                let seen = ask::ask(&around.sockets, &outsiders, is_over);
                // Old observations are better than none.
                if !seen.is_empty() {
                    self.seen = seen;
                }
                self.ask_all_due = Instant::now() + REFRESH_INTERVAL;
            }
            self.has_asked = true;
            self.ask_due =
                Instant::now() + if self.keeps_alive(around) { KEEPALIVE_INTERVAL } else { REFRESH_INTERVAL };
            return self.next(&outsiders, around);
        }
        if self.probe_due <= now {
            let servers = self.servers(around);
            if !servers.is_empty() {
                let probed = probe_all(&self.interfaces, &servers, self.nat64);
                self.note_probes(probed, Instant::now());
            }
        }
        self.next(&outsiders, around)
    }

    fn next(&self, outsiders: &[Outsider], around: &Surroundings) -> Instant {
        let soon = Instant::now() + RETRY_EMPTY;
        let later = Instant::now() + KEEPALIVE_INTERVAL;
        let is_young = self.begun.elapsed() < FIRST_CONTACT_WAIT * 2;
        // No outsider is known: that changes when a name is resolved or the DHT is entered, at first soon.
        let nobody = if is_young { soon } else { later };
        let ask = match outsiders.is_empty() {
            true if self.settings.has_dht || !self.settings.stun.is_empty() => nobody,
            // Roots may be asked, but only once it is known in which family they see the node anyway.
            true if is_young && !around.roots.is_empty() => soon,
            true => Instant::now() + REFRESH_INTERVAL,
            false => self.ask_due.min(self.ask_all_due),
        };
        let probe = if self.servers(around).is_empty() { nobody } else { self.probe_due };
        // An outdated prediction must not stay in the contact.
        let stale = self.predicts().then_some(self.probed_at + PREDICTED_FOR);
        stale.into_iter().fold(ask.min(probe), Instant::min)
    }

    /// Takes the results of probes. Without an answer, older results stay as long as they can be valid.
    fn note_probes(&mut self, probed: Vec<Probed>, now: Instant) {
        if !probed.is_empty() || now >= self.probed_at + PROBE_INTERVAL {
            (self.probed, self.probed_at) = (probed, now);
        }
        self.probe_due = now + if self.predicts() { PREDICTION_INTERVAL } else { PROBE_INTERVAL };
    }

    /// Returns true if the contact may predict the next port.
    fn predicts(&self) -> bool {
        self.probed.first().is_some_and(|probed| {
            let maps_anew = probed.nat.mapping != Some(nat::Mapping::EndpointIndependent);
            let delta = probed.nat.delta.as_ref();
            maps_anew
                && delta.is_some_and(|delta| delta.kind == nat::DeltaKind::Independent && delta.value != 0)
        })
    }

    /// Returns the state of the NAT on the path to most others, and its newest mapping. An outdated port
    /// prediction is left out.
    fn probed(&mut self, now: Instant) -> (Option<nat::Nat>, Option<SocketAddr>) {
        let is_stale = now >= self.probed_at + PREDICTED_FOR;
        let Some(probed) = self.probed.first_mut() else { return (None, None) };
        if is_stale {
            (probed.nat.delta, probed.newest) = (None, None);
        }
        (Some(probed.nat.clone()), probed.newest)
    }

    /// Returns true if a contact can be published: all fast answers have arrived.
    pub(super) fn is_settled(&self, around: &Surroundings) -> bool {
        let is_known = self.has_asked && around.turn.is_settled();
        !self.settings.has_dht || is_known || self.begun.elapsed() >= FIRST_CONTACT_WAIT
    }

    pub(super) fn contact(&mut self, around: &Surroundings) -> Contact {
        self.known(around, Instant::now()).contact()
    }

    pub(super) fn found(&self) -> Found {
        let nats = self.probed.iter().map(|probed| (probed.interface.clone(), probed.nat.clone()));
        Found { nats: nats.collect(), forwarded: self.ports.forwarded() }
    }

    fn known(&mut self, around: &Surroundings, now: Instant) -> Known {
        let (probed, newest) = self.probed(now);
        let is_local = self.settings.allowed.is_loopback_only();
        let interfaces = self.interfaces.iter().filter(|interface| is_local || !interface.loopback);
        let own = interfaces.flat_map(|interface| {
            let endpoint = |ip: IpAddr| Some(SocketAddr::new(ip, around.port_on(interface, ip.is_ipv4())?));
            interface.addresses.iter().filter_map(move |address| endpoint(address.ip)).collect::<Vec<_>>()
        });
        Known {
            own: own.collect(),
            forwarded: self.ports.forwarded().iter().map(|port| port.external).collect(),
            seen: self.seen.iter().filter(|seen| !self.is_near(seen.by)).copied().collect(),
            relayed: around.turn.relayed(),
            probed,
            newest,
        }
    }

    fn look_at_interfaces(&mut self, now: Instant, around: &Surroundings) {
        let allowed = &self.settings.allowed;
        let Ok(mut interfaces) = host::interfaces() else { return };
        interfaces.retain(|interface| allowed.allows_named(&interface.name, interface.loopback));
        let nat64 = around.sockets.nat64.prefix();
        if interfaces == self.interfaces && nat64 == self.nat64 {
            return;
        }
        self.interfaces = interfaces;
        self.nat64 = nat64;
        (self.ask_due, self.ask_all_due, self.probe_due) = (now, now, now);
        // Observations in the old network are wrong in the new one.
        self.seen.clear();
        self.probed.clear();
        let stun = addresses_of(&self.settings.stun).unwrap_or_default();
        self.stun = stun.into_iter().map(|server| around.sockets.nat64.inner(server)).collect();
        if self.settings.maps_ports && !allowed.is_loopback_only() {
            let asks = ports::asks(&self.interfaces, |interface, is_ipv4| around.port_on(interface, is_ipv4));
            self.ports.refresh();
            self.ports.set(asks, &self.tell);
        }
    }

    /// Returns true if outsiders must be asked periodically so that NATs keep the mappings of the node's
    /// sockets.
    fn keeps_alive(&self, around: &Surroundings) -> bool {
        let is_own = |seen: &Seen| {
            let mut own = self.interfaces.iter().flat_map(|interface| &interface.addresses);
            own.any(|address| address.ip == seen.at.ip())
        };
        let mut unseen = self.seen.iter().filter(|seen| !around.is_seen_in(seen.at));
        match self.settings.has_dht {
            true => self.seen.is_empty() && around.registered_at.is_empty() || unseen.next().is_some(),
            false => unseen.any(|seen| !is_own(seen)),
        }
    }

    /// Asks one outsider of each family, and returns true if the sockets' addresses have not changed.
    fn confirm(&self, around: &Surroundings, outsiders: &[Outsider], is_over: &dyn Fn() -> bool) -> bool {
        let of_family = |is_ipv4: bool| {
            let mut seen = self.seen.iter().filter(move |seen| seen.at.is_ipv4() == is_ipv4);
            seen.find_map(|seen| outsiders.iter().find(|one| one.address() == seen.by)).copied()
        };
        let some: Vec<_> = [true, false].into_iter().filter_map(of_family).collect();
        let again = ask::ask(&around.sockets, &some, is_over);
        let has_answered = |one: &Outsider| again.iter().any(|seen| seen.by == one.address());
        !some.is_empty() && some.iter().all(has_answered) && again.iter().all(|seen| self.seen.contains(seen))
    }

    /// Returns the outsiders to ask: STUN servers, nodes of the DHT, and roots, which are STUN servers too,
    /// in a family in which this node is not registered.
    fn outsiders(&self, around: &Surroundings, dht_nodes: &[SocketAddrV4]) -> Vec<Outsider> {
        // A root vouches for this node's address only in the family of its session, so the other family needs
        // a question.
        let is_time = !around.registered_at.is_empty() || self.begun.elapsed() >= FIRST_CONTACT_WAIT;
        let roots = around.roots.iter().filter(|root| is_time && !around.is_seen_in(**root));
        let stun = self.stun.iter().chain(roots).copied().filter(|server| around.sockets.has_route(*server));
        let mut all: Vec<Outsider> =
            stun.filter(|server| self.may_reach(*server)).map(Outsider::Stun).collect();
        for node in dht_nodes.iter().map(|node| SocketAddr::V4(*node)) {
            // One host has one voice, whatever its ports; on loopback all have one address.
            let is_new = node.ip().is_loopback() || all.iter().all(|one| one.address().ip() != node.ip());
            if is_new && self.may_reach(node) {
                all.push(Outsider::Dht(node));
            }
        }
        in_turns(all)
    }

    /// Returns STUN servers and roots for the probe. A server on the local network is on this side of the
    /// NAT, so its answer, or silence, says nothing about the NAT.
    fn servers(&self, around: &Surroundings) -> Vec<SocketAddr> {
        let all = self.stun.iter().chain(&around.roots).copied();
        all.filter(|server| self.may_reach(*server) && !self.is_near(*server)).collect()
    }

    /// Returns true if a server is on a local network whose addresses have a meaning only there. A node that
    /// stays on loopback has no other network.
    fn is_near(&self, server: SocketAddr) -> bool {
        !self.settings.allowed.is_loopback_only() && is_near(&self.interfaces, server.ip())
    }

    fn may_reach(&self, remote: SocketAddr) -> bool {
        !self.settings.allowed.is_loopback_only() || remote.ip().is_loopback()
    }
}

impl Surroundings {
    pub(super) fn of(node: &Inner) -> Surroundings {
        let mut roots = node.driver.datapath.roots(Instant::now());
        // A guest root is used for one peer only, on the word of another root.
        roots.retain(|root| !root.is_guest);
        let registered = roots.iter().filter(|root| root.state == RootState::Registered);
        Surroundings {
            sockets: Arc::clone(&node.driver.sockets),
            turn: Arc::clone(&node.driver.turn),
            roots: roots.iter().flat_map(|root| root.endpoints.iter().copied()).collect(),
            registered_at: registered.filter_map(|root| root.address).collect(),
        }
    }

    /// Returns true if a root sees the node's socket of this address's family.
    fn is_seen_in(&self, family: SocketAddr) -> bool {
        self.registered_at.iter().any(|root| root.is_ipv4() == family.is_ipv4())
    }

    fn port_on(&self, interface: &HostInterface, is_ipv4: bool) -> Option<u16> {
        self.sockets.port_on(&interface.name, interface.loopback, is_ipv4)
    }
}

/// Returns true if a private address is in an interface's network.
fn is_near(interfaces: &[HostInterface], ip: IpAddr) -> bool {
    let mut own = interfaces.iter().flat_map(|interface| &interface.addresses);
    is_private(ip) && (ip.is_loopback() || own.any(|own| is_in_prefix(ip, own.ip, own.prefix)))
}

fn is_in_prefix(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (bits, length) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (u128::from(ip.to_bits() ^ network.to_bits()), 32),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (ip.to_bits() ^ network.to_bits(), 128),
        _ => return false,
    };
    // The shift drops the bits behind the prefix, which may differ.
    bits.checked_shr(length - u32::from(prefix).min(length)).unwrap_or(0) == 0
}

/// Returns as many outsiders as may be asked, alternating between families, so that one family does not crowd
/// out the other.
fn in_turns(all: Vec<Outsider>) -> Vec<Outsider> {
    let (v4, v6): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.address().is_ipv4());
    let longest = v4.len().max(v6.len());
    let turns = (0..longest).flat_map(|turn| [v4.get(turn), v6.get(turn)]);
    turns.flatten().take(MAX_ASKED).copied().collect()
}

/// Probes the NAT in front of each interface that leads to servers; those with a router and IPv4 come first.
/// A NAT64 counts as the NAT of IPv4.
fn probe_all(
    interfaces: &[HostInterface],
    servers: &[SocketAddr],
    nat64: Option<Nat64Prefix>,
) -> Vec<Probed> {
    let mut ways: Vec<_> =
        interfaces.iter().flat_map(|interface| [(interface, false), (interface, true)]).collect();
    let leaves_by_v6 = |is_v6: bool| is_v6 || nat64.is_some();
    ways.sort_by_key(|(interface, is_v6)| (interface.router(leaves_by_v6(*is_v6)).is_none(), *is_v6));
    let outer = |server: SocketAddr| nat64.map_or(server, |prefix| prefix.synthesize(server));
    let probe = |interface: &HostInterface, is_v6: bool| {
        let leads = |server: &&SocketAddr| {
            server.is_ipv6() == is_v6 && interface.source_towards(outer(**server)).is_some()
        };
        let servers: Vec<_> = servers.iter().filter(leads).copied().collect();
        let local = interface.source_towards(outer(*servers.first()?))?;
        let name = (!interface.loopback).then_some(interface.name.as_str());
        let settings = probe::Settings {
            nat64: nat64.filter(|_| !is_v6 && local.is_ipv6()),
            ..probe::Settings::new(servers)
        };
        let probed = probe::run(local, name, &settings);
        let observed = probed.inspect_err(|error| tracing::debug!(%error, "the NAT was not probed")).ok()?;
        let newest = observed.fresh.last().map(|flow| flow.mapped);
        Some(Probed { interface: interface.name.clone(), nat: observed.decide(), newest })
    };
    thread::scope(|scope| {
        let probes: Vec<_> = ways
            .into_iter()
            .take(MAX_PROBES)
            .map(|(interface, is_v6)| beside(scope, move || probe(interface, is_v6)))
            .collect();
        probes.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Interfaces;

    #[test]
    fn a_server_is_near_if_its_address_means_something_on_the_local_network_only() {
        use peersock_nat::host::HostAddress;
        let address = |ip: &str, prefix| HostAddress { ip: ip.parse().expect("an address"), prefix };
        let interface = HostInterface {
            name: "eth0".to_owned(),
            index: 2,
            loopback: false,
            addresses: vec![
                address("192.168.1.9", 24),
                address("203.0.113.9", 24),
                address("fd00::9", 64),
                address("fe80::9", 64),
            ],
            routers: Vec::new(),
        };
        for (ip, expected) in [
            ("192.168.1.1", true),
            ("192.168.1.9", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("127.0.0.1", true),
            // Behind a router of the same office.
            ("192.168.2.1", false),
            ("fd00:0:0:1::1", false),
            // A server on the Internet sees what everybody sees.
            ("203.0.113.1", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            let ip = ip.parse().expect("an address");
            assert_eq!(is_near(std::slice::from_ref(&interface), ip), expected, "{ip}");
        }
        assert!(is_in_prefix("10.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap(), 0));
    }

    #[test]
    fn no_family_crowds_the_other_one_out() {
        let stun = |text: &str| Outsider::Stun(text.parse().expect("an endpoint"));
        let of_v4 = (1..20).map(|port| stun(&format!("192.0.2.1:{port}")));
        let of_v6 = ["[2001:db8::1]:1", "[2001:db8::2]:1"].map(stun);
        let chosen = in_turns(of_v4.chain(of_v6).collect());
        assert_eq!(chosen.len(), MAX_ASKED);
        assert!(of_v6.iter().all(|one| chosen.contains(one)), "{chosen:?}");
    }

    #[test]
    fn which_port_comes_next_is_probed_often_and_forgotten_soon() {
        let now = Instant::now();
        let settings = Settings {
            allowed: Interfaces::Loopback,
            stun: Vec::new(),
            turn: Vec::new(),
            maps_ports: false,
            has_dht: false,
        };
        let mut look = Look::new(settings, Arc::default(), Arc::new(|| ()), now);
        let newest = Some("203.0.113.9:5002".parse().expect("an endpoint"));
        let probe = |ports: [u16; 3]| {
            let local = |port| SocketAddr::from(([192, 168, 1, 2], port));
            let server = SocketAddr::from(([192, 0, 2, 1], 3478));
            let sample = |(port, mapped): (u16, u16)| nat::Sample {
                local: local(port),
                server,
                mapped: SocketAddr::from(([203, 0, 113, 9], mapped)),
                rtt: Duration::from_millis(20),
            };
            let mut observed = nat::Observations::none(local(1).ip());
            observed.main = vec![sample((4000, 4999))];
            observed.fresh = [4001, 4007, 4004].into_iter().zip(ports).map(sample).collect();
            vec![Probed { interface: "eth0".into(), nat: observed.decide(), newest }]
        };
        look.note_probes(probe([5000, 5001, 5002]), now);
        assert_eq!((look.predicts(), look.probe_due), (true, now + PREDICTION_INTERVAL));
        // The next probe gets no answer.
        let later = now + PREDICTION_INTERVAL;
        look.note_probes(Vec::new(), later);
        assert_eq!(look.probed(later).1, newest);
        let stale = now + PREDICTED_FOR;
        let (nat, forgotten) = look.probed(stale);
        assert_eq!((nat.and_then(|nat| nat.delta), forgotten), (None, None));
        assert!(!look.probed.is_empty(), "how the box maps does not change so soon");
        look.note_probes(probe([5000, 5001, 5002]), stale);
        assert_eq!(look.probed(stale).1, newest, "seen anew");
        look.note_probes(probe([5010, 9000, 1234]), stale);
        assert_eq!((look.predicts(), look.probe_due), (false, stale + PROBE_INTERVAL));
    }
}
