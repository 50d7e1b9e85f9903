//! `peersock network settings`: what holds for all members.

use std::time::Duration;

use peersock::overlay::Prefix;
use peersock::overlay::membership::Tag;
use peersock_controller::{ChangeError, Controller, OUTLIVE, PoolUse, Settings};

use super::super::{comparable, duration, now, who};
use super::change::Outlive;
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
  peersock network settings --pool 10.78.0.0/16")]
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

    /// Block of addresses for members, of IPv4 or of IPv6; it replaces the one of its kind
    ///
    /// Members get an address of it at their next certificate, unless they have one of that kind.
    #[arg(long = "pool", value_name = "IP/BITS", value_parser = block)]
    pools: Vec<Prefix>,

    /// Give ephemeral members an IPv4 address, too
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    ephemeral_ipv4: Option<bool>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    of: OfNetwork,
}

pub(crate) fn settings(args: &SettingsArgs) -> Outcome {
    let mut controller = args.of.open()?;
    let before = controller.settings();
    let after = changed(&before, args);
    if after != before {
        controller.set_settings(now(), &who(), &after).map_err(|error| not_set(error, &after))?;
    }
    for (tag, outlive) in &args.tags {
        controller.set_tag_outlive(now(), &who(), tag, *outlive).map_err(refused)?;
    }
    let pools = controller.status(now()).map_err(refused)?.pools;
    if args.json {
        return print(to_json(&controller, &pools)?);
    }
    show(&controller, &pools)?;
    if (after.ipv4, after.ipv6) != (before.ipv4, before.ipv6) {
        stdio::note("members keep the addresses that they have");
    }
    Ok(())
}

fn changed(before: &Settings, args: &SettingsArgs) -> Settings {
    let mut after = before.clone();
    after.outlive = args.outlive.unwrap_or(after.outlive);
    after.ephemeral_ipv4 = args.ephemeral_ipv4.unwrap_or(after.ephemeral_ipv4);
    for pool in &args.pools {
        let kind = if pool.address().is_ipv4() { &mut after.ipv4 } else { &mut after.ipv6 };
        *kind = Some(*pool);
    }
    after
}

/// Returns the failure of a change of settings. Times were checked before, so it is about pools.
fn not_set(error: ChangeError, after: &Settings) -> Failure {
    let pools: Vec<_> = after.ipv4.into_iter().chain(after.ipv6).map(|pool| pool.to_string()).collect();
    match error {
        ChangeError::Range(_) => Failure::new(
            format_args!("nothing is changed: members cannot have addresses of {}", pools.join(" and ")),
            "give a block such as 10.77.0.0/24, with at most 2^24 addresses of IPv4",
        ),
        error => refused(error),
    }
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
    for PoolUse { pool, used, size } in pools {
        let is_for_all = settings.ephemeral_ipv4 || pool.address().is_ipv6();
        let but = if is_for_all { "" } else { ", none for ephemeral members" };
        lines.push(("pool", format!("{pool}, {used} of {size} addresses in use{but}")));
    }
    for (address, holder) in reservations::all(controller)? {
        lines.push(("reserved", format!("{address} for {}", reservations::shown(controller, &holder))));
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
    let size = |pool: &PoolUse| u64::try_from(pool.size).unwrap_or(u64::MAX);
    let pools: Vec<_> = pools
        .iter()
        .map(|one| serde_json::json!({ "pool": one.pool.to_string(), "used": one.used, "size": size(one) }))
        .collect();
    let reserved: serde_json::Map<_, _> = reservations::all(controller)?
        .into_iter()
        .map(|(address, holder)| (address.to_string(), reservations::shown(controller, &holder).into()))
        .collect();
    Ok(serde_json::json!({
        "name": controller.name(),
        "network": controller.network().to_string(),
        "key": comparable(&controller.key()),
        "outlive_s": settings.outlive.as_secs(),
        "tag_outlive_s": tags,
        "pools": pools,
        "ephemeral_ipv4": settings.ephemeral_ipv4,
        "reserved": reserved,
    }))
}

/// Parses a time for which members go on without a controller.
fn outlive(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    match OUTLIVE.contains(&time) {
        true => Ok(time),
        false => Err("members go on without a controller for 1h to 30d".to_owned()),
    }
}

/// Parses the same, or `default`.
pub(super) fn outlive_or_default(text: &str) -> Result<Outlive, String> {
    match text {
        "default" => Ok(None),
        text => outlive(text).map(Some),
    }
}

fn tag_outlive(text: &str) -> Result<(Tag, Outlive), String> {
    let (tag, time) = text.split_once('=').ok_or("give a tag and a time: web=2h")?;
    let tag: Tag = tag.parse().map_err(|error| format!("the tag `{tag}` {error}"))?;
    Ok((tag, outlive_or_default(time)?))
}

/// Parses a block of addresses.
pub(crate) fn block(text: &str) -> Result<Prefix, String> {
    let parsed = text
        .split_once('/')
        .and_then(|(address, length)| Prefix::new(address.parse().ok()?, length.parse().ok()?));
    parsed.ok_or_else(|| "a block is an address and a number of bits: 10.77.0.0/24".to_owned())
}

fn yes_or_no(text: &str) -> Result<bool, String> {
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
        assert_eq!(outlive_or_default("2h"), Ok(Some(Duration::from_secs(7200))));
        assert_eq!(outlive_or_default("default"), Ok(None));
        let (tag, time) = tag_outlive("web=default").expect("a tag and a time");
        assert_eq!((tag.as_str(), time), ("web", None));
        for wrong in ["web", "web=", "web=59m", "web=31d", "=2h", "two words=2h"] {
            assert!(tag_outlive(wrong).is_err(), "{wrong}");
        }
        for right in ["10.77.0.0/24", "fd00:1::/64"] {
            assert_eq!(block(right).map(|pool| pool.to_string()), Ok(right.to_owned()));
        }
        for wrong in ["10.77.0.0", "10.77.0.0/33", "pool"] {
            assert!(block(wrong).is_err(), "{wrong}");
        }
    }
}
