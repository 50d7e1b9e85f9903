//! Says that a connection stands still because its peer does not answer, and that it goes on.

use std::io;
use std::net::IpAddr;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use peersock::blocking::TcpStream;

use crate::background::Background;
use crate::session::Session;
use crate::stdio;

/// A silence is told after this part of the time after which the connection is given up: three keep-alives.
const TELL_AFTER_PART: u32 = 3;

/// How often the peer is looked at.
const INTERVAL: Duration = Duration::from_millis(250);

/// If a look comes so late, this program was stopped itself, and the peer may have answered meanwhile.
const STOPPED: Duration = Duration::from_secs(2);

/// Watches a connection with a peer's address until what this returns is dropped. It has keep-alives and is
/// given up after a silence of `timeout`; 0: never. Then there are no keep-alives, a silence says nothing,
/// and nothing is watched.
pub(crate) fn watch(
    session: &Session,
    stream: &TcpStream,
    address: IpAddr,
    timeout: Duration,
) -> io::Result<Option<Background>> {
    if timeout.is_zero() {
        return Ok(None);
    }
    let (joined, stream) = (session.joined.clone(), stream.try_clone()?);
    let thread = Background::start("silence", move |is_over| {
        let mut teller = Teller::new(timeout);
        let (mut awake_since, mut before) = (Instant::now(), Instant::now());
        while is_over.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            let now = Instant::now();
            if now - before > STOPPED {
                awake_since = now;
            }
            before = now;
            let silence = silence(&joined.peers(), address);
            let is_due = is_answer_due(&stream) && now - awake_since >= teller.tell_after;
            if let Some(text) = teller.tell(silence, is_due) {
                stdio::note(text);
            }
        }
    })?;
    Ok(Some(thread))
}

/// For how long nothing has come from the member with this address; 0 if it is not known.
fn silence(peers: &[peersock::PeerStatus], address: IpAddr) -> Duration {
    let peer = peers.iter().find(|peer| peer.addresses.contains(&address));
    let seconds = peer.and_then(|peer| peer.last_seen_s).unwrap_or_default();
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Whether a peer that is there would say something again and again: keep-alives see to that, but for one
/// that has no room for what is sent, which is asked less and less often.
fn is_answer_due(stream: &TcpStream) -> bool {
    stream.info().is_ok_and(|info| info.unacked == 0 || info.peer_window > 0)
}

/// Decides what is said: each silence once, and its end.
struct Teller {
    tell_after: Duration,
    give_up_after: Duration,
    /// The silence that was told, as long as it was when last looked at.
    told: Option<Duration>,
}

impl Teller {
    fn new(give_up_after: Duration) -> Teller {
        Teller { tell_after: give_up_after / TELL_AFTER_PART, give_up_after, told: None }
    }

    fn tell(&mut self, silence: Duration, is_answer_due: bool) -> Option<String> {
        match self.told {
            None if silence >= self.tell_after && is_answer_due => {
                self.told = Some(silence);
                Some(format!(
                    "the peer has not answered for {}; without an answer the connection is given up after {} \
                     (--peer-timeout)",
                    seconds(silence),
                    seconds(self.give_up_after)
                ))
            }
            Some(longest) if silence < longest => {
                self.told = None;
                let longest = seconds(longest);
                Some(format!("the peer answers again after {longest} of silence; the connection goes on"))
            }
            Some(_) => {
                self.told = Some(silence);
                None
            }
            None => None,
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", (time.as_secs_f64() * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_silence_is_told_once_and_so_is_its_end() {
        let mut teller = Teller::new(Duration::from_secs(15));
        let mut tell = |silence, is_due| teller.tell(Duration::from_secs_f64(silence), is_due);
        assert_eq!(tell(4.9, true), None);
        assert_eq!(tell(60.0, false), None, "it has no room, and is asked seldom");
        let told = tell(5.02, true).expect("a line");
        assert!(told.contains("not answered for 5 s") && told.contains("after 15 s"), "{told}");
        assert_eq!(tell(12.34, true), None);
        let told = tell(0.1, true).expect("a line");
        assert!(told.contains("answers again after 12.3 s"), "{told}");
        assert_eq!(tell(0.3, true), None);
        assert!(tell(5.0, true).is_some(), "the next one");
    }
}
