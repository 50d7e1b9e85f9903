//! Questions about the members of a program's networks, which only the node knows.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use peersock::NetworkId;
use serde::{Deserialize, Serialize};

use crate::client::Attached;
use crate::messages::{Ask, Reply};
use crate::nicknames::NicknameRefusal;

/// Longest wait for one answer, so that other questions, and the end of the attachment, wait shortly. The
/// node waits no longer, whatever a program asks for.
pub const STEP: Duration = Duration::from_millis(200);

/// Pause of a search between two questions, in which other threads ask theirs.
const PAUSE: Duration = Duration::from_millis(1);

/// Time until the node knows that a path carries too little.
const CHECK: Duration = Duration::from_secs(12);

/// Question about the member with an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Searches the member, for this time and [`STEP`] at most. The answer is [`Answer::Found`].
    Find(IpAddr, Duration),
    /// Asks what its user may check if the member does not answer. The answer is [`Answer::Advice`].
    Advice(IpAddr),
    /// Asks when members were heard. The answer is [`Answer::Heard`].
    Heard(Vec<IpAddr>),
    /// Checks whether the path to the member carries datagrams, for [`STEP`] at most. The answer is
    /// [`Answer::Found`], or [`Answer::InDoubt`].
    Path {
        /// Address of the member.
        address: IpAddr,
        /// True for the first question of a check.
        begins: bool,
    },
    /// Asks which member it is. The answer is [`Answer::Member`].
    Member(IpAddr),
    /// Waits until the node is a member of the network with this ID, for this time and [`STEP`] at most. The
    /// answer is [`Answer::Ready`].
    Ready(String, Duration),
    /// Claims a nickname, for this time and [`STEP`] at most. The answer is [`Answer::Nickname`].
    Nickname {
        /// The nickname.
        nickname: String,
        /// Port for its users; 0 for none.
        port: u16,
        /// Time for the roots to answer.
        within: Duration,
    },
    /// Asks for the owner of a nickname, for this time and [`STEP`] at most. The answer is
    /// [`Answer::Nicknamed`].
    Nicknamed {
        /// The nickname, with or without digits of its owner.
        text: String,
        /// Time for the roots to answer.
        within: Duration,
    },
    /// Releases a nickname. The answer is [`Answer::Released`].
    Release(String),
}

/// Answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// 0, or the reason as an `errno`.
    Found(i32),
    /// Text for people.
    Advice(String),
    /// The path is still being checked.
    InDoubt,
    /// Time since the last authentic packet of each member that was heard, by its address.
    Heard(Vec<(IpAddr, Duration)>),
    /// ID of the member, if known.
    Member(Option<String>),
    /// Addresses of the node in the network, or the reason as an `errno` and for people.
    Ready(Result<Vec<IpAddr>, (i32, String)>),
    /// Text by which others find the node.
    Nickname(Result<String, NicknameRefusal>),
    /// ID of the node that has a nickname, and its port.
    Nicknamed(Result<(String, u16), NicknameRefusal>),
    /// True if the nickname was claimed.
    Released(bool),
}

impl Attached {
    /// Searches the member with an address, and waits until there is a session with it.
    ///
    /// # Errors
    /// `TimedOut` after `within`, `AddrNotAvailable` if no member of the program's networks can have the
    /// address, `NetworkDown` if the node has ended.
    pub fn find(&self, address: IpAddr, within: Duration) -> io::Result<()> {
        in_steps(within, |step| found(self.about(Question::Find(address, step))))
    }

    /// Waits until the node is a member of a network of the program. Returns the node's addresses in it.
    ///
    /// # Errors
    /// `TimedOut` after `within`, `NetworkDown` if the node has ended or the program lacks the network.
    pub fn wait_ready(&self, network: NetworkId, within: Duration) -> io::Result<Vec<IpAddr>> {
        in_steps(within, |step| match self.about(Question::Ready(network.to_string(), step)) {
            Some(Answer::Ready(ready)) => ready
                .map_err(|(errno, text)| io::Error::new(io::Error::from_raw_os_error(errno).kind(), text)),
            _ => Err(io::ErrorKind::NetworkDown.into()),
        })
    }

    /// Checks whether the path to a member carries datagrams, for 12 s at most if that is in doubt.
    ///
    /// # Errors
    /// EMSGSIZE if it does not; `NetworkDown` if the node has ended.
    pub fn check_path(&self, address: IpAddr) -> io::Result<()> {
        let begin = Instant::now();
        let mut begins = true;
        loop {
            let answer = self.about(Question::Path { address, begins });
            begins = false;
            match answer {
                Some(Answer::InDoubt) if begin.elapsed() < CHECK => {}
                Some(Answer::InDoubt) => return Ok(()),
                answer => return found(answer),
            }
        }
    }

    /// Returns what the user may check if a member does not answer; `None` if the node has ended.
    pub fn advice(&self, address: IpAddr) -> Option<String> {
        match self.about(Question::Advice(address)) {
            Some(Answer::Advice(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns the time since the last authentic packet of each member with one of these addresses, as far as
    /// known.
    pub fn heard(&self, addresses: Vec<IpAddr>) -> Vec<(IpAddr, Duration)> {
        match self.about(Question::Heard(addresses)) {
            Some(Answer::Heard(ages)) => ages,
            _ => Vec::new(),
        }
    }

    /// Returns the ID of the member with an address, if known.
    pub fn member_at(&self, address: IpAddr) -> Option<String> {
        match self.about(Question::Member(address)) {
            Some(Answer::Member(id)) => id,
            _ => None,
        }
    }

    pub(crate) fn about(&self, question: Question) -> Option<Answer> {
        match self.question(&Ask::About(question)) {
            Some(Reply::About(answer)) => Some(answer),
            _ => None,
        }
    }
}

/// Asks for a short time each, until the answer is no timeout, or `within` is over.
fn in_steps<T>(within: Duration, ask: impl Fn(Duration) -> io::Result<T>) -> io::Result<T> {
    // A timeout beyond the clock's range means no deadline.
    let until = Instant::now().checked_add(within);
    loop {
        let left = until.map_or(STEP, |until| until.saturating_duration_since(Instant::now()));
        match ask(left.min(STEP)) {
            // Without a deadline, each step is a whole one.
            Err(error) if error.kind() == io::ErrorKind::TimedOut && (until.is_none() || left > STEP) => {
                thread::sleep(PAUSE);
            }
            answer => return answer,
        }
    }
}

fn found(answer: Option<Answer>) -> io::Result<()> {
    match answer {
        Some(Answer::Found(0)) => Ok(()),
        Some(Answer::Found(errno)) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::ErrorKind::NetworkDown.into()),
    }
}
