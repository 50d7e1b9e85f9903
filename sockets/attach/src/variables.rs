//! Environment variables about the shared node.

use std::env;
use std::time::Duration;

use peersock::settings::{LABEL_VARIABLE, Refusal, VariableError};

/// Keeps a program's node in its process.
const OWN_NODE: &str = "PEERSOCK_OWN_NODE";

/// Time for which a shared node waits for another program after this one, in seconds.
const PERSIST: &str = "PEERSOCK_PERSIST";

/// Default of that time.
const DEFAULT_PERSIST: Duration = Duration::from_secs(5);

/// Returns true if the environment gives this program its own node: `PEERSOCK_OWN_NODE`, unless it is empty,
/// 0, no, off or false, or a label in `PEERSOCK_AS`.
pub fn wants_own_node() -> bool {
    let has_label = !env::var_os(LABEL_VARIABLE).unwrap_or_default().to_string_lossy().trim().is_empty();
    has_label || is_on(&env::var_os(OWN_NODE).unwrap_or_default().to_string_lossy())
}

fn is_on(text: &str) -> bool {
    !["", "0", "no", "off", "false"].contains(&text.trim().to_ascii_lowercase().as_str())
}

/// Returns the time for which a shared node waits for another program after this one (`PEERSOCK_PERSIST`).
///
/// # Errors
/// The variable is no number of seconds.
pub fn persist() -> Result<Duration, VariableError> {
    match env::var_os(PERSIST).unwrap_or_default().to_string_lossy().trim() {
        "" => Ok(DEFAULT_PERSIST),
        text => seconds(text).ok_or_else(|| VariableError {
            variable: PERSIST,
            reason: Refusal::Value("a number of seconds from 0 on".to_owned()),
        }),
    }
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_off_by_the_usual_words() {
        assert!(["1", "yes", "on", " true "].into_iter().all(is_on));
        assert!(!["", " ", "0", "No", "OFF", "false"].into_iter().any(is_on));
    }

    #[test]
    fn times_are_seconds_from_zero_on() {
        assert_eq!(seconds("0"), Some(Duration::ZERO));
        assert_eq!(seconds("0.5"), Some(Duration::from_millis(500)));
        for wrong in ["-1", "soon", "1e300", "NaN"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
