//! Epoll sets of another process: a socket that was added to a set before it connects is added again once it
//! is another socket.
//!
//! A set identifies its members by descriptor number and open file together. So the thread that removes or
//! adds a member must have it under the same number, which a thread with a separate descriptor table can
//! arrange.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{self, Sender};
use std::thread;

use libc::{c_int, c_uint, epoll_event};
use peersock_bsd::Result;
use peersock_bsd::kernel::check;
use rustix::process::PidfdGetfdFlags;
use rustix::thread::UnshareFlags;

use crate::target;

/// Maximum number of a process's descriptors inspected.
const MAX_DESCRIPTORS: usize = 4096;

/// A set that contains a descriptor, with the registered events.
pub(crate) type Registration = (RawFd, epoll_event);

/// Returns the sets of a process that contain its descriptor `number` as the socket with this inode.
pub(crate) fn find(thread: i32, number: RawFd, inode: u64) -> Vec<Registration> {
    let folder = format!("/proc/{thread}/fd");
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten().take(MAX_DESCRIPTORS);
    let sets = entries.filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventpoll]")
    });
    let numbers = sets.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    let events = numbers.filter_map(|set| {
        let info = fs::read_to_string(format!("/proc/{thread}/fdinfo/{set}")).ok()?;
        let event = info.lines().find_map(|line| member(line, number, inode))?;
        Some((set, event))
    });
    events.collect()
}

/// Returns the descriptors of a process that refer to the socket with this inode.
pub(crate) fn copies(thread: i32, inode: u64) -> Vec<RawFd> {
    let entries =
        fs::read_dir(format!("/proc/{thread}/fd")).into_iter().flatten().flatten().take(MAX_DESCRIPTORS);
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| is_socket(thread, *number, inode)).collect()
}

/// Returns true if a descriptor of a process refers to the socket with this inode.
pub(crate) fn is_socket(thread: i32, number: RawFd, inode: u64) -> bool {
    let name = fs::read_link(format!("/proc/{thread}/fd/{number}"));
    name.is_ok_and(|name| name.as_os_str() == format!("socket:[{inode}]").as_str())
}

/// Parses the events in a line of a set's fdinfo (proc_pid_fdinfo(5)), if it describes this member.
fn member(line: &str, number: RawFd, inode: u64) -> Option<epoll_event> {
    let mut words = line.split([' ', ':']).filter(|word| !word.is_empty());
    let mut value = |name| words.by_ref().find(|word| *word == name).and_then(|_| words.next());
    let is_it = value("tfd")?.parse() == Ok(number);
    let events = u32::from_str_radix(value("events")?, 16).ok()?;
    let data = u64::from_str_radix(value("data")?, 16).ok()?;
    let its = u64::from_str_radix(value("ino")?, 16).ok()?;
    (is_it && its == inode).then_some(epoll_event { events, u64: data })
}

/// The thread that changes sets.
#[derive(Debug)]
pub(crate) struct Sets(Sender<Job>);

struct Job {
    thread: i32,
    number: RawFd,
    operation: c_int,
    registrations: Vec<Registration>,
    done: Sender<()>,
}

impl Sets {
    /// Starts the thread; it ends when this is dropped.
    /// Fails if the system has no more threads.
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name("epoll sets".into()).spawn(move || {
            // SAFETY: this thread uses only descriptors that it opens later.
            let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) };
            if unshared.is_ok() {
                close_all();
            }
            for job in queue {
                if unshared.is_ok() {
                    if let Err(error) = change(&job) {
                        tracing::debug!(%error, "an epoll set keeps what it had");
                    }
                    close_all();
                }
                let _ = job.done.send(());
            }
        })?;
        Ok(Self(jobs))
    }

    /// Removes a descriptor from the sets.
    pub(crate) fn remove(&self, thread: i32, number: RawFd, registrations: &[Registration]) {
        self.run(thread, number, libc::EPOLL_CTL_DEL, registrations.to_vec());
    }

    /// Adds it again.
    pub(crate) fn add(&self, thread: i32, number: RawFd, registrations: Vec<Registration>) {
        self.run(thread, number, libc::EPOLL_CTL_ADD, registrations);
    }

    fn run(&self, thread: i32, number: RawFd, operation: c_int, registrations: Vec<Registration>) {
        if registrations.is_empty() {
            return;
        }
        let (done, wait) = mpsc::channel();
        if self.0.send(Job { thread, number, operation, registrations, done }).is_ok() {
            let _ = wait.recv();
        }
    }
}

/// Executes the job in an empty descriptor table.
fn change(job: &Job) -> Result<()> {
    let process = target::process(job.thread)?;
    // Keep the member's number occupied from now on, so that later descriptors get other numbers.
    let process = match process.as_raw_fd() == job.number {
        true => rustix::io::dup(&process)?,
        false => process,
    };
    let fetch = |number| rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty());
    place(&process, job.number)?;
    let member = fetch(job.number)?;
    place(&member, job.number)?;
    for (set, event) in &job.registrations {
        let (set, mut event) = (fetch(*set)?, *event);
        // SAFETY: the event is a live variable.
        check(unsafe {
            libc::syscall(libc::SYS_epoll_ctl, set.as_raw_fd(), job.operation, job.number, &raw mut event)
        })?;
    }
    Ok(())
}

/// Makes `number` refer to `fd`, until all are closed.
fn place(fd: &OwnedFd, number: RawFd) -> Result<()> {
    // SAFETY: in this thread's table nothing owns the number; dropping does not close it.
    let mut to = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    rustix::io::dup2(fd.as_fd(), &mut to)
}

/// Closes every descriptor of this thread's table.
fn close_all() {
    let (first, last, flags): (c_uint, c_uint, c_uint) = (0, c_uint::MAX, 0);
    // SAFETY: the table is this thread's alone, and nothing owns its descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_by_its_number_and_its_inode() {
        let line = "tfd:        5 events: 80002019 data: ffff00000007  pos:0 ino:3f sdev:8";
        let found = member(line, 5, 0x3f).unwrap();
        assert_eq!(({ found.events }, { found.u64 }), (0x8000_2019, 0xffff_0000_0007));
        assert!(member(line, 6, 0x3f).is_none() && member(line, 5, 0x40).is_none());
        assert!(member("flags:\t02000002", 5, 0x3f).is_none());
    }

    #[test]
    fn a_set_has_another_socket_under_the_same_number() {
        use rustix::event::epoll;
        let (kind, flags) = (rustix::net::SocketType::STREAM, rustix::net::SocketFlags::CLOEXEC);
        let pair = || rustix::net::socketpair(rustix::net::AddressFamily::UNIX, kind, flags, None).unwrap();
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let ((mut member, _first), (second, other)) = (pair(), pair());
        let wanted = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&set, &member, epoll::EventData::new_u64(42), wanted).unwrap();
        // The table of this test's thread is the process's.
        let (process, number) = (std::process::id() as i32, member.as_raw_fd());
        let inode = rustix::fs::fstat(&member).unwrap().st_ino;
        let found = find(process, number, inode);
        assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [set.as_raw_fd()]);
        let sets = Sets::start().unwrap();
        sets.remove(process, number, &found);
        assert!(find(process, number, inode).is_empty());
        rustix::io::dup2(&second, &mut member).unwrap();
        sets.add(process, number, found);
        rustix::io::write(&other, b"x").unwrap();
        let mut events = Vec::with_capacity(4);
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None).unwrap();
        assert_eq!(events.iter().map(|event| event.data.u64()).collect::<Vec<_>>(), [42]);
    }
}
