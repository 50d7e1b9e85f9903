//! SOCKS 5 (RFC 1928), with user names and passwords (RFC 1929): the server's side.

mod associate;
mod bind;

use std::io;
use std::time::Duration;

use peersock_streams::socks::{
    Address, Command, Greeting, LOGIN_VERSION, Login, METHOD_LOGIN, METHOD_NONE, METHOD_UNACCEPTABLE, Reply,
    Request, SocksError, VERSION,
};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::attempts::Attempt;
use crate::owner::Owner;
use crate::proxy::{Client, Shared};
use crate::relay::relay;
use crate::stream::Link;
use crate::target::{Host, Target};

/// The first byte of a SOCKS 5 client's messages, and of a SOCKS 4 client's.
pub(crate) const VERSION_5: u8 = VERSION;
pub(crate) const VERSION_4: u8 = 4;

/// The answer to a SOCKS 4 client: rejected.
const REJECTED_4: [u8; 8] = [0, 91, 0, 0, 0, 0, 0, 0];

/// Timeout for a refused client to receive the refusal.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves one client to its end.
pub(crate) async fn serve(mut client: Client, shared: &Shared) {
    let (command, target) = match handshake(&mut client.link, client.owner, shared).await {
        Ok(Some(asked)) => asked,
        Ok(None) => return refuse(client.link, &[]).await,
        Err(error) => return tracing::debug!(%error, "a client of SOCKS has gone"),
    };
    client.standing.prove();
    let served = match command {
        Command::Connect => return connect(client, &target, shared).await,
        Command::Bind => bind::serve(client, &target, shared).await,
        Command::Associate => associate::serve(client, &target, shared).await,
        Command::Unknown(_) => Err((client.link, Reply::COMMAND_NOT_SUPPORTED)),
    };
    if let Err((link, reply)) = served {
        refuse(link, &reply.emit_refusal()).await;
    }
}

/// Refuses a client of SOCKS 4.
pub(crate) async fn refuse_version_4(link: Link) {
    refuse(link, &REJECTED_4).await;
}

/// Reads up to the request. Returns its command and target, or `None` if the client was refused.
async fn handshake(
    link: &mut Link,
    client: Option<Owner>,
    shared: &Shared,
) -> io::Result<Option<(Command, Target)>> {
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
    send(link, &[VERSION, method]).await?;
    match method {
        METHOD_UNACCEPTABLE => return Ok(None),
        METHOD_LOGIN if !login(link, client, shared).await? => return Ok(None),
        _ => {}
    }
    let refusal = loop {
        match Request::parse(link.early()) {
            Ok(Some(request)) => {
                let Some(target) = Target::of_socks(&request.address) else { break Reply::FAILURE };
                let (command, length) = (request.command, request.length);
                link.consume(length);
                return Ok(Some((command, target)));
            }
            Ok(None) => more(link).await?,
            Err(SocksError::AddressType(_)) => break Reply::ADDRESS_TYPE_NOT_SUPPORTED,
            Err(error) => return Err(invalid(error)),
        }
    };
    send(link, &refusal.emit_refusal()).await?;
    Ok(None)
}

impl Target {
    /// Returns the host and port of a message; `None` if it has no valid name. Some clients send addresses as
    /// names.
    fn of_socks(address: &Address<'_>) -> Option<Target> {
        match address {
            Address::Ip(address) => Some((*address).into()),
            Address::Name(name, port) => {
                Some(Target { host: Host::parse(str::from_utf8(name).ok()?)?, port: *port })
            }
        }
    }
}

/// Chooses one of a client's methods. A client that supports only passwords may send one even where none is
/// needed.
fn choose(methods: &[u8], needs_login: bool) -> u8 {
    match needs_login {
        false if methods.contains(&METHOD_NONE) => METHOD_NONE,
        _ if methods.contains(&METHOD_LOGIN) => METHOD_LOGIN,
        _ => METHOD_UNACCEPTABLE,
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
    send(link, &[LOGIN_VERSION, u8::from(!is_admitted)]).await?;
    Ok(is_admitted)
}

async fn connect(mut client: Client, target: &Target, shared: &Shared) {
    let dialed = match shared.stop.unless_cut(shared.gate.dial(target)).await {
        Ok(Ok(dialed)) => dialed,
        Ok(Err(error)) => {
            shared.failed(&client, target, &error);
            return refuse(client.link, &error.reply().emit_refusal()).await;
        }
        Err(_) => return client.link.reset(),
    };
    if send(&mut client.link, &Reply::SUCCEEDED.emit(dialed.local)).await.is_ok() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_addresses_and_valid_names() {
        for (name, target) in [
            (&b"alpha"[..], Some("alpha:80")),
            (b"127.0.0.1", Some("127.0.0.1:80")),
            (b"", None),
            (b"\xff\xff", None),
            (b"a\0", None),
        ] {
            let found = Target::of_socks(&Address::Name(name, 80)).map(|target| target.to_string());
            assert_eq!(found.as_deref(), target, "{name:?}");
        }
        let address = "[fd00::1]:9".parse().unwrap();
        assert_eq!(Target::of_socks(&Address::Ip(address)), Some(address.into()));
    }
}
