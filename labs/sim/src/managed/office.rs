//! A machine with a controller, driven as `peersock controller` drives it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use peersock_controller::{Controller, NewNetwork, RecoveryWords, Settings, Store};
use peersock_overlay::membership::{Answer, Credentials, Head, Question, UnixTime};
use peersock_overlay::{ManagedNetwork, NetworkId};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;

use super::field::{Asked, Field};
use crate::Time;

/// Time for which a controller whose store may be an old copy waits for its members' newest revocations.
const SETTLE: Duration = Duration::from_secs(5);

/// Interval at which what renewals have noted is written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(30);

/// Interval at which the controller's own credentials are renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(1800);

/// Interval at which the office looks for news, if nothing was reported.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A controller and the machine on which it runs.
pub(super) struct Office {
    pub(super) machine: usize,
    seed: [u8; 32],
    path: PathBuf,
    pub(super) controller: Option<Controller>,
    pub(super) rng: ChaCha20Rng,
    /// Credentials that it has signed for its own node.
    pub(super) own: Vec<Credentials>,
    noted: Vec<Head>,
    looked: Time,
    flushed: Time,
    renewed: Time,
}

impl Office {
    /// Creates the network.
    pub(super) fn create(
        field: &mut Field,
        folder: &Path,
        settings: Settings,
        rng: u64,
    ) -> (Self, RecoveryWords) {
        let mut rng = ChaCha20Rng::seed_from_u64(rng);
        let (seed, path) = (seed_of(0), folder.join("store/0.db"));
        let new = NewNetwork {
            name: "team".into(),
            own_name: "controller".parse().expect("a name"),
            settings,
            is_offline: false,
        };
        let store = Store::open(&path).expect("a folder of the story");
        // The stretching of keys has its own tests.
        let id_of = |_: &_| NetworkId::new(0x8056_c2e2_1c00_0001).ok();
        let now = UnixTime::from(field.unix_time(0));
        let created = Controller::create(store, &seed, &new, now, &mut rng, id_of);
        let (controller, words) = created.expect("an empty store");
        (Self::with(field, seed, path, controller, rng), words)
    }

    /// Restores the network from a backup on another machine, which becomes another issuer.
    pub(super) fn restore(
        field: &mut Field,
        from: &Path,
        number: u8,
        words: &RecoveryWords,
        settings: &Settings,
        rng: u64,
    ) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(rng);
        let (seed, path) = (seed_of(number), from.with_file_name(format!("{number}.db")));
        std::fs::copy(from, &path).expect("a backup");
        let store = Store::open(&path).expect("a backup");
        let mut controller = Controller::open(store, &seed).expect("a network");
        let now = UnixTime::from(field.unix_time(0));
        let name = format!("controller-{number}").parse().ok();
        controller.recover(now, &mut rng, "alice", words, name, false).expect("the network's words");
        controller.note_restored(now).expect("writable");
        // Two controllers do not know of each other's admissions, so each has its own pool.
        controller.set_settings(now, "alice", settings).expect("good settings");
        Self::with(field, seed, path, controller, rng)
    }

    fn with(
        field: &mut Field,
        seed: [u8; 32],
        path: PathBuf,
        controller: Controller,
        rng: ChaCha20Rng,
    ) -> Self {
        let mut disk = ManagedNetwork::new(controller.network());
        (disk.key, disk.is_controller) = (Some(controller.key()), true);
        let machine = field.add(seed, disk);
        let mut office = Self {
            machine,
            seed,
            path,
            controller: Some(controller),
            rng,
            own: Vec::new(),
            noted: Vec::new(),
            looked: field.now,
            flushed: field.now,
            renewed: field.now,
        };
        office.begin(field);
        office
    }

    /// Begins to serve with the controller that is open.
    fn begin(&mut self, field: &mut Field) {
        let Some(controller) = &mut self.controller else { return };
        let now = UnixTime::from(field.unix_time(field.machines[self.machine].clock));
        controller.start(now, SETTLE).expect("a good store");
        controller.delegate(now).expect("the words are sealed for this machine");
        let credentials = controller.credentials(now).expect("a member with a delegation");
        let (head, set) = controller.head(now);
        let disk = &mut field.machines[self.machine].disk;
        disk.credentials = Some(credentials.clone());
        self.own.push(credentials);
        disk.revocations = vec![(head, set.to_bytes().into())];
        self.noted.clear();
        (self.looked, self.flushed, self.renewed) = (field.now, field.now, field.now);
        field.start(self.machine);
    }

    /// Ends the controller and its node at any point.
    pub(super) fn crash(&mut self, field: &mut Field) {
        self.controller = None;
        field.crash(self.machine);
    }

    /// Starts it again with its store, or with an older one.
    pub(super) fn restart(&mut self, field: &mut Field, backup: Option<&Path>) {
        if let Some(backup) = backup {
            Store::remove(&self.path);
            std::fs::copy(backup, &self.path).expect("a backup");
            // The whole disk is an old one.
            let disk = &mut field.machines[self.machine].disk;
            (disk.revocations, disk.others, disk.signed_time) = <_>::default();
        }
        let store = Store::open(&self.path).expect("it exists");
        self.controller = Some(Controller::open(store, &self.seed).expect("a network"));
        self.begin(field);
    }

    pub(super) fn is_up(&self) -> bool {
        self.controller.is_some()
    }

    /// Returns the time by the controller's clock.
    pub(super) fn now(&self, field: &Field) -> UnixTime {
        field.unix_time(field.machines[self.machine].clock).into()
    }

    /// Answers a question that the machine has received.
    pub(super) fn answer(&mut self, field: &mut Field, asked: &Asked) -> Option<Answer> {
        let now = self.now(field);
        let controller = self.controller.as_mut()?;
        let source = asked.peer.path()?.remote().ip();
        let question: Question = asked.question.clone();
        let answer = controller.answer(now, &mut self.rng, asked.peer.identity(), source, question);
        field.answer(asked, &answer);
        Some(answer)
    }

    /// Does what is due. News of its node, and changes that a person has just made, are looked at at once.
    pub(super) fn keep(&mut self, field: &mut Field, is_hurried: bool) {
        let now = self.now(field);
        let Some(controller) = &mut self.controller else { return };
        let has_news = std::mem::take(&mut field.machines[self.machine].has_news);
        if !is_hurried && !has_news && field.now - self.looked < LOOK_INTERVAL {
            return;
        }
        self.looked = field.now;
        let own = controller.head(now).0;
        let index = field.machines[self.machine].index();
        let heads = field.with(self.machine, |endpoint, _| {
            let known = endpoint.membership(index);
            known.map(|known| known.heads().cloned().collect::<Vec<_>>()).unwrap_or_default()
        });
        let heads = heads.unwrap_or_default();
        self.noted.retain(|known| heads.iter().any(|(head, _)| head == known));
        for (head, set) in heads {
            let is_old = head.issuer() == own.issuer() && !head.is_newer_than(&own);
            if !is_old && !self.noted.contains(&head) && controller.note_head(now, &head, &set).is_ok() {
                self.noted.push(head);
            }
        }
        let (head, set) = controller.head(now);
        // A refusal is that of a head which the node has already.
        let _ = field.with(self.machine, |endpoint, at| endpoint.set_revocations(at, index, &head, &set));
        if field.now - self.flushed >= FLUSH_INTERVAL {
            self.flushed = field.now;
            let machine = &field.machines[self.machine];
            for (node, peer) in machine.peers() {
                if let (Some(_), Some(path)) = (peer.session(), peer.path()) {
                    controller.note_heard(now, node, path.remote().ip());
                }
            }
            controller.flush(now).expect("writable");
        }
        if field.now - self.renewed >= RENEW_INTERVAL {
            self.renewed = field.now;
            controller.delegate(now).expect("the words are sealed for this machine");
            if let Some(own) = controller.credentials(now) {
                let _ = field.with(self.machine, |endpoint, at| endpoint.set_credentials(at, index, &own));
                self.own.push(own);
            }
        }
    }
}

/// Returns the seed of a controller's identity.
pub(super) fn seed_of(number: u8) -> [u8; 32] {
    [200 + number; 32]
}
