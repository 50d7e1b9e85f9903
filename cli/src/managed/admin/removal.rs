//! `peersock network revoke`: members that are none any more.

use peersock::overlay::membership::UnixTime;
use peersock_controller::{Controller, Member};

use super::super::{duration, now, who};
use super::reach::{self, Reach};
use super::{OfNetwork, described, local_time, refused};
use crate::failure::Outcome;
use crate::output::print;
use crate::stdio;

/// Remove members: their certificates do not count any more, and open connections end
///
/// The running controller tells all members that are connected. The command waits for them, for up to 5 s,
/// and says who knows it, and until when the others may accept the removed machines.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network revoke beta
  peersock network revoke 10.77.0.3 1f3870be274f")]
pub(crate) struct RevokeArgs {
    /// Name, address, or beginning of the node ID (at least six digits) of a member; may be repeated
    #[arg(required = true)]
    members: Vec<String>,

    /// Confirm the removal of more than three members that are more than a quarter of all, or of a lost
    /// controller right after `peersock network restore`
    #[arg(long)]
    yes_all_of_them: bool,

    #[command(flatten)]
    of: OfNetwork,
}

/// Number of removed members up to which each has its own time.
const MOST_NAMED: usize = 3;

pub(crate) fn revoke(args: &RevokeArgs) -> Outcome {
    let mut controller = args.of.open()?;
    let subjects: Vec<_> = args.members.iter().map(String::as_str).collect();
    let removed = controller.revoke(now(), &who(), &subjects, args.yes_all_of_them).map_err(refused)?;
    if removed.is_empty() {
        stdio::note("none of them was a member");
        return Ok(());
    }
    removed.iter().try_for_each(|member| print(format_args!("{} is removed", described(member))))?;
    let reach = reach::wait(&args.of, &mut controller, &removed)?;
    // Opened again, because the process that serves notes what it has issued a little later.
    let accepted = accepted(&args.of.open()?, &removed, now());
    stdio::note(told(reach, &controller.name(), accepted.as_deref()));
    Ok(())
}

/// Returns which removed members others may still accept, and until when.
fn accepted(controller: &Controller, removed: &[Member], now: UnixTime) -> Option<String> {
    let end = |member: &Member| {
        let known = controller.find(&member.grant.node.to_string());
        known.map_or(member.ends, |known| known.ends.max(member.ends))
    };
    let mut ends: Vec<_> = removed.iter().map(|member| (end(member), &member.grant.name)).collect();
    ends.retain(|(end, _)| now < *end);
    let until = |end: UnixTime| {
        let left = duration::shown(end.since(now));
        local_time::shown(end, now).map_or_else(|| format!("for {left}"), |at| format!("until {at} ({left})"))
    };
    match &ends[..] {
        [] => None,
        some if some.len() <= MOST_NAMED => {
            let each: Vec<_> = some.iter().map(|(end, name)| format!("{name} {}", until(*end))).collect();
            Some(each.join(", "))
        }
        many => many.iter().map(|(end, _)| *end).max().map(|last| format!("them {}", until(last))),
    }
}

/// Says who knows of a removal, and what holds for the others.
fn told(reach: Reach, network: &str, accepted: Option<&str>) -> String {
    let words = reach.words(network);
    match (&reach, accepted) {
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
    use super::*;

    #[test]
    fn what_is_told_depends_on_who_knows_it() {
        let accepted = Some("beta until 14:03 tomorrow (23h)");
        let of = |know, connected, all| told(Reach::Members { know, connected, all }, "team", accepted);
        assert_eq!(
            of(14, 16, 20),
            "14 of 16 connected members know it; the others hear it from them, or accept beta until 14:03 \
             tomorrow (23h) at most"
        );
        assert_eq!(of(2, 2, 2), "all 2 other members know it");
        assert_eq!(of(0, 0, 0), "there is no other member");
        assert_eq!(
            told(Reach::Unsigned, "team", accepted),
            "no controller runs here: nobody knows it until `peersock controller -n team` does; members accept \
             beta until 14:03 tomorrow (23h) at most"
        );
        let ended = told(Reach::Members { know: 0, connected: 1, all: 1 }, "team", None);
        assert!(!ended.contains("accept"), "{ended}");
    }
}
