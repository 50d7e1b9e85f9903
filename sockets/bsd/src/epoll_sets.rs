//! The epoll sets of a descriptor, to which a replacement socket must be added.
//!
//! The kernel lists them (proc(5), /proc/self/fdinfo), which is slow but rare.

use std::fs;
use std::os::fd::RawFd;

use libc::epoll_event;

/// Epoll sets with a descriptor's registration in each.
pub type EpollSets = Vec<(RawFd, epoll_event)>;

/// Returns the sets of this process that contain a descriptor, with its registered events.
pub fn find(fd: RawFd) -> EpollSets {
    let mut sets = EpollSets::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let is_set = fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventpoll]");
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let (true, Some(set)) = (is_set, number) {
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{set}")).unwrap_or_default();
            sets.extend(
                info.lines()
                    .filter_map(registration)
                    .filter(|(of, _)| *of == fd)
                    .map(|(_, event)| (set, event)),
            );
        }
    }
    sets
}

/// Parses a line `tfd: 5 events: 19 data: 5 …`, where all but the first number are hexadecimal.
fn registration(line: &str) -> Option<(RawFd, epoll_event)> {
    let mut words = line.split_ascii_whitespace();
    let mut value = |name: &str| if words.next() == Some(name) { words.next() } else { None };
    let fd = value("tfd:")?.parse().ok()?;
    let events = u32::from_str_radix(value("events:")?, 16).ok()?;
    let data = u64::from_str_radix(value("data:")?, 16).ok()?;
    Some((fd, epoll_event { events, u64: data }))
}
