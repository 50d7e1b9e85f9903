//! Time that two programs behind real NATs take to meet by a DHT of 50 nodes and nothing else. Needs root and
//! the program `natlab`; without them every test prints that and does nothing.

use std::time::{Duration, Instant};

use peersock_testnet::{Lab as Nats, LocalDht};

use crate::common::{Lab, PORT};
use crate::nats::{FIRST, add_dht_addresses, start};

const NODES: u32 = 50;

/// Number of meetings, of which the median is taken.
const MEETINGS: usize = 10;

/// The promised time from the start of `dial` until its first byte is on the listener's stdout.
const PROMISED: Duration = Duration::from_secs(10);

#[test]
#[ignore = "cargo xtask test --only slow: it takes a minute or two"]
fn the_first_byte_comes_within_ten_seconds_in_the_median_from_a_listener_that_has_just_started() {
    let Some(place) = Place::build("dht-new") else { return };
    let mut times: Vec<_> = (0..MEETINGS).map(|_| place.meet()).collect();
    times.sort_unstable();
    let median = times[times.len() / 2];
    eprintln!("median {median:?} of {times:?}");
    assert!(median <= PROMISED, "{median:?} in the median of {times:?}");
}

/// A DHT on the open network, and two sites whose NATs admit only addresses that a node has contacted.
struct Place {
    nats: Nats,
    entries: String,
    _dht: LocalDht,
}

impl Place {
    fn build(test: &str) -> Option<Self> {
        let nats = Nats::build(test, "root=public home=port-restricted work=port-restricted")?;
        add_dht_addresses(&nats, NODES);
        let dht = nats.within("root", || LocalDht::on_addresses(FIRST, NODES));
        assert_eq!(dht.addresses().len(), NODES as usize);
        let entries: Vec<_> = dht.entries().iter().map(ToString::to_string).collect();
        Some(Self { nats, entries: format!("--dht={}", entries.join(",")), _dht: dht })
    }

    /// Lets two programs meet in a private network. Returns the time from `dial`'s start to the first byte.
    fn meet(&self) -> Duration {
        let lab = Lab::new();
        let node = |name: &str, words: &[&str]| {
            let mut command = lab.command(name, words);
            command.args(["--network", &lab.network, &self.entries]);
            command
        };
        let mut listening = start(&self.nats, "home1", node("listener", &["listen", &PORT.to_string()]));
        let target = listening.wait_for_target();
        let since = Instant::now();
        let mut dialing = start(&self.nats, "work1", node("dialer", &["dial", &target]));
        dialing.send(b"by nobody's server\n");
        listening.wait_for_stdout("by nobody's server\n");
        let took = since.elapsed();
        eprintln!("first byte {took:?} after the start of dial");
        listening.send(b"and back\n");
        dialing.wait_for_stdout("and back\n");
        dialing.end_stdin();
        listening.finish().success();
        dialing.finish().success();
        took
    }
}
