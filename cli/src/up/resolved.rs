//! systemd-resolved, the machine's resolver.

use std::process::{Command, Stdio};

/// The program that sets what it asks.
const RESOLVECTL: &str = "resolvectl";

/// Whether systemd-resolved is there and does so. It forgets that when the interface is gone.
pub(super) fn resolvectl(words: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        // It would ask for a password, and the option against that is unknown to versions before 256.
        return false;
    }
    let mut command = Command::new(RESOLVECTL);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let done = command.status();
    let told = done.as_ref().map_or_else(ToString::to_string, ToString::to_string);
    tracing::debug!("the machine's resolver is told: {RESOLVECTL} {}: {told}", words.join(" "));
    done.is_ok_and(|status| status.success())
}
