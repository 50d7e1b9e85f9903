"""Nicknames at roots, for nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from .. import _peersock
from ..session import Session

_T = TypeVar("_T")

#: The end of every nickname's text.
_SUFFIX = ".peersock"
#: Longest single wait of a thread, seconds, because a cancelled call leaves its thread until then.
_STEP = 0.25
#: Default time to wait for the roots' answers, seconds.
_ROOTS = 10.0
#: Time to wait for a first root, because some are found on the local network.
_NO_ROOTS = 2.0


def is_nickname(addr: bytes | str) -> str | None:
    """The text of a nickname; None if the text is something else."""
    text = addr.decode("ascii", "replace") if isinstance(addr, bytes) else addr
    is_one = isinstance(text, str) and text.strip().lower().endswith(_SUFFIX)
    return text.strip() if is_one else None


async def claim(session: Session, name: str, port: int, timeout: float) -> str:
    """Claims a nickname and gives its text."""
    node = session._own()
    try:
        return await _in_steps(session, lambda step: node.nickname(name, port, step), timeout)
    except (TimeoutError, asyncio.CancelledError):
        # It would go on being claimed.
        with contextlib.suppress(OSError):
            await release(session, [name])
        raise


async def release(session: Session, names: list[str]) -> None:
    """Gives nicknames back. The node is asked by a thread, which ends its work also if the caller is cancelled."""
    node = session._own()

    def release_all() -> None:
        for name in names:
            node.release_nickname(name)

    await asyncio.shield(asyncio.to_thread(release_all))


async def find(session: Session, text: str, timeout: float) -> tuple[str, int]:
    """Returns the address and the port of the node that has a nickname, in the first network in which it is found."""
    loop = asyncio.get_running_loop()
    node, deadline = session._own(), loop.time() + timeout
    id, port = await _in_steps(session, lambda step: node.find_nickname(text, step), min(timeout, _ROOTS))
    if not session.networks or not port:
        raise LookupError("the nodes have no network in common")
    while True:
        for network in session.networks:
            ip = _peersock.address_of(network, id)
            try:
                if ip in session.addresses or await session.wait_peer_async(ip, _STEP):
                    return ip, port
            except OSError:
                # It is no member of this network.
                await asyncio.sleep(_STEP)
        if loop.time() >= deadline:
            raise TimeoutError(f"the node was not found in {timeout:g} s")


async def _in_steps(session: Session, call: Callable[[float], _T | None], timeout: float) -> _T:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    while True:
        left = max(begin + timeout - loop.time(), 0)
        answer = await asyncio.to_thread(call, min(left, _STEP))
        if answer is not None:
            return answer
        if (left <= _STEP or loop.time() >= begin + _NO_ROOTS) and not session.status()["roots"]:
            raise TimeoutError("there are no roots to keep nicknames: give the session roots, or set PEERSOCK_ROOTS")
        if left <= _STEP:
            raise TimeoutError(f"no root has answered about the nickname in {timeout:g} s: see the session's status()")
