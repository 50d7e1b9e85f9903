//! `peersock controller`: serves a managed network to its members.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::Prefix;
use peersock::overlay::membership::{CLOCK_TOLERANCE, Code, Delegation, Head, Refusal, RulesRank, UnixTime};
use peersock::state::StateDir;
use peersock_attach::Reached;
use peersock_controller::{Controller, LogLine, NoteError, Waiting};

use super::clock::ClockWatch;
use super::hook::Hook;
use super::limited_program::Groups;
use super::place::{Answers, Comeback, Place};
use super::visits::Visits;
use super::{install, now, stores};
use crate::args::SharedNodeArgs;
use crate::failure::{Failure, Outcome};
use crate::output::escape;
use crate::{signals, stdio};

/// Serve a managed network: admit machines, renew certificates, spread removals
///
/// The controller is a member itself, and is reached as one: by roots, on the local network, or by the DHT.
/// Packets never pass it; members go on without it for as long as --outlive of the network says.
///
/// It uses the node that the programs of this machine share, which goes on for them when the controller ends.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock controller
  peersock controller -n team --root \"$(cat root.txt)\"
  peersock controller --approve-hook /usr/local/libexec/approve
  peersock controller -n team --install               # as a service of systemd
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

    /// Write a systemd unit that runs this controller with these options, and end
    ///
    /// It is a user unit, or a system unit if root writes it. The controller has its own node then, which
    /// other programs of the same state directory share.
    #[arg(long)]
    install: bool,

    #[command(flatten)]
    node: SharedNodeArgs,
}

/// Number of lines of the log that are read at once.
const LINES: u32 = 100;

/// Interval at which the store is looked at for changes by other commands.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Interval at which what renewals have noted is written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// Time between two lines about the same fault, at least.
const FAULT_INTERVAL: Duration = Duration::from_secs(600);

/// Number of flushes at which the controller looks for a key of the network that its node may have learned.
const KEY_ATTEMPTS: u32 = 12;

/// Interval at which the controller's own credentials, and its right to issue, are renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(1800);

/// Time for which a controller whose store may be an old copy waits for its members' newest revocations.
const SETTLE: Duration = Duration::from_secs(5);

pub(crate) fn serve(args: &ControllerArgs) -> Outcome {
    serve_until(args, |end| {
        signals::end_with(move |signal| {
            end();
            128 + signal
        })
    })
}

/// Serves, and gives `at_end` the work that is to be done before the process ends.
///
/// # Errors
/// Errors of a controller that cannot serve, or that has lost its node for good.
pub(crate) fn serve_until(
    args: &ControllerArgs,
    at_end: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
) -> Outcome {
    if args.node.has_label() {
        return Err(Failure::usage(
            "a controller is the machine itself, and no program beside its node",
            "leave --as out",
        ));
    }
    let path = super::lasting_path(&args.node)?;
    let (name, id) = {
        let controller = stores::open(&path, args.network.as_deref())?;
        (controller.name(), controller.network())
    };
    if args.install {
        return install::install(&path, &name, id, args.network.is_some());
    }
    let _lock = stores::lock(&path, id, &name)?;
    // Opened again, because `id --rekey` may have changed it, and the identity, until the lock was free.
    let mut controller = stores::open_one(&path, id)?;
    let store = stores::path_of(&path, id);
    if let Err(error) = stores::keep_roots(&path, id, &args.node.named_roots()) {
        stdio::note(format_args!("invites do not name this controller's roots by themselves: {error}"));
    }
    let failed = |error| stores::store_failure(&store, &error);
    wait_for_clock(&mut controller);
    // What this machine itself has kept is no word of a member.
    let kept = StateDir::membership(&path, id)?;
    let mut noted = Vec::new();
    if let Some(record) = kept {
        let before = controller.network_keys();
        stores::note_keys(&mut controller, &record)?;
        if controller.network_keys() != before {
            tell_of_key(&controller);
        }
        noted = stores::note_heads(&mut controller, &record);
    }
    let hook = args.approve_hook.as_ref().map(|program| Hook::new(program, &mut controller)).transpose()?;
    controller.start(now(), SETTLE).map_err(failed)?;
    if let Err(error) = controller.delegate(now()) {
        stdio::note(format_args!("the right to issue certificates is not renewed: {error}"));
    }
    let members = count(&mut controller);
    let controller = Arc::new(Mutex::new(controller));
    let answers = Answers::new(&controller);
    let open = || Place::open(&args.node, &path, &answers).map(Arc::new);
    let place = Arc::new(Mutex::new(open()?));
    let (ended, written) = (Arc::clone(&place), Arc::clone(&controller));
    let groups = hook.as_ref().map(Hook::groups);
    let killed = groups.clone();
    at_end(Box::new(move || {
        killed.iter().for_each(Groups::end);
        if let Err(error) = lock(&written).flush(now()) {
            stdio::note(format_args!("the last notes are not written: {error}"));
        }
        let place = lock(&ended).clone();
        place.end();
    }))?;
    stdio::note(format_args!("serving {name} ({id}); members: {members}"));
    if let Some(until) = lock(&controller).status(now()).ok().and_then(|status| status.renewals_rest_until) {
        stdio::note(format_args!(
            "renewals wait until a member has shown the newest removals, for {} at most; machines can join",
            super::duration::shown(until.since(now()))
        ));
    }
    if let Ok(Some(words)) = super::restore::addresses_rest(&mut lock(&controller)) {
        stdio::note(words);
    }
    let mut serving = Serving::new(&mut lock(&controller), path.clone(), hook, noted);
    let mut comeback = Comeback::default();
    comeback.note_served();
    loop {
        thread::sleep(LOOK_INTERVAL);
        // The node ends before the process does.
        signals::leave_to_cleanup();
        let current = lock(&place).clone();
        if !current.has_ended() {
            serving.step(&controller, &current);
            continue;
        }
        stdio::note(
            "the node that programs share has ended: no member is served until another one has started",
        );
        let opened = comeback.attach(open, thread::sleep).inspect_err(|_| {
            groups.iter().for_each(Groups::end);
        })?;
        *lock(&place) = opened;
        (serving.told, serving.told_rules) = (None, None);
        stdio::note(format_args!("serving {name} again"));
    }
}

/// Waits until members would accept what the controller signs by the machine's clock. A machine without a
/// hardware clock starts in 1970, and another one may be ahead.
fn wait_for_clock(controller: &mut Controller) {
    let mut clock = ClockWatch::default();
    while !clock.is_right(controller) {
        thread::sleep(LOOK_INTERVAL);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(controller: &mut Controller) -> usize {
    controller.status(now()).map_or(0, |status| status.members)
}

/// Work of a controller besides its answers.
struct Serving {
    /// State directory.
    state: PathBuf,
    hook: Option<Hook>,
    /// Heads of other issuers that the controller has heard of.
    noted: Vec<Head>,
    /// The controller's own head that the node has.
    told: Option<Head>,
    /// The rules that the node has.
    told_rules: Option<RulesRank>,
    flushed: Instant,
    renewed: Instant,
    /// Time at which a fault of the store was told last.
    fault_told: Option<Instant>,
    /// Number of looks for a key of the network that heads of other issuers need.
    key_attempts: u32,
    /// Last warning of the end of the right to issue certificates.
    warned: Option<u64>,
    /// Pools of which was told that they are nearly full.
    full: Vec<Prefix>,
    /// Last line of the log that was looked at.
    line: i64,
    delegation: Delegation,
    /// Machines whose wait was announced.
    announced: BTreeSet<Code>,
    clock: ClockWatch,
    visits: Visits,
}

impl Serving {
    fn new(controller: &mut Controller, state: PathBuf, hook: Option<Hook>, noted: Vec<Head>) -> Serving {
        let (mut warned, mut full) = (None, Vec::new());
        warn_of_end(controller, &mut warned);
        warn_of_pools(controller, &mut full);
        Serving {
            state,
            hook,
            noted,
            told: None,
            told_rules: None,
            flushed: Instant::now(),
            renewed: Instant::now(),
            fault_told: None,
            key_attempts: 0,
            warned,
            full,
            line: controller.last_log_line().unwrap_or_default(),
            delegation: controller.head(now()).0.delegation().clone(),
            announced: BTreeSet::new(),
            clock: ClockWatch::default(),
            visits: Visits::new(),
        }
    }

    /// Does what is due. The node is asked without the controller's lock, because it may be slow.
    fn step(&mut self, controller: &Mutex<Controller>, place: &Place) {
        // No node gets a certificate while the clock is wrong; all else goes on.
        self.clock.is_right(&mut lock(controller));
        // By another command.
        let is_delegated = *lock(controller).head(now()).0.delegation() != self.delegation;
        // First, because members learn another key of the network from credentials, and heads need it.
        if is_delegated || self.renewed.elapsed() >= RENEW_INTERVAL {
            self.renewed = Instant::now();
            self.renew(controller, place, is_delegated);
        }
        self.exchange_revocations(controller, place);
        self.spread_rules(controller, place);
        // Behind the head, which a visit shows.
        self.visits.step(controller, place);
        if self.flushed.elapsed() >= FLUSH_INTERVAL {
            self.flushed = Instant::now();
            self.flush(controller, place);
        }
        if let Some(hook) = &mut self.hook {
            hook.step(&mut lock(controller));
        }
        self.tell_changes(controller);
    }

    /// Takes over what members know, and spreads what this controller has signed.
    fn exchange_revocations(&mut self, controller: &Mutex<Controller>, place: &Place) {
        let known: Vec<_> = self.noted.iter().chain(&self.told).cloned().collect();
        // A member may know newer revocations, if this store is an old copy or another controller serves.
        for (head, set) in place.heads(&known) {
            let mut controller = lock(controller);
            let own = controller.head(now()).0;
            let is_old = head.issuer() == own.issuer() && !head.is_newer_than(&own);
            let noted = if is_old { Ok(false) } else { controller.note_head(now(), &head, &set) };
            match noted {
                // Another controller may have changed the network's key, which the node has learned.
                Err(NoteError::Refused(Refusal::Issuer)) => self.key_attempts = KEY_ATTEMPTS,
                Err(NoteError::Store(error)) => {
                    tracing::debug!(%error, "a member's revocations are not taken over yet");
                    continue;
                }
                Err(error) => tracing::debug!(%error, "a member's revocations are not taken over"),
                Ok(_) => {}
            }
            self.noted.retain(|known| known.issuer() != head.issuer());
            self.noted.push(head);
        }
        let (head, set) = lock(controller).head(now());
        if self.told.as_ref() != Some(&head) {
            if let Err(failure) = place.set_revocations(&head, &set) {
                tracing::warn!("the node does not take the revocations: {}", failure.message());
            }
            self.told = Some(head);
        }
    }

    /// Spreads the access rules, if there are others than before.
    fn spread_rules(&mut self, controller: &Mutex<Controller>, place: &Place) {
        let rules = lock(controller).rules();
        let rank = match &rules {
            Ok(Some(rules)) => Some(rules.head().rank()),
            _ => None,
        };
        if let Ok(Some(rules)) = rules
            && self.told_rules != rank
        {
            if let Err(failure) = place.set_rules(&rules) {
                tracing::warn!("the node does not take the rules: {}", failure.message());
            }
            self.told_rules = rank;
        }
    }

    /// Tells the controller of the keys that its node has kept, if heads need one that it does not know.
    fn learn_keys(&mut self, controller: &mut Controller) {
        if self.key_attempts == 0 {
            return;
        }
        self.key_attempts -= 1;
        let before = controller.network_keys();
        if let Err(failure) = stores::learn_keys(&self.state, controller) {
            tracing::warn!("{}", failure.message());
        }
        if controller.network_keys() != before {
            // The heads count now.
            (self.key_attempts, self.noted) = (0, Vec::new());
            tell_of_key(controller);
        }
    }

    /// Writes what renewals have noted, and which members are there.
    fn flush(&mut self, controller: &Mutex<Controller>, place: &Place) {
        let (noted, connected) = (now(), place.connected());
        let mut controller = lock(controller);
        for Reached { node, source, copy } in connected {
            let Ok(node) = node.parse() else { continue };
            controller.note_heard(noted, &node, source);
            if let Some(copy) = copy {
                controller.note_both(noted, &node, [source, copy]);
            }
        }
        let done = controller.flush(now());
        // A full disk has room now and then, and fails again.
        if let Err(error) = &done
            && is_due(self.fault_told)
        {
            self.fault_told = Some(Instant::now());
            stdio::note(format_args!("the store fails: {error}; renewals go on, admissions wait"));
        }
        self.learn_keys(&mut controller);
    }

    /// Renews the right to issue certificates, and the controller's own one.
    fn renew(&mut self, controller: &Mutex<Controller>, place: &Place, is_delegated: bool) {
        if let Err(error) = lock(controller).delegate(now()) {
            stdio::note(format_args!("the right to issue certificates is not renewed: {error}"));
        }
        // Those of a controller whose clock was ahead count later.
        self.noted.retain(|head| head.time() <= now().plus(CLOCK_TOLERANCE));
        let own = lock(controller).credentials(now());
        if let Some(own) = own
            && let Err(failure) = place.set_credentials(&own)
        {
            tracing::warn!("the controller's own credentials do not count: {}", failure.message());
        }
        let mut controller = lock(controller);
        self.delegation = controller.head(now()).0.delegation().clone();
        if let (true, Ok(status)) = (is_delegated, controller.status(now())) {
            let left = super::duration::shown(status.delegation_end.since(now()));
            stdio::note(format_args!("the right to issue certificates is renewed for another {left}"));
        }
        warn_of_end(&mut controller, &mut self.warned);
        // Members that lack an address get one with a certificate, of which the log has no line.
        warn_of_pools(&mut controller, &mut self.full);
    }

    /// Tells what has changed, and which machines wait for a person.
    fn tell_changes(&mut self, controller: &Mutex<Controller>) {
        let mut controller = lock(controller);
        let mut waiting = controller.pending().unwrap_or_default();
        waiting.retain(|one| !controller.awaits_program(now(), &one.identity.node_id()));
        let lines = controller.log(self.line, LINES).unwrap_or_default();
        self.line = lines.last().map_or(self.line, |last| last.number);
        let changes: Vec<_> = lines.iter().filter_map(|line| change(&controller, line)).collect();
        if !lines.is_empty() {
            warn_of_pools(&mut controller, &mut self.full);
        }
        drop(controller);
        changes.iter().for_each(stdio::note);
        self.announced.retain(|code| waiting.iter().any(|one| one.code == *code));
        for one in &waiting {
            if self.announced.insert(one.code) {
                announce(one);
            }
        }
    }
}

/// Returns true if a fault that was told at that time, if at all, is told again.
fn is_due(told: Option<Instant>) -> bool {
    told.is_none_or(|at| at.elapsed() >= FAULT_INTERVAL)
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

/// Says once of each pool that it is nearly full, as long as it is. `told` has the pools of which was told.
fn warn_of_pools(controller: &mut Controller, told: &mut Vec<Prefix>) {
    let Ok(status) = controller.status(now()) else { return };
    let full: Vec<_> = status.pools.iter().filter(|one| one.is_nearly_full()).collect();
    for one in full.iter().filter(|one| !told.contains(&one.pool)) {
        stdio::note(format_args!(
            "pool {} is nearly full, {} of {} addresses in use: give a larger one by `peersock network settings \
             --pool`",
            one.pool, one.used, one.size
        ));
    }
    *told = full.iter().map(|one| one.pool).collect();
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
        "replace" => {
            let old = line.what.rsplit(' ').nth(1)?;
            Some(format!("{} has joined with a new key, in place of node {old:.12}, by {who}", named()))
        }
        "rules" => Some(format!("other access rules were applied, by {who}")),
        "revoke" => Some(format!("{} was removed, by {who}", named())),
        "deny" => Some(format!("the request of node {node:.12} was denied, by {who}")),
        _ => {
            let (_, run) = line.second_run()?;
            let [one, other] = run.addresses();
            let places =
                if one == other { format!("twice at {one}") } else { format!("at {one} and {other}") };
            let held = controller.find(node).is_ok_and(|member| member.copied != UnixTime::default());
            let then = match held {
                true => format!(
                    "; neither gets certificates until one is off or has another key, and `peersock network \
                     approve {node:.12}` has admitted it again"
                ),
                false => String::new(),
            };
            Some(format!(
                "{} runs {places}: its state directory was copied; run `peersock id --rekey` on the copy, and let \
                 it join by a separate invite; for a thief's copy, see docs/use/MANAGED.md (New keys){then}",
                named()
            ))
        }
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

/// Says that another controller has changed the network's key.
fn tell_of_key(controller: &Controller) {
    stdio::note(format_args!(
        "another controller has changed the network's key: run `peersock network renew -n {}` here, and give the \
         new words",
        controller.name()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_once_in_ten_minutes() {
        let now = Instant::now();
        assert!(is_due(None) && !is_due(Some(now)));
        // A machine that has just started has no earlier time.
        let at = |seconds| now.checked_sub(Duration::from_secs(seconds));
        assert!(at(590).is_none_or(|told| !is_due(Some(told))));
        assert!(at(600).is_none_or(|told| is_due(Some(told))));
    }
}
