//! Threads that poll for packets before they sleep.

use std::fs;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{IdentitySource, Interfaces, Joined, Network, NetworkId, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{PATIENCE, alone_on_its_loopback, network};

/// Busy-poll time beyond the maximum, so that the test detects a missing clamp.
const BUSY: Duration = Duration::from_secs(3600);

/// Time without any traffic.
const IDLE: Duration = Duration::from_secs(2);

fn member(network: NetworkId) -> (Node, Joined) {
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.busy_poll(BUSY).start().expect("a node starts on the loopback interface");
    let joined = node.join(Network::ad_hoc(network)).expect("the network is joined");
    (node, joined)
}

/// Returns the processor time of all threads of this process.
fn used() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("threads");
    let nanoseconds = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

#[test]
fn they_answer_and_sleep_when_nothing_happens() {
    // Beacons of other tests' nodes would wake these threads, which then poll for a while each time.
    alone_on_its_loopback("busy_poll::they_answer_and_sleep_when_nothing_happens", || {
        let network = network();
        let [(alpha, home), (beta, _)] = [member(network), member(network)];
        let listener = TcpListener::bind_on(&alpha, "[::]:1000").expect("a free port");
        let address = (home.address(), 1000);
        // The thread is not joined if something fails here.
        let echo = thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    stream.write_all(&byte).expect("room");
                }
            }
        });
        let mut stream = TcpStream::connect_on(&beta, address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        for sent in 0..100 {
            stream.write_all(&[sent]).expect("room");
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            assert_eq!(byte, [sent]);
        }
        let before = used();
        thread::sleep(IDLE);
        let used = used() - before;
        assert!(used < IDLE / 4, "{used:?} of a processor in {IDLE:?}, while nothing happens");
        drop(stream);
        // Tasks wait for the engine thread, which polls for packets, too.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let answers = async {
            let mut stream = peersock::TcpStream::connect_on(&beta, address).await.expect("connected");
            for sent in 0..100 {
                stream.write_all(&[sent]).await.expect("room");
                assert_eq!(stream.read_u8().await.expect("an answer"), sent);
            }
        };
        runtime.block_on(async { tokio::time::timeout(PATIENCE, answers).await.expect("answers") });
        echo.join().expect("it has seen both ends");
    });
}
