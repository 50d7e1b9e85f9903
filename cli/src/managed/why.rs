//! `peersock why`: a flow that rules allow or refuse, and the reason.

use std::net::IpAddr;
use std::path::Path;

use peersock::NetworkId;
use peersock::management;
use peersock::overlay::membership::Grant;
use peersock::state::{MembershipRecord, StateDir};
use peersock_rules::{Compiled, End, Flow, Reason, RuleSet, Side, Subject, explain, protocol};
use serde_json::json;

use super::rules::since;
use super::{DirectoryArgs, now, stores};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::status;

/// Say whether a managed network's rules allow a flow, and why
///
/// Both ends decide by the network's rules, which this machine has kept: it needs no node and no controller.
/// Tags of other members are known from the node here while it knows them, and at the controller's machine;
/// --to-tag says others. The exit status is 0 if the flow is allowed, and 1 if it is refused.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock why beta:5432
  peersock why alpha beta:5432
  peersock why --udp alpha beta:53 --json
  peersock why alpha beta                     # ICMP, as ping does")]
pub(crate) struct WhyArgs {
    /// Member that opens the flow [default: this machine], and the other end with its port
    ///
    /// Without a port it is a flow of ICMP.
    #[arg(required = true, num_args = 1..=2, value_names = ["FROM", "TO:PORT"])]
    ends: Vec<String>,

    /// A flow of UDP, and not of TCP
    #[arg(long)]
    udp: bool,

    /// Member that is the gateway of the address in TO
    #[arg(long, value_name = "GATEWAY")]
    via: Option<String>,

    /// Tag of TO, if this machine does not know the member; may be repeated
    #[arg(long, value_name = "TAG")]
    to_tag: Vec<String>,

    /// Managed network, by its name or ID [default: the only one]
    #[arg(short = 'n', value_name = "NETWORK")]
    network: Option<String>,

    /// Print a JSON object: allowed, rule, line, note, side, version of the rules
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    state: DirectoryArgs,
}

/// Member as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    name: String,
    tags: Vec<String>,
    node: [u8; 32],
    addresses: Vec<IpAddr>,
}

impl Known {
    fn of(grant: &Grant) -> Known {
        Known {
            name: grant.name.to_string(),
            tags: grant.tags.iter().map(ToString::to_string).collect(),
            node: *grant.node.as_bytes(),
            addresses: grant.addresses().collect(),
        }
    }

    /// Returns true if a text names the member, or a program on its machine.
    fn is_meant(&self, text: &str) -> bool {
        let lower = text.to_ascii_lowercase();
        let machine = lower.rsplit_once('.').map_or(lower.as_str(), |(_, machine)| machine);
        self.name == lower || self.name == machine || {
            text.parse().is_ok_and(|address: IpAddr| self.addresses.contains(&address))
        }
    }
}

pub(crate) fn why(args: &WhyArgs) -> Outcome {
    let path = args.state.path()?;
    let record = record_of(&path, args.network.as_deref())?;
    let own = record.credentials.as_ref().map(|own| Known::of(own.certificate().grant()));
    let mut members = members(&path, record.id, own.clone());
    let (from, to) = match args.ends.as_slice() {
        [to] => (None, to.as_str()),
        [from, to] => (Some(from.as_str()), to.as_str()),
        _ => unreachable!("clap takes one or two"),
    };
    let (host, port) = split(to)?;
    if !args.to_tag.is_empty() && !members.iter().any(|member| member.is_meant(host)) {
        members.push(named(host, &args.to_tag));
    }
    let from = match from {
        Some(name) => find(&members, name)?,
        None => own.as_ref().ok_or_else(|| {
            Failure::new("this machine is no member of the network", "name the member that opens the flow")
        })?,
    };
    let number = match (port, args.udp) {
        (None, true) => return Err(Failure::usage("a flow of UDP has a port", "give it as `beta:53`")),
        (None, false) if host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()) => protocol::ICMP,
        (None, false) => protocol::ICMPV6,
        (Some(_), true) => protocol::UDP,
        (Some(_), false) => protocol::TCP,
    };
    let gateway = args.via.as_deref().map(|name| find(&members, name)).transpose()?;
    let target = match gateway {
        Some(gateway) => gateway,
        None => find(&members, host)?,
    };
    let (from_tags, to_tags) = (tags(from), tags(target));
    let to_end = match gateway {
        Some(_) => End::behind(
            subject(target, &to_tags),
            host.parse().map_err(|_| {
                Failure::usage("only an address is behind a gateway", "give TO as an address, as 10.1.0.9:80")
            })?,
        ),
        None => End::member(subject(target, &to_tags)),
    };
    let flow = Flow {
        from: End::member(subject(from, &from_tags)),
        to: to_end,
        protocol: number,
        port: port.unwrap_or(0),
    };
    answer(args.json, &record, &flow)
}

/// Decides about the flow by the rules that the machine has kept.
fn answer(is_json: bool, record: &MembershipRecord, flow: &Flow<'_>) -> Outcome {
    let newest = record.rules.iter().max_by_key(|signed| signed.head().rank());
    let Some(signed) = newest else {
        return match is_json {
            true => print(json!({ "allowed": true, "rules": null })),
            false => print("allowed: the network has no rules, as far as this machine knows"),
        };
    };
    let version = signed.head().version();
    let Ok(set) = RuleSet::decode(signed.rules()) else {
        return Err(Failure::new(
            "this version cannot read the network's rules, so it refuses all flows",
            "install a newer version of peersock",
        ));
    };
    let compiled = Compiled::new(set);
    let explained = explain(flow, &compiled, &compiled);
    let (is_allowed, refuser) = (explained.is_allowed(), explained.refuser());
    let Reason { decision, rule, note, .. } = match refuser {
        Some(Side::To) => &explained.to,
        _ => &explained.from,
    };
    let side = refuser.map(|side| match side {
        Side::From => "from",
        Side::To => "to",
    });
    match is_json {
        true => print(json!({
            "allowed": is_allowed,
            "number": decision.rule.map(|rule| rule.number),
            "line": decision.rule.map(|rule| rule.line),
            "rule": rule,
            "note": note,
            "refused_by": side,
            "rules": version,
            "since": version as f64 / 1e3,
        }))?,
        false => print(format_args!("{explained}\n  by the rules of {}", since(version, now())))?,
    }
    if is_allowed { Ok(()) } else { Err(Failure::silent(1)) }
}

/// Returns a member of which a person knows the name and the tags. No rule names its node.
fn named(name: &str, tags: &[String]) -> Known {
    let tags = tags.iter().map(|tag| tag.to_ascii_lowercase()).collect();
    Known { name: name.to_ascii_lowercase(), tags, node: [0; 32], addresses: Vec::new() }
}

fn tags(member: &Known) -> Vec<&str> {
    member.tags.iter().map(String::as_str).collect()
}

fn subject<'a>(member: &'a Known, tags: &'a [&'a str]) -> Subject<'a> {
    Subject { name: Some(&member.name), tags, node: &member.node }
}

fn find<'a>(members: &'a [Known], text: &str) -> Outcome<&'a Known> {
    members.iter().find(|member| member.is_meant(text)).ok_or_else(|| {
        Failure::new(
            format_args!("the tags of {text} are not known on this machine"),
            "give those of the other end by --to-tag TAG, or ask while it is connected, or at the controller's machine",
        )
    })
}

/// Splits `beta:5432`, `10.7.0.3:53` or `[fd00::1]:53`; a text without a port is whole.
fn split(text: &str) -> Outcome<(&str, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, None));
    }
    let Some((host, port)) = text.rsplit_once(':') else { return Ok((text, None)) };
    let port = port.parse().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| {
        Failure::usage(
            format_args!("{text} has no valid port"),
            "give a port from 1 to 65535, as `beta:5432`",
        )
    })?;
    Ok((host.trim_start_matches('[').trim_end_matches(']'), Some(port)))
}

/// Returns the record of the network that is named, or of the only one.
fn record_of(path: &Path, named: Option<&str>) -> Outcome<MembershipRecord> {
    let records = StateDir::memberships(path)?;
    let id = named.and_then(|text| super::parse_id(text).ok());
    let is_meant = |record: &&MembershipRecord| {
        named.is_none() || record.name.as_deref() == named || Some(record.id) == id
    };
    let mut meant = records.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(one), None) => Ok(one.clone()),
        (None, _) => Err(Failure::new(
            "this machine is in no such managed network",
            "list the networks with `peersock networks`",
        )),
        _ => Err(Failure::usage("this machine is in several managed networks", "name one with -n")),
    }
}

/// Returns the members that are known here: this machine, those in the store of a controller, and the peers
/// of the node that runs here.
fn members(path: &Path, network: NetworkId, own: Option<Known>) -> Vec<Known> {
    let mut known: Vec<Known> = own.into_iter().collect();
    if super::is_controller_of(path, network)
        && let Ok(mut controller) = stores::open_one(path, network)
    {
        let members = controller.members().unwrap_or_default();
        known.extend(members.iter().filter(|one| one.is_member()).map(|one| Known::of(&one.grant)));
    }
    let text = management::status(path, usize::MAX).ok();
    let peers =
        text.and_then(|text| status::parse(&text).ok()).map(|status| status.peers).unwrap_or_default();
    let of_network = peers.into_iter().filter(|peer| peer.network == network);
    known.extend(of_network.filter_map(|peer| {
        let node = *peer.machine.unwrap_or(peer.id).as_bytes();
        Some(Known { name: peer.name?, tags: peer.tags, node, addresses: peer.addresses })
    }));
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_has_a_port_or_none() {
        let of = |text| split(text).ok();
        assert_eq!(of("beta:5432"), Some(("beta", Some(5432))));
        assert_eq!(of("beta"), Some(("beta", None)));
        assert_eq!(of("[fd00::1]:53"), Some(("fd00::1", Some(53))));
        assert_eq!(of("fd00::1"), Some(("fd00::1", None)));
        assert_eq!(of("10.7.0.3:53"), Some(("10.7.0.3", Some(53))));
        assert_eq!((of("beta:0"), of("beta:many")), (None, None));
    }

    #[test]
    fn a_program_is_its_machine() {
        let addresses = vec!["10.7.0.3".parse().expect("an address")];
        let known = Known { name: "alpha".to_owned(), tags: Vec::new(), node: [1; 32], addresses };
        for text in ["alpha", "ALPHA", "web.alpha", "10.7.0.3"] {
            assert!(known.is_meant(text), "{text}");
        }
        assert!(!known.is_meant("alph") && !known.is_meant("10.7.0.4") && !known.is_meant("alpha.web"));
    }
}
