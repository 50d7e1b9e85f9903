//! `peersock network settings`: what holds for all members.

use std::collections::BTreeSet;
use std::time::Duration;

use peersock::overlay::Prefix;
use peersock::overlay::membership::Tag;
use peersock_controller::{ChangeError, Controller, OnClone, PoolUse, Settings};

use super::super::{clashes, comparable, duration, now, who};
use super::outlive::{Outlive, outlive, tag_outlive};
use super::{OfNetwork, refused, reservations};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::stdio;

/// Show the settings of a network whose controller is here, or change them
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network settings
  peersock network settings --outlive 3d
  peersock network settings --tag-outlive laptop=2h --tag-outlive web=default
  peersock network settings --pool 10.78.0.0/16
  peersock network settings --pool 10.78.0.0/16 --pool none   # and none of IPv6")]
pub(crate) struct SettingsArgs {
    /// Time for which members go on without a controller, from 1h to 30d
    ///
    /// It counts for each member from its next certificate on, within 40 minutes. A machine that is revoked,
    /// and that no other member tells so, stays a member for as long.
    #[arg(long, value_name = "TIME", value_parser = outlive)]
    outlive: Option<Duration>,

    /// The same for members with a tag, of several the shortest; `default` ends it; may be repeated
    #[arg(long = "tag-outlive", value_name = "TAG=TIME", value_parser = tag_outlive)]
    tags: Vec<(Tag, Outlive)>,

    /// Block of addresses for members, of IPv4 or of IPv6; it replaces the one of its kind; may be repeated
    ///
    /// Members get an address of it at their next certificate, within 40 minutes, unless they have one of
    /// that kind. `none` ends the blocks that are not named with it. Members keep the addresses that they
    /// have, until they are removed.
    #[arg(long = "pool", value_name = "IP/BITS|none", value_parser = block_or_none)]
    pools: Vec<Pool>,

    /// Give ephemeral members an IPv4 address, too
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    ephemeral_ipv4: Option<bool>,

    /// Decision about a member of which two machines run, because its state directory was copied
    ///
    /// `keep-older` gives certificates to the one that ran first, while it is heard. `refuse-both` gives none
    /// to either, until `approve` or an invite has admitted one again.
    #[arg(long, value_name = "keep-older|refuse-both", value_parser = on_clone)]
    on_clone: Option<OnClone>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

/// Block of addresses, or `None` for no block besides those that are named.
type Pool = Option<Prefix>;

pub(crate) fn settings(args: &SettingsArgs) -> Outcome {
    check_once(args)?;
    let mut controller = args.of.open()?;
    let before = controller.settings();
    let mut after = before.clone();
    apply(args, &mut after);
    if after != before {
        // Another command may have changed other settings meanwhile.
        let changed = controller.change_settings(now(), &who(), |settings| apply(args, settings));
        after = changed.map_err(|error| not_set(error, args))?;
    }
    for (tag, outlive) in &args.tags {
        controller.set_tag_outlive(now(), &who(), tag, *outlive).map_err(refused)?;
    }
    warn(&mut controller, args)?;
    let pools = controller.status(now()).map_err(refused)?.pools;
    if args.json {
        return print(to_json(&controller, &pools)?);
    }
    show(&controller, &pools)?;
    let is_other = (after.ipv4, after.ipv6) != (before.ipv4, before.ipv6);
    if is_other && has_members_outside(&mut controller, &after)? {
        stdio::note(
            "members keep the addresses that they have: those of no pool count alone, as a /32 or /128, from the \
             next certificate on, within 40 minutes",
        );
    }
    Ok(())
}

/// Returns true if members have addresses of no pool.
fn has_members_outside(controller: &mut Controller, settings: &Settings) -> Outcome<bool> {
    let pools: Vec<_> = settings.ipv4.into_iter().chain(settings.ipv6).collect();
    let members = controller.members().map_err(refused)?;
    let mut granted = members.iter().filter(|one| one.is_member()).flat_map(|one| one.grant.addresses());
    Ok(granted.any(|address| !pools.iter().any(|pool| pool.contains(address))))
}

/// Warns of pools that overlap with local networks, and says which tags no member has.
fn warn(controller: &mut Controller, args: &SettingsArgs) -> Outcome {
    if args.pools.is_empty() && args.tags.is_empty() {
        return Ok(());
    }
    let (members, own) = (controller.members().map_err(refused)?, args.of.own()?);
    let own = members.iter().filter(|member| own == Some(member.grant.node));
    let own: Vec<_> = own.flat_map(|own| own.grant.addresses()).collect();
    clashes::warn(args.pools.iter().flatten().copied(), &own, "choose another one");
    let is_used = |tag| members.iter().any(|one| one.is_member() && one.grant.tags.contains(tag));
    for (tag, _) in args.tags.iter().filter(|(tag, outlive)| outlive.is_some() && !is_used(tag)) {
        stdio::note(format_args!("no member has the tag {tag} now: its time counts for those that get it"));
    }
    Ok(())
}

/// Changes the settings that are named, and no others.
fn apply(args: &SettingsArgs, settings: &mut Settings) {
    settings.outlive = args.outlive.unwrap_or(settings.outlive);
    settings.ephemeral_ipv4 = args.ephemeral_ipv4.unwrap_or(settings.ephemeral_ipv4);
    settings.on_clone = args.on_clone.unwrap_or(settings.on_clone);
    if args.pools.contains(&None) {
        (settings.ipv4, settings.ipv6) = (None, None);
    }
    for pool in args.pools.iter().flatten() {
        let kind = if pool.address().is_ipv4() { &mut settings.ipv4 } else { &mut settings.ipv6 };
        *kind = Some(*pool);
    }
}

/// Fails if one thing is to have two values.
fn check_once(args: &SettingsArgs) -> Outcome {
    let pools = args.pools.iter().flatten().map(|pool| match pool.address().is_ipv4() {
        true => "a pool of IPv4".to_owned(),
        false => "a pool of IPv6".to_owned(),
    });
    let tags = args.tags.iter().map(|(tag, _)| format!("the time of the tag {tag}"));
    let mut named = BTreeSet::new();
    match pools.chain(tags).find(|one| !named.insert(one.clone())) {
        Some(twice) => Err(Failure::usage(format_args!("{twice} is given twice"), "give it once")),
        None => Ok(()),
    }
}

/// Returns the failure of a change of settings. Times were checked before, so it is about pools.
fn not_set(error: ChangeError, args: &SettingsArgs) -> Failure {
    let pools: Vec<_> = args.pools.iter().flatten().map(ToString::to_string).collect();
    match error {
        ChangeError::Range(_) => Failure::new(
            format_args!("nothing is changed: members cannot have addresses of {}", pools.join(" and ")),
            "give a block such as 10.77.0.0/24, with at most 2^24 addresses of IPv4",
        ),
        error => refused(error),
    }
}

/// Words for decisions about copies of a member, as the option has them.
const DECISIONS: [(&str, OnClone); 2] =
    [("keep-older", OnClone::KeepOlder), ("refuse-both", OnClone::RefuseBoth)];

fn word_of(on_clone: OnClone) -> &'static str {
    DECISIONS.iter().find(|(_, known)| *known == on_clone).map_or("", |(word, _)| word)
}

/// Reads the value of `--on-clone`.
pub(crate) fn on_clone(text: &str) -> Result<OnClone, &'static str> {
    let found = DECISIONS.iter().find(|(word, _)| *word == text);
    found.map(|(_, decision)| *decision).ok_or("give keep-older or refuse-both")
}

fn show(controller: &Controller, pools: &[PoolUse]) -> Outcome {
    let settings = controller.settings();
    print(format_args!(
        "network {} {}, key {}",
        controller.name(),
        controller.network(),
        comparable(&controller.key())
    ))?;
    let mut lines = vec![("outlive", duration::shown(settings.outlive))];
    for (tag, outlive) in controller.tag_outlive() {
        lines.push(("outlive", format!("{} for members with the tag {tag}", duration::shown(outlive))));
    }
    if pools.is_empty() {
        lines.push(("pool", "none: members have the address that follows from their key".to_owned()));
    }
    for one in pools {
        let PoolUse { pool, used, size } = one;
        let is_for_all = settings.ephemeral_ipv4 || pool.address().is_ipv6();
        let but = if is_for_all { "" } else { ", none for ephemeral members" };
        let full = if one.is_nearly_full() { ", nearly full" } else { "" };
        lines.push(("pool", format!("{pool}, {used} of {size} addresses in use{full}{but}")));
    }
    lines.push(("copies", word_of(settings.on_clone).to_owned()));
    for (address, holder) in reservations::all(controller)? {
        let is_in_pool = pools.iter().any(|one| one.pool.contains(address));
        let but = if is_in_pool { "" } else { ", in no pool" };
        lines.push(("reserved", format!("{address} for {}{but}", reservations::shown(controller, &holder))));
    }
    lines.into_iter().try_for_each(|(what, value)| print(format_args!("{what:<10} {value}")))
}

fn to_json(controller: &Controller, pools: &[PoolUse]) -> Outcome<serde_json::Value> {
    let settings = controller.settings();
    let tags: serde_json::Map<_, _> = controller
        .tag_outlive()
        .into_iter()
        .map(|(tag, outlive)| (tag.to_string(), outlive.as_secs().into()))
        .collect();
    let pools: Vec<_> = pools
        .iter()
        .map(|one| {
            serde_json::json!({
                "pool": one.pool.to_string(),
                "used": one.used,
                "size": number(one.size),
                "nearly_full": one.is_nearly_full(),
            })
        })
        .collect();
    let reserved: serde_json::Map<_, _> = reservations::all(controller)?
        .into_iter()
        .map(|(address, holder)| (address.to_string(), reservations::shown(controller, &holder).into()))
        .collect();
    Ok(serde_json::json!({
        "name": controller.name(),
        "network": controller.network().to_string(),
        "key": controller.key().to_string(),
        "outlive_s": settings.outlive.as_secs(),
        "tag_outlive_s": tags,
        "pools": pools,
        "ephemeral_ipv4": settings.ephemeral_ipv4,
        "on_clone": word_of(settings.on_clone),
        "reserved": reserved,
    }))
}

/// Returns a number for JSON. Readers of JSON round numbers of that size anyway.
fn number(count: u128) -> serde_json::Value {
    u64::try_from(count).map_or_else(|_| (count as f64).into(), Into::into)
}

/// Parses a block of addresses.
pub(crate) fn block(text: &str) -> Result<Prefix, String> {
    let parsed = text
        .split_once('/')
        .and_then(|(address, length)| Prefix::new(address.parse().ok()?, length.parse().ok()?));
    parsed.ok_or_else(|| "a block is an address and a number of bits: 10.77.0.0/24".to_owned())
}

/// Parses the same, or `none`.
fn block_or_none(text: &str) -> Result<Pool, String> {
    match text {
        "none" => Ok(None),
        text => block(text).map(Some),
    }
}

pub(super) fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("give yes or no".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_blocks_are_checked_before_anything_changes() {
        for right in ["10.77.0.0/24", "fd00:1::/64"] {
            assert_eq!(block(right).map(|pool| pool.to_string()), Ok(right.to_owned()));
        }
        for wrong in ["10.77.0.0", "10.77.0.0/33", "pool"] {
            assert!(block_or_none(wrong).is_err(), "{wrong}");
        }
        assert_eq!(block_or_none("none"), Ok(None));
    }

    #[test]
    fn a_number_of_addresses_is_never_cut_off() {
        assert_eq!(number(254).to_string(), "254");
        assert_eq!(number(u64::MAX.into()).to_string(), u64::MAX.to_string());
        assert_eq!(number(1 << 80).to_string(), "1.2089258196146292e+24");
    }
}
