//! Scripts that run the README's commands.

/// One or more commands that belong together.
pub(super) struct Try {
    pub(super) name: &'static str,
    /// Beginning of each command. The script gets the commands in this order.
    pub(super) commands: &'static [&'static str],
    /// Programs without which the entry is skipped.
    pub(super) needs: &'static [&'static str],
    /// True if it builds something and so may need the Internet. All other entries run with only the loopback
    /// interface.
    pub(super) builds: bool,
    /// A bash script. It fails with any status but 0 and 77. Status 77 skips it, with its last line as the
    /// reason.
    pub(super) script: &'static str,
}

/// The entries in the order in which they run, because later ones may use what earlier ones install.
pub(super) const TRIES: &[Try] = &[
    Try {
        name: "demo",
        commands: &["cargo run --release -- demo"],
        needs: &[],
        builds: true,
        // The recorded run prints the same lines, but for words with figures.
        script: r#"
            said=$PWD/said; cd "$ROOT"; eval "$1" | tee "$said"
            shape() { sed -E 's/<[^>]*>/ /g; s/[^ ]*[0-9][^ ]*//g; s/ +/ /g; s/^ | $//g'; }
            grep -qF ">$1<" docs/demo.svg
            diff <(grep '^<text class="label"' docs/demo.svg | shape) <(shape < "$said")"#,
    },
    Try {
        name: "install",
        commands: &["cargo install --locked --path cli"],
        needs: &[],
        builds: true,
        // Only the program is installed.
        script: "cd \"$ROOT\"; eval \"$1\"; [ \"$(ls \"$CARGO_INSTALL_ROOT/bin\")\" = peersock ]",
    },
    Try {
        name: "bench",
        commands: &["cargo xtask bench"],
        needs: &[],
        builds: true,
        // Check only that everything is measured. The figures of such a short run on a busy machine mean
        // nothing.
        script: r#"
            figures=$PWD/figures
            cd "$ROOT"
            eval "$1 --profile release --mode loopback --reps 1 --secs 0.2 --only limit,kernel,peersock --json $figures"
            grep -q '"machine"' "$figures"
            grep -q '"goodput_1_stream.peersock"' "$figures""#,
    },
    Try {
        name: "help",
        commands: &["peersock --help"],
        needs: &[],
        builds: false,
        // Read all output: with `grep -q` alone, the program may find its pipe closed before it has written
        // all.
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
        commands: &[
            "peersock root",
            "export PEERSOCK_SECRET=",
            "peersock listen --root",
            "peersock dial --root",
        ],
        needs: &["ip", "nsenter", "unshare"],
        builds: false,
        // Each laptop has a separate network, from which only the root's machine is reachable. So their
        // traffic goes through the root.
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
            eval "$2"
            on alpha "exec ${3/$said/$line}" > received 2> said &
            listener=$!
            address=$(said_address said)
            command=${4/$said/$line}
            echo hello | on beta "exec ${command/the address that listen printed/$address}"
            wait $listener
            [ "$(cat received)" = hello ]"#,
    },
    Try {
        name: "what a node and its network say",
        commands: &[
            "peersock netcheck",
            "peersock status",
            "peersock root",
            "peersock top",
            "peersock events",
            "peersock status --prometheus",
        ],
        needs: &[],
        builds: false,
        // Also test the names that the text mentions after `peersock --help`, and PEERSOCK_ROOTS in place of
        // --root.
        script: r#"
            network=ff0001ffff000000
            as() { XDG_STATE_HOME=$PWD/$1 "${@:2}"; }
            as root $3 --listen 127.0.0.1 > line 2> /dev/null &
            until line=$(head -n1 line | grep .); do patience; done
            export PEERSOCK_ROOTS=$line PEERSOCK_NETWORK=$network
            as alpha peersock listen 7000 > received 2> said &
            listener=$!
            address=$(said_address said)
            as alpha peersock id | grep .
            as alpha peersock addr | grep -F "$address"
            # Each of them says something about the root, under the variable that has named it.
            eval "$1" > found
            grep -F 127.0.0.1:7420 found
            until as alpha bash -c "$2" > status && grep -F 127.0.0.1:7420 status; do patience; done
            grep -F "$address" status
            as alpha bash -c "$4 --once" > table
            grep PEER table
            as alpha timeout --signal INT 3 bash -c "exec $5" > events 2> watching || :
            grep 'watching node' watching
            as alpha bash -c "$6" > numbers
            grep peersock_node_uptime_seconds numbers
            as alpha peersock members | grep -F "$address"
            asked() { peersock members --ephemeral > members 2> error; }
            until asked && grep -F "$address" members; do patience; done
            as beta peersock ping -v -c 1 "$address" > pinged 2> log
            grep -F "from $address" pinged
            grep . log
            echo hello | as beta peersock dial "[$address]:7000"
            wait $listener
            [ "$(cat received)" = hello ]"#,
    },
    Try {
        name: "files by a code",
        commands: &["peersock send", "peersock receive"],
        needs: &[],
        builds: false,
        script: r#"
            mkdir to photos; echo content > photos/sea.jpg; echo text > notes.txt
            (eval "$1") > code 2> said & sender=$!
            until code=$(head -n1 code | grep .); do patience; done
            (cd to; eval "${2/the code that send printed/$code}")
            wait $sender
            cmp photos/sea.jpg to/photos/sea.jpg; cmp notes.txt to/notes.txt"#,
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
            "peersock network new office.toml --name alpha",
            "peersock run -n office.toml -- python3",
            "peersock run -n office.toml -- curl",
        ],
        needs: &["curl", "python3"],
        builds: false,
        // The members keep their identities in folders of their names.
        script: r#"
            (export XDG_STATE_HOME=$PWD/alpha; eval "$1") > said
            key=$(XDG_STATE_HOME=$PWD/beta peersock id --key)
            peersock network add office.toml "$key" --name beta >> said
            mkdir www; echo served > www/index.html
            # What the command names is where it was made.
            cp office.toml www
            cd www
            XDG_STATE_HOME=$PWD/../alpha bash -c "exec $2" 2> ../requests &
            server=$!
            cd ..
            export XDG_STATE_HOME=$PWD/beta
            until (eval "${3/curl/curl -fsS}") > got 2> error; do patience; done
            kill $server
            [ "$(cat got)" = served ]"#,
    },
    Try {
        name: "proxy and forwards",
        commands: &[
            "peersock proxy -n office.toml",
            "curl --proxy socks5h://127.0.0.1:1080",
            "peersock forward -n office.toml overlay:8080",
            "peersock forward -n office.toml 8081",
        ],
        needs: &["curl", "nginx"],
        builds: false,
        // Alpha's web server uses a kernel port. The server, the proxy and the other forward are separate
        // members.
        script: r#"
            as() { XDG_STATE_HOME=$PWD/$1 bash -c "exec $2"; }
            (export XDG_STATE_HOME=$PWD/alpha; peersock network new office.toml --name alpha) > said
            for name in beta gamma; do
              key=$(XDG_STATE_HOME=$PWD/$name peersock id --key)
              peersock network add office.toml "$key" --name $name >> said
            done
            mkdir www; echo served > www/index.html
            cat > nginx.conf <<END
daemon off; user root; pid $PWD/nginx.pid; error_log $PWD/error.log;
events { }
http { access_log off; server { listen 127.0.0.1:8000; root $PWD/www; } }
END
            nginx -c $PWD/nginx.conf & web=$!
            as alpha "$3" > places & out=$!
            as beta "$1" > url & proxy=$!
            as gamma "$4" > ports & into=$!
            until grep -F 8080 places && grep -F 1080 url && grep -F 8081 ports; do patience; done
            until (eval "${2/curl/curl -fsS}") > got 2> error; do patience; done
            until curl -fsS http://127.0.0.1:8081/ > got2 2> error; do patience; done
            kill $web $out $proxy $into
            [ "$(cat got)" = served ]
            [ "$(cat got2)" = served ]"#,
    },
    Try {
        name: "a node by HTTP",
        commands: &["peersock rest -n office.toml", "curl -u"],
        needs: &["curl"],
        builds: false,
        // The state directory is where the README has it.
        script: r#"
            unset XDG_STATE_HOME
            export HOME=$PWD/home
            mkdir "$HOME"
            peersock network new office.toml --name alpha > said
            bash -c "exec $1" > url & server=$!
            until grep -F 12333 url; do patience; done
            eval "${2/curl/curl -fsS}" > got
            kill $server
            grep -F '"node_id"' got"#,
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
        commands: &["pip install ./bindings/python"],
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

/// Common prelude of the scripts.
pub(super) const PRELUDE: &str = r#"
set -eu -o pipefail
SECONDS=0
patience() { sleep 0.05; [ $SECONDS -lt 120 ] || { echo 'it takes too long' >&2; exit 1; }; }
said_address() {
  until sed -n 's/^.*listening on \[\([^]]*\)\].*/\1/p' "$1" 2>/dev/null | grep -m1 .; do patience; done
}
# The first program in a language, of the README or the page about C.
snippet() { awk -v fence="\`\`\`$1" '$0 == fence { on = 1; next } /^```/ { if (on) exit } on' "$ROOT/README.md" "$ROOT/docs/use/C.md"; }
"#;
