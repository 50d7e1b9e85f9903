//! Programs that wait for room to write when their launcher ends: each call fails at once, and no process
//! spins meanwhile.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{signal, vanish};
use crate::ending::wait_for_file;
use crate::lab::Lab;

/// Time for which a wait is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// Maximum processor time of all waiting processes, in seconds: a small part of that. A process that polls in
/// a loop uses all of it.
const BUSY: f64 = 0.2;

/// Allowance for a busy machine to run threads that were woken. All timers are longer.
const AT_ONCE: Duration = Duration::from_secs(4);

const SERVER: &str = "
import errno, socket, sys
s = socket.create_server(('', 7000), backlog=100)
print('ready', flush=True)
open_ones = [s.accept()[0] for _ in range(int(sys.argv[1]))]
print('accepted', flush=True)
sys.stdin.readline()
for c in open_ones:
    try:
        while c.recv(1 << 20): pass
        print('an end')
    except OSError as error: print(errno.errorcode[error.errno])
";

const CLIENT: &str = "
import errno, os, socket, sys, threading, time
def connect(address):
    for _ in range(600):
        try: return socket.create_connection(address)
        except OSError: time.sleep(0.1)
written, results = [0], []
def fill(name, call):
    try:
        while True: written[0] += call()
    except OSError as error: results.append(f'{name}: {errno.errorcode[error.errno]}')
def fill_all(name, call):
    try: call()
    except OSError as error: results.append(f'{name}: {errno.errorcode[error.errno]}')
block = bytes(1 << 16)
source = os.open(sys.argv[1], os.O_RDONLY)
def writers(address):
    s = [connect(address) for _ in range(7)]
    calls = [('write', lambda: os.write(s[0].fileno(), block)),
        ('writev', lambda: os.writev(s[1].fileno(), [block, block])),
        ('send', lambda: s[2].send(block)), ('sendmsg', lambda: s[3].sendmsg([block])),
        ('sendto', lambda: socket.socket.sendto(s[4], block, address)),
        ('sendfile', lambda: os.sendfile(s[5].fileno(), source, 0, 1 << 16))]
    threads = [threading.Thread(target=fill, args=call) for call in calls]
    # All at once; the socket has no timeout, so this is one wait after the other.
    whole = lambda: s[6].sendall(bytes(200_000_000))
    threads.append(threading.Thread(target=fill_all, args=('sendall', whole)))
    for thread in threads: thread.start()
    before, still = None, 0
    while still < 50:
        still = still + 1 if before == written[0] else 0
        before = written[0]
        time.sleep(0.01)
    begun = time.process_time()
    time.sleep(2)
    return threads, time.process_time() - begun, s
own = socket.create_server(('127.0.0.1', 0), backlog=100)
threads, kernels, s = writers(own.getsockname())
others = [own.accept()[0] for _ in s]
for c in others: c.close()
for thread in threads: thread.join()
results.clear()
threads, ours, s = writers(('10.77.0.2', 7000))
assert ours <= kernels + 0.2, (ours, kernels)
print('waiting', ours, kernels, flush=True)
for thread in threads: thread.join()
told = time.time()
begun = time.process_time()
time.sleep(2)
spent = time.process_time() - begun
assert spent <= kernels + 0.2, (spent, kernels)
with open(sys.argv[2], 'w') as file: file.write('\\n'.join(sorted(results)) + f'\\n{told}')
os.rename(sys.argv[2], sys.argv[2] + '.whole')
";

#[test]
fn who_waits_to_write_when_the_launcher_is_killed_is_told_at_once() {
    let test = "who_waits_to_write_when_the_launcher_is_killed_is_told_at_once";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let names = ["send", "sendall", "sendfile", "sendmsg", "sendto", "write", "writev"];
    let block = lab.path("block");
    fs::write(&block, [7; 1 << 16]).unwrap();
    let result = lab.path("result");
    let mut serving = lab.start("beta", &["python3", "-c", SERVER, &names.len().to_string()]);
    serving.wait_for_stdout("ready");
    let words = ["python3", "-c", CLIENT, block.to_str().unwrap(), result.to_str().unwrap()];
    let dialing = lab.start("alpha", &words);
    dialing.wait_for_stdout("waiting");
    let before = processor_time(dialing.id());
    thread::sleep(WATCHED);
    let used = processor_time(dialing.id()) - before;
    assert!(used < BUSY, "{used} s of the processor in {WATCHED:?}: {}", dialing.shown());
    vanish(Signal::KILL, dialing.id());
    let killed = Instant::now();
    let whole = wait_for_file(&result.with_extension("whole"));
    // The program has measured its processor time for two seconds afterwards.
    let took = killed.elapsed().saturating_sub(Duration::from_secs(2));
    let lines: Vec<_> = whole.lines().collect();
    assert_eq!(lines[..names.len()], names.map(|name| format!("{name}: ENETDOWN")));
    assert!(took < AT_ONCE, "{took:?}");
    // The killed node's machine sends the resets.
    serving.send(b"\n");
    assert_eq!(
        serving.finish().success().text(),
        format!("ready\naccepted\n{}", "ECONNRESET\n".repeat(names.len()))
    );
}

/// A launcher that is asked to end also ends the program, and its peer must not see a regular end.
#[test]
fn the_peer_of_who_waits_to_write_when_the_launcher_is_told_to_end_sees_a_reset() {
    let test = "the_peer_of_who_waits_to_write_when_the_launcher_is_told_to_end_sees_a_reset";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let mut serving = lab.start("beta", &["python3", "-c", SERVER, "1"]);
    serving.wait_for_stdout("ready");
    let client = "
import socket, time
for _ in range(600):
    try:
        s = socket.create_connection(('10.77.0.2', 7000))
        break
    except OSError: time.sleep(0.1)
print('waiting', flush=True)
s.sendall(bytes(200_000_000))";
    let dialing = lab.start("alpha", &["python3", "-c", client]);
    serving.wait_for_stdout("accepted");
    dialing.wait_for_stdout("waiting");
    thread::sleep(Duration::from_millis(500));
    signal(Signal::TERM, dialing.id());
    dialing.finish().failure(143, &["were not delivered"]);
    serving.send(b"\n");
    assert_eq!(serving.finish().success().text(), "ready\naccepted\nECONNRESET\n");
}

/// Returns a process's processor time in seconds: fields 14 and 15 of proc_pid_stat(5), in units of USER_HZ,
/// which is 100 on all machines.
fn processor_time(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>();
    ticks as f64 / 100.0
}
