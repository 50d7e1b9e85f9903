//! `peersock network members`: all members, and machines that wait.

use peersock::overlay::membership::{Tag, UnixTime};
use peersock_controller::{Member, SecondRun, Standing};

use super::super::{comparable, duration, now};
use super::claims::to_hex;
use super::{OfNetwork, refused};
use crate::failure::Outcome;
use crate::output::{escape, print};
use crate::stdio;

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
    let members = controller.members().map_err(refused)?;
    let pending = controller.pending().map_err(refused)?;
    if args.json {
        let second_runs = controller.second_runs().map_err(refused)?;
        let to_json = |member: &Member| to_json(member, second_runs.get(&member.grant.node));
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
        let status = controller.status(now()).map_err(refused)?;
        return print(serde_json::json!({
            "key": controller.key().to_string(),
            "members": members,
            "pending": pending,
            "addresses_rest_until": status.addresses_rest_until.map(|until| until.as_millis() / 1000),
        }));
    }
    stdio::note(format_args!("network {}, key {}", controller.network(), comparable(&controller.key())));
    if let Some(words) = super::super::restore::addresses_rest(&mut controller)? {
        stdio::note(words);
    }
    let own = args.of.own()?;
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

pub(super) fn to_json(member: &Member, second_run: Option<&SecondRun>) -> serde_json::Value {
    serde_json::json!({
        "name": member.grant.name.to_string(),
        "node": member.grant.node.to_string(),
        "addresses": member.grant.addresses().map(|one| one.to_string()).collect::<Vec<_>>(),
        "tags": member.grant.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "claims": to_hex(&member.grant.claims),
        "standing": match member.standing {
            Standing::Member => "member",
            Standing::Held => "held",
            _ => "removed",
        },
        "seen": member.seen.as_millis() / 1000,
        "outlive_s": member.outlive.map(|outlive| outlive.as_secs()),
        "spare": member.spare.is_some(),
        "certificate_ends": member.ends.as_millis() / 1000,
        "second_run": second_run.map(|run| {
            serde_json::json!({
                "addresses": run.addresses().map(|one| one.to_string()),
                "noticed": run.at.as_millis() / 1000,
            })
        }),
        "held_as_copied": (member.copied != UnixTime::default()).then(|| member.copied.as_millis() / 1000),
        "admitted_by": member.admitted_by,
        "description": member.description,
    })
}

/// Returns the line of a member in a list.
pub(super) fn line(member: &Member, is_own: bool, now: UnixTime) -> String {
    let addresses: Vec<_> = member.grant.addresses().map(|one| one.to_string()).collect();
    let tags: Vec<_> = member.grant.tags.iter().map(Tag::as_str).collect();
    let seen = match member.seen.as_millis() {
        // It asks no controller, so no controller has heard it.
        _ if is_own => "this machine".to_owned(),
        // A new member has asked the controller, which notes every few seconds that it is there.
        0 => format!("joined {} ago", duration::shown(now.since(member.joined))),
        _ => format!("heard {} ago", duration::shown(now.since(member.seen))),
    };
    let state = if member.standing == Standing::Held { "held     " } else { "member   " };
    let outlive = member.outlive.map(|outlive| format!("outlive {}", duration::shown(outlive)));
    let copied = if member.copied == UnixTime::default() { "" } else { "runs on two machines" };
    let spare = if member.spare.is_some() { "spare" } else { "" };
    let [spare, copied] = [spare, copied].map(str::to_owned);
    let parts = [addresses.join(" "), tags.join(","), outlive.unwrap_or_default(), spare, seen, copied];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{state} {:<16} {}", member.grant.name, parts.join("  "))
}
