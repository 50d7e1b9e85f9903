//! The end of a process that has a node. Open connections are reset, remaining data is delivered as long as
//! the peer takes it, and lost data is reported.
//!
//! The exit handler runs on the main thread after the destruction of thread-local values. So the program
//! under test is this `main` itself, without the test harness.

#![expect(clippy::print_stdout, reason = "a test harness reports there")]

use std::error::Error;
use std::io::{ErrorKind, Read as _, Write as _};
use std::process::Command;
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{IdentitySource, Interfaces, Network, Node};

/// Tests by name, each with the function that runs in the ending process. The name says what must happen.
const ENDS: [(&str, End); 4] = [
    ("a_process_may_end_with_everything_open", end_with_everything_open),
    ("what_is_left_at_the_end_of_main_is_delivered_while_the_peer_takes_it", end_with_much_left),
    ("what_was_lost_at_the_end_of_main_is_said_on_stderr", end_beside_a_peer_that_resets),
    ("what_was_lost_by_a_node_that_is_dropped_is_said_on_stderr", end_without_the_process_s_node),
];

/// Function that ends a process.
type End = fn(Member) -> Result<(), Box<dyn Error>>;

/// Variable set in the process that must end.
const ENDING: &str = "PEERSOCK_TEST_ENDING";

/// Number of parts in which the peer reads the remaining data, one per hundredth of a second: seven seconds
/// in all. Earlier versions gave it five seconds.
const PARTS: usize = 700;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(name) = std::env::var_os(ENDING) {
        let (_, end) = ENDS.into_iter().find(|(known, _)| name == *known).expect("a known name");
        return end(Member::start(name == ENDS[3].0)?);
    }
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let names = ENDS.map(|(name, _)| name);
    if has("--list") {
        let listed = if has("--ignored") { &[][..] } else { &names[..] };
        listed.iter().for_each(|name| println!("{name}: test"));
        return Ok(());
    }
    let is_named = names.iter().any(|name| has(name));
    let chosen: Vec<_> = names.into_iter().filter(|name| !is_named || has(name)).collect();
    for name in &chosen {
        run(name)?;
        println!("test {name} ... ok");
    }
    let passed = chosen.len();
    println!("\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    Ok(())
}

/// Runs a process that ends in this way.
fn run(name: &str) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let output = Command::new(std::env::current_exe()?).env(ENDING, name).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}: {said}", output.status);
    if name == ENDS[1].0 {
        assert!(begun.elapsed() > Duration::from_secs(6), "the peer takes all of it in seven");
        let [sent, came] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
        assert_eq!(sent, came);
    } else if name == ENDS[0].0 {
        assert_eq!(said, "");
    } else {
        let line = "bytes that the program has sent were not delivered\n";
        assert!(said.starts_with("peersock: ") && said.ends_with(line), "{said}");
    }
    Ok(())
}

/// A member that ends, and the other one, which does not, with its listener.
struct Member {
    node: Node,
    other: Node,
    listener: TcpListener,
    client: TcpStream,
}

impl Member {
    fn start(is_dropped: bool) -> Result<Member, Box<dyn Error>> {
        let builder = || {
            let builder = Node::builder().interfaces(Interfaces::Loopback);
            builder.identity(IdentitySource::Ephemeral).tcp_buffers(16 << 20, 1 << 12)
        };
        peersock::attach::at_exit(report);
        // Allow port 7000, and differ from other tests' networks.
        let id = format!("ff{:04x}ffff000000", 1 + std::process::id() % 6000).parse()?;
        let other = builder().start()?;
        let node = if is_dropped { builder().start()? } else { builder().install()? };
        let address = other.join(Network::ad_hoc(id))?.address();
        node.join(Network::ad_hoc(id))?;
        let listener = TcpListener::bind_on(&other, (address, 7000))?;
        let client = TcpStream::connect_on(&node, listener.local_addr()?)?;
        Ok(Member { node, other, listener, client })
    }
}

fn end_with_everything_open(member: Member) -> Result<(), Box<dyn Error>> {
    let Member { node, other, listener, mut client } = member;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"hello")?;
    server.read_exact(&mut [0; 5])?;
    std::mem::forget((listener, client, server, other));
    drop(node);
    Ok(())
}

fn end_with_much_left(member: Member) -> Result<(), Box<dyn Error>> {
    let Member { listener, client, other, .. } = member;
    let sent = fill(client)?;
    eprintln!("{sent} bytes");
    let (mut server, _) = listener.accept()?;
    let reader = thread::spawn(move || {
        let (mut buf, mut all) = (vec![0; sent / PARTS], 0);
        loop {
            match server.read(&mut buf) {
                Ok(0) => return format!("{all} bytes"),
                Ok(length) => all += length,
                Err(error) => return format!("{error} after {all} bytes"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    *READER.lock().expect("nobody has it") = Some(reader);
    std::mem::forget((listener, other));
    Ok(())
}

/// Writes until all buffers are full, and closes the connection. Returns the number of bytes.
fn fill(mut client: TcpStream) -> Result<usize, Box<dyn Error>> {
    client.set_write_timeout(Some(Duration::from_millis(500)))?;
    let mut sent = 0;
    loop {
        match client.write(&[1; 4096]) {
            Ok(length) => sent += length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => return Err(error.into()),
        }
    }
    assert!(sent > 1 << 16, "{sent}");
    Ok(sent)
}

/// Thread that reads slowly and returns a text about the received bytes.
static READER: Mutex<Option<JoinHandle<String>>> = Mutex::new(None);

/// Reports at exit, after the process's node has ended, because exit handlers run in reverse order.
extern "C" fn report() {
    let reader = READER.lock().ok().and_then(|mut reader| reader.take());
    if let Some(said) = reader.and_then(|reader| reader.join().ok()) {
        eprintln!("{said}");
    }
}

fn end_beside_a_peer_that_resets(member: Member) -> Result<(), Box<dyn Error>> {
    let Member { listener, client, other, .. } = member;
    fill(client)?;
    let (server, _) = listener.accept()?;
    // The server has not read everything, and reports nothing else.
    server.set_linger(Some(Duration::ZERO))?;
    drop(server);
    std::mem::forget((listener, other));
    Ok(())
}

fn end_without_the_process_s_node(member: Member) -> Result<(), Box<dyn Error>> {
    let node = member.node.clone();
    end_beside_a_peer_that_resets(member)?;
    drop(node);
    Ok(())
}
