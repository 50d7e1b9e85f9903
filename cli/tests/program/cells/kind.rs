//! The kinds of boxes that natlab can build, with the names of `docs/measured/CELLS.md`.

use peersock_sim::cells::{Expected, Kind};
use peersock_testnet::Lab as Nats;

/// The Internet access of one of the two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// A kind that the simulator also has.
    Simulated(Kind),
    /// A network that blocks UDP, but no TCP.
    NoUdp,
    /// A network that blocks everything except TCP to port 443.
    Only443,
}

impl Access {
    /// Returns the kind with this name.
    ///
    /// # Panics
    /// Panics if the kind does not exist.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "no-udp" => return Self::NoUdp,
            "only-443" => return Self::Only443,
            _ => {}
        }
        let kind = Kind::all().into_iter().find(|kind| kind.to_string() == name);
        Self::Simulated(kind.unwrap_or_else(|| panic!("there is no kind {name}")))
    }

    fn has_ipv4(self) -> bool {
        !matches!(self, Self::Simulated(Kind::Ipv6 | Kind::Ipv6Firewall | Kind::Nat66 | Kind::Nat66Dependent))
    }

    /// Returns the expected outcome for two of them. A root that accepts streams relays where UDP is blocked
    /// and TCP cannot be punched.
    pub(super) fn expected(a: Self, b: Self) -> Expected {
        match (a, b) {
            (Self::Simulated(a), Self::Simulated(b)) => Expected::of(a, b),
            (Self::Only443, _) | (_, Self::Only443) => Expected::Relay,
            // TCP works, because all boxes of natlab preserve the port.
            (Self::NoUdp, other) | (other, Self::NoUdp) => match other.has_ipv4() {
                true => Expected::Direct,
                false => Expected::Relay,
            },
        }
    }

    /// Returns natlab's words for a site of this name, whose only host has the name with a 1 appended.
    ///
    /// Lines have a delay of 10 ms in each direction.
    ///
    /// # Panics
    /// Panics if natlab cannot build this kind.
    pub(super) fn topology(self, site: &str) -> String {
        let line = "link.delay=10";
        let behind = |carrier: &str| format!("{site}up={carrier}:{line} {site}=port-restricted:via={site}up");
        let one = |kind: &str| format!("{site}={kind}:{line}");
        let kind = match self {
            Self::NoUdp => return one("port-restricted"),
            Self::Only443 => return one("udp-blocked"),
            Self::Simulated(kind) => kind.to_string(),
        };
        // The outer port equals the inner one if that is free, or is random.
        let ports = if site == SITES[0] { "" } else { ":random_ports" };
        match kind.as_str() {
            "open" => one("routed"),
            "ei-ei" => one(&format!("full-cone{ports}")),
            "ei-ad" => one(&format!("address-restricted{ports}")),
            "ei-apd" => one(&format!("port-restricted{ports}")),
            "apd-apd" => one("symmetric"),
            "apd-apd+" => one("symmetric-delta"),
            "20s" => one("port-restricted:udp_timeout=20"),
            "double" => behind("port-restricted:0"),
            "cgn" => behind("full-cone:0:hairpin:lan=100.64.0.0/24"),
            "cgn-apd" => behind("symmetric:0:lan=100.64.0.0/24"),
            "ip6" => one("v6only:v6=open"),
            "ip6-fw" => one("v6only"),
            "dual" => one("symmetric:v6=firewall"),
            // `finish` adds the NAT66.
            "nat66" | "nat66-apd" => one("v6only"),
            other => panic!("natlab cannot build {other}"),
        }
    }

    /// Changes a built site if natlab has no word for its kind.
    pub(super) fn finish(self, nats: &Nats, site: &str) {
        if self == Self::NoUdp {
            let rule =
                ["nft", "insert", "rule", "inet", "natlab_fw", "forward", "meta", "l4proto", "udp", "drop"];
            nats.natlab(&[&["exec", site, "--"], &rule[..]].concat());
        }
        let masquerade = match self {
            Self::Simulated(Kind::Nat66) => "masquerade",
            // Maps each destination to a separate port.
            Self::Simulated(Kind::Nat66Dependent) => "masquerade random",
            _ => return,
        };
        let rules = format!(
            "table ip6 nat66 {{ chain out {{ type nat hook postrouting priority srcnat; \
             oifname wan meta l4proto udp {masquerade}; oifname wan masquerade; }}; }}"
        );
        nats.natlab(&["exec", site, "--", "nft", &rules]);
        // Inside there are only private addresses; packets from outside to public ones are not delivered.
        let host = format!("{site}1");
        let private = |node: &str, commands: &str| nats.natlab(&["exec", node, "--", "sh", "-c", commands]);
        private(site, &format!("ip addr add {PRIVATE_ROUTER}/64 dev lan nodad"));
        private(
            &host,
            &format!(
                "dev=$(ip -6 route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/'); \
                 ip -6 addr flush dev $dev scope global && \
                 ip addr add {PRIVATE_HOST}/64 dev $dev nodad && \
                 ip -6 route replace default via {PRIVATE_ROUTER} dev $dev"
            ),
        );
    }
}

/// Addresses behind a NAT66.
const PRIVATE_ROUTER: &str = "fd00:66::1";
const PRIVATE_HOST: &str = "fd00:66::10";

/// Names of the two sites.
pub(super) const SITES: [&str; 2] = ["one", "other"];
