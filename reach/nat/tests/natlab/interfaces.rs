//! Interfaces with their routes, from inside several networks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peersock_nat::interfaces::{Family, Interface, IpBlock, list_interfaces};
use peersock_nat::{DeltaKind, NatKind};
use peersock_testnet::Lab;

const TIMEOUT: Duration = Duration::from_secs(4);

#[test]
fn routes_say_as_what_an_interface_s_addresses_are_seen() {
    let topology = "stun=stun home=port-restricted:v6=firewall flat=routed symm=symmetric-delta:delta=3";
    let Some(lab) = Lab::build("routes", topology) else { return };
    let servers: [SocketAddr; 2] = [(lab.ip4("stun"), 3478).into(), (lab.ip6("stun"), 3478).into()];
    let load = |node| {
        lab.within(node, || {
            let mut nic = Interface::load(None, &servers, TIMEOUT)?;
            nic.load_nat(&servers, TIMEOUT)?;
            Ok::<_, std::io::Error>(nic)
        })
        .unwrap_or_else(|error| panic!("{error}"))
    };

    let home = load("home1");
    assert_eq!(lab.within("home1", list_interfaces).expect("the system tells"), ["eth0", "lo"]);
    assert_eq!((home.name(), home.supported()), ("eth0", Family::ALL.to_vec()));
    let route = home.route(Family::Ip4).expect("it has IPv4");
    assert_eq!((route.nic(), route.ext()), (Some(lab.ip4("home1")), Some(lab.ip4("home"))));
    let route = home.route(Family::Ip6).expect("it has IPv6");
    assert_eq!(route.ext(), Some(lab.ip6("home1")));
    assert!(route.nic_ips().iter().all(IpBlock::is_link_local) && !route.nic_ips().is_empty());
    assert_eq!((home.nat().kind, home.nat().is_known), (NatKind::RestrictPort, true));
    assert_eq!(Interface::from_json(&home.to_json()).expect("it was written so"), home);

    let symm = load("symm1");
    let delta = symm.nat().delta.map(|delta| (delta.kind, delta.value));
    assert_eq!((symm.nat().kind, delta), (NatKind::Symmetric, Some((DeltaKind::Independent, 3))));

    // A machine that has a whole block.
    let IpAddr::V4(own) = lab.ip4("flat1") else { panic!("it is IPv4") };
    let [a, b, c, _] = own.octets();
    let block = format!("{a}.{b}.{c}.128/25");
    lab.natlab(&["exec", "flat1", "--", "ip", "addr", "add", &block, "dev", "eth0"]);
    lab.natlab(&["exec", "flat1", "--", "ip", "route", "add", "local", &block, "dev", "lo"]);
    let flat = load("flat1");
    let pool = flat.rp(Family::Ip4);
    let routes: Vec<String> =
        pool.routes().iter().flat_map(|route| route.ext_ips().iter().map(ToString::to_string)).collect();
    assert_eq!((routes, pool.len()), (vec![format!("{own}/32"), block], 1 + 126));
    assert_eq!((flat.nat().kind, flat.nat().delta), (NatKind::Open, None));
    // A socket on any of these routes uses its address.
    let last = pool.get(126).expect("it is there");
    let socket = lab.within("flat1", || last.bind(0, None)?.udp()).expect("the address is local");
    assert_eq!(Some(socket.local_addr().expect("it is bound").ip()), last.ext());
}

#[test]
fn an_interface_that_was_set_down_is_not_listed_and_one_without_carrier_is() {
    let Some(lab) = Lab::build("down", "flat=routed") else { return };
    let ip = |words: &str| {
        let words: Vec<_> = ["exec", "flat1", "--", "ip"].into_iter().chain(words.split(' ')).collect();
        lab.natlab(&words)
    };
    let is_listed =
        || lab.within("flat1", list_interfaces).expect("the system tells").contains(&"near".to_owned());
    ip("link add near type veth peer name far");
    ip("addr add 192.0.2.1/24 dev near");
    assert!(!is_listed(), "it has an address, and was never set up");
    ip("link set near up");
    assert!(is_listed(), "its other end is down, which may be over in a moment");
    ip("link set near down");
    assert!(!is_listed());
}
