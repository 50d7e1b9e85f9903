//! systemd-resolved, the machine's resolver.

use std::process::{Command, Stdio};

/// Program that configures systemd-resolved.
const RESOLVECTL: &str = "resolvectl";

/// Runs resolvectl; returns true if systemd-resolved accepted the setting. It forgets the setting when the
/// interface is gone.
pub(super) fn resolvectl(words: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        // resolvectl would ask for a password, and versions before 256 lack the option that prevents it.
        return false;
    }
    let mut command = Command::new(RESOLVECTL);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let done = command.status();
    let told = done.as_ref().map_or_else(ToString::to_string, ToString::to_string);
    tracing::debug!("the machine's resolver is told: {RESOLVECTL} {}: {told}", words.join(" "));
    done.is_ok_and(|status| status.success())
}
