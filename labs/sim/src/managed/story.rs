//! One story of a managed network: members, three issuers, faults, and what people decide meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use peersock_controller::{Approval, InviteOptions, RecoveryWords, Settings};
use peersock_overlay::membership::{Answer, CertifyRequest, Head, MemberName, Question, UnixTime};
use peersock_overlay::{ManagedNetwork, NodeId, Prefix, PublicIdentity};
use peersock_testnet::Random;

use super::field::Field;
use super::office::{Office, seed_of};
use super::oracle::{Oracle, near, violation};
use super::thief::{Thief, replay};
use crate::trace::Trace;
use crate::{Time, Violation};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Time for which members go on without a controller; certificates last an hour more.
pub(super) const OUTLIVE: Duration = Duration::from_secs(3600);

/// Longest time after the last fault until everybody is back: the longest pause between two questions to a
/// controller that was away for long is 20 minutes.
pub(super) const BACK: Duration = Duration::from_secs(25 * 60);

/// Time that a member has after its start, or after a decision, to get a certificate.
const GRACE: Duration = BACK;

/// Number of other members with which each one talks.
const FRIENDS: usize = 2;

/// Longest time that a removal adds to the 99th percentile of the round trips between others.
const PINGS_SLOWER: Duration = Duration::from_millis(50);

/// Pairs of machines whose round trips are measured, and the number of their pings before a removal and after
/// everybody knows of it.
const PAIRS: usize = 10;
const PINGS: usize = 40;

/// Interval of the pings.
const PING_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Story {
    pub(super) field: Field,
    pub(super) oracle: Oracle,
    pub(super) offices: Vec<Office>,
    /// Controller by which people administer the network.
    pub(super) used: usize,
    /// Machines that people want to be members.
    pub(super) members: Vec<usize>,
    pub(super) thief: Option<Thief>,
    pub(super) random: Random,
    pub(super) words: RecoveryWords,
    pub(super) folder: tempfile::TempDir,
    /// Times for which removals took to reach the machines that could hear of them, without faults.
    pub(super) delays: Vec<Duration>,
    /// Number of pings that were answered around these removals.
    pub(super) pings: usize,
    /// True while members are to have certificates that count.
    pub(super) is_covered: bool,
    friends: BTreeMap<usize, Vec<usize>>,
    /// Time from which a machine is to have a certificate.
    due: BTreeMap<usize, Time>,
    old_heads: Vec<Head>,
    next_tick: Time,
    ticks: u64,
}

impl Story {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut random = Random::from_seed(seed);
        let mut field = Field::new(random.fork(), trace);
        let folder = tempfile::tempdir().expect("a folder");
        let (office, words) = Office::create(&mut field, folder.path(), settings(0), random.number());
        let mut oracle = Oracle::default();
        oracle.admit(field.machines[office.machine].id());
        Self {
            field,
            oracle,
            offices: vec![office],
            used: 0,
            members: Vec::new(),
            thief: None,
            random,
            words,
            folder,
            delays: Vec::new(),
            pings: 0,
            is_covered: true,
            friends: BTreeMap::new(),
            due: BTreeMap::new(),
            old_heads: Vec::new(),
            next_tick: Time::ZERO,
            ticks: 0,
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) -> Result<(), Violation> {
        self.run_while(time, |_| true).map(|_| ())
    }

    /// Lets time pass, until `going` is false, which is asked every second. Returns true if it was not.
    pub(super) fn run_while(
        &mut self,
        time: Duration,
        mut going: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, Violation> {
        let end = self.field.now + time;
        loop {
            let next = self.field.next_at().unwrap_or(end).min(self.next_tick);
            if next > end {
                self.field.now = end;
                return Ok(true);
            }
            if next == self.next_tick {
                self.field.now = next;
                self.next_tick += SECOND;
                self.tick()?;
                self.settle()?;
                if !going(self) {
                    return Ok(false);
                }
            } else {
                self.field.step();
                self.settle()?;
            }
        }
    }

    /// Passes questions to controllers, and what machines have accepted to the oracle.
    fn settle(&mut self) -> Result<(), Violation> {
        for office in &mut self.offices {
            for own in std::mem::take(&mut office.own) {
                let node = self.field.machines[office.machine].id();
                self.oracle.issue(&self.field, office.machine, &node, &own)?;
            }
        }
        while !self.field.asked.is_empty() {
            for asked in std::mem::take(&mut self.field.asked) {
                let node = *asked.peer.id();
                if let Some(thief) = self.thief.as_mut().filter(|thief| thief.machine == asked.at) {
                    let asker = self.field.machines.iter().position(|one| one.id() == node);
                    if let Some(asker) = asker {
                        thief.answer(&mut self.field, &mut self.oracle, &asked, asker);
                    }
                    continue;
                }
                let office = self.offices.iter_mut().find(|office| office.machine == asked.at);
                let Some(answer) = office.and_then(|office| office.answer(&mut self.field, &asked)) else {
                    continue;
                };
                match (&answer, &asked.question) {
                    (Answer::Certified { credentials, .. }, Question::Certify(request)) => {
                        if request.token.is_some() && self.oracle.removed(&node).is_none() {
                            self.oracle.admit(node);
                        }
                        self.oracle.issue(&self.field, asked.at, &node, credentials)?;
                    }
                    (Answer::Found { identity, credentials }, _) => {
                        self.oracle.issue(&self.field, asked.at, &identity.node_id(), credentials)?;
                    }
                    _ => {}
                }
            }
        }
        for arrival in std::mem::take(&mut self.field.arrived) {
            self.oracle.accept(&self.field, arrival.at, &arrival.from)?;
        }
        for number in std::mem::take(&mut self.field.removed) {
            // What an honest machine does not show again after a restart.
            if !self.field.machines[number].is_hostile {
                self.field.machines[number].disk.credentials = None;
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Violation> {
        self.ticks += 1;
        let ticks = self.ticks;
        for office in &mut self.offices {
            office.keep(&mut self.field, false);
        }
        self.approve_waiting();
        for number in 0..self.field.machines.len() {
            if !self.field.machines[number].is_up() {
                continue;
            }
            let is_new = self.field.now - self.field.machines[number].started < 3 * SECOND;
            if is_new || (ticks + number as u64).is_multiple_of(20) {
                self.meet(number);
            }
            if (ticks + number as u64).is_multiple_of(30)
                && let Some(friends) = self.friends.get(&number)
            {
                let friend = *self.random.pick(friends);
                // Programs do not insist on what is away.
                if self.field.passes(number, friend) && self.field.machines[friend].is_up() {
                    self.field.send(number, friend);
                }
            }
            let is_hostile = self.field.machines[number].is_hostile;
            if is_hostile && (ticks + number as u64).is_multiple_of(15) {
                self.field.intrude(number);
                replay(&mut self.field, number, &self.old_heads, &mut self.random);
            }
        }
        if ticks.is_multiple_of(10)
            && let Some(thief) = &mut self.thief
        {
            thief.act(&mut self.field, &self.old_heads);
        }
        self.oracle.follow(&self.field);
        if ticks.is_multiple_of(10) {
            self.check_covered()?;
            let at = self.random.below(self.field.machines.len());
            self.oracle.check_routes(&self.field, at)?;
        }
        Ok(())
    }

    /// Tells a machine without a session with a controller where controllers and others are. One with such a
    /// session hears of the controllers that it tries to reach, as look-ups tell it: the one that it has may
    /// be a thief's.
    fn meet(&mut self, number: usize) {
        let machine = &self.field.machines[number];
        let Some(endpoint) = &machine.endpoint else { return };
        let Some(known) = endpoint.membership(machine.index()) else { return };
        let controllers: Vec<PublicIdentity> = known.controllers().to_vec();
        let is_served = controllers.iter().any(|one| machine.is_connected(&one.node_id()));
        let tried: BTreeSet<NodeId> = match is_served {
            true => endpoint.peers().iter().filter(|one| one.connecting).map(|one| *one.peer.id()).collect(),
            false => controllers.iter().map(PublicIdentity::node_id).collect(),
        };
        for controller in controllers.iter().map(PublicIdentity::node_id).filter(|one| tried.contains(one)) {
            if let Some(other) = self.machine_of(&controller) {
                self.introduce(number, other);
            }
        }
        if !is_served {
            let other = *self.random.pick(&self.members);
            self.introduce(number, other);
        }
    }

    /// Tells a machine where another one is, if a root knows it: roots are cut off like others.
    fn introduce(&mut self, number: usize, other: usize) {
        if other != number && self.field.machines[other].is_up() && self.field.passes(number, other) {
            self.field.introduce(number, other);
        }
    }

    /// Returns the running machine with an identity, or the last one that had it.
    pub(super) fn machine_of(&self, node: &NodeId) -> Option<usize> {
        let all = || self.field.machines.iter().enumerate().filter(|(_, one)| one.id() == *node);
        all().find(|(_, one)| one.is_up()).or_else(|| all().next_back()).map(|(number, _)| number)
    }

    /// Approves the machines that people want and that wait: at the controller by which they administer the
    /// network, and elsewhere if a machine has nothing but that request.
    fn approve_waiting(&mut self) {
        for at in 0..self.offices.len() {
            let Some(controller) = &mut self.offices[at].controller else { continue };
            for waiting in controller.pending().expect("a good store") {
                let node = waiting.identity.node_id();
                let machine = self.members.iter().find(|one| self.field.machines[**one].id() == node);
                let is_meant = machine.is_some_and(|machine| {
                    at == self.used || self.field.machines[*machine].disk.credentials.is_none()
                });
                if is_meant && self.oracle.removed(&node).is_none() {
                    self.readmit(node, at);
                }
            }
        }
    }

    /// Adds a machine that joins, by an invite or by approval.
    pub(super) fn join(&mut self) -> usize {
        let seed: [u8; 32] = self.random.bytes();
        let by_invite = self.random.chance(0.9);
        let office = &mut self.offices[self.used];
        let now = office.now(&self.field);
        let controller = office.controller.as_mut().expect("it serves");
        let options = InviteOptions::default();
        let token =
            by_invite.then(|| controller.invite(now, &mut office.rng, "alice", &options).expect("valid"));
        let mut disk = ManagedNetwork::new(controller.network());
        disk.key = Some(controller.key());
        disk.controllers = vec![*self.field.machines[office.machine].identity.public()];
        let name = MemberName::cleaned(&format!("machine-{}", self.field.machines.len()));
        disk.request =
            CertifyRequest { token, name, description: "Debian".into(), ..CertifyRequest::default() };
        let number = self.field.add(seed, disk);
        self.start(number);
        if !self.members.is_empty() {
            let friends = (0..FRIENDS).map(|_| *self.random.pick(&self.members)).collect();
            self.friends.insert(number, friends);
        }
        self.members.push(number);
        number
    }

    /// Starts a machine, which is to have a certificate some time later.
    pub(super) fn start(&mut self, number: usize) {
        self.due.insert(number, self.field.now + GRACE);
        self.field.start(number);
    }

    pub(super) fn crash(&mut self, number: usize) {
        self.due.remove(&number);
        self.field.crash(number);
    }

    /// Returns a machine of a member that is up, honest and served.
    pub(super) fn pick_member(&mut self) -> usize {
        let all = self.candidates();
        *self.random.pick(&all)
    }

    /// Returns such a machine that a controller knows: what another one has admitted, it does not.
    pub(super) fn pick_known(&mut self, at: usize) -> usize {
        let controller = self.offices[at].controller.as_ref().expect("it serves");
        let is_known = |number: &usize| {
            let node = self.field.machines[*number].id().to_string();
            controller.find(&node).is_ok_and(|member| member.is_member())
        };
        let all: Vec<usize> = self.candidates().into_iter().filter(is_known).collect();
        *self.random.pick(&all)
    }

    fn candidates(&self) -> Vec<usize> {
        let victims = self.thief.as_ref().map_or(&[][..], |thief| &thief.victims);
        let suits = |number: &usize| {
            let machine = &self.field.machines[*number];
            let is_there = !self.field.faults.island.contains(number);
            is_there && machine.disk.credentials.is_some() && !victims.contains(&machine.id())
        };
        self.served().into_iter().filter(suits).collect()
    }

    /// Removes a member at a controller. Its machine may be hostile from then on.
    pub(super) fn revoke(&mut self, number: usize, at: usize) {
        let node = self.field.machines[number].id();
        if self.random.chance(0.5) {
            self.field.machines[number].is_hostile = true;
        }
        self.revoke_node(node, at);
    }

    pub(super) fn revoke_node(&mut self, node: NodeId, at: usize) {
        let office = &mut self.offices[at];
        let now = office.now(&self.field);
        let controller = office.controller.as_mut().expect("it serves");
        // Kept for replays.
        self.old_heads.push(controller.head(now).0);
        let done = controller.revoke(now, "alice", &[&node.to_string()], true).expect("a member");
        assert_eq!(done.len(), 1);
        self.oracle.remove(self.field.now, node, office.machine);
        office.keep(&mut self.field, true);
        let trace = &mut self.field.trace;
        trace.note(self.field.now, format_args!("{node:?} is removed at {at}"), &[]);
    }

    /// Makes a removed node a member again.
    pub(super) fn readmit(&mut self, node: NodeId, at: usize) -> bool {
        let office = &mut self.offices[at];
        let now = office.now(&self.field);
        let controller = office.controller.as_mut().expect("it serves");
        let approval = Approval::default();
        let done = controller.approve(now, &mut office.rng, "alice", &node.to_string(), &approval).is_ok();
        office.keep(&mut self.field, true);
        if done {
            self.oracle.admit(node);
            if let Some(number) = self.machine_of(&node) {
                self.due.insert(number, self.field.now + GRACE);
            }
        }
        done
    }

    /// Cuts a member off from all but two others, and removes it. They do not hear of it.
    pub(super) fn strand(&mut self) {
        let removed = self.pick_member();
        let others: BTreeSet<usize> =
            (0..10).map(|_| self.pick_member()).filter(|one| *one != removed).collect();
        let others: Vec<usize> = others.into_iter().take(2).collect();
        for &other in &others {
            self.field.introduce(removed, other);
        }
        self.friends.insert(removed, others.clone());
        self.field.faults.island = others.into_iter().chain([removed]).collect();
        self.field.machines[removed].is_hostile = true;
        let node = self.field.machines[removed].id();
        self.revoke_node(node, self.used);
    }

    /// Connects those again that were cut off.
    pub(super) fn end_island(&mut self) {
        for number in std::mem::take(&mut self.field.faults.island) {
            self.due.insert(number, self.field.now + GRACE);
        }
    }

    /// Removes a member where there are no faults. Measures how long it takes until everybody in reach knows
    /// and has ended the session with it, and whether others' packets wait meanwhile.
    pub(super) fn measure_removal(&mut self) -> Result<(), Violation> {
        let number = self.pick_known(self.used);
        let node = self.field.machines[number].id();
        let pairs = self.pairs_without(number);
        self.field.pings.clear();
        for _ in 0..PINGS {
            self.ping(&pairs)?;
        }
        let before = self.slow_ping(PINGS * pairs.len())?;
        let serial = self.oracle.serial(&node).expect("a member has a certificate");
        let mut reach = self.in_reach(self.offices[self.used].machine);
        reach.remove(&number);
        self.revoke(number, self.used);
        let began = self.field.now;
        let knows = |story: &Self, number: &usize| {
            let machine = &story.field.machines[*number];
            let known = machine.endpoint.as_ref().and_then(|one| one.membership(machine.index()));
            let knows = known.is_none_or(|known| known.revocations().covers(&node, serial));
            knows && !machine.is_connected(&node)
        };
        for round in 1..=300 {
            self.ping(&pairs)?;
            let (informed, left) = reach.into_iter().partition::<BTreeSet<usize>, _>(|one| knows(self, one));
            self.delays.extend(informed.iter().map(|_| self.field.now - began));
            reach = left;
            if reach.is_empty() {
                for _ in 0..PINGS {
                    self.ping(&pairs)?;
                }
                let after = self.slow_ping((round + PINGS) * pairs.len())?;
                return match after.saturating_sub(before) {
                    slower if slower > PINGS_SLOWER => violation(
                        &self.field,
                        format_args!(
                            "the removal of {node:?} delays others' pings from {before:?} to {after:?}"
                        ),
                    ),
                    _ => Ok(()),
                };
            }
        }
        violation(&self.field, format_args!("{reach:?} do not know of the removal of {node:?} after 15 s"))
    }

    /// Returns pairs of members without this one that have a session with each other.
    fn pairs_without(&self, number: usize) -> Vec<(usize, usize)> {
        let others = self.served().into_iter().filter(|one| *one != number);
        let by_id: BTreeMap<NodeId, usize> = others.map(|one| (self.field.machines[one].id(), one)).collect();
        let of_one = |one: usize| near(&self.field, one, &by_id).into_iter().map(move |other| (one, other));
        let pairs = by_id.values().flat_map(|one| of_one(*one)).filter(|(one, other)| one < other);
        pairs.take(PAIRS).collect()
    }

    /// Lets each of these pairs ping once, and time pass until the next ping.
    fn ping(&mut self, pairs: &[(usize, usize)]) -> Result<(), Violation> {
        for (from, to) in pairs {
            self.field.ping(*from, *to);
        }
        self.run(PING_INTERVAL)
    }

    /// Waits for the answers to this number of pings, and returns the time that at most one in 100 exceeds.
    fn slow_ping(&mut self, sent: usize) -> Result<Duration, Violation> {
        self.run(SECOND / 4)?;
        let mut times = std::mem::take(&mut self.field.pings);
        // Four of 1,000 are lost by chance, on average.
        if times.len() + sent / 100 + 4 < sent {
            let answered = times.len();
            return violation(&self.field, format_args!("{answered} of {sent} pings are answered"));
        }
        self.pings += times.len();
        times.sort_unstable();
        let late = (times.len() * 99).div_ceil(100).saturating_sub(1);
        Ok(times.get(late).copied().unwrap_or_default())
    }

    /// Returns the honest machines that are connected with one, over any number of others.
    fn in_reach(&self, from: usize) -> BTreeSet<usize> {
        let honest = |one: &usize| self.field.machines[*one].is_up() && !self.field.machines[*one].is_hostile;
        let by_id: BTreeMap<NodeId, usize> = (0..self.field.machines.len())
            .filter(honest)
            .map(|number| (self.field.machines[number].id(), number))
            .collect();
        let mut reach: BTreeSet<usize> = [from].into();
        let mut new = vec![from];
        while let Some(one) = new.pop() {
            new.extend(near(&self.field, one, &by_id).into_iter().filter(|other| reach.insert(*other)));
        }
        reach
    }

    /// Returns the honest machines of members that are up.
    pub(super) fn served(&self) -> Vec<usize> {
        let is_served = |number: &usize| {
            let machine = &self.field.machines[*number];
            machine.is_up() && !machine.is_hostile && self.oracle.is_member(&machine.id())
        };
        self.members.iter().copied().filter(is_served).collect()
    }

    /// Returns true if a machine has credentials that count by the true time.
    pub(super) fn has_certificate(&self, number: usize) -> bool {
        let machine = &self.field.machines[number];
        let known = machine.endpoint.as_ref().and_then(|one| one.membership(machine.index()));
        let now = UnixTime::from(self.field.unix_time(0));
        known.is_some_and(|known| {
            !known.is_removed() && known.credentials().is_some_and(|credentials| now < credentials.end())
        })
    }

    /// Checks that no member's certificate has ended.
    fn check_covered(&self) -> Result<(), Violation> {
        if !self.is_covered {
            return Ok(());
        }
        for number in self.served() {
            let is_due = self.due.get(&number).is_some_and(|at| *at <= self.field.now)
                && !self.field.faults.island.contains(&number);
            let machine = &self.field.machines[number];
            let known = machine.endpoint.as_ref().and_then(|one| one.membership(machine.index()));
            let end = known.and_then(|known| Some(known.credentials()?.end()));
            let now = UnixTime::from(self.field.unix_time(0));
            if is_due && end.is_none_or(|end| end <= now) {
                return violation(
                    &self.field,
                    format_args!("the certificate of machine {number} has ended: {end:?}"),
                );
            }
        }
        Ok(())
    }

    /// Waits until every member has a certificate and reaches its friends and a controller. Returns the time.
    pub(super) fn wait_for_all(&mut self) -> Result<Duration, Violation> {
        let began = self.field.now;
        let mut left: BTreeSet<usize> = self.served().into_iter().collect();
        let ended = self.run_while(BACK, |story| {
            left.retain(|number| !story.is_back(*number));
            !left.is_empty()
        })?;
        if ended {
            let why = left.iter().map(|number| {
                let machine = &self.field.machines[*number];
                let known = machine.endpoint.as_ref().and_then(|one| one.membership(machine.index()));
                let is_removed = known.is_some_and(|known| known.is_removed());
                format!("{number} (certificate {}, removed {is_removed})", self.has_certificate(*number))
            });
            let why: Vec<String> = why.collect();
            return violation(&self.field, format_args!("not back after {BACK:?}: {}", why.join(", ")));
        }
        Ok(self.field.now - began)
    }

    fn is_back(&self, number: usize) -> bool {
        let machine = &self.field.machines[number];
        let reaches = |other: usize| {
            let other = &self.field.machines[other];
            machine.is_connected(&other.id()) && other.is_connected(&machine.id())
        };
        let friends = self.friends.get(&number).into_iter().flatten();
        let mut meant = friends.copied().filter(|friend| self.served().contains(friend) && *friend != number);
        self.has_certificate(number)
            && meant.all(reaches)
            && self.offices.iter().any(|office| office.is_up() && reaches(office.machine))
    }

    /// Copies the store of a controller, as a snapshot of its machine does.
    pub(super) fn backup(&mut self, at: usize, name: &str) -> PathBuf {
        let path = self.folder.path().join("store").join(name);
        let controller = self.offices[at].controller.as_mut().expect("it serves");
        controller.copy_to(&path).expect("a new file");
        path
    }

    /// Makes another issuer of a backup of the last one.
    pub(super) fn add_office(&mut self, number: u8) {
        let backup = self.backup(usize::from(number) - 1, &format!("backup-{number}"));
        let seed = self.random.number();
        let office = Office::restore(&mut self.field, &backup, number, &self.words, &settings(number), seed);
        self.oracle.admit(self.field.machines[office.machine].id());
        // By hand, as an invite of it would.
        for _ in 0..self.members.len() / 3 {
            let member = *self.random.pick(&self.members);
            self.field.introduce(member, office.machine);
        }
        self.offices.push(office);
    }

    /// Approves the members that a controller holds, because others have removed them for a time.
    pub(super) fn approve_held(&mut self, at: usize) {
        for number in self.served() {
            let node = self.field.machines[number].id();
            let controller = self.offices[at].controller.as_ref().expect("it serves");
            if controller.find(&node.to_string()).is_ok_and(|member| !member.is_member()) {
                self.readmit(node, at);
            }
        }
    }

    /// Lets somebody steal the key of a controller, whose machine is off from then on.
    pub(super) fn steal(&mut self, at: usize) {
        let office = &mut self.offices[at];
        let disk = self.field.machines[office.machine].disk.clone();
        office.crash(&mut self.field);
        let victims = [self.pick_member(), self.pick_member()];
        let victims = victims.map(|number| self.field.machines[number].id()).to_vec();
        let others: Vec<_> = (0..5).map(|_| self.pick_member()).collect();
        let grants = others.into_iter().filter_map(|number| {
            let credentials = self.field.machines[number].disk.credentials.as_ref()?;
            Some(credentials.certificate().grant().clone())
        });
        let grants = grants.collect();
        let (seed, random) = (seed_of(at as u8), self.random.fork());
        let thief = Thief::begin(&mut self.field, &mut self.oracle, seed, disk, (victims, grants), random);
        for machine in thief.all() {
            for member in self.members.clone() {
                self.field.introduce(machine, member);
            }
        }
        self.thief = Some(thief);
    }
}

/// Returns the settings of a controller, with its own pool.
pub(super) fn settings(number: u8) -> Settings {
    let address: IpAddr = [10, 7, number * 64, 0].into();
    Settings { outlive: OUTLIVE, ipv4: Prefix::new(address, 18), ..Settings::default() }
}
