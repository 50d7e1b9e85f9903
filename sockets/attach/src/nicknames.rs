//! Nicknames of the shared node, for its programs.

use std::io;
use std::time::Duration;

use peersock::{Nickname, NicknameError, NicknameText};
use serde::{Deserialize, Serialize};

use crate::client::Attached;
use crate::questions::{Answer, Question};

/// Reason why a nickname is not claimed or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct NicknameRefusal {
    /// The reason as an `errno`: ETIMEDOUT if no root has answered in time, or there is none; ENOENT if no
    /// node or several have the nickname; EADDRINUSE if another node has it; EDQUOT if there are too many;
    /// EACCES for other refusals; ENETDOWN if the node has ended.
    pub errno: i32,
    /// Reason for people.
    pub text: String,
}

impl From<NicknameError> for NicknameRefusal {
    fn from(error: NicknameError) -> NicknameRefusal {
        let errno = match error {
            NicknameError::NoAnswer | NicknameError::NoRoots => libc::ETIMEDOUT,
            NicknameError::NotFound | NicknameError::Ambiguous(_) => libc::ENOENT,
            NicknameError::Taken => libc::EADDRINUSE,
            NicknameError::TooMany | NicknameError::Full => libc::EDQUOT,
            NicknameError::Stopped => libc::ENETDOWN,
            _ => libc::EACCES,
        };
        NicknameRefusal { errno, text: error.to_string() }
    }
}

impl From<io::Error> for NicknameRefusal {
    fn from(error: io::Error) -> NicknameRefusal {
        NicknameRefusal { errno: error.raw_os_error().unwrap_or(libc::ENETDOWN), text: error.to_string() }
    }
}

/// Claims a nickname at the node's roots. Returns the text by which others find the node.
pub(crate) fn claim(
    attached: &Attached,
    nickname: &Nickname,
    port: u16,
    within: Duration,
) -> Result<String, NicknameRefusal> {
    match attached.about(Question::Nickname { nickname: nickname.to_string(), port, within }) {
        Some(Answer::Nickname(claimed)) => claimed,
        _ => Err(NicknameError::Stopped.into()),
    }
}

/// Asks the node's roots for the owner of a nickname: its node ID, and a port.
pub(crate) fn find(
    attached: &Attached,
    text: &NicknameText,
    within: Duration,
) -> Result<(String, u16), NicknameRefusal> {
    match attached.about(Question::Nicknamed { text: text.to_string(), within }) {
        Some(Answer::Nicknamed(found)) => found,
        _ => Err(NicknameError::Stopped.into()),
    }
}

/// Releases a nickname. Returns false if it was not claimed; `None` if the node has ended.
pub(crate) fn release(attached: &Attached, nickname: &Nickname) -> Option<bool> {
    match attached.about(Question::Release(nickname.to_string())) {
        Some(Answer::Released(was_claimed)) => Some(was_claimed),
        _ => None,
    }
}
