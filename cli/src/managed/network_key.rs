//! `peersock network rekey`: another key for a managed network.

use std::time::Duration;

use peersock::overlay::membership::UnixTime;
use peersock_controller::{Controller, RecoverError};

use super::admin::{Here, OfNetwork, served};
use super::restore::{not_renewed, read_words, renews};
use super::{duration, now, who};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::stdio;

/// Shortest time for which the former key counts unless it ends at once.
const LASTS: Duration = Duration::from_secs(86_400);

/// Replace the network's key, whose recovery words somebody may have seen
///
/// Prints the words of the new key; the earlier ones restore nothing any more. The network's ID, its invites
/// and its members stay. What the former key has signed counts for a day, or as long as members go on without
/// a controller, so that other controllers and machines that are off can follow.
///
/// Without the network's key on this machine, reads the 12 present recovery words from stdin.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network rekey -n team
  peersock network rekey -n team --now                # the former key is stolen
  peersock network rekey -n team < words.txt          # of a network made with --offline")]
pub(crate) struct RekeyArgs {
    /// End the former key at once: connections end until members have new certificates
    #[arg(long)]
    now: bool,

    /// Keep the new key on paper only; its words are needed once a year
    #[arg(long)]
    offline: bool,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn rekey(args: &RekeyArgs) -> Outcome {
    let mut controller = args.of.open()?;
    args.of.learn_keys(&mut controller)?;
    let is_stored = renews(&mut controller)?;
    let words = if is_stored { None } else { Some(read_words()?) };
    let mut rng = rand::rng();
    let next = controller.draw_next_key(&mut rng, words.as_ref()).map_err(not_replaced)?;
    let begun = now();
    let end = if args.now { begun } else { begun.plus(LASTS.max(controller.longest_lifetime())) };
    // Before it counts, because words that nobody has seen could not be told again.
    stdio::note(format_args!("write this down, it restores the network from now on: {}", next.words()));
    let is_offline = args.offline || !controller.has_key();
    let replaced = controller.rekey(begun, &mut rng, &who(), &next, end, is_offline);
    replaced
        .inspect_err(|_| stdio::note("these words count for nothing: forget them"))
        .map_err(not_replaced)?;
    tell(args, &controller, begun, end)
}

fn tell(args: &RekeyArgs, controller: &Controller, begun: UnixTime, end: UnixTime) -> Outcome {
    let name = controller.name();
    let left = duration::shown(end.since(begun));
    print(match args.now {
        true => format!("{name} has another key, and the former one counts no more"),
        false => format!("{name} has another key, and the former one counts for another {left}"),
    })?;
    stdio::note("make a backup: earlier ones lack the new key");
    let by = if args.now { "at once".to_owned() } else { format!("within {left}") };
    stdio::note(format_args!(
        "where another controller of the network runs, give it the new words {by}: `peersock network renew`"
    ));
    match served(&args.of, controller)? {
        Here::Runs(_) => {}
        Here::Silent(said) => stdio::note(format_args!("{said}: members learn the new key once it does")),
        Here::Nobody => stdio::note(format_args!(
            "nobody serves {name} now: members learn the new key once `peersock controller -n {name}` runs"
        )),
    }
    Ok(())
}

fn not_replaced(error: RecoverError) -> Failure {
    let hint = match error {
        RecoverError::TooManyKeys => {
            "make another network with `peersock network create`, and let machines join it"
        }
        RecoverError::OtherIdentity => "run `peersock network renew` first, and give the recovery words",
        error => return not_renewed(error),
    };
    Failure::new(format_args!("the network's key is not replaced: {error}"), hint)
}
