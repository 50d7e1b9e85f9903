"""The list of CPython's own tests that apply to IPv4 and IPv6 sockets of TCP and UDP."""

from __future__ import annotations

import importlib
import re
import unittest
from collections.abc import Iterator

#: The modules. Those of asyncio that only run its loop without sockets are left out.
MODULES = (
    "test.test_socket",
    "test.test_selectors",
    "test.test_socketserver",
    "test.test_httpservers",
    "test.test_ssl",
    "test.test_asyncio.test_sock_lowlevel",
    "test.test_asyncio.test_streams",
    "test.test_asyncio.test_server",
    "test.test_asyncio.test_events",
    "test.test_asyncio.test_sendfile",
    "test.test_asyncio.test_buffered_proto",
    "test.test_asyncio.test_ssl",
    "test.test_asyncio.test_sslproto",
    "test.test_asyncio.test_selector_events",
    "test.test_asyncio.test_base_events",
    "test.test_asyncio.test_unix_events",
)

#: Classes of `test_socket` that are about other families and protocols, or other systems.
OTHER_FAMILIES = re.compile(
    "CAN|ISOTP|J1939|RDS|QIPCRTR|VSOCK|Bluetooth|HyperV|UDPLITE|SCTP|TIPC|Crypto|MacOS|MSWindows|SocketSharing|FreeBSD"
)

#: asyncio's tests once more, over selectors that Linux does not use by itself: only in a full run.
OTHER_SELECTORS = re.compile("^(Select|Poll)EventLoop")


def classes(module_name: str, full: bool) -> Iterator[str]:
    """The classes of a module that apply and have tests."""
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError:
        # Another version of Python has no such tests.
        return
    for name, value in vars(module).items():
        is_own = isinstance(value, type) and value.__module__ == module_name
        if not is_own or not issubclass(value, unittest.TestCase):
            continue
        if OTHER_FAMILIES.search(name) or (not full and OTHER_SELECTORS.search(name)):
            continue
        if unittest.defaultTestLoader.getTestCaseNames(value):
            yield name
