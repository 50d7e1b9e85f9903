//! Values of options and variables.

use std::env;
use std::time::Duration;

/// Returns true if an environment variable is set and not blank.
pub(super) fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|text| !text.to_string_lossy().trim().is_empty())
}

/// Parses a port number.
pub(crate) fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().map_err(|_| match is_number {
        true => "a port is a number from 0 to 65535, such as 7000".to_owned(),
        false => {
            "give the port as a number from 0 to 65535, such as 7000; names of services are not looked up"
                .to_owned()
        }
    })
}

/// Parses a number of seconds, with an optional fraction.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "give a number of seconds from 0 on, such as 10 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn ports_are_numbers() {
        assert_eq!(parse_port("65535"), Ok(65535));
        assert!(parse_port("http").unwrap_err().contains("names of services"));
        for text in ["65536", "-1", "", "+ 1"] {
            parse_port(text).unwrap_err();
        }
    }

    #[test]
    fn seconds_are_finite_and_not_negative() {
        assert_eq!(parse_seconds("0.25").unwrap().as_millis(), 250);
        for text in ["-1", "x", "", "inf", "NaN", "1e300"] {
            parse_seconds(text).unwrap_err();
        }
    }
}
