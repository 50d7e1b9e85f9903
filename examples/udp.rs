//! Datagrams: `cargo run -p peersock --example udp` answers, and
//! `cargo run -p peersock --example udp -- '[ADDRESS]:7001'` asks.

use std::error::Error;

use peersock::blocking::UdpSocket;
use peersock::{IdentitySource, Network, Node};

fn main() -> Result<(), Box<dyn Error>> {
    let node = Node::builder().identity(IdentitySource::Ephemeral).install()?;
    let network = node.join(Network::ad_hoc("ff1b581b62000000".parse()?))?;
    let mut buffer = [0; 1500];
    if let Some(server) = std::env::args().nth(1) {
        let socket = UdpSocket::bind((network.address(), 0))?;
        socket.connect(server)?;
        socket.send(b"what time is it?")?;
        let length = socket.recv(&mut buffer)?;
        eprintln!("{}", String::from_utf8_lossy(&buffer[..length]));
        return Ok(());
    }
    let socket = UdpSocket::bind((network.address(), 7001))?;
    eprintln!("answering on {}", socket.local_addr()?);
    loop {
        let (length, client) = socket.recv_from(&mut buffer)?;
        let answer = format!("you sent {length} bytes, {client}");
        socket.send_to(answer.as_bytes(), client)?;
    }
}
