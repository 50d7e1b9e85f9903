//! Programs that the library cannot reach, started by a program of `peersock run` that has it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::fs::XattrFlags;

use crate::common::{run, write_file};
use crate::lab::{ALPHA, Lab, is_root};

/// Program whose greeting a client reads.
const GREETER: &str = "import socket
listener = socket.create_server(('10.77.0.1', 7000))
while True:
    client, _ = listener.accept()
    client.sendall(b'overlay')
    client.close()
";

/// A file's capabilities (VFS_CAP_REVISION_2): CAP_NET_RAW, permitted and effective, as on Debian's `ping`.
const NET_RAW: [u32; 5] = [0x0200_0001, 1 << 13, 0, 0, 0];

#[test]
fn a_32_bit_program_is_not_started_and_the_reason_is_said() {
    let test = "a_32_bit_program_is_not_started_and_the_reason_is_said";
    let Some(lab) = Lab::with(test, &["bash", "env", "python3"]) else { return };
    let program = lab.path("program");
    write_file(&program, "\x7fELF\x01\x01\x01", 0o755);
    let script = lab.path("script");
    write_file(&script, &format!("#!{}\n", program.display()), 0o755);
    let by_python = "import os, sys\ntry: os.waitpid(os.posix_spawn(sys.argv[1], ['x'], {}), 0)\n\
                     except PermissionError: sys.exit(126)";
    let path = format!("PATH={}:$PATH", lab.folder());
    for options in [&[][..], &["--only"], &["--mode", "preload"], &["--no-filter"]] {
        for file in [&program, &script] {
            let file = file.to_str().expect("a path");
            let ways: [&[&str]; 4] = [
                &["bash", "-c", "exec \"$0\"", file],
                &["bash", "-c", &format!("{path} exec \"${{0##*/}}\""), file],
                &["env", file],
                &["python3", "-c", by_python, file],
            ];
            for way in ways {
                run(lab.command("beta", options, way))
                    .failure(126, &["32-bit program", "use a 64-bit build"]);
            }
        }
    }
    // The kernel handles a program that may not be executed.
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).expect("its owner may");
    let refused = run(lab.command("beta", &[], &["env".as_ref(), program.as_os_str()]));
    refused.failure(126, &["Permission denied"]);
    assert!(!refused.stderr.contains("32-bit"), "{}", refused.stderr);
}

#[test]
fn programs_with_capabilities_in_their_files_are_on_the_overlay() {
    let test = "programs_with_capabilities_in_their_files_are_on_the_overlay";
    let Some(lab) = Lab::with(test, &["bash", "cat", "cp", "ping", "python3", "chown"]) else { return };
    if !is_root() {
        return eprintln!("SKIP {test}: only root can give files capabilities");
    }
    let capabilities: Vec<u8> = NET_RAW.iter().flat_map(|number| number.to_le_bytes()).collect();
    for (name, file) in [("bash", "shell"), ("ping", "pinger")] {
        let mut cp = Command::new("bash");
        cp.args(["-c", &format!("cp -L \"$(command -v {name})\" {file}")]).current_dir(lab.folder());
        run(cp).success();
        let file = lab.path(file);
        let set = rustix::fs::setxattr(&file, "security.capability", &capabilities, XattrFlags::empty());
        if let Err(error) = set {
            return eprintln!("SKIP {test}: the file system of temporary files has no capabilities: {error}");
        }
    }
    let mut chown = Command::new("chown");
    chown.args(["-R", "65534"]).arg(lab.path("beta"));
    run(chown).success();
    let greeter = lab.write("greeter.py", GREETER);
    let _greeter = lab.start("alpha", &["python3", &greeter]);
    let as_nobody = |options: &[&str], program: &[&str]| {
        let mut command = crate::rules::as_nobody(&lab);
        command.args(["run", "--quiet", "--interface", "lo", "--state"]).arg(lab.path("beta"));
        command.arg("--network").arg(lab.path("network.toml")).args(options).arg("--").args(program);
        command.env("HOME", "/nonexistent").env_remove("XDG_CACHE_HOME").current_dir(lab.folder());
        run(command)
    };
    let greet = format!(
        "until (exec 3<>/dev/tcp/{ALPHA}/7000) 2>/dev/null; do sleep 0.05; [ $SECONDS -lt 50 ] || exit 99; done; \
                         cat < /dev/tcp/{ALPHA}/7000"
    );
    let by_shell = format!("./shell -c '{greet}'");
    for program in [&["./shell", "-c", &greet][..], &["bash", "-c", &by_shell]] {
        assert_eq!(as_nobody(&[], program).success().text(), "overlay", "{program:?}");
    }
    let ping = "./pinger -c 2 -i 0.2 -w 50 10.77.0.1 | grep -o '2 received'";
    assert_eq!(as_nobody(&[], &["bash", "-c", ping]).success().text(), "2 received\n");
    // In this mode the program's calls are not intercepted.
    as_nobody(&["--mode", "preload"], &["./shell", "-c", "true"])
        .failure(1, &["capabilities", "a copy of it"]);
    assert_eq!(as_nobody(&["--only"], &["./shell", "-c", &greet]).success().text(), "overlay");
}
