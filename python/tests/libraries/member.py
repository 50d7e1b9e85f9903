"""Runs a program as a member: ``python member.py NETWORK SEED -m MODULE|SCRIPT ARGUMENTS…``; says its address first."""

from __future__ import annotations

import os
import runpy
import sys

import peersock


def main() -> None:
    """Joins, takes the place of the standard library's sockets, and runs the program."""
    path, seed, *program = sys.argv[1:]
    session = peersock.Session(path, identity=bytes.fromhex(seed), interfaces="loopback", keep=True, linger=1)
    print(session.address, flush=True)
    peersock.install()
    sys.path[0] = os.path.dirname(os.path.abspath(__file__))
    if program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    main()
