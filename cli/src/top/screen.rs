//! The terminal while a table is drawn on it again and again: keys are read as they are pressed, and the
//! screen is as before when the program ends, however it ends.

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

/// Another screen than the one with the shell's lines, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// How long a signal waits for what is being drawn. A terminal that was halted (Ctrl-S) takes nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// What happens at the terminal.
pub(super) enum Event {
    /// Bytes of pressed keys.
    Keys(Vec<u8>),
    /// The screen has another size, or something else was on it.
    Changed,
}

/// The terminal as long as it is ours. Dropping it gives it back.
pub(super) struct Screen(());

/// Whether our screen is shown. Held while something is written, so that nothing is drawn on the shell's
/// screen.
static SHOWN: Mutex<bool> = Mutex::new(false);

/// The modes that the terminal had before; `None` while they are as they were, or if stdin is no terminal:
/// then there are no keys. Never held while something is written: a terminal that was halted takes modes.
static MODES: Mutex<Option<Termios>> = Mutex::new(None);

impl Screen {
    /// Whether stdout is a terminal that can be drawn on.
    pub(super) fn is_there() -> bool {
        io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Takes the terminal, and tells `events` of keys and changes. Signals end the program from now on with
    /// status 128 + signal, as they would have, after the terminal was given back.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn enter(events: &Sender<Event>) -> io::Result<Screen> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // First, or what is said would be on a screen that goes away.
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

    /// How many rows and columns there are.
    pub(super) fn size(&self) -> (usize, usize) {
        size()
    }

    /// Draws over what was drawn before.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn draw(&self, text: &str) -> io::Result<()> {
        let screen = frame(text, size(), false);
        let screen = if style::is_on(&io::stdout()) { screen } else { keep_movements(&screen) };
        let is_shown = locked(&SHOWN);
        // The terminal may have been given back for the end already.
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

/// Has stdin give each key when it is pressed, and not show it; signals of keys stay. Returns the modes that
/// it had.
fn read_at_once() -> io::Result<Termios> {
    let modes = rustix::termios::tcgetattr(io::stdin())?;
    let mut raw = modes.clone();
    raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
    Ok(modes)
}

/// Gives the terminal back, once.
fn leave() {
    // The modes first: they matter more, and a terminal that was halted takes no text.
    if let Some(modes) = locked(&MODES).take() {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &modes);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut is_shown = loop {
        match SHOWN.try_lock() {
            Ok(is_shown) => break is_shown,
            Err(TryLockError::Poisoned(error)) => break error.into_inner(),
            // Whoever draws may be this very thread, in a panic: its `Screen` comes here again.
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => return,
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
        }
    };
    if std::mem::take(&mut *is_shown) && takes_text(deadline) {
        let _ = write(LEAVE);
    }
}

/// Whether the terminal takes text by then.
fn takes_text(deadline: Instant) -> bool {
    let stdout = io::stdout();
    let mut waits = [PollFd::new(&stdout, PollFlags::OUT)];
    let patience = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(50));
    let patience = Timespec::try_from(patience).ok();
    // A signal that comes in between is taken for a no: then it is the second one that ends the program.
    rustix::event::poll(&mut waits, patience.as_ref()).is_ok_and(|count| count > 0)
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
                    // It was continued.
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

/// Writes to stdout past its buffer, which another thread may hold at the end.
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
