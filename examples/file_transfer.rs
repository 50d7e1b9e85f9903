//! Sends a file with a progress bar on both sides:
//! `cargo run -p peersock --example file_transfer -- receive FILE`, then
//! `cargo run -p peersock --example file_transfer -- send FILE '[ADDRESS]:7002'` with the address that the
//! first one prints.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;

use indicatif::ProgressBar;
use peersock::blocking::{TcpListener, TcpStream};
use peersock::{IdentitySource, Network, Node};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let node = Node::builder().identity(IdentitySource::Ephemeral).install()?;
    let network = node.join(Network::ad_hoc("ff1b581b62000000".parse()?))?;
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["receive", path] => {
            let listener = TcpListener::bind((network.address(), 7002))?;
            eprintln!("waiting on {}", listener.local_addr()?);
            receive(path, listener.accept()?.0)
        }
        ["send", path, server] => send(path, TcpStream::connect(server)?),
        _ => Err("usage: file_transfer receive FILE | send FILE '[ADDRESS]:PORT'".into()),
    }
}

/// The file's length as 8 bytes, its content, and one byte back once it is on the other side's disk.
fn send(path: &str, mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    stream.write_all(&length.to_be_bytes())?;
    let progress = ProgressBar::new(length);
    io::copy(&mut progress.wrap_read(file.take(length)), &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    progress.finish();
    Ok(())
}

fn receive(path: &str, mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length);
    let progress = ProgressBar::new(length);
    let mut file = File::create_new(path)?;
    let copied = io::copy(&mut progress.wrap_read((&stream).take(length)), &mut file)?;
    if copied < length {
        return Err("the sender went away before the end of the file".into());
    }
    file.sync_all()?;
    stream.write_all(&[1])?;
    progress.finish();
    Ok(())
}
