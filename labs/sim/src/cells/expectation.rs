//! Rules of what NAT boxes allow, independent of what the nodes do.

use crate::net::Behaviour;

use super::Kind;

/// The kind of connection that two nodes must have in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A direct path.
    Direct,
    /// A direct path with a probability of 99.97 % ([`Self::LIKELY`] percent of all seeds at least), else
    /// through a root. The nodes find a port by trying many.
    Likely,
    /// A direct path or one through a root. A direct path depends on luck, or takes more packets than a node
    /// spends.
    Either,
    /// A path through a root.
    Relay,
}

/// The box in front of a node in one address family, as other nodes see it.
#[derive(Debug, Clone, Copy)]
struct Front {
    /// True if the outer port is the same for all destinations.
    is_fixed: bool,
    /// True if the outer port is not fixed but follows the previous one.
    is_predictable: bool,
    filtering: Behaviour,
}

impl Expected {
    /// Percentage of seeds that must be direct in a cell that is [likely](Self::Likely) to be direct.
    pub const LIKELY: usize = 98;

    /// Returns the expectation for two nodes that are connected in these ways.
    ///
    /// In a family that both nodes have:
    ///
    /// * If both outer ports are fixed, both nodes know them and send at the same time: direct.
    /// * If one is fixed (`F`) and the other one (`D`) depends on the destination, `D` sends to `F` from a
    ///   port that `F` does not know. `F`'s filter accepts that packet if it has no condition, or checks only
    ///   the address, because `F` has sent to the address: direct. If the filter checks the port too, `F` has
    ///   to guess `D`'s port. That is direct if `D`'s ports follow each other. Otherwise `F` tries 2048 ports
    ///   while `D` sends from 256: direct with a probability of 99.97 %. (`F`'s packets may reach `D` if `D`
    ///   filters nothing, but the answers leave from the port that `F` does not know.)
    /// * If both depend on the destination, each new packet may make a new port. The result depends on which
    ///   node is first: either.
    ///
    /// A root relays where no UDP passes. (Real nodes punch by TCP then. The simulator has TCP only to
    /// roots.)
    pub fn of(a: Kind, b: Kind) -> Self {
        let has_no_udp = |kind| matches!(kind, Kind::UdpBlocked | Kind::Only443);
        if has_no_udp(a) || has_no_udp(b) {
            return Self::Relay;
        }
        let families = [front_v4(a).zip(front_v4(b)), front_v6(a).zip(front_v6(b))];
        let of_family = |(a, b): (Front, Front)| match (a.is_fixed, b.is_fixed) {
            (true, true) => Self::Direct,
            (true, false) => Self::with_one_fixed(a, b),
            (false, true) => Self::with_one_fixed(b, a),
            (false, false) => Self::Either,
        };
        let all: Vec<Self> = families.into_iter().flatten().map(of_family).collect();
        let best = [Self::Direct, Self::Likely, Self::Either].into_iter().find(|wanted| all.contains(wanted));
        best.unwrap_or(Self::Relay)
    }

    fn with_one_fixed(fixed: Front, other: Front) -> Self {
        match fixed.filtering {
            Behaviour::EndpointIndependent | Behaviour::AddressDependent => Self::Direct,
            Behaviour::AddressAndPortDependent if other.is_predictable => Self::Direct,
            Behaviour::AddressAndPortDependent => Self::Likely,
        }
    }
}

const HOME: Front =
    Front { is_fixed: true, is_predictable: true, filtering: Behaviour::AddressAndPortDependent };

fn front_v4(kind: Kind) -> Option<Front> {
    match kind {
        Kind::Open => Some(Front { filtering: Behaviour::EndpointIndependent, ..HOME }),
        Kind::Nat { mapping, filtering, predictable } => Some(Front {
            is_fixed: mapping == Behaviour::EndpointIndependent,
            is_predictable: predictable,
            filtering,
        }),
        // The strictest filter on the path decides.
        Kind::ShortLived | Kind::Double | Kind::Cgn => Some(HOME),
        Kind::Nat64 => Some(Front { filtering: Behaviour::AddressDependent, ..HOME }),
        Kind::CgnDependent | Kind::DualStack | Kind::Nat64Dependent => {
            Some(Front { is_fixed: false, is_predictable: false, ..HOME })
        }
        Kind::UdpBlocked | Kind::Only443 => None,
        Kind::Ipv6 | Kind::Ipv6Firewall | Kind::Nat66 | Kind::Nat66Dependent => None,
    }
}

fn front_v6(kind: Kind) -> Option<Front> {
    match kind {
        Kind::Ipv6 => Some(Front { filtering: Behaviour::EndpointIndependent, ..HOME }),
        Kind::Ipv6Firewall | Kind::DualStack | Kind::Nat64 | Kind::Nat64Dependent | Kind::Nat66 => Some(HOME),
        Kind::Nat66Dependent => Some(Front { is_fixed: false, is_predictable: false, ..HOME }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_usual_boxes_follows_from_the_rules() {
        let nat = |mapping, filtering| Kind::Nat { mapping, filtering, predictable: false };
        use Behaviour::{AddressAndPortDependent as Apd, AddressDependent as Ad, EndpointIndependent as Ei};
        let (full, restricted, port_restricted) = (nat(Ei, Ei), nat(Ei, Ad), nat(Ei, Apd));
        let symmetric = nat(Apd, Apd);
        // RFC 5128, 3.3 and 3.4.
        for (a, b, expected) in [
            (port_restricted, port_restricted, Expected::Direct),
            (symmetric, full, Expected::Direct),
            (symmetric, restricted, Expected::Direct),
            (symmetric, port_restricted, Expected::Likely),
            (Kind::CgnDependent, Kind::Double, Expected::Likely),
            (Kind::DualStack, port_restricted, Expected::Likely),
            (symmetric, Kind::Open, Expected::Direct),
            (symmetric, symmetric, Expected::Either),
            (Kind::Ipv6, Kind::Open, Expected::Relay),
            (Kind::DualStack, Kind::Ipv6Firewall, Expected::Direct),
            (Kind::DualStack, Kind::DualStack, Expected::Direct),
            (Kind::Cgn, Kind::Double, Expected::Direct),
            (Kind::Nat64, Kind::Double, Expected::Direct),
            (Kind::Nat64, Kind::Ipv6, Expected::Direct),
            (Kind::Nat64Dependent, Kind::Cgn, Expected::Likely),
            (Kind::Nat66, Kind::Ipv6Firewall, Expected::Direct),
            (Kind::Nat66, Kind::Double, Expected::Relay),
            (Kind::Nat66Dependent, Kind::Nat66, Expected::Likely),
            (Kind::Nat66Dependent, Kind::DualStack, Expected::Likely),
            (Kind::Nat66Dependent, Kind::Ipv6, Expected::Direct),
            (Kind::Nat66Dependent, Kind::Nat66Dependent, Expected::Either),
            (Kind::Cgn, Kind::UdpBlocked, Expected::Relay),
            (Kind::Only443, Kind::Open, Expected::Relay),
        ] {
            assert_eq!([Expected::of(a, b), Expected::of(b, a)], [expected; 2], "{a} {b}");
        }
    }
}
