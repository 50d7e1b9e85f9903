//! Others change the machine's network, too: network managers, scripts, people. What they have taken from a
//! device is set again.
//!
//! The kernel tells of each change. Some time after the first of several one look sets what is missing; what
//! is missing again and again, because somebody takes it each time, is set ever more rarely.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{changes, open};
use crate::placing::Placing;
use crate::{ExitRoutes, Filter, Settings, Tun};

/// From a change to the look: changes come in numbers.
const SETTLE: Duration = Duration::from_millis(50);

/// The longest time between two looks while something is taken each time, or cannot be set: a minute, but a
/// second where an exit is used, since packets go past it until then.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE_OF_EXIT: Duration = Duration::from_secs(1);

/// No more changes are read at once: the others wait for the next turn.
const MOST_CHANGES: usize = 10_000;

/// A look takes one part in so many of the time at most: on a router with a million routes that change all
/// the time, it takes a second.
const SHARE: u32 = 20;

/// Devices, filters and the rules of an exit, which are to stay as they are.
pub struct Upkeep {
    devices: Vec<Watched>,
    filters: Vec<Filter>,
    exit: Option<(ExitRoutes, u32)>,
    questions: Socket,
    changes: Socket,
    due: Option<Instant>,
    pause: Duration,
    last_set: Option<Instant>,
    failed: Vec<String>,
}

struct Watched {
    placing: Placing,
    is_down: bool,
}

/// The interface, what is missing there, and what the kernel says.
type Failed = (String, String, io::Error);

/// A finding of a look.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change {
    /// Somebody has set the interface down, and what it had is gone.
    Down {
        /// Its name.
        device: String,
    },
    /// Something was missing, and is there again.
    SetAgain {
        /// The interface's name.
        device: String,
        /// The names of what was missing.
        parts: Vec<String>,
    },
    /// Something is missing, and could not be set. It is told once.
    Failed {
        /// The interface's name.
        device: String,
        /// The name of what is missing.
        part: String,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Upkeep {
    /// Keeps devices as their settings say, and their filters. Changes count from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new<'a>(
        devices: impl IntoIterator<Item = (&'a Tun, &'a Settings)>,
        filters: Vec<Filter>,
    ) -> io::Result<Upkeep> {
        let watched = |(tun, settings): (&Tun, &Settings)| {
            Ok(Watched { placing: Placing::new(tun.index()?, settings), is_down: false })
        };
        Ok(Upkeep {
            devices: devices.into_iter().map(watched).collect::<io::Result<_>>()?,
            filters,
            exit: None,
            questions: open(NETLINK_ROUTE)?,
            changes: changes()?,
            due: None,
            pause: SETTLE,
            last_set: None,
            failed: Vec::new(),
        })
    }

    /// Keeps the rules of an exit, too.
    ///
    /// # Errors
    /// What the kernel says of the device.
    pub fn keep_exit(&mut self, routes: ExitRoutes, device: &Tun) -> io::Result<()> {
        self.exit = Some((routes, device.index()?));
        Ok(())
    }

    /// The filters alone.
    pub fn into_filters(self) -> Vec<Filter> {
        self.filters
    }

    /// The descriptors that this needs, and no others.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let filters = self.filters.iter().map(Filter::socket);
        [self.questions.as_fd(), self.changes.as_fd()].into_iter().chain(filters)
    }

    /// The descriptor that is readable when something has changed: call [`Upkeep::note_changes`] then.
    pub fn changes(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    /// Takes note of changes.
    pub fn note_changes(&mut self) {
        // With too many of them some are lost (ENOBUFS), which is a change as well.
        let is_last = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let _ = (0..MOST_CHANGES).take_while(|_| !self.changes.recv_from_full().is_err_and(is_last)).count();
        self.due.get_or_insert_with(|| Instant::now() + self.pause);
    }

    /// The time until the next look; `None` while nothing changes.
    pub fn timeout(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// If it is time, sets what is missing, and tells what that was.
    pub fn look(&mut self) -> Vec<Change> {
        let now = Instant::now();
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let longest = if self.exit.is_some() { LONGEST_PAUSE_OF_EXIT } else { LONGEST_PAUSE };
        let (mut changes, mut failed) = (Vec::new(), Vec::new());
        for at in 0..self.devices.len() {
            self.look_at(at, &mut changes, &mut failed);
        }
        for filter in &mut self.filters {
            if let Err(error) = filter.follow() {
                failed.push((String::new(), "the filter of the exit's links".to_owned(), error));
            }
        }
        if changes.iter().any(|change| matches!(change, Change::SetAgain { .. })) {
            self.pause = (self.pause * 2).min(longest);
            self.last_set = Some(now);
        } else if self.last_set.is_none_or(|last| now - last > LONGEST_PAUSE) {
            self.pause = SETTLE;
        }
        let names: Vec<_> =
            failed.iter().map(|(device, part, error)| format!("{device} {part} {error}")).collect();
        let is_told = std::mem::replace(&mut self.failed, names.clone());
        let news = failed.into_iter().zip(names).filter(|(_, name)| !is_told.contains(name));
        changes.extend(news.map(|((device, part, source), _)| Change::Failed { device, part, source }));
        // What could not be set is tried again.
        self.due = (!self.failed.is_empty()).then(|| now + longest);
        self.pause = self.pause.max(now.elapsed() * SHARE);
        changes
    }

    fn look_at(&mut self, at: usize, changes: &mut Vec<Change>, failed: &mut Vec<Failed>) {
        let Watched { placing, is_down } = &mut self.devices[at];
        let device = placing.name().to_owned();
        // One that is gone ends the program by itself.
        let Ok(link) = placing.link(&self.questions) else { return };
        let mut parts = Vec::new();
        let mut note = |part: String, added: io::Result<bool>| {
            match added {
                Ok(true) => parts.push(part),
                Ok(false) => {}
                Err(error) => failed.push((device.clone(), part, error)),
            }
            Ok(())
        };
        // No error ends this early: each is noted, and the rest is set nevertheless.
        let exit = self.exit.as_ref().filter(|(_, index)| *index == placing.index);
        if let Some((routes, _)) = exit {
            let _ = routes.place_rules(&self.questions, &mut note);
        }
        if link.is_up {
            if let Some(resized) = placing.resize(&self.questions, link) {
                let _ = note("its MTU".to_owned(), resized.map(|()| true));
            }
            let _ = placing.place(&self.questions, &mut note);
            if let Some((routes, index)) = exit {
                let _ = routes.place_routes(&self.questions, *index, &mut note);
            }
        }
        if !parts.is_empty() {
            changes.push(Change::SetAgain { device: device.clone(), parts });
        }
        if !link.is_up && !*is_down {
            changes.push(Change::Down { device });
        }
        *is_down = !link.is_up;
    }
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep").field("due", &self.due).finish_non_exhaustive()
    }
}
