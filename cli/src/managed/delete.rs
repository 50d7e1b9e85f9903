//! `peersock network delete`: the end of a network at its controller's machine.

use std::io::{self, IsTerminal as _, Write as _};

use peersock::overlay::membership::UnixTime;
use peersock_controller::{Controller, Member};

use super::{DirectoryArgs, admin, join, now, stores};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::stdio;

/// Delete a managed network whose controller is on this machine: its key, members and invites here
///
/// The controller has to end first. Members are not told: they go on until their certificates end, which no
/// controller renews then. To end them at once, remove them with `peersock network revoke` before. The
/// recovery words and backups still restore the network.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network delete team
  peersock network delete team --yes")]
pub(crate) struct DeleteArgs {
    /// Name or ID of the network
    network: String,

    /// Delete it without a question
    #[arg(long)]
    yes: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    state: DirectoryArgs,
}

pub(crate) fn delete(args: &DeleteArgs) -> Outcome {
    let path = args.state.path()?;
    let (id, name) = {
        let controller = stores::open(&path, Some(&args.network))?;
        (controller.network(), controller.name())
    };
    // No process serves it from here on.
    let _lock = stores::lock(&path, id, &name)?;
    let until = last_end(&mut stores::open_one(&path, id)?)?;
    let now = now();
    let members = match until.filter(|until| now < *until) {
        None => "no member has a certificate that counts".to_owned(),
        Some(until) => {
            let until = admin::until(until, now);
            format!("members reach each other {until} at most, when the last certificate has ended")
        }
    };
    if !args.yes {
        confirm(&args.network, &members)?;
    }
    // First, because the store is found again by its own name if this fails.
    join::forgotten(&path, id)?;
    stores::remove(&path, id)?;
    if args.json {
        return print(serde_json::json!({
            "deleted": name,
            "network": id.to_string(),
            "accepted_until": until.map(|until| until.as_millis() / 1000),
        }));
    }
    print(format_args!("network {name} ({id}) is deleted here"))?;
    stdio::note(members);
    stdio::note("its recovery words and its backups still restore it: destroy them if it must not come back");
    Ok(())
}

/// Returns when the last certificate of a member ends for all clocks.
fn last_end(controller: &mut Controller) -> Outcome<Option<UnixTime>> {
    let members = controller.members().map_err(admin::refused)?;
    Ok(members.iter().map(Member::accepted_until).max().filter(|until| *until != UnixTime::default()))
}

/// Asks for the name of the network.
fn confirm(network: &str, members: &str) -> Outcome {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::usage(
            format_args!("cannot ask whether to delete {network}: stdin or stderr is no terminal"),
            "give --yes if that is meant",
        ));
    }
    stdio::note(format_args!(
        "the network's key, its members and invites on this machine are removed; {members}"
    ));
    eprint!("type the name {network} to delete it: ");
    io::stderr().flush()?;
    let mut typed = String::new();
    io::stdin().read_line(&mut typed)?;
    match typed.trim() == network {
        true => Ok(()),
        false => Err(Failure::new(
            format_args!("nothing is deleted: that is not {network}"),
            "run the command again, and give the same name",
        )),
    }
}
