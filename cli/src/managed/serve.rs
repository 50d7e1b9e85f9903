//! `peersock controller`: serves a managed network to its members.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::ManagedNetwork;
use peersock::overlay::membership::Head;
use peersock::state::StateDir;
use peersock::{Joined, Network, Node};
use peersock_controller::{Controller, LogLine, Waiting};

use super::hook::Hook;
use super::limited_program::Groups;
use super::{now, stores};
use crate::args::NodeArgs;
use crate::failure::Outcome;
use crate::node::{Beside, Host, start_node};
use crate::output::escape;
use crate::{in_use, signals, stdio};

/// Serve a managed network: admit machines, renew certificates, spread removals
///
/// The controller is a member itself, and is reached as one: by roots, on the local network, or by the DHT.
/// Packets never pass it; members go on without it for as long as --outlive of the network says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock controller
  peersock controller -n team --root \"$(cat root.txt)\"
  peersock controller --approve-hook /usr/local/libexec/approve
  peersock network approve K7M-2QX                    # in another terminal")]
pub(crate) struct ControllerArgs {
    /// Network, by its name or ID [default: the only one whose controller is here]
    #[arg(short = 'n', value_name = "NETWORK")]
    network: Option<String>,

    /// Program that decides about machines that join, and about renewals
    ///
    /// It reads a question in JSON, and prints {"decision":"allow"}, "deny" or "ask" within 5 s. If it fails,
    /// machines wait for a person, and certificates are not renewed. docs/use/MANAGED.md has all fields.
    #[arg(long, value_name = "PROGRAM")]
    approve_hook: Option<PathBuf>,

    #[command(flatten)]
    node: NodeArgs,
}

/// Number of lines of the log that are read at once.
const LINES: u32 = 100;

/// Interval at which the store is looked at for changes by other commands.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Interval at which what renewals have noted is written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// Interval at which the controller's own credentials, and its right to issue, are renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(1800);

/// Time for which a controller whose store may be an old copy waits for its members' newest revocations.
const SETTLE: Duration = Duration::from_secs(5);

/// Time for which the node is drained at the end.
const DRAIN: Duration = Duration::from_secs(2);

pub(crate) fn serve(args: &ControllerArgs) -> Outcome {
    let path = super::lasting_path(&args.node)?;
    let state = in_use::open(&path)?;
    let mut controller = stores::open(&path, args.network.as_deref())?;
    let place = stores::path_of(&path, controller.network());
    let failed = |error| stores::store_failure(&place, &error);
    // What this machine itself has kept is no word of a member.
    let kept = StateDir::membership(&path, controller.network())?;
    let noted = kept.map(|record| stores::note_heads(&mut controller, &record)).unwrap_or_default();
    let hook = args.approve_hook.as_ref().map(|program| Hook::new(program, &mut controller)).transpose()?;
    controller.start(now(), SETTLE).map_err(failed)?;
    let renewed = controller.delegate(now());
    let credentials = controller.credentials(now()).ok_or_else(super::right_has_ended)?;
    if let Err(error) = renewed {
        stdio::note(format_args!("the right to issue certificates is not renewed: {error}"));
    }
    let socket = state.bind_node_socket()?;
    let node = start_node(&args.node, &state)?;
    let (head, set) = controller.head(now());
    let network = Network::managed(ManagedNetwork {
        key: Some(controller.key()),
        credentials: Some(credentials),
        revocations: vec![(head, set.to_bytes().into())],
        is_controller: true,
        ..ManagedNetwork::new(controller.network())
    });
    let joined = node.join(network.clone())?;
    let (name, id, members) = (controller.name(), controller.network(), count(&mut controller));
    let controller = Arc::new(Mutex::new(controller));
    answer_members(&joined, &controller);
    let beside = Beside {
        node: node.clone(),
        state,
        socket,
        networks: vec![(network, joined.clone())],
        roots: Vec::new(),
        command: "peersock controller",
    };
    let host = Host::beside(beside, &args.node)?;
    let (ended, written) = (node.clone(), Arc::clone(&controller));
    let programs = hook.as_ref().map(Hook::groups);
    signals::end_with(move |signal| {
        programs.iter().for_each(Groups::end);
        host.end();
        if let Err(error) = lock(&written).flush(now()) {
            stdio::note(format_args!("the last notes are not written: {error}"));
        }
        ended.shutdown(DRAIN);
        128 + signal
    })?;
    stdio::note(format_args!("serving {name} ({id}); members: {members}"));
    if let Some(until) = lock(&controller).status(now()).ok().and_then(|status| status.renewals_rest_until) {
        stdio::note(format_args!(
            "renewals wait until a member has shown the newest removals, for {} at most; machines can join",
            super::duration::shown(until.since(now()))
        ));
    }
    keep(&node, &joined, &controller, noted, hook)
}

fn lock(controller: &Mutex<Controller>) -> MutexGuard<'_, Controller> {
    controller.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(controller: &mut Controller) -> usize {
    controller.status(now()).map_or(0, |status| status.members)
}

/// Answers members' questions on the node's thread for the network.
fn answer_members(joined: &Joined, controller: &Arc<Mutex<Controller>>) {
    let (controller, renewals) = (Arc::clone(controller), lock(controller).renewals());
    joined.serve_members(Box::new(move |peer, source, question| {
        let source = source?;
        let known = renewals.answer(now(), peer, source, question);
        Some(known.unwrap_or_else(|| {
            lock(&controller).answer(now(), &mut rand::rng(), peer, source, question.clone())
        }))
    }));
}

/// Does what is due, until the process ends.
fn keep(
    node: &Node,
    joined: &Joined,
    controller: &Mutex<Controller>,
    mut noted: Vec<Head>,
    mut hook: Option<Hook>,
) -> Outcome {
    let (mut flushed, mut renewed) = (Instant::now(), Instant::now());
    let mut told = BTreeSet::new();
    let mut is_failing = false;
    let mut warned = None;
    warn_of_end(&mut lock(controller), &mut warned);
    let mut line = lock(controller).last_log_line().unwrap_or_default();
    let mut delegation = lock(controller).head(now()).0.delegation().clone();
    loop {
        thread::sleep(LOOK_INTERVAL);
        let mut controller = lock(controller);
        // A member may know newer revocations, if this store is an old copy or another controller serves.
        let own = controller.head(now()).0;
        let heard = joined.revocations();
        noted.retain(|known| heard.iter().any(|(head, _)| head == known));
        for (head, set) in heard {
            let is_old = head.issuer() == own.issuer() && !head.is_newer_than(&own);
            if is_old || noted.contains(&head) {
                continue;
            }
            match controller.note_head(now(), &head, &set) {
                Ok(_) => noted.push(head),
                Err(error) => tracing::debug!(%error, "a member's revocations are not taken over"),
            }
        }
        let (head, set) = controller.head(now());
        if let Err(refusal) = joined.set_revocations(&head, &set) {
            tracing::debug!(%refusal, "the node does not take the revocations");
        }
        if flushed.elapsed() >= FLUSH_INTERVAL {
            flushed = Instant::now();
            let noted = now();
            for peer in node.peers().iter().filter(|peer| peer.network == joined.id() && peer.connected) {
                if let Some(path) = peer.path {
                    controller.note_heard(noted, &peer.id, path.ip());
                }
            }
            let done = controller.flush(now());
            if let Err(error) = &done
                && !is_failing
            {
                stdio::note(format_args!("the store fails: {error}; renewals go on, admissions wait"));
            }
            is_failing = done.is_err();
        }
        // By another command.
        let is_delegated = *head.delegation() != delegation;
        if is_delegated || renewed.elapsed() >= RENEW_INTERVAL {
            renewed = Instant::now();
            if let Err(error) = controller.delegate(now()) {
                stdio::note(format_args!("the right to issue certificates is not renewed: {error}"));
            }
            if let Some(own) = controller.credentials(now())
                && let Err(refusal) = joined.set_credentials(&own)
            {
                tracing::warn!(%refusal, "the controller's own credentials do not count");
            }
            delegation = controller.head(now()).0.delegation().clone();
            if let (true, Ok(status)) = (is_delegated, controller.status(now())) {
                let left = super::duration::shown(status.delegation_end.since(now()));
                stdio::note(format_args!("the right to issue certificates is renewed for another {left}"));
            }
            warn_of_end(&mut controller, &mut warned);
        }
        if let Some(hook) = &mut hook {
            hook.step(&mut controller);
        }
        let mut waiting = controller.pending().unwrap_or_default();
        waiting.retain(|one| !controller.awaits_program(now(), &one.identity.node_id()));
        let lines = controller.log(line, LINES).unwrap_or_default();
        line = lines.last().map_or(line, |last| last.number);
        let changes: Vec<_> = lines.iter().filter_map(|line| change(&controller, line)).collect();
        drop(controller);
        changes.iter().for_each(stdio::note);
        told.retain(|code| waiting.iter().any(|one| one.code == *code));
        for one in &waiting {
            if told.insert(one.code) {
                announce(one);
            }
        }
    }
}

/// Warns of the end of the right to issue certificates, once on each of some days, where a person has to
/// renew it. `warned` is the last warning.
fn warn_of_end(controller: &mut Controller, warned: &mut Option<u64>) {
    let Ok(status) = controller.status(now()) else { return };
    let due = status.delegation_warning.filter(|_| !status.renews_delegation);
    if let Some(days) = due.filter(|_| due != *warned) {
        let left = super::duration::shown(status.delegation_end.since(now()));
        let name = controller.name();
        stdio::note(match days {
            0 => format!(
                "the right to issue certificates has ended: `peersock network renew -n {name}` renews it"
            ),
            _ => format!(
                "the right to issue certificates ends in {left}: renew it by the recovery words with `peersock \
                 network renew -n {name}`"
            ),
        });
    }
    *warned = due;
}

/// Returns what a line of the log says to the person who watches the controller; `None` for changes that do
/// not concern machines.
fn change(controller: &Controller, line: &LogLine) -> Option<String> {
    let node = line.what.rsplit(' ').next()?;
    let who = escape(&line.who);
    let named = || {
        let member = controller.find(node).map(|member| super::admin::described(&member));
        member.unwrap_or_else(|_| escape(&line.what).to_string())
    };
    match line.action.as_str() {
        "admit" => Some(format!("{} has joined, by {who}", named())),
        "revoke" => Some(format!("{} was removed, by {who}", named())),
        "deny" => Some(format!("the request of node {node:.12} was denied, by {who}")),
        _ => None,
    }
}

/// Tells of a machine that waits for approval.
fn announce(waiting: &Waiting) {
    let name = waiting.name.as_ref().map_or("a machine without a name", |name| name.as_str());
    stdio::note(format_args!(
        "{name} wants to join: code {}, {}, from {}\n  peersock network approve {}",
        waiting.code,
        escape(&waiting.description),
        waiting.source,
        waiting.code
    ));
}
