//! Settings that all programs of a shared node have in common.

use peersock_attach::Setting;

use crate::failure::{Failure, Outcome};

/// Checks that the node has the settings that a program names. `starter` is the program that has set the
/// node's.
pub(super) fn check(of_node: &[Setting], wanted: &[Setting], starter: &str) -> Outcome {
    let Some(other) = wanted.iter().find(|setting| !of_node.contains(setting)) else { return Ok(()) };
    let its = of_node.iter().find(|setting| setting.option == other.option);
    let has = match its {
        Some(its) => format!("with {}", shown(its)),
        None => format!("without {}", other.option),
    };
    Err(Failure::new(
        format_args!(
            "the node that programs share was started {has}, by {starter}, and this program asks for {}",
            shown(other)
        ),
        "end the programs that use the node, leave the option out, or give this program a node of its own \
         by --state DIR",
    ))
}

/// Returns a setting for people. Values that may contain passwords are left out.
fn shown(setting: &Setting) -> String {
    match setting.option.as_str() {
        "--turn" => "other --turn".to_owned(),
        option if setting.value.is_empty() => option.to_owned(),
        option => format!("{option} {}", setting.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(option: &str, value: &str) -> Setting {
        Setting { option: option.into(), value: value.into() }
    }

    #[test]
    fn what_a_program_does_not_name_is_the_node_s_and_what_differs_is_named() {
        let node = [setting("--interface", "lo"), setting("--no-portmap", "")];
        let check = |wanted: &[Setting]| {
            check(&node, wanted, "`nginx` (process 7)").map_err(|failure| failure.message().to_owned())
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&node), Ok(()));
        let other = check(&[setting("--interface", "eth0")]).expect_err("another interface");
        assert!(other.contains("with --interface lo, by `nginx` (process 7)"), "{other}");
        assert!(other.ends_with("asks for --interface eth0"), "{other}");
        let port = check(&[setting("--overlay-port", "7000")]).expect_err("a port");
        assert!(port.contains("without --overlay-port"), "{port}");
        let turn = check(&[setting("--turn", "turn:anna:secret@host")]).expect_err("a server");
        assert!(!turn.contains("secret"), "{turn}");
    }
}
