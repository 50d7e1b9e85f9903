//! Ports that a real router, miniupnpd, opens on request.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use peersock_nat::portmap::{self, Gateway, MapError, PortMapper, Protocol, Transport};
use peersock_testnet::Lab;

const TOPOLOGY: &str = "far=public home=port-restricted:upnp plain=port-restricted";
const BUDGET: Duration = Duration::from_secs(4);

fn gateway(lab: &Lab, node: &str) -> Gateway {
    let local = lab.ip4(node);
    let octets = local.to_string();
    let (net, _) = octets.rsplit_once('.').expect("an IPv4 address");
    Gateway {
        interface: Some("eth0".into()),
        local,
        router: format!("{net}.1:0").parse().expect("an address"),
    }
}

/// Returns true if a datagram from outside to the mapped port arrives at the node.
fn arrives(lab: &Lab, inside: &UdpSocket, external: SocketAddr) -> bool {
    lab.within("far", || {
        let any: IpAddr = if external.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let far = UdpSocket::bind((any, 0)).expect("there is a socket");
        for _ in 0..10 {
            far.send_to(b"from outside", external).expect("it leaves");
            inside.set_read_timeout(Some(Duration::from_millis(50))).expect("not zero");
            if inside.recv(&mut [0; 64]).is_ok() {
                return true;
            }
        }
        false
    })
}

#[test]
fn every_protocol_opens_renews_and_closes_a_port() {
    let Some(lab) = Lab::build("ports", TOPOLOGY) else { return };
    let gateway = gateway(&lab, "home1");
    let found = lab.within("home1", || portmap::find(&gateway, BUDGET));
    let names: Vec<_> = found.iter().map(|found| (found.protocol, found.external)).collect();
    let outer = Some(lab.ip4("home"));
    assert_eq!(names, [(Protocol::Pcp, None), (Protocol::NatPmp, outer), (Protocol::Upnp, outer)]);

    for (index, protocol) in [Protocol::Pcp, Protocol::NatPmp, Protocol::Upnp].into_iter().enumerate() {
        let port = 5000 + u16::try_from(index).expect("it is small");
        let lifetime = Duration::from_secs(600);
        let socket = lab.within("home1", || UdpSocket::bind(("0.0.0.0", port))).expect("the port is free");
        let ask = || portmap::map_by(protocol, &gateway, Transport::Udp, port, lifetime, BUDGET);
        let mapping = lab.within("home1", ask).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((mapping.external.ip(), mapping.lifetime), (lab.ip4("home"), lifetime));
        assert!(arrives(&lab, &socket, mapping.external), "{protocol}: the port is open");

        let renewed = lab.within("home1", || mapping.renew(&gateway, lifetime, BUDGET));
        assert_eq!(renewed.unwrap_or_else(|error| panic!("{error}")).external, mapping.external);

        lab.within("home1", || mapping.remove(&gateway, BUDGET)).unwrap_or_else(|error| panic!("{error}"));
        assert!(!arrives(&lab, &socket, mapping.external), "{protocol}: the port is closed");
    }
}

#[test]
fn a_router_without_any_of_it_costs_a_known_time() {
    let Some(lab) = Lab::build("none", TOPOLOGY) else { return };
    let gateway = gateway(&lab, "plain1");
    let begin = Instant::now();
    assert_eq!(lab.within("plain1", || portmap::find(&gateway, Duration::from_millis(900))), []);
    let ask = || portmap::map(&gateway, Transport::Udp, 5000, PortMapper::LIFETIME, Duration::from_secs(1));
    let error = lab.within("plain1", ask).expect_err("there is no such router");
    assert!(matches!(error, MapError::Silent { .. }), "{error}");
    // Far above both limits, because this does not measure speed.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn a_kept_port_outlives_its_lifetime_and_a_restart_of_the_router_and_ends_with_its_keeper() {
    let Some(lab) = Lab::build("kept", TOPOLOGY) else { return };
    let gateway = gateway(&lab, "home1");
    let socket = lab.within("home1", || UdpSocket::bind("0.0.0.0:6000")).expect("the port is free");
    // The shortest lifetime that this router allows.
    let lifetime = Duration::from_secs(10);
    let mapper = lab.within("home1", || PortMapper::start(gateway, Transport::Udp, 6000, lifetime));
    let external = mapper.wait_external(BUDGET * 2).expect("the router opens ports");
    assert!(arrives(&lab, &socket, external));
    thread::sleep(lifetime + Duration::from_secs(3));
    assert!(arrives(&lab, &socket, external), "it was renewed");

    lab.natlab(&["reboot", "home"]);
    let again = Instant::now() + Duration::from_secs(20);
    mapper.refresh();
    while !arrives(&lab, &socket, mapper.external().unwrap_or(external)) {
        assert!(Instant::now() < again, "it was not opened again");
    }
    let external = mapper.external().expect("it is open");
    lab.within("home1", || mapper.stop());
    assert!(!arrives(&lab, &socket, external), "it was closed");
}

#[test]
fn a_firewall_for_ipv6_is_opened_by_pcp_and_by_upnp() {
    let Some(lab) = Lab::build("pinhole", "far=public home=port-restricted:upnp:v6=open") else { return };
    lab.leave_ipv6_to_miniupnpd("home");
    let local = lab.ip6("home1");
    let gateway =
        Gateway { interface: Some("eth0".into()), local, router: (lab.router("home1", "ip6"), 0).into() };
    let found = lab.within("home1", || portmap::find(&gateway, BUDGET));
    let names: Vec<_> = found.iter().map(|found| (found.protocol, found.external)).collect();
    assert_eq!(names, [(Protocol::Pcp, None), (Protocol::Upnp, None)]);

    for (port, protocol) in [(5000, Protocol::Pcp), (5001, Protocol::Upnp)] {
        let socket = lab.within("home1", || UdpSocket::bind((local, port))).expect("the port is free");
        let own = SocketAddr::new(local, port);
        assert!(!arrives(&lab, &socket, own), "the firewall is closed");
        let lifetime = PortMapper::LIFETIME;
        let ask = || portmap::map_by(protocol, &gateway, Transport::Udp, port, lifetime, BUDGET);
        let mapping = lab.within("home1", ask).unwrap_or_else(|error| panic!("{error}"));
        // There is no NAT, so the local endpoint becomes reachable.
        assert_eq!((mapping.protocol, mapping.external), (protocol, own));
        assert!(arrives(&lab, &socket, own), "{protocol}: it is open");
        let renewed = lab.within("home1", || mapping.renew(&gateway, lifetime, BUDGET));
        assert_eq!(renewed.unwrap_or_else(|error| panic!("{error}")).external, own);
        assert!(arrives(&lab, &socket, own), "{protocol}: it stays open");
        // miniupnpd 2.3 with nftables forgets the nonce of PCP's pinholes and refuses to end them; they
        // expire.
        if protocol == Protocol::Upnp {
            lab.within("home1", || mapping.remove(&gateway, BUDGET))
                .unwrap_or_else(|error| panic!("{error}"));
            assert!(!arrives(&lab, &socket, own), "it is closed");
        }
    }
}
