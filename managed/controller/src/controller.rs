use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peersock_overlay::membership::{
    Answer, CLOCK_TOLERANCE, CertifyRequest, Credentials, Delegation, Denial, Head, MemberName, NetworkKey,
    NetworkKeys, Question, Refusal, Revocations, Role, Serial, UnixTime,
};
use peersock_overlay::{NetworkId, NodeId, PublicIdentity};
use rand::CryptoRng;
use thiserror::Error;

use crate::addresses::Hints;
use crate::admission::{self, Admission, Fail, Known, Outcome, Round};
use crate::flush::Flushes;
use crate::keys::{Keys, RecoveryWords};
use crate::member::{Member, millis, number, span};
use crate::memory::{MARGIN, Memory, News, unsettled_until};
use crate::network_key::to_bytes;
use crate::pending::SourceLimits;
use crate::settings::Settings;
use crate::store::{Store, StoreError, Write};
use crate::{delegation, heard, own_key, spares};

/// Time for which a store that was restored from a backup waits for heads of members before it renews their
/// certificates: a quarter of the shortest time for which they go on without a controller.
const RESTORED_PATIENCE: Duration = Duration::from_secs(900);

/// Number of network keys that [`Controller::create`] tries before it gives up.
const MAX_DRAWS: u32 = 100;

/// One question, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Member or stranger, as the session shows it. For a program of a member it is the member.
    pub peer: PublicIdentity,
    /// Address from which the session comes.
    pub source: IpAddr,
    /// Question.
    pub question: Question,
}

/// Properties of a new network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNetwork {
    /// Name for people, without a meaning for programs.
    pub name: String,
    /// Name of the controller's own node, which becomes a member with all rights.
    pub own_name: MemberName,
    /// Settings.
    pub settings: Settings,
    /// True if the network key is not stored. Then the delegation lasts a year, and its renewal takes the
    /// recovery words.
    pub is_offline: bool,
}

/// Decides for one managed network. The page of the crate describes how.
pub struct Controller {
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    memory: Arc<Mutex<Memory>>,
    pub(crate) hints: Hints,
    limits: SourceLimits,
    data_version: i64,
    pub(crate) flushes: Flushes,
    /// False in a command, whose memory lacks the notes of the process that serves.
    pub(crate) is_serving: bool,
    pub(crate) fault: Option<StoreError>,
}

/// Answers questions that need no store, beside a [`Controller`] that may be waiting for its disk.
#[derive(Clone)]
pub struct Renewals(Arc<Mutex<Memory>>);

impl Renewals {
    /// Answers a renewal or a lookup. `None` if the question is one for [`Controller::answer`].
    ///
    /// Commits of other processes count after the controller's next call.
    pub fn answer(
        &self,
        now: UnixTime,
        peer: &PublicIdentity,
        source: IpAddr,
        question: &Question,
    ) -> Option<Answer> {
        // The store says whom an invite admits.
        let has_invite = matches!(question, Question::Certify(request) if request.token.is_some());
        let mut memory = lock(&self.0);
        let now = memory.clock.read(now);
        if has_invite || memory.clock.is_write_due() {
            return None;
        }
        memory.answer(now, peer, source, question)
    }
}

/// A panic cannot leave the memory half-changed in a way that the store does not correct.
pub(crate) fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Controller {
    /// Creates a network in an empty store. Returns its recovery words, which are shown once.
    ///
    /// `seed` is the one of the identity of the controller's node. `id_of` returns the ID of a network key;
    /// for a key without one, another key is drawn.
    ///
    /// # Errors
    /// Returns a [`CreateError`]; the store is as before.
    pub fn create(
        store: Store,
        seed: &[u8; 32],
        new: &NewNetwork,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        id_of: impl Fn(&NetworkKey) -> Option<NetworkId>,
    ) -> Result<(Self, RecoveryWords), CreateError> {
        for _ in 0..MAX_DRAWS {
            let words = RecoveryWords::draw(rng);
            let key = words.secret().public();
            if let Some(id) = id_of(&key) {
                let keys = NetworkKeys::new(key);
                let controller = Self::create_with(store, seed, new, now, rng, &words, id, &keys, false)?;
                return Ok((controller, words));
            }
        }
        Err(CreateError::NoId)
    }

    /// Creates the store of a network that exists, after all its controllers have lost theirs. The members
    /// have to be admitted again. They get addresses of pools when all earlier certificates have ended, and
    /// nothing is issued before members have shown their head ([`Self::start`]).
    ///
    /// `keys` are the network's keys, as its members know them; the words are those of the last one.
    ///
    /// # Errors
    /// Returns a [`CreateError`]; the store is as before.
    #[expect(clippy::too_many_arguments, reason = "they are those of `create`, and the network that exists")]
    pub fn create_again(
        store: Store,
        seed: &[u8; 32],
        new: &NewNetwork,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        words: &RecoveryWords,
        id: NetworkId,
        keys: &NetworkKeys,
    ) -> Result<Self, CreateError> {
        if words.secret().public() != *keys.last() {
            return Err(CreateError::OtherKey);
        }
        Self::create_with(store, seed, new, now, rng, words, id, keys, true)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the arguments of two public functions")]
    fn create_with(
        store: Store,
        seed: &[u8; 32],
        new: &NewNetwork,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        words: &RecoveryWords,
        id: NetworkId,
        keys_of_network: &NetworkKeys,
        is_again: bool,
    ) -> Result<Self, CreateError> {
        if !new.settings.is_valid_in(id) {
            return Err(CreateError::Settings);
        }
        let (keys, identity) = Keys::from_seed(seed);
        let secret = words.secret();
        let delegation = delegation::sign(&secret, id, *identity.public(), now, None, new.is_offline);
        let sealed = (!new.is_offline).then(|| keys.seal(words, rng));
        let settings = &new.settings;
        let own = Admission {
            identity: *identity.public(),
            wish: Some(new.own_name.clone()),
            is_name_fixed: true,
            role: Role::Admin,
            admitted_by: admission::CREATE,
            ..Admission::of(identity.public())
        };
        store.write(|write| {
            let created = write.try_run(
                "INSERT INTO network (one, change, refused_change, purged, name, id, key, sealed, delegation, epoch,
                    has_issued,
                    unsettled_until, pools_rest_until, outlive, pool4, pool6, ephemeral_ipv4, on_clone,
                    created, successions, links, served)
                    VALUES (1, 1, 1, 0, ?, ?, ?, ?, ?, 1, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    &new.name,
                    id.as_u64().cast_signed(),
                    keys_of_network.first().as_bytes(),
                    sealed,
                    delegation.to_bytes(),
                    is_again,
                    if is_again { millis(now.plus(longest_certificate(settings))) } else { 0 },
                    span(settings.outlive),
                    settings.ipv4.map(|pool| pool.to_string()),
                    settings.ipv6.map(|pool| pool.to_string()),
                    settings.ephemeral_ipv4,
                    settings.on_clone as u8,
                    millis(now),
                    to_bytes(keys_of_network.successions()),
                    keys_of_network.successions().len(),
                    millis(now),
                ),
            )?;
            if !created {
                return Err(CreateError::Exists);
            }
            note_issuer(write, &delegation)?;
            let mut hints = Hints::default();
            // Another node may have the first address.
            let none = Settings { ipv4: None, ipv6: None, ..settings.clone() };
            let known = Known::New(if is_again { &none } else { settings });
            let mut round = Round { write, hints: &mut hints, now, known, keys: &keys, rng: &mut *rng };
            match round.admit(&own) {
                Ok(_) => {}
                Err(Fail::Store(error)) => return Err(error.into()),
                Err(Fail::Denied(_)) => return Err(CreateError::Settings),
            }
            write.log(millis(now), admission::CREATE, "create", &new.name)?;
            Ok(())
        })?;
        Ok(Self::open(store, seed)?)
    }

    /// Opens the network of a store, with the seed of the identity of the controller's node. Takes that key
    /// up if it was [prepared](Self::prepare_node_key).
    ///
    /// # Errors
    /// Returns [`StoreError::Empty`] if the store holds no network, and other [`StoreError`]s.
    pub fn open(store: Store, seed: &[u8; 32]) -> Result<Self, StoreError> {
        let (keys, identity) = Keys::from_seed(seed);
        own_key::take_up(&store, &identity)?;
        let data_version = store.data_version()?;
        let mut memory = Memory::load(&store, identity)?;
        memory.unsettled_until = unsettled_until(store.db())?;
        Ok(Self {
            store,
            keys,
            memory: Arc::new(Mutex::new(memory)),
            hints: Hints::default(),
            limits: SourceLimits::default(),
            data_version,
            flushes: Flushes::default(),
            is_serving: false,
            fault: None,
        })
    }

    /// Begins to serve members, which one process at a time may do. Checks the whole file first.
    ///
    /// If the store says that certificates have been issued, it may be an old copy that lacks revocations.
    /// Then nothing is issued until members have shown a head ([`Self::note_head`]), at most for `patience`.
    /// After [`Self::note_restored`], renewals wait for that for up to 15 minutes. What is noted before this
    /// call does not count as heard from members.
    ///
    /// # Errors
    /// Returns a [`StoreError`]; the controller must not serve then.
    pub fn start(&mut self, now: UnixTime, patience: Duration) -> Result<(), StoreError> {
        self.store.check()?;
        self.notice()?;
        // It was never the machine's, or `open` would have taken it up.
        self.drop_prepared_key()?;
        // From here on the store's time follows.
        self.memory().clock.is_serving = true;
        self.note_if_backup(now)?;
        let now = self.time(now);
        let until = if self.memory().has_issued { now.plus(patience) } else { UnixTime::default() };
        self.settle(until)?;
        let mut memory = self.memory();
        if memory.restored != UnixTime::default() {
            memory.renewals_rest_until = now.plus(RESTORED_PATIENCE);
        }
        drop(memory);
        self.is_serving = true;
        Ok(())
    }

    /// Notes that the store was restored from a backup, which may lack removals. Those that were members then
    /// get no certificates until members have shown a head, or some time has passed; others can join.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn note_restored(&mut self, now: UnixTime) -> Result<(), StoreError> {
        let now = self.time(now);
        // Members may have addresses that were given later.
        let rest = now.plus(longest_certificate(&self.settings()));
        self.write(|write, _| {
            write.end_mark()?;
            write_restored(write, now, rest)
        })
    }

    /// Does the same if the store is a [backup](Self::backup) that was put in its place by hand, once. Call
    /// this after each opening; [`Self::start`] does it, too.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn note_if_backup(&mut self, now: UnixTime) -> Result<(), StoreError> {
        if !self.store.is_backup()? {
            return Ok(());
        }
        let time = self.time(now);
        // Addresses rest from a time that counts. Until the clock is confirmed, each opening notes it again.
        let keeps_mark = self.memory().clock.has_leapt();
        let rest = time.plus(longest_certificate(&self.settings()));
        self.write(|write, _| match keeps_mark || write.end_mark()? {
            true => write_restored(write, time, rest),
            // Another process has noted it.
            false => Ok(()),
        })
    }

    pub(crate) fn settle(&mut self, until: UnixTime) -> Result<(), StoreError> {
        self.memory().unsettled_until = until;
        self.write(|write, _| {
            write.run("UPDATE network SET unsettled_until = ?", [millis(until)]).map(|_| ())
        })
    }

    /// Returns a handle that answers renewals beside this controller.
    pub fn renewals(&self) -> Renewals {
        Renewals(self.memory.clone())
    }

    /// Returns the memory for steps of a transaction, which must lock it briefly.
    pub(crate) fn shared(&self) -> Arc<Mutex<Memory>> {
        self.memory.clone()
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Returns the network's ID.
    pub fn network(&self) -> NetworkId {
        self.memory().network
    }

    /// Returns the network's first key, to which its ID is bound and which invites carry.
    pub fn key(&self) -> NetworkKey {
        *self.memory().keys.first()
    }

    /// Returns the network's keys, as far as they are known here.
    pub fn network_keys(&self) -> NetworkKeys {
        self.memory().keys.clone()
    }

    /// Returns the network's name for people.
    pub fn name(&self) -> String {
        self.memory().name.clone()
    }

    /// Returns the settings.
    pub fn settings(&self) -> Settings {
        self.memory().settings.clone()
    }

    /// Returns new credentials of the controller's own node, which is a member, with an address of each pool.
    /// `None` if the delegation has ended.
    pub fn credentials(&mut self, now: UnixTime) -> Option<Credentials> {
        let now = self.time(now);
        let completed = self.complete_own();
        self.note_fault(completed);
        let mut memory = self.memory();
        let own = memory.identity.node_id();
        memory.issue(now, &own).map(|(credentials, _)| credentials)
    }

    /// Gives the controller's own node the addresses that it lacks, as a renewal gives them to others.
    fn complete_own(&mut self) -> Result<(), StoreError> {
        self.notice()?;
        let (own, lacks_address) = {
            let memory = self.memory();
            let own = memory.identity.node_id();
            let member = memory.members.get(&own).filter(|member| member.is_member());
            (own, member.is_some_and(|member| memory.lacks_address(member)))
        };
        if !lacks_address {
            return Ok(());
        }
        let memory = self.memory.clone();
        self.write(|write, hints| admission::complete(write, hints, Known::Memory(&memory), &own))
    }

    /// Returns the recovery words, if the network key is in the store and sealed for this identity.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn recovery_words(&self) -> Result<Option<RecoveryWords>, StoreError> {
        let sql = "SELECT sealed FROM network";
        let sealed = self.store.db().query_row(sql, [], |row| row.get::<_, Option<Vec<u8>>>(0))?;
        Ok(sealed.and_then(|sealed| self.keys.unseal(&sealed)))
    }

    /// Returns true if others than the controller's own node may have certificates.
    pub fn has_issued(&self) -> bool {
        self.memory().has_issued
    }

    /// Answers one question.
    pub fn answer(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        peer: &PublicIdentity,
        source: IpAddr,
        question: Question,
    ) -> Answer {
        let asked = Asked { peer: *peer, source, question };
        let denied = Answer::Denied { time: now, reason: Denial::Unavailable };
        self.answer_all(now, rng, &[asked]).pop().unwrap_or(denied)
    }

    /// Answers questions in their order. All that change the store do so in one transaction; if it fails,
    /// these are answered with [`Denial::Unavailable`], and nothing of them is in the store.
    pub fn answer_all(&mut self, now: UnixTime, rng: &mut dyn CryptoRng, batch: &[Asked]) -> Vec<Answer> {
        let now = self.time(now);
        let noticed = self.notice();
        self.note_fault(noticed);
        let denied = |reason| Answer::Denied { time: now, reason };
        let mut answers = Vec::with_capacity(batch.len());
        for asked in batch {
            let known = match self.is_for_new_key(asked) {
                true => Some(denied(Denial::KnownKey)),
                false => self.memory().answer(now, &asked.peer, asked.source, &asked.question),
            };
            answers.push(known.or_else(|| self.refuse_early(now, asked).map(denied)));
        }
        let left: Vec<usize> = (0..batch.len()).filter(|at| answers[*at].is_none()).collect();
        if !left.is_empty() {
            let outcomes = self.decide_all(now, rng, left.iter().map(|at| &batch[*at]));
            for (place, at) in left.into_iter().enumerate() {
                let asked = &batch[at];
                let outcome = outcomes.as_ref().ok().and_then(|outcomes| outcomes.get(place));
                answers[at] = Some(match (outcome, &asked.question) {
                    (Some(Outcome::Pending(code)), Question::Certify(request)) => {
                        self.memory().wait(now, &asked.peer.node_id(), request, *code)
                    }
                    (Some(Outcome::Pending(_)), _) => denied(Denial::Unavailable),
                    (Some(Outcome::Denied(reason)), _) => denied(*reason),
                    // A member that only lacks an address gets a certificate without one.
                    (Some(Outcome::Member) | None, Question::Certify(request)) => {
                        let node = asked.peer.node_id();
                        let mut memory = self.memory();
                        match memory.members.get(&node).is_some_and(Member::is_member) {
                            true => memory.renew(now, &node, asked.source, request),
                            false => denied(Denial::Unavailable),
                        }
                    }
                    (_, _) => denied(Denial::Unavailable),
                });
            }
            if let Err(error) = outcomes {
                self.fault = Some(error);
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or(denied(Denial::Unavailable))).collect()
    }

    /// Returns true if a member shows an invite that replaces a member by another key than its own.
    fn is_for_new_key(&mut self, asked: &Asked) -> bool {
        let Question::Certify(CertifyRequest { token: Some(token), .. }) = &asked.question else {
            return false;
        };
        let node = asked.peer.node_id();
        if !self.memory().members.get(&node).is_some_and(Member::is_member) {
            return false;
        }
        let is_for_new_key = admission::is_for_new_key(self.store.db(), token, &node);
        // A store that fails delays no renewal.
        is_for_new_key.unwrap_or_else(|error| {
            self.fault = Some(error);
            false
        })
    }

    /// Refuses what must not cost a transaction: wrong tokens, and strangers that ask too often.
    fn refuse_early(&mut self, now: UnixTime, asked: &Asked) -> Option<Denial> {
        let Question::Certify(request) = &asked.question else { return None };
        let node = asked.peer.node_id();
        if let Some(token) = &request.token {
            // A member that lacks an address shows the invite again.
            if self.memory().members.get(&node).is_some_and(Member::is_member) {
                return None;
            }
            return admission::refused_token(self.store.db(), &self.memory, now, &node, token)
                .unwrap_or_else(|error| {
                    self.fault = Some(error);
                    Some(Denial::Unavailable)
                });
        }
        let is_new = !self.memory().members.contains_key(&node);
        (is_new && !self.limits.admits(now, asked.source)).then_some(Denial::TooMany)
    }

    fn decide_all<'a>(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        left: impl Iterator<Item = &'a Asked>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let (memory, keys) = (self.memory.clone(), self.keys.clone());
        self.write(|write, hints| {
            let known = Known::Memory(&memory);
            let mut round = Round { write, hints, now, known, keys: &keys, rng: &mut *rng };
            left.map(|asked| round.decide(asked)).collect()
        })
    }

    /// Runs a transaction on what all processes have committed, and takes over what it has changed. The
    /// memory is that of the last commit while the steps run, so they decide by it.
    pub(crate) fn write<T, E: From<StoreError>>(
        &mut self,
        steps: impl FnOnce(&Write<'_>, &mut Hints) -> Result<T, E>,
    ) -> Result<T, E> {
        self.notice()?;
        let (mut hints, served) = (self.hints, self.time_to_write());
        // Another process may commit while this one waits for the store.
        let prepare = || Ok(self.catch_up()?);
        let done = self.store.write_after(prepare, |write, has_news| {
            if has_news {
                hints = Hints::default();
            }
            write.run("UPDATE network SET served = max(served, ?1) WHERE served < ?1", [served])?;
            steps(write, &mut hints)
        });
        // After a failure, addresses are free that looked taken.
        self.hints = if done.is_ok() { hints } else { Hints::default() };
        if done.is_ok() {
            self.refresh()?;
            self.fault = None;
        }
        done
    }

    /// Takes over what other processes have committed. It costs a read of shared memory if there is nothing.
    pub(crate) fn notice(&mut self) -> Result<(), StoreError> {
        let version = self.store.data_version()?;
        if version != self.data_version {
            self.hints = Hints::default();
            self.refresh()?;
            let until = unsettled_until(self.store.db())?;
            let mut memory = self.memory();
            memory.unsettled_until = until;
            drop(memory);
            self.data_version = version;
            // The command that has removed members reads in the store until when others accept them. The next
            // flush tries again.
            let _ = self.write_removed();
        }
        if self.memory().repairs.is_empty() { Ok(()) } else { self.repair() }
    }

    /// Takes over what was committed since the last look, in a transaction that has changed nothing yet.
    /// Returns false if there is nothing.
    fn catch_up(&self) -> Result<bool, StoreError> {
        let known = self.memory().known();
        let has_news = !known.is_last(self.store.db())?;
        if has_news {
            let news = News::read_rows(self.store.db(), known)?;
            let until = unsettled_until(self.store.db())?;
            let mut memory = self.memory();
            memory.apply(news);
            memory.unsettled_until = until;
        }
        Ok(has_news)
    }

    fn refresh(&self) -> Result<(), StoreError> {
        let known = self.memory().known();
        let news = News::read(&self.store, known)?;
        self.memory().apply(news);
        Ok(())
    }

    /// Raises revocations that another process has committed above what was signed in the meantime.
    fn repair(&mut self) -> Result<(), StoreError> {
        let short: Vec<(NodeId, Serial, UnixTime)> = {
            let memory = self.memory();
            let of =
                |node: &NodeId| memory.members.get(node).map(|member| (*node, member.serial, member.ends));
            memory.repairs.iter().filter_map(of).collect()
        };
        self.store.write(|write| {
            for (node, serial, ends) in &short {
                let floor = Serial::next(UnixTime::default(), Some(*serial));
                let until = ends.plus(CLOCK_TOLERANCE);
                if !heard::raise(write, node, floor, until)? {
                    raise_floor(write, node, floor, until)?;
                }
            }
            bump_epoch(write)
        })?;
        self.memory().repairs.clear();
        self.refresh()
    }

    pub(crate) fn note_fault(&mut self, done: Result<(), StoreError>) {
        if let Err(error) = done {
            self.fault = Some(error);
        }
    }

    /// Returns the signed head of all revocations, and these.
    pub fn head(&mut self, now: UnixTime) -> (Head, Revocations) {
        let now = self.time(now);
        let noticed = self.notice();
        self.note_fault(noticed);
        self.memory().head(now)
    }

    /// Returns the longest time for which a certificate that is issued now can last.
    pub fn longest_lifetime(&self) -> Duration {
        self.memory().longest_lifetime()
    }

    /// Copies the store into a new file while it is in use. The copy counts as a backup, which may lack
    /// removals, when it is in the place of the store ([`Self::note_if_backup`]).
    ///
    /// # Errors
    /// Returns a [`StoreError`]. The file must not exist.
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        self.store.backup(to)
    }

    /// Copies the store into a new file that takes its place, for example from a folder for drafts.
    ///
    /// # Errors
    /// Returns a [`StoreError`]. The file must not exist.
    pub fn copy_to(&self, place: &Path) -> Result<(), StoreError> {
        self.store.copy(place)
    }
}

/// Reason why a network cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The store already holds a network.
    #[error("the store already holds a network")]
    Exists,
    /// No key that was drawn has an ID.
    #[error("no key with a network ID was found")]
    NoId,
    /// The words are not those of the network's last key.
    #[error("the recovery words are not those of the network's key")]
    OtherKey,
    /// A setting is out of its range, or a pool has no address.
    #[error("a setting of the network is out of its range")]
    Settings,
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reason why a head is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The head does not count.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the time after which no earlier certificate counts for any clock.
pub(crate) fn longest_certificate(settings: &Settings) -> Duration {
    settings.outlive + MARGIN + CLOCK_TOLERANCE
}

/// Notes the time of a restore, and the one until which no addresses are given out.
fn write_restored(write: &Write<'_>, at: UnixTime, rest: UnixTime) -> Result<(), StoreError> {
    let sql = "UPDATE network SET restored = ?1, pools_rest_until = max(pools_rest_until, ?2)";
    write.run(sql, (millis(at), millis(rest))).map(|_| ())
}

/// Sets the lowest serial that counts for a node, and publishes it until the last certificate below ends, and
/// the last delegation to the node. [`bump_epoch`] has to follow.
pub(crate) fn raise_floor(
    write: &Write<'_>,
    node: &NodeId,
    floor: Serial,
    until: UnixTime,
) -> Result<(), StoreError> {
    let (node, floor) = (node.as_bytes(), number(floor));
    write.run(
        "UPDATE members SET floor = max(floor, ?2), changed = ?3 WHERE node = ?1",
        (node, floor, write.change),
    )?;
    write.run(
        "INSERT INTO revocations (node, min_serial, until)
            VALUES (?1, ?2, max(?3, ?4, coalesce((SELECT ends FROM issuers WHERE node = ?1), 0)))
            ON CONFLICT (node) DO UPDATE
            SET min_serial = max(min_serial, excluded.min_serial), until = max(until, excluded.until)",
        (node, floor, millis(until), spares::end(write)?),
    )?;
    Ok(())
}

/// Notes that a node is an issuer until the delegation has ended for all clocks.
pub(crate) fn note_issuer(write: &Write<'_>, delegation: &Delegation) -> Result<(), StoreError> {
    write.run(
        "INSERT INTO issuers (node, ends) VALUES (?1, ?2) ON CONFLICT (node) DO UPDATE
            SET ends = max(ends, ?2)",
        (delegation.issuer().node_id().as_bytes(), millis(heard::end_of(delegation))),
    )?;
    Ok(())
}

/// Makes the next head a new one.
pub(crate) fn bump_epoch(write: &Write<'_>) -> Result<(), StoreError> {
    write.run("UPDATE network SET epoch = epoch + 1", [])?;
    Ok(())
}
