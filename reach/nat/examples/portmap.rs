//! Opens a port of the router, shows it, and closes it: `portmap LOCAL-ADDRESS ROUTER PORT
//! [pcp|nat-pmp|upnp]`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Duration;

use peersock_nat::portmap::{Gateway, Protocol, Transport, find, map, map_by};

const BUDGET: Duration = Duration::from_secs(3);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [local, router, port, protocol @ ..] = words.as_slice() else { return Err("see the source".into()) };
    let gateway = Gateway {
        interface: None,
        local: local.parse()?,
        router: (router.parse::<std::net::IpAddr>()?, 0).into(),
    };
    for found in find(&gateway, BUDGET) {
        println!("{} {:?}", found.protocol, found.external);
    }
    let (port, lifetime) = (port.parse()?, Duration::from_secs(600));
    let protocol = match protocol.first().map(String::as_str) {
        Some("pcp") => Some(Protocol::Pcp),
        Some("nat-pmp") => Some(Protocol::NatPmp),
        Some("upnp") => Some(Protocol::Upnp),
        _ => None,
    };
    let mapping = match protocol {
        Some(protocol) => map_by(protocol, &gateway, Transport::Udp, port, lifetime, BUDGET)?,
        None => map(&gateway, Transport::Udp, port, lifetime, BUDGET)?,
    };
    println!("{mapping:?}");
    println!("renewed: {:?}", mapping.renew(&gateway, lifetime, BUDGET)?.external);
    mapping.remove(&gateway, BUDGET)?;
    Ok(())
}
