//! Relay between a member and a service of HTTP, whose requests get the member's fields.

use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::http::{BAD_REQUEST, REQUEST_TIMEOUT, Refused, Requests};
use crate::stop::Stop;
use crate::stream::Link;

/// Limit in bytes of one read.
const PIECE: usize = 32 << 10;

/// Timeout of a head, from its first byte on. A service sees no part of a head, and could not tell a slow
/// client from a silent one.
pub(crate) const HEAD: Duration = Duration::from_secs(30);

/// The requests, which both directions look at.
struct Shared {
    requests: Mutex<Requests>,
    /// Notified when the service has answered a request for another protocol.
    answered: Notify,
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().expect("no panic under this lock")
    }
}

/// The reason for which a relay has ended early.
enum Broken {
    Failed(io::Error),
    /// A request was refused, and this is the answer.
    Refused(&'static [u8]),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Failed(error)
    }
}

/// Relays until both directions have ended. If one fails, or the time that `stop` leaves is over, both are
/// reset. A first request that is refused, or whose head takes longer than `most`, is answered unless the
/// service has begun to answer. A later one ends the direction to the service.
pub(crate) async fn relay_requests(
    mut client: Link,
    mut service: Link,
    requests: Requests,
    most: Duration,
    stop: &Stop,
) {
    let shared = Shared { requests: Mutex::new(requests), answered: Notify::new() };
    let mut has_answer = false;
    let done = {
        let (from_client, to_client) = tokio::io::split(&mut client);
        let (from_service, to_service) = tokio::io::split(&mut service);
        tokio::select! {
            done = async {
                tokio::try_join!(
                    pass_requests(from_client, to_service, &shared, most),
                    pass_answers(from_service, to_client, &shared, &mut has_answer),
                )
            } => done.map(drop),
            () = stop.cut() => Err(Broken::Failed(io::ErrorKind::ConnectionAborted.into())),
        }
    };
    let Err(broken) = done else { return };
    service.reset();
    match broken {
        Broken::Failed(error) => tracing::debug!(%error, "a connection has broken"),
        Broken::Refused(_) if has_answer || !shared.requests().is_first() => {}
        Broken::Refused(refusal) => {
            let answer = async {
                client.write_all(refusal).await?;
                client.shutdown().await
            };
            if matches!(stop.unless_cut(answer).await, Ok(Ok(()))) {
                return;
            }
        }
    }
    client.reset();
}

async fn pass_requests(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    most: Duration,
) -> Result<(), Broken> {
    let (mut buffer, mut out) = (vec![0; PIECE], Vec::new());
    let (mut count, mut head) = (0, None);
    loop {
        let passed = shared.requests().pass(&buffer[..count], &mut out);
        // Requests before the one that is refused are whole.
        let is_written = to.write_all(&out).await.is_ok();
        out.clear();
        passed.map_err(|Refused| Broken::Refused(BAD_REQUEST))?;
        if !is_written || shared.requests().has_ended() {
            // The answers decide: a service may have answered early, and have closed with a body unread.
            let _ = to.shutdown().await;
            while from.read(&mut buffer).await? > 0 {}
            return Ok(());
        }
        if shared.requests().waits_for_answer() {
            shared.answered.notified().await;
            if shared.requests().waits_for_answer() {
                // The service has ended without an answer.
                return Ok(to.shutdown().await?);
            }
            count = 0;
            continue;
        }
        let open = shared.requests().open_head();
        // Each head has the time anew.
        head = open.map(|number| match head {
            Some((same, until)) if same == number => (number, until),
            _ => (number, Instant::now() + most),
        });
        let reading = from.read(&mut buffer);
        count = match head {
            None => reading.await?,
            Some((_, until)) => match timeout_at(until, reading).await {
                Ok(read) => read?,
                Err(_) => {
                    shared.requests().refuse_head().map_err(|Refused| Broken::Refused(REQUEST_TIMEOUT))?;
                    0
                }
            },
        };
        if count == 0 && !shared.requests().has_ended() {
            return Ok(to.shutdown().await?);
        }
    }
}

async fn pass_answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    has_answer: &mut bool,
) -> Result<(), Broken> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            // Nothing frees a client's bytes any more.
            shared.answered.notify_one();
            return Ok(to.shutdown().await?);
        }
        *has_answer = true;
        let freed =
            shared.requests().answered(&buffer[..count]).map_err(|Refused| Broken::Refused(BAD_REQUEST))?;
        to.write_all(&buffer[..count]).await?;
        if freed {
            shared.answered.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;
    use crate::slots::Slots;
    use crate::stop::Stopper;

    /// Relays what a client sends to a service that gives these answers to the texts that it waits for.
    /// Returns what the client gets.
    async fn ask(sent: &str, served: &[(&str, &str)], most: Duration) -> String {
        let ((mut client, accepted), (dialed, mut service)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let (_stopper, stop) = Stopper::new(Slots::new(1));
        let requests = Requests::new(&[("Peersock-Member", "beta".to_owned())]);
        let relaying = relay_requests(Link::new(accepted), Link::new(dialed), requests, most, &stop);
        let serving = async {
            let mut got = String::new();
            for (wanted, answer) in served {
                while !got.contains(wanted) {
                    let mut piece = [0; 1000];
                    let count = service.read(&mut piece).await.unwrap();
                    got.push_str(if count == 0 { "END" } else { str::from_utf8(&piece[..count]).unwrap() });
                }
                service.write_all(answer.as_bytes()).await.unwrap();
            }
            // A service that does not answer stays until the client has ended.
            served.is_empty().then_some(service)
        };
        let asking = async {
            client.write_all(sent.as_bytes()).await.unwrap();
            let mut got = Vec::new();
            // A connection that is reset is only closed here, because that is how these sockets are.
            let _ = client.read_to_end(&mut got).await;
            drop(client);
            String::from_utf8(got).unwrap()
        };
        tokio::join!(relaying, serving, asking).2
    }

    const LONG: Duration = Duration::from_secs(1000);
    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_refusal_comes_only_where_no_answer_is_owed() {
        assert!(ask("GET\r\n\r\n", &[], LONG).await.starts_with("HTTP/1.1 400 "));
        let chunked = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n";
        assert!(ask(chunked, &[], LONG).await.starts_with("HTTP/1.1 400 "));
        // The answer comes after the refused bytes.
        let first = "GET /a HTTP/1.1\r\n\r\n";
        assert_eq!(ask(&format!("{first}GET\r\n\r\n"), &[("END", "answer")], LONG).await, "answer");
        assert_eq!(ask(&format!("{first}{chunked}"), &[], LONG).await, "");
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_answered_or_ends_the_requests() {
        assert!(ask("GET / HT", &[], SHORT).await.starts_with("HTTP/1.1 408 "));
        let later = "GET / HTTP/1.1\r\n\r\nGET /b HT";
        assert_eq!(ask(later, &[("END", "answer")], SHORT).await, "answer");
    }

    #[tokio::test]
    async fn no_time_runs_without_a_head() {
        let sent = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na";
        let silent = async {
            let ((mut client, accepted), (dialed, mut service)) =
                (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            let (_stopper, stop) = Stopper::new(Slots::new(1));
            let relaying =
                relay_requests(Link::new(accepted), Link::new(dialed), Requests::new(&[]), SHORT, &stop);
            let rest = async {
                client.write_all(sent.as_bytes()).await.unwrap();
                tokio::time::sleep(4 * SHORT).await;
                client.write_all(b"b").await.unwrap();
                client.shutdown().await.unwrap();
                let mut got = String::new();
                service.read_to_string(&mut got).await.unwrap();
                drop(service);
                got
            };
            tokio::join!(relaying, rest).1
        };
        assert!(silent.await.ends_with("\r\n\r\nab"));
    }

    #[tokio::test]
    async fn an_answer_arrives_though_the_service_has_left_the_body_unread() {
        let sent = format!("POST / HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n{}", "x".repeat(100_000));
        assert_eq!(ask(&sent, &[("\r\n\r\n", "answer")], LONG).await, "answer");
    }
}
