"""PyXAPI's module ``socket_ext``: `peersock.socket`, with its ``sendmsg``, its ``recvmsg`` and its ``cmsg`` objects."""

# The own names come first, so that type checkers take them, and are put back after those that all modules of sockets have.
# isort: skip_file
# ruff: noqa: E402, E501, F405

from __future__ import annotations

from ._messages import cmsg as cmsg, socket as socket

#: The type of ancillary data, and what sending and receiving raise.
CMSGType = cmsg
exterror = OSError

_OWN = {"cmsg": cmsg, "socket": socket}

from socket import *  # type: ignore[assignment]  # noqa: F403

from .. import socket as _ours

globals().update({name: getattr(_ours, name) for name in (*_ours.__all__, "SOL_IP")}, **_OWN)

__all__ = [*_ours.__all__, "CMSGType", "SOL_IP", "cmsg", "exterror"]
