//! A second thread ends both directions of a stream while both are full, compared with the kernel's sockets.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock_fd::Errno;
use rustix::net::Shutdown;

use crate::common::{Served, overlay};
use crate::world::World;

/// Bytes that fill all buffers of a stream.
const MAX_BYTES: usize = 256 << 20;

/// A thread that writes until it is refused.
struct Writer {
    written: Arc<AtomicUsize>,
    thread: JoinHandle<Result<(), ErrorKind>>,
}

impl Writer {
    /// Starts to write, and waits until the stream takes no more.
    fn fill(mut file: File) -> Self {
        let written = Arc::new(AtomicUsize::new(0));
        let so_far = Arc::clone(&written);
        let thread = thread::spawn(move || {
            while so_far.load(Ordering::Relaxed) < MAX_BYTES {
                let len = file.write(&[7; 65_536]).map_err(|error| error.kind())?;
                so_far.fetch_add(len, Ordering::Relaxed);
            }
            Ok(())
        });
        let mut quiet = (0, 0);
        while quiet.1 < 20 {
            thread::sleep(Duration::from_millis(25));
            let now = written.load(Ordering::Relaxed);
            quiet = if now == quiet.0 && now > 0 { (now, quiet.1 + 1) } else { (now, 0) };
        }
        Self { written, thread }
    }

    /// Waits until the writer is refused. Returns the number of bytes that were taken from it, and the error.
    fn refused(self) -> (usize, ErrorKind) {
        let refused = self.thread.join().expect("no panic").expect_err("nothing has read all of it");
        assert!(matches!(refused, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{refused}");
        (self.written.load(Ordering::Relaxed), refused)
    }
}

/// Reads until the end or an error. Returns the number of bytes read.
fn read_all(file: &mut File) -> (usize, io::Result<()>) {
    let (mut len, mut buf) = (0, vec![0; 65_536]);
    loop {
        match file.read(&mut buf) {
            Ok(0) => return (len, Ok(())),
            Ok(read) => len += read,
            Err(error) => return (len, Err(error)),
        }
    }
}

/// The ends of a stream, and the world that they belong to.
struct Ends {
    world: World,
    near: File,
    far: File,
    _nodes: Option<(Served, Served)>,
}

impl Ends {
    fn of_each_world() -> [Self; 2] {
        let nodes = Served::pair();
        let (near, far) = nodes.0.connect(&nodes.1);
        let world = World::Overlays(Arc::clone(&nodes.0.client));
        let overlay = Self { world, near, far, _nodes: Some(nodes) };
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a free port");
        let near = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let far = listener.accept().expect("a connection").0;
        let [near, far] = [near, far].map(|stream| File::from(OwnedFd::from(stream)));
        [Self { world: World::Kernels, near, far, _nodes: None }, overlay]
    }

    fn name(&self) -> &'static str {
        if matches!(self.world, World::Kernels) { "kernel" } else { "overlay" }
    }

    /// Fills both directions, and ends both at the near end. Returns the number of bytes that were taken from
    /// its writer, and the writer of the far end, which still waits.
    fn fill_and_shut(&self) -> (usize, Writer) {
        let [near, far] = [&self.near, &self.far].map(|end| Writer::fill(end.try_clone().expect("a copy")));
        let copy = OwnedFd::from(self.near.try_clone().expect("a copy"));
        self.world.shut(&copy, Shutdown::Both).expect("it is connected");
        (near.refused().0, far)
    }
}

#[test]
fn a_writer_is_told_all_that_was_taken_arrives_and_the_other_direction_is_reset() {
    for ends in Ends::of_each_world() {
        let name = ends.name();
        let (taken, far) = ends.fill_and_shut();
        let Ends { mut near, far: mut other, world, _nodes } = ends;
        // The end of the direction follows all that the writer has handed over.
        let (len, end) = read_all(&mut other);
        assert!(end.is_ok() && len >= taken, "{name}: {len} of {taken}, {end:?}");
        assert!(len < taken + 65_536, "{name}: {len} of {taken}");
        // Data that had arrived is still read; the rest is refused. The kernel says so after its next probe
        // of the closed window, which is minutes apart.
        let (len, _) = read_all(&mut near);
        assert!(len > 0, "{name}");
        drop(near);
        if let World::Overlays(_) = world {
            let (handed_over, _) = far.refused();
            assert!(len < handed_over, "{name}: {len} of {handed_over}");
        }
    }
}

#[test]
fn closing_after_that_resets_what_is_not_read() {
    for ends in Ends::of_each_world() {
        let name = ends.name();
        let (taken, far) = ends.fill_and_shut();
        let Ends { near, far: mut other, .. } = ends;
        drop(near);
        // The error of the reset is for the blocked writer, or for the reader.
        let (_, refused) = far.refused();
        let (len, end) = read_all(&mut other);
        let ends = [Some(refused), end.err().map(|error| error.kind())];
        assert!(ends.contains(&Some(ErrorKind::ConnectionReset)), "{name}: {ends:?}");
        assert!(len < taken, "{name}: {len} of {taken}");
    }
}

/// As in Linux, data that nothing reads keeps the window closed.
#[test]
fn a_peer_that_reads_no_more_takes_no_more_than_fits() {
    for ends in Ends::of_each_world() {
        let name = ends.name();
        let near = OwnedFd::from(ends.near);
        ends.world.shut(&near, Shutdown::Read).expect("it is connected");
        let far = Writer::fill(ends.far.try_clone().expect("a copy"));
        let taken = far.written.load(Ordering::Relaxed);
        assert!(taken < MAX_BYTES, "{name}: it takes everything");
        drop(near);
        // The call that waited returns the length of what it has written so far, and the next one the error.
        let (written, _) = far.refused();
        assert!(written < taken + 65_536, "{name}: {written} after {taken}");
    }
}

/// Returns the pending error of an end.
fn pending_error(world: &World, fd: &OwnedFd) -> Option<Errno> {
    match world {
        World::Overlays(_) => overlay(fd).take_error().expect("a socket"),
        World::Kernels => rustix::net::sockopt::socket_error(fd).expect("a socket").err(),
    }
}

#[test]
fn a_reset_is_told_to_a_program_that_reads_nothing() {
    for ends in Ends::of_each_world() {
        let name = ends.name();
        let Ends { world, mut near, mut far, _nodes } = ends;
        near.write_all(b"unread").expect("room");
        rustix::fs::fcntl_setfl(&far, rustix::fs::OFlags::NONBLOCK).expect("a socket");
        let (mut taken, mut full) = (0, 0);
        while full < 20 {
            match far.write(&[7; 65_536]) {
                Ok(len) => (taken, full) = (taken + len, 0),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    full += 1;
                    thread::sleep(Duration::from_millis(25));
                }
            }
        }
        drop(far);
        let near = OwnedFd::from(near);
        let until = Instant::now() + Duration::from_secs(20);
        while pending_error(&world, &near) != Some(Errno::CONNRESET) {
            assert!(Instant::now() < until, "{name}: nothing is told");
            thread::sleep(Duration::from_millis(10));
        }
        let mut near = File::from(near);
        assert!(near.write(&[0; 1000]).is_err(), "{name}: it is taken and lost");
        // What has arrived can still be read.
        assert!(read_all(&mut near).0 > 0, "{name}: of {taken}");
    }
}
