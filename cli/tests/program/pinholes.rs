//! A node behind a router that blocks unsolicited packets, by IPv4 with a NAT and by IPv6 with a firewall.
//! The node asks the router, miniupnpd, for a port forwarding, and a peer outside uses it. Punching is
//! impossible, because the router blocks the node's own packets to the peer. Needs root, `natlab` and
//! miniupnpd.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use peersock_testnet::Lab as Nats;
use serde_json::Value;

use crate::common::{Lab, PORT, Running, peersock};
use crate::nats::{start, wait_for_status};

/// Time for which a path that must stay relayed is watched.
const WATCHED: Duration = Duration::from_secs(6);

/// A router with miniupnpd, a node behind it, and a peer outside.
struct Scene {
    nats: Nats,
    lab: Lab,
    _root: Running,
    /// Text that the root has printed.
    text: String,
    /// Address family of the test.
    family: &'static str,
}

impl Scene {
    /// Builds the scene. `family` is `ip4` or `ip6`; the peer is reached only by it. Returns `None`, after
    /// printing the reason, if that is impossible on this machine.
    fn build(test: &str, family: &'static str) -> Option<Self> {
        let nats = Nats::build(test, "root=public far=public home=symmetric:upnp:v6=open")?;
        nats.leave_ipv6_to_miniupnpd("home");
        let rule = |rule: &str| nats.natlab(&["exec", "home", "--", "nft", rule]);
        for (of, name) in [("ip4", "ip"), ("ip6", "ip6")] {
            let far = address(&nats, "far", of);
            let chain = "insert rule inet natlab_fw forward";
            if of == family {
                rule(&format!("{chain} iifname lan {name} daddr {far} ct state new drop"));
            } else {
                rule(&format!("{chain} {name} daddr {far} drop"));
                rule(&format!("{chain} {name} saddr {far} drop"));
            }
        }
        let mut command = peersock(&["root", "--ephemeral", "--drain", "0"]);
        for of in ["ip4", "ip6"] {
            command.args(["--listen", &address(&nats, "root", of).to_string()]);
        }
        let root = start(&nats, "root", command);
        let text = root.wait_for_stdout("\n").lines().next().expect("a line").to_owned();
        Some(Self { nats, lab: Lab::new(), _root: root, text, family })
    }

    /// Makes the router ignore PCP and NAT-PMP requests.
    fn silence_pcp(&self) {
        let rule = "insert rule inet natlab_fw input iifname lan udp dport 5351 drop";
        self.nats.natlab(&["exec", "home", "--", "nft", rule]);
    }

    fn node(&self, name: &str, words: &[&str]) -> std::process::Command {
        let mut command = self.lab.command(name, words);
        command.args(["--no-tcp-punch", "--network", &self.lab.network, "--root", &self.text]);
        command
    }

    /// Starts a listener behind the router, and waits until it is registered.
    fn listen(&self, words: &[&str]) -> (Running, String) {
        let port = PORT.to_string();
        let command = self.node("listener", &[&["listen", &port], words].concat());
        let listening = start(&self.nats, "home1", command);
        let target = listening.wait_for_target();
        wait_for_status(&self.lab, "listener", |now| now["roots"][0]["state"] == "registered");
        (listening, target)
    }

    /// Dials from the peer outside, and exchanges data.
    fn dial(&self, target: &str, listening: &mut Running) -> Running {
        let mut dialing = start(&self.nats, "far", self.node("dialer", &["dial", "--no-portmap", target]));
        dialing.talk_to(listening, "from outside", "from inside");
        dialing
    }

    /// Returns the port of this family that the router has opened for the node.
    fn opened(&self, now: &Value, by: &str) -> Option<String> {
        let own = match self.family {
            "ip4" => address(&self.nats, "home", "ip4").to_string() + ":",
            _ => format!("[{}]:", address(&self.nats, "home1", "ip6")),
        };
        let candidates = now["contact"]["candidates"].as_array().cloned().unwrap_or_default();
        let is_it = |one: &Value| {
            one["kind"] == "forwarded"
                && one["by"] == by
                && one["address"].as_str().is_some_and(|at| at.starts_with(&own))
        };
        Some(candidates.iter().find(|one| is_it(one))?["address"].as_str()?.to_owned())
    }
}

fn address(nats: &Nats, node: &str, family: &str) -> IpAddr {
    if family == "ip4" { nats.ip4(node) } else { nats.ip6(node) }
}

/// Tests that a peer outside reaches the node at the port that the router has opened, by this protocol.
fn is_reached(test: &str, family: &'static str, by: &str) {
    let Some(scene) = Scene::build(test, family) else { return };
    if by == "UPnP" {
        scene.silence_pcp();
    }
    let (mut listening, target) = scene.listen(&[]);
    let known = wait_for_status(&scene.lab, "listener", |now| scene.opened(now, by).is_some());
    let at = scene.opened(&known, by).expect("it was there");
    let mut dialing = scene.dial(&target, &mut listening);
    let direct = |now: &Value| now["peers"][0]["path"].is_string() && now["peers"][0]["root"].is_null();
    let now = wait_for_status(&scene.lab, "dialer", direct);
    assert_eq!(now["peers"][0]["path"], at, "{now:#}");
    wait_for_status(&scene.lab, "listener", direct);
    dialing.talk_to(&mut listening, "by the opened port", "and back");
    dialing.end_stdin();
    listening.finish().success();
    dialing.finish().success();
}

/// Tests that the router admits nothing unasked, so that the other tests depend on its opened ports.
fn is_not_reached(test: &str, family: &'static str) {
    let Some(scene) = Scene::build(test, family) else { return };
    let (mut listening, target) = scene.listen(&["--no-portmap"]);
    let mut dialing = scene.dial(&target, &mut listening);
    thread::sleep(WATCHED);
    let now = wait_for_status(&scene.lab, "dialer", |now| now["peers"][0]["path"].is_string());
    assert!(now["peers"][0]["root"].is_string(), "there is a direct path: {now:#}");
    dialing.end_stdin();
    listening.finish().success();
    dialing.finish().success();
}

#[test]
fn a_node_is_reached_at_the_ipv4_port_that_pcp_has_opened() {
    is_reached("hole-4-pcp", "ip4", "PCP");
}

#[test]
fn a_node_is_reached_at_the_ipv4_port_that_upnp_has_opened() {
    is_reached("hole-4-igd", "ip4", "UPnP");
}

#[test]
fn a_node_is_reached_through_the_ipv6_firewall_that_pcp_has_opened() {
    is_reached("hole-6-pcp", "ip6", "PCP");
}

#[test]
fn a_node_is_reached_through_the_ipv6_firewall_that_upnp_has_opened() {
    is_reached("hole-6-igd", "ip6", "UPnP");
}

#[test]
fn a_node_that_does_not_ask_its_router_is_not_reached_by_ipv4() {
    is_not_reached("hole-4-none", "ip4");
}

#[test]
fn a_node_that_does_not_ask_its_router_is_not_reached_by_ipv6() {
    is_not_reached("hole-6-none", "ip6");
}
