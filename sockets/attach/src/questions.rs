//! Questions about the members of a program's networks, which only the node knows.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::client::Attached;
use crate::messages::{Ask, Reply};

/// Longest wait for one answer, so that other questions, and the end of the attachment, wait shortly.
const STEP: Duration = Duration::from_millis(200);

/// Question about the member with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Searches the member, for this time at most. The answer is [`Answer::Found`].
    Find(IpAddr, Duration),
    /// Asks what its user may check if the member does not answer. The answer is [`Answer::Advice`].
    Advice(IpAddr),
    /// Asks when the member was heard. The answer is [`Answer::Heard`].
    Heard(IpAddr),
    /// Checks whether the path to the member carries datagrams. The answer is [`Answer::Found`].
    Path(IpAddr),
    /// Asks which member it is. The answer is [`Answer::Member`].
    Member(IpAddr),
}

/// Answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// 0, or the reason as an `errno`.
    Found(i32),
    /// Text for people.
    Advice(String),
    /// Time since the member's last authentic packet, if there was one.
    Heard(Option<Duration>),
    /// ID of the member, if known.
    Member(Option<String>),
}

impl Attached {
    /// Searches the member with an address, and waits until there is a session with it.
    ///
    /// # Errors
    /// `TimedOut` after `within`, `AddrNotAvailable` if no member of the program's networks can have the
    /// address, `NetworkDown` if the node has ended.
    pub fn find(&self, address: IpAddr, within: Duration) -> io::Result<()> {
        // A timeout beyond the clock's range means no deadline.
        let until = Instant::now().checked_add(within);
        loop {
            let left = until.map_or(STEP, |until| until.saturating_duration_since(Instant::now()));
            match self.errno(Question::Find(address, left.min(STEP))) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && left > STEP => {}
                found => return found,
            }
        }
    }

    /// Checks whether the path to a member carries datagrams, for 12 s at most if that is in doubt.
    ///
    /// # Errors
    /// EMSGSIZE if it does not; `NetworkDown` if the node has ended.
    pub fn check_path(&self, address: IpAddr) -> io::Result<()> {
        self.errno(Question::Path(address))
    }

    /// Returns what the user may check if a member does not answer; `None` if the node has ended.
    pub fn advice(&self, address: IpAddr) -> Option<String> {
        match self.about(Question::Advice(address)) {
            Some(Answer::Advice(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns the time since the last authentic packet of the member with an address, if known.
    pub fn heard(&self, address: IpAddr) -> Option<Duration> {
        match self.about(Question::Heard(address)) {
            Some(Answer::Heard(age)) => age,
            _ => None,
        }
    }

    /// Returns the ID of the member with an address, if known.
    pub fn member_at(&self, address: IpAddr) -> Option<String> {
        match self.about(Question::Member(address)) {
            Some(Answer::Member(id)) => id,
            _ => None,
        }
    }

    fn errno(&self, question: Question) -> io::Result<()> {
        match self.about(question) {
            Some(Answer::Found(0)) => Ok(()),
            Some(Answer::Found(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => Err(io::ErrorKind::NetworkDown.into()),
        }
    }

    fn about(&self, question: Question) -> Option<Answer> {
        match self.question(&Ask::About(question)) {
            Some(Reply::About(answer)) => Some(answer),
            _ => None,
        }
    }
}
