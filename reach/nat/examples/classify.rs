//! Prints the NAT in front of a local address: `classify LOCAL-ADDRESS SERVER:PORT..`
#![allow(clippy::print_stdout)]

use std::error::Error;

use peersock_nat::probe::{self, Settings};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let local = words.next().ok_or("which local address?")?.parse()?;
    let servers = words.map(|word| word.parse()).collect::<Result<_, _>>()?;
    let nat = probe::run(local, None, &Settings::new(servers))?.decide();
    println!("{}", serde_json::to_string(&nat)?);
    Ok(())
}
