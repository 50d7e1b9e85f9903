//! Output for terminals only: colours, and the progress of a transfer.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{Lab, PORT, Running, run, without_variables};
use crate::delivery::fed;

/// Returns a command line in a shell with a terminal as stdin, stdout and stderr; the terminal's output
/// appears on stdout.
pub(crate) fn on_terminal(line: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new("script");
    command.args(["-qec", line, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "xterm");
    // Build services set CI to say that their logs show colours.
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    without_variables(&mut command);
    command.envs(variables.iter().copied());
    command
}

/// Returns true if the test can run here; prints the reason if not.
pub(crate) fn has_terminals(test: &str) -> bool {
    let version = Command::new("script").arg("--version").stdout(Stdio::null()).status();
    let found = version.is_ok_and(|status| status.success());
    if !found {
        eprintln!("SKIP {test}: `script` (util-linux), which makes terminals, is not installed");
    }
    found
}

/// Returns true if a text contains a sequence that selects a colour or weight (SGR: `ESC [ … m`).
pub(crate) fn is_coloured(text: &str) -> bool {
    text.split("\x1b[").skip(1).any(|rest| {
        rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';' || c == ':').starts_with('m')
    })
}

#[test]
fn colours_are_on_terminals_unless_they_are_refused() {
    if !has_terminals("colours_are_on_terminals_unless_they_are_refused") {
        return;
    }
    let lab = Lab::new();
    let _listening = lab.listen(&[&PORT.to_string()]);
    let program = env!("CARGO_BIN_EXE_peersock");
    let state = |node: &str| format!("--state '{}'", lab.state(node).display());
    let nobody = run(lab.command("nobody", &["addr", &lab.network])).success().text().trim().to_owned();
    let ping = format!("ping {nobody} --timeout 0.1 --interface lo -n {} {}", lab.network, state("a"));
    let said = [
        // A failure with its hint, the parser's message, help, a log, and output on stdout.
        (format!("'{program}' addr nonsense {}", state("a")), "nonsense"),
        (format!("'{program}' nonsense"), "nonsense"),
        (format!("'{program}' listen --help"), "Examples:"),
        (format!("'{program}' -v {ping}"), "no answer"),
        (format!("'{program}' status {}", state("listener")), "1 network: "),
    ];
    for (line, words) in &said {
        let shown = |line: &str, variables: &[(&str, &str)]| {
            let shown = run(on_terminal(line, variables)).text().to_owned();
            assert!(shown.contains(words), "{line}: {words:?} is not in {shown:?}");
            shown
        };
        // An empty NO_COLOR counts as unset (no-color.org).
        for variables in [&[][..], &[("NO_COLOR", "")], &[("TERM", "linux")]] {
            let shown = shown(line, variables);
            assert!(is_coloured(&shown), "{line} {variables:?}: {shown:?}");
        }
        for variables in [("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")] {
            let shown = shown(line, &[variables]);
            assert!(!shown.contains('\x1b'), "{line} {variables:?}: {shown:?}");
        }
        let piped = shown(&format!("{line} 2>&1 | cat"), &[]);
        assert!(!piped.contains('\x1b'), "{line} in a pipe: {piped:?}");
    }
}

/// Variables of an environment.
type Variables = &'static [(&'static str, &'static str)];

/// Environment, further options, and if progress is shown.
const WANTED: [(Variables, &str, bool); 5] = [
    (&[], "", true),
    (&[("NO_COLOR", "1")], "", true),
    (&[], "--quiet", false),
    // A dumb terminal cannot draw over a line.
    (&[("TERM", "dumb")], "", false),
    (&[], "2>&1 | cat", false),
];

/// Returns a command whose progress is checked.
fn command(lab: &Lab, node: &str, words: &str) -> String {
    let (program, state) = (env!("CARGO_BIN_EXE_peersock"), lab.state(node));
    format!("'{program}' {words} --state '{}' --interface lo -n {}", state.display(), lab.network)
}

#[track_caller]
fn check_progress(shown: &str, words: &str, is_wanted: bool, variables: &[(&str, &str)]) {
    assert_eq!(shown.contains(words), is_wanted, "{variables:?}: {shown:?}");
    assert!(is_wanted || !shown.contains('\x1b'), "{variables:?}: {shown:?}");
    assert!(variables.is_empty() || !is_coloured(shown), "{variables:?}: {shown:?}");
}

#[test]
fn dial_shows_the_progress_of_a_file() {
    if !has_terminals("dial_shows_the_progress_of_a_file") {
        return;
    }
    let lab = Lab::new();
    let input = lab.dir.path().join("input");
    fs::write(&input, vec![b'x'; 300_000]).unwrap();
    for (variables, options, is_wanted) in WANTED {
        let mut listening = lab.listen(&["0"]);
        listening.running.end_stdin();
        let dial = command(&lab, "dialer", &format!("dial '{}'", listening.target));
        let line = format!("{dial} < '{}' {options}", input.display());
        let shown = run(on_terminal(&line, variables)).success();
        check_progress(shown.text(), "KiB sent", is_wanted, variables);
        assert_eq!(listening.running.finish().success().stdout.len(), 300_000);
    }
}

/// Starts `listen` on a terminal; also returns its address.
fn listen(lab: &Lab, redirections: &str, variables: &[(&str, &str)]) -> (String, Running) {
    let line = format!("{} {redirections}", command(lab, "listener", "listen 0"));
    let listening = Running::start(on_terminal(&line, variables));
    let said = listening.wait_for_stdout(" in network ");
    let (_, target) = said.split_once("listening on ").unwrap();
    (target.split(' ').next().unwrap().to_owned(), listening)
}

#[test]
fn listen_shows_the_progress_of_a_file_that_it_sends() {
    if !has_terminals("listen_shows_the_progress_of_a_file_that_it_sends") {
        return;
    }
    let lab = Lab::new();
    let input = lab.dir.path().join("input");
    fs::write(&input, vec![b'x'; 300_000]).unwrap();
    for (variables, options, is_wanted) in WANTED {
        let (target, listening) = listen(&lab, &format!("< '{}' {options}", input.display()), variables);
        let got = run(lab.dial_command(&target, &["--receive-only"])).success();
        assert_eq!(got.stdout.len(), 300_000);
        check_progress(listening.finish().success().text(), "KiB sent", is_wanted, variables);
    }
}

#[test]
fn listen_shows_the_progress_of_what_goes_to_a_file() {
    if !has_terminals("listen_shows_the_progress_of_what_goes_to_a_file") {
        return;
    }
    let lab = Lab::new();
    let (input, output) = (lab.dir.path().join("input"), lab.dir.path().join("output"));
    fs::write(&input, vec![b'x'; 300_000]).unwrap();
    // Skips the pipe, which would also be stdout.
    for (variables, options, is_wanted) in WANTED.into_iter().filter(|(_, options, _)| !options.contains('|'))
    {
        let redirections = format!("{options} < /dev/null > '{}'", output.display());
        let (target, listening) = listen(&lab, &redirections, variables);
        run(fed(lab.dial_command(&target, &[]), &input)).success();
        check_progress(listening.finish().success().text(), "KiB received", is_wanted, variables);
        assert_eq!(fs::read(&output).unwrap().len(), 300_000);
    }
}

#[test]
fn a_search_is_shown_on_a_terminal_while_it_lasts() {
    if !has_terminals("a_search_is_shown_on_a_terminal_while_it_lasts") {
        return;
    }
    let lab = Lab::new();
    let absent = run(lab.command("absent", &["addr", &lab.network])).success().text().trim().to_owned();
    let line = |more: &str| {
        format!(
            "'{}' dial '[{absent}]:{PORT}' --interface lo -n {} --state '{}' --timeout 2 {more}",
            env!("CARGO_BIN_EXE_peersock"),
            lab.network,
            lab.state("dialer").display()
        )
    };
    let shown = run(on_terminal(&line(""), &[])).text().to_owned();
    assert!(shown.contains(&format!("looking for {absent}")), "{shown}");
    let shown = run(on_terminal(&line("--quiet"), &[])).text().to_owned();
    assert!(!shown.contains("looking for"), "{shown}");
}
