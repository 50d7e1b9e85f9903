//! `peersock network invite`, `invites` and `uninvite`: texts that admit machines.

use std::time::Duration;

use peersock::overlay::membership::{MemberName, Tag, UnixTime};
use peersock::{Invite, NetworkId, RootSource};
use peersock_controller::{Approval, Controller, Invite as Stored, InviteOptions, Member, Standing};

use super::super::{duration, now, right_has_ended, stores, who};
use super::claims::{Claims, to_hex};
use super::{Here, OfNetwork, refused, reservations, served};
use crate::failure::{Failure, Outcome};
use crate::output::{escape, print};
use crate::qr;
use crate::status::counted;
use crate::stdio;

/// Make an invite: a text with which machines join a managed network without approval
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network invite
  peersock network invite --name beta --tag db --for 15m --qr
  peersock network invite --replace beta
  peersock network invite --uses 20 --ephemeral --for 8h --root \"$(cat root.txt)\"")]
pub(crate) struct InviteArgs {
    /// Name that the machine gets; without it, its host name counts
    #[arg(long)]
    name: Option<MemberName>,

    /// Tag that the machines get; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,

    /// Bytes for programs: a text, or `hex:` and digits; at most 128 bytes
    #[arg(long, value_name = "TEXT")]
    claims: Option<Claims>,

    /// Number of machines that may use it
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,

    /// Time for which it may be used
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = duration::parse)]
    lifetime: Duration,

    /// Forget the machines soon after they were last heard
    #[arg(long)]
    ephemeral: bool,

    /// Member whose key the machine's replaces, by its name, an address, or the beginning of its node ID
    ///
    /// The machine takes over the member's name, addresses, tags and claims when it joins, and the member's
    /// key is revoked. On the same machine, `peersock id --rekey` makes the new key first.
    #[arg(long, value_name = "MEMBER", conflicts_with_all = ["name", "tags", "claims", "uses", "ephemeral"])]
    replace: Option<String>,

    /// Root at which machines find the controller; may be repeated [env: PEERSOCK_ROOTS] [default: the roots
    /// of the controller]
    #[arg(long = "root", value_name = "TEXT", allow_hyphen_values = true)]
    roots: Vec<String>,

    /// Also show the invite as a QR code, on stderr
    #[arg(long)]
    qr: bool,

    /// Print JSON: the text, which is a secret, and what it is for
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn invite(args: &InviteArgs) -> Outcome {
    let mut controller = args.of.open_by_clock()?;
    let replaced =
        args.replace.as_ref().map(|member| controller.find(member)).transpose().map_err(refused)?;
    let options = InviteOptions {
        uses: args.uses,
        lifetime: args.lifetime,
        approval: Approval {
            name: args.name.clone(),
            tags: args.tags.clone(),
            claims: args.claims.clone().unwrap_or_default().0,
            is_ephemeral: args.ephemeral,
            replaces: replaced.as_ref().map(|member| member.grant.node),
            ..Approval::default()
        },
    };
    let roots = match roots(&args.roots)? {
        none if none.is_empty() => {
            let kept = stores::roots(&args.of.state.path()?, controller.network());
            kept.into_iter().take(Invite::MAX_ROOTS).collect()
        }
        named => named,
    };
    if roots.len() > Invite::MAX_ROOTS {
        return Err(Failure::usage(
            format_args!("an invite has room for {} roots", Invite::MAX_ROOTS),
            "name fewer of them, or a domain that lists them",
        ));
    }
    let own = controller.credentials(now()).ok_or_else(right_has_ended)?;
    let token = controller.invite(now(), &mut rand::rng(), &who(), &options).map_err(refused)?;
    let label = Stored::label_of(&token);
    let (id, key, node) = (controller.network(), controller.key(), own.delegation().issuer().node_id());
    let invite = Invite::new(id, key, token, &node, roots);
    let invite = match controller.name().parse() {
        Ok(name) => invite.with_name(name),
        Err(_) => invite,
    };
    let text = invite.to_text();
    match args.json {
        true => {
            // Properties of a member that is replaced go before those here.
            let stored = controller.invites().map_err(refused)?;
            let stored = stored.iter().find(|one| one.label == label);
            let mut shown = stored.map(to_json).unwrap_or_default();
            shown["text"] = text.as_str().into();
            shown["network"] = id.to_string().into();
            shown["key"] = key.to_string().into();
            shown["roots"] = invite.roots().iter().map(ToString::to_string).collect::<Vec<_>>().into();
            print(shown)?;
        }
        false => print(text.as_str())?,
    }
    if args.qr {
        qr::show(&text);
    }
    let root = match invite.roots() {
        [] => "only on this local network: give --root for others".to_owned(),
        [root] => format!("by root {root}"),
        roots => format!("by {} roots", roots.len()),
    };
    let (uses, time) = (counted(args.uses, "use"), duration::shown(args.lifetime));
    stdio::note(format_args!("invite {label}: {uses}, for {time}, {root}"));
    if let Some(replaced @ Member { grant, .. }) = &replaced {
        stdio::note(format_args!(
            "the machine that uses it becomes {}, and the key that {} has now (node {:.12}) is revoked then; on the \
             same machine, `peersock id --rekey` makes the new key first",
            grant.name, grant.name, grant.node
        ));
        for address in reservations::of(&controller, replaced)? {
            stdio::note(format_args!(
                "{address}, which is reserved for {}, goes to that machine",
                replaced.grant.name
            ));
        }
    }
    if let Some(name) = &args.name {
        warn_of_taken(&mut controller, name)?;
    }
    if args.lifetime.is_zero() {
        stdio::note("it has ended already: give a time with --for, such as 1h");
    }
    if let Some(obstacle) = obstacle(&args.of, &controller, invite.roots())? {
        stdio::note(obstacle);
    }
    Ok(())
}

/// Reads the roots that are named, or those of the environment.
fn roots(named: &[String]) -> Outcome<Vec<RootSource>> {
    let of_environment = std::env::var("PEERSOCK_ROOTS").unwrap_or_default();
    let texts: Vec<_> = match named.is_empty() {
        true => of_environment.split_whitespace().collect(),
        false => named.iter().map(String::as_str).collect(),
    };
    let mut roots = Vec::new();
    for text in texts {
        let loaded =
            RootSource::load(text).map_err(|error| crate::failure::roots_failure("--root", error))?;
        roots.extend(loaded);
    }
    Ok(roots)
}

/// Warns that a machine that uses an invite gets another name than that.
fn warn_of_taken(controller: &mut Controller, name: &MemberName) -> Outcome {
    let members = controller.members().map_err(refused)?;
    let has_it = |one: &Member| one.standing != Standing::Removed && one.grant.name == *name;
    if members.iter().any(has_it) {
        stdio::note(format_args!(
            "there is a member {name}: unless that is the machine that uses the invite, it becomes {}",
            name.numbered(2)
        ));
    }
    Ok(())
}

/// Returns why machines that get an invite now would not reach the controller, as far as its node shows.
fn obstacle(of: &OfNetwork, controller: &Controller, roots: &[RootSource]) -> Outcome<Option<String>> {
    let name = controller.name();
    let status = match served(of, controller)? {
        Here::Runs(status) => status,
        Here::Silent(said) => return Ok(Some(format!("{said}: machines are admitted once it goes on"))),
        Here::Nobody => {
            return Ok(Some(format!(
                "no controller serves {name} now: run `peersock controller -n {name}`, which admits machines"
            )));
        }
    };
    if !roots.is_empty() && status.roots.is_empty() {
        return Ok(Some("the controller uses no root: start it with the same --root".to_owned()));
    }
    let is_local = status.roots.is_empty()
        && status.dht.is_none()
        && status.endpoints.iter().all(|endpoint| endpoint.ip().is_loopback());
    Ok(is_local.then(|| {
        "the controller is reached on this machine alone: start it without --interface lo for others"
            .to_owned()
    }))
}

/// List the invites of a network that machines can still use
///
/// The text of an invite is shown only when it is made: the store has its hash alone.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network invites
  peersock network invites -n team --json")]
pub(crate) struct InvitesArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn invites(args: &InvitesArgs) -> Outcome {
    let controller = args.of.open()?;
    let (all, now) = (stored(&controller)?, now());
    let usable: Vec<_> = all.iter().filter(|one| is_usable(one, now)).collect();
    if args.json {
        let invites: Vec<_> = usable.into_iter().map(to_json).collect();
        return print(serde_json::json!({ "invites": invites }));
    }
    if usable.is_empty() {
        stdio::note("there is no invite that a machine can use: make one with `peersock network invite`");
    }
    usable.into_iter().try_for_each(|one| print(line(one, now)))
}

fn stored(controller: &Controller) -> Outcome<Vec<Stored>> {
    controller.invites().map_err(refused)
}

fn is_usable(invite: &Stored, now: UnixTime) -> bool {
    invite.left() > 0 && now < invite.ends && !invite.is_blocked
}

fn to_json(invite: &Stored) -> serde_json::Value {
    serde_json::json!({
        "label": invite.label,
        "name": invite.name.as_ref().map(ToString::to_string),
        "tags": invite.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "claims": to_hex(&invite.claims),
        "uses": invite.uses,
        "used": invite.used,
        "ends": invite.ends.as_millis() / 1000,
        "ephemeral": invite.is_ephemeral,
        "replaces": invite.replaces.map(|node| node.to_string()),
        "made_by": invite.made_by,
    })
}

/// Returns the line of an invite in a list.
fn line(invite: &Stored, now: UnixTime) -> String {
    let tags: Vec<_> = invite.tags.iter().map(Tag::as_str).collect();
    let parts = [
        format!(
            "{} left, ends in {}",
            counted(invite.left(), "use"),
            duration::shown(invite.ends.since(now))
        ),
        tags.join(","),
        if invite.is_ephemeral { "ephemeral".to_owned() } else { String::new() },
        invite.replaces.map(|node| format!("replaces node {node:.12}")).unwrap_or_default(),
        format!("by {}", escape(&invite.made_by)),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let name = invite.name.as_ref().map_or("(any name)", |name| name.as_str());
    format!("{}  {name:<16} {}", invite.label, parts.join("  "))
}

/// End an invite: no machine can join by it any more
///
/// Machines that have joined by it stay members.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network uninvite 1f3870be
  peersock network uninvite 'peersock://e18a4c0277d19b3f/EX…'")]
pub(crate) struct UninviteArgs {
    /// Invite, by the eight digits that `peersock network invites` shows, or by its whole text
    invite: String,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn uninvite(args: &UninviteArgs) -> Outcome {
    let (label, network) = label(&args.invite)?;
    let mut controller = args.of.open_for(network)?;
    let known = stored(&controller)?.into_iter().find(|one| one.label == label);
    let Some(known) = known else {
        return Err(Failure::new(
            format_args!("{} has no invite {}", controller.name(), escape(&label)),
            "list those that can be used with `peersock network invites`",
        ));
    };
    controller.end_invite(now(), &who(), &label).map_err(refused)?;
    match is_usable(&known, now()) {
        true => print(format_args!("invite {label} has ended, with {} left", counted(known.left(), "use"))),
        false => print(format_args!("invite {label} had ended before")),
    }
}

/// Returns the label of an invite that a person names, and its network if the text has it.
fn label(text: &str) -> Outcome<(String, Option<NetworkId>)> {
    if !Invite::is_claimed_by(text) {
        return Ok((text.trim().to_ascii_lowercase(), None));
    }
    let invite: Invite = text.parse().map_err(|error| {
        Failure::usage(
            format_args!("the invite cannot be read: {error}"),
            "give the whole line, or the eight digits that `peersock network invites` shows",
        )
    })?;
    Ok((Stored::label_of(invite.token()), Some(invite.id())))
}
