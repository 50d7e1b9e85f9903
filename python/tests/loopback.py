"""Runs an example as it is, but with a node that stays on this machine: ``python loopback.py EXAMPLE ARGUMENT...``"""

import functools
import os
import runpy
import sys

import peersock

peersock.Session = functools.partial(peersock.Session, interfaces="loopback")  # type: ignore[misc, assignment]
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
