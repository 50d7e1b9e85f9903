//! A node on an IPv6-only network with a real NAT64 (the program `tayga`) and a nameserver that announces it.
//! The roots and a peer have IPv4 only.
//!
//! Needs root, `ip`, `tayga` and /dev/net/tun, one test also `nft`; skips otherwise. The namespaces are
//! removed with the test.

mod net;

use std::time::Duration;

use peersock_nat::interfaces::{Family, Interface};
use serde_json::Value;

use crate::common::{PORT, Running, lacks};
use net::{Net, OTHER_ROOT, PEER, POOL, PREFIX, ROOT, ip};

/// Address behind which the NAT64 hides the pool if it maps each destination to another port.
const MASK: &str = "192.0.2.64";
/// Port of the peer, and the port to which its box maps it.
const INNER_PORT: &str = "4000";
const OUTER_PORT: &str = "41234";

#[test]
fn a_root_and_a_peer_with_ipv4_only_are_reached_through_a_nat64() {
    let Some(net) = Net::lay("udp") else { return };
    let (root, text) = net.root(&["--listen", ROOT]);
    let status = net.converse(&[&text], |status| status["peers"][0]["root"].is_null());
    let path = status["peers"][0]["path"].as_str().unwrap_or_default();
    assert!(path.starts_with(PEER), "straight to the peer: {status:#}");
    assert_eq!(status["roots"][0]["path"], format!("{ROOT}:7420"));
    let observed = status["roots"][0]["observed"].as_str().unwrap_or_default();
    assert!(observed.starts_with(POOL), "the root sees what the NAT64 makes of it: {status:#}");
    root.interrupt();
}

/// tayga gives each host a separate address with all ports; nftables hides them behind one.
#[test]
fn a_port_of_a_nat64_that_nobody_can_guess_is_found_among_many() {
    const TEST: &str = "ports";
    if lacks(TEST, &["nft"]) {
        return;
    }
    let Some(net) = Net::lay(TEST) else { return };
    net.nft(
        "gate",
        &format!(
            "table ip mask {{ chain out {{ type nat hook postrouting priority srcnat; \
             ip saddr {POOL}0/24 meta l4proto udp snat to {MASK} random; }}; }}"
        ),
    );
    // Unsolicited packets are dropped silently.
    assert!(ip(&format!("-n {}gate route add blackhole {MASK}/32", net.name)));
    net.nft(
        "peer",
        &format!(
            "table ip home {{ chain out {{ type nat hook postrouting priority srcnat; \
             udp sport {INNER_PORT} snat to {PEER}:{OUTER_PORT}; }}; \
             chain in {{ type filter hook input priority 0; \
             ct state established,related accept; meta l4proto udp drop; }}; }}"
        ),
    );
    let roots =
        [("root", ROOT), ("other", OTHER_ROOT)].map(|(host, at)| net.root_at(host, &["--listen", at]));
    let texts = [&roots[0].1[..], &roots[1].1[..]];
    let words = ["--no-tcp-punch", "--overlay-port", INNER_PORT];
    let is_found =
        |status: &Value| status["peers"][0]["root"].is_null() && status["peers"][0]["path"].is_string();
    // A search fails about twice in a hundred times, and practically never three times in a row.
    let found = (0..3).find_map(|_| match net.try_converse(&texts, &words, &is_found) {
        Ok(status) => Some(status),
        Err(said) => {
            eprintln!("nothing was found: {said}");
            None
        }
    });
    let status = found.expect("a direct path");
    let peer = &status["peers"][0];
    assert_eq!(peer["path"], format!("{PEER}:{OUTER_PORT}"), "{status:#}");
    let attempts = peer["attempts"].as_array().expect("it was tried");
    let by_many = attempts.iter().find(|one| one["kind"] == "birthday").expect("by many ports, too");
    assert_eq!(by_many["answered"], true, "{status:#}");
    for (root, _) in roots {
        root.interrupt();
    }
}

#[test]
fn a_root_that_takes_streams_only_is_reached_through_a_nat64() {
    let Some(net) = Net::lay("tcp") else { return };
    let (root, text) = net.root(&["--listen", ROOT, "--stream", "443"]);
    let (key, _) = text.split_once('@').expect("a key and endpoints");
    let way = format!("tcp:{ROOT}:443");
    let status = net.converse(&[&format!("{key}@{way}")], |_| true);
    assert_eq!(status["roots"][0]["stream"], way);
    root.interrupt();
}

#[test]
fn netcheck_asks_servers_with_ipv4_by_the_nat64_and_tells_how_that_maps() {
    let Some(net) = Net::lay("netcheck") else { return };
    // Roots also serve STUN.
    let roots = [("root", ROOT), ("peer", PEER)].map(|(host, ip)| net.root_at(host, &["--listen", ip]).0);
    let servers = [ROOT, PEER].map(|ip| format!("{ip}:7420"));
    let words = ["netcheck", "--json", "--stun", &servers[0], "--stun", &servers[1]];
    let report = net.inside("phone", "netcheck", &words).finish().success();
    let report: Value = serde_json::from_str(report.text()).expect("JSON");
    assert_eq!(
        (&report["nat64"], &report["udp"]),
        (&Value::from(format!("{PREFIX}/96")), &Value::from(true))
    );
    for (server, target) in report["servers"].as_array().expect("servers").iter().zip(&servers) {
        let at = &server["addresses"][0];
        assert_eq!((&at["address"], &at["reachable"]), (&Value::from(target.as_str()), &Value::from(true)));
        assert!(at["rtt_ms"].as_f64().is_some(), "{server}");
    }
    let mut interfaces = report["interfaces"].as_array().expect("interfaces").iter();
    let eth0 = interfaces.find(|interface| interface["name"] == "eth0").expect("it is up");
    assert!(eth0["ipv4"]["mapped"].as_str().unwrap_or_default().starts_with(POOL), "{eth0:#}");
    // The NAT64 gives each host a separate address.
    assert_eq!(eth0["ipv4"]["mapping"], "endpoint-independent", "{eth0:#}");
    assert_eq!(eth0["ipv4"]["translated"], true);
    assert_eq!(eth0["ipv6"], Value::Null, "no server has IPv6");
    for root in roots {
        root.interrupt();
    }
}

#[test]
fn programs_that_probe_for_themselves_see_the_nat64_as_netcheck_does() {
    let Some(net) = Net::lay("probe") else { return };
    let roots = [("root", ROOT), ("peer", PEER)].map(|(host, ip)| net.root_at(host, &["--listen", ip]).0);
    // The second server has the form that a resolver behind a NAT64 returns.
    let servers = format!("{ROOT}:7420 [{PREFIX}{PEER}]:7420");
    let mut probe = net.command("phone", "probe", std::env::current_exe().expect("this one").as_os_str());
    probe.args(["--exact", "nat64::what_a_program_sees", "--nocapture"]).env(PROBED_SERVERS, servers);
    let said = Running::start(probe).finish().success();
    let (begin, end) = (said.text().find('{').expect("JSON"), said.text().rfind('}').expect("JSON"));
    let nic: Value = serde_json::from_str(&said.text()[begin..=end]).expect("JSON");
    assert_eq!(nic["name"], "eth0", "{nic:#}");
    // tayga gives each host a separate address, with all ports. Without answers the NAT counts as random.
    assert_eq!(
        (&nic["nat"]["delta_info"], &nic["nat"]["nat_info"]),
        (&"equal".into(), &"restrict port".into())
    );
    let [ip4, ip6] = [Family::Ip4, Family::Ip6].map(|family| &nic["rp"][family.number().to_string()]);
    assert_eq!(*ip4, Value::Array(Vec::new()), "it has no address of IPv4: {nic:#}");
    assert_eq!(ip6[0]["ext_ips"][0]["ip"], "2001:db8:1::2", "{nic:#}");
    for root in roots {
        root.interrupt();
    }
}

/// Servers that [`what_a_program_sees`] asks.
const PROBED_SERVERS: &str = "PEERSOCK_TEST_SERVERS";

/// The program of that test: prints its view of its interface. It does nothing unless that test starts it.
#[test]
#[expect(clippy::print_stdout, reason = "the test that starts it reads this")]
fn what_a_program_sees() {
    let Ok(servers) = std::env::var(PROBED_SERVERS) else { return };
    let servers: Vec<_> = servers.split(' ').map(|server| server.parse().expect("an endpoint")).collect();
    let timeout = Duration::from_secs(4);
    let mut nic = Interface::load(None, &servers, timeout).expect("there is an interface");
    nic.load_nat(&servers, timeout).expect("it is still there");
    println!("{}", nic.to_json());
}

#[test]
fn the_dht_is_said_to_need_ipv4() {
    let Some(net) = Net::lay("dht") else { return };
    let words = ["listen", &PORT.to_string(), "--no-portmap", "--network", &net.lab.network];
    for dht in ["--dht", "--dht=198.51.100.3:6881"] {
        let listener = net.node("phone", &[&words, &[dht][..]].concat());
        let said = listener.wait_for_stderr("the DHT cannot be used");
        assert!(said.contains("needs IPv4"), "{said}");
        // The program continues, because it can be found in other ways.
        listener.wait_for_target();
        let status = net.status("phone");
        assert!(
            status["dht"]["error"].as_str().is_some_and(|error| error.contains("needs IPv4")),
            "{status:#}"
        );
        listener.interrupt();
    }
}
