//! Durations as people type and read them.

use std::time::Duration;

/// Units by their letter, in seconds, the largest first.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// Parses a whole number with a unit: `90s`, `15m`, `23h`, `30d`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is a number with a unit: 90s, 15m, 23h or 30d".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let (_, seconds) = UNITS.iter().find(|(letter, _)| *letter == unit).ok_or_else(wrong)?;
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(*seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Returns a duration in its two largest units, for people.
pub(super) fn shown(duration: Duration) -> String {
    let mut left = duration.as_secs();
    let mut parts = Vec::new();
    for (letter, seconds) in UNITS {
        let count = left / seconds;
        left %= seconds;
        if count > 0 {
            parts.push(format!("{count}{letter}"));
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        assert_eq!(parse("23h"), Ok(Duration::from_secs(23 * 3600)));
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "h", "1", "1.5h", "-1h", "1w", "999999999999999999d", "1ä"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(shown(Duration::from_secs(86_400 + 3661)), "1d 1h");
        assert_eq!(shown(Duration::from_millis(10)), "0s");
        assert_eq!(shown(Duration::from_secs(61)), "1m 1s");
    }
}
