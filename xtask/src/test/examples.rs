//! The example programs: each is run as its first lines say, in a separate network.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::alone::Alone;
use super::command::{check as check_command, run, without_settings};
use super::outcome::Outcome;
use super::workspace::{self, Workspace};
use crate::{Result, cargo, root};

/// Examples that are tested together.
struct Scene {
    name: &'static str,
    /// Programs of `examples/` that the scene runs.
    examples: &'static [&'static str],
    /// A bash script whose search path has everything that is built.
    script: &'static str,
}

const SCENES: &[Scene] = &[
    Scene {
        name: "an echo server that blocks, and an asynchronous client",
        examples: &["echo_server", "echo_client_async"],
        script: r#"
            echo_server 2>server &
            [ "$(echo_client_async "[$(address server)]:7000" 2>&1)" = "hello, overlay" ]"#,
    },
    Scene {
        name: "an asynchronous echo server, and a client that blocks",
        examples: &["echo_server_async", "echo_client"],
        script: r#"
            echo_server_async 2>server &
            [ "$(echo_client "[$(address server)]:7000" 2>&1)" = "hello, overlay" ]"#,
    },
    Scene {
        name: "a file is sent",
        examples: &["file_transfer"],
        script: r#"
            head -c 3000000 /dev/urandom >sent
            file_transfer receive received 2>receiver &
            file_transfer send sent "[$(address receiver)]:7002"
            wait $!
            cmp sent received
            fails file_transfer 2>usage
            grep -q 'usage: file_transfer' usage"#,
    },
    Scene {
        name: "a web server",
        examples: &["http"],
        script: r#"
            http 2>server &
            # Who has finished sending gets no answer.
            touch answer
            (printf 'GET / HTTP/1.0\r\n\r\n'; until grep -q '^hello' answer; do sleep 0.05; done) |
              peersock dial --ephemeral -n ff1b581b62000000 "[$(address server)]:7003" >answer
            grep -q '^HTTP/1.0 200 OK' answer
            grep -q '^hello from the overlay, \[' answer"#,
    },
    Scene {
        name: "datagrams",
        examples: &["udp"],
        script: r#"
            udp 2>server &
            udp "[$(address server)]:7001" 2>&1 | grep '^you sent 16 bytes, \['"#,
    },
    Scene {
        name: "what NAT there is, where no server answers",
        examples: &["classify"],
        script: r#"
            classify 127.0.0.1 127.0.0.1:3478 | grep '"udp":false'
            fails classify"#,
    },
    Scene {
        name: "a port, where no router opens any",
        examples: &["portmap"],
        script: r#"
            fails portmap 127.0.0.1 127.0.0.1 7000 2>said
            grep -q '^Error: ' said"#,
    },
    Scene {
        name: "how fast the transports are, by one round",
        examples: &["goodput"],
        script: r#"
            goodput 1 | tee said
            [ "$(grep -c 'Gbit/s' said)" = 4 ]"#,
    },
];

/// The beginning of each script.
const PRELUDE: &str = r#"
set -eu -o pipefail
SECONDS=0
# A command with ! before it ends no script.
fails() { if "$@"; then exit 1; fi; }
address() {
  until sed -n 's/^[^[]*\[\([^]]*\)\]:.*/\1/p' "$1" | grep -m1 .; do
    [ $SECONDS -lt 100 ] || { echo 'it takes too long' >&2; exit 1; }
    sleep 0.05
  done
}
"#;

/// Folders of examples that are standalone programs.
const FOLDERS: [&str; 3] = ["examples", "reach/nat/examples", "reach/streams/examples"];

/// Builds and runs the examples.
/// Fails if a folder cannot be made or read, or cargo cannot be started.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let (built, _) = run(workspace::build())?;
    let mut outcome = Outcome::of("the example programs build", built);
    outcome.add(Outcome::of_complaints(without_a_scene()?));
    if built {
        let alone = Alone::new();
        for scene in SCENES {
            outcome.add(play(workspace, scene, alone.as_ref())?);
        }
    }
    // This example is outside the workspace, and tests itself.
    let mut grpc = cargo();
    grpc.args(["run", "--locked", "--manifest-path", "examples/grpc/Cargo.toml", "--target-dir"]);
    grpc.arg(&workspace.target);
    outcome.add(check_command("examples/grpc", grpc)?);
    Ok(outcome)
}

fn play(workspace: &Workspace, scene: &Scene, alone: Option<&Alone>) -> Result<Outcome> {
    let name = format!("examples: {}", scene.name);
    let Some(alone) = alone else { return Ok(Outcome::skipped(&name, Alone::WITHOUT)) };
    let folder = workspace.target.join("examples").join(scene.examples.join("-"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = ["debug/examples", "debug"].map(|part| workspace.target.join(part));
    let mut command = Command::new("timeout");
    command.arg("120");
    alone.wrap(&mut command);
    command.args(["bash", "-c"]).arg(format!("{PRELUDE}{}", scene.script)).current_dir(&folder);
    command.env("PATH", std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)))?);
    without_settings(&mut command);
    Ok(Outcome::of(name, run(command)?.0))
}

/// Returns examples that nothing runs. The examples of other folders are run by their packages' tests.
fn without_a_scene() -> Result<Vec<String>> {
    let known: BTreeSet<_> = SCENES.iter().flat_map(|scene| scene.examples).copied().collect();
    let mut complaints = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(root().join(folder))? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_some_and(|ending| ending == "rs") && !known.contains(name.as_str()) {
                complaints.push(format!("{folder}/{name}.rs: nothing runs this example"));
            }
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_run() {
        assert_eq!(without_a_scene().expect("folders"), Vec::<String>::new());
    }
}
