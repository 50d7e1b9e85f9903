//! `peersock network rekey`: another key for a managed network.

use std::time::Duration;

use peersock::overlay::membership::{NetworkKeys, UnixTime};
use peersock_controller::{Controller, RecoverError};

use super::admin::{Here, OfNetwork, served};
use super::restore::{hint, renews, tell_of_log};
use super::{duration, now, who, words};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::stdio;

/// Shortest time for which the former key counts unless it ends at once.
const LASTS: Duration = Duration::from_secs(86_400);

/// Replace the network's key, whose recovery words somebody may have seen
///
/// Prints the words of the new key. The network's ID, its invites and its members stay. The former key counts
/// for a day more, or as long as members go on without a controller, so that other controllers and machines
/// that are off can follow: until then its words can make controllers. If they are stolen, use --now.
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
    let mut controller = args.of.open_by_clock()?;
    args.of.learn_keys(&mut controller)?;
    let known = controller.network_keys();
    let is_stored = renews(&mut controller)?;
    let words = if is_stored { None } else { Some(words::read()?) };
    let (mut controller, _turn) = args.of.open_in_turn()?;
    // A command that had its turn before has changed the key, and its words are the ones that somebody wants.
    if controller.network_keys() != known {
        return Err(not_replaced(RecoverError::Changed));
    }
    let mut rng = rand::rng();
    let next = controller.draw_next_key(&mut rng, words.as_ref()).map_err(not_replaced)?;
    let begun = now();
    let end = if args.now { begun } else { begun.plus(LASTS.max(controller.longest_lifetime())) };
    // The words are shown before the key counts, because they could not be shown again.
    words::show("write this down, it restores the network from now on", next.words()).map_err(|reason| {
        Failure::new(
            format_args!("the network's key is not replaced: the new words cannot be shown: {reason}"),
            words::GIVE_A_PLACE,
        )
    })?;
    let is_offline = args.offline || !controller.has_key();
    let replaced = controller.rekey(begun, &mut rng, &who(), &next, end, is_offline);
    let is_removed = replaced
        .inspect_err(|_| stdio::note("these words count for nothing: forget them"))
        .map_err(not_replaced)?;
    if !is_removed {
        tell_of_log(&controller);
    }
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
    let changes = NetworkKeys::MAX_SUCCESSIONS - controller.network_keys().successions().len();
    stdio::note(format_args!("the key can change {changes} more times"));
    let by = if args.now { "at once".to_owned() } else { format!("within {left}") };
    stdio::note(format_args!(
        "where another controller of the network runs, give it the new words {by}: `peersock network renew`"
    ));
    match served(&args.of, controller)? {
        Here::Runs(_) => {}
        Here::Silent(said) => stdio::note(format_args!("{said}: members learn the new key once it goes on")),
        Here::Nobody => stdio::note(format_args!(
            "no controller serves {name} now: members learn the new key once `peersock controller -n {name}` runs"
        )),
    }
    Ok(())
}

fn not_replaced(error: RecoverError) -> Failure {
    let hint = match error {
        RecoverError::TooManyKeys => {
            "make another network with `peersock network create`, and let machines join it"
        }
        RecoverError::Changed => "run the command again if the key is to change once more",
        RecoverError::OtherIdentity => "run `peersock network renew` first, and give the recovery words",
        _ => hint(&error),
    };
    Failure::new(format_args!("the network's key is not replaced: {error}"), hint)
}
