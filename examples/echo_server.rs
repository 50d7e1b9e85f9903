//! An echo server on blocking sockets. Run it, then `echo_client` or `echo_client_async` with the address it
//! prints.

use std::error::Error;
use std::{io, thread};

use peersock::blocking::TcpListener;
use peersock::{IdentitySource, Network, Node};

fn main() -> Result<(), Box<dyn Error>> {
    let node = Node::builder().identity(IdentitySource::Ephemeral).install()?;
    let network = node.join(Network::ad_hoc("ff1b581b62000000".parse()?))?;
    let listener = TcpListener::bind((network.address(), 7000))?;
    eprintln!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || io::copy(&mut &stream, &mut &stream));
    }
    Ok(())
}
