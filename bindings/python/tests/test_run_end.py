"""The end of ``python -m peersock run`` after a peer has vanished to which data was sent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peersock import _launcher

from .conftest import Place

#: Accepts one connection and reads nothing of it.
DEAF = (
    "import socket, time\n"
    "server = socket.create_server(('::', 0), family=socket.AF_INET6); print(server.getsockname()[1], flush=True)\n"
    "connection, _ = server.accept(); time.sleep(1000)\n"
)


@pytest.fixture
def deaf(place: Place) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A member that accepts a connection, as a process whose node stops with it; its address and port."""
    command = [*place.run, place.write("deaf.py", DEAF)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        address = process.stderr.readline().removeprefix("address: ").strip()
        yield process, address, process.stdout.readline().strip()
        process.send_signal(signal.SIGCONT)
        process.terminate()


#: The launcher waits so long for a peer when it is asked to end (2 s), and what a loaded machine needs beside that.
SOON = 4
#: A second signal waits for nobody: it takes less than a first one would.
AT_ONCE = 1.5


@pytest.mark.parametrize("ends_itself", [False, True])
@pytest.mark.parametrize("signals", [1, 2])
def test_a_peer_that_vanished_holds_up_the_end_for_two_seconds_and_a_second_signal_for_none(
    place: Place, deaf: tuple[subprocess.Popen[str], str, str], signals: int, ends_itself: bool
) -> None:
    victim, address, port = deaf
    program = place.write(
        "program.py",
        "import os, socket, sys, time\n"
        "sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "print(os.getpid(), flush=True); sys.stdin.readline()\n"
        "sock.sendall(bytes(5000)); print('sent', flush=True)\n"
        f"time.sleep({0 if ends_itself else 1000})\n",
    )
    command, pipe = [*place.run, "--quiet", program, address, port], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        number = int(process.stdout.readline())
        victim.send_signal(signal.SIGSTOP)
        # None of its threads acknowledges anything any more.
        os.waitid(os.P_PID, victim.pid, os.WSTOPPED)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "sent\n"
        if ends_itself:
            wait_until_gone(number)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        if signals == 2:
            wait_until_gone(number)
            begun = time.monotonic()
            # Now it waits for the peer. Two signals that come before a busy process looks are one.
            while process.poll() is None and time.monotonic() - begun < 60:
                process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
        _, errors = process.communicate(timeout=60)
        took = time.monotonic() - begun
        assert took < (AT_ONCE if signals == 2 else SOON), took
        # It was no success, whatever the program says.
        assert process.returncode == (1 if ends_itself else -signal.SIGTERM)
        assert "not everything that was sent was confirmed" in errors


#: Accepts one connection, and reads 7 MB of it in seven seconds: earlier versions gave up after five.
SLOW = (
    "import socket, time\n"
    "server = socket.socket(socket.AF_INET6); server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)\n"
    "server.bind(('::', 0)); server.listen(); print(server.getsockname()[1], flush=True)\n"
    "connection, _ = server.accept(); count = 0\n"
    "while part := connection.recv(10486):\n"
    "    count += len(part)\n"
    "    time.sleep(.01)\n"
    "print(count, flush=True)\n"
)


def test_what_is_left_at_the_end_is_delivered_while_the_peer_takes_it(place: Place) -> None:
    program = place.write(
        "program.py",
        "import socket, sys\n"
        "sock = socket.socket(socket.AF_INET6); sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 20)\n"
        "sock.connect((sys.argv[1], int(sys.argv[2]))); sock.sendall(bytes(7 << 20))\n",
    )
    command, pipe = [*place.run, place.write("slow.py", SLOW)], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as slow:
        assert slow.stdout is not None and slow.stderr is not None
        address = slow.stderr.readline().removeprefix("address: ").strip()
        begun = time.monotonic()
        done = place.ask(*place.run, "--quiet", program, address, slow.stdout.readline().strip())
        assert (done.returncode, done.stderr) == (0, "")
        assert time.monotonic() - begun > 6
        assert slow.stdout.readline() == f"{7 << 20}\n"


#: The same command, where a signal is forgotten sooner.
FORGETFUL = "from peersock import __main__, _launcher; _launcher._RECENT = {}; __main__.main()"


#: A peer that answers nothing is waited for so long, seconds.
SILENT = 10


@pytest.mark.parametrize(
    ("before", "recent", "signals", "least"),
    [
        (signal.SIGTERM, 0.1, 0, SILENT),
        (signal.SIGTERM, 0.1, 1, _launcher._SHORT_LINGER),
        # Servers are told by it to read their files again.
        (signal.SIGHUP, _launcher._RECENT, 0, SILENT),
    ],
)
def test_a_signal_before_the_end_that_has_not_asked_for_it_shortens_nothing(
    place: Place,
    deaf: tuple[subprocess.Popen[str], str, str],
    before: signal.Signals,
    recent: float,
    signals: int,
    least: float,
) -> None:
    victim, address, port = deaf
    program = place.write(
        "program.py",
        "import os, signal, socket, sys\n"
        f"signal.signal({int(before)}, lambda number, frame: print('heard', flush=True))\n"
        "sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "print(os.getpid(), flush=True); sys.stdin.readline()\n"
        "sock.sendall(bytes(5000)); print('sent', flush=True)\n"
        "sys.stdin.readline()\n",
    )
    assert place.run[1:3] == ["-m", "peersock"]
    run, pipe = [sys.executable, "-c", FORGETFUL.format(recent), *place.run[3:]], subprocess.PIPE
    command = [*run, "--quiet", program, address, port]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        number = int(process.stdout.readline())
        victim.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, victim.pid, os.WSTOPPED)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "sent\n"
        process.send_signal(before)
        assert process.stdout.readline() == "heard\n"
        time.sleep(0.2)
        # Both of what is waited for begin later than this.
        begun = time.monotonic()
        process.stdin.write("\n")
        process.stdin.flush()
        wait_until_gone(number)
        if signals:
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert time.monotonic() - begun >= least
        assert process.returncode == 1


#: Starts a command that ignores a signal.
IGNORING = "import os, sys, signal as s; s.signal(int(sys.argv[1]), s.SIG_IGN); os.execv(sys.argv[2], sys.argv[2:])"


def test_a_signal_that_was_ignored_when_it_began_is_ignored(place: Place) -> None:
    program = place.write(
        "program.py",
        "import signal, sys\n"
        "print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)\n"
        "for number in (signal.SIGHUP, signal.SIGUSR1):\n"
        "    signal.signal(number, lambda number, frame: print(signal.Signals(number).name, flush=True))\n"
        "print('ready', flush=True); sys.stdin.readline()\n",
    )
    command, pipe = [sys.executable, "-c", IGNORING, str(int(signal.SIGHUP)), *place.run, program], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["True\n", "ready\n"]
        # If both were heeded, that with the smaller number would come first.
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "SIGUSR1\n"
        output, _ = process.communicate("\n", timeout=60)
        assert (output, process.returncode) == ("", 0)


def test_the_end_is_seen_where_the_ends_of_children_are_ignored(place: Place) -> None:
    program = place.write(
        "program.py",
        "import signal, sys\nprint(signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN)\nsys.exit(7)\n",
    )
    done = place.ask(sys.executable, "-c", IGNORING, str(int(signal.SIGCHLD)), *place.run, program)
    assert (done.stdout, done.returncode) == ("True\n", 7), done


def wait_until_gone(process: int) -> None:
    """Waits until the launcher has seen the end of its program."""
    while Path(f"/proc/{process}").exists():
        time.sleep(0.005)
