//! `peersock network change`: another name, other tags, claims or rights for a member.

use peersock::overlay::membership::{MemberName, Tag};
use peersock_controller::{Change, ChangeError};

use super::super::{now, who};
use super::claims::Claims;
use super::outlive::{Outlive, outlive_or_default};
use super::settings::yes_or_no;
use super::{Here, OfNetwork, members, refused, served};
use crate::failure::Outcome;
use crate::output::print;
use crate::stdio;

/// Give a member another name, other tags or other claims
///
/// Another name, tag or claim takes effect as a removal does: the member's certificates until now end, and
/// its open connections with them. The member gets another certificate at once, so its programs can connect
/// again. --outlive ends nothing.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true)
    .args(["name", "tags", "untags", "claims", "outlive", "spare"]))]
#[command(after_help = "\
Examples:
  peersock network change beta --name database
  peersock network change beta --tag db --untag web
  peersock network change 10.77.0.3 --outlive 2h
  peersock network change beta --spare yes            # beta renews certificates if the controller is lost")]
pub(crate) struct ChangeArgs {
    /// Name, address, or beginning of the node ID (at least six digits) of a member
    member: String,

    /// Name that the member gets
    #[arg(long)]
    name: Option<MemberName>,

    /// Tag that the member gets besides those that it has; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,

    /// Tag that the member loses, also if --tag names it; may be repeated
    #[arg(long = "untag", value_name = "TAG")]
    untags: Vec<Tag>,

    /// Bytes for programs: a text, or `hex:` and digits; at most 128 bytes. Empty for none
    #[arg(long, value_name = "TEXT")]
    claims: Option<Claims>,

    /// Time for which the member goes on without a controller, from 1h to 30d; or `default`
    #[arg(long, value_name = "TIME", value_parser = outlive_or_default)]
    outlive: Option<Outlive>,

    /// Right to renew members' certificates while no controller answers: `yes` or `no`; at most 4 members
    ///
    /// Such a member admits no machine and removes none. Its key is as valuable as the controller's.
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    spare: Option<bool>,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn change(args: &ChangeArgs) -> Outcome {
    let mut controller = args.of.open()?;
    let before = controller.find(&args.member).map_err(refused)?;
    // Nothing can revoke its certificates, because that would end the right to issue others.
    if args.of.own()? == Some(before.grant.node) {
        return Err(refused(ChangeError::OwnNode));
    }
    for tag in args.untags.iter().filter(|tag| !before.grant.tags.contains(tag)) {
        stdio::note(format_args!("{} has no tag {tag}", before.grant.name));
    }
    let change = Change {
        name: args.name.clone(),
        added_tags: args.tags.clone(),
        removed_tags: args.untags.clone(),
        claims: args.claims.clone().map(|claims| claims.0),
        outlive: args.outlive,
        spare: args.spare,
        ..Change::default()
    };
    let node = before.grant.node.to_string();
    let after = controller.change(now(), &who(), &node, &change).map_err(refused)?;
    print(members::line(&after, false, now()))?;
    let is_taken = before.spare.is_some() && after.spare.is_none();
    if after.grant != before.grant || is_taken {
        stdio::note(format_args!(
            "open connections of {} end, because its certificates until now do; it gets another one at once",
            after.grant.name
        ));
    }
    if before.spare.is_none() && after.spare.is_some() {
        stdio::note(format_args!(
            "{} gets the right with its next certificate, within 40 minutes, and renews others' while no \
             controller answers",
            after.grant.name
        ));
    }
    let name = controller.name();
    match served(&args.of, &controller)? {
        Here::Runs(_) => {}
        Here::Silent(said) => stdio::note(format_args!("{said}: the change counts once it goes on")),
        Here::Nobody => stdio::note(format_args!(
            "no controller serves {name} now: it counts once `peersock controller -n {name}` runs"
        )),
    }
    Ok(())
}
