//! Invites as QR codes, which a decoder of Debian reads.

use std::fs;
use std::process::Command;

use crate::common::{lacks, run};
use crate::machines::Machines;
use crate::terminal::{has_terminals, on_terminal};

/// Pixels of a module, so that the decoder finds edges.
const SCALE: usize = 4;

/// Reads the code that a text shows in half blocks. `ink` is the value of pixels that are drawn.
fn decoded(shown: &str, ink: u8) -> String {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    for line in shown.lines() {
        let line = line.trim_end_matches('\r').replace("\x1b[30m\x1b[107m", "").replace("\x1b[0m", "");
        if line.len() < 20 || !line.chars().all(|one| " ▀▄█".contains(one)) {
            continue;
        }
        for half in ["▀█", "▄█"] {
            let pixel = |one| if half.contains(one) { ink } else { !ink };
            let row: Vec<_> = line.chars().flat_map(|one| [pixel(one); SCALE]).collect();
            rows.extend(std::iter::repeat_n(row, SCALE));
        }
    }
    assert!(!rows.is_empty(), "there is no code in {shown}");
    let folder = tempfile::tempdir().expect("a directory");
    let picture = folder.path().join("code.pgm");
    let head = format!("P5\n{} {}\n255\n", rows[0].len(), rows.len());
    fs::write(&picture, [head.into_bytes(), rows.concat()].concat()).expect("a picture");
    let mut decoder = Command::new("zbarimg");
    decoder.args(["--quiet", "--raw"]).arg(&picture);
    run(decoder).success().text().trim().to_owned()
}

#[test]
fn an_invite_is_read_from_its_qr_code() {
    let test = "an_invite_is_read_from_its_qr_code";
    if lacks(test, &["zbarimg"]) || !has_terminals(test) {
        return;
    }
    let machines = Machines::new();
    machines.create(&[]);
    // Without colours the terminal is taken to be dark, so drawn pixels are light.
    let plain = run(machines.command("alpha", &["network", "invite", "--qr"])).success();
    assert_eq!(decoded(&plain.stderr, 255), plain.text().trim());

    let program = env!("CARGO_BIN_EXE_peersock");
    let state = machines.directory("alpha");
    let on_terminal_of = |columns: u32| {
        let line = format!("stty cols {columns}; '{program}' network invite --qr");
        let state = state.to_str().expect("text");
        run(on_terminal(&line, &[("PEERSOCK_STATE", state)])).text().to_owned()
    };
    let shown = on_terminal_of(100);
    let text = shown.lines().find(|line| line.starts_with("peersock://")).expect("the text").trim();
    assert_eq!(decoded(&shown, 0), text);
    let narrow = on_terminal_of(40);
    assert!(narrow.contains("peersock://") && narrow.contains("this terminal has 40"), "{narrow}");
    assert!(!narrow.contains('▀'), "{narrow}");
}
