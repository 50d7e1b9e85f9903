//! `peersock network revoke`: members that are none any more.

use peersock::overlay::membership::{MemberName, UnixTime};
use peersock_controller::{Controller, Member};
use serde_json::json;

use super::super::{now, who};
use super::reach::{self, Effect, Ended, Reach};
use super::{OfNetwork, described, refused, until};
use crate::failure::Outcome;
use crate::output::print;
use crate::stdio;

/// Remove members: their certificates do not count any more, and open connections end
///
/// The running controller tells all members that are connected. The command waits for them, for up to 5 s,
/// and says who knows it after which time, until when the others may accept the removed machines, and how
/// many open TCP connections of the node here have ended. The other members end theirs when they know it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network revoke beta
  peersock network revoke beta --json
  peersock network revoke 10.77.0.3 1f3870be274f")]
pub(crate) struct RevokeArgs {
    /// Name, address, or beginning of the node ID (at least six digits) of a member; may be repeated
    #[arg(required = true)]
    members: Vec<String>,

    /// Confirm the removal of more than three members that are more than a quarter of all, or of a lost
    /// controller right after `peersock network restore`
    #[arg(long)]
    yes_all_of_them: bool,

    /// Print a JSON object: removed members, who knows it, times in seconds since 1970
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

/// Number of removed members up to which each has its own time.
const MOST_NAMED: usize = 3;

pub(crate) fn revoke(args: &RevokeArgs) -> Outcome {
    let mut controller = args.of.open()?;
    let subjects: Vec<_> = args.members.iter().map(String::as_str).collect();
    let before = reach::ended(&args.of, &controller)?;
    let removed = controller.revoke(now(), &who(), &subjects, args.yes_all_of_them).map_err(refused)?;
    if removed.is_empty() && !args.json {
        stdio::note("none of them was a member");
        return Ok(());
    }
    if !args.json {
        removed.iter().try_for_each(|member| print(format_args!("{} is removed", described(member))))?;
    }
    let waited = reach::wait(&args.of, &mut controller, &removed);
    // Opened again, because the process that serves notes what it has issued a little later.
    let reopened = args.of.open();
    let ends = ends(reopened.as_ref().unwrap_or(&controller), &removed);
    let ended = |effect: &Effect| Some(effect.ended?.after(before?));
    if args.json {
        // The members are removed, also if no node can say which members know it.
        let effect = waited.as_ref().ok();
        print(to_json(&removed, &ends, effect, effect.and_then(ended)))?;
        return waited.map(drop);
    }
    let effect = waited?;
    stdio::note(told(&effect, &controller.name(), accepted(&ends, now()).as_deref()));
    if let Some(ended) = ended(&effect) {
        stdio::note(ended_here(ended));
    }
    Ok(())
}

/// Says how many connections of this machine have ended.
fn ended_here(ended: Ended) -> String {
    let open =
        |count| if count == 1 { "1 open connection".to_owned() } else { format!("{count} open connections") };
    match ended {
        Ended { by_removals, by_peers: 0 } => format!("{} of this machine ended", open(by_removals)),
        // Not all of them are of the removed machines for sure.
        Ended { by_removals: 0, by_peers } => {
            format!("{} of this machine ended meanwhile, by resets from the other end", open(by_peers))
        }
        Ended { by_removals, by_peers } => {
            format!(
                "{} of this machine ended, and {by_peers} by resets from the other end meanwhile",
                open(by_removals)
            )
        }
    }
}

fn to_json(
    removed: &[Member],
    ends: &[(UnixTime, MemberName)],
    effect: Option<&Effect>,
    ended: Option<Ended>,
) -> serde_json::Value {
    let (know, connected, all) = match effect.map(|effect| &effect.reach) {
        Some(&Reach::Members { know, connected, all }) => (Some(know), Some(connected), Some(all)),
        _ => (None, None, None),
    };
    let after = know.and(effect).and_then(|effect| u64::try_from(effect.after.as_millis()).ok());
    let members: Vec<_> = removed
        .iter()
        .zip(ends)
        .map(|(member, (end, name))| {
            json!({
                "name": name.as_str(),
                "node": member.grant.node.to_string(),
                "accepted_until": end.as_millis() / 1000,
            })
        })
        .collect();
    json!({
        "removed": members,
        "know": know,
        "connected": connected,
        "others": all,
        "after_ms": after,
        "ended_here": ended.map(|ended| ended.by_removals),
        "reset_here": ended.map(|ended| ended.by_peers),
    })
}

/// Returns until when members that do not hear of it accept each removed member, also if their clocks are
/// behind.
fn ends(controller: &Controller, removed: &[Member]) -> Vec<(UnixTime, MemberName)> {
    let end = |member: &Member| {
        let known = controller.find(&member.grant.node.to_string());
        let earlier = member.accepted_until();
        known.map_or(earlier, |known| known.accepted_until().max(earlier))
    };
    removed.iter().map(|member| (end(member), member.grant.name.clone())).collect()
}

/// Returns which removed members others may still accept, and until when.
fn accepted(ends: &[(UnixTime, MemberName)], now: UnixTime) -> Option<String> {
    let ends: Vec<_> = ends.iter().filter(|(end, _)| now < *end).collect();
    match &ends[..] {
        [] => None,
        some if some.len() <= MOST_NAMED => {
            let each: Vec<_> =
                some.iter().map(|(end, name)| format!("{name} {}", until(*end, now))).collect();
            Some(each.join(", "))
        }
        many => many.iter().map(|(end, _)| *end).max().map(|last| format!("them {}", until(last, now))),
    }
}

/// Says who knows of a removal, and what holds for the others.
fn told(effect: &Effect, network: &str, accepted: Option<&str>) -> String {
    let words = effect.words(network);
    match (&effect.reach, accepted) {
        (_, None) => words,
        (reach, _) if reach.is_everybody() => words,
        (Reach::Unsigned | Reach::Silent(_), Some(accepted)) => {
            format!("{words}; members accept {accepted} at most")
        }
        (_, Some(accepted)) => format!("{words}, or accept {accepted} at most"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn connections_that_the_removed_machine_has_reset_first_are_told_as_well() {
        let said = |by_removals, by_peers| ended_here(Ended { by_removals, by_peers });
        assert_eq!(said(0, 0), "0 open connections of this machine ended");
        assert_eq!(said(1, 0), "1 open connection of this machine ended");
        assert_eq!(
            said(0, 1),
            "1 open connection of this machine ended meanwhile, by resets from the other end"
        );
        assert_eq!(
            said(2, 1),
            "2 open connections of this machine ended, and 1 by resets from the other end meanwhile"
        );
        let (before, after) = (Ended { by_removals: 1, by_peers: 7 }, Ended { by_removals: 1, by_peers: 8 });
        assert_eq!(after.after(before), Ended { by_removals: 0, by_peers: 1 });
    }

    #[test]
    fn what_is_told_depends_on_who_knows_it() {
        let accepted = Some("beta until 14:03 tomorrow (23h)");
        let effect = |reach| Effect { reach, after: Duration::from_millis(840), ended: None };
        let said = |reach, accepted| told(&effect(reach), "team", accepted);
        let of = |know, connected, all| said(Reach::Members { know, connected, all }, accepted);
        assert_eq!(
            of(14, 16, 20),
            "14 of 16 connected members know it (0.8 s); the others hear it from them, or accept beta until 14:03 \
             tomorrow (23h) at most"
        );
        assert_eq!(of(2, 2, 2), "all 2 other members know it (0.8 s)");
        assert_eq!(of(0, 0, 0), "there is no other member");
        assert_eq!(
            said(Reach::Unsigned, accepted),
            "no controller runs here: no member knows it until `peersock controller -n team` does; members accept \
             beta until 14:03 tomorrow (23h) at most"
        );
        let ended = said(Reach::Members { know: 0, connected: 1, all: 1 }, None);
        assert!(!ended.contains("accept"), "{ended}");
    }
}
