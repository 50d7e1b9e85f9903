//! `peersock network rekey`: another key for a managed network.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

use peersock::overlay::membership::{NetworkKeys, UnixTime};
use peersock_controller::{Controller, RecoverError, RecoveryWords};
use rustix::fs::FileType;
use zeroize::Zeroizing;

use super::admin::{Here, OfNetwork, served};
use super::restore::{hint, read_words, renews};
use super::{duration, now, who};
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
    let mut controller = args.of.open()?;
    args.of.learn_keys(&mut controller)?;
    let is_stored = renews(&mut controller)?;
    let words = if is_stored { None } else { Some(read_words()?) };
    let mut rng = rand::rng();
    let next = controller.draw_next_key(&mut rng, words.as_ref()).map_err(not_replaced)?;
    let begun = now();
    let end = if args.now { begun } else { begun.plus(LASTS.max(controller.longest_lifetime())) };
    // Before it counts, because words that nobody has seen could not be told again.
    show(next.words())?;
    let is_offline = args.offline || !controller.has_key();
    let replaced = controller.rekey(begun, &mut rng, &who(), &next, end, is_offline);
    let is_removed = replaced
        .inspect_err(|_| stdio::note("these words count for nothing: forget them"))
        .map_err(not_replaced)?;
    if !is_removed {
        stdio::note(format_args!(
            "another program uses the store, which may still hold the former key: run `peersock network renew -n \
             {} --offline` later",
            controller.name()
        ));
    }
    tell(args, &controller, begun, end)
}

/// Shows the words of the new key on stderr.
fn show(words: &RecoveryWords) -> Outcome {
    let lost = |reason: &dyn Display| {
        Failure::new(
            format_args!("the network's key is not replaced: the new words cannot be shown: {reason}"),
            "give the command a terminal, or a file for its messages",
        )
    };
    let stderr = rustix::fs::fstat(io::stderr()).map_err(|error| lost(&error))?;
    let null = rustix::fs::stat("/dev/null").map_err(|error| lost(&error))?;
    // A closed stderr is this file, too.
    if FileType::from_raw_mode(stderr.st_mode).is_char_device() && stderr.st_rdev == null.st_rdev {
        return Err(lost(&"stderr is /dev/null"));
    }
    let line = format!("peersock: write this down, it restores the network from now on: {words}\n");
    io::stderr().write_all(Zeroizing::new(line).as_bytes()).map_err(|error| lost(&error))
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
        RecoverError::Changed => "run the command again if the key is to change once more",
        RecoverError::OtherIdentity => "run `peersock network renew` first, and give the recovery words",
        _ => hint(&error),
    };
    Failure::new(format_args!("the network's key is not replaced: {error}"), hint)
}
