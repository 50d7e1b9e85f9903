//! Settings of a network and of its tags.

use std::collections::BTreeMap;
use std::time::Duration;

use peersock_overlay::membership::{Tag, UnixTime};

use super::ChangeError;
use crate::addresses::Hints;
use crate::controller::{Controller, lock};
use crate::member::{millis, span};
use crate::settings::{OUTLIVE, Settings};

impl Controller {
    /// Returns the times for which members with certain tags go on without a controller.
    pub fn tag_outlive(&self) -> BTreeMap<Tag, Duration> {
        self.memory().tag_outlive.clone()
    }

    /// Changes the settings of the network. Members get addresses of new pools at their next renewal, and
    /// keep those of former pools.
    ///
    /// # Errors
    /// Returns [`ChangeError::Range`] for values that are out of range.
    pub fn set_settings(&mut self, now: UnixTime, who: &str, settings: &Settings) -> Result<(), ChangeError> {
        self.change_settings(now, who, |present| present.clone_from(settings)).map(|_| ())
    }

    /// Does the same with what `change` makes of the settings in the store. What it leaves stays as it is,
    /// also if another process has just changed it. Returns the settings after the change.
    ///
    /// # Errors
    /// Returns [`ChangeError::Range`] for values that are out of range.
    pub fn change_settings(
        &mut self,
        now: UnixTime,
        who: &str,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Settings, ChangeError> {
        let (now, memory) = (self.time(now), self.shared());
        self.write(|write, hints| {
            let (mut settings, network) = {
                let memory = lock(&memory);
                (memory.settings.clone(), memory.network)
            };
            change(&mut settings);
            if !settings.is_valid_in(network) {
                return Err(ChangeError::Range("the settings"));
            }
            write.run(
                "UPDATE network SET outlive = ?, pool4 = ?, pool6 = ?, ephemeral_ipv4 = ?, on_clone = ?",
                (
                    span(settings.outlive),
                    settings.ipv4.map(|pool| pool.to_string()),
                    settings.ipv6.map(|pool| pool.to_string()),
                    settings.ephemeral_ipv4,
                    settings.on_clone as u8,
                ),
            )?;
            *hints = Hints::default();
            write.log(
                millis(now),
                who,
                "settings",
                &format!("{} s without a controller", settings.outlive.as_secs()),
            )?;
            Ok(settings)
        })
    }

    /// Sets the time for which members with a tag go on without a controller; `None` for the network's.
    /// With several tags, the shortest time counts.
    ///
    /// # Errors
    /// Returns [`ChangeError::Range`] for a time out of range.
    pub fn set_tag_outlive(
        &mut self,
        now: UnixTime,
        who: &str,
        tag: &Tag,
        outlive: Option<Duration>,
    ) -> Result<(), ChangeError> {
        let now = self.time(now);
        check_outlive(outlive)?;
        self.write(|write, _| {
            match outlive {
                Some(outlive) => write.run(
                    "INSERT INTO tag_settings (tag, outlive) VALUES (?1, ?2) ON CONFLICT (tag) DO UPDATE SET outlive = ?2",
                    (tag.as_str(), span(outlive)),
                ),
                None => write.run("DELETE FROM tag_settings WHERE tag = ?", [tag.as_str()]),
            }?;
            write.log(millis(now), who, "settings", tag.as_str())?;
            Ok(())
        })
    }
}

pub(super) fn check_outlive(outlive: Option<Duration>) -> Result<(), ChangeError> {
    let is_valid = outlive.is_none_or(|outlive| OUTLIVE.contains(&outlive));
    if is_valid { Ok(()) } else { Err(ChangeError::Range("the time without a controller")) }
}
