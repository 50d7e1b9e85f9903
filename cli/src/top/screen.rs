//! The terminal while a table is redrawn on it. Keys are read as they are pressed, and the screen is restored
//! however the program ends.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, Once, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::status::{frame, keep_movements, size};
use crate::style;

/// Escape sequences for the alternate screen without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Time that a signal waits for drawing to finish. A terminal that was stopped (Ctrl-S) accepts nothing.
const DRAWING_TIMEOUT: Duration = Duration::from_millis(500);

/// An event of the terminal.
pub(super) enum Event {
    /// Bytes of pressed keys.
    Keys(Vec<u8>),
    /// The screen has another size, or must be redrawn.
    Changed,
}

/// The terminal while this program uses it. Dropping it restores the terminal.
pub(super) struct Screen(());

/// True while the alternate screen is shown. Locked during writes, so that nothing is drawn on the shell's
/// screen.
static SHOWN: Mutex<bool> = Mutex::new(false);

/// Previous modes of the terminal. `None` while they are unchanged, or if stdin is not a terminal, so there
/// are no keys. Never locked during writes, because even a stopped terminal accepts modes.
static MODES: Mutex<Option<Termios>> = Mutex::new(None);

impl Screen {
    /// Returns true if stdout is a terminal that supports drawing.
    pub(super) fn is_there() -> bool {
        io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Takes over the terminal, and sends keys and changes to `events`. From now on signals restore the
    /// terminal and then end the program with status 128 + signal.
    ///
    /// # Errors
    /// Returns system errors.
    pub(super) fn enter(events: &Sender<Event>) -> io::Result<Screen> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // Leaves first, because otherwise the message would appear on a screen that disappears.
                leave();
                usual(panic);
            }));
        });
        attend_to_signals(events.clone())?;
        enter()?;
        if io::stdin().is_terminal() {
            let events = events.clone();
            thread::Builder::new().name("keys".into()).spawn(move || read_keys(&events))?;
        }
        Ok(Screen(()))
    }

    /// Returns the numbers of rows and columns.
    pub(super) fn size(&self) -> (usize, usize) {
        size()
    }

    /// Draws over the previous text.
    ///
    /// # Errors
    /// Returns system errors.
    pub(super) fn draw(&self, text: &str) -> io::Result<()> {
        let screen = frame(text, size(), false);
        let screen = if style::is_on(&io::stdout()) { screen } else { keep_movements(&screen) };
        let is_shown = locked(&SHOWN);
        // The terminal may have been restored already because the program is ending.
        if *is_shown { write(&screen) } else { Ok(()) }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> io::Result<()> {
    let mut is_shown = locked(&SHOWN);
    if *is_shown {
        return Ok(());
    }
    if io::stdin().is_terminal() {
        *locked(&MODES) = Some(read_at_once()?);
    }
    *is_shown = true;
    write(ENTER)
}

/// Makes stdin return each key when it is pressed, without echo; keys that send signals keep working. Returns
/// the previous modes.
fn read_at_once() -> io::Result<Termios> {
    let modes = rustix::termios::tcgetattr(io::stdin())?;
    let mut raw = modes.clone();
    raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
    Ok(modes)
}

/// Restores the terminal, once.
fn leave() {
    // Restores the modes first, because they matter more, and a stopped terminal accepts no text.
    if let Some(modes) = locked(&MODES).take() {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &modes);
    }
    let deadline = Instant::now() + DRAWING_TIMEOUT;
    let mut is_shown = loop {
        match SHOWN.try_lock() {
            Ok(is_shown) => break is_shown,
            Err(TryLockError::Poisoned(error)) => break error.into_inner(),
            // The lock may be held by this very thread, in a panic; dropping `Screen` then calls this again.
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => return,
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
        }
    };
    if std::mem::take(&mut *is_shown) && takes_text(deadline) {
        let _ = write(LEAVE);
    }
}

/// Returns true if the terminal accepts text before the deadline.
fn takes_text(deadline: Instant) -> bool {
    let stdout = io::stdout();
    let mut waits = [PollFd::new(&stdout, PollFlags::OUT)];
    let time_left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(50));
    let time_left = Timespec::try_from(time_left).ok();
    // A signal in between counts as false; then a second signal ends the program.
    rustix::event::poll(&mut waits, time_left.as_ref()).is_ok_and(|count| count > 0)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn attend_to_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH])?;
    let attend = move || {
        for signal in signals.forever() {
            match signal {
                SIGWINCH => {}
                SIGTSTP => {
                    leave();
                    let _ = emulate_default_handler(SIGTSTP);
                    // The process was continued.
                    let _ = enter();
                }
                signal => {
                    leave();
                    std::process::exit(128 + signal);
                }
            }
            let _ = events.send(Event::Changed);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(attend)?;
    Ok(())
}

fn read_keys(events: &Sender<Event>) {
    let mut keys = [0; 64];
    loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut keys) {
            Ok(0) => return,
            Ok(count) => {
                if events.send(Event::Keys(keys[..count].to_vec())).is_err() {
                    return;
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Writes to stdout without its buffer, which another thread may have locked at the end.
fn write(text: &str) -> io::Result<()> {
    let mut left = text.as_bytes();
    while !left.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => left = &left[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
