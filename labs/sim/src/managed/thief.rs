//! A stolen issuer's key: what its thief does with it, and with two accomplices that it admits.

use std::time::Duration;

use peersock_overlay::membership::{
    Answer, Certificate, Credentials, Delegation, Denial, Grant, Head, NetworkKey, Question, Revocation,
    Revocations, Serial, UnixTime,
};
use peersock_overlay::wire::MembershipMessage;
use peersock_overlay::{Identity, ManagedNetwork, NetworkId, NodeId};
use peersock_testnet::Random;

use super::field::{Asked, Field};
use super::oracle::Oracle;

/// Lifetime of what the thief signs.
const LIFETIME: Duration = Duration::from_secs(30 * 86_400);

pub(super) struct Thief {
    pub(super) machine: usize,
    pub(super) accomplices: Vec<usize>,
    /// Members that it removes.
    pub(super) victims: Vec<NodeId>,
    identity: Identity,
    delegation: Delegation,
    key: NetworkKey,
    network: NetworkId,
    random: Random,
    /// Grants of members, whose names and addresses it gives to others.
    grants: Vec<Grant>,
}

impl Thief {
    /// Takes over the key of an issuer whose machine is off. `grants` are those of members.
    pub(super) fn begin(
        field: &mut Field,
        oracle: &mut Oracle,
        seed: [u8; 32],
        disk: ManagedNetwork,
        (victims, grants): (Vec<NodeId>, Vec<Grant>),
        random: Random,
    ) -> Self {
        let credentials = disk.credentials.clone().expect("a controller has credentials");
        let (network, key) = (disk.id, *credentials.key());
        let machine = field.add(seed, disk);
        field.machines[machine].is_hostile = true;
        let mut thief = Self {
            machine,
            accomplices: Vec::new(),
            victims,
            identity: Identity::from_seed(&seed),
            delegation: credentials.delegation().clone(),
            key,
            network,
            random,
            grants,
        };
        for number in 0..2_u8 {
            let seed = [240 + number; 32];
            let node = Identity::from_seed(&seed).node_id();
            let credentials = thief.certify(field, node, number.into());
            oracle.forge(thief.identity.node_id(), &node, &credentials);
            let mut disk = ManagedNetwork::new(network);
            (disk.key, disk.credentials) = (Some(key), Some(credentials));
            let accomplice = field.add(seed, disk);
            field.machines[accomplice].is_hostile = true;
            thief.accomplices.push(accomplice);
        }
        for one in thief.all() {
            field.start(one);
        }
        thief.contradict(field);
        thief
    }

    /// Returns the machines of the thief.
    pub(super) fn all(&self) -> Vec<usize> {
        [self.machine].into_iter().chain(self.accomplices.iter().copied()).collect()
    }

    /// Signs a certificate with the name and the addresses of another member.
    fn certify(&mut self, field: &Field, node: NodeId, turn: usize) -> Credentials {
        let grant = Grant { node, ..self.grants[turn % self.grants.len()].clone() };
        // Later than all that others have signed, so that members prefer it.
        let serial = Serial::next(UnixTime::from(field.unix_time(500_000)), None);
        let certificate = Certificate::sign(&self.identity, self.network, grant, serial, LIFETIME);
        Credentials::new(self.key, self.delegation.clone(), certificate.expect("a good grant"))
    }

    /// Signs two heads of one epoch with different sets, and shows them at two places.
    fn contradict(&mut self, field: &mut Field) {
        let now = UnixTime::from(field.unix_time(0));
        let epoch = now.as_millis() - 1;
        for (number, victim) in self.victims.clone().into_iter().enumerate().take(2) {
            let mut set = Revocations::default();
            let min_serial = Serial::from_u64(now.as_millis());
            set.add(victim, Revocation { min_serial, until: now.plus(LIFETIME) });
            let head = Head::sign(&self.identity, self.delegation.clone(), self.network, epoch, now, &set);
            let machine = self.all()[number];
            let index = field.machines[machine].index();
            // Its own endpoint may prefer the other one.
            let _ = field.with(machine, |endpoint, at| endpoint.set_revocations(at, index, &head, &set));
        }
    }

    /// Answers a question wrongly, or not at all.
    pub(super) fn answer(&mut self, field: &mut Field, oracle: &mut Oracle, asked: &Asked, asker: usize) {
        let Question::Certify(_) = asked.question else { return };
        let lie = [0, -3_600_000, 3_600_000, -630_720_000_000, 630_720_000_000];
        let time = UnixTime::from(field.unix_time(*self.random.pick(&lie)));
        oracle.misled.insert(asker, field.machines[asker].starts);
        let turn = self.random.below(self.grants.len());
        let answer = match self.random.below(4) {
            0 => return,
            1 => Answer::Denied { time, reason: Denial::Removed },
            2 => Answer::Denied { time, reason: Denial::Unavailable },
            _ => {
                let node = *asked.peer.id();
                let credentials = self.certify(field, node, turn);
                oracle.forge(self.identity.node_id(), &node, &credentials);
                Answer::Certified { time, renew_after: 3600, credentials: Box::new(credentials), spare: None }
            }
        };
        field.answer(asked, &answer);
    }

    /// Sends packets, and heads of earlier times.
    pub(super) fn act(&mut self, field: &mut Field, old_heads: &[Head]) {
        for machine in self.all() {
            field.intrude(machine);
            replay(field, machine, old_heads, &mut self.random);
        }
    }
}

/// Shows old heads to some peers with a session, in any order.
pub(super) fn replay(field: &mut Field, machine: usize, old_heads: &[Head], random: &mut Random) {
    for node in field.some_peers(machine) {
        if old_heads.is_empty() {
            return;
        }
        let head = random.pick(old_heads).to_bytes();
        field.say(machine, &node, &MembershipMessage::Head(&head).to_bytes());
    }
}
