//! `peersock network backup`, `restore` and `renew`: copies of a controller's store, and its recovery words.

use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use peersock::network_id;
use peersock::state::read_identity_file;
use peersock_controller::{Controller, RecoverError, RecoveryWords};
use zeroize::Zeroizing;

use super::admin::OfNetwork;
use super::create::{Draft, NewArgs, grouped, keep_own, local_name, not_created};
use super::{DirectoryArgs, duration, now, stores, who};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::{in_use, stdio};

/// Number of recovery words.
const WORDS: usize = 12;

/// Longest input in which recovery words are looked for, bytes.
const MAX_INPUT: u64 = 4096;

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

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn backup(args: &BackupArgs) -> Outcome {
    let controller = args.of.open()?;
    if args.file.exists() {
        return Err(Failure::new(
            format_args!("{} exists already", args.file.display()),
            "give another name: a backup replaces no file",
        ));
    }
    controller.backup(&args.file).map_err(|error| stores::store_failure(&args.file, &error))?;
    print(format_args!("{} is saved in {}", controller.name(), args.file.display()))
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
    let local = local_name(&path, &args.name)?;
    let state = in_use::open(&path)?;
    let words = read_words()?;
    let id_of = |key: &_| network_id(key).ok().flatten();
    let id = id_of(&words.secret().public()).ok_or_else(|| {
        Failure::new("these words belong to no network", "check each word, and their order")
    })?;
    if stores::is_controller_of(&path, id) {
        return Err(Failure::usage(
            format_args!("the controller of network {id} is here already"),
            "run `peersock controller` to serve it, or `peersock network renew` to renew its right",
        ));
    }
    let identity = state.identity()?;
    let seed = read_identity_file(&path.join("identity.key"))?;
    let mut rng = rand::rng();
    let draft = Draft::new(&path)?;
    let new = args.new.properties(&local);
    let mut controller = match &args.backup {
        None => Controller::create_again(draft.open()?, &seed.0, &new, now(), &mut rng, &words, id_of)
            .map_err(not_created)?,
        Some(file) => {
            fs::copy(file, draft.path()).map_err(|error| {
                Failure::new(
                    format_args!("{}: {error}", file.display()),
                    "give the file that `peersock network backup` has made",
                )
            })?;
            fs::set_permissions(draft.path(), Permissions::from_mode(0o600))?;
            let mut controller = Controller::open(draft.open()?, &seed.0)
                .map_err(|error| stores::store_failure(file, &error))?;
            let is_offline = new.is_offline || !renews(&mut controller)?;
            let wish = Some(new.own_name.clone());
            controller.recover(now(), &mut rng, &who(), &words, wish, is_offline).map_err(not_renewed)?;
            controller
        }
    };
    draft.keep(&path, &controller)?;
    keep_own(&state, &identity, &local, &mut controller)?;
    print(format_args!("network {local}   {}", grouped(id)))?;
    stdio::note(format_args!("key {}", super::comparable(&controller.key())));
    stdio::note(format_args!("serve it with `peersock controller -n {local}`"));
    stdio::note(match args.backup {
        Some(_) => "stop the earlier controller for good: two of them do not know of each other's members",
        None => "then make an invite for each machine, which joins by it again: `peersock network invite`",
    });
    Ok(())
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
    let mut controller = args.of.open()?;
    let words = read_words()?;
    let is_offline = args.offline || !renews(&mut controller)?;
    controller.recover(now(), &mut rand::rng(), &who(), &words, None, is_offline).map_err(not_renewed)?;
    let status = controller.status(now()).map_err(|error| not_renewed(error.into()))?;
    print(format_args!(
        "{} issues certificates for another {}",
        controller.name(),
        duration::shown(status.delegation_end.since(now()))
    ))
}

/// Returns true if the store holds the network's key.
fn renews(controller: &mut Controller) -> Outcome<bool> {
    Ok(controller.status(now()).map_err(|error| not_renewed(error.into()))?.renews_delegation)
}

/// Reads recovery words, which may be on several lines, up to the last one.
fn read_words() -> Outcome<RecoveryWords> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        stdio::note(format_args!("type the {WORDS} recovery words:"));
    }
    let mut input = stdin.lock().take(MAX_INPUT);
    let mut text = Zeroizing::new(String::new());
    while text.split_whitespace().count() < WORDS && input.read_line(&mut text)? > 0 {}
    text.parse().map_err(|error| {
        Failure::usage(
            format_args!("these are no recovery words: {error}"),
            "give the words that `peersock network create` has shown, on stdin",
        )
    })
}

fn not_renewed(error: RecoverError) -> Failure {
    let hint = match &error {
        RecoverError::OtherNetwork => "give the words of this network, or name another one with -n",
        _ => "check the disk and the store's owner, and try again",
    };
    Failure::new(format_args!("the right to issue certificates is not renewed: {error}"), hint)
}
