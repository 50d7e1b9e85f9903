"""Sockets that are reached from the overlay and from the machine's own network."""

from __future__ import annotations

import socket as plain

import pytest

from .conftest import run_python

ALONE = (
    "import asyncio, contextlib, errno, os, socket as plain, peersock\n"
    "from peersock import socket\n"
    "session = peersock.Session('ff0001ffff000000', interfaces='loopback', bind='both')\n"
    "me = session.address\n"
    "def meet(server, *addresses):\n"
    "    for address in addresses:\n"
    "        client = socket.create_connection((address, server.getsockname()[1]), timeout=20)\n"
    "        connection, peer = server.accept(); connection.sendall(b'welcome')\n"
    "        assert client.recv(100) == b'welcome' and peer[1] == client.getsockname()[1], peer\n"
    "        assert connection.getpeername()[:2] == peer[:2], (connection.getpeername(), peer)\n"
    "        connection.close(); client.close()\n"
)


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_a_listener_is_on_both_networks(family: str) -> None:
    machine = "127.0.0.1" if family == "AF_INET" else "::1"
    code = ALONE + (
        "for where in ('', ''):\n"
        f"    with socket.create_server((where, 0), family=socket.{family}) as server:\n"
        "        server.settimeout(20); port = server.getsockname()[1]\n"
        f"        meet(server, '{machine}', me, '{machine}', me)\n"
        f"    with socket.create_server((where, port), family=socket.{family}) as server:\n"
        "        server.settimeout(20)\n"
        f"        meet(server, me, '{machine}')\n"
        "print('both')\n"
    )
    assert run_python(code) == "both\n"


@pytest.mark.parametrize("bind", ["overlay", "both"])
def test_datagrams_come_from_both_networks(bind: str) -> None:
    """With the overlay chosen, too, for a server at any port: who asks for its port may tell it to anybody."""
    code = ALONE.replace("both", bind) + (
        "own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); own.bind(('', 0)); own.settimeout(20)\n"
        "port = own.getsockname()[1]; assert port\n"
        "for address in ('::1', me, '::1'):\n"
        "    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:\n"
        "        client.settimeout(20); client.sendto(b'ping', (address, port))\n"
        "        data, peer = own.recvfrom(100); own.sendto(data, peer)\n"
        "        assert client.recvfrom(100)[0] == b'ping'\n"
        "print('both')\n"
    )
    assert run_python(code) == "both\n"


def test_an_asyncio_server_is_on_both_networks() -> None:
    code = ALONE + (
        "async def serve(reader, writer):\n"
        "    writer.write(b'hello ' + await reader.readline()); writer.close()\n"
        "async def main():\n"
        "    with peersock.patched():\n"
        "        server = await asyncio.start_server(serve, '0.0.0.0', 0)\n"
        "        port = server.sockets[0].getsockname()[1]\n"
        "        for address in ('127.0.0.1', me, '127.0.0.1'):\n"
        "            reader, writer = await asyncio.open_connection(address, port)\n"
        "            writer.write(b'you\\n'); print((await reader.read()).decode().strip()); writer.close()\n"
        "asyncio.run(asyncio.wait_for(main(), 30))\n"
    )
    assert run_python(code) == "hello you\n" * 3


def test_what_names_an_address_is_on_one_network() -> None:
    code = ALONE + (
        "with socket.create_server((me, 0), family=socket.AF_INET6) as server, contextlib.ExitStack() as stack:\n"
        "    meet(server, me)\n"
        "    taken = stack.enter_context(socket.create_server(('127.0.0.1', 0)))\n"
        "    try: socket.create_server(('', taken.getsockname()[1]))\n"
        "    except OSError as error: assert error.errno == errno.EADDRINUSE, error\n"
        "    else: raise AssertionError\n"
        "print('one')\n"
    )
    assert run_python(code) == "one\n"
    assert plain.has_ipv6


def test_a_controller_of_aiosmtpd_finds_itself() -> None:
    pytest.importorskip("aiosmtpd")
    code = ALONE + (
        "import smtplib\n"
        "peersock.install()\n"
        "from aiosmtpd.controller import Controller\n"
        "from aiosmtpd.handlers import Sink\n"
        "controller = Controller(Sink(), hostname='0.0.0.0', port=2525); controller.start()\n"
        "for address in (me, '127.0.0.1'):\n"
        "    with smtplib.SMTP(address, 2525, timeout=20) as client: assert client.noop()[0] == 250\n"
        "controller.stop(); print('found')\n"
    )
    assert run_python(code) == "found\n"
