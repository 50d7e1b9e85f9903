//! `peersock id --rekey`: another identity for a machine that is a member or the controller of managed
//! networks.

use std::fs::File;
use std::path::Path;

use peersock::overlay::membership::UnixTime;
use peersock::state::{MembershipRecord, StateDir};
use peersock::{NetworkId, PublicIdentity, Seed};
use peersock_controller::{Controller, RecoverError, RecoveryWords};

use super::restore::hint;
use super::{clock, duration, now, stores, who, words};
use crate::failure::{Failure, Outcome};
use crate::{in_use, stdio};

/// Makes another identity in a state directory, and says how its networks accept it. The networks whose
/// controller is here follow it. With `is_now`, they revoke the former key at once.
pub(crate) fn rekey(path: &Path, is_now: bool) -> Outcome<PublicIdentity> {
    let former = StateDir::peek_identity(path)?.ok_or_else(|| {
        Failure::new(
            format_args!("{} has no identity yet", path.display()),
            "run `peersock id`, which makes one",
        )
    })?;
    let state = in_use::open(path)?;
    // A network that is made now would be sealed with the earlier identity.
    let _turn = stores::turn(path)?;
    let records = StateDir::memberships(path)?;
    let mut own =
        stores::all(path)?.into_iter().map(|id| Own::open(path, id)).collect::<Outcome<Vec<_>>>()?;
    if is_now && own.is_empty() {
        return Err(Failure::usage(
            "no network has its controller here, so --now revokes nothing",
            "leave --now out: `peersock network invite --replace` removes the former key at once",
        ));
    }
    for network in &mut own {
        network.read_words()?;
    }
    let seed = Seed::generate()?;
    for at in 0..own.len() {
        if let Err(failure) = own[at].prepare(&seed, is_now) {
            own.iter_mut().for_each(Own::drop_prepared);
            return Err(failure);
        }
    }
    // Decides for all networks at once. After an error it may have happened, so nothing is dropped.
    let identity = *state.rekey_to(&seed)?.public();
    for mut network in own {
        // Its locks last until the network has followed.
        let followed = network.follow(path, &state, &[former, identity]);
        network.tell(is_now, followed);
    }
    for record in &records {
        if !stores::is_controller_of(path, record.id) {
            tell(record);
        }
    }
    Ok(identity)
}

/// Network whose controller is here and does not run.
struct Own {
    controller: Controller,
    /// Recovery words of a network whose key is on paper.
    words: Option<RecoveryWords>,
    /// Time until which the former key counts.
    ends: UnixTime,
    _lock: File,
}

impl Own {
    fn open(path: &Path, id: NetworkId) -> Outcome<Own> {
        let name = stores::open_one(path, id)?.name();
        let lock = stores::lock(path, id, &name)?;
        // Behind the lock, because the controller may have changed the store until it ended.
        let mut controller = stores::open_one(path, id)?;
        clock::check(&mut controller)?;
        stores::learn_keys(path, &mut controller)?;
        Ok(Own { controller, words: None, ends: UnixTime::default(), _lock: lock })
    }

    /// Reads the recovery words of a network whose key is not here.
    fn read_words(&mut self) -> Outcome {
        if self.controller.has_key() {
            return Ok(());
        }
        let name = self.controller.name();
        stdio::note(format_args!("the key of {name} is on paper: the right of the new key takes its words"));
        let read = words::read().map_err(|failure| {
            Failure::usage(
                format_args!(
                    "nothing is changed, because the key of {name} is on paper: {}",
                    failure.message()
                ),
                format_args!("give the 12 recovery words of {name} on stdin, alone on one line"),
            )
        });
        self.words = Some(read?);
        Ok(())
    }

    fn prepare(&mut self, seed: &Seed, is_now: bool) -> Outcome {
        let (mut rng, words) = (rand::rng(), self.words.as_ref());
        let prepared = self.controller.prepare_node_key(now(), &mut rng, &who(), &seed.0, words, is_now);
        self.ends = prepared.map_err(|error| not_prepared(&self.controller.name(), &error))?;
        Ok(())
    }

    /// Drops what is prepared. If that fails, the controller does so at its next start.
    fn drop_prepared(&mut self) {
        if let Err(error) = self.controller.drop_prepared_key() {
            tracing::debug!(%error, "a prepared key stays in the store for now");
        }
    }

    /// Lets the network follow the new identity, and keeps its credentials for the machine's node.
    fn follow(&mut self, path: &Path, state: &StateDir, [former, own]: &[PublicIdentity; 2]) -> Outcome {
        self.controller = stores::open_one(path, self.controller.network())?;
        let Some(mut record) = StateDir::membership(path, self.controller.network())? else { return Ok(()) };
        record.credentials = self.controller.credentials(now());
        record.controllers.retain(|known| known != own && known != former);
        record.controllers.insert(0, *own);
        Ok(state.keep_membership(&record)?)
    }

    /// Says what has become of the network.
    fn tell(&self, is_now: bool, followed: Outcome) {
        let name = self.controller.name();
        if let Err(failure) = followed {
            return stdio::note(format_args!(
                "{name} follows when `peersock controller -n {name}` starts, because now it cannot: {}",
                failure.message()
            ));
        }
        stdio::note(match is_now {
            true => format!(
                "{name} has revoked the former key: members are back soon after `peersock controller -n {name}` \
                 has started"
            ),
            false => format!(
                "{name} goes on with the new key: start `peersock controller -n {name}` again; what the former \
                 one has signed counts for another {} at most",
                duration::shown(self.ends.since(now()))
            ),
        });
        if is_now && self.controller.has_key() {
            stdio::note(format_args!(
                "if somebody may also have the store of {name}, replace the network's key: `peersock network rekey \
                 --now -n {name}`"
            ));
        }
        if self.has_invites() {
            stdio::note(format_args!(
                "invites of {name} from before lead here on the local network and by the DHT alone: make new ones \
                 for other places"
            ));
        }
        stdio::note(format_args!("make a backup of {name}: earlier ones are for the former key"));
    }

    /// Returns true if an invite can still be used.
    fn has_invites(&self) -> bool {
        let invites = self.controller.invites().unwrap_or_default();
        invites.iter().any(|invite| invite.left() > 0 && now() < invite.ends)
    }
}

fn not_prepared(name: &str, error: &RecoverError) -> Failure {
    let hint = match error {
        RecoverError::OtherIdentity => {
            format!("run `peersock network renew -n {name}` first, and give the recovery words")
        }
        RecoverError::Followed => {
            format!(
                "run `peersock network renew -n {name}` first, and give the words of the network's last key"
            )
        }
        error => hint(error).to_owned(),
    };
    Failure::new(format_args!("nothing is changed, because {name} cannot follow: {error}"), hint)
}

/// Returns the name of a network on this machine.
fn name(record: &MembershipRecord) -> String {
    record.name.clone().unwrap_or_else(|| record.id.to_string())
}

/// Says how a network accepts the new key.
fn tell(record: &MembershipRecord) {
    let network = name(record);
    let Some(credentials) = &record.credentials else {
        return stdio::note(format_args!(
            "{network} has not admitted the key before this one: an invite with --replace that was made for that \
             key is for this one, too"
        ));
    };
    let member = &credentials.certificate().grant().name;
    stdio::note(format_args!(
        "{network} knows the earlier key as {member}: run `peersock network invite --replace {member}` at its \
         controller, and `peersock join` with that invite here"
    ));
}
