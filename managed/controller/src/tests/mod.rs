//! Tests of the controller's decisions, with a store in memory or on the disk.

mod addresses;
mod admission;
mod clock;
mod copies;
mod faults;
mod kill;
mod measure;
mod network_key;
mod own_key;
mod program;
mod property;
mod renewal;
mod replacement;
mod restored;
mod revocation;
mod rules;
mod sharing;
mod spares;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peersock_overlay::membership::{
    Answer, CertifyRequest, Credentials, Delegation, Denial, Head, MemberName, NetworkKey, Question, Refusal,
    Revocation, Revocations, Serial, Tag, Token, UnixTime,
};
use peersock_overlay::{Identity, NetworkId, NodeId, Prefix};
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;

use crate::{Controller, InviteOptions, NewNetwork, NoteError, RecoveryWords, Settings, Store};

pub(crate) const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const SEED: [u8; 32] = [200; 32];

/// A controller, a generator and a clock.
pub(crate) struct Lab {
    pub(crate) controller: Controller,
    /// Words of the network that [`Self::new`] has created.
    pub(crate) words: RecoveryWords,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) now: UnixTime,
}

/// Another issuer of the network, whose key may be stolen.
pub(crate) struct Issuer {
    pub(crate) identity: Identity,
    delegation: Delegation,
    network: NetworkId,
}

impl Issuer {
    /// Signs a set of removals: node, lowest serial that counts, and end of each.
    pub(crate) fn head(
        &self,
        epoch: u64,
        time: UnixTime,
        removals: impl IntoIterator<Item = (NodeId, UnixTime, UnixTime)>,
    ) -> (Head, Vec<u8>) {
        let mut set = Revocations::default();
        for (node, min_serial, until) in removals {
            let min_serial = Serial::from_u64(min_serial.as_millis());
            set.add(node, Revocation { min_serial, until });
        }
        let delegation = self.delegation.clone();
        (Head::sign(&self.identity, delegation, self.network, epoch, time, &set), set.to_bytes())
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(Settings { ipv4: pool("10.7.0.0", 24), ..Settings::default() })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self::in_store(Store::in_memory().expect("memory"), settings)
    }

    /// Creates a network in a file that does not exist.
    pub(crate) fn at(path: &Path) -> Self {
        let settings = Settings { ipv4: pool("10.7.0.0", 16), ..Settings::default() };
        Self::in_store(Store::open(path).expect("a folder of the test"), settings)
    }

    fn in_store(store: Store, settings: Settings) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let created = Controller::create(store, &SEED, &new_network(settings), NOW, &mut rng, id_of);
        let (mut controller, words) = created.expect("an empty store");
        controller.start(NOW, Duration::ZERO).expect("a good store");
        Self { controller, words, rng, now: NOW }
    }

    /// Returns an issuer that the network key has made, besides the controller.
    pub(crate) fn other_issuer(&self, seed: u8) -> Issuer {
        let (identity, network) = (Identity::from_seed(&[seed; 32]), self.controller.network());
        let secret = self.words.secret();
        let delegation = crate::delegation::sign(&secret, network, *identity.public(), self.now, None, false);
        Issuer { identity, delegation, network }
    }

    pub(crate) fn note(&mut self, (head, set): &(Head, Vec<u8>)) -> Result<bool, NoteError> {
        self.controller.note_head(self.now, head, set)
    }

    /// Opens the network that [`Self::at`] has created, as another process would.
    pub(crate) fn open(path: &Path, seed: u64) -> Self {
        let store = Store::open(path).expect("it exists");
        let controller = Controller::open(store, &SEED).expect("a network");
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        Self { controller, words: RecoveryWords::draw(&mut rng), rng, now: NOW }
    }

    pub(crate) fn ask_from(&mut self, node: u32, source: &str, question: Question) -> Answer {
        let source: IpAddr = source.parse().expect("an address");
        self.controller.answer(self.now, &mut self.rng, identity(node).public(), source, question)
    }

    pub(crate) fn ask(&mut self, node: u32, token: Option<&Token>) -> Answer {
        self.ask_from(node, &source_of(node), certify(node, token))
    }

    /// Lets a machine join with a token, or renew; it has to succeed.
    pub(crate) fn join(&mut self, node: u32, token: Option<&Token>) -> Credentials {
        let now = self.now;
        match self.ask(node, token) {
            Answer::Certified { credentials, time, .. } => {
                assert_eq!(time, now);
                assert_eq!(self.refusal_at(&credentials, node, now), None);
                *credentials
            }
            other => panic!("machine {node} gets no certificate: {other:?}"),
        }
    }

    /// Returns the reason for which members that know the newest head refuse the credentials.
    pub(crate) fn refusal(&mut self, credentials: &Credentials, node: u32) -> Option<Refusal> {
        self.refusal_at(credentials, node, self.now)
    }

    pub(crate) fn refusal_at(
        &mut self,
        credentials: &Credentials,
        node: u32,
        now: UnixTime,
    ) -> Option<Refusal> {
        let set = self.head_set();
        check(&self.controller, credentials, node, now, &set).err()
    }

    /// Returns the revocations as a member reads them.
    pub(crate) fn head_set(&mut self) -> Revocations {
        let (head, set) = self.controller.head(self.now);
        let (keys, network) = (self.controller.network_keys(), self.controller.network());
        head.verify(&keys, network, self.now, &Revocations::default()).expect("a good head");
        head.read_set(&set.to_bytes()).expect("the set of the head")
    }

    pub(crate) fn invite(&mut self, options: &InviteOptions) -> Token {
        self.controller.invite(self.now, &mut self.rng, "alice", options).expect("a good invite")
    }

    /// Makes an invite for any number of machines.
    pub(crate) fn open_invite(&mut self) -> Token {
        self.invite(&InviteOptions { uses: 1_000_000, lifetime: 1000 * DAY, ..InviteOptions::default() })
    }

    pub(crate) fn revoke(&mut self, node: u32) {
        let key = identity(node).node_id().to_string();
        self.controller.revoke(self.now, "alice", &[&key], false).expect("a member");
    }

    /// Flushes at the present time as a controller does whose clock has run on evenly, so that it forgets by it.
    pub(crate) fn flush_steadily(&mut self) {
        for minutes in (0..=12).rev().map(|step| step * 5 * MINUTE) {
            self.controller.flush(self.now.minus(minutes)).expect("writable");
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }
}

pub(crate) fn check(
    controller: &Controller,
    credentials: &Credentials,
    node: u32,
    now: UnixTime,
    set: &Revocations,
) -> Result<(), Refusal> {
    let (key, network) = (controller.key(), controller.network());
    credentials.authenticate(&key, network, &identity(node).node_id())?.check(now, set)
}

pub(crate) fn new_network(settings: Settings) -> NewNetwork {
    NewNetwork {
        name: "team".into(),
        own_name: "controller".parse().expect("a name"),
        settings,
        is_offline: false,
    }
}

/// Returns a folder, and the path of a store in it.
pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store/controller.db");
    (folder, path)
}

/// Half of all keys have an ID.
pub(crate) fn id_of(key: &NetworkKey) -> Option<NetworkId> {
    let first = u64::from(key.as_bytes()[0]);
    if first % 2 == 0 { NetworkId::new(0x8056_c2e2_1c00_0000 | first << 8 | 1).ok() } else { None }
}

pub(crate) fn identity(node: u32) -> Identity {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&node.to_be_bytes());
    Identity::from_seed(&seed)
}

pub(crate) fn id(node: u32) -> NodeId {
    identity(node).node_id()
}

/// Each machine asks from its own prefix.
pub(crate) fn source_of(node: u32) -> String {
    let [_, a, b, c] = node.to_be_bytes();
    format!("2001:{a:x}:{b:x}{c:02x}::1")
}

pub(crate) fn certify(node: u32, token: Option<&Token>) -> Question {
    Question::Certify(request(node, token))
}

pub(crate) fn request(node: u32, token: Option<&Token>) -> CertifyRequest {
    let name = MemberName::cleaned(&format!("machine-{node}"));
    CertifyRequest { run: 1, starts: 1, token: token.cloned(), name, description: "Debian".into() }
}

pub(crate) fn run_of(node: u32, run: u64, starts: u64) -> Question {
    Question::Certify(CertifyRequest { run, starts, ..request(node, None) })
}

pub(crate) fn pool(address: &str, length: u8) -> Option<Prefix> {
    Prefix::new(address.parse().expect("an address"), length)
}

pub(crate) fn name(text: &str) -> MemberName {
    text.parse().expect("a name")
}

pub(crate) fn tags(texts: &[&str]) -> Vec<Tag> {
    texts.iter().map(|text| text.parse().expect("a tag")).collect()
}

pub(crate) fn denial(answer: &Answer) -> Option<Denial> {
    match answer {
        Answer::Denied { reason, .. } => Some(*reason),
        _ => None,
    }
}

/// Returns all rows of all tables but the network's, which counts commits, and the log.
pub(crate) fn dump(controller: &Controller) -> String {
    let db = controller.store.db();
    let mut text = String::new();
    for table in [
        "members",
        "addresses",
        "reservations",
        "tokens",
        "token_uses",
        "pending",
        "refused",
        "revocations",
        "heard",
    ] {
        let mut statement = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).expect("a table");
        let columns = statement.column_count();
        let mut rows = statement.query([]).expect("rows");
        while let Some(row) = rows.next().expect("rows") {
            let cells = (0..columns).map(|at| format!("{:?}", row.get_ref(at).expect("a cell")));
            text.push_str(&format!("{table}: {}\n", cells.collect::<Vec<_>>().join(", ")));
        }
    }
    text
}
