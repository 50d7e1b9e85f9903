//! `peersock network approve` and `deny`: machines that wait.

use peersock::overlay::membership::{MemberName, Tag};
use peersock_controller::Approval;

use super::super::{now, who};
use super::claims::Claims;
use super::{OfNetwork, described, refused};
use crate::failure::Outcome;
use crate::output::print;

/// Admit a machine that waits, by the code that both sides show
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network approve K7M-2QX
  peersock network approve K7M-2QX --name beta --tag db
  peersock network approve K7M-2QX --replace beta")]
pub(crate) struct ApproveArgs {
    /// Code that the machine shows, or the beginning of its node ID
    code: String,

    /// Name that the machine gets [default: the one that it asks for]
    #[arg(long)]
    name: Option<MemberName>,

    /// Tag that the machine gets; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,

    /// Bytes for programs: a text, or `hex:` and digits; at most 128 bytes
    #[arg(long, value_name = "TEXT")]
    claims: Option<Claims>,

    /// Member whose key the machine's replaces, by its name, an address, or the beginning of its node ID
    ///
    /// The machine takes over its name, addresses, tags and claims. The member's key is revoked.
    #[arg(long, value_name = "MEMBER", conflicts_with_all = ["name", "tags", "claims"])]
    replace: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn approve(args: &ApproveArgs) -> Outcome {
    let mut controller = args.of.open()?;
    let replaced =
        args.replace.as_ref().map(|member| controller.find(member)).transpose().map_err(refused)?;
    let approval = Approval {
        name: args.name.clone(),
        tags: args.tags.clone(),
        claims: args.claims.clone().unwrap_or_default().0,
        replaces: replaced.map(|member| member.grant.node),
        ..Approval::default()
    };
    let member =
        controller.approve(now(), &mut rand::rng(), &who(), &args.code, &approval).map_err(refused)?;
    match args.json {
        true => print(super::members::to_json(&member, None)),
        false => print(format_args!("{} is a member of {}", described(&member), controller.name())),
    }
}

/// Refuse a machine that waits
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network deny K7M-2QX")]
pub(crate) struct DenyArgs {
    /// Code that the machine shows, or the beginning of its node ID
    code: String,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn deny(args: &DenyArgs) -> Outcome {
    let mut controller = args.of.open()?;
    controller.deny(now(), &who(), &args.code).map_err(refused)?;
    match args.json {
        true => print(serde_json::json!({ "refused": args.code })),
        false => print(format_args!("{} is refused", args.code)),
    }
}
