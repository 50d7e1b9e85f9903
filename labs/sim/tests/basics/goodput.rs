//! Goodput of a transfer while its path moves: from a relay to a direct path, back when that one dies, and
//! from one direct path to another.
//!
//! In the second around a move from a working path, at least four fifths of one second's data on the slower
//! of the two paths arrive. When a path dies, all data under way is lost and TCP restarts with a small
//! window. Then the bound is seven tenths, in the second from the first byte on. All lines have a rate and a
//! queue with drop tail, and the two paths differ in their rates or round trips.

use std::sync::Arc;
use std::time::Duration;

use peersock_sim::net::{FaultId, LanId, LinkId, Pipe, Prefixes, Stage};
use peersock_sim::{Plan, Reader, Script, Step, World};

use crate::SECOND;
use crate::homes::Homes;
use crate::lab::{Lab, open_network};

/// Least percentage of the slower path's rate: when the old path works, and when it has died.
const MIN_PERCENT: u64 = 80;
const MIN_PERCENT_AFTER_DEATH: u64 = 70;

const STEP: Duration = Duration::from_millis(10);

/// Bytes per second of each home's line, and of the roots' lines in the different runs.
const HOME: u64 = 1_000_000;
const ROOTS: [u64; 3] = [500_000, 1_000_000, 2_000_000];

#[test]
fn little_goodput_is_lost_when_a_relayed_path_becomes_direct_and_back_again() {
    for root in ROOTS {
        for sender in [0, 1] {
            for seed in 0..3 {
                let what = format!("roots carry {root} bytes/s, node {sender} sends, seed {seed}");
                let mut homes = Homes::punchable(seed, HOME);
                for lan in homes.lans[1].clone() {
                    limit(&mut homes.world, lan, root);
                }
                block(&mut homes, true);
                homes.run(5 * SECOND);
                homes.transfer(sender);
                homes.run(10 * SECOND);
                let is_relayed = |homes: &Homes| homes.root_of_path(sender).is_some();
                assert!(is_relayed(&homes), "{what}");
                let mut record = Record::new(&homes.world);
                follow(&mut homes, &mut record);

                block(&mut homes, false);
                let moved = watch(&mut homes, &mut record, |homes| !is_relayed(homes));
                follow(&mut homes, &mut record);
                record.judge(Around::Middle, moved, &format!("{what}, to direct"));

                block(&mut homes, true);
                let moved = watch(&mut homes, &mut record, is_relayed);
                follow(&mut homes, &mut record);
                // Into a path of half the rate, TCP sends too much at first and repairs that for a second.
                if root >= HOME {
                    record.judge(Around::Begin, moved, &format!("{what}, to the relay"));
                }
            }
        }
    }
}

fn block(homes: &mut Homes, blocked: bool) {
    let [nodes, _] = homes.lans.clone();
    homes.world.net.block(nodes[0], nodes[1], blocked);
    homes.world.net.block(nodes[1], nodes[0], blocked);
}

fn limit(world: &mut World, lan: LanId, bytes_per_second: u64) {
    for link in [LinkId::Out(lan), LinkId::In(lan)] {
        let rate = Stage::Rate { bytes_per_second, queue: bytes_per_second / 10 };
        world.net.link_mut(link).expect("a link").break_with(FaultId(1), rate);
    }
}

/// Runs until the path has moved, and returns the time of the move.
fn watch(homes: &mut Homes, record: &mut Record, has_moved: impl Fn(&Homes) -> bool) -> Duration {
    let begun = homes.world.now();
    while !has_moved(homes) {
        homes.run(STEP);
        record.note(&homes.world);
        assert!(homes.world.now() - begun < 900 * SECOND, "the path does not move");
    }
    homes.world.now()
}

fn follow(homes: &mut Homes, record: &mut Record) {
    let end = homes.world.now() + 10 * SECOND;
    while homes.world.now() < end {
        homes.run(STEP);
        record.note(&homes.world);
    }
}

/// Bytes that had arrived by each time.
struct Record(Vec<(Duration, u64)>);

/// The second that counts.
#[derive(Debug, Clone, Copy)]
enum Around {
    /// The move is in the middle of the second.
    Middle,
    /// The second begins with the first byte after the move.
    Begin,
}

impl Record {
    fn new(world: &World) -> Self {
        Self(vec![(world.now(), world.ledger.bytes_checked)])
    }

    fn note(&mut self, world: &World) {
        self.0.push((world.now(), world.ledger.bytes_checked));
    }

    /// Returns the bytes that arrived in the second from then on.
    fn second(&self, from: Duration) -> u64 {
        let at = |time: Duration| {
            let next = self.0.partition_point(|(noted, _)| *noted <= time);
            self.0[next.saturating_sub(1)].1
        };
        at(from + SECOND) - at(from)
    }

    /// Returns the time of the next arrival.
    fn next_arrival(&self, after: Duration) -> Duration {
        let first = self.0.partition_point(|(noted, _)| *noted <= after).saturating_sub(1);
        let is_new = |pair: &&[(Duration, u64)]| pair[1].1 > pair[0].1;
        let next = self.0[first..].windows(2).find(is_new);
        // Include the step of the arrival.
        next.map_or(after, |pair| pair[0].0)
    }

    fn judge(&self, around: Around, moved: Duration, what: &str) {
        let (from, least) = match around {
            Around::Middle => (moved - SECOND / 2, MIN_PERCENT),
            Around::Begin => (self.next_arrival(moved), MIN_PERCENT_AFTER_DEATH),
        };
        let [before, after] = [moved - 4 * SECOND, moved + 6 * SECOND].map(|from| self.second(from));
        let (here, lower) = (self.second(from), before.min(after));
        eprintln!("{what}: {before} B/s, then {after}; {here} in the second around the move");
        assert!(lower > 100_000, "{what}: the transfer stands still");
        assert!(here * 100 >= lower * least, "{what}: {here} of {lower} bytes in the second around the move");
    }
}

#[test]
fn little_goodput_is_lost_when_a_direct_path_moves_to_a_better_one_and_back() {
    for rates in [[1_000_000, 1_000_000], [1_000_000, 3_000_000], [3_000_000, 1_000_000]] {
        for sender in [0, 1] {
            let what = format!("lines of {rates:?} bytes/s, node {sender} sends");
            two_ways(rates, sender, &what);
        }
    }
}

fn two_ways(rates: [u64; 2], sender: usize, what: &str) {
    // The round trip by the second path is shorter.
    let [slow, quick] = [(rates[0], 20), (rates[1], 3)].map(|(bytes_per_second, millis)| {
        Pipe::new([
            Stage::Mtu(1500),
            Stage::Rate { bytes_per_second, queue: bytes_per_second / 10 },
            Stage::Delay { base: Duration::from_millis(millis), jitter: Duration::from_micros(millis * 20) },
        ])
    });
    let mut lab = Lab::new(2, &[open_network()]);
    let other = lab.world.net.add_lan(Prefixes { ipv4: Some([198, 51, 100, 0].into()), ipv6: None });
    for host in lab.hosts.clone() {
        let address = lab.world.net.attachments(host)[0].ipv4;
        lab.world.attach(host, lab.lan, (address, None), (slow.clone(), slow.clone())).expect("no violation");
    }
    lab.run(5 * SECOND);
    let mut scripts = [Script::default(), Script::default()];
    scripts[sender] = Script(vec![Step::Write(1_000_000_000)]);
    let plan = Plan { scripts, readers: [Reader::EAGER; 2], ..lab.greeting(0, 1) };
    lab.world.converse(Arc::new(plan)).expect("a connection");
    lab.run(10 * SECOND);
    let mut record = Record::new(&lab.world);
    let mut run = |lab: &mut Lab, until: &dyn Fn(&Lab) -> bool, limit: Duration| {
        let begun = lab.world.now();
        while !until(lab) && lab.world.now() - begun < limit {
            lab.run(STEP);
            record.note(&lab.world);
        }
        lab.world.now()
    };
    run(&mut lab, &|_| false, 5 * SECOND);
    for (number, host) in (1..).zip(lab.hosts.clone()) {
        let address = Some([198, 51, 100, number].into());
        lab.world.attach(host, other, (address, None), (quick.clone(), quick.clone())).expect("no violation");
    }
    let there = run(&mut lab, &|lab| lan_of_path(lab, sender) == Some(1), 600 * SECOND);
    assert_eq!(lan_of_path(&lab, sender), Some(1), "{what}: the better path is found");
    run(&mut lab, &|_| false, 10 * SECOND);
    for host in lab.hosts.clone() {
        let link = lab.world.net.link_mut(LinkId::Up(host, other)).expect("a link");
        link.break_with(FaultId(0), Stage::Cut);
    }
    let back = run(&mut lab, &|lab| lan_of_path(lab, sender) == Some(0), 30 * SECOND);
    run(&mut lab, &|_| false, 10 * SECOND);
    record.judge(Around::Middle, there, &format!("{what}, to the better path"));
    record.judge(Around::Begin, back, &format!("{what}, back"));
}

/// Returns the LAN on which a node reaches the other one.
fn lan_of_path(lab: &Lab, node: usize) -> Option<usize> {
    let node = lab.world.machines()[node].node()?;
    let path = node.datapath().peers().into_iter().find_map(|info| info.path)?;
    Some(usize::from(path.remote().ip().to_string().starts_with("198.51.100.")))
}
