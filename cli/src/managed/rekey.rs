//! `peersock id --rekey`: another identity for a machine that is a member of managed networks.

use std::path::Path;

use peersock::PublicIdentity;
use peersock::state::{MembershipRecord, StateDir};

use super::stores;
use crate::failure::{Failure, Outcome};
use crate::{in_use, stdio};

/// Makes another identity in a state directory, and says how its networks accept it.
pub(crate) fn rekey(path: &Path) -> Outcome<PublicIdentity> {
    if StateDir::peek_identity(path)?.is_none() {
        return Err(Failure::new(
            format_args!("{} has no identity yet", path.display()),
            "run `peersock id`, which makes one",
        ));
    }
    let state = in_use::open(path)?;
    // A network that is made now would be sealed with the earlier identity.
    let _turn = stores::turn(path)?;
    let records = StateDir::memberships(path)?;
    if let Some(id) = stores::all(path)?.first() {
        let record = records.iter().find(|record| record.id == *id);
        return Err(Failure::new(
            format_args!(
                "this machine has the controller of {}, whose right is for the key here",
                record.map_or_else(|| id.to_string(), name)
            ),
            format_args!(
                "end the controller here, restore the network on another machine with `peersock network restore`, \
                 revoke this one there, and remove {}; then run `peersock id --rekey` again",
                stores::path_of(path, *id).display()
            ),
        ));
    }
    let identity = *state.rekey()?.public();
    for record in &records {
        tell(record);
    }
    Ok(identity)
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
