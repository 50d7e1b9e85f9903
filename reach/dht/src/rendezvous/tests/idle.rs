//! A node that waits for hours without being searched for. Others can find it at any time; it reads its
//! mailbox and does little more.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Delay until a change of epochs is noticed and written.
const SEEN_LATE: Duration = Duration::from_secs(40);

/// The DHT as seen by a node that looks for node 0 and has never found it before.
struct Reader {
    keys: MeetingKeys,
    places: BTreeMap<(u8, Epoch), [u8; 32]>,
    /// Records by the item's key and sequence, so that each is verified once.
    read: BTreeMap<([u8; 32], i64), Record>,
}

impl Reader {
    fn new() -> Self {
        Self { keys: keys(), places: BTreeMap::new(), read: BTreeMap::new() }
    }

    /// Returns the records at the two places of node 0 (by address, and by identity), as found by a clock
    /// that is off by `clock_off` seconds.
    fn find(&mut self, world: &World, clock_off: i64) -> [Option<Record>; 2] {
        let (tail, identity) = (world.tail(0), world.identity(0));
        let unix = world.now(0).unix.as_secs().saturating_add_signed(clock_off);
        let unix = Duration::from_secs(unix);
        let epoch = self.keys.epoch(&tail, unix);
        [(0, Location::Open(tail)), (1, Location::Own(identity))].map(|(number, location)| {
            let key = *self.places.entry((number, epoch)).or_insert_with(|| keys().public(&location, epoch));
            let item = world.item(&key)?;
            let record = self.read.entry((key, item.sequence)).or_insert_with(|| {
                let plain = seal::open(&keys().seal_key(&tail, epoch), &key, &item.value).expect("sealed");
                Record::verify(&keys(), &plain).expect("signed")
            });
            record.check_age(unix).is_ok().then(|| record.clone())
        })
    }

    fn assert_found(&mut self, world: &World, clock_off: i64, when: &str) {
        let at = world.elapsed;
        let found = self.find(world, clock_off);
        let is_right =
            |one: &Option<Record>| one.as_ref().is_some_and(|one| one.identity == world.identity(0));
        assert!(found.iter().all(is_right), "{when}, after {at:?}, {clock_off} s off: {found:?}");
    }
}

fn waiting() -> World {
    let mut world = World::new();
    let node = world.add(0);
    world.publish(node, "198.51.100.7:4000");
    world.run(MINUTE);
    world
}

/// Returns the times in a span at which a node began to read or write.
fn begun(world: &World, node: usize, is_read: bool, span: std::ops::Range<Duration>) -> Vec<Duration> {
    let of_it =
        world.begun.iter().filter(|(at, by, reads)| *by == node && *reads == is_read && span.contains(at));
    of_it.map(|(at, ..)| *at).collect()
}

#[test]
fn who_waits_is_found_at_each_moment_of_half_a_day_by_clocks_that_differ_too() {
    let (mut world, mut reader) = (waiting(), Reader::new());
    let most = (SKEW - SEEN_LATE).as_secs() as i64;
    while world.elapsed < 12 * HOUR {
        world.run(5 * SECOND);
        for clock_off in [-most, 0, most] {
            reader.assert_found(&world, clock_off, "idle");
        }
    }
    assert_eq!(world.counters(0), Counters::default());
    let told = world.nodes[0].events.len();
    assert_eq!(told, 1, "it is told once that it can be found: {:?}", world.nodes[0].events);
    assert!(world.items.len() <= 2 * 14, "two places in each epoch: {}", world.items.len());
}

#[test]
fn who_waits_reads_its_mailbox_every_few_seconds_and_writes_a_few_times_in_an_hour() {
    let mut world = waiting();
    let config = Config::default();
    world.run(12 * HOUR);
    for hour in 1..12 {
        let span = hour * HOUR..(hour + 1) * HOUR;
        let reads = begun(&world, 0, true, span.clone());
        let mut readings = reads.clone();
        readings.dedup();
        let gaps = readings.windows(2).map(|pair| pair[1] - pair[0]);
        let (least, most) = (config.poll_idle.mul_f64(0.75), config.poll_idle);
        assert!(gaps.clone().all(|gap| (least..=most).contains(&gap)), "hour {hour}: {gaps:?}");
        // Two slots; for ten minutes of each hour, in two epochs.
        let most_reads = readings.len() as f64 * 2.0 * (1.0 + 11.0 / 60.0);
        assert!(reads.len() as f64 <= most_reads, "hour {hour}: {} reads", reads.len());
        // Two places, each written three or four times in the 70 minutes of its epoch.
        let writes = begun(&world, 0, false, span);
        assert!((4..=10).contains(&writes.len()), "hour {hour}: {writes:?}");
    }
    assert!(world.items.values().all(|item| item.value.len() == seal::SEALED_LEN));
}

#[test]
fn a_knock_after_hours_is_heard_by_the_next_reading_and_the_node_is_idle_again_soon() {
    let mut world = waiting();
    for (hour, minute) in [(3, 7), (5, 21), (7, 48), (9, 59)] {
        world.run(hour * HOUR + minute * MINUTE - world.elapsed);
        let (guest, heard) = (world.add(0), world.knocks(0).len());
        world.publish(guest, "203.0.113.9:5000");
        let tail = world.tail(0);
        world.find(guest, Target::Address(tail));
        world.knock(guest, 0);
        let knocked = world.elapsed;
        // Two operations for the knock, one for the reading.
        world.run(Config::default().poll_idle + 4 * LATENCY);
        assert!(!world.found(guest).is_empty(), "after {knocked:?}");
        let knocks = world.knocks(0);
        assert!(knocks.len() > heard, "after {knocked:?}");
        let network = world.nodes[guest].network;
        world.nodes[guest].rendezvous.met(network, &tail);
        world.nodes[guest].rendezvous.leave(network);
        // The active phase ends after two minutes, and the pauses grow to the longest within half a minute.
        world.run(3 * MINUTE);
        let idle = world.elapsed;
        world.run(10 * MINUTE);
        let mut readings = begun(&world, 0, true, idle..world.elapsed);
        readings.dedup();
        assert!((39..=55).contains(&readings.len()), "{}", readings.len());
    }
}

#[test]
fn what_nodes_of_the_dht_lose_is_written_again_within_half_an_hour() {
    let (mut world, mut reader) = (waiting(), Reader::new());
    for minutes in [61, 100, 175, 238] {
        world.run(minutes * MINUTE);
        // All nodes that stored the items have left.
        world.items.clear();
        assert_eq!(reader.find(&world, 0), [None, None]);
        world.run(Config::default().republish + SEEN_LATE);
        reader.assert_found(&world, 0, "after all was lost");
    }
}

#[test]
fn what_was_first_written_where_nobody_looks_is_written_again_soon() {
    let (mut world, mut reader) = (World::new(), Reader::new());
    let node = world.add(0);
    // In the second round the node has moved.
    for contact in ["198.51.100.7:4000", "203.0.113.9:4000"] {
        world.publish(node, contact);
        for time in [10 * SECOND, MINUTE + 10 * SECOND] {
            world.run(5 * SECOND);
            world.items.clear();
            world.run(time);
            reader.assert_found(&world, 0, "written again");
        }
        world.run(10 * MINUTE);
    }
}

#[test]
fn a_dht_that_was_away_for_hours_has_the_record_a_minute_after_it_is_back() {
    let (mut world, mut reader) = (waiting(), Reader::new());
    world.run(20 * MINUTE);
    world.loss = 1;
    world.run(4 * HOUR);
    assert_eq!(reader.find(&world, 0), [None, None]);
    let span = HOUR..4 * HOUR;
    let (reads, writes) = (begun(&world, 0, true, span.clone()), begun(&world, 0, false, span));
    assert!(reads.len() <= 3 * 760, "no more than while it is there: {}", reads.len());
    assert!(writes.len() <= 3 * 4 * 60, "once a minute for each place: {}", writes.len());
    world.loss = 0;
    world.run(MINUTE + 5 * SECOND);
    reader.assert_found(&world, 0, "back");
}

#[test]
fn a_machine_that_slept_is_found_soon_after_it_wakes() {
    for minutes in [10, 31, 50, 59, 66, 89, 119, 300] {
        for awake in [10, 29, 55, 100] {
            let (mut world, mut reader) = (waiting(), Reader::new());
            world.run(awake * MINUTE);
            world.sleep(minutes * MINUTE);
            let when = format!("awake {awake} min, asleep {minutes} min");
            world.run(SEEN_LATE);
            while world.elapsed < (awake + minutes + 90) * MINUTE {
                world.run(30 * SECOND);
                reader.assert_found(&world, 0, &when);
            }
        }
    }
}

#[test]
fn a_node_that_was_without_an_address_at_first_reads_often_from_its_first_publication_on() {
    let mut world = World::new();
    let node = world.add(0);
    world.run(10 * MINUTE);
    assert_eq!(world.count, 0, "without a contact there is nothing to do");
    let published = world.elapsed;
    world.publish(node, "198.51.100.7:4000");
    world.run(2 * MINUTE);
    let mut readings = begun(&world, node, true, published..world.elapsed);
    readings.dedup();
    let gaps: Vec<_> = readings.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap <= Config::default().poll_active), "{gaps:?}");
    // Its address goes and comes back.
    world.run(10 * MINUTE);
    world.nodes[node].rendezvous.withdraw();
    world.run(MINUTE);
    let published = world.elapsed;
    world.publish(node, "198.51.100.9:4000");
    world.run(MINUTE);
    assert!(begun(&world, node, true, published..world.elapsed).len() >= 2 * 55);
}
