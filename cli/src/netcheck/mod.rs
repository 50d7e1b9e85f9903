//! `peersock netcheck`

mod roots;
mod show;

use std::collections::BTreeMap;
use std::env;
use std::thread;

use peersock::interfaces::{
    ROOTS_VARIABLE, RootList, Target, Transport, TurnCheck, check_turn, lists_of_environment,
    servers_of_environment, turn_of_environment,
};
use peersock::overlay::wire::DISCOVERY_PORT;
use peersock::{Interfaces, RootSource, RootStatus};
use peersock_nat::netcheck::{self, Advice, Report};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::servers::{roots_failure, turn_servers};

/// Show what network this machine is in: interfaces, NAT, what is blocked, and what to do about it
///
/// Asks the given STUN servers, and the roots that PEERSOCK_ROOTS names, from every interface: as what they
/// see this machine, and how long they take to answer; roots also whether they have the keys that name them,
/// for which this machine registers there for a moment under a new identity. From that follows what NAT there
/// is. The routers are asked whether they open ports, the nameservers whether they answer. TURN servers are
/// asked for an address, which is given back at once. No server is asked that nobody named: without any, the
/// kind of NAT stays unknown. It ends within six seconds, whatever the network, and with status 0 also where
/// everything is blocked. If PEERSOCK_ROOTS has lists, they are asked before, which takes up to four seconds
/// for dns:DOMAIN, and six for lan.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock netcheck
  peersock netcheck --stun stun.example.org:3478 --stun 192.0.2.1:3478
  PEERSOCK_ROOTS=\"$(cat roots)\" peersock netcheck --interface eth0
  peersock netcheck --turn @turn-servers
  peersock netcheck --json --stun 192.0.2.1:3478 | jq '.interfaces[] | {name, nat: .ipv4.kind}'")]
pub(crate) struct Args {
    /// A STUN server to ask; may be given several times. One that knows RFC 5780 (coturn does) tells most,
    /// two others tell how the NAT maps [env: PEERSOCK_STUN]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_server)]
    stun: Vec<Target>,

    /// A TURN server to ask, as the option of the same name of `listen` and `dial` has it; may be given
    /// several times [env: PEERSOCK_TURN]
    #[arg(long = "turn", value_name = "TEXT")]
    turn: Vec<Zeroizing<String>>,

    /// Look at this network interface only; may be given several times
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,

    /// Hear roots that announce themselves (lan in PEERSOCK_ROOTS) at this UDP port
    #[arg(long, value_name = "PORT", default_value_t = DISCOVERY_PORT)]
    discovery_port: u16,

    /// Print one JSON object; docs/NETCHECK.md explains the fields
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    // First, because a file that cannot be read is another failure than a text that is wrong.
    let sources = RootSource::load(&env::var(ROOTS_VARIABLE).unwrap_or_default())
        .map_err(|error| roots_failure(ROOTS_VARIABLE, error))?;
    let wrong = |error| Failure::usage(format_args!("{error}"), "correct the variable, or unset it");
    let mut targets = servers_of_environment(&args.stun).map_err(wrong)?;
    let allowed = match args.interfaces.as_slice() {
        [] => Interfaces::All,
        names => Interfaces::Named(names.to_vec()),
    };
    let lists = lists_of_environment(&allowed, args.discovery_port).map_err(wrong)?;
    let mut origins = Origins::new();
    for list in &lists {
        for server in list.servers.iter().filter(|server| !targets.contains(server)) {
            origins.entry(server.clone()).or_insert_with(|| list.source.clone());
        }
    }
    targets.extend(origins.keys().cloned());
    let servers = match args.turn.as_slice() {
        [] => turn_of_environment().map_err(wrong)?,
        texts => turn_servers(texts)?,
    };
    let (report, turn, roots) = thread::scope(|scope| {
        let turn = scope.spawn(|| check_turn(&servers, &args.interfaces));
        let roots = scope.spawn(|| roots::check(sources, &allowed));
        let report = netcheck::run(&targets, &args.interfaces);
        (report, turn.join().unwrap_or_default(), roots.join().unwrap_or_default())
    });
    let mut report = report.map_err(|error| {
        Failure::new(
            format_args!("the system does not tell its interfaces: {error}"),
            "run it with -v to see the log",
        )
    })?;
    if !args.interfaces.is_empty() && report.interfaces.is_empty() {
        return Err(Failure::usage(
            format_args!("no interface that is up has the name {}", args.interfaces.join(" or ")),
            "run it without --interface to see which there are",
        ));
    }
    let mut advice: Vec<_> = lists.iter().filter_map(list_advice).collect();
    advice.extend(roots::advise(&roots, &report));
    advice.append(&mut report.advice);
    report.advice = advice;
    if args.json {
        return print(json(&report, &turn, &lists, &roots, &origins).map_err(std::io::Error::other)?);
    }
    print(show::text(&report, &turn, &lists, &roots, &origins))
}

/// What to do about a list that names no root.
fn list_advice(list: &RootList) -> Option<Advice> {
    let error = list.error.as_ref()?;
    let what_to_do = match list.source == RootSource::Lan.to_string() {
        true => "start `peersock root --announce` on this network, or name a root by its key",
        false => {
            "look whether its TXT records of _peersock are there (docs/ROOT.md), or name a root by its key"
        }
    };
    Some(Advice::new(format!("no root is known from {}: {error}", list.source), Some(what_to_do)))
}

/// Which list has named a server, if it was a list.
type Origins = BTreeMap<Target, String>;

fn json(
    report: &Report,
    turn: &[TurnCheck],
    lists: &[RootList],
    roots: &[RootStatus],
    origins: &Origins,
) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(report)?;
    let named = [
        ("servers", report.servers.iter().map(|server| &server.target).collect::<Vec<_>>()),
        ("tcp", report.tcp.iter().map(|check| &check.target).collect()),
    ];
    for (field, targets) in named {
        for (at, target) in targets.into_iter().enumerate() {
            value[field][at]["origin"] = json!(origins.get(target));
        }
    }
    let list = |list: &RootList| json!({ "source": list.source, "roots": list.roots, "error": list.error });
    value["lists"] = lists.iter().map(list).collect();
    value["roots"] = roots.iter().map(roots::json).collect();
    value["turn"] = serde_json::to_value(turn)?;
    if let Some(advice) = value["advice"].as_array_mut() {
        advice.extend(
            turn.iter().filter_map(|check| {
                Some(json!({ "finding": finding(check)?, "what_to_do": check.what_to_do }))
            }),
        );
    }
    Ok(value)
}

/// What is wrong with a TURN server.
fn finding(check: &TurnCheck) -> Option<String> {
    Some(format!("TURN server {}: {}", check.server, check.error.as_ref()?))
}

fn parse_server(text: &str) -> Result<Target, String> {
    Target::parse(text, Transport::Udp).ok_or_else(|| format!("'{text}' is not HOST:PORT"))
}
