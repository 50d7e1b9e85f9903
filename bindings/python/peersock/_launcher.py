"""``python -m peersock run``: a node, and beside it the program in another process.

The program may start, replace and end its processes as it likes, with exec(2) too, because the node is in none of
them. The node ends when the last of them has ended. Their environment names the node, and has each process load the
library that `peersock run` preloads. Each Python begins with `_child/sitecustomize.py`. `_spawn` puts the variables
back where a program has left them out. The program's own process starts the same command again in its own place, so
that it loads the library, too.

The library takes the calls of the C library. When a process becomes a program that makes system calls itself, a static
one or one of Go, the library has it filtered (seccomp), and the launcher answers its socket calls.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from . import _foreign, _node, _peersock, _spawn
from .session import Session

#: Tells which `run` a process belongs to: the node's name, and what the command line said of it.
RUN = "PEERSOCK_RUN"
#: The process that starts its command again, now with the library.
_AGAIN = "PEERSOCK_AGAIN"
#: The rule by which the library has programs that it does not reach taken along.
_ADMITS = ",admits"

_FORWARDED = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
}
#: Those that ask for the end. By SIGHUP servers are told to read their files again.
_ASKING = {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
#: siginfo_t.si_code of a signal that the terminal has sent to all processes of its group.
_BY_KERNEL = 0x80
#: wait(2) status of a program that succeeded while its data was not delivered: exit code 1.
_LOST = 1 << 8
#: Time for data to arrive after a signal has ended the program, seconds. After one that has ended by
#: itself it may take as long as peers take it.
_SHORT_LINGER = 2.0
#: A signal that came so long before the program has ended was not what ended it, seconds.
_RECENT = 30.0


def enter(options: Namespace, read_secret: Callable[[], str | None], is_command: bool) -> None:
    """Returns in a process in which the program is to run.

    This process runs the program if it has a node already: that of `peersock run`, or of this command when a reloader
    starts it again. Otherwise this process becomes the launcher, and never returns. The secret is read only
    for that: a pipe has it once. The library is loaded into the program's process if this one was started to run this
    command (`is_command`), so that it can be started again.
    """
    if os.environ.pop(_AGAIN, "") == str(os.getpid()) or (not options.network and os.environ.get(_node.NODE)):
        _go_on()
        return
    if not options.network:
        network = os.environ.get("PEERSOCK_NETWORK")
        if not network:
            _fail("name a network (-n, or PEERSOCK_NETWORK), or run this within `peersock run`")
        options.network = [network]
    digest = _digest(options)
    if os.environ.get(RUN) == f"{_node_name()}:{digest}" and _peersock.interfaces():
        _go_on()
        return
    secret = read_secret()
    reader, writer = os.pipe()
    # A signal that is ignored from the start stays ignored, as nohup(1) and shells have it for jobs in the background.
    heeded = {number for number in _FORWARDED if signal.getsignal(number) != signal.SIG_IGN}
    # None may come before it can be passed on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*heeded, signal.SIGCHLD})
    children = signal.getsignal(signal.SIGCHLD)
    if children == signal.SIG_IGN:
        # The kernel would not say how the program ends, and not that it has ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    program = os.fork()
    if program:
        os.close(reader)
        _launch(options, secret, digest, program, writer, heeded)
    os.close(writer)
    if children == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    if not said:
        # The launcher says why.
        os._exit(1)
    if secret:
        os.environ["PEERSOCK_SECRET"] = ""
    _hide_secret()
    os.environ.update(json.loads(said))
    try:
        _peersock.filter_calls(options.only)
    except OSError as error:
        if options.only:
            _fail(f"--only cannot keep the program to the overlay: {error.strerror}")
    if is_command:
        _start_again()
    # Without the library in this process.
    _peersock.clear_rules()
    _node.adopt()
    _go_on()


def _start_again() -> None:
    """Starts this process's command again in its own place, now with the library. Returns if that cannot be done."""
    os.environ[_AGAIN] = str(os.getpid())
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except (OSError, TypeError, ValueError):
        # A program that has Python inside names none, or another one.
        del os.environ[_AGAIN]


def _hide_secret() -> None:
    """Leaves an empty passphrase where there was one: a command of ours that the program starts refuses that.

    Without any it would join the network that the environment names without a passphrase, in silence.
    """
    if "PEERSOCK_SECRET" in os.environ:
        os.environ["PEERSOCK_SECRET"] = ""


def _go_on() -> None:
    """Has this process run the program."""
    _hide_secret()
    _spawn.keep()
    _foreign.keep()
    rules = os.environ.get(_node.RULES, "").split(",")
    if os.environ.get(RUN) and "only" not in rules and not _has_library():
        # The system loads none into a Python whose file gives it privileges.
        print(
            f"peersock: warning: {sys.executable} has not loaded the library that takes the socket calls of other"
            " programs: static ones and those of Go that it starts itself are not on the overlay. Run a copy of it"
            " without privileges, by `python -m peersock run`, or use --only",
            file=sys.stderr,
        )


def _has_library() -> bool:
    library = os.path.basename(_spawn.own_library() or "")
    with contextlib.suppress(OSError):
        return bool(library) and library in Path("/proc/self/maps").read_text(errors="surrogateescape")
    return True


def _fail(text: object) -> NoReturn:
    print(f"peersock: {text}", file=sys.stderr)
    sys.exit(1)


def _node_name() -> str:
    return os.environ.get(_node.NODE, "").partition(":")[0]


def _digest(options: Namespace) -> str:
    """Returns a digest of the command line's settings of the node."""
    networks = [os.path.abspath(network) if os.path.isfile(network) else network for network in options.network]
    paths = [path and os.path.abspath(path) for path in (options.state, options.secret_file)]
    words = [networks, paths, options.interface, options.bind, options.only, options.root]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def _launch(
    options: Namespace, secret: str | None, digest: str, program: int, writer: int, heeded: set[signal.Signals]
) -> NoReturn:
    interfaces = options.interface if options.interface != ["lo"] else "loopback"
    _peersock.adopt_orphans()
    try:
        library = _peersock.provide_library()
        session = Session(
            options.network,
            secret=secret,
            identity=options.state,
            interfaces=interfaces or "all",
            roots=options.root,
            bind=options.bind,
            only=options.only,
        )
    except (OSError, TypeError, ValueError) as error:
        os.close(writer)
        os.waitpid(program, 0)
        strerror = getattr(error, "strerror", None)
        _fail(strerror or error)
    if not options.quiet:
        print(f"address: {session.address}", file=sys.stderr, flush=True)
        for network in session.networks if secret is None else ():
            # Others are described by a file.
            if network >> 56 == 0xFF:
                print(
                    f"peersock: network {network:016x} is open: anybody who reaches this node can join it;"
                    " --secret-file FILE closes it",
                    file=sys.stderr,
                    flush=True,
                )
    environment = {name: os.environ[name] for name in (_node.NODE, _node.RULES, _node.NETWORKS)}
    environment[_node.RULES] += _admit(session, options)
    environment[RUN] = f"{_node_name()}:{digest}"
    environment["PYTHONPATH"] = _before(str(Path(__file__).parent / "_child"), os.environ.get("PYTHONPATH"))
    environment["LD_PRELOAD"] = _spawn.with_library(library, os.environ.get("LD_PRELOAD", ""))
    with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w") as pipe:
        pipe.write(json.dumps(environment))
    status, asked = _wait(program, heeded)
    was_asked = asked is not None and time.monotonic() - asked < _RECENT
    ended, lost = _close(session, was_asked, _ASKING & heeded)
    if lost is not None:
        print(f"peersock: not everything that was sent was confirmed: {lost}", file=sys.stderr)
    if status == 0 and lost is not None:
        # As `peersock run`: what is lost is no success.
        status = _LOST
    # Data that still waits for peers delays nothing.
    _end_like(status, at_once=not ended)


def _admit(session: Session, options: Namespace) -> str:
    """Takes the calls of programs that the library does not reach; gives the rule by which it has that done. With
    `--only` the filter refuses them their sockets."""
    if options.only or session._running is None:
        return ""
    try:
        session._running.node.admit_programs(os.environ[_node.RULES])
    except OSError as error:
        print(
            "peersock: warning: static programs and those of Go that this one starts are not on the overlay:"
            f" {_why_not(error)}; with --only they have no network",
            file=sys.stderr,
            flush=True,
        )
        return ""
    return _ADMITS


def _why_not(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return (
            "the system does not let us look into the programs that we start (ptrace); set kernel.yama.ptrace_scope"
            " to 0 or 1, or allow a container CAP_SYS_PTRACE"
        )
    if error.errno == errno.EADDRINUSE:
        return "another process has the name by which they are taken along (`ss -xlp` shows it, ending in /exec)"
    return error.strerror or str(error)


def _before(first: str, others: str | None) -> str:
    return f"{first}:{others}" if others else first


def _close(session: Session, was_asked: bool, asking: set[signal.Signals]) -> tuple[bool, str | None]:
    """Ends the node, and waits until everything is delivered.

    The wait is short once one of the `asking` signals has come, and ends with a second one. Returns true if the node
    has ended, and a text about lost data, ``None`` if nothing was lost."""
    if session._running is not None:
        session._running.linger = _SHORT_LINGER if was_asked else None
    result: list[str | None] = []
    this = threading.get_ident()

    def close() -> None:
        lost: str | None = "the node has failed"
        try:
            lost = _node.finish()
        finally:
            result.append(lost)
            # Wakes who waits below. Like all signals there it is blocked, and waits until it is taken.
            signal.pthread_kill(this, signal.SIGCHLD)

    threading.Thread(target=close, daemon=True).start()
    end = None
    while not result:
        left = None if end is None else max(end - time.monotonic(), 0)
        wanted = {*asking, signal.SIGCHLD}
        info = signal.sigwaitinfo(wanted) if left is None else signal.sigtimedwait(wanted, left)
        if info is None or (was_asked and info.si_signo in asking):
            break
        if info.si_signo in asking:
            was_asked, end = True, time.monotonic() + _SHORT_LINGER
    return (True, result[0]) if result else (False, "the launcher did not wait for the rest")


def _wait(program: int, heeded: set[signal.Signals]) -> tuple[int, float | None]:
    """Waits until the program and all that it has started have ended; passes signals on meanwhile. Gives the program's
    status, and when somebody has asked for the end, by `time.monotonic()`: the last time, ``None`` if nobody has."""
    status = 0
    asked: float | None = None
    running: int | None = program
    while True:
        info = signal.sigwaitinfo({*heeded, signal.SIGCHLD})
        if info.si_signo != signal.SIGCHLD:
            by_terminal = info.si_code == _BY_KERNEL and running is not None
            if info.si_signo in _ASKING:
                asked = time.monotonic()
            for target in [] if by_terminal else [running] if running is not None else _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(target, info.si_signo)
            continue
        while True:
            try:
                ended, how = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status, asked
            if ended == 0:
                break
            if ended == running:
                running, status = None, how


def _children() -> list[int]:
    """The daemons that the program has left behind."""
    found: list[int] = []
    for path in glob.glob("/proc/self/task/*/children"):
        with contextlib.suppress(OSError):
            found += map(int, Path(path).read_text().split())
    return found


def _end_like(status: int, at_once: bool) -> NoReturn:
    """Ends this process as the program has ended; `at_once` without what is done at the end of Python's programs."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        # One dump of memory is enough.
        _peersock.forbid_dumps()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    code = os.waitstatus_to_exitcode(status)
    if at_once:
        os._exit(code)
    sys.exit(code)
