//! Scripted segment tests: one stack against segments written by hand, in virtual time.
//!
//! The scripts and a description of their language are in `tests/scripts`. Each is a separate test, named
//! after its file and itself, and runs over IPv4 and over IPv6.

mod calls;
mod chaos;
mod musts;
mod parse;
mod run;
mod setup;
mod spec;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let scripts = match parse::load(&folder) {
        Ok(scripts) => scripts,
        Err(problem) => {
            let broken = vec![Trial::test("scripts_can_be_read", move || Err(Failed::from(problem)))];
            return libtest_mimic::run(&arguments, broken).exit_code();
        }
    };
    let names: Vec<String> = scripts.iter().map(|script| script.name.clone()).collect();
    let mut trials: Vec<Trial> = scripts
        .into_iter()
        .map(|script| {
            Trial::test(script.name.clone(), move || {
                for ipv6 in [false, true] {
                    if script.suits(ipv6) {
                        run::run(&script, ipv6).map_err(Failed::from)?;
                    }
                }
                Ok(())
            })
        })
        .collect();
    trials.push(Trial::test("musts::every_must_names_a_test_that_exists", move || {
        musts::check(&folder, &names).map_err(Failed::from)
    }));
    trials.push(Trial::test("chaos::a_peer_may_send_what_it_likes", || chaos::run().map_err(Failed::from)));
    libtest_mimic::run(&arguments, trials).exit_code()
}
