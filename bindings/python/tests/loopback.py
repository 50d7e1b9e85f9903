"""Runs an example as it is, but with a node that stays on this machine: ``python loopback.py EXAMPLE ARGUMENT...``"""

import functools
import os
import random
import runpy
import sys

import peersock


def network() -> str:
    """A network that hardly anybody else uses: the ID of an ad-hoc network says which ports are open."""
    return f"ff{random.randrange(1, 0x1000):04x}ffff000000"


if __name__ == "__main__":
    peersock.Session = functools.partial(peersock.Session, interfaces="loopback")  # type: ignore[misc, assignment]
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
