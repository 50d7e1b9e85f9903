//! Times for which members go on without a controller, as options of commands.

use std::time::Duration;

use peersock::overlay::membership::Tag;
use peersock_controller::OUTLIVE;

use super::super::duration;

/// Time for which a member goes on without a controller; `None` for that of its tags or the network.
pub(super) type Outlive = Option<Duration>;

/// Parses a time for which members go on without a controller.
pub(super) fn outlive(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    match OUTLIVE.contains(&time) {
        true => Ok(time),
        false => Err("members go on without a controller for 1h to 30d".to_owned()),
    }
}

/// Parses the same, or `default`.
pub(super) fn outlive_or_default(text: &str) -> Result<Outlive, String> {
    match text {
        "default" => Ok(None),
        text => outlive(text).map(Some),
    }
}

/// Parses a tag and the time for its members, or `default`.
pub(super) fn tag_outlive(text: &str) -> Result<(Tag, Outlive), String> {
    let (tag, time) = text.split_once('=').ok_or("give a tag and a time: web=2h")?;
    let tag: Tag = tag.parse().map_err(|error| format!("the tag `{tag}` {error}"))?;
    Ok((tag, outlive_or_default(time)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_within_the_limits_or_is_the_default() {
        assert_eq!(outlive_or_default("2h"), Ok(Some(Duration::from_secs(7200))));
        assert_eq!(outlive_or_default("default"), Ok(None));
        let (tag, time) = tag_outlive("web=default").expect("a tag and a time");
        assert_eq!((tag.as_str(), time), ("web", None));
        for wrong in ["web", "web=", "web=59m", "web=31d", "=2h", "two words=2h"] {
            assert!(tag_outlive(wrong).is_err(), "{wrong}");
        }
    }
}
