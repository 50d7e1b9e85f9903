use peersock_overlay::membership::UnixTime;

use crate::controller::Controller;
use crate::store::StoreError;

/// Line of the log of administrative changes. The store refuses to change or delete lines.
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

impl Controller {
    /// Returns the lines after the one with number `after`, at most `limit`, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn log(&self, after: i64, limit: u32) -> Result<Vec<LogLine>, StoreError> {
        let mut statement = self.store.db().prepare(
            "SELECT number, at, who, action, what FROM log WHERE number > ? ORDER BY number LIMIT ?",
        )?;
        let lines = statement.query_map((after, limit), |row| {
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
