//! Commands that act on the store of a controller, whether it runs or not: invites, approvals, removals.

use std::path::Path;
use std::time::Duration;

use peersock::overlay::membership::{MemberName, Tag, UnixTime};
use peersock::state::StateDir;
use peersock::{Invite, NetworkId, RootSource, Status, management};
use peersock_controller::{Approval, ChangeError, Controller, InviteOptions, Member, Standing};

use super::{DirectoryArgs, duration, now, stores, who};
use crate::failure::{Failure, Outcome};
use crate::output::{escape, print};
use crate::{status, stdio};

/// Network whose controller is on this machine.
#[derive(clap::Args)]
pub(super) struct OfNetwork {
    /// Network whose controller is here, by its name or ID [default: the only one]
    #[arg(short = 'n', value_name = "NETWORK")]
    network: Option<String>,

    #[command(flatten)]
    state: DirectoryArgs,
}

impl OfNetwork {
    pub(super) fn open(&self) -> Outcome<Controller> {
        stores::open(&self.state.path()?, self.network.as_deref())
    }
}

/// Make an invite: a text with which machines join a managed network without approval
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network invite
  peersock network invite --name beta --tag db --for 15m
  peersock network invite --uses 20 --ephemeral --for 8h --root \"$(cat root.txt)\"")]
pub(crate) struct InviteArgs {
    /// Name that the machine gets; without it, its host name counts
    #[arg(long)]
    name: Option<MemberName>,

    /// Tag that the machines get; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,

    /// Number of machines that may use it
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,

    /// Time for which it may be used
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = duration::parse)]
    lifetime: Duration,

    /// Forget the machines soon after they were last heard
    #[arg(long)]
    ephemeral: bool,

    /// Root at which machines find the controller; may be repeated [env: PEERSOCK_ROOTS]
    #[arg(long = "root", value_name = "TEXT", allow_hyphen_values = true)]
    roots: Vec<String>,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn invite(args: &InviteArgs) -> Outcome {
    let mut controller = args.of.open()?;
    let options = InviteOptions {
        uses: args.uses,
        lifetime: args.lifetime,
        name: args.name.clone(),
        tags: args.tags.clone(),
        is_ephemeral: args.ephemeral,
        ..InviteOptions::default()
    };
    let mut roots = Vec::new();
    let of_environment = std::env::var("PEERSOCK_ROOTS").unwrap_or_default();
    let named = args.roots.iter().map(String::as_str);
    let texts: Vec<_> = match args.roots.is_empty() {
        true => of_environment.split_whitespace().collect(),
        false => named.collect(),
    };
    for text in texts {
        let loaded =
            RootSource::load(text).map_err(|error| crate::failure::roots_failure("--root", error))?;
        roots.extend(loaded);
    }
    let own = controller.credentials(now()).ok_or_else(super::right_has_ended)?;
    let token = controller.invite(now(), &mut rand::rng(), &who(), &options).map_err(refused)?;
    let (id, key, node) = (controller.network(), controller.key(), own.delegation().issuer().node_id());
    let invite = Invite::new(id, key, token, &node, roots);
    print(invite.to_text().as_str())?;
    let uses = if args.uses == 1 { "one use".to_owned() } else { format!("{} uses", args.uses) };
    let root = match invite.roots() {
        [] => "only on this local network: give --root for others".to_owned(),
        [root] => format!("by root {root}"),
        roots => format!("by {} roots", roots.len()),
    };
    stdio::note(format_args!("{uses}, for {}, {root}", duration::shown(args.lifetime)));
    if let Some(name) = &args.name {
        let members = controller.members().map_err(|error| refused(ChangeError::Store(error)))?;
        let has_it = |one: &Member| one.standing != Standing::Removed && one.grant.name == *name;
        if members.iter().any(has_it) {
            stdio::note(format_args!(
                "there is a member {name}: unless that is the machine that uses the invite, it becomes {}",
                name.numbered(2)
            ));
        }
    }
    if args.lifetime.is_zero() {
        stdio::note("it has ended already: give a time with --for, such as 1h");
    }
    if let Some(obstacle) = obstacle(&args.of.state.path()?, id, &controller.name(), invite.roots()) {
        stdio::note(obstacle);
    }
    Ok(())
}

/// Returns why machines that get an invite now would not reach the controller, as far as its node shows.
fn obstacle(state: &Path, network: NetworkId, name: &str, roots: &[RootSource]) -> Option<String> {
    let status = management::status(state, 0).ok().and_then(|text| status::parse(&text).ok());
    // Other programs' nodes are in the network, too.
    let is_served =
        |status: &Status| status.networks.iter().any(|joined| joined.id == network && joined.serves);
    let Some(status) = status.filter(is_served) else {
        return Some(format!(
            "nobody serves {name} now: run `peersock controller -n {name}`, which admits machines"
        ));
    };
    if !roots.is_empty() && status.roots.is_empty() {
        return Some("the controller uses no root: start it with the same --root".to_owned());
    }
    let is_local = status.roots.is_empty()
        && status.dht.is_none()
        && status.endpoints.iter().all(|endpoint| endpoint.ip().is_loopback());
    is_local.then(|| {
        "the controller is reached on this machine alone: start it without --interface lo for others"
            .to_owned()
    })
}

/// Admit a machine that waits, by the code that both sides show
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network approve K7M-2QX
  peersock network approve K7M-2QX --name beta --tag db")]
pub(crate) struct ApproveArgs {
    /// Code that the machine shows, or the beginning of its node ID
    code: String,

    /// Name that the machine gets [default: the one that it asks for]
    #[arg(long)]
    name: Option<MemberName>,

    /// Tag that the machine gets; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn approve(args: &ApproveArgs) -> Outcome {
    let mut controller = args.of.open()?;
    let approval = Approval { name: args.name.clone(), tags: args.tags.clone(), ..Approval::default() };
    let member =
        controller.approve(now(), &mut rand::rng(), &who(), &args.code, &approval).map_err(refused)?;
    print(format_args!("{} is a member of {}", described(&member), controller.name()))
}

/// Refuse a machine that waits
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network deny K7M-2QX")]
pub(crate) struct DenyArgs {
    /// Code that the machine shows, or the beginning of its node ID
    code: String,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn deny(args: &DenyArgs) -> Outcome {
    let mut controller = args.of.open()?;
    controller.deny(now(), &who(), &args.code).map_err(refused)?;
    print(format_args!("{} is refused", args.code))
}

/// Remove members: their certificates do not count any more, and open connections end
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network revoke beta
  peersock network revoke 10.77.0.3 1f3870be274f")]
pub(crate) struct RevokeArgs {
    /// Name, address, or beginning of the node ID of a member; may be repeated
    #[arg(required = true)]
    members: Vec<String>,

    /// Confirm the removal of more than a quarter of all members, or of a lost controller right after
    /// `peersock network restore`
    #[arg(long)]
    yes_all_of_them: bool,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn revoke(args: &RevokeArgs) -> Outcome {
    let mut controller = args.of.open()?;
    let subjects: Vec<_> = args.members.iter().map(String::as_str).collect();
    let removed = controller.revoke(now(), &who(), &subjects, args.yes_all_of_them).map_err(refused)?;
    for member in &removed {
        let left = member.ends.since(now());
        print(format_args!("{} is removed", described(member)))?;
        if !left.is_zero() {
            stdio::note(format_args!(
                "members that hear nothing of it accept {} for {} at most",
                member.grant.name,
                duration::shown(left)
            ));
        }
    }
    if removed.is_empty() {
        stdio::note("none of them was a member");
    }
    Ok(())
}

/// List the members of a network whose controller is here, and the machines that wait
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network members
  peersock network members -n team --json")]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn list(args: &ListArgs) -> Outcome {
    let mut controller = args.of.open()?;
    let members = controller.members().map_err(|error| refused(ChangeError::Store(error)))?;
    let pending = controller.pending().map_err(|error| refused(ChangeError::Store(error)))?;
    if args.json {
        let members: Vec<_> = members.iter().map(to_json).collect();
        let pending: Vec<_> = pending
            .iter()
            .map(|one| {
                serde_json::json!({
                    "code": one.code.to_string(),
                    "node": one.identity.node_id().to_string(),
                    "name": one.name.as_ref().map(ToString::to_string),
                    "description": one.description,
                    "source": one.source.to_string(),
                })
            })
            .collect();
        let key = super::comparable(&controller.key());
        return print(serde_json::json!({ "key": key, "members": members, "pending": pending }));
    }
    stdio::note(format_args!(
        "network {}, key {}",
        controller.network(),
        super::comparable(&controller.key())
    ));
    let own = StateDir::peek_identity(&args.of.state.path()?)?.map(|own| own.node_id());
    for member in members.iter().filter(|member| member.standing != Standing::Removed) {
        print(line(member, own == Some(member.grant.node), now()))?;
    }
    for one in &pending {
        print(format_args!(
            "waits     {}  {}  {}, from {}",
            one.code,
            one.name.as_ref().map_or("(no name)", |name| name.as_str()),
            escape(&one.description),
            one.source
        ))?;
    }
    Ok(())
}

fn to_json(member: &Member) -> serde_json::Value {
    serde_json::json!({
        "name": member.grant.name.to_string(),
        "node": member.grant.node.to_string(),
        "addresses": member.grant.addresses().map(|one| one.to_string()).collect::<Vec<_>>(),
        "tags": member.grant.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "standing": match member.standing {
            Standing::Member => "member",
            Standing::Held => "held",
            _ => "removed",
        },
        "seen": member.seen.as_millis() / 1000,
        "certificate_ends": member.ends.as_millis() / 1000,
        "admitted_by": member.admitted_by,
        "description": member.description,
    })
}

/// Returns the line of a member in a list.
fn line(member: &Member, is_own: bool, now: UnixTime) -> String {
    let addresses: Vec<_> = member.grant.addresses().map(|one| one.to_string()).collect();
    let tags: Vec<_> = member.grant.tags.iter().map(ToString::to_string).collect();
    let seen = match member.seen.as_millis() {
        // It asks nobody, so nobody has heard it.
        _ if is_own => "this machine".to_owned(),
        0 => "never heard".to_owned(),
        _ => format!("heard {} ago", duration::shown(now.since(member.seen))),
    };
    let state = if member.standing == Standing::Held { "held     " } else { "member   " };
    let parts = [addresses.join(" "), tags.join(","), seen];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{state} {:<16} {}", member.grant.name, parts.join("  "))
}

/// Returns a member's name with its addresses.
pub(super) fn described(member: &Member) -> String {
    let addresses: Vec<_> = member.grant.addresses().map(|one| one.to_string()).collect();
    match addresses.is_empty() {
        true => member.grant.name.to_string(),
        false => format!("{} ({})", member.grant.name, addresses.join(", ")),
    }
}

/// Returns the failure of a change.
pub(super) fn refused(error: ChangeError) -> Failure {
    let hint = match &error {
        ChangeError::NotFound(_) => "list names, codes and addresses with `peersock network members`",
        ChangeError::Ambiguous { .. } => "give more digits of the node ID",
        ChangeError::Mass { .. } => "give --yes-all-of-them if that is meant",
        ChangeError::Restored(_) => {
            "wait until `peersock network members` shows that a member was heard; if that machine's key may be \
             stolen, give --yes-all-of-them"
        }
        _ => "list the members with `peersock network members`",
    };
    Failure::new(format_args!("nothing is changed: {error}"), hint)
}
