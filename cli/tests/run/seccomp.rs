//! Programs into which no library is loaded: `--mode seccomp`, and automatic interception of static programs.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use peersock_run_library::Library;
use rustix::process::{Signal, Uid};

use crate::common::{Running, run, signal};
use crate::lab::{ECHO, Lab, is_root};

#[test]
fn sockets_without_the_library_are_what_programs_expect() {
    let test = "sockets_without_the_library_are_what_programs_expect";
    let Some(lab) = Lab::with(test, &["cc", "socat", "python3"]) else { return };
    let (alone, linked) = (compile(&lab, "calls", &["-static"]), compile(&lab, "calls", &[]));
    let _echo = lab.start("alpha", &["sh", "-c", ECHO]);
    lab.bash("beta", "up 7000");
    for (program, mode) in [(&alone, "auto"), (&alone, "seccomp"), (&linked, "seccomp")] {
        let program = [program.to_str().unwrap(), "10.77.0.1", "7000", "7999"];
        for options in [&["--mode", mode][..], &["--mode", mode, "--only"]] {
            let got = run(lab.command("beta", options, &program)).success();
            assert_eq!(got.text(), "all well\n", "{program:?} {options:?}");
        }
    }
    let server = lab.start("gamma", &[&alone]);
    let said = server.wait_for_stdout("\n");
    let port = said.trim().strip_prefix("port ").unwrap();
    assert_eq!(lab.bash("beta", &format!("head -n 1 < /dev/tcp/10.77.0.3/{port}")).text(), "accepted\n");
    server.finish().success();
}

/// Go's servers query the port of each socket that they bind.
#[test]
fn a_udp_server_at_any_port_is_reached_once_it_has_asked_which() {
    let test = "a_udp_server_at_any_port_is_reached_once_it_has_asked_which";
    let Some(lab) = Lab::with(test, &["cc", "python3"]) else { return };
    let (alone, linked) = (compile(&lab, "any_port", &["-static"]), compile(&lab, "any_port", &[]));
    let client = lab.write(
        "client.py",
        "import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.sendto(b'hi', (sys.argv[1], int(sys.argv[2])))
print(s.recv(10))
",
    );
    for (program, mode) in [(&alone, "auto"), (&linked, "auto"), (&linked, "seccomp")] {
        for (family, address) in [("4", "10.77.0.1"), ("6", "fd77::1")] {
            let program = [program.to_str().unwrap(), family];
            let server = Running::start(lab.command("alpha", &["--mode", mode], &program));
            let said = server.wait_for_stdout("\n");
            let port = said.trim().strip_prefix("port ").unwrap();
            let got = run(lab.command("beta", &[], &["python3", &client, address, port])).success();
            assert_eq!(got.text(), "b'hi'\n", "{program:?} {mode}");
            server.finish().success();
        }
    }
}

#[test]
fn calls_that_wait_hold_up_nobody_and_are_interrupted() {
    let test = "calls_that_wait_hold_up_nobody_and_are_interrupted";
    let Some(lab) = Lab::with(test, &["cc"]) else { return };
    let program = compile(&lab, "waits", &["-static", "-pthread"]);
    let program = program.to_str().unwrap();
    let _server = lab.start("alpha", &[program, "serve", "10.77.0.1", "7000"]);
    lab.bash("beta", "up 7000");
    for how in ["ask", "threads", "signals", "closed", "refused", "full"] {
        let got = run(lab.command("beta", &[], &[program, how, "10.77.0.1", "7000"])).success();
        assert_eq!(got.text(), "all well\n", "{how}");
    }
}

#[test]
fn a_process_that_is_killed_while_it_waits_leaves_its_port_to_the_next() {
    let test = "a_process_that_is_killed_while_it_waits_leaves_its_port_to_the_next";
    let Some(lab) = Lab::with(test, &["cc"]) else { return };
    let program = compile(&lab, "waits", &["-static"]);
    let program = program.to_str().unwrap();
    let server = lab.start("alpha", &[program, "again", "10.77.0.1", "7000"]);
    server.wait_for_stdout("again");
    let got = run(lab.command("beta", &[], &[program, "ask", "10.77.0.1", "7000"])).success();
    assert_eq!(got.text(), "all well\n");
}

#[test]
fn static_and_dynamic_programs_start_each_other() {
    let test = "static_and_dynamic_programs_start_each_other";
    let Some(lab) = Lab::with(test, &["busybox", "curl", "python3", "sh"]) else { return };
    lab.write("file", "content\n");
    let _server = lab.start("alpha", &["busybox", "httpd", "-f", "-p", "8080", "-h", lab.folder()]);
    let _other = lab.start("gamma", &["python3", "-m", "http.server", "--directory", lab.folder(), "8080"]);
    lab.bash("beta", "up 8080; up 8080 10.77.0.3");
    // Children of a static shell have the library, and so resolve members' names.
    let both = "busybox wget -q -O - http://10.77.0.1:8080/file; curl -sSf http://gamma:8080/file
         busybox sh -c 'curl -sSf http://alpha:8080/file; busybox wget -q -O - http://10.77.0.3:8080/file'";
    for options in [&[][..], &["--only"]] {
        let got = run(lab.command("beta", options, &["busybox", "sh", "-e", "-c", both])).success();
        assert_eq!(got.text(), "content\n".repeat(4), "{options:?}");
    }
    let by_address = both.replace("gamma", "10.77.0.3").replace("alpha", "10.77.0.1");
    for options in [&["--mode", "seccomp"][..], &["--mode", "seccomp", "--only"]] {
        let got = run(lab.command("beta", options, &["sh", "-e", "-c", &by_address])).success();
        assert_eq!(got.text(), "content\n".repeat(4), "{options:?}");
        let cleared = "env -i $(command -v curl) -sSf http://10.77.0.1:8080/file";
        let got = run(lab.command("beta", options, &["sh", "-e", "-c", cleared])).success();
        assert_eq!(got.text(), "content\n", "{options:?}");
    }
}

#[test]
fn static_programs_that_a_dynamic_one_starts_are_on_the_overlay() {
    let test = "static_programs_that_a_dynamic_one_starts_are_on_the_overlay";
    let Some(lab) = Lab::with(test, &["busybox", "python3", "sh", "env"]) else { return };
    lab.write("file", "content\n");
    let _server = lab.start("alpha", &["busybox", "httpd", "-f", "-p", "8080", "-h", lab.folder()]);
    lab.bash("beta", "up 8080");
    let busybox = run({
        let mut which = Command::new("sh");
        which.args(["-c", "command -v busybox"]);
        which
    });
    let busybox = busybox.success().text().trim().to_owned();
    let wget = "wget -q -O - http://10.77.0.1:8080/file";
    lab.write("script", &format!("#!{busybox} sh\n{wget}\n"));
    let plain = lab.path("plain");
    std::fs::write(&plain, std::fs::read(&busybox).unwrap()).unwrap();
    let plain = plain.display();
    let start = format!(
        "import os, subprocess
words = ['busybox'] + '{wget}'.split()
subprocess.run(words, check=True)
os.waitpid(os.posix_spawnp('busybox', words, os.environ), 0)
os.waitpid(os.posix_spawn('{busybox}', words, os.environ), 0)
os.chdir(os.path.dirname('{busybox}'))
os.waitpid(os.posix_spawn('busybox', words, dict(os.environ, PATH='/nowhere')), 0)
for start in os.posix_spawn, os.execve:
    try: start('{plain}', words, os.environ)
    except PermissionError: pass
    else: print('a file that may not be executed was started')
file = os.open('{busybox}', os.O_RDONLY)
if os.fork() == 0: os.execve(file, words, os.environ)
os.wait()
os.execvp('busybox', words)
"
    );
    let shell =
        format!("busybox {wget}; sh ./script; chmod +x script; ./script; env -i {busybox} {wget}; true");
    let cases = [
        (vec!["sh", "-e", "-c", &shell], 4),
        // Executes in the program's own place.
        (vec!["sh", "-c", &shell[..shell.find(';').unwrap()]], 1),
        (vec!["python3", "-c", &start], 6),
    ];
    for (program, times) in cases {
        let got = run(lab.command("beta", &[], &program)).success();
        assert_eq!(got.text(), "content\n".repeat(times), "{program:?}");
    }
    // Without interception, programs are started with their original arguments.
    let named =
        format!("import os; os.waitpid(os.posix_spawn('{busybox}', ['echo', 'content'], os.environ), 0)");
    for options in [&["--only"][..], &["--no-filter"], &["--mode", "preload"]] {
        let got = run(lab.command("beta", options, &["python3", "-c", &named])).success();
        assert_eq!(got.text(), "content\n", "{options:?}");
    }
    // Children of such a program have the library again, and resolve members' names.
    let back =
        "busybox sh -c 'python3 -c \"import socket; print(socket.gethostbyname(\\\"alpha\\\"))\"'; true";
    assert_eq!(run(lab.command("beta", &[], &["sh", "-c", back])).success().text(), "10.77.0.1\n");
}

/// A process whose calls are already supervised cannot get a second filter of this kind, as in containers.
#[test]
fn where_no_filter_is_to_be_had_the_launcher_says_so_at_its_start() {
    let test = "where_no_filter_is_to_be_had_the_launcher_says_so_at_its_start";
    let Some(lab) = Lab::with(test, &["true"]) else { return };
    let line = "that this one starts may fail to start, or use the system's network";
    let run_within = |options: &[&str], is_said: bool| {
        let inner = lab.command("beta", options, &["true"]);
        let words: Vec<_> = std::iter::once(inner.get_program()).chain(inner.get_args()).collect();
        let finished = run(lab.command("alpha", &["--mode", "seccomp"], &words)).success();
        assert_eq!(finished.stderr.contains(line), is_said, "{options:?}: {}", finished.stderr);
    };
    run_within(&[], true);
    run_within(&["--mode", "preload"], false);
    let outside = run(lab.command("beta", &[], &["true"])).success();
    assert!(!outside.stderr.contains(line), "{}", outside.stderr);
}

#[test]
fn another_user_who_has_the_launchers_name_is_not_taken_for_it() {
    let test = "another_user_who_has_the_launchers_name_is_not_taken_for_it";
    let Some(_lab) = Lab::with(test, &["busybox", "sh"]) else { return };
    if !is_root() {
        return eprintln!("SKIP {test}: only root can be another user");
    }
    let library = Library::provide().unwrap();
    // The tag belongs to a launcher that has ended, or to another one that starts.
    let tag = std::process::id();
    let start = || {
        let mut command = Command::new("sh");
        command.args(["-c", "exec busybox echo started"]).env("LD_PRELOAD", library.path());
        command.env("PEERSOCK_NODE", format!("{tag:x}:1")).env("PEERSOCK_RULES", "admits");
        run(command)
    };
    assert_eq!(start().success().text(), "started\n");
    let taken = thread::spawn(move || {
        let nobody = Uid::from_raw(65534);
        // The kernel changes the user of this thread only.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let name = SocketAddr::from_abstract_name(format!("ps/{tag:08x}/exec")).unwrap();
        UnixListener::bind_addr(&name).unwrap()
    });
    let taken = taken.join().unwrap();
    let refused = start();
    assert!(!refused.status.success());
    assert_eq!(refused.text(), "", "the program was started without a launcher");
    drop(taken);
    assert_eq!(start().success().text(), "started\n");
}

#[test]
fn other_addresses_are_the_systems_and_the_launcher_ends_as_the_program() {
    let test = "other_addresses_are_the_systems_and_the_launcher_ends_as_the_program";
    let Some(lab) = Lab::with(test, &["busybox"]) else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        use std::io::Write as _;
        for connection in listener.incoming() {
            let _ = connection.unwrap().write_all(b"system\n");
        }
    });
    let script = format!("busybox nc 127.0.0.1 {port} < /dev/null; exit 9");
    let finished = run(lab.command("beta", &[], &["busybox", "sh", "-c", &script]));
    finished.failure(9, &[]);
    assert_eq!(finished.text(), "system\n");
    let only = run(lab.command("beta", &["--only"], &["busybox", "sh", "-c", &script]));
    assert_eq!((only.status.code(), only.text()), (Some(9), ""));
    let script = "trap 'kill $!; exit 5' TERM; (echo ready; exec busybox sleep 600) & wait";
    let running = lab.start("beta", &["busybox", "sh", "-c", script]);
    running.wait_for_stdout("ready");
    signal(Signal::TERM, running.id());
    let finished = running.finish();
    assert_eq!(finished.status.code(), Some(5));
}

fn compile(lab: &Lab, name: &str, options: &[&str]) -> PathBuf {
    let program = lab.path(&format!("{name}{}", options.concat()));
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-DBY_KERNEL=1"]).args(options).arg("-o").arg(&program);
    cc.arg(format!("{}/tests/run/{name}.c", env!("CARGO_MANIFEST_DIR")));
    run(cc).success();
    program
}
