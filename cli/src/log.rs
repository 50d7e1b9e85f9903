//! Logging to stderr: verbosity, and the filter in PEERSOCK_LOG.

use std::env;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use peersock_terminal::log::{Note, SILENT, VARIABLE};
use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, Outcome};
use crate::style;

/// Crates that log. A filter's target is one of them, or a module in one.
const TARGETS: [&str; 14] = [
    "peersock",
    "peersock_attach",
    "peersock_datapath",
    "peersock_demo",
    "peersock_socket_server",
    "peersock_dht",
    "peersock_nat",
    "peersock_overlay",
    "peersock_proxy",
    "peersock_rest",
    "peersock_root",
    "peersock_run_library",
    "peersock_seccomp",
    "peersock_streams",
];

/// Filter for a single -v.
const SINGLE_V_FILTER: &str =
    "info,peersock_overlay=debug,peersock_root=debug,peersock::driver=debug,peersock_datapath=debug";

/// Number of -v options.
static VERBOSITY: AtomicU8 = AtomicU8::new(0);

/// True if there is one, or the variable is set.
static IS_ASKED_FOR: AtomicBool = AtomicBool::new(false);

/// Returns the number of -v options.
pub(crate) fn verbosity() -> u8 {
    VERBOSITY.load(Ordering::Relaxed)
}

/// Returns true if the user has asked for more than warnings.
pub(crate) fn is_asked_for() -> bool {
    IS_ASKED_FOR.load(Ordering::Relaxed)
}

/// Sets up logging: `verbose` counts the -v options, and the variable overrides it.
pub(crate) fn to_stderr(verbose: u8) -> Outcome {
    VERBOSITY.store(verbose, Ordering::Relaxed);
    let (filter, is_asked_for) = match env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => (parse(&text)?, true),
        Err(env::VarError::NotUnicode(_)) => return Err(refuse("", "it is not UTF-8")),
        _ => (by_count(verbose), verbose > 0),
    };
    IS_ASKED_FOR.store(is_asked_for, Ordering::Relaxed);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(style::is_on(&io::stderr()));
    match is_asked_for {
        true => log.init(),
        false => log.event_format(Note).init(),
    }
    Ok(())
}

/// Returns the filter for this number of -v options.
fn by_count(verbose: u8) -> EnvFilter {
    without_silent(EnvFilter::new(match verbose {
        // Hides third-party warnings, because they are not written for users and may repeat endlessly.
        0 => "off,peersock=warn",
        1 => SINGLE_V_FILTER,
        2 => "debug",
        _ => "trace",
    }))
}

fn without_silent(filter: EnvFilter) -> EnvFilter {
    filter.add_directive(format!("{SILENT}=off").parse().expect("it is a directive"))
}

/// Parses `LEVEL` and `TARGET=LEVEL`, separated by commas; spans and fields as in `EnvFilter`.
fn parse(text: &str) -> Outcome<EnvFilter> {
    for directive in directives(text) {
        let target = directive.split(['=', '[']).next().unwrap_or_default().trim();
        let is_level =
            !directive.contains(['=', '[']) && target.parse::<tracing::level_filters::LevelFilter>().is_ok();
        let is_known = TARGETS.iter().any(|known| {
            target.strip_prefix(known).is_some_and(|module| module.is_empty() || module.starts_with("::"))
        });
        let is_span = target.is_empty() && directive.contains('[');
        if !(is_level || is_known || is_span) {
            return Err(refuse(text, format!("there is no target `{target}`")));
        }
    }
    EnvFilter::builder().parse(text).map(without_silent).map_err(|error| refuse(text, error))
}

/// Splits a text at commas outside brackets.
fn directives(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let parts = text.split(move |c| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth <= 0
    });
    parts.map(str::trim).filter(|directive| !directive.is_empty())
}

fn refuse(text: &str, reason: impl fmt::Display) -> Failure {
    Failure::usage(
        format_args!("{VARIABLE} holds `{text}`, which is no filter: {reason}"),
        format_args!(
            "give a level (error, warn, info, debug, trace), or TARGET=LEVEL with a target of {}, as in \
             peersock_overlay=debug,warn",
            TARGETS.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use peersock_testnet::Log;

    use super::*;

    #[test]
    fn whatever_logs_can_be_asked_for() {
        parse(SINGLE_V_FILTER).expect("what -v shows");
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut folders = vec![root.clone()];
        for group in ["", "bindings", "cli", "faces", "ffi", "labs", "reach", "sockets"] {
            let entries = std::fs::read_dir(root.join(group)).expect("a folder of the workspace");
            folders.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        let manifests =
            folders.iter().filter_map(|folder| std::fs::read_to_string(folder.join("Cargo.toml")).ok());
        let logging: Vec<_> = manifests
            .filter(|manifest| {
                manifest.split("[dev-dependencies]").next().unwrap_or_default().contains("\ntracing")
            })
            .filter_map(|manifest| {
                Some(manifest.split("name = \"").nth(1)?.split('"').next()?.replace('-', "_"))
            })
            .collect();
        // Crates that are not part of this program, or are the program itself.
        let elsewhere = ["peersock_cli", "peersock_ffi", "peersock_pipe", "peersock_terminal"];
        for name in &logging {
            let is_known = TARGETS.contains(&name.as_str()) || elsewhere.contains(&name.as_str());
            assert!(is_known, "{name} logs, and nobody can ask for it");
        }
        for target in TARGETS {
            assert!(logging.iter().any(|name| name == target), "{target} does not log");
        }
    }

    #[test]
    fn the_stun_library_is_silent() {
        let texts = ["trace", "warn", "peersock=info,debug"].map(|text| parse(text).expect("a filter"));
        for filter in (0..5).map(by_count).chain(texts) {
            let shown = filter.to_string();
            let log = Log::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                let span = tracing::error_span!(target: "stun_types::message", "sign", key = "hash");
                let _entered = span.enter();
                tracing::error!(target: "stun_types::message", "malformed");
                tracing::warn!(target: "peersock::driver", "a warning");
            });
            let text = log.text();
            assert!(text.contains("a warning"), "{shown}");
            assert!(!text.contains("malformed") && !text.contains("hash"), "{shown}: {text}");
        }
    }

    #[test]
    fn filters_name_levels_and_targets_that_exist() {
        for text in [
            "debug",
            "WARN",
            "off",
            "peersock=debug",
            "peersock_overlay::endpoint=trace,warn",
            "info, peersock_nat",
            "peersock[span{a=1}]=info",
            "[span]=debug",
        ] {
            parse(text).unwrap_or_else(|failure| panic!("{text}: {failure}"));
        }
        for text in
            ["bogus[[", "nonsense", "nonsense=debug", "peersock=loud", "peersockx=info", "=debug", "a b"]
        {
            let failure = parse(text).expect_err(text);
            assert_eq!(failure.status(), 2);
            let said = failure.to_string();
            assert!(said.contains("peersock_overlay") && said.contains(text), "{said}");
        }
    }
}
