//! Complete report, and its JSON.

use std::collections::BTreeMap;

use peersock_nat::netcheck::{Advice, Report as NetworkReport, Target};
use serde_json::{Value, json};

use super::RootCheck;
use super::roots::advise;
use crate::RootSource;
use crate::interfaces::{RootList, TurnCheck};

/// Findings about the network. [`Report::to_json`] writes them as `peersock netcheck --json` does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// Interfaces, servers, nameservers, TCP connections and proxies. Its advice covers the whole report, the
    /// most important first.
    pub network: NetworkReport,
    /// Lists of roots that were queried.
    pub lists: Vec<RootList>,
    /// Roots that are named by their keys.
    pub roots: Vec<RootCheck>,
    /// TURN servers.
    pub turn: Vec<TurnCheck>,
    /// List that has named each server, for servers of lists.
    pub origins: BTreeMap<Target, String>,
}

impl Report {
    pub(super) fn new(
        mut network: NetworkReport,
        lists: Vec<RootList>,
        roots: Vec<RootCheck>,
        turn: Vec<TurnCheck>,
        origins: BTreeMap<Target, String>,
    ) -> Self {
        let mut advice: Vec<_> = lists.iter().filter_map(list_advice).collect();
        advice.extend(advise(&roots, &network));
        advice.append(&mut network.advice);
        advice.extend(turn.iter().filter_map(turn_advice));
        network.advice = advice;
        Self { network, lists, roots, turn, origins }
    }

    /// One JSON object, whose fields docs/use/NETCHECK.md explains.
    pub fn to_json(&self) -> String {
        let as_value = |value: serde_json::Result<Value>| value.expect("the keys of all maps are texts");
        let mut value = as_value(serde_json::to_value(&self.network));
        let named = [
            ("servers", self.network.servers.iter().map(|server| &server.target).collect::<Vec<_>>()),
            ("tcp", self.network.tcp.iter().map(|check| &check.target).collect()),
        ];
        for (field, targets) in named {
            for (at, target) in targets.into_iter().enumerate() {
                value[field][at]["origin"] = json!(self.origins.get(target));
            }
        }
        let list =
            |list: &RootList| json!({ "source": list.source, "roots": list.roots, "error": list.error });
        value["lists"] = self.lists.iter().map(list).collect();
        value["roots"] = as_value(serde_json::to_value(&self.roots));
        value["turn"] = as_value(serde_json::to_value(&self.turn));
        value.to_string()
    }
}

/// Returns the advice for a list without roots.
fn list_advice(list: &RootList) -> Option<Advice> {
    let error = list.error.as_ref()?;
    let what_to_do = match list.source == RootSource::Lan.to_string() {
        true => "start `peersock root --announce` on this network, or name a root by its key",
        false => {
            "check that its TXT records of _peersock exist (docs/use/ROOT.md), or name a root by its key"
        }
    };
    Some(Advice::new(format!("no root is known from {}: {error}", list.source), Some(what_to_do)))
}

/// Returns the finding about a TURN server.
fn turn_advice(check: &TurnCheck) -> Option<Advice> {
    let finding = format!("TURN server {}: {}", check.server, check.error.as_ref()?);
    Some(Advice::new(finding, check.what_to_do.as_deref()))
}
