//! Settings that all programs of a shared node have in common.

use clap::Parser as _;
use peersock_attach::Setting;

use crate::args::UnderlayArgs;
use crate::failure::{Failure, Outcome};

/// Options of a node, as settings name them.
#[derive(clap::Parser)]
#[command(no_binary_name = true)]
struct Options {
    #[command(flatten)]
    underlay: UnderlayArgs,
}

/// Returns the options that settings describe.
///
/// # Errors
/// The settings are of another version of the program.
pub(super) fn options(settings: &[Setting]) -> Outcome<UnderlayArgs> {
    let word = |setting: &Setting| match setting.value.is_empty() {
        true => setting.option.clone(),
        false => format!("{}={}", setting.option, setting.value),
    };
    let parsed = Options::try_parse_from(settings.iter().map(word));
    // The error's text would repeat the values, which may contain passwords.
    let parsed = parsed.map_err(|_| {
        Failure::usage(
            "the settings of the node are of another version",
            "end the programs that use the node",
        )
    });
    Ok(parsed?.underlay)
}

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
        "leave the setting out, end the node and its programs with `peersock node --end`, or give this program \
         a separate node: --own-node --as NAME, or --ephemeral in an ad-hoc network",
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

    #[test]
    fn options_name_the_settings_that_made_them() {
        let settings = [
            setting("--no-portmap", ""),
            setting("--interface", "eth0,lo"),
            setting("--dht", "public"),
            setting("--turn", "turn:anna:secret@[2001:db8::1]:3478"),
            setting("--stun", "stun.example:3478"),
            setting("--busy-poll", "50"),
            setting("--overlay-port", "7000"),
        ];
        let options = options(&settings).expect("known options");
        assert_eq!(options.named_settings().expect("nothing is read"), settings);
        assert!(super::options(&[setting("--sail", "red")]).is_err());
    }
}
