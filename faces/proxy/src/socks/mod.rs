//! SOCKS 5 (RFC 1928), with user names and passwords (RFC 1929): the server's side.

mod associate;
mod bind;
mod message;

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

pub(crate) use message::Reply;
pub use message::{Command, DatagramHeader, Greeting, Login, Request, SocksError};

use crate::attempts::Attempt;
use crate::owner::Owner;
use crate::proxy::{Client, Shared};
use crate::relay::relay;
use crate::stream::Link;

/// Authentication methods (RFC 1928, 3).
const NONE: u8 = 0;
const USERNAME: u8 = 2;
const UNACCEPTABLE: u8 = 0xff;

/// The first byte of a SOCKS 5 client's messages, and of a SOCKS 4 client's.
pub(crate) const VERSION_5: u8 = 5;
pub(crate) const VERSION_4: u8 = 4;

/// The answer to a SOCKS 4 client: rejected.
const REJECTED_4: [u8; 8] = [0, 91, 0, 0, 0, 0, 0, 0];

/// Timeout for a refused client to receive the refusal.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves one client to its end.
pub(crate) async fn serve(mut client: Client, shared: &Shared) {
    let asked = match handshake(&mut client.link, client.owner, shared).await {
        Ok(Some(request)) => request,
        Ok(None) => return refuse(client.link, &[]).await,
        Err(error) => return tracing::debug!(%error, "a client of SOCKS has gone"),
    };
    client.standing.prove();
    let served = match asked.command {
        Command::Connect => return connect(client, &asked, shared).await,
        Command::Bind => bind::serve(client, &asked, shared).await,
        Command::Associate => associate::serve(client, &asked, shared).await,
        Command::Unknown(_) => Err((client.link, Reply::CommandNotSupported)),
    };
    if let Err((link, reply)) = served {
        refuse(link, &reply.emit_refusal()).await;
    }
}

/// Refuses a client of SOCKS 4.
pub(crate) async fn refuse_version_4(link: Link) {
    refuse(link, &REJECTED_4).await;
}

/// Reads up to the request. Returns `None` if the client was refused.
async fn handshake(link: &mut Link, client: Option<Owner>, shared: &Shared) -> io::Result<Option<Request>> {
    let method = loop {
        match Greeting::parse(link.early()) {
            Ok(Some(greeting)) => {
                let method = choose(greeting.methods, shared.attempts.is_some());
                let length = greeting.length;
                link.consume(length);
                break method;
            }
            Ok(None) => more(link).await?,
            Err(error) => return Err(invalid(error)),
        }
    };
    send(link, &[VERSION_5, method]).await?;
    match method {
        UNACCEPTABLE => return Ok(None),
        USERNAME if !login(link, client, shared).await? => return Ok(None),
        _ => {}
    }
    loop {
        match Request::parse(link.early()) {
            Ok(Some(request)) => {
                link.consume(request.length);
                return Ok(Some(request));
            }
            Ok(None) => more(link).await?,
            Err(error @ (SocksError::AddressType(_) | SocksError::Name)) => {
                let reply = match error {
                    SocksError::AddressType(_) => Reply::AddressTypeNotSupported,
                    _ => Reply::Failure,
                };
                send(link, &reply.emit_refusal()).await?;
                return Ok(None);
            }
            Err(error) => return Err(invalid(error)),
        }
    }
}

/// Chooses one of a client's methods. A client that supports only passwords may send one even where none is
/// needed.
fn choose(methods: &[u8], needs_login: bool) -> u8 {
    match needs_login {
        false if methods.contains(&NONE) => NONE,
        _ if methods.contains(&USERNAME) => USERNAME,
        _ => UNACCEPTABLE,
    }
}

/// Checks the login of RFC 1929. Returns false if the client was refused.
async fn login(link: &mut Link, client: Option<Owner>, shared: &Shared) -> io::Result<bool> {
    let (is_admitted, length) = loop {
        match Login::parse(link.early()) {
            Ok(Some(login)) => {
                let attempt = match &shared.attempts {
                    Some(attempts) => attempts.check(client, login.user, login.password).await,
                    None => Attempt::Right,
                };
                break (attempt == Attempt::Right, login.length);
            }
            Ok(None) => more(link).await?,
            Err(error) => return Err(invalid(error)),
        }
    };
    link.consume(length);
    send(link, &[1, u8::from(!is_admitted)]).await?;
    Ok(is_admitted)
}

async fn connect(mut client: Client, request: &Request, shared: &Shared) {
    let dialed = match shared.stop.unless_cut(shared.gate.dial(&request.target)).await {
        Ok(Ok(dialed)) => dialed,
        Ok(Err(error)) => {
            shared.failed(&client, &request.target, &error);
            return refuse(client.link, &error.reply().emit_refusal()).await;
        }
        Err(_) => return client.link.reset(),
    };
    if send(&mut client.link, &Reply::Succeeded.emit(dialed.local)).await.is_ok() {
        relay(client.link, dialed.link, &shared.stop).await;
    }
}

/// Sends a last message to a client and closes.
async fn refuse(mut link: Link, message: &[u8]) {
    let last = async {
        link.write_all(message).await?;
        link.shutdown().await
    };
    let _ = timeout(LAST_WORDS, last).await;
}

/// Waits for more of a message.
async fn more(link: &mut Link) -> io::Result<()> {
    match link.fill().await? {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn send(link: &mut Link, message: &[u8]) -> io::Result<()> {
    link.write_all(message).await?;
    link.flush().await
}

fn invalid(error: SocksError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
