//! Access rules that the network's controller signs. What they mean only members and the program know.

use peersock_overlay::membership::{RulesHead, SignedRules, UnixTime};

use crate::admin::ChangeError;
use crate::controller::Controller;
use crate::member::millis;
use crate::store::StoreError;

/// Access rules in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRules {
    /// Version: the milliseconds of the Unix time at which they were applied, or a little more.
    pub version: u64,
    /// File as it was applied.
    pub file: Vec<u8>,
    /// Encoding, which members are sent.
    pub encoded: Vec<u8>,
}

impl Controller {
    /// Replaces the access rules. `file` is the text for people, and `encoded` what members are sent. Returns
    /// the version, which is later than those that the store and `known` have: members may know later rules
    /// than a store that was restored.
    ///
    /// # Errors
    /// Returns a [`ChangeError`] if the store fails.
    pub fn apply_rules(
        &mut self,
        now: UnixTime,
        actor: &str,
        (file, encoded): (&[u8], &[u8]),
        known: Option<u64>,
    ) -> Result<u64, ChangeError> {
        self.notice()?;
        let now = self.time(now);
        let version = self.write(|write, _| {
            let sql = "SELECT rules_version FROM network";
            let stored = write.one(sql, [], |row| row.get::<_, i64>(0))?.unwrap_or_default();
            let last = stored.cast_unsigned().max(known.unwrap_or_default());
            let version = now.as_millis().max(last.saturating_add(1));
            write.run(
                "UPDATE network SET rules_file = ?, rules = ?, rules_version = ?",
                (file, encoded, version.cast_signed()),
            )?;
            write.log(millis(now), actor, "rules", &version.to_string())?;
            Ok::<_, StoreError>(version)
        })?;
        Ok(version)
    }

    /// Returns the access rules, if any were applied.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn stored_rules(&self) -> Result<Option<StoredRules>, StoreError> {
        let sql = "SELECT rules_version, rules_file, rules FROM network WHERE rules_version > 0";
        let mut statement = self.store.db().prepare(sql)?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let version = row.get::<_, i64>(0)?.cast_unsigned();
        Ok(Some(StoredRules { version, file: row.get(1)?, encoded: row.get(2)? }))
    }

    /// Returns the access rules as this controller signs them. With the same rules, key and right to issue it
    /// is the same statement, so a controller that starts again tells members nothing new.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn rules(&mut self) -> Result<Option<SignedRules>, StoreError> {
        self.notice()?;
        let sql = "SELECT rules_version FROM network";
        let version = self.store.db().query_row(sql, [], |row| row.get::<_, i64>(0))?.cast_unsigned();
        let is_same = |signed: &SignedRules, delegation| {
            signed.head().version() == version && signed.head().delegation() == delegation
        };
        {
            let memory = self.memory();
            if let Some(signed) = memory.rules.as_ref().filter(|one| is_same(one, &memory.delegation)) {
                return Ok(Some(signed.clone()));
            }
        }
        let Some(stored) = self.stored_rules()? else { return Ok(None) };
        let mut memory = self.memory();
        let delegation = memory.delegation.clone();
        let time = UnixTime::from_millis(stored.version).max(delegation.serial().time());
        let (network, rules) = (memory.network, &stored.encoded);
        let head = RulesHead::sign(&memory.identity, delegation, network, stored.version, time, rules);
        memory.rules = Some(SignedRules::new(head, rules));
        Ok(memory.rules.clone())
    }
}
