//! `peersock network`: the files of static networks.

mod edit;
mod file;
mod show;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Subcommand;
use peersock::overlay::StaticMember;

use crate::args::StateArgs;
use crate::failure::Outcome;

/// Make, edit and show the file of a static network
///
/// A static network has the members that its TOML file lists: their keys, and if wanted their names,
/// addresses, and endpoints where they are found without being on the same LAN. Every member has the same
/// file. docs/use/NETWORKS.md describes it; it can also be edited by hand.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network new office.toml --name alpha --endpoint alpha.example.org:7420
  peersock network add office.toml KEY --name beta        # KEY: what `peersock id --key` prints on beta
  peersock network show office.toml
  peersock listen -n office.toml --overlay-port 7420 7000")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(New),
    Add(Add),
    Remove(Remove),
    Show(show::Show),
}

/// Make the file of a new static network, with this node as its first member
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network new office.toml
  peersock network new office.toml --name alpha --address 10.7.0.1 --endpoint 192.0.2.7:7420
  peersock network new office.toml --secret --name alpha")]
struct New {
    /// The file to make; one that exists is not touched
    file: PathBuf,

    #[command(flatten)]
    member: Member,

    /// Add a random key that every handshake needs besides the members' own; the file is then for members
    /// only (mode 0600)
    #[arg(long)]
    secret: bool,

    #[command(flatten)]
    state: StateArgs,
}

/// Add a member to the file of a static network
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network add office.toml KEY --name beta
  peersock network add office.toml --name gamma           # this node itself
  peersock network add office.toml \"$(ssh beta peersock id --key)\" --name beta --address 10.7.0.2")]
struct Add {
    /// The network's file
    file: PathBuf,

    /// The member's public key, as `peersock id` prints it there [default: this node's]
    // A key may begin with a hyphen.
    #[arg(allow_hyphen_values = true)]
    key: Option<String>,

    #[command(flatten)]
    member: Member,

    #[command(flatten)]
    state: StateArgs,
}

/// Remove a member from the file of a static network
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network remove office.toml beta")]
struct Remove {
    /// The network's file
    file: PathBuf,

    /// The member: its name, its public key, or its node ID
    #[arg(allow_hyphen_values = true)]
    member: String,
}

/// What the file says of a member besides its key.
#[derive(clap::Args)]
struct Member {
    /// Its name, under which the others reach it: letters, digits, inner hyphens
    #[arg(long)]
    name: Option<String>,

    /// An address in the network besides the one that belongs to its key; may be given several times
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,

    /// A block of addresses behind it, to which it passes packets on (see `peersock up`), as 192.168.5.0/24,
    /// or 0.0.0.0/0 and ::/0 for the Internet; may be given several times
    #[arg(long = "route", value_name = "IP/BITS")]
    routes: Vec<String>,

    /// Where its UDP socket is found: HOST:PORT, IPV4:PORT or `[IPV6]:PORT`, with the port of its
    /// --overlay-port; may be given several times
    #[arg(long = "endpoint", value_name = "HOST:PORT")]
    endpoints: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::New(args) => edit::new(args),
        Command::Add(args) => edit::add(args),
        Command::Remove(args) => edit::remove(args),
        Command::Show(args) => show::run(args),
    }
}

/// Returns the number of members, for people.
fn count(members: &[StaticMember]) -> String {
    match members.len() {
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    }
}
