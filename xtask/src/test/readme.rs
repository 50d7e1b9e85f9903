//! The README's commands, run as they stand there.
//!
//! Every command is found in the README itself: the lines of its `sh` blocks, and what its text has in
//! backticks that begins with one of [`PROGRAMS`]. [`TRIES`] says how each is tried. A command that no entry
//! knows fails, as does an entry without a command. The scripts get the commands as arguments and `eval`
//! them; where the README writes a placeholder, a script puts in what stands for it.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::command::{run_for_status, works};
use super::outcome::Outcome;
use super::workspace::Workspace;
use crate::{Result, root};

/// With which a command begins.
const PROGRAMS: &[&str] = &["cargo", "cc", "curl", "export", "peersock", "pip", "python", "tar"];

/// One or more commands that belong together.
struct Try {
    name: &'static str,
    /// How each of the commands begins; the script gets them in this order.
    commands: &'static [&'static str],
    /// Programs without which it is skipped.
    needs: &'static [&'static str],
    /// Whether it builds something, for which it may need the Internet. All others run where there is only
    /// the loopback interface.
    builds: bool,
    /// A script of bash. It fails with any status but 0 and 77; 77 skips it, with its last line as the
    /// reason.
    script: &'static str,
}

/// Commands that are not run here, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("cargo xtask test", "this is it"),
    ("cargo xtask bench", "it measures, for minutes, and needs the machine for itself"),
];

/// What every script needs.
const BASICS: [&str; 2] = ["bash", "timeout"];

/// In the order in which they run: what one installs the next may use.
const TRIES: &[Try] = &[
    Try {
        name: "demo",
        commands: &["cargo run --release -- demo"],
        needs: &[],
        builds: true,
        script: "cd \"$ROOT\"; eval \"$1\"",
    },
    Try {
        name: "install",
        commands: &["cargo install --locked --path cli"],
        needs: &[],
        builds: true,
        // There is nothing else beside the program.
        script: "cd \"$ROOT\"; eval \"$1\"; [ \"$(ls \"$CARGO_INSTALL_ROOT/bin\")\" = peersock ]",
    },
    Try {
        name: "help",
        commands: &["peersock --help"],
        needs: &[],
        builds: false,
        // All is read: with `grep -q` alone, the program may find its pipe closed before it has written all.
        script: "eval \"$1\" > said; grep -q status said",
    },
    Try {
        name: "talk",
        commands: &["peersock listen --ephemeral", "peersock dial --ephemeral"],
        needs: &[],
        builds: false,
        script: r#"
            (eval "$1") > received 2> said &
            address=$(said_address said)
            echo hello | (eval "${2/the address that listen printed/$address}")
            wait $!
            [ "$(cat received)" = hello ]"#,
    },
    Try {
        name: "two laptops and a root",
        commands: &["peersock root", "peersock listen --root", "peersock dial --root"],
        needs: &["ip", "nsenter", "unshare"],
        builds: false,
        // Each laptop has a network of its own, from which only the root's machine is reached: what they say
        // to each other goes through the root.
        script: r#"
            laptop() {
              XDG_STATE_HOME=$PWD/$1 unshare --net sleep 300 & local pid=$!
              until [ "$(readlink /proc/$pid/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do patience; done
              ip link add "$1" type veth peer name eth0 netns $pid
              ip address add 10.$2.0.1/24 dev "$1"; ip link set "$1" up
              printf 'nsenter --target %s --net' $pid > $1.in
              $(cat $1.in) ip address add 10.$2.0.2/24 dev eth0
              $(cat $1.in) ip link set eth0 up
              $(cat $1.in) ip link set lo up
            }
            laptop alpha 1; laptop beta 2
            export XDG_STATE_HOME=$PWD/root
            (eval "$1") > line 2> /dev/null &
            until line=$(head -n1 line | grep .); do patience; done
            said='the line that root printed'
            on() { XDG_STATE_HOME=$PWD/$1 $(cat $1.in) bash -c "$2"; }
            on alpha "exec ${2/$said/$line}" > received 2> said &
            listener=$!
            address=$(said_address said)
            command=${3/$said/$line}
            echo hello | on beta "exec ${command/the address that listen printed/$address}"
            wait $listener
            [ "$(cat received)" = hello ]"#,
    },
    Try {
        name: "copy",
        commands: &["tar c . | peersock dial", "peersock listen … | tar x"],
        needs: &["tar"],
        builds: false,
        script: r#"
            options='--ephemeral -n ff0001ffff000000'
            mkdir from to; echo content > from/file
            (cd to; eval "${2/…/$options 7000 2> ../said}") &
            address=$(said_address said)
            (cd from; eval "${1/…/$options [$address]:7000}")
            wait $!
            cmp from/file to/file"#,
    },
    Try {
        name: "run",
        commands: &[
            "peersock network new office.toml",
            "peersock run -n office.toml -- nginx",
            "peersock run -n office.toml -- curl",
        ],
        needs: &["curl", "nginx"],
        builds: false,
        // The members keep their identities in folders of their names.
        script: r#"
            (export XDG_STATE_HOME=$PWD/alpha; eval "$1 --name alpha") > said
            key=$(XDG_STATE_HOME=$PWD/beta peersock id --key)
            peersock network add office.toml "$key" --name beta >> said
            mkdir programs www; echo served > www/index.html
            # The README's nginx is configured by the system, this one by us.
            cat > nginx.conf <<END
daemon off; user root; pid $PWD/nginx.pid; error_log $PWD/error.log;
events { }
http { access_log off; server { listen 8080; root $PWD/www; } }
END
            nginx=$(command -v nginx)
            printf '#!/bin/sh\nexec %s -c %s/nginx.conf "$@"\n' "$nginx" "$PWD" > programs/nginx
            chmod +x programs/nginx
            XDG_STATE_HOME=$PWD/alpha PATH=$PWD/programs:$PATH bash -c "exec $2" &
            server=$!
            export XDG_STATE_HOME=$PWD/beta
            until (eval "${3/curl/curl -fsS}") > got 2> error; do patience; done
            kill $server
            [ "$(cat got)" = served ]"#,
    },
    Try {
        name: "C",
        commands: &["cargo xtask install --prefix", "export PKG_CONFIG_PATH=", "cc program.c"],
        needs: &["cc", "pkg-config"],
        builds: true,
        script: r#"
            here=$PWD
            (cd "$ROOT"; eval "$1")
            eval "$2"
            snippet c > program.c
            eval "$3"
            mv a.out "$CARGO_INSTALL_ROOT/bin/program-in-c""#,
    },
    Try {
        name: "program in C",
        commands: &[],
        needs: &["cc", "pkg-config"],
        builds: false,
        script: r#"
            echo hello | peersock listen --ephemeral -n ff0001ffff000000 7000 2> said &
            address=$(said_address said)
            # Its node has the state directory that all programs have by default.
            [ "$(program-in-c "$address")" = hello ]"#,
    },
    Try {
        name: "Python",
        commands: &["pip install ./python"],
        needs: &["python3"],
        builds: true,
        script: r#"
            python3 -m venv "$HOME/venv" > /dev/null || { echo 'a virtual environment cannot be made (python3-venv)'; exit 77; }
            cd "$ROOT"
            eval "$1" || {
              # What builds it comes from PyPI. Where this small package comes from there, that has to come, too.
              ! pip download --quiet --no-cache-dir --no-deps --retries 0 --dest "$HOME/reached" iniconfig || exit 1
              echo 'PyPI cannot be reached'; exit 77
            }"#,
    },
    Try {
        name: "program in Python",
        commands: &["python -m peersock run -n ff0001ffff000000 -m http.server"],
        needs: &["python3", "curl"],
        builds: false,
        script: r#"
            "$HOME/venv/bin/python" -c 'import peersock' || { echo 'the package is not installed'; exit 77; }
            snippet python > program.py
            python -u program.py > said &
            until address=$(head -n1 said | grep .); do patience; done
            echo hello | peersock dial --ephemeral -n ff0001ffff000000 "[$address]:7000" > got
            wait $!
            [ "$(cat got)" = HELLO ]
            echo served > index.html
            (eval "$1") 2> said &
            server=$!
            until address=$(sed -n 's/^address: //p' said | grep .); do patience; done
            fetch() { peersock run --quiet --ephemeral -n ff0001ffff000000 -- curl -fsS "http://[$address]:8000/"; }
            until fetch > got 2> error; do patience; done
            kill $server
            [ "$(cat got)" = served ]"#,
    },
];

/// What the scripts have in common.
const PRELUDE: &str = r#"
set -eu -o pipefail
SECONDS=0
patience() { sleep 0.05; [ $SECONDS -lt 120 ] || { echo 'it takes too long' >&2; exit 1; }; }
said_address() {
  until sed -n 's/^.*listening on \[\([^]]*\)\].*/\1/p' "$1" 2>/dev/null | grep -m1 .; do patience; done
}
# The README's first program in a language.
snippet() { awk -v fence="\`\`\`$1" '$0 == fence { on = 1; next } /^```/ { if (on) exit } on' "$ROOT/README.md"; }
"#;

/// Tries all commands.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let found = commands(&fs::read_to_string(root().join("README.md"))?);
    let mut outcome = unknown(&found);
    let scratch = workspace.target.join("readme");
    let _ = fs::remove_dir_all(&scratch);
    for entry in TRIES {
        let name = format!("README: {}", entry.name);
        let matches: Vec<_> = entry.commands.iter().map(|start| begin_with(&found, start)).collect();
        if matches.iter().any(Vec::is_empty) {
            // Counted already.
            continue;
        }
        if let Some(missing) = BASICS.iter().chain(entry.needs).find(|program| !is_installed(program)) {
            outcome.add(Outcome::skipped(&name, format!("{missing} is not installed")));
            continue;
        }
        let arguments: Vec<&str> = matches.iter().map(|found| found[0].as_str()).collect();
        outcome.add(attempt(entry, &name, &arguments, &scratch)?);
    }
    if outcome.failed.is_empty() {
        let _ = fs::remove_dir_all(&scratch);
    }
    Ok(outcome)
}

fn attempt(entry: &Try, name: &str, arguments: &[&str], scratch: &Path) -> Result<Outcome> {
    let (place, home) = (scratch.join(entry.name.replace(' ', "-")), scratch.join("home"));
    fs::create_dir_all(&place)?;
    fs::create_dir_all(&home)?;
    let mut command = Command::new("timeout");
    command.arg(if entry.builds { "1200" } else { "300" });
    if !entry.builds {
        const ALONE: [&str; 6] = ["unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"];
        let mut probe = Command::new(ALONE[0]);
        probe.args(&ALONE[1..]).args(["ip", "link", "set", "lo", "up"]);
        if !works(probe) {
            return Ok(Outcome::skipped(name, "needs root and iproute2, for a network of its own"));
        }
        command.args(ALONE).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    }
    let script = home.join(entry.name);
    fs::write(&script, format!("{PRELUDE}{}", entry.script))?;
    command.arg("bash").arg(script).args(arguments);
    // Nothing of the user's is touched, and nothing of it helps.
    let path = env::var_os("PATH").unwrap_or_default();
    let own = [home.join("venv/bin"), scratch.join("installed/bin")];
    let system = ["/usr/sbin".into()];
    let path = env::join_paths(own.into_iter().chain(env::split_paths(&path)).chain(system))?;
    let real = env::home_dir().unwrap_or_default();
    for (variable, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        if env::var_os(variable).is_none() && real.join(folder).is_dir() {
            command.env(variable, real.join(folder));
        }
    }
    for variable in
        ["XDG_STATE_HOME", "XDG_CACHE_HOME", "PKG_CONFIG_PATH", "LD_LIBRARY_PATH", "PEERSOCK_SECRET"]
    {
        command.env_remove(variable);
    }
    command.env("CARGO_INSTALL_ROOT", scratch.join("installed")).env("PATH", path);
    command.env("HOME", &home).env("ROOT", root()).current_dir(&place);
    let (status, output) = run_for_status(command)?;
    Ok(match status.code() {
        Some(0) => Outcome::passed(),
        Some(77) => Outcome::skipped(name, output.lines().last().unwrap_or("no reason was given")),
        _ => Outcome::failed(name),
    })
}

/// The README's commands that no entry knows, and entries without a command.
fn unknown(found: &BTreeSet<String>) -> Outcome {
    let known = || {
        let tried = TRIES.iter().flat_map(|entry| entry.commands.iter().copied());
        tried.chain(ELSEWHERE.iter().map(|(start, _)| *start))
    };
    let mut outcome = Outcome::default();
    for command in found {
        outcome.add(match known().any(|start| command.starts_with(start)) {
            true => Outcome::passed(),
            false => Outcome::failed(format!("README: nobody knows how to try '{command}'")),
        });
    }
    for start in known().filter(|start| begin_with(found, start).is_empty()) {
        outcome.add(Outcome::failed(format!("README: it has no command '{start}'")));
    }
    outcome
}

fn begin_with<'a>(found: &'a BTreeSet<String>, start: &str) -> Vec<&'a String> {
    found.iter().filter(|command| command.starts_with(start)).collect()
}

/// All commands in a text of Markdown.
fn commands(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (number, part) in text.split("\n```").enumerate() {
        if number % 2 == 1 {
            let (language, block) = part.split_once('\n').unwrap_or((part, ""));
            if language == "sh" {
                let lines = block.lines().map(|line| line.split(" # ").next().unwrap_or(line));
                found.extend(lines.map(words).filter(|line| !line.is_empty() && !line.starts_with('#')));
            }
        } else {
            let prose = part.split_once('\n').map_or("", |(_, prose)| prose);
            let prose = if number == 0 { part } else { prose };
            found.extend(prose.split('`').skip(1).step_by(2).map(words).filter(|text| is_command(text)));
        }
    }
    found
}

/// In one line, with one space between words.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a text begins with a program, and has more after it than the name of a subcommand.
fn is_command(text: &str) -> bool {
    let Some((program, rest)) = text.split_once(' ') else { return false };
    PROGRAMS.contains(&program) && !rest.chars().all(char::is_alphanumeric)
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_blocks_and_in_the_text() {
        let text = "Try `cargo run -q` or `peersock
listen x`, not `peersock`, `peersock run` nor `TcpStream connect x`.

```sh
peersock  dial y   # as said

# nothing
tar c . | peersock dial
```

Then `tar -x`.

```c
int main(void) { `peersock no` }
```
";
        let wanted =
            ["cargo run -q", "peersock dial y", "peersock listen x", "tar -x", "tar c . | peersock dial"];
        assert_eq!(commands(text).into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn every_command_of_the_readme_is_known() {
        let text = fs::read_to_string(root().join("README.md")).expect("there is one");
        assert_eq!(unknown(&commands(&text)).failed, [""; 0]);
    }
}
