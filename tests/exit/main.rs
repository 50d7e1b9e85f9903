//! The end of a process that uses the process's node: what is open is reset, and nothing goes wrong.
//!
//! The exit handler runs on the main thread after its thread-local values are gone, so the program under test
//! is this one's own `main`, without the test harness.

#![expect(clippy::print_stdout, reason = "a test harness reports there")]

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::process::Command;

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{IdentitySource, Interfaces, Network, Node};

const NAME: &str = "a_process_may_end_with_everything_open";

/// Set in the process that is to end.
const ENDING: &str = "PEERSOCK_TEST_ENDING";

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::var_os(ENDING).is_some() {
        return end_with_everything_open();
    }
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    if has("--list") {
        if !has("--ignored") {
            println!("{NAME}: test");
        }
        return Ok(());
    }
    let output = Command::new(std::env::current_exe()?).env(ENDING, "1").output()?;
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    println!(
        "test {NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"
    );
    Ok(())
}

fn end_with_everything_open() -> Result<(), Box<dyn Error>> {
    let node =
        Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).install()?;
    let network = node.join(Network::ad_hoc("ff1b581b58000000".parse()?))?;
    let listener = TcpListener::bind((network.address(), 7000))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"hello")?;
    server.read_exact(&mut [0; 5])?;
    std::mem::forget((listener, client, server));
    Ok(())
}
