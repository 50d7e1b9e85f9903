//! The serving process of the demonstration.

use std::io::{Read as _, Write as _};
use std::thread;

use peersock::blocking::{TcpListener, TcpStream};
use peersock::overlay::NetworkId;

use super::child;
use super::content::Content;
use super::wire::{ECHO, FETCH, Listening, PING_BYTES, Place, Said, say, tell_parent};
use peersock_terminal::failure::Outcome;

/// Options of the serving process, which the demonstration itself starts.
#[derive(clap::Args)]
pub struct ServeArgs {
    #[arg(long)]
    network: NetworkId,
    #[arg(long)]
    size: u64,
    #[arg(long)]
    seed: u64,
}

/// Serves until stdin ends, and prints the address for the parent as JSON.
/// Returns a silent failure, after reporting it to the parent.
pub fn run(args: &ServeArgs) -> Outcome {
    tell_parent(serve(args))
}

fn serve(args: &ServeArgs) -> Outcome {
    let (node, joined) = child::start(args.network)?;
    let _lines = child::lines_from_parent(&node)?;
    let listener = TcpListener::bind_on(&node, (joined.address(), 0))?;
    let place = Place { node_id: node.id().to_string(), address: joined.address() };
    say(&Said::Done(Listening { place, port: listener.local_addr()?.port() }))?;
    let (size, seed) = (args.size, args.seed);
    loop {
        let (stream, _) = listener.accept()?;
        thread::Builder::new().name("client".into()).spawn(move || {
            if let Err(error) = answer(&stream, size, seed) {
                tracing::debug!(%error, "a client went away");
            }
        })?;
    }
}

fn answer(mut stream: &TcpStream, size: u64, seed: u64) -> std::io::Result<()> {
    let mut request = [0];
    stream.read_exact(&mut request)?;
    match request[0] {
        ECHO => {
            stream.set_nodelay(true)?;
            let mut message = [0; PING_BYTES];
            while stream.read_exact(&mut message).is_ok() {
                stream.write_all(&message)?;
            }
            Ok(())
        }
        FETCH => Content::new(seed, size).pieces(|piece| stream.write_all(piece)),
        _ => Ok(()),
    }
}
