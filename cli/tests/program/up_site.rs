//! An exit leads to the Internet, but not into its own site or into other networks of its machine.

use std::time::Instant;

use crate::cable::ip;
use crate::common::{PATIENCE, Running, run, without_variables};
use crate::exit_scene::{CLIENT, EXIT, INTERNET, OF_EXIT, ROUTER, SERVER, Scene, inside};

/// A host at the exit's site with public addresses; here the router has them.
const HOST: &str = "203.0.113.254";
const HOST_V6: &str = "2001:db8:8::fe";

impl Scene {
    fn is_reached(&self, from: usize, address: &str) -> bool {
        self.run(from, &["ping", "-c", "1", "-W", "1", address]).text().contains("1 received")
    }

    fn wait_until_reached(&self, from: usize, address: &str, is_reached: bool, said: impl Fn() -> String) {
        let begin = Instant::now();
        while self.is_reached(from, address) != is_reached {
            assert!(begin.elapsed() < PATIENCE, "{address}: {is_reached} never came\n{}", said());
        }
    }
}

#[test]
fn an_exit_leads_to_nothing_on_the_links_of_its_machine_whenever_they_come() {
    let Some(scene) = Scene::lay("exitsite", &["0.0.0.0/0", "::/0"]) else { return };
    assert!(ip(["-n", &scene.places[ROUTER], "addr", "add", &format!("{HOST}/24"), "dev", "to2"]));
    let gate = scene.gate();
    let client = scene.client();
    let said = || [client.said(), gate.said()].concat();
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}", said());
    // Behind the exit's router, the host counts as Internet. Then the exit joins its link, and leaves it.
    scene.wait_until_reached(CLIENT, HOST, true, said);
    scene.run(EXIT, &["ip", "addr", "add", "203.0.113.2/24", "dev", "eth0"]).success();
    assert!(scene.is_reached(EXIT, HOST));
    scene.wait_until_reached(CLIENT, HOST, false, said);
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}", said());
    scene.run(EXIT, &["ip", "addr", "del", "203.0.113.2/24", "dev", "eth0"]).success();
    scene.wait_until_reached(CLIENT, HOST, true, said);
    // A route alone, as routers advertise it.
    scene.run(EXIT, &["ip", "route", "add", "203.0.113.0/24", "dev", "eth0"]).success();
    scene.wait_until_reached(CLIENT, HOST, false, said);
    // This link existed from the beginning.
    assert!(scene.is_reached(EXIT, HOST_V6));
    assert!(!scene.is_reached(CLIENT, HOST_V6), "{}", said());
    // Addresses of the exit's machine itself are reached.
    assert!(scene.is_reached(CLIENT, OF_EXIT[1]), "{}", said());
}

#[test]
fn a_block_of_the_file_opens_the_site() {
    let Some(scene) = Scene::lay("exitopen", &["0.0.0.0/0", "203.0.113.0/24"]) else { return };
    assert!(ip(["-n", &scene.places[ROUTER], "addr", "add", &format!("{HOST}/24"), "dev", "to2"]));
    scene.run(EXIT, &["ip", "addr", "add", "203.0.113.2/24", "dev", "eth0"]).success();
    let gate = scene.gate();
    let client = scene.client();
    scene.wait_until_reached(CLIENT, HOST, true, || [client.said(), gate.said()].concat());
}

/// The exit is in a second network, whose members have public addresses.
#[test]
fn an_exit_leads_to_no_other_network_of_its_machine() {
    let Some(scene) = Scene::lay("exitother", &["0.0.0.0/0"]) else { return };
    let other = scene.lab.dir.path().join("other.toml").to_str().unwrap().to_owned();
    let endpoint = format!("{}:7420", OF_EXIT[0]);
    let of = |node: &str, words: &[&str]| run(scene.lab.command(node, words)).success();
    of(
        "gate",
        &["network", "new", &other, "--name", "gate", "--address", "5.5.5.1", "--endpoint", &endpoint],
    );
    of("far", &["network", "add", &other, "--name", "far", "--address", "5.5.5.2"]);
    let gate = scene.up(EXIT, "gate", &["--overlay-port", "7420", "--network", &other]);
    let mut command = inside(&scene.places[INTERNET], &[env!("CARGO_BIN_EXE_peersock"), "up"]);
    command.arg("--state").arg(scene.lab.state("far")).args(["--network", &other, "--no-portmap"]);
    without_variables(&mut command);
    let far = Running::start(command);
    far.wait_for_stdout("5.5.5.2");
    let client = scene.client();
    let said = || [client.said(), gate.said(), far.said()].concat();
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}", said());
    // The far member knows the exit's address, and the exit learns of the member that way.
    scene.wait_until_reached(INTERNET, "5.5.5.1", true, said);
    assert!(scene.is_reached(EXIT, "5.5.5.2"), "{}", said());
    assert!(!scene.is_reached(CLIENT, "5.5.5.2"), "{}", said());
}
