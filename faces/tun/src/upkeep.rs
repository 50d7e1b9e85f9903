//! Restores settings of a device that other programs have removed: network managers, scripts, people.
//!
//! The kernel reports each change. Some time after the first of several changes, one check sets everything
//! that is missing. Settings that are removed every time are restored more and more rarely.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{changes, open};
use crate::placing::Placing;
use crate::{ExitRoutes, Filter, Settings, Tun};

/// Delay from a change to the check, because changes come in groups.
const CHECK_DELAY: Duration = Duration::from_millis(50);

/// Longest interval between two checks while settings are removed each time, or cannot be set. It is a
/// minute, but a second where an exit is used, because packets bypass the exit until then.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(60);
const LONGEST_PAUSE_OF_EXIT: Duration = Duration::from_secs(1);

/// Limit of changes read at once; the others wait for the next turn.
const MAX_CHANGES_PER_TURN: usize = 10_000;

/// Inverse of the time share of checks, because a check takes a second on a router with a million constantly
/// changing routes.
const CHECK_TIME_DIVISOR: u32 = 20;

/// Keeper of devices, filters and the rules of an exit.
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

/// The interface, the missing part, and the error of the kernel.
type Failed = (String, String, io::Error);

/// A finding of a check.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change {
    /// Another program has set the interface down, and its settings are gone.
    Down {
        /// The interface's name.
        device: String,
    },
    /// Missing parts were set again.
    SetAgain {
        /// The interface's name.
        device: String,
        /// The names of the missing parts.
        parts: Vec<String>,
    },
    /// A part is missing, and could not be set. Reported once.
    Failed {
        /// The interface's name.
        device: String,
        /// The name of the missing part.
        part: String,
        /// The error of the kernel.
        source: io::Error,
    },
}

impl Upkeep {
    /// Keeps devices as in their settings, and their filters. Changes count from now on.
    ///
    /// # Errors
    /// The error of the kernel.
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
            pause: CHECK_DELAY,
            last_set: None,
            failed: Vec::new(),
        })
    }

    /// Keeps the rules of an exit, too.
    ///
    /// # Errors
    /// The error of the kernel about the device.
    pub fn keep_exit(&mut self, routes: ExitRoutes, device: &Tun) -> io::Result<()> {
        self.exit = Some((routes, device.index()?));
        Ok(())
    }

    /// Returns the filters only.
    pub fn into_filters(self) -> Vec<Filter> {
        self.filters
    }

    /// Returns the only descriptors that this needs.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let filters = self.filters.iter().map(Filter::socket);
        [self.questions.as_fd(), self.changes.as_fd()].into_iter().chain(filters)
    }

    /// Returns the descriptor that is readable when something has changed: call [`Upkeep::note_changes`]
    /// then.
    pub fn changes(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    /// Reads pending changes and schedules a check.
    pub fn note_changes(&mut self) {
        // If there are too many, some are lost (ENOBUFS), which also counts as a change.
        let is_last = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let _ = (0..MAX_CHANGES_PER_TURN)
            .take_while(|_| !self.changes.recv_from_full().is_err_and(is_last))
            .count();
        self.due.get_or_insert_with(|| Instant::now() + self.pause);
    }

    /// Returns the time until the next check; `None` while nothing changes.
    pub fn timeout(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Sets missing parts if a check is due. Returns the findings.
    pub fn look(&mut self) -> Vec<Change> {
        let now = Instant::now();
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let longest = if self.exit.is_some() { LONGEST_PAUSE_OF_EXIT } else { MAX_CHECK_INTERVAL };
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
        } else if self.last_set.is_none_or(|last| now - last > MAX_CHECK_INTERVAL) {
            self.pause = CHECK_DELAY;
        }
        let names: Vec<_> =
            failed.iter().map(|(device, part, error)| format!("{device} {part} {error}")).collect();
        let is_told = std::mem::replace(&mut self.failed, names.clone());
        let news = failed.into_iter().zip(names).filter(|(_, name)| !is_told.contains(name));
        changes.extend(news.map(|((device, part, source), _)| Change::Failed { device, part, source }));
        // Retry parts that could not be set.
        self.due = (!self.failed.is_empty()).then(|| now + longest);
        self.pause = self.pause.max(now.elapsed() * CHECK_TIME_DIVISOR);
        changes
    }

    fn look_at(&mut self, at: usize, changes: &mut Vec<Change>, failed: &mut Vec<Failed>) {
        let Watched { placing, is_down } = &mut self.devices[at];
        let device = placing.name().to_owned();
        // If the device is gone, the program ends for another reason.
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
        // Errors do not stop the work: each is noted, and the rest is still set.
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
