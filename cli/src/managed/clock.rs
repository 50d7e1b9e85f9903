//! `peersock network accept-clock`: the clock of a controller that was ahead, and is right again.

use std::mem::MaybeUninit;

use peersock::overlay::membership::MemberName;
use peersock_controller::RecoverError;

use super::admin::OfNetwork;
use super::restore::hint;
use super::{duration, now, who, words};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::stdio;

/// Say that the clock of a controller's machine is right, after it was ahead
///
/// A controller that has signed by a clock which was ahead waits until that time comes. This command ends the
/// wait, also while the controller runs. Check the clock of the machine first: with a clock that is behind,
/// members refuse what the controller signs. A controller does the same itself if the system says that its
/// clock is synchronised (NTP).
///
/// Reads the 12 recovery words from stdin if the network's key is not stored here, and the right to issue
/// certificates was renewed while the clock was ahead.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  date && peersock network accept-clock
  peersock network accept-clock -n team < words.txt   # of a network made with --offline")]
pub(crate) struct AcceptClockArgs {
    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn accept_clock(args: &AcceptClockArgs) -> Outcome {
    let mut controller = args.of.open()?;
    args.of.learn_keys(&mut controller)?;
    let lag = controller.clock_lag(now());
    if lag.is_zero() {
        stdio::note(format_args!("{} has signed nothing by a later clock", controller.name()));
        return Ok(());
    }
    let accepted = match controller.accept_clock(now(), &who(), None) {
        Err(RecoverError::Offline | RecoverError::OtherIdentity) => {
            controller.accept_clock(now(), &who(), Some(&words::read()?))
        }
        accepted => accepted,
    };
    let late = accepted.map_err(|error| not_accepted(&error))?;
    print(format_args!(
        "{} signs the present time again, {} earlier",
        controller.name(),
        duration::shown(lag)
    ))?;
    tell_of_late(&late);
    Ok(())
}

/// Says which members need other keys.
pub(super) fn tell_of_late(late: &[MemberName]) {
    for name in late {
        stdio::note(format_args!(
            "{name} was changed while the clock was ahead, and its key counts from that time on only: run `peersock \
             id --rekey` there, and `peersock network invite --replace {name}` here"
        ));
    }
}

pub(super) fn not_accepted(error: &RecoverError) -> Failure {
    Failure::new(format_args!("the clock is not accepted: {error}"), hint(error))
}

/// Returns true if the system keeps its clock in step with other clocks.
#[allow(unsafe_code)]
pub(super) fn is_synchronised() -> bool {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: the structure is plain numbers, for which zeros are valid. Without modes the call only reads.
    let read = unsafe { libc::adjtimex(state.as_mut_ptr()) };
    // SAFETY: see above.
    let state = unsafe { state.assume_init() };
    read >= 0 && read != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}
