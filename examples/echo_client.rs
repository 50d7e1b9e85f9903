//! Says hello to an echo server: `cargo run -p peersock --example echo_client -- '[ADDRESS]:7000'`.

use std::error::Error;
use std::io::{Read, Write};
use std::net::Shutdown;

use peersock::blocking::TcpStream;
use peersock::{IdentitySource, Network, Node};

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).ok_or("usage: echo_client '[ADDRESS]:PORT'")?;
    let node = Node::builder().identity(IdentitySource::Ephemeral).install()?;
    node.join(Network::ad_hoc("ff1b581b62000000".parse()?))?;
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(b"hello, overlay")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    eprintln!("{answer}");
    Ok(())
}
