//! `peersock join`, `leave` and `networks`: managed networks of this machine.

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use peersock::management::{self, JoinRequest, ManagementError};
use peersock::overlay::membership::{Credentials, Denial, MemberName, NetworkKey, UnixTime};
use peersock::state::{MembershipRecord, NameClaim, StateDir, StateError};
use peersock::{Invite, JoinError, Network, NetworkId, RootSource, Standing};
use peersock_proxy::Ticket;
use zeroize::Zeroizing;

use super::asking::{Answer, Asking, Reached, ask_or_open, older};
use super::invited::INVITE_VARIABLE;
use super::kept::{self, Kept};
use super::known::{words_of_certificate, words_of_clock, words_of_denial, words_of_ending};
use super::{DirectoryArgs, duration, now};
use crate::args::NodeArgs;
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::stdio;

/// Join a managed network, with an invite or by its ID, or remember a static one
///
/// With an invite, the machine is a member at once. By the ID alone, a person has to approve it: both sides
/// show a code. The network's key is remembered, and programs then use the network by its ID or name.
///
/// An invite suggests the name that the network has at its controller. If another network has that name here,
/// the name gets a number: team-2.
///
/// The TOML file of a static network (`peersock network new`, docs/use/NETWORKS.md) is copied to the state
/// directory. `-n` then finds the network by its name: that of the file without .toml, or of --as. Join the
/// file again after it has changed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock join 'peersock://e18a4c0277d19b3f/EX…'
  peersock join invite.txt
  peersock join office.toml
  peersock join e18a4c0277d19b3f            # a member is on this local network
  PEERSOCK_INVITE=\"$(cat invite.txt)\" peersock join --wait 0")]
pub(crate) struct JoinArgs {
    /// Invite, file that contains one (- for stdin), ID of the network (16 hexadecimal digits), or TOML file
    /// of a static network [env: PEERSOCK_INVITE]
    ///
    /// Arguments show in the list of processes; a file and a variable do not.
    network: Option<String>,

    /// Name of the network on this machine [default: the one in the invite, or its ID]
    #[arg(long = "as", value_name = "NAME")]
    local: Option<MemberName>,

    /// Name that this machine wishes to have in the network [default: its host name]
    #[arg(long, value_name = "NAME")]
    name: Option<MemberName>,

    /// Longest wait: for a controller, which is looked for up to 20s, and then for an approval
    ///
    /// 0s only asks once: it gives a controller 10s to answer, and waits for no approval.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration::parse)]
    wait: Duration,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    node: NodeArgs,
}

/// Longest wait for the first answer of a controller.
pub(super) const FIRST_ANSWER: Duration = Duration::from_secs(20);

/// The same for who asks only once: a controller that is there has answered by then, also by a root.
const ASKED_ONCE: Duration = Duration::from_secs(10);

/// Longest wait for the removals that the controller knows, once it has admitted the machine.
const FIRST_REMOVALS: Duration = Duration::from_secs(5);

/// Time after which a person who waits is told that a controller is looked for.
const TOLD_AFTER: Duration = Duration::from_secs(1);

pub(crate) fn join(args: &JoinArgs) -> Outcome {
    let text = match &args.network {
        Some(text) => text.clone(),
        None => std::env::var(INVITE_VARIABLE).ok().filter(|text| !text.is_empty()).ok_or_else(|| {
            Failure::usage("no network is named", "give an invite, or the ID of a managed network")
        })?,
    };
    let file = Path::new(&text);
    if let Some(content) = kept::text_of(file) {
        return keep_static(args, file, &content);
    }
    let (id, invite) = described(&text)?;
    let path = super::lasting_path(&args.node)?;
    args.local.iter().try_for_each(|local| super::create::check_no_id(local, Some(id)))?;
    // An invite is a new decision: this machine may have been removed without hearing of it.
    let known = StateDir::membership(&path, id)?;
    let is_nameless = known.as_ref().is_none_or(|record| record.name.is_none());
    let suggested = invite.as_ref().and_then(Invite::name).filter(|_| is_nameless).cloned();
    // Until the end, so that no other network gets it meanwhile.
    let claim = match (&args.local, &suggested) {
        (Some(local), _) => Some((local.clone(), kept::claim_name(&path, local, Some(id))?)),
        (None, Some(suggested)) => claimed(&path, id, suggested)?,
        (None, None) => None,
    };
    let local = claim.as_ref().map(|(local, _)| local.clone());
    let current = known.clone().filter(|record| record.denied.is_none() && is_current(record));
    let shown = current.as_ref().and_then(|record| record.credentials.clone());
    if invite.is_none() && current.is_some() {
        return told(&path, id, args, local.as_ref(), "is a member already");
    }
    let request =
        JoinRequest { invite, wish: args.name.clone(), local: local.clone(), ..JoinRequest::new(id) };
    if let (Some(record), Some(invite)) = (&known, &request.invite)
        && record.key != *invite.key()
    {
        return Err(JoinError::OtherKey(id).into());
    }
    let begun = Instant::now();
    let mut asking = Asking::begin(&args.node, &path, &request)?;
    let is_new = known.is_none() && request.invite.is_none();
    let admitted = wait(&mut asking, begun, args.wait, is_new);
    let is_denied = asking.is_denied();
    // Who joins hears of removals from then on, and of those before only now.
    let is_up_to_date = admitted.is_err() || current.is_some() || asking.wait_up_to_date(FIRST_REMOVALS);
    asking.end();
    // Without a controller's word the machine is what it was.
    if admitted.is_err() && !is_denied && current.is_some() {
        return told(&path, id, args, local.as_ref(), "is a member already");
    }
    admitted?;
    if shown.is_some() && StateDir::membership(&path, id)?.is_some_and(|now| now.credentials == shown) {
        stdio::note("this machine is a member already, by the key that it has, and uses no invite");
    }
    if !is_up_to_date {
        stdio::note(
            "the controller has not told its removals yet: until it does, this machine may accept a member that was \
             removed before",
        );
    }
    if let (None, Some(local), Some(suggested)) = (&args.local, &local, &suggested)
        && local != suggested
    {
        stdio::note(format_args!(
            "another network has the name {suggested} here, so this one is {local}: `peersock join {id} --as NAME` \
             gives it another name"
        ));
    }
    told(&path, id, args, local.as_ref(), "joined")
}

/// Keeps a static network by a local name, and tells who this machine is there.
fn keep_static(args: &JoinArgs, file: &Path, text: &str) -> Outcome {
    let path = super::lasting_path(&args.node)?;
    let kept = kept::keep(&path, file, text, args.local.as_ref())?;
    let network = kept.read()?;
    if args.json {
        return print(kept_to_json(&path, &kept, &network)?);
    }
    super::domains::warn(&kept.name);
    let own = own_member(&path, &network)?;
    if own.is_none() {
        stdio::note(
            "this machine's key is not in the file: add it with `peersock network add`, and join the new file",
        );
    }
    let name = own.map(|own| format!(" as {own}")).unwrap_or_default();
    print(format_args!("joined {}{name}: static network {}", kept.name, network.id()))
}

/// Returns the name of this machine in a static network, or its address without one; `None` if the file does
/// not list it.
fn own_member(path: &Path, network: &Network) -> Outcome<Option<String>> {
    let Some(own) = StateDir::peek_identity(path)? else { return Ok(None) };
    let found = network.members().iter().find(|member| member.identity == own);
    let address = || network.id().address_of(&own.node_id()).to_string();
    Ok(found.map(|member| member.name.clone().unwrap_or_else(address)))
}

fn kept_to_json(path: &Path, kept: &Kept, network: &Network) -> Outcome<serde_json::Value> {
    Ok(serde_json::json!({
        "network": network.id().to_string(),
        "kind": "static",
        "local_name": kept.name,
        "member": own_member(path, network)?,
        "members": network.members().len(),
        "file": kept.path,
        "roots": texts_of(network.roots()),
    }))
}

/// Ends of names of hosts. A network that is called so would have these names, so a person has to choose it.
const DOMAINS: [&str; 20] = [
    "app",
    "arpa",
    "biz",
    "cloud",
    "com",
    "corp",
    "dev",
    "edu",
    "gov",
    "home",
    "info",
    "internal",
    "io",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "net",
    "onion",
    "org",
];

/// Claims the name that an invite suggests, or the next one with a number if another network has it here.
/// Returns `None` if `-n` would take it for something else.
pub(super) fn claimed(
    path: &Path,
    id: NetworkId,
    suggested: &MemberName,
) -> Outcome<Option<(MemberName, NameClaim)>> {
    const LAST: u32 = 99;
    if super::parse_id(suggested.as_str()).is_ok() || DOMAINS.contains(&suggested.as_str()) {
        return Ok(None);
    }
    let numbered = (2..=LAST).map(|number| suggested.numbered(number));
    for name in std::iter::once(suggested.clone()).chain(numbered) {
        // `-n` looks there first.
        if crate::config::network(name.as_str())?.is_some() {
            continue;
        }
        match kept::claim_name(path, &name, Some(id)) {
            Ok(claim) => return Ok(Some((name, claim))),
            Err(StateError::NameTaken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Returns the network that an invite, a file with an invite, or an ID names.
pub(super) fn described(text: &str) -> Outcome<(NetworkId, Option<Invite>)> {
    if Invite::is_claimed_by(text) {
        return read(text, "give the whole line that `peersock network invite` has printed");
    }
    if text != "-" && super::parse_id(text).is_ok() {
        return by_id(text);
    }
    match text {
        "-" => of_file(&Input::Stdin),
        path if Path::new(path).exists() => of_file(&Input::File(Path::new(path))),
        text => by_id(text),
    }
}

fn read(text: &str, hint: &str) -> Outcome<(NetworkId, Option<Invite>)> {
    let invite: Invite = text
        .parse()
        .map_err(|error| Failure::usage(format_args!("the invite cannot be read: {error}"), hint))?;
    Ok((invite.id(), Some(invite)))
}

/// Place of an invite.
enum Input<'a> {
    Stdin,
    File(&'a Path),
}

impl Input<'_> {
    fn read(&self) -> std::io::Result<Zeroizing<Vec<u8>>> {
        // An invite, white space around it, and one byte by which a longer text is recognized.
        let most = 2 * Invite::MAX_LEN;
        let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
        match self {
            Input::Stdin => std::io::stdin().lock().take(most as u64 + 1).read_to_end(&mut bytes)?,
            Input::File(path) => std::fs::File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?,
        };
        Ok(bytes)
    }
}

impl fmt::Display for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Stdin => f.write_str("stdin"),
            Input::File(path) => f.write_str(&crate::output::escape(&path.display().to_string())),
        }
    }
}

/// Reads the invite of a file.
fn of_file(input: &Input<'_>) -> Outcome<(NetworkId, Option<Invite>)> {
    let bytes = input.read().map_err(|error| {
        Failure::new(format_args!("{input} cannot be read: {error}"), "check the path and its permissions")
    })?;
    let hint = "give a file with the line that `peersock network invite` has printed, and nothing else";
    let text = std::str::from_utf8(&bytes).ok().map(str::trim).filter(|text| !text.is_empty());
    let text = text.filter(|_| bytes.len() <= 2 * Invite::MAX_LEN);
    match text {
        Some(text) if Invite::is_claimed_by(text) => read(text, hint),
        Some(text) if Network::parse_toml(text).is_ok() => Err(Failure::usage(
            format_args!("{input} describes a static network, in which no controller admits machines"),
            "give the file to `peersock join` or to -n of a command, or name it below [networks] in config.toml",
        )),
        _ => Err(Failure::usage(format_args!("there is no invite in {input}"), hint)),
    }
}

fn by_id(text: &str) -> Outcome<(NetworkId, Option<Invite>)> {
    if Ticket::is_claimed_by(text) {
        return Err(Failure::usage(
            "this is a ticket, which leads to one program and to no network",
            "give it to `peersock dial` or `peersock open`",
        ));
    }
    let id = super::parse_id(text).map_err(|error| {
        Failure::usage(
            format_args!(
                "`{}` is no invite, no file and no network ID: {error}",
                crate::output::escape(&beginning(text))
            ),
            "give the line that `peersock network invite` prints, a file that has it, or 16 hexadecimal digits",
        )
    })?;
    match id.is_managed() {
        true => Ok((id, None)),
        false => Err(Failure::usage(
            format_args!("{id} is no managed network, so there is nothing to join"),
            "give it to -n of a command",
        )),
    }
}

/// Returns the beginning of a text, by which it is recognized. It may be an invite with a mistyped beginning,
/// whose secret comes later.
fn beginning(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut characters = text.chars();
    let shown: String = characters.by_ref().take(SHOWN).collect();
    if characters.next().is_some() { shown + "…" } else { shown }
}

fn is_current(record: &MembershipRecord) -> bool {
    let end = record.credentials.as_ref().map(|own| own.certificate().end());
    end.is_some_and(|end| now() < end)
}

/// Gives a network that was joined the local name of this command, unless it has it: another command that
/// joins it at the same time may have given it another one.
fn keep_name(path: &Path, id: NetworkId, args: &JoinArgs, local: Option<&MemberName>) -> Outcome {
    let request = JoinRequest { local: local.cloned(), ..JoinRequest::new(id) };
    let changed = || -> Outcome<Option<MembershipRecord>> {
        let record = StateDir::membership(path, id)?;
        Ok(record.and_then(|mut record| request.note_in(&mut record).then_some(record)))
    };
    if changed()?.is_none() {
        return Ok(());
    }
    match StateDir::open(path) {
        // Read again, because a node that has ended since may have written it.
        Ok(state) => match changed()? {
            Some(record) => Ok(state.keep_membership(&record)?),
            None => Ok(()),
        },
        // The node that runs keeps the record.
        Err(StateError::InUse { .. }) => Asking::begin(&args.node, path, &request).map(Asking::end),
        Err(error) => Err(error.into()),
    }
}

/// Returns the time in which something has to happen that a command waits for, from its beginning on.
fn limit(wait: Duration, is_answered: bool) -> Duration {
    match is_answered {
        // Only a person takes long.
        true => wait,
        false if wait.is_zero() => ASKED_ONCE,
        false => wait.min(FIRST_ANSWER),
    }
}

/// Waits for the decision of a controller, for a time from `begun` on, and tells what it waits for.
///
/// `is_new` is true if this machine has not learned the network's key before.
fn wait(asking: &mut Asking<'_>, begun: Instant, within: Duration, mut is_new: bool) -> Outcome {
    let (mut is_answered, mut is_told) = (false, false);
    let mut told = None;
    let mut tell = |standing: &Standing, key: Option<NetworkKey>| {
        if is_new && let Some(key) = key {
            is_new = false;
            stdio::note(format_args!(
                "the network's key is {}: compare it with the one that `peersock network members` shows at the \
                 controller",
                super::comparable(&key)
            ));
        }
        if let Standing::Pending(code) = standing
            && told.replace(*code) != Some(*code)
        {
            stdio::note(format_args!(
                "waiting for approval, code {code}: `peersock network approve {code}` at the controller (Ctrl-C \
                 keeps the request)"
            ));
        }
    };
    loop {
        let limit = limit(within, is_answered);
        let step = limit.saturating_sub(begun.elapsed()).min(Duration::from_secs(1));
        let standing = asking.wait_admitted(step, &mut tell)?;
        is_answered |= matches!(standing, Standing::Pending(_));
        let is_silent = matches!(standing, Standing::Asking | Standing::Refused(_));
        if is_silent && begun.elapsed() >= TOLD_AFTER && !std::mem::replace(&mut is_told, true) {
            stdio::note(format_args!(
                "looking for a controller of the network, for {} s at most",
                limit.as_secs()
            ));
        }
        match standing {
            Standing::Member => return Ok(()),
            // A controller that has just started waits for the newest word of the members.
            Standing::Denied(Denial::Unavailable) if begun.elapsed() < limit => {}
            Standing::Denied(Denial::Unavailable) => return Err(unanswered(asking, &standing)),
            Standing::Denied(reason) => {
                let hint = match reason {
                    Denial::KnownKey => {
                        "run `peersock id --rekey` first if it is this machine's key to replace"
                    }
                    Denial::NameTaken => {
                        "ask who runs the network for an invite with another name, or with --replace if this machine \
                         is that member"
                    }
                    Denial::Cloned => {
                        "run `peersock id --rekey` if this machine's state directory is a copy, and join by another \
                         invite; on a machine that was set back to a backup, wait 3 minutes"
                    }
                    _ => "ask who runs the network for an invite, or for approval",
                };
                let there = asking.elsewhere().filter(|_| reason == Denial::Cloned);
                let there = there.map(|there| format!(", at {there}")).unwrap_or_default();
                return Err(Failure::new(format_args!("not admitted: {reason}{there}"), hint));
            }
            Standing::Pending(code) if within.is_zero() => {
                return Err(Failure::new(
                    format_args!("the request waits for approval, code {code}"),
                    "run the same command again when it is approved",
                ));
            }
            standing if begun.elapsed() >= limit => return Err(unanswered(asking, &standing)),
            _ => {}
        }
    }
}

fn unanswered(asking: &Asking<'_>, standing: &Standing) -> Failure {
    match standing {
        Standing::Pending(code) => Failure::new(
            format_args!("the request with code {code} is not approved yet"),
            "run the same command again later: the request is kept",
        ),
        Standing::Denied(Denial::Unavailable) => Failure::new(
            format_args!("not admitted: {}", Denial::Unavailable),
            "run the same command again later, and look at what `peersock controller` says on its machine",
        ),
        _ if asking.has_invite() => Failure::new(
            "no controller of the network answers",
            "check that `peersock controller` runs on its machine, and run the same command again, for which the \
             invite counts once; in another local network, ask for an invite with --root",
        ),
        _ if asking.key().is_some() => Failure::new(
            "no controller of the network answers",
            "check that `peersock controller` runs, and that --root names a root that it uses",
        ),
        _ => Failure::new(
            "no member of the network was found",
            "check the ID, and ask for an invite with --root: by the ID alone, a machine finds only members of \
             its local network",
        ),
    }
}

/// Keeps the local name, and tells what this machine is in a network.
fn told(path: &Path, id: NetworkId, args: &JoinArgs, local: Option<&MemberName>, how: &str) -> Outcome {
    keep_name(path, id, args, local)?;
    let record = StateDir::membership(path, id)?;
    let Some(record @ MembershipRecord { credentials: Some(credentials), .. }) = &record else {
        return Err(Failure::new(
            "the membership is not kept in the state directory",
            "check its disk, and whether another command has just left the network, and join again",
        ));
    };
    let grant = credentials.certificate().grant();
    let own: Vec<_> = grant.addresses().collect();
    super::clashes::warn(grant.prefixes(), &own, "ask who runs the network for another pool");
    let name = record.name.clone().unwrap_or_else(|| id.to_string());
    if let Some(local) = local.filter(|local| *name != *local.as_str()) {
        stdio::note(format_args!(
            "the network has the name {name} here, and not {local}: another command has given it meanwhile"
        ));
    }
    if let Some(words) = words_of_clock(record.clock_offset) {
        stdio::note(words);
    }
    if local.is_some() {
        super::domains::warn(&name);
    }
    if args.json {
        return print(to_json(path, record)?);
    }
    let mut parts = vec![grant.name.to_string()];
    parts.extend(grant.addresses().map(|one| one.to_string()));
    parts.push(own_address(path, id)?);
    let tags: Vec<_> = grant.tags.iter().map(ToString::to_string).collect();
    let tags = if tags.is_empty() { String::new() } else { format!("; tags {}", tags.join(", ")) };
    let left = duration::shown(credentials.certificate().end().since(now()));
    let what = if how == "joined" { format!("joined {name} as") } else { format!("{how} of {name}:") };
    print(format_args!("{what} {}{tags}; works {left} without the controller", parts.join(", ")))
}

fn own_address(path: &Path, id: NetworkId) -> Outcome<String> {
    let own = StateDir::peek_identity(path)?;
    Ok(own.map(|own| id.address_of(&own.node_id()).to_string()).unwrap_or_default())
}

fn to_json(path: &Path, record: &MembershipRecord) -> Outcome<serde_json::Value> {
    let grant = record.credentials.as_ref().map(|own| own.certificate().grant());
    let addresses: Vec<_> = grant
        .iter()
        .flat_map(|grant| grant.addresses())
        .map(|one| one.to_string())
        .chain([own_address(path, record.id)?])
        .collect();
    let seconds = |time: UnixTime| time.as_millis() / 1000;
    let newest = record.revocations.iter().max_by_key(|(head, _)| head.time());
    Ok(serde_json::json!({
        "network": record.id.to_string(),
        "kind": "managed",
        "local_name": record.name,
        "key": record.key.to_string(),
        "member": grant.map(|grant| grant.name.to_string()),
        "addresses": addresses,
        "tags": grant.map(|grant| grant.tags.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "certificate_ends": record.credentials.as_ref().map(|own| seconds(own.certificate().end())),
        "issuer_ends": record.credentials.as_ref().map(|own| seconds(own.delegation().end())),
        "issuer_ending": record.credentials.as_ref().is_some_and(|own| own.delegation().is_ending(time(record))),
        "clock_behind_s": record.clock_offset as f64 / 1e3,
        "heard": record.credentials.as_ref().and_then(Credentials::heard).map(seconds),
        "revocations": newest.map(|(head, _)| head.epoch()),
        "rules": version_of_rules(record),
        "denied": record.denial(),
        "spare": record.spare.is_some(),
        "roots": texts_of(&roots_of(path, record)),
    }))
}

/// Returns the version of the access rules that the machine has kept.
fn version_of_rules(record: &MembershipRecord) -> Option<u64> {
    record.rules.iter().map(|signed| signed.head().rank()).max().map(|rank| rank.version)
}

/// Returns the roots of a managed network: those of its invites, and those that its controller had last if
/// that is on this machine.
fn roots_of(path: &Path, record: &MembershipRecord) -> Vec<RootSource> {
    let mut roots = record.roots.clone();
    if super::is_controller_of(path, record.id) {
        let further = super::stores::roots(path, record.id);
        roots.extend(further.into_iter().filter(|root| !record.roots.contains(root)));
    }
    roots
}

/// Returns roots as `--root` takes them, without their tokens, which are secrets.
fn texts_of(roots: &[RootSource]) -> Vec<String> {
    roots.iter().map(ToString::to_string).collect()
}

/// Leave a network: this machine forgets its credentials, or its copy of a static network's file
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock leave team")]
pub(crate) struct LeaveArgs {
    /// Name of the network on this machine, or its ID
    network: String,

    /// Leave also if the network's controller is on this machine
    ///
    /// The controller has to end first. Its store stays, and `peersock controller` can serve it again.
    #[arg(long)]
    force: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    state: DirectoryArgs,
}

/// Prints that this machine has left a network.
fn print_left(args: &LeaveArgs, id: Option<NetworkId>, kind: &str) -> Outcome {
    match args.json {
        true => print(serde_json::json!({
            "left": args.network,
            "network": id.map(|id| id.to_string()),
            "kind": kind,
        })),
        false => print(format_args!("left {}", args.network)),
    }
}

pub(crate) fn leave(args: &LeaveArgs) -> Outcome {
    let path = args.state.path()?;
    if let Some(kept) = kept::find_kept(&path, &args.network) {
        let id = readable(&kept).map(|network| network.id());
        kept::remove(&kept)?;
        return print_left(args, id, "static");
    }
    let id = match super::parse_id(&args.network) {
        Ok(id) => id,
        Err(_) => super::named(&path, &args.network)?.ok_or_else(|| not_here(&args.network))?,
    };
    let record = StateDir::membership(&path, id)?;
    let was_member = record.as_ref().is_some_and(|record| record.credentials.is_some());
    let was_removed = record.is_some_and(|record| record.denied == Some(Denial::Removed));
    let is_controller = super::is_controller_of(&path, id);
    if is_controller && !args.force {
        return Err(Failure::usage(
            format_args!(
                "this machine is the controller of {}: without it no machine is admitted or removed, and members lose \
                 the network when their certificates end",
                args.network
            ),
            "give --force to forget only that this machine is a member; the controller's store stays",
        ));
    }
    match forgotten(&path, id)? {
        true => {
            match is_controller {
                true => stdio::note(format_args!(
                    "the controller's store stays: {}; `peersock controller -n {id}` serves it",
                    super::stores::path_of(&path, id).display()
                )),
                false if was_removed => {}
                false if !was_member => stdio::note(
                    "a request that waits at the controller stays there until `peersock network deny`",
                ),
                false => stdio::note(
                    "the controller still lists this machine until `peersock network revoke` there",
                ),
            }
            print_left(args, Some(id), "managed")
        }
        false => Err(not_here(&args.network)),
    }
}

/// Forgets a membership, or lets the node that runs leave the network. Returns false if there is none.
pub(super) fn forgotten(path: &Path, id: NetworkId) -> Outcome<bool> {
    let left = ask_or_open(path, || {
        Answer::of(management::leave(path, id)).map_err(|error| match error {
            ManagementError::Refused { error, .. } if error == "unknown request" => older(path),
            ManagementError::Refused { error, .. } => Failure::new(
                format_args!("the network is not left: {error}"),
                "end `peersock controller` of this network first, and leave it then",
            ),
            error => error.into(),
        })
    });
    match left? {
        Reached::Node(left) => Ok(left),
        Reached::Directory(state) => Ok(state.forget_membership(id)?),
    }
}

fn not_here(name: &str) -> Failure {
    Failure::new(
        format_args!("this machine has not joined `{name}`"),
        "list those that it has joined with `peersock networks`",
    )
}

/// List the managed networks of this machine, and static ones that have a name here
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock networks
  peersock networks --json")]
pub(crate) struct NetworksArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    state: DirectoryArgs,
}

pub(crate) fn networks(args: &NetworksArgs) -> Outcome {
    let path = args.state.path()?;
    let (records, damaged) = StateDir::readable_memberships(&path)?;
    let kept = kept::all_kept(&path);
    let has_none = records.is_empty() && kept.is_empty();
    if damaged.is_empty() || args.json || !has_none {
        list(args, &path, records, &kept)?;
    }
    // The others are listed nevertheless.
    damaged.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}

fn list(args: &NetworksArgs, path: &Path, records: Vec<MembershipRecord>, kept: &[Kept]) -> Outcome {
    if args.json {
        let managed = records.iter().map(|record| to_json(path, record));
        let kept = kept.iter().filter_map(|kept| Some(kept_to_json(path, kept, &readable(kept)?)));
        let all: Vec<_> = managed.chain(kept).collect::<Outcome<_>>()?;
        return print(serde_json::Value::Array(all));
    }
    if records.is_empty() && kept.is_empty() {
        stdio::note("this machine has joined no network");
    }
    for record in records {
        list_managed(path, &record)?;
        list_roots(&roots_of(path, &record))?;
    }
    for kept in kept {
        let name = &kept.name;
        let Some(network) = readable(kept) else { continue };
        let own = own_member(path, &network)?.map(|own| format!("  {own}")).unwrap_or_default();
        let members = crate::files::count(network.members().len() as u64, "member");
        print(format_args!("{name:<16} {}{own}  static, {members}", network.id()))?;
        list_roots(network.roots())?;
    }
    Ok(())
}

/// Lists a managed network.
fn list_managed(path: &Path, record: &MembershipRecord) -> Outcome {
    let name = record.name.clone().unwrap_or_else(|| record.id.to_string());
    if let Some(words) = words_of_denial(record) {
        return print(format_args!(
            "{name:<16} {}  {words}; `peersock join` with an invite asks again",
            record.id
        ));
    }
    let Some(credentials) = &record.credentials else {
        return print(format_args!("{name:<16} {}  not admitted yet", record.id));
    };
    let grant = credentials.certificate().grant();
    let addresses: Vec<_> = grant.addresses().map(|one| one.to_string()).collect();
    let time = time(record);
    let left = |end: UnixTime| Some(end.since(time)).filter(|left| !left.is_zero()).map(duration::shown);
    let certificate = words_of_certificate(left(credentials.certificate().end()));
    let heard = credentials
        .heard()
        .map(|heard| format!("controller heard {} ago", duration::shown(time.since(heard))))
        .unwrap_or_default();
    let rules = version_of_rules(record).map(|version| format!("rules of {}", super::since(version, now())));
    let own = own_address(path, record.id)?;
    let parts =
        [grant.name.to_string(), addresses.join(" "), own, certificate, heard, rules.unwrap_or_default()];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    print(format_args!("{name:<16} {}  {}", record.id, parts.join("  ")))?;
    if let Some(words) = words_of_clock(record.clock_offset) {
        print(format_args!("  {words}"))?;
    }
    match credentials.delegation().is_ending(time) {
        true => print(format_args!("  {}", words_of_ending(left(credentials.delegation().end())))),
        false => Ok(()),
    }
}

/// Lists the roots of a network.
fn list_roots(roots: &[RootSource]) -> Outcome {
    texts_of(roots).iter().try_for_each(|root| print(format_args!("  root {root}")))
}

/// Returns a static network, or says that its file cannot be read. The others are listed nevertheless.
fn readable(kept: &Kept) -> Option<Network> {
    let name = &kept.name;
    let network = kept.read().ok();
    if network.is_none() {
        stdio::note(format_args!(
            "the file of {name} cannot be read: run `peersock leave {name}`, then `peersock join FILE`"
        ));
    }
    network
}

/// Returns the time by the controllers' clocks, as far as a record tells.
fn time(record: &MembershipRecord) -> UnixTime {
    let own = now().as_millis().saturating_add_signed(record.clock_offset);
    UnixTime::from_millis(own).max(record.signed_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_bounded_as_a_whole() {
        let limits = |seconds| {
            let wait = Duration::from_secs(seconds);
            [false, true].map(|is_answered| limit(wait, is_answered).as_secs())
        };
        assert_eq!(limits(3), [3, 3]);
        assert_eq!(limits(3600), [20, 3600]);
        // A controller that is there gets a chance.
        assert_eq!(limits(0), [10, 0]);
    }
}
