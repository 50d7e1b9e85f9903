//! A clock that goes back between two runs of a program. Its peers know the later time, but the program
//! reaches them as fast as before.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Lab, PATIENCE, PORT, Running, lacks, run};

/// Allowed delay after a clock went back, and allowance for a busy machine.
const COST: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_millis(500);

/// Number of times the clock goes back, enough to detect a fault that shows once in five times.
const TIMES: i32 = 20;

const YEAR_HOURS: i32 = 365 * 24;

/// Library that replaces the C library's function: each step sets the wall clock an hour further back.
const CLOCK: &str = "
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int (*real)(clockid_t, struct timespec *) =
        (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, \"clock_gettime\");
    const char *back = getenv(\"HOURS_BACK\");
    int result = real(clock, time);
    if (result == 0 && back && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec -= 3600L * atoi(back);
    return result;
}
";

#[test]
fn a_clock_that_went_back_between_two_runs_costs_a_second_at_most() {
    if lacks("a_clock_that_went_back_between_two_runs_costs_a_second_at_most", &["cc"]) {
        return;
    }
    let lab = Lab::new();
    let (source, clock) = (lab.dir.path().join("clock.c"), lab.dir.path().join("clock.so"));
    std::fs::write(&source, CLOCK).expect("room for a file");
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Werror", "-shared", "-fPIC", "-o"]).args([&clock, &source]).arg("-ldl");
    run(cc).success();

    let listening = lab.listen(&["-k", &PORT.to_string()]);
    let patience = PATIENCE.as_secs().to_string();
    let dial = |hours: i32| {
        let mut command = lab.dial_command(&listening.target, &["--timeout", &patience]);
        command.env("LD_PRELOAD", &clock).env("HOURS_BACK", hours.to_string());
        let began = Instant::now();
        let mut dialer = Running::start(command);
        let text = format!("{hours} hours ago\n");
        dialer.send(text.as_bytes());
        listening.running.wait_for_stdout(&text);
        let took = began.elapsed();
        dialer.finish().success();
        took
    };
    let stale = || {
        let status = run(lab.command("listener", &["status", "--json"])).success();
        let status: serde_json::Value = serde_json::from_str(status.text()).expect("JSON");
        status["counters"]["initiations_stale"].as_u64().unwrap_or_else(|| panic!("{status:#}"))
    };
    let usual = (0..3).map(|_| dial(0)).max().expect("three times");
    assert_eq!(stale(), 0);
    // Each run is earlier than the one before.
    let back: Vec<_> = (1..=TIMES).map(dial).collect();
    assert!(
        stale() >= TIMES.unsigned_abs().into(),
        "the clock did not go back: {} stale initiations",
        stale()
    );
    eprintln!("{usual:?} as usual, {back:?} after the clock went back");
    // One late run is allowed, because the machine may be busy.
    let late = back.iter().filter(|took| **took > usual + COST + SLACK).count();
    assert!(late <= 1, "{late} times: {usual:?} as usual, {back:?} after the clock went back");
    // Clocks that are wrong by years, back and ahead.
    dial(5 * YEAR_HOURS);
    dial(-3 * YEAR_HOURS);
    listening.running.interrupt();
}
