use peersock_overlay::membership::UnixTime;
use peersock_overlay::{NodeId, Prefix};

use crate::addresses::{range, size};
use crate::controller::Controller;
use crate::delegation;
use crate::member::{Member, SecondRun, Standing};
use crate::store::StoreError;

/// Use of an address pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Pool.
    pub pool: Prefix,
    /// Number of addresses that are held, rest or are reserved.
    pub used: u64,
    /// Number of addresses that members can have.
    pub size: u128,
}

impl PoolUse {
    /// Returns true if 80 % of the addresses are in use.
    pub fn is_nearly_full(&self) -> bool {
        u128::from(self.used) * 5 >= self.size.saturating_mul(4)
    }
}

/// State of a network, for people and monitoring.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Number of members.
    pub members: usize,
    /// Number of nodes that are held until a person approves them again.
    pub held: usize,
    /// Number of machines that wait for approval.
    pub pending: usize,
    /// Number of revocations that are published.
    pub revocations: usize,
    /// Number of the current head.
    pub epoch: u64,
    /// End of the right to issue certificates: of the delegation, or of the network key that has signed it.
    pub delegation_end: UnixTime,
    /// Days of the last warning about that end that is due: 60, 30, 14, 7 or 1; 0 after the end.
    pub delegation_warning: Option<u64>,
    /// True if the network's last key is in the store, so that the delegation is renewed without a person.
    pub renews_delegation: bool,
    /// Pools in use.
    pub pools: Vec<PoolUse>,
    /// Members of which two runs were seen at the same time since the controller's start.
    pub second_runs: Vec<(NodeId, SecondRun)>,
    /// Time until which nothing is issued because the store may be an old copy.
    pub unsettled_until: Option<UnixTime>,
    /// Time until which members of a restored store get no certificates, unless a head is heard before.
    pub renewals_rest_until: Option<UnixTime>,
    /// Time until which, at least, no address of a pool is given out, because a member may have it from
    /// before the network was restored. `None` without a pool.
    pub addresses_rest_until: Option<UnixTime>,
    /// Last error of the store, if no write has succeeded since.
    pub fault: Option<StoreError>,
}

impl Controller {
    /// Returns the state of the network.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the use of the pools cannot be read.
    pub fn status(&mut self, now: UnixTime) -> Result<Status, StoreError> {
        let now = self.time(now);
        self.notice()?;
        let memory = self.memory();
        let count = |standing| memory.members.values().filter(|member| member.standing == standing).count();
        let settings = memory.settings.clone();
        let mut status = Status {
            members: count(Standing::Member),
            held: count(Standing::Held),
            pending: memory.pending.len(),
            revocations: memory.revoked.len(),
            epoch: memory.epoch,
            delegation_end: memory.right_end(),
            delegation_warning: delegation::warning(memory.right_end(), now),
            renews_delegation: memory.has_last_key(),
            pools: Vec::new(),
            second_runs: memory
                .members
                .iter()
                .filter_map(|(node, member): (_, &Member)| Some((*node, **member.second_run.as_ref()?)))
                .collect(),
            unsettled_until: Some(memory.unsettled_until).filter(|until| now < *until),
            renewals_rest_until: Some(memory.renewals_rest_until).filter(|until| now < *until),
            addresses_rest_until: Some(memory.pools_rest_until)
                .filter(|_| memory.pools_rest() && (settings.ipv4.is_some() || settings.ipv6.is_some())),
            fault: self.fault.clone(),
        };
        drop(memory);
        for pool in settings.ipv4.into_iter().chain(settings.ipv6) {
            let (first, last) = range(&pool);
            let used = self.store.db().query_row(
                "SELECT count(*) FROM (SELECT address FROM addresses WHERE address BETWEEN ?1 AND ?2
                    UNION SELECT address FROM reservations WHERE address BETWEEN ?1 AND ?2)",
                (first.to_be_bytes(), last.to_be_bytes()),
                |row| row.get(0),
            )?;
            status.pools.push(PoolUse { pool, used, size: size(&pool) });
        }
        Ok(status)
    }
}
