//! Sockets that become the overlay's, while a signal comes at each system call of the program, compared with
//! the kernel's. The library makes many calls in the place of one.

use std::process::Command;

use crate::builds::compile;
use crate::common::run;
use crate::lab::Lab;

/// Places of signals in the programs without the library, at least: it adds several calls to each of them.
const CALLS_OF_THE_KERNEL: usize = 80;

#[test]
fn programs_see_the_same_wherever_a_signal_comes_while_their_sockets_move() {
    let Some(lab) = Lab::with("programs_see_the_same_wherever_a_signal_comes", &["cc"]) else { return };
    let program = compile(&lab, "moved", &[]);
    let mut kernels = Command::new(&program);
    kernels.arg("::1");
    let kernels = run(kernels);
    if kernels.text().contains("WIFSTOPPED") {
        return eprintln!("SKIP programs_see_the_same_wherever_a_signal_comes: ptrace is not permitted");
    }
    let kernels = kernels.success();
    let moved = run(lab.command("beta", &["--mode", "preload"], &[program.as_str(), "fd77::2"])).success();
    assert_eq!(moved.text(), kernels.text());
    let places = |said: &str| {
        let line = said.lines().find(|line| line.ends_with(" places, 0 different")).expect("a number");
        line.split(' ').next().and_then(|number| number.parse::<usize>().ok()).expect("a number")
    };
    let (at_kernel, at_overlay) = (places(&kernels.stderr), places(&moved.stderr));
    assert!(at_kernel >= CALLS_OF_THE_KERNEL && at_overlay > 3 * at_kernel, "{at_kernel}, {at_overlay}");
}
