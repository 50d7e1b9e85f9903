"""Asks a server of gunicorn which of its workers answers, and in which version."""

from __future__ import annotations

import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from common import data


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        content: bytes = response.read()
        return content


def workers(url: str, wanted: str) -> None:
    """Asks until `count` workers have answered."""
    seen: set[bytes] = set()
    with ThreadPoolExecutor(8) as threads:
        while len(seen) < int(wanted):
            seen.update(threads.map(get, [f"{url}/pid"] * 32))
    assert len(seen) == int(wanted)
    assert get(f"{url}/client").decode() not in ("", "::")


def until(url: str, version: str) -> None:
    """Until a new version answers; no request fails meanwhile, and none is answered by halves."""
    said, number = set(), 0
    while True:
        now = get(f"{url}/version").decode()
        if now not in said:
            said.add(now)
            print("version", now, flush=True)
        number += 1
        assert get(f"{url}/data/{number}/200000") == data(number, 200_000)
        if now == version:
            return


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    print("ok", flush=True)
