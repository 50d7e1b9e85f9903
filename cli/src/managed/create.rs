//! `peersock network create`: a managed network, with its controller on this machine.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use peersock::management::{self, JoinRequest};
use peersock::overlay::Prefix;
use peersock::overlay::membership::MemberName;
use peersock::state::{MembershipRecord, StateDir, StateError, read_identity_file};
use peersock::{NetworkId, PublicIdentity, network_id};
use peersock_controller::{Controller, CreateError, NewNetwork, OnClone, RecoveryWords, Settings, Store};
use tempfile::TempDir;

use super::admin::on_clone;
use super::{DirectoryArgs, duration, stores, words};
use crate::failure::{Failure, Outcome};
use crate::in_use;
use crate::output::print;
use crate::stdio;

/// Make a managed network, whose members a controller on this machine admits
///
/// The network's key stays on this machine, sealed with the node's identity. The words that this prints
/// restore it; write them down.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network create team
  peersock network create team --pool 10.77.0.0/24 --outlive 3d
  peersock controller -n team                         # then serve it")]
pub(crate) struct CreateArgs {
    /// Name of the network on this machine: letters, digits, hyphens
    name: String,

    #[command(flatten)]
    new: NewArgs,

    #[command(flatten)]
    state: DirectoryArgs,
}

/// Properties of a network that a new store holds.
#[derive(clap::Args)]
pub(super) struct NewArgs {
    /// Name of this machine in the network [default: its host name]
    #[arg(long = "name", value_name = "NAME")]
    own_name: Option<MemberName>,

    /// Block of IPv4 addresses for members, besides the IPv6 address that follows from each key
    #[arg(long, value_name = "IP/BITS", value_parser = block)]
    pool: Option<Prefix>,

    /// Time for which members go on without a controller, from 1h to 30d
    ///
    /// A machine that is revoked, and that no other member tells so, stays a member for as long.
    #[arg(long, value_name = "TIME", default_value = "23h", value_parser = duration::parse)]
    outlive: Duration,

    /// Decision about a member of which two machines run, because its state directory was copied
    #[arg(long, value_name = "keep-older|refuse-both", default_value = "keep-older", value_parser = on_clone)]
    on_clone: OnClone,

    /// Keep the network's key on paper only; its words are needed once a year
    #[arg(long)]
    offline: bool,
}

impl NewArgs {
    pub(super) fn properties(&self, local: &MemberName) -> NewNetwork {
        let own_name = self.own_name.clone().or_else(|| MemberName::cleaned(&host_name()));
        NewNetwork {
            name: local.to_string(),
            own_name: own_name.unwrap_or_else(|| "controller".parse().expect("a name")),
            settings: Settings {
                outlive: self.outlive,
                ipv4: self.pool,
                on_clone: self.on_clone,
                ..Settings::default()
            },
            is_offline: self.offline,
        }
    }
}

pub(crate) fn create(args: &CreateArgs) -> Outcome {
    let path = args.state.path()?;
    let local = local_name(&args.name)?;
    let (state, own) = directory(&path)?;
    let _turn = stores::turn(&path)?;
    check_no_id(&local, None)?;
    let mut name = super::kept::claim_name(&path, &local, None)?;
    let seed = read_identity_file(&path.join("identity.key"))?;
    let new = args.new.properties(&local);
    // The file is named by the ID, so the key comes first.
    let draft = Draft::new(&path, &path)?;
    let (mut controller, words) = match unfinished(&path, &new)? {
        Some(begun) => begun,
        None => {
            let mut rng = rand::rng();
            let id_of = |key: &_| network_id(key).ok().flatten();
            let created = Controller::create(draft.open()?, &seed.0, &new, super::now(), &mut rng, id_of);
            let (controller, words) = created.map_err(not_created)?;
            draft.keep(&path, &controller)?;
            (controller, words)
        }
    };
    name.assign(&local, controller.network())?;
    print(format_args!("network {local}   {}", grouped(controller.network())))?;
    stdio::note(format_args!(
        "key {}: `peersock join` with the ID alone shows the same",
        super::comparable(&controller.key())
    ));
    // Until its own record is kept, the network is unfinished. If this command is killed, the next one shows
    // the same words.
    words::show("write this down, it restores the network", &words).map_err(|reason| {
        // A network is useless if no person has seen its words. It has no member yet.
        if !controller.has_issued() {
            Store::remove(&stores::path_of(&path, controller.network()));
        }
        Failure::new(
            format_args!("network {local} is not made: its recovery words cannot be shown: {reason}"),
            words::GIVE_A_PLACE,
        )
    })?;
    let record = own_record(&path, &own, &local, &mut controller)?;
    keep_own_record(state, &path, &record)?;
    note_next(&local, &record);
    super::domains::warn(local.as_str());
    warn_of_clashes(&controller);
    Ok(())
}

/// Says what a controller's machine is in its network, and how to serve that.
pub(super) fn note_next(local: &MemberName, record: &MembershipRecord) {
    let grant = record.credentials.as_ref().map(|own| own.certificate().grant());
    let is_member = grant.map_or_else(String::new, |grant| {
        let own: Vec<_> = grant.addresses().map(|one| format!(", {one}")).collect();
        format!("this machine is {}{} there; ", grant.name, own.concat())
    });
    stdio::note(format_args!("{is_member}serve it with `peersock controller -n {local}`"));
}

/// Warns of the pools of a new network that overlap with local networks.
pub(super) fn warn_of_clashes(controller: &Controller) {
    let Settings { ipv4, ipv6, .. } = controller.settings();
    let advice = "choose another one with `peersock network settings --pool` before machines join";
    super::clashes::warn(ipv4.into_iter().chain(ipv6), &[], advice);
}

/// Opens the state directory, and creates its identity if there is none yet. A node that runs keeps it.
pub(super) fn directory(path: &Path) -> Outcome<(Option<StateDir>, PublicIdentity)> {
    let state = match StateDir::open(path) {
        Err(StateError::InUse { .. }) if let Some(own) = StateDir::peek_identity(path)? => {
            return Ok((None, own));
        }
        Err(StateError::InUse { .. }) => in_use::open(path)?,
        state => state?,
    };
    let own = *state.identity()?.public();
    Ok((Some(state), own))
}

/// Returns the network that an earlier command with these properties has made, if that was killed before it
/// has shown the words.
fn unfinished(path: &Path, new: &NewNetwork) -> Outcome<Option<(Controller, RecoveryWords)>> {
    for id in stores::all(path)? {
        // A damaged store of another network does not prevent a new one.
        if !matches!(StateDir::membership(path, id), Ok(None)) {
            continue;
        }
        let Ok(controller) = stores::open_one(path, id) else { continue };
        let is_same = controller.name() == new.name && controller.settings() == new.settings;
        if !is_same || controller.has_issued() {
            continue;
        }
        let place = stores::path_of(path, id);
        let words = controller.recovery_words().map_err(|error| stores::store_failure(&place, &error))?;
        let words = words.ok_or_else(|| {
            Failure::new(
                format_args!("the recovery words of network {id}, which is here already, were not shown"),
                format_args!("remove {}, and try again", place.display()),
            )
        })?;
        return Ok(Some((controller, words)));
    }
    Ok(None)
}

/// Parses the name of a network on this machine.
pub(super) fn local_name(text: &str) -> Outcome<MemberName> {
    text.parse().map_err(|error| {
        Failure::usage(format_args!("the name `{text}` {error}"), "choose a name such as `team`")
    })
}

/// Fails if a name is another network's ID than `own`: `-n` takes it for that network.
pub(super) fn check_no_id(local: &MemberName, own: Option<NetworkId>) -> Outcome {
    match super::parse_id(local.as_str()) {
        Ok(id) if Some(id) != own => Err(Failure::usage(
            format_args!("the name `{local}` is the ID of a network, which -n would lead to"),
            "choose a name such as `team`",
        )),
        _ => Ok(()),
    }
}

/// A store until its network's ID, which names the file, is known.
pub(super) struct Draft {
    folder: TempDir,
    /// File or directory that a person knows, for errors.
    shown: PathBuf,
}

/// Beginning of the names of drafts' directories.
const DRAFT: &str = ".tmp";

impl Draft {
    /// Creates an empty draft in a state directory, in this process's [turn](stores::turn). Removes those of
    /// commands that were killed.
    pub(super) fn new(path: &Path, shown: &Path) -> Outcome<Draft> {
        for entry in std::fs::read_dir(path)?.flatten() {
            let is_draft = entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes());
            if is_draft && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        let private = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(DRAFT).permissions(private).tempdir_in(path)?;
        Ok(Draft { folder, shown: shown.to_owned() })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("network.db")
    }

    /// Opens the store, and checks it if it is a copy of another one.
    pub(super) fn open(&self) -> Outcome<Store> {
        let opened = Store::open(&self.path()).and_then(|store| store.check().map(|()| store));
        opened.map_err(|error| stores::store_failure(&self.shown, &error))
    }

    /// Copies the store of `controller` to its place in a state directory.
    pub(super) fn keep(self, state: &Path, controller: &Controller) -> Outcome {
        let place = stores::path_of(state, controller.network());
        let folder = place.parent().unwrap_or(state);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        if !place.exists() {
            // The log of a store that was moved away would be applied to this one.
            Store::remove(&place);
        }
        controller.copy_to(&place).map_err(|error| stores::store_failure(&place, &error))
    }
}

/// Tells a new controller of the removals that this machine knows as a member of the network.
pub(super) fn tell_removals(path: &Path, controller: &mut Controller) -> Outcome {
    let Some(record) = StateDir::membership(path, controller.network())? else { return Ok(()) };
    if record.key != controller.key() {
        return Err(Failure::new(
            format_args!("this machine knows network {} by another key", record.id),
            "leave that network with `peersock leave` if it is not yours",
        ));
    }
    stores::note_heads(controller, &record);
    Ok(())
}

/// Returns what a controller's own machine keeps of its network, as after `join`. What it has learned as a
/// member stays.
pub(super) fn own_record(
    path: &Path,
    own: &PublicIdentity,
    local: &MemberName,
    controller: &mut Controller,
) -> Outcome<MembershipRecord> {
    let id = controller.network();
    let kept = StateDir::membership(path, id)?;
    let mut record = kept.unwrap_or_else(|| MembershipRecord::new(id, controller.key()));
    (record.name, record.denied) = (Some(local.to_string()), None);
    record.credentials = controller.credentials(super::now()).or(record.credentials);
    record.controllers.retain(|known| known != own);
    record.controllers.insert(0, *own);
    Ok(record)
}

/// Keeps the record of a controller's own machine. Without the directory, a node that runs keeps it.
pub(super) fn keep_own_record(state: Option<StateDir>, path: &Path, record: &MembershipRecord) -> Outcome {
    match state {
        Some(state) => Ok(state.keep_membership(record)?),
        None if StateDir::keep_first_membership(path, record)? => Ok(()),
        // The node has the record already, and `peersock controller` gives it the credentials.
        None => {
            let local = record.name.as_deref().and_then(|name| name.parse().ok());
            Ok(management::join(path, &JoinRequest { local, ..JoinRequest::new(record.id) }).map(drop)?)
        }
    }
}

/// Parses a block of IPv4 addresses.
fn block(text: &str) -> Result<Prefix, String> {
    let parsed = super::admin::block(text).ok().filter(|block| block.address().is_ipv4());
    parsed.ok_or_else(|| "a block is an IPv4 address and a number of bits: 10.77.0.0/24".to_owned())
}

pub(super) fn not_created(error: CreateError) -> Failure {
    let hint = match &error {
        CreateError::Settings => "give a block of at most 2^24 addresses, and a time from 1h to 30d",
        _ => "check the disk, and memory of 64 MiB, and try again",
    };
    Failure::new(format_args!("the network is not made: {error}"), hint)
}

/// Returns an ID in groups of four digits, for people.
pub(super) fn grouped(id: NetworkId) -> String {
    let text = id.to_string();
    let groups: Vec<_> = (0..4).map(|at| &text[4 * at..4 * at + 4]).collect();
    groups.join("-")
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
