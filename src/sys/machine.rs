//! This machine, as it introduces itself to people who decide about its admission.

use std::fs;

/// Returns the machine's host name; empty if the system has none.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the system's name for people, such as "Debian GNU/Linux 12 (bookworm)".
pub(crate) fn description() -> String {
    let named = fs::read_to_string("/etc/os-release").ok().and_then(|text| pretty_name(&text));
    named.unwrap_or_else(|| rustix::system::uname().sysname().to_string_lossy().into_owned())
}

/// Returns the name in the text of os-release(5).
fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let name: String = value.trim_matches(['"', '\'']).chars().filter(|c| !c.is_control()).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_without_their_quotes() {
        let text = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(pretty_name(text).as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(pretty_name("PRETTY_NAME=Arch"), Some("Arch".into()));
        assert_eq!(pretty_name("NAME=x"), None);
        assert!(!host_name().contains('\n'));
    }
}
