//! Reading of `[[rule]]`.

use std::ops::Range;

use toml::de::DeTable;

use super::action;
use super::problem::Notes;
use super::table::{Item, Table, scope, text};
use crate::rule::has_controls;
use crate::selector::shown;
use crate::words::nearest;
use crate::{Complaint, PortRange, Rule, Scope, Selector, protocol};

const KEYS: [&str; 7] = ["action", "from", "to", "protocol", "ports", "via", "note"];

const ENDS: &str = "write a list as [\"tag:web\", \"member:alpha\", \"10.1.0.0/16\"], or \"*\" for every end";
const PROTOCOLS: &str =
    "write \"tcp\", \"udp\", \"icmp\", the number of an IP protocol, or \"*\" for every one";
const PORTS: &str = "write ports as [5432, \"8000-8100\"], or \"*\" for all";
const GATEWAYS: &str = "name the gateways as [\"tag:office\"], or leave `via` out for all";

/// Reads a rule. Notes errors, and returns `None` if there is one.
pub(super) fn read(table: &DeTable<'_>, span: Range<usize>, notes: &mut Notes<'_>) -> Option<Rule> {
    let table = Table::new(table, span, "the rule", &KEYS, notes);
    let action = table
        .require("action", "write `action = \"allow\"` or `action = \"deny\"`", notes)
        .and_then(|value| action(value, "write \"allow\" or \"deny\"", notes));
    let from = ends(&table, "from", notes);
    let to = ends(&table, "to", notes);
    let protocols = table
        .require("protocol", PROTOCOLS, notes)
        .and_then(|value| scope(value, PROTOCOLS, notes, protocols));
    let ports = ports(&table, protocols.as_ref(), notes);
    let via = gateways(&table, from.as_ref().zip(to.as_ref()), notes);
    let note = note(&table, notes);
    let line = u16::try_from(notes.line(table.span.start)).ok();
    let rule = Rule {
        action: action?,
        line: line?,
        from: from?,
        to: to?,
        via: via?,
        protocols: protocols?,
        ports: ports?,
        note: note?,
    };
    Some(rule)
}

fn ends(table: &Table<'_>, key: &str, notes: &mut Notes<'_>) -> Option<Scope<Selector>> {
    let value = table.require(key, ENDS, notes)?;
    scope(value, ENDS, notes, selector)
}

fn selector(item: Item<'_>) -> Result<Vec<Selector>, Complaint> {
    match item {
        Item::Text(text) => text.parse().map(|selector| vec![selector]),
        Item::Number(_) => Err(Complaint::new("a number names no end of a flow", ENDS)),
    }
}

/// Reads a protocol, of which `icmp` is two.
pub(super) fn protocols(item: Item<'_>) -> Result<Vec<u8>, Complaint> {
    let text = match item {
        Item::Number(Some(number)) if number <= 255 => return Ok(vec![number as u8]),
        Item::Number(_) => return Err(Complaint::new("IP protocols have numbers from 0 to 255", PROTOCOLS)),
        Item::Text(text) => text,
    };
    match text {
        "tcp" => Ok(vec![protocol::TCP]),
        "udp" => Ok(vec![protocol::UDP]),
        "icmp" => Ok(vec![protocol::ICMP, protocol::ICMPV6]),
        _ => {
            let number = text.parse::<u8>().ok().filter(|number| number.to_string() == text);
            let hint = match (number, nearest(text, &["tcp", "udp", "icmp"])) {
                (Some(number), _) => format!("write {number} without quotes"),
                (None, Some(meant)) => format!("write \"{meant}\""),
                (None, None) => PROTOCOLS.to_owned(),
            };
            Err(Complaint::new(format!("`{}` is no protocol", shown(text)), hint))
        }
    }
}

fn ports(
    table: &Table<'_>,
    protocols: Option<&Scope<u8>>,
    notes: &mut Notes<'_>,
) -> Option<Scope<PortRange>> {
    let Some(value) = table.get("ports") else {
        // Rules for protocols with ports say which, so that a line that is lost never widens a rule.
        let some = protocols.map(Scope::list).unwrap_or_default();
        return match some.iter().any(|number| protocol::has_ports(*number)) {
            true => table.require("ports", PORTS, notes).map(|_| Scope::All),
            false => Some(Scope::All),
        };
    };
    let ports = scope(value, PORTS, notes, |item| match item {
        Item::Text(text) => text.parse().map(|range| vec![range]),
        Item::Number(number) => port(number).and_then(|port| PortRange::new(port, port)).map_or_else(
            || Err(Complaint::new("this is no port", "ports are numbers from 1 to 65535")),
            |range| Ok(vec![range]),
        ),
    })?;
    let protocols = protocols?;
    let with = protocols.list().iter().filter(|number| protocol::has_ports(**number)).count();
    if (protocols.is_all() || with < protocols.list().len()) && !ports.is_all() {
        let text = "only TCP and UDP have ports, and the rule has other protocols, too";
        let hint =
            "write `protocol = [\"tcp\", \"udp\"]`, and another rule without `ports` for other protocols";
        notes.error(value.span(), Complaint::new(text, hint));
        return None;
    }
    Some(ports)
}

/// Returns a port from a number of the file.
pub(super) fn port(number: Option<u64>) -> Option<u16> {
    number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0)
}

fn gateways(
    table: &Table<'_>,
    ends: Option<(&Scope<Selector>, &Scope<Selector>)>,
    notes: &mut Notes<'_>,
) -> Option<Scope<Selector>> {
    let Some(value) = table.get("via") else { return Some(Scope::All) };
    let via = scope(value, GATEWAYS, notes, selector)?;
    let hosts = |scope: &Scope<Selector>| scope.list().iter().filter(|one| one.is_hosts()).count();
    let is_only = |scope: &Scope<Selector>| hosts(scope) > 0 && hosts(scope) == scope.list().len();
    let complaint = match ends {
        _ if via.is_all() => Complaint::new("every gateway is meant without `via`", "leave the line out"),
        _ if hosts(&via) > 0 => Complaint::new("a gateway is a member, and no block of addresses", GATEWAYS),
        Some((from, to)) if hosts(from) > 0 && hosts(to) > 0 => Complaint::new(
            "`from` and `to` have blocks of addresses, so it is unclear whose gateways `via` names",
            "leave `via` out: then the gateways at both ends may be any",
        ),
        Some((from, to)) if hosts(from) == 0 && hosts(to) == 0 => Complaint::new(
            "`via` matches nothing, because neither `from` nor `to` has a block of addresses",
            "write the hosts behind the gateway as `to = \"10.1.0.0/16\"`; \"0.0.0.0/0\" is all of IPv4",
        ),
        Some((from, to)) if !is_only(from) && !is_only(to) => Complaint::new(
            "members are in one list with hosts behind the gateways of `via`",
            "write two rules: one for the hosts with `via`, one for the members without",
        ),
        _ => return Some(via),
    };
    notes.error(value.span(), complaint);
    None
}

/// Returns the note, if there is one; `None` if it is wrong.
fn note(table: &Table<'_>, notes: &mut Notes<'_>) -> Option<Option<Box<str>>> {
    let Some(value) = table.get("note") else { return Some(None) };
    let note = text(value, "write a short text as `note = \"backups at night\"`", notes)?;
    let complaint = match note.len() {
        0 => Complaint::new("the note is empty", "leave the line out"),
        length if length > Rule::MAX_NOTE_LEN => Complaint::new(
            format!("the note has {length} bytes; {} are allowed", Rule::MAX_NOTE_LEN),
            "notes are sent to members; comments behind # are not",
        ),
        _ if has_controls(note) => {
            Complaint::new("the note has control characters", "write a text of one line")
        }
        _ => return Some(Some(note.into())),
    };
    notes.error(value.span(), complaint);
    None
}
