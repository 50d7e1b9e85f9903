"""A path that carries less than the smallest datagram: who waits for acknowledgements is told so."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

#: The promised time, in seconds.
TOLD = 15


def _may_make_networks() -> bool:
    tools = ("unshare", "ip", "nft")
    if not all(map(shutil.which, tools)):
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _may_make_networks(), reason="network namespaces need root and unshare, ip and nft")
@pytest.mark.parametrize("how", ["one by one", "together"])
def test_a_path_that_carries_too_little_is_told_within_fifteen_seconds(tmp_path: Path, how: str) -> None:
    command = ["unshare", "--net", sys.executable, "-m", f"{__package__}.narrow", str(tmp_path), how]
    program = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert program.returncode == 0, program.stderr
    (sending, took), there = (line.split() for line in program.stdout.splitlines())
    assert int(sending) == errno.EMSGSIZE
    assert float(took) <= TOLD
    assert there == ["failed", str(errno.ECONNRESET)]
