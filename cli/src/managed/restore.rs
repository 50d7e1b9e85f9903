//! `peersock network backup`, `restore` and `renew`: copies of a controller's store, and its recovery words.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use peersock::overlay::membership::{MemberName, NetworkKeys};
use peersock::state::{StateDir, read_identity_file};
use peersock::{NetworkId, PublicIdentity, network_id};
use peersock_controller::{Controller, RecoverError, RecoveryWords};

use super::admin::OfNetwork;
use super::create::{
    Draft, NewArgs, directory, grouped, keep_own_record, local_name, not_created, note_next, own_record,
    tell_removals, warn_of_clashes,
};
use super::{DirectoryArgs, duration, now, stores, who, words};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::stdio;

/// Copy the store of a controller into a file, also while it runs
///
/// The copy holds the members, invites and removals of the network. The network's key in it is sealed with
/// the identity of this machine, so on another one `restore` also takes the recovery words.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network backup team-monday.db
  peersock network backup /media/stick/team.db -n team")]
pub(crate) struct BackupArgs {
    /// File to create
    file: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn backup(args: &BackupArgs) -> Outcome {
    let controller = args.of.open()?;
    // A backup that fails for another reason leaves no file.
    controller.backup(&args.file).map_err(|error| match args.file.exists() {
        true => Failure::new(
            format_args!("{} exists already", args.file.display()),
            "give another name: a backup replaces no file",
        ),
        false => stores::store_failure(&args.file, &error),
    })?;
    match args.json {
        true => print(serde_json::json!({
            "network": controller.network().to_string(),
            "name": controller.name(),
            "file": args.file.to_string_lossy(),
        })),
        false => print(format_args!("{} is saved in {}", controller.name(), args.file.display())),
    }
}

/// Serve a network from this machine, after its controller's machine is lost
///
/// Reads the 12 recovery words from stdin. With a backup, its members stay members. Without one, each machine
/// joins again by an invite from here; members talk to each other meanwhile, as long as their certificates
/// last, and addresses of the pool are given out once these have ended.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network restore team --backup team-monday.db
  peersock network restore team --pool 10.77.0.0/24
  peersock network restore team --backup team-monday.db < words.txt
  peersock controller -n team                         # then serve it")]
pub(crate) struct RestoreArgs {
    /// Name of the network on this machine: letters, digits, hyphens
    name: String,

    /// File that `peersock network backup` has made; it is not changed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pool", "outlive"])]
    backup: Option<PathBuf>,

    #[command(flatten)]
    new: NewArgs,

    #[command(flatten)]
    state: DirectoryArgs,
}

pub(crate) fn restore(args: &RestoreArgs) -> Outcome {
    let path = args.state.path()?;
    let local = local_name(&args.name)?;
    let (state, own) = directory(&path)?;
    let words = words::read()?;
    let _turn = stores::turn(&path)?;
    let draft = Draft::new(&path, args.backup.as_deref().unwrap_or(&path))?;
    let copy = args.backup.as_deref().map(|file| opened_copy(file, &path, &draft)).transpose()?;
    let (id, keys) = meant(&path, copy.as_ref(), &words)?;
    let is_unknown = StateDir::membership(&path, id)?.is_none();
    // The name may be the network's ID, or its name as a member here knows it.
    let named = local.as_str().parse().ok().or(super::named(&path, local.as_str())?);
    if let Some(named) = named.filter(|named| *named != id) {
        let of = if copy.is_some() { "backup is of" } else { "recovery words belong to" };
        return Err(Failure::new(
            format_args!("the {of} another network than `{local}`, which is {named}"),
            "give the words of that network, or choose another name; if its key was changed, give a backup made \
             after that, or restore it on a member",
        ));
    }
    let _name = super::kept::claim_name(&path, &local, Some(id))?;
    let mut controller = match stores::is_controller_of(&path, id) {
        true => begun(&path, id, &own)?,
        false => {
            let mut controller = match copy {
                Some(copy) => recovered(args, &path, copy, &words, &local)?,
                None => made(args, &path, &draft, &words, &local, (id, &keys))?,
            };
            tell_removals(&path, &mut controller)?;
            draft.keep(&path, &controller)?;
            controller
        }
    };
    let record = own_record(&path, &own, &local, &mut controller)?;
    keep_own_record(state, &path, &record)?;
    print(format_args!("network {local}   {}", grouped(id)))?;
    super::domains::warn(local.as_str());
    warn_of_clashes(&controller);
    stdio::note(format_args!("key {}", super::comparable(&controller.key())));
    note_next(&local, &record);
    if let Some(words) = addresses_rest(&mut controller)? {
        stdio::note(words);
    }
    stdio::note("stop the earlier controller for good: two of them do not know of each other's members");
    if args.backup.is_none() {
        stdio::note(format_args!(
            "then make an invite for each machine, which joins by it again: `peersock network invite -n {local}`"
        ));
    }
    stdio::note(
        "a machine that joins again gets the name of its invite, or its host name: give `--name` for the one that it \
         had",
    );
    if args.backup.is_none() && is_unknown {
        stdio::note(format_args!(
            "if the network has another ID, its key was changed since: leave this one with `peersock leave {local} \
             --force`, and restore it by a backup made after that, or on a member",
        ));
    }
    Ok(())
}

/// Says that addresses of the pool are not given out yet after a restore, until when, and why.
pub(super) fn addresses_rest(controller: &mut Controller) -> Outcome<Option<String>> {
    let now = now();
    let status = controller.status(now).map_err(super::admin::refused)?;
    Ok(status.addresses_rest_until.map(|until| {
        format!(
            "no member gets another address of the pool {}, because a machine may have it by a certificate from before \
             the restore; all have their IPv6 address",
            super::admin::until(until, now)
        )
    }))
}

/// Opens the store that an earlier command has put in its place, if that was killed before the node knew.
fn begun(path: &Path, id: NetworkId, own: &PublicIdentity) -> Outcome<Controller> {
    let record = StateDir::membership(path, id)?;
    if record.is_some_and(|record| record.controllers.contains(own)) {
        return Err(Failure::usage(
            format_args!("the controller of network {id} is here already"),
            format_args!(
                "run `peersock controller -n {id}` to serve it, or `peersock network renew -n {id}` to renew its right"
            ),
        ));
    }
    stores::open_one(path, id)
}

/// Returns the network that a person means, and its keys: that of a backup, the one that this machine knows
/// by the key of the words, or the one whose first key that is.
fn meant(path: &Path, copy: Option<&Controller>, words: &RecoveryWords) -> Outcome<(NetworkId, NetworkKeys)> {
    if let Some(copy) = copy {
        return Ok((copy.network(), copy.network_keys()));
    }
    let key = words.secret().public();
    for record in StateDir::memberships(path)? {
        let keys = record.keys();
        match keys.contains(&key) {
            true if *keys.last() == key => return Ok((record.id, keys)),
            true => return Err(not_renewed(RecoverError::Followed)),
            false => {}
        }
    }
    // The words of a later key lead to another ID, which belongs to no network.
    let id = network_id(&key).ok().flatten().ok_or_else(|| {
        Failure::new(
            "these words belong to no network that is known here",
            "check each word, and their order; if the network's key was changed, give a backup made after that",
        )
    })?;
    Ok((id, NetworkKeys::new(key)))
}

/// Opens a copy of a backup in a draft.
fn opened_copy(file: &Path, path: &Path, draft: &Draft) -> Outcome<Controller> {
    fs::copy(file, draft.path()).map_err(|error| {
        Failure::new(
            format_args!("{}: {error}", file.display()),
            "give the file that `peersock network backup` has made",
        )
    })?;
    fs::set_permissions(draft.path(), Permissions::from_mode(0o600))?;
    let seed = read_identity_file(&path.join("identity.key"))?;
    let mut controller =
        Controller::open(draft.open()?, &seed.0).map_err(|error| stores::store_failure(file, &error))?;
    // A backup from before a change of the key helps a machine that has learned the new one as a member.
    stores::learn_keys(path, &mut controller)?;
    Ok(controller)
}

/// Makes the copy of a backup the store of this machine's controller.
fn recovered(
    args: &RestoreArgs,
    path: &Path,
    mut copy: Controller,
    words: &RecoveryWords,
    local: &MemberName,
) -> Outcome<Controller> {
    let new = args.new.properties(local);
    let is_offline = new.is_offline || !copy.has_key();
    let wish = Some(new.own_name);
    let file = args.backup.as_deref().unwrap_or(path);
    let recovered = copy.recover(now(), &mut rand::rng(), &who(), words, wish, is_offline);
    recovered.map_err(|error| not_restored(file, &error))?;
    copy.note_restored(now()).map_err(|error| stores::store_failure(file, &error))?;
    Ok(copy)
}

/// Makes the controller's store in a draft.
fn made(
    args: &RestoreArgs,
    path: &Path,
    draft: &Draft,
    words: &RecoveryWords,
    local: &MemberName,
    (id, keys): (NetworkId, &NetworkKeys),
) -> Outcome<Controller> {
    let seed = read_identity_file(&path.join("identity.key"))?;
    let new = args.new.properties(local);
    let store = draft.open()?;
    Controller::create_again(store, &seed.0, &new, now(), &mut rand::rng(), words, id, keys)
        .map_err(not_created)
}

/// Renew a controller's right to issue certificates by the recovery words
///
/// Reads the 12 recovery words from stdin. A network that was created with --offline needs this once a year;
/// others renew the right themselves.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network renew -n team
  peersock network renew -n team --offline < words.txt")]
pub(crate) struct RenewArgs {
    /// Remove the network's key from this machine: later renewals take the words
    #[arg(long)]
    offline: bool,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn renew(args: &RenewArgs) -> Outcome {
    args.of.open_by_clock()?;
    let words = words::read()?;
    let (mut controller, _turn) = args.of.open_in_turn()?;
    args.of.learn_keys(&mut controller)?;
    let is_offline = args.offline || !controller.has_key();
    let recovered = controller.recover(now(), &mut rand::rng(), &who(), &words, None, is_offline);
    if !recovered.map_err(not_renewed)? {
        tell_of_log(&controller);
    }
    let status = controller.status(now()).map_err(|error| not_renewed(error.into()))?;
    print(format_args!(
        "{} issues certificates for another {}",
        controller.name(),
        duration::shown(status.delegation_end.since(now()))
    ))
}

/// Says that a key which was removed from a store may still be in the store's log.
pub(super) fn tell_of_log(controller: &Controller) {
    stdio::note(format_args!(
        "another program uses the store, which may still hold the former key: run `peersock network renew -n {} \
         --offline` later",
        controller.name()
    ));
}

/// Returns true if the store holds the network's key.
pub(super) fn renews(controller: &mut Controller) -> Outcome<bool> {
    Ok(controller.status(now()).map_err(|error| not_renewed(error.into()))?.renews_delegation)
}

fn not_restored(backup: &Path, error: &RecoverError) -> Failure {
    let hint = match error {
        RecoverError::OtherNetwork => {
            "give the backup of the network to which the words belong; one that was made before `peersock network \
             rekey` takes the former words, or a machine that is a member"
        }
        _ => hint(error),
    };
    Failure::new(format_args!("{}: the network is not restored: {error}", backup.display()), hint)
}

fn not_renewed(error: RecoverError) -> Failure {
    Failure::new(format_args!("the right to issue certificates is not renewed: {error}"), hint(&error))
}

/// Returns the advice after words or a key were refused.
pub(super) fn hint(error: &RecoverError) -> &'static str {
    match error {
        RecoverError::OtherNetwork => {
            "give the words of this network, or name another one with -n; if its key was changed elsewhere, run \
             `peersock controller` here until a member has told it, and try again"
        }
        RecoverError::Followed => "give the words that `peersock network rekey` has shown last",
        RecoverError::Changed => "give the words that the other command has shown",
        _ => "check the disk and the store's owner, and try again",
    }
}
