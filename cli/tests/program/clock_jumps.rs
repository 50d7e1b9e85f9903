//! Wall clocks that jump by a day, forwards and backwards, at a root and at nodes that are registered there
//! and connected. Nothing that runs ends or restarts, and later nodes are found as before. Needs a C
//! compiler, root and `natlab`.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use peersock_testnet::Lab as Nats;

use crate::common::{Lab, PATIENCE, PORT, http, lacks, peersock, run};
use crate::nats::{start, wait_for_status};

const DAY: i64 = 86_400;

/// The shortest lifetime of registrations that nodes accept, in seconds; they renew after a third of it.
const LIFETIME: &str = "30";

/// Library that replaces C library functions: the wall clock is offset by a number in a file, which changes.
const CLOCK: &str = "
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv(\"CLOCK_OFFSET\");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
    offset = map == MAP_FAILED ? NULL : map;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, \"clock_gettime\");
    int result = real(clock, time);
    if (result == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += *offset;
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
";

/// The wall clock of one program.
pub(crate) struct Clock {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl Clock {
    pub(crate) fn new(folder: &Path, library: &Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.clock"));
        fs::write(&path, 0i64.to_ne_bytes()).expect("room for a file");
        let file = OpenOptions::new().write(true).open(&path).expect("it was made");
        Self { library: library.to_owned(), path, file }
    }

    /// Sets the offset to this number of seconds.
    pub(crate) fn set(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).expect("a file");
    }

    pub(crate) fn given_to(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", &self.library).env("CLOCK_OFFSET", &self.path);
        command
    }
}

/// Builds the library in a folder.
pub(crate) fn build_library(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, CLOCK).expect("room for a file");
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Werror", "-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl");
    run(cc).success();
    library
}

/// Returns the root's number of registrations and renewals.
fn registrations(nats: &Nats) -> u64 {
    let text = nats.within("root", || http("127.0.0.1:9420", "/metrics"));
    let line = text.lines().find_map(|line| line.strip_prefix("peersock_root_registrations_total "));
    line.expect("the number").parse().expect("a number")
}

#[test]
fn clocks_that_jump_by_a_day_end_no_session_and_no_registration_and_hide_nobody() {
    let test = "clocks_that_jump_by_a_day_end_no_session_and_no_registration_and_hide_nobody";
    if lacks(test, &["cc", "date"]) {
        return;
    }
    let Some(nats) = Nats::build("clocks", "root=public home=port-restricted work=port-restricted") else {
        return;
    };
    let lab = Lab::new();
    let library = build_library(lab.dir.path());
    let clocks = ["root", "listener", "dialer"].map(|name| Clock::new(lab.dir.path(), &library, name));

    // Checks that the clock really jumps.
    clocks[0].set(-DAY);
    let mut date = Command::new("date");
    date.arg("+%s");
    let told: i64 = run(clocks[0].given_to(date)).success().text().trim().parse().expect("seconds");
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs().cast_signed();
    assert!((told - now + DAY).abs() < 600, "{told} and {now}");
    clocks[0].set(0);

    let words = ["root", "--ephemeral", "--max-lifetime", LIFETIME, "--drain", "0", "--port", "7420"];
    let mut command = clocks[0].given_to(peersock(&words));
    command.args(["--listen", &nats.ip4("root").to_string(), "--metrics", "127.0.0.1:9420"]);
    let root = start(&nats, "root", command);
    let text = root.wait_for_stdout("\n").lines().next().expect("a line").to_owned();
    let node = |name: &str, words: &[&str]| {
        let mut command = lab.command(name, words);
        command.args(["--no-portmap", "-v", "--network", &lab.network, "--root", &text]);
        command
    };
    let listening = node("listener", &["listen", "-k", &PORT.to_string()]);
    let listening = start(&nats, "home1", clocks[1].given_to(listening));
    let target = listening.wait_for_target();
    let registered = |name: &str| {
        let now = wait_for_status(&lab, name, |now| now["roots"][0]["state"] == "registered");
        now["roots"][0]["registered_s"].as_f64().expect("seconds")
    };
    registered("listener");
    let mut dialing = start(&nats, "work1", clocks[2].given_to(node("dialer", &["dial", &target])));
    dialing.send(b"before\n");
    listening.wait_for_stdout("before\n");
    registered("dialer");

    // Jumps by one or two days, in both directions, with the root and against it, and finally back.
    let jumps = [[DAY, DAY, -DAY], [-DAY, 0, DAY], [0, 0, 0]];
    for (number, jump) in jumps.into_iter().enumerate() {
        let nodes = ["listener", "dialer"];
        let before = nodes.map(registered);
        for (clock, seconds) in clocks.iter().zip(jump) {
            clock.set(seconds);
        }
        let since = Instant::now();
        // The running programs stay connected.
        let line = format!("after jump {number}\n");
        dialing.send(line.as_bytes());
        listening.wait_for_stdout(&line);
        // Two nodes renew equally often, so each renews within any three renewals.
        let known = registrations(&nats);
        while registrations(&nats) < known + 3 {
            assert!(since.elapsed() < PATIENCE, "no renewals after {jump:?}; {}", listening.said());
            thread::sleep(Duration::from_millis(200));
        }
        eprintln!("{jump:?}: renewed {:?} later", since.elapsed());
        for (name, before) in nodes.into_iter().zip(before) {
            let now = registered(name);
            assert!(now > before, "{name} was away for a while after {jump:?}: {now} s, {before} s before");
        }
        // Other nodes, with a right clock or a wrong one, find the listener.
        for (which, clock) in [None, Some(&clocks[1]), Some(&clocks[2])].into_iter().enumerate() {
            let mut command = node(&format!("later-{number}-{which}"), &["dial", &target]);
            if let Some(clock) = clock {
                command = clock.given_to(command);
            }
            let mut later = start(&nats, "work1", command);
            let line = format!("later {number} {which}\n");
            later.send(line.as_bytes());
            listening.wait_for_stdout(&line);
            later.finish().success();
        }
    }
    dialing.end_stdin();
    dialing.finish().success();
    listening.interrupt().failure(130, &[]);
}
