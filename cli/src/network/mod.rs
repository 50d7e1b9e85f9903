//! `peersock network`: the files of static networks, and the members of managed ones.

mod edit;
pub(crate) mod file;
mod show;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Subcommand;
use peersock::overlay::StaticMember;

use crate::args::StateArgs;
use crate::failure::Outcome;
use crate::managed;

/// Make networks, and say who is a member
///
/// The members of a static network are listed in its TOML file: their keys and, optionally, their names,
/// addresses, and endpoints for peers outside their LAN. Every member has the same file. The members of a
/// managed network are admitted by its controller. docs/use/NETWORKS.md describes both.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network new office.toml --name alpha --endpoint alpha.example.org:7420
  peersock network add office.toml KEY --name beta        # KEY: what `peersock id --key` prints on beta
  peersock network show office.toml
  peersock network create team                            # managed; then `peersock controller`
  peersock network invite
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
    Create(managed::CreateArgs),
    Invite(managed::InviteArgs),
    Invites(managed::InvitesArgs),
    Uninvite(managed::UninviteArgs),
    Approve(managed::ApproveArgs),
    Deny(managed::DenyArgs),
    Members(managed::ListArgs),
    Change(managed::ChangeArgs),
    Revoke(managed::RevokeArgs),
    Settings(managed::SettingsArgs),
    Rules(managed::RulesArgs),
    Reserve(managed::ReserveArgs),
    Unreserve(managed::UnreserveArgs),
    Backup(managed::BackupArgs),
    Restore(managed::RestoreArgs),
    Renew(managed::RenewArgs),
    Rekey(managed::RekeyArgs),
    AcceptClock(managed::AcceptClockArgs),
    Delete(managed::DeleteArgs),
}

/// Make the file of a new static network, with this node as its first member
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network new office.toml
  peersock network new office.toml --name alpha --address 10.7.0.1 --endpoint 192.0.2.7:7420
  peersock network new office.toml --secret --name alpha
  peersock network new office.toml --name alpha --root 'the line that root printed'")]
struct New {
    /// File to create; an existing file is left unchanged
    file: PathBuf,

    #[command(flatten)]
    member: Member,

    /// Add a random key that every handshake needs besides the members' own keys
    ///
    /// The file is then secret (mode 0600); give it only to members.
    #[arg(long)]
    secret: bool,

    /// Root that all members use; may be repeated
    ///
    /// TEXT is the line that `peersock root` prints, dns:DOMAIN, or lan.
    // One key in 64 begins with a hyphen.
    #[arg(long = "root", value_name = "TEXT", allow_hyphen_values = true)]
    roots: Vec<String>,

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

    /// Public key of the member, as `peersock id` prints it there [default: this node's]
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

    /// Name, public key or node ID of the member
    #[arg(allow_hyphen_values = true)]
    member: String,
}

/// Entries of a member in the file, besides its key.
#[derive(clap::Args)]
struct Member {
    /// Name by which others reach the member: letters, digits, inner hyphens
    #[arg(long)]
    name: Option<String>,

    /// Additional address of the member, besides the one that follows from its key; may be repeated
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,

    /// Address block behind the member, such as 192.168.5.0/24; may be repeated
    ///
    /// The member forwards packets to this block (see `peersock up`). 0.0.0.0/0 and ::/0 mean the Internet.
    #[arg(long = "route", value_name = "IP/BITS")]
    routes: Vec<String>,

    /// Endpoint of the member's UDP socket: HOST:PORT, IPV4:PORT or `[IPV6]:PORT`; may be repeated
    ///
    /// PORT is the member's --overlay-port.
    #[arg(long = "endpoint", value_name = "HOST:PORT")]
    endpoints: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::New(args) => edit::new(args),
        Command::Add(args) => edit::add(args),
        Command::Remove(args) => edit::remove(args),
        Command::Show(args) => show::run(args),
        Command::Create(args) => managed::create(args),
        Command::Invite(args) => managed::invite(args),
        Command::Invites(args) => managed::invites(args),
        Command::Uninvite(args) => managed::uninvite(args),
        Command::Approve(args) => managed::approve(args),
        Command::Deny(args) => managed::deny(args),
        Command::Members(args) => managed::list(args),
        Command::Change(args) => managed::change(args),
        Command::Revoke(args) => managed::revoke(args),
        Command::Settings(args) => managed::settings(args),
        Command::Rules(args) => managed::rules(args),
        Command::Reserve(args) => managed::reserve(args),
        Command::Unreserve(args) => managed::unreserve(args),
        Command::Backup(args) => managed::backup(args),
        Command::Restore(args) => managed::restore(args),
        Command::Renew(args) => managed::renew(args),
        Command::Rekey(args) => managed::rekey_network(args),
        Command::AcceptClock(args) => managed::accept_clock(args),
        Command::Delete(args) => managed::delete(args),
    }
}

/// Returns the number of members, for people.
fn count(members: &[StaticMember]) -> String {
    match members.len() {
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    }
}
