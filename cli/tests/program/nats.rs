//! Programs behind real NATs, in network namespaces. Needs root and the program `natlab`; without them every
//! test prints that and does nothing.

use std::net::Ipv4Addr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use peersock_testnet::{Lab as Nats, LocalDht};
use serde_json::Value;

use crate::common::{Finished, Lab, PATIENCE, PORT, Running, peersock, run};

/// First address and number of the DHT's nodes: free addresses of the lab's public network.
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 100);
pub(crate) const NODES: u32 = 20;

/// Gives the lab's node `root` the addresses for a DHT of this size.
pub(crate) fn add_dht_addresses(nats: &Nats, nodes: u32) {
    let add = format!(
        "dev=$(ip -o -4 addr | awk '/203.0.113/ {{ print $2; exit }}'); \
         for i in $(seq 0 {}); do ip addr add 203.0.113.$((100 + i))/24 dev $dev || exit 1; done",
        nodes - 1
    );
    nats.natlab(&["exec", "root", "--", "sh", "-c", &add]);
}

/// Starts a program inside a node of the lab.
pub(crate) fn start(nats: &Nats, node: &str, command: Command) -> Running {
    nats.within(node, || Running::start(command))
}

/// Starts a root at the node `root`; also returns its text.
pub(crate) fn start_root(nats: &Nats, words: &[&str]) -> (Running, String) {
    let mut command = peersock(&["root", "--ephemeral", "--port", "7420", "--listen"]);
    command.arg(nats.ip4("root").to_string()).args(words);
    if !words.contains(&"--stream") {
        // These labs are about UDP.
        command.arg("--no-stream");
    }
    let root = start(nats, "root", command);
    let text = root.wait_for_stdout("\n").lines().next().expect("a line").to_owned();
    (root, text)
}

fn status(lab: &Lab, node: &str) -> Value {
    let text: Finished = run(lab.command(node, &["status", "--json"]));
    serde_json::from_slice(&text.success().stdout).expect("JSON")
}

/// Polls a node's status until it is as wanted.
pub(crate) fn wait_for_status(lab: &Lab, node: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = status(lab, node);
        if is_so(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "{now:#}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn two_programs_behind_nats_reach_each_other_by_the_dht_alone() {
    let topology = "root=public home=port-restricted work=port-restricted";
    let Some(nats) = Nats::build("by-dht", topology) else { return };
    add_dht_addresses(&nats, NODES);
    let dht = nats.within("root", || LocalDht::on_addresses(FIRST, NODES));
    let entries: Vec<_> = dht.entries().iter().map(ToString::to_string).collect();
    let entries = format!("--dht={}", entries.join(","));

    let lab = Lab::new();
    let node = |name: &str, words: &[&str]| {
        let mut command = lab.command(name, words);
        command.args(["--network", &lab.network, &entries]);
        command
    };
    let mut listening = start(&nats, "home1", node("listener", &["listen", &PORT.to_string()]));
    let target = listening.wait_for_target();
    let since = Instant::now();
    let mut dialing = start(&nats, "work1", node("dialer", &["dial", &target]));
    dialing.send(b"by nobody's server\n");
    listening.wait_for_stdout("by nobody's server\n");
    eprintln!("first byte {:?} after the start of dial", since.elapsed());
    listening.send(b"and back\n");
    dialing.wait_for_stdout("and back\n");

    let here = status(&lab, "dialer");
    let [home, work] = ["home", "work"].map(|site| nats.ip4(site).to_string());
    let path = here["peers"][0]["path"].as_str().expect("there is a session");
    assert!(path.starts_with(&format!("{home}:")), "{here:#}");
    assert_eq!(here["contact"]["mapping"], "endpoint-independent", "{here:#}");
    let seen = here["contact"]["candidates"].as_array().expect("some").iter();
    let mapped: Vec<_> = seen.filter(|one| one["kind"] == "mapped").map(|one| &one["address"]).collect();
    assert!(
        mapped.iter().all(|at| at.as_str().is_some_and(|at| at.starts_with(&format!("{work}:")))),
        "{here:#}"
    );
    assert_eq!(mapped.len(), 1, "{here:#}");
    dialing.end_stdin();
    listening.finish().success();
    dialing.finish().success();
}

#[test]
fn one_root_tells_the_kind_of_a_nat_by_its_second_port() {
    let Some(nats) = Nats::build("one-root", "root=public home=port-restricted work=symmetric") else {
        return;
    };
    let ipv4 = |node: &str, root: &str| {
        let command = peersock(&["netcheck", "--json", "--interface", "eth0", "--root", root]);
        let checked = nats.within(node, || run(command)).success();
        let report: Value = serde_json::from_str(checked.text()).expect("JSON");
        (report["interfaces"][0]["ipv4"].clone(), report["advice"].to_string())
    };
    let (root, text) = start_root(&nats, &[]);
    for (node, kind) in [("home1", "restrict-port"), ("work1", "symmetric")] {
        let (nat, advice) = ipv4(node, &text);
        assert_eq!(nat["kind"], kind, "{nat:#} {advice}");
    }
    // A node knows it as well, with this root alone.
    let lab = Lab::new();
    let words = ["listen", "-k", "0", "--no-portmap", "--network", &lab.network, "--root", &text];
    let listening = start(&nats, "work1", lab.command("node", &words));
    listening.wait_for_target();
    let known = wait_for_status(&lab, "node", |now| now["contact"]["nat"].is_string());
    assert_eq!(known["contact"]["nat"], "symmetric", "{known:#}");
    listening.interrupt();
    root.interrupt();
    // Without the port, as behind a firewall, the advice names it.
    let (_root, text) = start_root(&nats, &["--no-second-port"]);
    let (nat, advice) = ipv4("home1", &text);
    assert!(nat["kind"].is_null() && advice.contains("second UDP port"), "{nat:#} {advice}");
}

#[test]
fn a_node_with_a_root_knows_its_nat_and_has_a_port_forwarded_until_it_ends() {
    let topology = "stun=stun root=public home=port-restricted:upnp";
    let Some(nats) = Nats::build("by-root", topology) else { return };
    let (root, address) = start_root(&nats, &[]);

    let lab = Lab::new();
    let node = |name: &str, words: &[&str]| {
        let mut command =
            lab.command(name, &["listen", "-k", "0", "--network", &lab.network, "--root", &address]);
        // A root with a single address does not reveal the filter. The other server never answers, so that
        // the NAT check still runs while the port is already open.
        let (stun, silent) = (nats.ip4("stun"), nats.ip4("root"));
        command.args(words).arg(format!("--stun={stun}:3478")).arg(format!("--stun={silent}:9"));
        command
    };
    let router = nats.ip4("home").to_string();
    let plain = start(&nats, "home1", node("plain", &["--no-portmap"]));
    plain.wait_for_target();
    let known = wait_for_status(&lab, "plain", |now| now["contact"]["nat"].is_string());
    assert_eq!(known["contact"]["nat"], "restrict port", "{known:#}");
    let kinds = |now: &Value| -> Vec<String> {
        let candidates = now["contact"]["candidates"].as_array().cloned().unwrap_or_default();
        candidates.iter().map(|one| one["kind"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(kinds(&known)[0], "mapped", "{known:#}");
    assert!(!kinds(&known).contains(&"forwarded".to_owned()), "{known:#}");
    plain.interrupt();

    let mapped = start(&nats, "home1", node("mapped", &[]));
    mapped.wait_for_target();
    let known = wait_for_status(&lab, "mapped", |now| kinds(now).contains(&"forwarded".to_owned()));
    let first = &known["contact"]["candidates"][0];
    assert_eq!(first["kind"], "forwarded", "{known:#}");
    let at = first["address"].as_str().expect("an address").to_owned();
    assert!(at.starts_with(&format!("{router}:")) && first["by"] == "PCP", "{known:#}");
    let text = run(lab.command("mapped", &["status"])).success();
    assert!(text.text().contains(&format!("forwarded from {at} by PCP")), "{}", text.text());

    let port = at.rsplit(':').next().expect("a port");
    let rules = || nats.natlab(&["exec", "home", "--", "nft", "list", "ruleset"]);
    let is_open = || rules().lines().any(|rule| rule.contains("dnat") && rule.contains(port));
    assert!(is_open(), "{}", rules());
    mapped.interrupt();
    assert!(!is_open(), "it was closed: {}", rules());
    root.interrupt();
}

/// Both NATs map each destination to an unpredictable port, and admit only addresses that a node has
/// contacted. Only the router's forwarded port allows a direct path.
#[test]
fn a_node_is_reached_directly_at_the_port_that_its_router_forwards() {
    let topology = "root=public home=symmetric:upnp work=symmetric";
    let Some(nats) = Nats::build("forwarded", topology) else { return };
    let (_root, address) = start_root(&nats, &[]);
    let lab = Lab::new();
    let node = |name: &str, words: &[&str]| {
        let mut command = lab.command(name, words);
        command.args(["--network", &lab.network, "--root", &address]);
        command
    };
    let mut listening = start(&nats, "home1", node("listener", &["listen", &PORT.to_string()]));
    let target = listening.wait_for_target();
    let forwarded = |now: &Value| {
        let candidates = now["contact"]["candidates"].as_array().cloned().unwrap_or_default();
        let one = candidates.into_iter().find(|one| one["kind"] == "forwarded")?;
        Some(one["address"].as_str()?.to_owned())
    };
    let known = wait_for_status(&lab, "listener", |now| {
        forwarded(now).is_some() && now["roots"][0]["state"] == "registered"
    });
    let at = forwarded(&known).expect("it was there");
    let mut dialing = start(&nats, "work1", node("dialer", &["dial", "--no-portmap", &target]));
    dialing.send(b"by the router's port\n");
    listening.wait_for_stdout("by the router's port\n");
    let known = wait_for_status(&lab, "dialer", |now| {
        let peer = &now["peers"][0];
        peer["path"].is_string() && peer["root"].is_null()
    });
    assert_eq!(known["peers"][0]["path"], at, "{known:#}");
    listening.send(b"and back\n");
    dialing.wait_for_stdout("and back\n");
    dialing.end_stdin();
    listening.finish().success();
    dialing.finish().success();
}
