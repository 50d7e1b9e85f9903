use std::collections::BTreeMap;

use peersock_overlay::NodeId;
use peersock_overlay::membership::UnixTime;

use crate::controller::Controller;
use crate::member::{SecondRun, millis};
use crate::store::{StoreError, Write};

/// Action of a line about a second run of a member.
const SECOND_RUN: &str = "second run";

/// Line of the log of administrative changes, and of second runs of members. The store refuses to change or
/// delete lines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogLine {
    /// Number, which grows.
    pub number: i64,
    /// Time of the change.
    pub at: UnixTime,
    /// Person or program that has changed something.
    pub who: String,
    /// Kind of the change, one or two words.
    pub action: String,
    /// Names, keys and values.
    pub what: String,
}

impl LogLine {
    /// Returns the member and its second run, if the line is about one.
    pub fn second_run(&self) -> Option<(NodeId, SecondRun)> {
        let mut words = self.what.split(' ').filter(|_| self.action == SECOND_RUN);
        let (kept, refused) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((words.next()?.parse().ok()?, SecondRun { kept: Some(kept), refused, at: self.at }))
    }
}

pub(crate) fn write_second_run(write: &Write<'_>, node: &NodeId, run: &SecondRun) -> Result<(), StoreError> {
    let what = format!("{} {} {node}", run.kept.unwrap_or(run.refused), run.refused);
    write.log(millis(run.at), "controller", SECOND_RUN, &what)
}

impl Controller {
    /// Returns the lines after the one with number `after`, at most `limit`, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn log(&self, after: i64, limit: u32) -> Result<Vec<LogLine>, StoreError> {
        self.lines("number > ?", (after, limit))
    }

    /// Returns the last second run of each member that the log has, also of earlier controllers.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn second_runs(&self) -> Result<BTreeMap<NodeId, SecondRun>, StoreError> {
        let lines = self.lines("action = ?", (SECOND_RUN, u32::MAX))?;
        Ok(lines.iter().filter_map(LogLine::second_run).collect())
    }

    /// Returns the lines that match a condition, which is followed by the limit.
    fn lines(&self, condition: &str, values: impl rusqlite::Params) -> Result<Vec<LogLine>, StoreError> {
        let mut statement = self.store.db().prepare(&format!(
            "SELECT number, at, who, action, what FROM log WHERE {condition} ORDER BY number LIMIT ?"
        ))?;
        let lines = statement.query_map(values, |row| {
            Ok(LogLine {
                number: row.get(0)?,
                at: UnixTime::from_millis(row.get(1)?),
                who: row.get(2)?,
                action: row.get(3)?,
                what: row.get(4)?,
            })
        })?;
        Ok(lines.collect::<Result<_, _>>()?)
    }

    /// Returns the number of the newest line, or 0 if there is none.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn last_log_line(&self) -> Result<i64, StoreError> {
        let sql = "SELECT coalesce(max(number), 0) FROM log";
        Ok(self.store.db().query_row(sql, [], |row| row.get(0))?)
    }
}
