//! `peersock network approve` and `deny`: machines that wait.

use peersock::overlay::membership::{MemberName, Tag};
use peersock_controller::Approval;

use super::super::{now, who};
use super::{OfNetwork, described, refused};
use crate::failure::Outcome;
use crate::output::print;

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
