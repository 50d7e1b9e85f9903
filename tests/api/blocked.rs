//! Writers that wait for buffer space when the node ends, or leaves the network. Each gets its error at once,
//! and none uses a processor, neither before nor afterwards.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{Joined, Node};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::AsyncWriteExt as _;

use crate::common::{PATIENCE, alone, pair};

/// Time for which a wait is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// Maximum processor time while all writers wait, a small part of the watched time. A writer that polls in a
/// loop would use all of it.
const BUSY: Duration = Duration::from_millis(200);

/// Time that a busy machine may take to run a woken thread. Every timer is longer.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Time without a write after which all writers are taken to wait.
const STILL: Duration = Duration::from_millis(500);

const WRITERS: usize = 3;

#[test]
fn who_waits_to_write_when_the_node_is_shut_down_is_told_at_once() {
    let test = "blocked::who_waits_to_write_when_the_node_is_shut_down_is_told_at_once";
    alone(test, || play(|node, _| assert!(!node.shutdown(Duration::ZERO), "something is lost")));
}

#[test]
fn who_waits_to_write_when_the_network_is_left_is_told_at_once() {
    let test = "blocked::who_waits_to_write_when_the_network_is_left_is_told_at_once";
    alone(test, || play(|_, joined| assert!(joined.leave())));
}

/// The node lingers for a peer that reads, but a waiting writer does not wait with it.
#[test]
fn who_waits_to_write_does_not_wait_as_long_as_the_node_lingers() {
    let test = "blocked::who_waits_to_write_does_not_wait_as_long_as_the_node_lingers";
    let linger = 3 * AT_ONCE;
    alone(test, || {
        let begun = Instant::now();
        play(|node, _| {
            let node = node.clone();
            thread::spawn(move || node.shutdown(linger));
        });
        assert!(begun.elapsed() >= linger, "the peers are reset when the time is over");
    });
}

/// The node lingers because another connection has unsent data for a peer that does not read.
#[test]
fn who_waits_to_read_does_not_wait_as_long_as_the_node_lingers() {
    let [(node, _joined), (other, there)] = pair();
    let listener = TcpListener::bind_on(&other, (there.address(), 1000)).expect("a port");
    let to = SocketAddr::new(there.address().into(), 1000);
    let [mut owing, mut idle] = [(); 2].map(|()| TcpStream::connect_on(&node, to).expect("a connection"));
    let _peers = [(); 2].map(|()| listener.accept().expect("a connection").0);
    owing.set_nonblocking(true).expect("it can");
    // Data that does not fit now may fit when the peer has received the rest.
    while owing.write(&[0; 1 << 16]).is_ok() {
        while owing.write(&[0; 1 << 16]).is_ok() {}
        thread::sleep(STILL);
    }
    let reading = thread::spawn(move || (idle.read(&mut [0]), Instant::now()));
    thread::sleep(STILL);
    assert!(!reading.is_finished(), "nothing comes");
    let begun = Instant::now();
    let ending = thread::spawn(move || node.shutdown(3 * AT_ONCE));
    let (read, told) = reading.join().expect("no panic");
    assert_eq!(read.expect_err("the node is down").kind(), ErrorKind::NetworkDown);
    assert!(told - begun < AT_ONCE, "{:?}", told - begun);
    assert!(!ending.join().expect("no panic"), "the other one's data is lost");
}

/// Lets threads and tasks of the first node write until the buffers are full, then ends the node or network.
fn play(end: impl FnOnce(&Node, &Joined)) {
    let [(node, joined), (other, there)] = pair();
    let listener = TcpListener::bind_on(&other, (there.address(), 1000)).expect("a port");
    let to = SocketAddr::new(there.address().into(), 1000);
    let by_kernel = kernel_s();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let written = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    let mut tasks = Vec::new();
    for number in 0..WRITERS {
        let stream = TcpStream::connect_on(&node, to).expect("a connection");
        let count = Arc::clone(&written);
        threads.push(thread::spawn(move || fill(stream, &count)));
        let stream = runtime.block_on(peersock::TcpStream::connect_on(&node, to)).expect("a connection");
        tasks.push(runtime.spawn(fill_asynchronously(stream, Arc::clone(&written), number % 2 == 0)));
    }
    let peers: Vec<_> = (0..2 * WRITERS).map(|_| listener.accept().expect("a connection").0).collect();
    wait_until_still(&written);
    let before = written.load(Ordering::Relaxed);
    let used = processor_time_of(|| thread::sleep(WATCHED));
    assert_eq!(written.load(Ordering::Relaxed), before, "they wait");
    eprintln!("{used:?} of the processor in {WATCHED:?} of waiting; with the kernel's sockets {by_kernel:?}");
    assert!(used <= by_kernel + BUSY, "{used:?} of the processor while they wait");

    let ended = Instant::now();
    end(&node, &joined);
    let mut told: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    told.extend(tasks.into_iter().map(|task| runtime.block_on(task).expect("no panic")));
    for (error, at) in told {
        assert_eq!(error.kind(), ErrorKind::NetworkDown, "{error}");
        let took = at.saturating_duration_since(ended);
        eprintln!("told after {took:?}");
        assert!(took < AT_ONCE, "told after {took:?}");
    }
    for mut peer in peers {
        peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let error = io::copy(&mut peer, &mut io::sink()).expect_err("no end that looks complete");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    let used = processor_time_of(|| thread::sleep(WATCHED));
    eprintln!("{used:?} of the processor in {WATCHED:?} afterwards");
    assert!(used <= by_kernel + BUSY, "{used:?} of the processor afterwards");
}

/// Writes until an error, and returns the error and its time.
fn fill(mut stream: TcpStream, written: &AtomicUsize) -> (io::Error, Instant) {
    let block = vec![7; 1 << 16];
    loop {
        match stream.write(&block) {
            Ok(count) => written.fetch_add(count, Ordering::Relaxed),
            Err(error) => {
                let told = Instant::now();
                // If the connection was cut off, this sends no end.
                let _ = stream.shutdown(Shutdown::Write);
                return (error, told);
            }
        };
    }
}

/// Does the same in a task, by `write` or by `writable` and `try_write`.
async fn fill_asynchronously(
    mut stream: peersock::TcpStream,
    written: Arc<AtomicUsize>,
    asks_first: bool,
) -> (io::Error, Instant) {
    let block = vec![7; 1 << 16];
    loop {
        let done = match asks_first {
            true => match stream.writable().await {
                Ok(()) => stream.try_write(&block),
                Err(error) => Err(error),
            },
            false => stream.write(&block).await,
        };
        match done {
            Ok(count) => _ = written.fetch_add(count, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                let told = Instant::now();
                let _ = stream.shutdown().await;
                return (error, told);
            }
        }
    }
}

/// Returns the processor time of the same number of waits with kernel sockets.
fn kernel_s() -> Duration {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("an address");
    let written = Arc::new(AtomicUsize::new(0));
    let writer = |_| -> JoinHandle<()> {
        let mut stream = std::net::TcpStream::connect(to).expect("a connection");
        let written = Arc::clone(&written);
        thread::spawn(move || {
            while let Ok(count) = stream.write(&[7; 1 << 16]) {
                written.fetch_add(count, Ordering::Relaxed);
            }
        })
    };
    let writers: Vec<_> = (0..2 * WRITERS).map(writer).collect();
    let peers: Vec<_> = writers.iter().map(|_| listener.accept().expect("a connection")).collect();
    wait_until_still(&written);
    let used = processor_time_of(|| thread::sleep(WATCHED));
    drop(peers);
    writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
    used
}

fn wait_until_still(written: &AtomicUsize) {
    let (mut before, mut since, deadline) = (0, Instant::now(), Instant::now() + PATIENCE);
    while before == 0 || since.elapsed() < STILL {
        assert!(Instant::now() < deadline, "somebody reads");
        let now = written.load(Ordering::Relaxed);
        if now != before {
            (before, since) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the processor time of all threads of this process during `work`.
fn processor_time_of(work: impl FnOnce()) -> Duration {
    let now = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).expect("a time since the start");
    let before = now();
    work();
    now() - before
}
