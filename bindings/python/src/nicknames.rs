//! Nicknames at roots.

use std::time::{Duration, Instant};

use peersock::{Nickname, NicknameText};
use peersock_attach::{NicknameRefusal, ProgramNode};
use pyo3::exceptions::PyLookupError;
use pyo3::prelude::*;

use crate::errors::{described, invalid, io_error, os_error};
use crate::node::{Node, STEP};

/// Implements `Node.nickname`.
pub(crate) fn claim(
    node: &Node,
    py: Python<'_>,
    nickname: &str,
    port: u16,
    timeout: f64,
) -> PyResult<Option<String>> {
    let nickname: Nickname = nickname.parse().map_err(invalid)?;
    ask_roots(node, py, timeout, |node, step| node.nickname(nickname.clone(), port, step))
}

/// Implements `Node.find_nickname`.
pub(crate) fn find(node: &Node, py: Python<'_>, text: &str, timeout: f64) -> PyResult<Option<(String, u16)>> {
    let text: NicknameText = text.parse().map_err(invalid)?;
    ask_roots(node, py, timeout, |node, step| node.find_nickname(text.clone(), step))
}

/// Implements `Node.release_nickname`.
pub(crate) fn release(node: &Node, py: Python<'_>, nickname: &str) -> PyResult<bool> {
    let nickname: Nickname = nickname.parse().map_err(invalid)?;
    py.detach(|| node.program_node().release_nickname(nickname)).map_err(|error| io_error(py, error))
}

/// Waits in steps, between which signals run their handlers.
fn ask_roots<T: Send>(
    node: &Node,
    py: Python<'_>,
    timeout: f64,
    ask: impl Fn(&ProgramNode, Duration) -> Result<T, NicknameRefusal> + Sync,
) -> PyResult<Option<T>> {
    let span = Duration::try_from_secs_f64(timeout.max(0.0)).map_err(invalid)?;
    let begin = Instant::now();
    loop {
        let left = span.saturating_sub(begin.elapsed());
        match py.detach(|| ask(node.program_node(), left.min(STEP))) {
            Ok(answer) => return Ok(Some(answer)),
            Err(refused) if refused.errno == libc::ETIMEDOUT && left <= STEP => return Ok(None),
            Err(refused) if refused.errno == libc::ETIMEDOUT => py.check_signals()?,
            Err(refused) => return Err(exception(py, &refused)),
        }
    }
}

fn exception(py: Python<'_>, refused: &NicknameRefusal) -> PyErr {
    match refused.errno {
        libc::ENOENT => PyLookupError::new_err(refused.to_string()),
        libc::ENETDOWN => os_error(py, libc::ENETDOWN),
        errno => described(py, errno, refused),
    }
}
