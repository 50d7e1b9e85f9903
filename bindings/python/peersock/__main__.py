"""``python -m peersock``: running programs on the overlay, and what this node is called."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import runpy
import stat
import sys
import types
from collections.abc import Sequence

from . import __version__, _launcher, _node, install
from . import _arguments as given

EXAMPLES = """examples:
  python -m peersock run -n ff0001ffff000000 -m http.server 8080
  python -m peersock run -n office.toml server.py --port 80
  python -m peersock run -n office.toml -c 'import urllib.request as r; print(r.urlopen("http://alpha/").status)'
  python -m peersock id"""


#: Options of `run`, without their dashes, that have a value behind them.
_VALUED = ("n", "network", "secret-file", "state", "interface", "bind")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m peersock",
        description="Encrypted peer-to-peer sockets.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a Python program on networks")
    run.add_argument(
        "-n",
        "--network",
        action="append",
        default=[],
        help="a network: its ID, or the file of a static one, which `peersock network new` makes"
        " and docs/use/NETWORKS.md describes (default: that of PEERSOCK_NETWORK)",
    )
    run.add_argument("--secret-file", help="file with the networks' passphrase (mode 0600), or a pipe")
    state, fresh = os.environ.get("PEERSOCK_STATE"), "(default: that of PEERSOCK_STATE, else a fresh one)"
    kept = "(default: that of PEERSOCK_STATE, else that of `peersock` for a file, and a fresh one for an ID)"
    run.add_argument("--state", default=state, help=f"directory that holds the node's identity {kept}")
    run.add_argument("--interface", action="append", default=[], help="use only this network interface")
    run.add_argument(
        "--root",
        action="append",
        help="a root, as `peersock root` prints it, dns:DOMAIN, lan, or @FILE (default: those of PEERSOCK_ROOTS)",
    )
    run.add_argument("--bind", choices=["overlay", "kernel", "both"], default="overlay")
    run.add_argument(
        "--only", action="store_true", help="refuse addresses outside the networks, to all that the program starts"
    )
    run.add_argument("-q", "--quiet", action="store_true", help="do not say which address the program has")
    kind = run.add_mutually_exclusive_group()
    kind.add_argument("-m", dest="module", action="store_true", help="the program is a module")
    kind.add_argument("-c", dest="code", action="store_true", help="the program is the next argument itself")
    run.add_argument("program", help="a script, with -m a module, or with -c the program's text")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's arguments")
    identity = commands.add_parser("id", help="print the node ID and the public key of an identity")
    identity.add_argument("--state", default=state, help=f"directory that holds the identity {fresh}")
    return parser


def _secret(path: str | None, has_ad_hoc: bool) -> str | None:
    if path is None:
        secret = os.environ.pop("PEERSOCK_SECRET", None)
        if secret and not has_ad_hoc:
            print(
                "peersock: warning: PEERSOCK_SECRET is not used: it is for ad-hoc networks; a static network has its"
                " secret in its own file, and a managed one has none",
                file=sys.stderr,
            )
        return secret if has_ad_hoc else None
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                sys.exit(
                    f"peersock: {path} holds a secret but other users have access to it (mode {mode & 0o7777:04o});"
                    f" run: chmod 600 {path}"
                )
            return file.read().rstrip("\r\n")
    except OSError as error:
        sys.exit(f"peersock: {path}: {error.strerror}")
    except UnicodeDecodeError:
        sys.exit(f"peersock: {path} is no text in UTF-8")


def _has_ad_hoc(named: list[str]) -> bool:
    wanted = named or [name for name in [os.environ.get("PEERSOCK_NETWORK")] if name]
    # Joining the networks reports a wrong name.
    with contextlib.suppress(ValueError):
        return not wanted or any(map(given.is_ad_hoc, given.networks(wanted, None)))
    return True


def _check_script(path: str) -> None:
    """Ends as Python does if there is no such program: with one line, and 2."""
    # A folder or an archive with a __main__ is a program, too.
    if os.path.isdir(path):
        return
    try:
        open(path, "rb").close()
    except OSError as error:
        print(f"peersock: can't open file {path!r}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def _check_module(name: str) -> None:
    """The same for a module, with 1."""
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as error:
        # Another one is an error of the package's own.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        found = False
    if not found:
        print(f"peersock: No module named {name}", file=sys.stderr)
        sys.exit(1)


def _run(options: argparse.Namespace, is_command: bool) -> None:
    # Before a node is started for it. That no network is named is said first.
    named = options.network or os.environ.get("PEERSOCK_NETWORK") or os.environ.get(_node.NODE)
    if named and not (options.module or options.code):
        _check_script(options.program)
    _launcher.enter(options, lambda: _secret(options.secret_file, _has_ad_hoc(options.network)), is_command)
    install()
    sys.argv = [options.program, *options.arguments]
    if options.code:
        sys.argv[0], sys.path[0] = "-c", ""
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(options.program, "<string>", "exec"), vars(main))
    elif options.module:
        sys.path[0] = os.getcwd()
        _check_module(options.program)
        runpy.run_module(options.program, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(options.program))
        runpy.run_path(options.program, run_name="__main__")


def _id(options: argparse.Namespace, _is_command: bool) -> None:
    state: str | None = options.state
    try:
        node = _node.Settings(state=state, interfaces=(), discovery=False).start()
    except OSError as error:
        sys.exit(f"peersock: {error.strerror}")
    print("id: ", node.id())
    print("key:", node.public_key())
    node.stop(0)


def _with_roots(arguments: Sequence[str]) -> list[str]:
    """Joins each root with its option, up to the program.

    One root in 64 begins with a dash, and argparse would take it for an option.
    """
    if arguments[:1] != ["run"]:
        return list(arguments)
    found, left = ["run"], list(arguments[1:])
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            return [*found, word, *left]
        if word == "--root" and left:
            word = f"--root={left.pop(0)}"
        found.append(word)
        if word.lstrip("-") in _VALUED and left:
            found.append(left.pop(0))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command."""
    options = _parser().parse_args(_with_roots(sys.argv[1:] if arguments is None else arguments))
    {"run": _run, "id": _id}[options.command](options, arguments is None and __name__ == "__main__")


if __name__ == "__main__":
    main()
