//! Nicknames at roots.

use std::time::{Duration, Instant};

use peersock::{Nickname, NicknameError, NicknameText};
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
    let claim = move |node: &peersock::Node, step| node.nickname(&nickname, port, step);
    Ok(ask_roots(node, py, timeout, claim)?.map(|text| text.to_string()))
}

/// Implements `Node.find_nickname`.
pub(crate) fn find(node: &Node, py: Python<'_>, text: &str, timeout: f64) -> PyResult<Option<(String, u16)>> {
    let text: NicknameText = text.parse().map_err(invalid)?;
    let find = move |node: &peersock::Node, step| node.find_nickname(&text, step);
    let found = ask_roots(node, py, timeout, find)?;
    Ok(found.map(|found| (found.identity.node_id().to_string(), found.port)))
}

/// Implements `Node.release_nickname`.
pub(crate) fn release(node: &Node, py: Python<'_>, nickname: &str) -> PyResult<bool> {
    let nickname: Nickname = nickname.parse().map_err(invalid)?;
    let host = node.own(py, "claims no nicknames")?;
    py.detach(|| host.run(move |node| node.release_nickname(&nickname))).map_err(|error| io_error(py, error))
}

/// Waits in steps, between which signals run their handlers.
fn ask_roots<T: Send + 'static>(
    node: &Node,
    py: Python<'_>,
    timeout: f64,
    ask: impl Fn(&peersock::Node, Duration) -> Result<T, NicknameError> + Clone + Send + 'static,
) -> PyResult<Option<T>> {
    let span = Duration::try_from_secs_f64(timeout.max(0.0)).map_err(invalid)?;
    let host = node.own(py, "knows no nicknames")?;
    let begin = Instant::now();
    loop {
        let left = span.saturating_sub(begin.elapsed());
        let (ask, step) = (ask.clone(), left.min(STEP));
        let outcome = py.detach(|| host.run_apart(move |node| ask(node, step)));
        match outcome.map_err(|error| io_error(py, error))? {
            Ok(answer) => return Ok(Some(answer)),
            Err(NicknameError::NoAnswer | NicknameError::NoRoots) if left <= STEP => return Ok(None),
            Err(NicknameError::NoAnswer | NicknameError::NoRoots) => py.check_signals()?,
            Err(error) => return Err(exception(py, &error)),
        }
    }
}

fn exception(py: Python<'_>, error: &NicknameError) -> PyErr {
    match error {
        NicknameError::NotFound | NicknameError::Ambiguous(_) => PyLookupError::new_err(error.to_string()),
        NicknameError::Taken => described(py, libc::EADDRINUSE, error),
        NicknameError::TooMany | NicknameError::Full => described(py, libc::EDQUOT, error),
        NicknameError::Stopped => os_error(py, libc::ENETDOWN),
        _ => described(py, libc::EACCES, error),
    }
}
