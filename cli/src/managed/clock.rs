//! The clock of a controller's machine: a controller that serves waits for a right one, and
//! `peersock network accept-clock` confirms it.

use std::time::{Duration, Instant};

use peersock::overlay::membership::UnixTime;
use peersock_controller::{ClockState, Controller};
use rustix::time::{ClockId, clock_gettime};

use super::admin::OfNetwork;
use super::{duration, now, who};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::stdio;

/// Interval at which a controller repeats for what it waits.
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// Time for which a controller waits until the system knows that its clock is right, after it was off for
/// [`LONGEST_REST`] at most.
const UNKNOWN_FOR: Duration = Duration::from_secs(600);

/// Longest time off after which a controller goes on by a clock that no person has confirmed.
const LONGEST_REST: Duration = Duration::from_secs(30 * 86_400);

/// Difference of the clock from the time that has passed, up to which it runs on.
const DRIFT: Duration = Duration::from_secs(600);

/// Confirm the clock of a controller's machine
///
/// A controller that was off for more than 18 hours serves by the machine's clock as soon as the system says
/// that the clock is synchronised (NTP), and otherwise after 10 minutes. After more than 30 days it waits for
/// this command, because the clock may be ahead. Check the clock first: what is signed by a clock that is
/// ahead cannot be taken back, and the controller waits until that time has come.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  date && peersock network accept-clock
  peersock network accept-clock -n team")]
pub(crate) struct AcceptClockArgs {
    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn accept_clock(args: &AcceptClockArgs) -> Outcome {
    let mut controller = args.of.open_quietly()?;
    let name = controller.name();
    match controller.clock(now()) {
        ClockState::Leapt(by) => {
            controller.accept_clock(now(), &who()).map_err(|error| not_accepted(&error))?;
            print(format_args!("{name} goes on {} after its last time", duration::shown(by)))
        }
        ClockState::Behind(lag) => Err(Failure::new(
            format_args!(
                "the clock is {} behind what the controller of {name} has signed",
                duration::shown(lag)
            ),
            "set the clock; if it was ahead before, the controller goes on when that time comes",
        )),
        _ => {
            stdio::note(format_args!("the controller of {name} has no doubt about this clock"));
            Ok(())
        }
    }
}

fn not_accepted(error: &peersock_controller::StoreError) -> Failure {
    Failure::new(format_args!("the clock is not confirmed: {error}"), "try again")
}

/// Returns an error if the controller would sign by a clock that no person has confirmed.
pub(super) fn check(controller: &mut Controller) -> Outcome {
    let ClockState::Leapt(by) = controller.clock(now()) else { return Ok(()) };
    Err(Failure::new(
        format_args!(
            "this machine's clock is {} after the last time of {}'s controller, and may be ahead",
            duration::shown(by),
            controller.name()
        ),
        format_args!(
            "check the clock, and run `peersock network accept-clock -n {}` if it is right",
            controller.name()
        ),
    ))
}

/// Says that a command counts from the last time of the controller.
pub(super) fn tell(controller: &mut Controller) {
    if let ClockState::Leapt(by) = controller.clock(now()) {
        stdio::note(format_args!(
            "{}: check it, and run `peersock network accept-clock -n {}`",
            doubt(controller, by),
            controller.name()
        ));
    }
}

fn doubt(controller: &Controller, by: Duration) -> String {
    let (by, name) = (duration::shown(by), controller.name());
    format!("this machine's clock is {by} after the last time of {name}'s controller, and may be ahead")
}

/// Judgement of the machine's clock by a controller that serves.
#[derive(Default)]
pub(super) struct ClockWatch {
    said: Option<Instant>,
    /// Moment of the first doubt.
    since: Option<Instant>,
    /// Time since the machine's start, its sleep included, and the clock, when that was last right.
    right: Option<(Duration, UnixTime)>,
}

impl ClockWatch {
    /// Returns true if the controller can serve by the clock. Otherwise says why not, and confirms the clock
    /// if the system says that it is right, or nothing speaks against it for long.
    pub(super) fn is_right(&mut self, controller: &mut Controller) -> bool {
        let state = controller.clock(now());
        let said = match state {
            ClockState::Behind(lag) => format!(
                "this machine's clock is {} behind what this controller has signed, so members would \
                 refuse it: waiting until the clock is set; if it is right now, it was ahead before, and the \
                 controller goes on when that time comes",
                duration::shown(lag)
            ),
            ClockState::Leapt(by) => {
                let since = *self.since.get_or_insert_with(Instant::now);
                let has_run_on = self.has_run_on();
                // A clock that this process saw being set has no rest to explain it.
                let is_short = by <= LONGEST_REST && has_run_on.is_none();
                let is_known = has_run_on == Some(true) || is_synchronised();
                if is_known || is_short && since.elapsed() >= UNKNOWN_FOR {
                    return self.confirm(controller, by);
                }
                let until = if is_short { ", or 10 minutes have passed" } else { "" };
                format!(
                    "{}: waiting until the system says that it is synchronised (NTP){until}; if it is right, \
                     run `peersock network accept-clock -n {}`",
                    doubt(controller, by),
                    controller.name()
                )
            }
            _ => {
                self.note_right();
                return true;
            }
        };
        if self.said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            self.said = Some(Instant::now());
            stdio::note(said);
        }
        false
    }

    fn confirm(&mut self, controller: &mut Controller, by: Duration) -> bool {
        match controller.accept_clock(now(), "controller") {
            Ok(()) => {
                stdio::note(format_args!("going on {} after the last time", duration::shown(by)));
                self.note_right();
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the clock is not confirmed");
                false
            }
        }
    }

    /// Ends all doubts.
    fn note_right(&mut self) {
        *self = Self { right: Some((since_boot(), now())), ..Self::default() };
    }

    /// Returns true if the clock has gone on with the time that has passed since it was last right, as after
    /// the sleep of a laptop, and false if it was set; `None` without a time when it was right.
    fn has_run_on(&self) -> Option<bool> {
        let (then, clock) = self.right?;
        let (passed, leapt) = (since_boot().saturating_sub(then), now().since(clock));
        Some(passed.abs_diff(leapt) <= DRIFT)
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Difference in seconds by which the kernel's clock may differ from this program's.
#[cfg(target_os = "linux")]
const SAME_CLOCK: u64 = 60;

/// Returns true if the kernel says that its clock is in step with other clocks, and it is the clock of this
/// program.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn is_synchronised() -> bool {
    let mut state = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: the structure is plain numbers, for which zeros are valid. Without modes the call only reads.
    let read = unsafe { libc::adjtimex(state.as_mut_ptr()) };
    // SAFETY: see above.
    let state = unsafe { state.assume_init() };
    let seconds = u64::try_from(state.time.tv_sec).unwrap_or(0);
    // A program under faketime has another one.
    let is_same = (now().as_millis() / 1000).abs_diff(seconds) <= SAME_CLOCK;
    read >= 0 && read != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0 && is_same
}

/// Other systems do not tell.
#[cfg(not(target_os = "linux"))]
fn is_synchronised() -> bool {
    false
}
