"""``python -m peersock run``: whole programs, and all that they start."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from itertools import product
from pathlib import Path

import pytest

import peersock

from .conftest import Network, Place

#: A program that reports if it reaches a member, and a server of the machine, by plain sockets.
ASK = textwrap.dedent(
    """\
    import socket, sys
    def ask(address, port):
        try:
            with socket.create_connection((address, int(port)), timeout=30) as sock: return sock.recv(100).decode()
        except OSError as error: return type(error).__name__
    """
)
REPORT = ASK + "print(ask(*sys.argv[1:3]), ask(*sys.argv[3:5]), flush=True)\n"

#: Ways to start another Python that runs `report.py` with the same arguments.
WAYS = {
    "itself": "import runpy; runpy.run_path(report, run_name='__main__')",
    "subprocess": "subprocess.run([sys.executable, report, *sys.argv[1:]], check=True)",
    "shell": "subprocess.run(' '.join([sys.executable, report, *sys.argv[1:]]), shell=True, check=True)",
    "exec": "os.execv(sys.executable, [sys.executable, report, *sys.argv[1:]])",
    "fork": "os.fork() or os.execv(sys.executable, [sys.executable, report, *sys.argv[1:]]); os.wait()",
    "spawn": "start('spawn')",
    "forkserver": "start('forkserver')",
    "daemon": (
        "os.fork() and os._exit(0); os.setsid(); time.sleep(0.5);"
        "os.execv(sys.executable, [sys.executable, report, *sys.argv[1:]])"
    ),
    # With an environment that has nothing of ours.
    "subprocess, env={}": "subprocess.run(words, check=True, env={})",
    "subprocess, env in bytes": "subprocess.run(words, check=True, env={b'LD_PRELOAD': b'', b'A': b'1'})",
    "subprocess, by position": "subprocess.Popen(words, -1, *[None] * 5, True, False, None, {}).wait()",
    "subprocess, posix_spawn": "subprocess.run(words, check=True, env={}, close_fds=False)",
    "shell, env={}": "subprocess.run(' '.join(words), shell=True, check=True, env={})",
    "asyncio, env={}": "asyncio.run(wait())",
    "execve": "os.execve(sys.executable, words, {})",
    "execvpe": "os.execvpe(sys.executable, words, {})",
    "execle": "os.execle(sys.executable, *words, {})",
    "posix_spawn": "os.waitpid(os.posix_spawn(sys.executable, words, {}), 0)",
    "posix_spawnp": "os.waitpid(os.posix_spawnp(sys.executable, words, {}), 0)",
    "spawnve": "os.spawnve(os.P_WAIT, sys.executable, words, {})",
    "subprocess, cleared": "os.environ.clear(); subprocess.run(words, check=True)",
    "system, cleared": "os.environ.clear(); os.system(' '.join(words))",
    "execv, cleared": "os.environ.clear(); os.execv(sys.executable, words)",
    "spawn, cleared": "os.environ.clear(); start('spawn')",
    "twice": (
        "code = f'import subprocess; subprocess.run({words!r}, env={{}})';"
        "subprocess.run([sys.executable, '-c', code], check=True, env={})"
    ),
}
STARTER = textwrap.dedent(
    """\
    import asyncio, multiprocessing, os, subprocess, sys, time
    report = os.path.join(os.path.dirname(__file__), "report.py")
    words = [sys.executable, report, *sys.argv[1:]]
    async def wait():
        process = await asyncio.create_subprocess_exec(*words, env={})
        await process.wait()
    def child(arguments):
        import runpy
        sys.argv[1:] = arguments
        runpy.run_path(report, run_name="__main__")
    def start(method):
        process = multiprocessing.get_context(method).Process(target=child, args=(sys.argv[1:],))
        process.start(); process.join(); assert process.exitcode == 0
    if __name__ == "__main__":
        WAY
    """
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place where programs are run and report what they reach."""
    place = Place(tmp_path)
    place.write("report.py", REPORT)
    return place


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_every_python_that_a_program_starts_is_on_the_overlay(
    place: Place, greeter: list[str], way: str, only: bool
) -> None:
    starter = place.write("starter.py", STARTER.replace("WAY", WAYS[way]))
    options = ["--only"] if only else []
    done = place.ask(*place.run, *options, starter, *greeter)
    machine = {"OSError", "ConnectionRefusedError", "PermissionError"} if only else {"machine"}
    assert done.stdout.split()[:1] == ["overlay"], done
    assert set(done.stdout.split()[1:]) <= machine and len(done.stdout.split()) == 2, done


def test_a_program_may_stand_on_the_command_line(place: Place, greeter: list[str]) -> None:
    code = ASK + "print(ask(*sys.argv[1:3]), __name__, sys.argv[0], sys.modules['__main__'].ask is ask)"
    done = place.ask(*place.run, "-c", code, *greeter)
    assert done.stdout.split() == ["overlay", "__main__", "-c", "True"], done
    # Options behind it are the program's own.
    done = place.ask(*place.run, "-c", "import sys; print(sys.argv)", "-q", "-m")
    assert done.stdout.strip() == "['-c', '-q', '-m']", done


def test_an_open_network_is_said_to_be_open(place: Place) -> None:
    open_, closed = place.ask(*place.run, "-c", ""), place.ask(*place.run, "-c", "", PEERSOCK_SECRET="correct horse")
    assert "is open: anybody who reaches this node can join it; --secret-file FILE" in open_.stderr, open_
    assert "is open" not in closed.stderr and closed.returncode == 0, closed


def test_what_cannot_be_put_on_the_overlay_reaches_nothing_with_only(place: Place, greeter: list[str]) -> None:
    busybox = shutil.which("busybox")
    if busybox is None or b"/ld-linux" in Path(busybox).read_bytes()[:4096]:
        pytest.skip("there is no busybox that is linked statically")
    way = f"subprocess.run([{busybox!r}, 'nc', *sys.argv[3:5]], stdin=subprocess.DEVNULL)"
    starter = place.write("starter.py", STARTER.replace("WAY", way))
    assert "machine" not in place.ask(*place.run, "--only", starter, *greeter).stdout
    assert place.ask(*place.run, starter, *greeter).stdout == "machine"


def test_programs_that_are_not_python_s_are_reached_by_the_preloaded_library(place: Place, greeter: list[str]) -> None:
    # Other versions of the program are of no concern.
    place.write("peersock", "#!/bin/sh\nexit 2\n")
    (place.folder / "peersock").chmod(0o755)
    path, cache = f"{place.folder}:{os.environ['PATH']}", str(place.folder / "cache")
    shell = "subprocess.run(['bash', '-c', f'cat < /dev/tcp/{sys.argv[1]}/{sys.argv[2]}'], check=True)"
    cleared = shell.replace("check=True", "check=True, env={'PATH': os.environ['PATH']}")
    twice = cleared.replace("'-c', f'", "'-c', f'exec env -i $(command -v bash) -c \"").replace("}'],", "}\"'],")
    # A Python that looks at no variable.
    isolated = "subprocess.run([sys.executable, '-I', '-S', report, *sys.argv[1:]], check=True)"
    for way, options in product((shell, cleared, twice, isolated, WAYS["subprocess"]), ([], ["--only"])):
        starter = place.write("starter.py", STARTER.replace("WAY", way))
        done = place.ask(*place.run, *options, starter, *greeter, PATH=path, XDG_CACHE_HOME=cache)
        assert done.stdout[:7] == "overlay", (way, done)
    assert [path.name.split("-")[0] for path in Path(cache, "peersock").iterdir()] == ["libpeersock_preload"]


RELOADING = {
    # As werkzeug's reloader: the whole command again.
    "command": "[sys.executable, *sys.orig_argv[1:]]",
    # As Django's: the script again.
    "script": "[sys.executable, *sys.argv]",
}


@pytest.mark.parametrize("how", RELOADING)
@pytest.mark.parametrize("identity", [[], ["--state", "state"]])
def test_a_program_that_starts_itself_again_keeps_its_address(place: Place, how: str, identity: list[str]) -> None:
    program = place.write(
        "program.py",
        "import os, subprocess, sys, socket\n"
        "if 'AGAIN' in os.environ:\n"
        "    from peersock import socket as overlay\n"
        "    server = socket.create_server(('::', 0), family=socket.AF_INET6)\n"
        "    assert overlay.socket is socket.socket and sys.argv[1:] == ['more']\n"
        "    own = subprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"PEERSOCK_NODE\"])'],\n"
        "                         capture_output=True, text=True).stdout.strip()\n"
        "    print(own == os.environ['AGAIN'])\n"
        "else:\n"
        "    for time in range(2):\n"
        "        env = {**os.environ, 'AGAIN': os.environ['PEERSOCK_NODE']}\n"
        f"        again = subprocess.run({RELOADING[how]}, env=env)\n"
        "        assert again.returncode == 0\n",
    )
    if identity:
        identity = ["--state", str(place.folder / "state")]
    done = place.ask(*place.run, *identity, program, "more")
    assert done.stdout == "True\nTrue\n", done
    assert done.stderr.count("address") == 1


def test_the_program_s_end_is_the_command_s(place: Place) -> None:
    for code, status in (
        ("raise SystemExit(7)", 7),
        ("", 0),
        ("raise ValueError", 1),
        ("import os; os._exit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
    ):
        done = place.ask(*place.run, place.write("program.py", code))
        assert done.returncode == status, (code, done)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_signals_go_to_the_program(place: Place, number: signal.Signals) -> None:
    # Python looks for signals between its instructions: one that comes as a sleep begins is handled after it.
    program = place.write(
        "program.py",
        "import signal, sys, time\n"
        "def stop(number, frame): print(number, flush=True); sys.exit(9)\n"
        f"signal.signal({int(number)}, stop); print('ready', flush=True)\n"
        "for _ in range(600): time.sleep(0.1)\n",
    )
    with subprocess.Popen([*place.run, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert (output, process.returncode) == (f"{int(number)}\n", 9)


def test_the_command_ends_when_the_last_process_has(place: Place) -> None:
    program = place.write(
        "program.py",
        "import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(1); print('daemon', flush=True)\n",
    )
    begun = time.monotonic()
    done = place.ask(*place.run, program)
    assert (done.stdout, done.returncode) == ("daemon\n", 0)
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-n", "zzz"], "'zzz' is neither"),
        (["-n", "/nowhere/network.toml"], "/nowhere/network.toml"),
        (["-n", "fe00000000000017"], "static"),
        (["-n", "ff0001ffff000000", "--interface", "eth99"], "eth99"),
        (["-n", "ff0001ffff000000", "--secret-file", "/nowhere"], "/nowhere: No such file"),
        (["-n", "ff0001ffff000000", "--only", "--bind", "both"], "only"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(place: Place, arguments: list[str], says: str) -> None:
    done = place.ask(sys.executable, "-m", "peersock", "run", *arguments, place.write("program.py", "print('ran')"))
    assert done.returncode == 1, done
    assert done.stdout == "" and says in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_no_secret_takes_the_place_of_a_static_networks_own(place: Place, tmp_path: Path) -> None:
    path = str(Network(tmp_path).path)
    command = [sys.executable, "-m", "peersock", "run", "-n", path, "--interface", "lo"]
    program = place.write("program.py", "print('ran')")
    done = place.ask(*command, program, PEERSOCK_SECRET="horse")
    assert "PEERSOCK_SECRET is not used" in done.stderr, done.stderr
    done = place.ask(*command, "--secret-file", place.write("secret", "horse"), program)
    assert (done.returncode, done.stdout) == (1, "") and "its own file" in done.stderr, done.stderr


def test_secrets_that_others_can_read_are_refused(place: Place) -> None:
    secret = place.write("secret", "horse")
    os.chmod(secret, 0o644)
    done = place.ask(*place.run, "--secret-file", secret, place.write("program.py", "print('ran')"))
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "mode 0644" in done.stderr and f"chmod 600 {secret}" in done.stderr, done.stderr


SESSION = textwrap.dedent(
    """\
    import sys, peersock
    def attempt(network, secret):
        try:
            with peersock.Session(network, secret=secret, interfaces="loopback") as session:
                print(session.status()["networks"][0]["secret"], flush=True)
        except ValueError as error: print(error, flush=True)
    for secret in sys.argv[2:]: attempt(sys.argv[1], secret or None)
    """
)


@pytest.mark.parametrize("by_program", [False, True])
def test_a_session_with_a_secret_and_a_launcher_without_one_do_not_mix(place: Place, by_program: bool) -> None:
    run, inside = place.run, [place.write("session.py", SESSION), place.network]
    if by_program:
        program = os.environ.get("PEERSOCK_TEST_PROGRAM")
        if program is None:
            pytest.skip("PEERSOCK_TEST_PROGRAM does not name the program peersock")
        run = [program, "run", "-n", place.network, "--interface", "lo", "--ephemeral"]
        inside = ["--", sys.executable, *inside]
    done = place.ask(*run, *inside, "horse", "")
    assert done.returncode == 0, done
    refused, open_one = done.stdout.splitlines()
    assert "without a secret, and this program joins it with one" in refused and "--secret-file" in refused, refused
    assert (place.network in refused, open_one) == (True, "False")
    done = place.ask(*run, "--secret-file", place.write("secret", "horse"), *inside, "", "horse")
    assert done.returncode == 0, done
    refused, secret = done.stdout.splitlines()
    assert "with a secret, and this program joins it without one" in refused, refused
    assert secret == "True"


def test_a_root_may_begin_with_a_dash(place: Place) -> None:
    root = "-WEt2nothing@127.0.0.1:7420"
    program = place.write("program.py", "import sys\nprint(sys.argv[1:])\n")
    # It is taken for a root, and so the error is that of a root's key.
    done = place.ask(*place.run, "--root", root, program)
    assert done.returncode == 1 and "expected one argument" not in done.stderr, done.stderr
    # The program's own arguments stay as they are.
    done = place.ask(*place.run, "--quiet", program, "--root", "-x")
    assert done.stdout == "['--root', '-x']\n", done


@pytest.mark.parametrize(
    ("program", "status", "says"),
    [
        (["nosuch.py"], 2, "peersock: can't open file 'nosuch.py': No such file or directory\n"),
        (["-m", "no_such_module"], 1, "peersock: No module named no_such_module\n"),
        (["-m", "no_such_package.module"], 1, "peersock: No module named no_such_package.module\n"),
    ],
)
def test_a_program_that_is_not_there_ends_as_with_python(
    place: Place, program: list[str], status: int, says: str
) -> None:
    done = place.ask(*place.run, "--quiet", *program)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", says)


def test_ports_that_are_not_allowed_are_named_with_those_that_are(place: Place) -> None:
    last = random.randrange(5100, 6000)
    network = f"ff{5000:04x}{last:04x}000000"
    listen = (
        "for host, family in (('', socket.AF_INET), ('::', socket.AF_INET6)):\n"
        "    try: socket.create_server((host, 80), family=family); print('listens')\n"
        "    except PermissionError as error: print(error)\n"
        "socket.create_server(('', 5000)).close()\n"
    )
    # In the program itself, and in what it starts.
    program = place.write(
        "program.py",
        f"import os, socket, subprocess, sys\n{listen}"
        "if len(sys.argv) == 1: sys.exit(subprocess.call([sys.executable, __file__, 'child']))\n",
    )
    done = place.ask(sys.executable, "-m", "peersock", "run", "-n", network, "--interface", "lo", program)
    says = f"port 80 is not allowed: network {network} allows ports 5000 to {last}"
    assert done.returncode == 0 and done.stdout.count(says) == 4 and "listens" not in done.stdout, done


def test_another_sitecustomize_still_runs(place: Place) -> None:
    folder = place.folder / "path"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys; sys.was_customized = __name__\n")
    program = place.write(
        "program.py",
        "import subprocess, sys\n"
        "code = 'import sys, socket; print(sys.was_customized, socket.socket.__module__)'\n"
        "subprocess.run([sys.executable, '-c', code])\n",
    )
    done = place.ask(*place.run, program, PYTHONPATH=str(folder))
    assert done.stdout == "sitecustomize peersock.socket\n", done


def test_the_library_is_not_installed_in_programs_of_others() -> None:
    code = "import os; os.environ.pop('PEERSOCK_RUN', None); import socket; print(socket.socket.__module__)"
    folder = str(Path(peersock.__file__).parent / "_child")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": folder}
    )
    assert done.stdout == "socket\n", done.stderr


#: As the package ifaddr asks for the machine's interfaces.
BY_CTYPES = textwrap.dedent(
    """\
    import ctypes, ctypes.util, subprocess, sys

    class IfAddrs(ctypes.Structure): pass
    IfAddrs._fields_ = [("next", ctypes.POINTER(IfAddrs)), ("name", ctypes.c_char_p)]

    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    first = ctypes.POINTER(IfAddrs)()
    assert libc.getifaddrs(ctypes.byref(first)) == 0
    names, entry = [], first
    while entry:
        names.append(entry[0].name.decode())
        entry = entry[0].next
    libc.freeifaddrs(first)
    print(next(name for name in names if name.startswith("ps")))
    name = ctypes.create_string_buffer(16)
    libc["if_indextoname"](libc.if_nametoindex(b"ps1"), name)
    print(name.value.decode())
    if len(sys.argv) == 1:
        child = subprocess.run([sys.executable, __file__, "child"], check=True, capture_output=True, text=True)
        print(child.stdout.split()[0])
        print(libc.strlen(b"four") == 4)
    """
)


def test_what_calls_the_c_library_by_ctypes_sees_the_networks(place: Place) -> None:
    program = place.write("program.py", BY_CTYPES)
    done = place.ask(*place.run, program)
    assert done.stdout.split() == ["ps1", "ps1", "ps1", "True"], done.stderr
