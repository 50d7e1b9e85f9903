//! Managed networks: controllers admit the members, and members show each other what controllers have signed.

mod clock;
mod description;
mod heads;
mod policy;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use self::description::ManagedNetwork;
use self::heads::KnownHead;
pub(super) use self::policy::Managed;
use self::rules::KnownRules;
use super::UsedMember;
use super::used::UsedMembers;
use crate::crypto::hash;
use crate::id::{Identity, NetworkId, NodeId, PublicIdentity};
use crate::membership::{
    Admission, Answer, CertifyRequest, Credentials, Delegation, Grant, MemberName, NetworkKey, NetworkKeys,
    ProcessCertificate, Question, Refusal, Revocations, RulesRank, Serial, Spare, Token, UnixTime,
};

const DIGEST_LABEL: &[u8] = b"peersock credentials digest v1";

/// Maximum number of controllers that a member remembers, and of issuers whose heads it has.
pub(crate) const MAX_CONTROLLERS: usize = 8;

/// Maximum number of revocations that a node observes. It is what the newest sets of all issuers can have.
const MAX_OBSERVED: usize = MAX_CONTROLLERS * Revocations::MAX_ENTRIES;

/// Maximum number of members that a node remembers because a controller named them.
const MAX_FOUND: usize = 64;

/// Credentials of this node, in the form in which it shows them.
#[derive(Debug, Clone)]
pub(crate) struct OwnCredentials {
    pub(crate) admission: Admission,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) digest: [u8; 8],
}

/// Issuer of a managed network, and what it says about the time.
#[derive(Debug)]
struct Issuer {
    /// Newest delegation, whose signature is right.
    delegation: Delegation,
    /// Network key that has signed it; `None` if that is not known since a restart.
    signer: Option<NetworkKey>,
    /// Newest time that the issuer has signed in a statement that counts.
    claimed: UnixTime,
    /// The same, but never later than this node's clock was then.
    confirmed: UnixTime,
    /// Milliseconds by which this node's clock is behind the issuer's, by its last answer.
    offset: Option<i64>,
}

/// Everything that changes in a managed network, as one node knows it.
#[derive(Debug)]
pub struct Membership {
    id: NetworkId,
    keys: Option<NetworkKeys>,
    /// True if a key was learned that the layer above has not followed yet.
    has_new_key: bool,
    /// True once somebody has shown another successor of a known key.
    is_contested: bool,
    own: Option<OwnCredentials>,
    /// Credentials that came with the network's description, until the node is known.
    given: Option<Credentials>,
    request: CertifyRequest,
    /// True if a controller has refused the request with its invite.
    is_refused: bool,
    controllers: Vec<PublicIdentity>,
    is_controller: bool,
    /// Right of this node to renew others' certificates. It counts while this node is connected to no
    /// controller.
    spare: Option<Spare>,
    is_program: bool,
    /// True while a controller says that this node's machine is no member any more.
    is_removed: bool,
    /// Issuers whose delegations were checked and are not revoked, with what they say about the time.
    issuers: BTreeMap<NodeId, Issuer>,
    /// Milliseconds by which this node's clock is behind the issuers' that have answered.
    offset: i64,
    /// Newest serial of a delegation. A network key has signed it, so no issuer can lead it.
    delegated: UnixTime,
    /// Newest signed time of earlier runs that this node's clock had reached.
    kept: UnixTime,
    revoked: Revocations,
    /// Newest head of each issuer that is not revoked, with the bytes of its set. An issuer's epochs order
    /// its own heads alone, so that no stolen key hides what others sign.
    heads: BTreeMap<NodeId, KnownHead>,
    /// Newest statement about access rules of each issuer that is not revoked.
    rules: BTreeMap<NodeId, KnownRules>,
    /// Place of the rules that the layer above follows.
    reported_rules: Option<RulesRank>,
    /// True once an issuer itself has shown its newest head in this run, and this node has it.
    is_up_to_date: bool,
    /// Members that have shown their credentials in a session.
    admitted: BTreeMap<NodeId, Admission>,
    /// Members and programs that others have named, by node and machine. They have to show their credentials
    /// themselves: any member can certify any node as its program, so no such claim replaces another one.
    found: BTreeMap<(NodeId, NodeId), Box<Admission>>,
    /// Members that this node has used, also in earlier runs.
    used: UsedMembers,
    /// True if they are others than at the last call of [`Self::take_used_changed`].
    has_used_changed: bool,
}

impl Membership {
    pub(super) fn new(network: &ManagedNetwork) -> Self {
        let keys = network.key.map(|key| {
            let first = NetworkKeys::new(key);
            first.extended(network.id, &network.successions).unwrap_or(first)
        });
        let (mut heads, mut revoked) = (BTreeMap::new(), network.others.clone());
        for (head, bytes) in network.revocations.iter().take(MAX_CONTROLLERS) {
            if let Some(set) = head.read_shared(Arc::clone(bytes)) {
                revoked.merge(&set);
                let signer = keys.as_ref().and_then(|keys| signer_of(keys, head.delegation(), network.id));
                let signed = (head.clone(), Arc::clone(bytes));
                heads.insert(head.issuer(), KnownHead { signed, signer });
            }
        }
        let rules = network.rules.iter().take(MAX_CONTROLLERS).map(|signed| {
            (signed.head().issuer(), KnownRules::new(signed.clone(), keys.as_ref(), network.id))
        });
        let rules = rules.collect();
        let given: Vec<_> = heads.values().map(|known| (known.signed.0.clone(), known.signer)).collect();
        let mut membership = Self {
            id: network.id,
            keys,
            has_new_key: false,
            is_contested: false,
            own: None,
            given: network.credentials.clone(),
            request: network.request.clone(),
            controllers: network.controllers.iter().copied().take(MAX_CONTROLLERS).collect(),
            is_refused: false,
            is_controller: network.is_controller,
            spare: None,
            is_program: network.is_program,
            is_removed: false,
            issuers: BTreeMap::new(),
            offset: if network.is_program { network.clock_offset } else { 0 },
            delegated: UnixTime::default(),
            kept: network.signed_time,
            used: UsedMembers::new(&network.used, &revoked),
            has_used_changed: false,
            revoked,
            heads,
            rules,
            reported_rules: None,
            is_up_to_date: false,
            admitted: BTreeMap::new(),
            found: BTreeMap::new(),
        };
        for (head, signer) in given {
            membership.learn(head.delegation(), signer, head.time(), None);
        }
        membership.forget_heads(None);
        membership.forget_rules(None);
        membership.spare = network.spare.clone();
        membership
    }

    /// Returns the network's first key, once it is known.
    pub fn key(&self) -> Option<&NetworkKey> {
        self.keys.as_ref().map(NetworkKeys::first)
    }

    /// Returns all keys of the network that are known, once the first one is.
    pub fn keys(&self) -> Option<&NetworkKeys> {
        self.keys.as_ref()
    }

    /// Returns true once somebody has shown another successor of a known key than the known one. Then
    /// somebody else has that key.
    pub fn is_contested(&self) -> bool {
        self.is_contested
    }

    /// Returns true if a key was learned since the last call.
    pub(crate) fn take_new_key(&mut self) -> bool {
        std::mem::take(&mut self.has_new_key)
    }

    /// Checks that a network key still makes issuers at a time. An unknown one counts as before.
    fn check_key(&self, signer: Option<&NetworkKey>, now: UnixTime) -> Result<(), Refusal> {
        self.keys.as_ref().zip(signer).map_or(Ok(()), |(keys, signer)| keys.check(signer, now))
    }

    /// Returns when the credentials of a member end, or the key that has made its issuer.
    pub(crate) fn end_of(&self, admission: &Admission) -> UnixTime {
        let key_end = self.keys.as_ref().and_then(|keys| keys.end_of(admission.signer()));
        key_end.map_or(admission.end(), |end| end.min(admission.end()))
    }

    /// Checks the signatures of credentials, and learns the keys that they show.
    fn authenticate(&mut self, credentials: &Credentials, holder: &NodeId) -> Result<Admission, Refusal> {
        let known = self.keys.as_ref().ok_or(Refusal::OtherNetwork)?;
        match credentials.authenticate_by(known, self.id, holder) {
            Ok((admission, keys)) => {
                // Also if the credentials have ended: who has signed the keys does not depend on that.
                self.has_new_key |= keys != *known;
                self.keys = Some(keys);
                Ok(admission)
            }
            Err(refusal) => {
                if refusal == Refusal::OtherSuccession && !std::mem::replace(&mut self.is_contested, true) {
                    tracing::warn!(
                        network = %self.id,
                        "a key of the network has signed two successors: somebody else has it; this node \
                         keeps the successor that it has learned first"
                    );
                }
                Err(refusal)
            }
        }
    }

    /// Returns this node's credentials.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.own.as_ref().map(|own| own.admission.credentials())
    }

    /// Returns the known controllers, the preferred one first, and spares among them.
    pub fn controllers(&self) -> &[PublicIdentity] {
        &self.controllers
    }

    /// Returns the number of this node's run that its requests for credentials name.
    pub fn starts(&self) -> u64 {
        self.request.starts
    }

    /// Returns the members that this node has used, the last one at the end.
    pub fn used(&self) -> impl ExactSizeIterator<Item = &UsedMember> + DoubleEndedIterator {
        self.used.iter()
    }

    /// Returns the nodes that a used member led to by this name or address. They have to show that they are
    /// the member.
    pub(crate) fn leads(&self, question: &Question) -> Vec<PublicIdentity> {
        self.used.leads(question)
    }

    /// Notes that this node has sent data to an admitted node, or to a program beside the node of a member.
    pub(crate) fn note_used(&mut self, node: &NodeId, identity: &PublicIdentity) {
        let Some(admission) = self.admitted.get(node) else { return };
        let process = admission.credentials().process();
        let machine = *process.map_or(identity, ProcessCertificate::machine);
        self.has_used_changed |= self.used.note(machine, admission.grant(), serial(admission));
    }

    /// Forgets the used members of a look-up, because a controller says that there is no such member.
    pub(crate) fn forget_used(&mut self, question: &Question) {
        self.has_used_changed |= self.used.forget(question);
    }

    /// Returns true if the used members, or their names and addresses, are others than at the last call.
    pub(crate) fn take_used_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_used_changed)
    }

    /// Returns the admission of a member that has shown its credentials to this node.
    pub fn admission(&self, node: &NodeId) -> Option<&Admission> {
        self.admitted.get(node)
    }

    /// Returns what a controller has signed about a node: one that has shown its credentials, or this one.
    pub(crate) fn grant_of(&self, node: &NodeId) -> Option<&Grant> {
        let own = self.own.as_ref().map(|own| &own.admission).filter(|own| own.holder() == node);
        own.or_else(|| self.admitted.get(node)).map(Admission::grant)
    }

    /// Judges statements whose signatures are right.
    pub(crate) fn verdict(&self, admission: &Admission, unix_time: Duration) -> Result<(), Refusal> {
        let time = self.time_for(admission.signed_time(), unix_time);
        admission.check(time, &self.revoked)?;
        self.check_key(Some(admission.signer()), time)
    }

    pub(crate) fn own(&self) -> Option<&OwnCredentials> {
        self.own.as_ref()
    }

    pub(crate) fn request(&self) -> &CertifyRequest {
        &self.request
    }

    /// Replaces the invite and the wished name of later requests, as far as they are given. An invite that a
    /// controller has refused ends with the request that had it.
    pub(crate) fn change_request(&mut self, token: Option<Token>, name: Option<MemberName>) {
        let is_refused = std::mem::take(&mut self.is_refused);
        self.request.token = token.or(self.request.token.take().filter(|_| !is_refused));
        self.request.name = name.or(self.request.name.take());
    }

    /// Notes that a controller has refused the request.
    pub(crate) fn note_refused(&mut self) {
        self.is_refused = true;
    }

    /// Forgets the invite of later requests.
    pub(crate) fn forget_token(&mut self) {
        self.request.token = None;
    }

    /// Returns true if this node answers requests for credentials.
    pub fn is_controller(&self) -> bool {
        self.is_controller
    }

    /// Notes whether that is so. Returns true if it was otherwise.
    pub(crate) fn set_controller(&mut self, is_controller: bool) -> bool {
        std::mem::replace(&mut self.is_controller, is_controller) != is_controller
    }

    /// Returns true while a controller says that this node's machine is no member any more.
    pub fn is_removed(&self) -> bool {
        self.is_removed
    }

    /// Notes whether that is so. Returns true if it was otherwise.
    pub(crate) fn set_removed(&mut self, is_removed: bool) -> bool {
        std::mem::replace(&mut self.is_removed, is_removed) != is_removed
    }

    /// Returns the right of this node to renew others' certificates, if it has one that may count.
    pub fn spare(&self) -> Option<&Spare> {
        self.spare.as_ref()
    }

    /// Takes over the right that a controller gives this node, or takes from it. Returns false if it is
    /// another node's, or no key of the network has signed it.
    pub(crate) fn set_spare(&mut self, spare: Option<&Spare>, own: &NodeId) -> bool {
        let is_right = |spare: &&Spare| {
            let delegation = spare.delegation();
            let keys = self.keys.as_ref();
            delegation.issuer().node_id() == *own
                && keys.is_some_and(|keys| keys.signer_of(delegation, self.id).is_ok())
        };
        let counts = spare.filter(is_right);
        self.spare = counts.cloned();
        counts.is_some() == spare.is_some()
    }

    /// Renews the credentials of a member that count, if this node may do that now.
    pub(crate) fn renew_for(
        &self,
        identity: &Identity,
        node: &NodeId,
        unix_time: Duration,
    ) -> Option<(Credentials, Duration)> {
        let spare = self.spare.as_ref().filter(|_| !self.is_removed)?;
        let (delegation, now) = (spare.delegation(), self.time(unix_time));
        let keys = self.keys.as_ref()?;
        let signer = keys.signer_of(delegation, self.id).ok()?;
        let counts = now < delegation.end()
            && keys.check(&signer, now).is_ok()
            && !self.revoked.covers(&delegation.issuer().node_id(), delegation.serial());
        let admission = self.known(node).filter(|known| counts && known.holder() == node)?;
        self.verdict(admission, unix_time).ok()?;
        let renewed = spare.renew(identity, self.id, admission, now)?;
        // Those of the last key, by which the right counts. Members know it, or learn it from these.
        let renewed = renewed.with_successions(keys.successions());
        (signer == *keys.last()).then_some((renewed, spare.lifetime()))
    }

    /// Returns true if an issuer renews certificates and does nothing else.
    pub fn is_spare(&self, issuer: &NodeId) -> bool {
        self.issuers.get(issuer).is_some_and(|one| one.delegation.rights().renews_only)
    }

    /// Returns the known controllers that decide, the preferred one first.
    pub(crate) fn deciding(&self) -> impl Iterator<Item = &PublicIdentity> {
        self.controllers.iter().filter(|one| !self.is_spare(&one.node_id()))
    }

    /// Returns true if this node's credentials come from a controller in another node.
    pub(crate) fn is_certified(&self) -> bool {
        !self.is_controller && !self.is_program
    }

    /// Returns the member beside whose node this program's node is.
    pub(crate) fn machine(&self) -> Option<&PublicIdentity> {
        self.own.as_ref()?.admission.credentials().process().map(ProcessCertificate::machine)
    }

    /// Returns the program of a machine that has shown its credentials with this label: the newest one of
    /// those that are connected, or of all, because two may have the same label and the newer one has ended.
    pub(crate) fn program(
        &self,
        label: &MemberName,
        machine: &MemberName,
        is_connected: impl Fn(&NodeId) -> bool,
    ) -> Option<&Admission> {
        let is_meant = |one: &&Admission| one.label() == Some(label) && one.grant().name == *machine;
        let meant = self.admitted.values().filter(is_meant);
        meant.max_by_key(|one| (is_connected(one.holder()), program_serial(one)))
    }

    /// Returns the known member that a look-up is about, by the newest certificate.
    pub(crate) fn holder_of(&self, question: &Question) -> Option<&Admission> {
        let is_meant = |one: &&Admission| !one.is_process() && question.is_about(one.grant());
        self.all().filter(is_meant).max_by_key(|one| serial(one))
    }

    /// Forgets the issuers of former network keys, and what those keys have said about the time.
    fn forget_former_keys(&mut self, now: UnixTime) {
        let before = self.issuers.len();
        let mut issuers = std::mem::take(&mut self.issuers);
        issuers.retain(|_, issuer| self.check_key(issuer.signer.as_ref(), now).is_ok());
        self.issuers = issuers;
        if self.issuers.len() < before {
            let serials = self.issuers.values().map(|issuer| issuer.delegation.serial().time());
            self.delegated = serials.max().unwrap_or_default();
            self.choose_offset();
        }
    }

    pub(crate) fn set_key(&mut self, key: NetworkKey) {
        self.keys = Some(NetworkKeys::new(key));
    }

    /// Checks that an answer comes from an issuer whose delegation counts at the time of the answer, and that
    /// a certificate in it counts then. `own` is this node.
    pub(crate) fn hear(
        &mut self,
        node: &NodeId,
        own: &NodeId,
        answer: &Answer,
        unix_time: Duration,
    ) -> Result<(), Refusal> {
        // A controller that says an earlier time than others have signed gains nothing by that.
        let at = answer.time().map_or_else(|| self.time(unix_time), |time| time.max(self.signed_time()));
        if let Answer::Certified { credentials, .. } = answer {
            let admission = self.authenticate(credentials, own)?;
            admission.check(at, &self.revoked)?;
            self.check_key(Some(admission.signer()), at)?;
            self.learn(credentials.delegation(), Some(*admission.signer()), UnixTime::default(), None);
        }
        if self.speaks_for(node, answer) {
            return Ok(());
        }
        let issuer = self.issuers.get(node).ok_or(Refusal::Issuer)?;
        if issuer.delegation.rights().renews_only && !self.repeats(answer) {
            return Err(Refusal::Issuer);
        }
        match (issuer.delegation.rights().issues, at < issuer.delegation.end()) {
            (false, _) => Err(Refusal::Issuer),
            (_, false) => Err(Refusal::IssuerExpired),
            _ => self.check_key(issuer.signer.as_ref(), at),
        }
    }

    /// Returns true if an answer gives this node what its certificate says already.
    fn repeats(&self, answer: &Answer) -> bool {
        let Answer::Certified { credentials, spare: None, .. } = answer else { return false };
        let own = self.own.as_ref().map(|own| own.admission.grant());
        own == Some(credentials.certificate().grant())
    }

    /// Returns true if a node answers about a program beside it, which its own signature shows.
    fn speaks_for(&self, node: &NodeId, answer: &Answer) -> bool {
        // That a program is not there only a controller says, which hears of programs that have left.
        let Answer::Found { credentials, .. } = answer else { return false };
        self.admitted.contains_key(node)
            && credentials.process().is_some_and(|process| process.machine().node_id() == *node)
    }

    /// Learns an issuer, and the time of what it has signed, from a statement whose signatures are right.
    fn learn(
        &mut self,
        delegation: &Delegation,
        signer: Option<NetworkKey>,
        signed: UnixTime,
        unix_time: Option<Duration>,
    ) {
        let node = delegation.issuer().node_id();
        self.delegated = self.delegated.max(delegation.serial().time());
        if self.revoked.covers(&node, delegation.serial()) {
            self.revoked.keep(&node, &[(delegation.serial(), delegation.end())]);
            return;
        }
        let keys = self.keys.clone();
        // What a later key says goes before whatever a former one, which may be stolen, has signed for later.
        let age = |signer: Option<NetworkKey>, delegation: &Delegation| {
            let rank = keys.as_ref().zip(signer).and_then(|(keys, signer)| keys.rank(&signer));
            (rank, delegation.serial())
        };
        // Only the network key makes issuers, so a thief of an issuer's key cannot push the others out at
        // will.
        if !self.issuers.contains_key(&node) && self.issuers.len() >= MAX_CONTROLLERS {
            let oldest = self.issuers.iter().min_by_key(|(_, one)| age(one.signer, &one.delegation));
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.issuers.remove(&oldest);
            }
        }
        let issuer = self.issuers.entry(node).or_insert_with(|| Issuer {
            delegation: delegation.clone(),
            signer,
            claimed: UnixTime::default(),
            confirmed: UnixTime::default(),
            offset: None,
        });
        if age(issuer.signer, &issuer.delegation) < age(signer, delegation) {
            (issuer.delegation, issuer.signer) = (delegation.clone(), signer);
        }
        issuer.claimed = issuer.claimed.max(signed);
        let confirmed = unix_time.map_or(UnixTime::default(), |own| signed.min(UnixTime::from(own)));
        issuer.confirmed = issuer.confirmed.max(confirmed);
    }

    /// Forgets what revoked issuers have said about the time.
    fn forget_issuers(&mut self) {
        let before = self.issuers.len();
        let revoked = &self.revoked;
        self.issuers.retain(|node, issuer| !revoked.covers(node, issuer.delegation.serial()));
        if self.issuers.len() < before {
            // This node's clock may have been wrong, too, when an earlier run has learned it.
            self.kept = UnixTime::default();
            self.choose_offset();
        }
    }

    /// Replaces this node's credentials. They have to be this node's; their time is not checked, because a
    /// controller renews also those that have ended. `unix_time` is the system's clock, if they are new.
    pub(crate) fn set_own(
        &mut self,
        credentials: &Credentials,
        node: &NodeId,
        unix_time: Option<Duration>,
    ) -> Result<(), Refusal> {
        let is_known = self.keys.is_some();
        self.keys.get_or_insert_with(|| NetworkKeys::new(*credentials.key()));
        let admission = self.authenticate(credentials, node).inspect_err(|_| {
            if !is_known {
                self.keys = None;
            }
        })?;
        self.note(&admission, unix_time);
        let bytes: Arc<[u8]> = credentials.to_bytes().into();
        self.own = Some(OwnCredentials { digest: digest(&bytes), bytes, admission });
        // It is of no use any more, and a secret.
        self.forget_token();
        Ok(())
    }

    /// Takes over the credentials of the network's description, for the node that joins.
    pub(crate) fn begin(&mut self, node: &NodeId) -> Result<(), Refusal> {
        self.own = None;
        // What a machine has kept may be of an earlier key, and a program's description is its machine's.
        self.spare = self.spare.take().filter(|spare| spare.delegation().issuer().node_id() == *node);
        match self.given.take() {
            Some(credentials) => self.set_own(&credentials, node, None),
            None => Ok(()),
        }
    }

    /// Judges the credentials that a node has shown, and remembers its admission.
    pub(crate) fn judge(
        &mut self,
        holder: &NodeId,
        bytes: &[u8],
        unix_time: Duration,
    ) -> Result<(), Refusal> {
        let credentials = Credentials::parse(bytes).map_err(|_| Refusal::Malformed)?;
        let admission = self.check(&credentials, holder, unix_time)?;
        // Of two certificates of one node, the later one says what is true now.
        let is_older = |known: &Admission| program_serial(known) > program_serial(&admission);
        if !self.admitted.get(holder).is_some_and(is_older) {
            self.has_used_changed |= self.used.renew(admission.grant(), serial(&admission));
            self.admitted.insert(*holder, admission);
        }
        self.forget_found(holder);
        Ok(())
    }

    /// Remembers a member that a controller has named.
    pub(crate) fn note_found(
        &mut self,
        holder: &NodeId,
        credentials: &Credentials,
        unix_time: Duration,
    ) -> Result<(), Refusal> {
        let admission = self.check(credentials, holder, unix_time)?;
        let time = self.time(unix_time);
        // Bounded, because a program can ask for any number of names.
        self.found.retain(|_, known| time < known.end());
        if self.found.len() >= MAX_FOUND {
            self.found.pop_first();
        }
        self.has_used_changed |= self.used.renew(admission.grant(), serial(&admission));
        if !self.admitted.contains_key(holder) {
            self.found.insert((*holder, admission.grant().node), Box::new(admission));
        }
        Ok(())
    }

    fn forget_found(&mut self, holder: &NodeId) {
        self.found.retain(|(node, _), _| node != holder);
    }

    fn check(
        &mut self,
        credentials: &Credentials,
        holder: &NodeId,
        unix_time: Duration,
    ) -> Result<Admission, Refusal> {
        let mut admission = self.authenticate(credentials, holder)?;
        // Thousands can have one.
        let known = self.own.as_ref().map(|own| &own.admission).or_else(|| self.admitted.values().next());
        known.into_iter().for_each(|known| admission.share_with(known));
        let time = self.time_for(admission.signed_time(), unix_time);
        // First, because a former key says nothing about the time any more.
        self.check_key(Some(admission.signer()), time)?;
        let signer = Some(*admission.signer());
        // The network key's word about the time counts whatever the issuer has made of it.
        self.learn(admission.credentials().delegation(), signer, UnixTime::default(), None);
        match self.verdict(&admission, unix_time) {
            Ok(()) => self.note(&admission, Some(unix_time)),
            Err(Refusal::Revoked) => {
                self.revoked.keep(&admission.grant().node, &admission.statements());
                return Err(Refusal::Revoked);
            }
            // The clock may be wrong, which a controller can tell.
            Err(refusal) => {
                self.note_issuer(&admission);
                return Err(refusal);
            }
        }
        Ok(admission)
    }

    /// Learns the time and the issuer from credentials that count.
    fn note(&mut self, admission: &Admission, unix_time: Option<Duration>) {
        let signer = Some(*admission.signer());
        self.learn(admission.credentials().delegation(), signer, admission.signed_time(), unix_time);
        self.note_issuer(admission);
    }

    fn note_issuer(&mut self, admission: &Admission) {
        self.note_controller(admission.credentials().delegation());
    }

    /// Remembers the issuer of a delegation that was checked, unless it is revoked or issues no certificates.
    fn note_controller(&mut self, delegation: &Delegation) {
        let issuer = *delegation.issuer();
        let is_revoked = self.revoked.covers(&issuer.node_id(), delegation.serial());
        if !is_revoked && delegation.rights().issues && !self.controllers.contains(&issuer) {
            self.controllers.truncate(MAX_CONTROLLERS - 1);
            self.controllers.push(issuer);
        }
    }

    /// Forgets the admission of a node.
    pub(crate) fn expel(&mut self, node: &NodeId) {
        self.admitted.remove(node);
        self.forget_found(node);
    }

    /// Returns why an admitted node is admitted no longer, if so.
    pub(crate) fn refusal_of(&self, node: &NodeId, unix_time: Duration) -> Option<Refusal> {
        let admission = self.admitted.get(node)?;
        self.verdict(admission, unix_time).err()
    }

    /// Returns the serial of a member's certificate that this node knows.
    pub(crate) fn serial_of(&self, node: &NodeId) -> Option<Serial> {
        self.known(node).map(serial)
    }

    fn known(&self, node: &NodeId) -> Option<&Admission> {
        let own = self.own.as_ref().map(|own| &own.admission).filter(|own| own.holder() == node);
        let found = || {
            let claims = self.found.values().map(|one| &**one).filter(|one| one.holder() == node);
            // What a controller says goes before what a member says about a program.
            claims.min_by_key(|one| one.is_process())
        };
        own.or_else(|| self.admitted.get(node)).or_else(found)
    }

    /// Returns all known members, this node included.
    fn all(&self) -> impl Iterator<Item = &Admission> {
        let own = self.own.as_ref().map(|own| &own.admission);
        own.into_iter().chain(self.admitted.values()).chain(self.found.values().map(|one| &**one))
    }
}

/// Returns the key that has signed a delegation whose signature was checked before.
fn signer_of(keys: &NetworkKeys, delegation: &Delegation, network: NetworkId) -> Option<NetworkKey> {
    // Without a check, because there is no other key.
    let is_only = keys.successions().is_empty();
    if is_only { Some(*keys.first()) } else { keys.signer_of(delegation, network).ok() }
}

fn serial(admission: &Admission) -> Serial {
    admission.credentials().certificate().serial()
}

/// Returns the serials of a program's certificate and of its machine's, by which the newest program is known.
fn program_serial(admission: &Admission) -> (Serial, Option<Serial>) {
    (serial(admission), admission.credentials().process().map(ProcessCertificate::serial))
}

/// Returns the short name of credentials by which their receiver acknowledges them.
pub(crate) fn digest(credentials: &[u8]) -> [u8; 8] {
    *hash::hash(&[DIGEST_LABEL, credentials]).first_chunk().expect("a hash has 32 bytes")
}
