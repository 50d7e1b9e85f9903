"""Current libraries from PyPI, between two processes over the overlay.

Most of them are those that libzt's issue 169 names. Each server is another member; the clients are in this process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import peersock
from peersock import socket

from ..conftest import Network
from .servers import CERTIFICATE, PORT

FOLDER = Path(__file__).parent
BODY = os.urandom(1000) * 300


class Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address
        self.url = f"http://[{address}]:{PORT}"


@pytest.fixture
def serve(network: Network, session: peersock.Session) -> Iterator[Callable[..., Server]]:
    """Starts servers, waits until they listen, and ends them; meanwhile sockets here are patched."""
    started: list[subprocess.Popen[str]] = []

    def start(*program: str) -> Server:
        command = [sys.executable, str(FOLDER / "member.py"), str(network.path), network.spare().hex(), *program]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=FOLDER)
        started.append(process)
        assert process.stdout is not None
        server = Server(process, process.stdout.readline().strip())
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((server.address, PORT), timeout=5).close()
                return server
            except OSError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.05)

    with peersock.patched():
        yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_werkzeug_serves_urllib3_requests_httplib2_and_httpx(
    serve: Callable[..., Server], session: peersock.Session
) -> None:
    for name in ("werkzeug", "urllib3", "requests", "httplib2", "httpx"):
        pytest.importorskip(name)
    import httplib2
    import httpx
    import requests
    import urllib3

    server = serve(str(FOLDER / "servers.py"), "werkzeug")
    with urllib3.PoolManager() as pool:
        answer = pool.request("POST", server.url, body=BODY, timeout=20)
        assert (answer.data, answer.headers["X-Peer"]) == (BODY, session.address)
    with requests.Session() as client:
        for _ in range(3):
            assert client.post(server.url, data=BODY, timeout=20).content == BODY
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://[{server.address}]:9/", timeout=20)
    _, content = httplib2.Http(timeout=20).request(server.url, "POST", body=BODY)
    assert content == BODY
    with httpx.Client(timeout=20) as modern:
        assert modern.post(server.url, content=BODY).content == BODY


def test_aiohttp_serves_its_own_client_and_websocket_client(
    serve: Callable[..., Server], session: peersock.Session
) -> None:
    for name in ("aiohttp", "websocket"):
        pytest.importorskip(name)
    import aiohttp
    import websocket

    server = serve(str(FOLDER / "servers.py"), "aiohttp")

    async def main() -> None:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout) as client:

            async def one() -> bytes:
                async with client.post(server.url, data=BODY) as answer:
                    assert answer.headers["X-Peer"] == session.address
                    return await answer.read()

            assert await asyncio.gather(*(one() for _ in range(10))) == [BODY] * 10
            async with client.ws_connect(f"{server.url}/chat") as chat:
                await chat.send_str("hello")
                assert await chat.receive_str() == "HELLO"

    asyncio.run(main())
    connection = websocket.create_connection(f"{server.url.replace('http', 'ws')}/chat", timeout=20)
    connection.send("again")
    assert connection.recv() == "AGAIN"
    connection.close()


def _workers(url: str, count: int) -> set[str]:
    import requests

    found: set[str] = set()
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        found.add(requests.get(url, timeout=20).text)
    return found


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn_has_workers_and_reloads(serve: Callable[..., Server], worker: str) -> None:
    pytest.importorskip("gunicorn")
    pytest.importorskip("requests")
    options = ["--bind", f"[::]:{PORT}", "--workers", "4", "--worker-class", worker, "--threads", "2"]
    server = serve("-m", "gunicorn", *options, "--log-level", "error", "servers:application")
    first = _workers(server.url, 3)
    assert len(first) >= 3
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    # No request fails while the workers change.
    while _workers(server.url, 1) & first:
        assert time.monotonic() < deadline
    assert server.process.poll() is None


def test_fastapi_on_uvicorn(serve: Callable[..., Server]) -> None:
    for name in ("uvicorn", "fastapi", "httpx"):
        pytest.importorskip(name)
    import httpx

    server = serve(str(FOLDER / "servers.py"), "fastapi")

    async def main() -> list[int]:
        async with httpx.AsyncClient(timeout=20) as client:
            answers = await asyncio.gather(*(client.get(f"{server.url}/square/{n}") for n in range(10)))
            return [answer.json()["square"] for answer in answers]

    assert asyncio.run(main()) == [n * n for n in range(10)]


def test_pyopenssl_on_both_sides(serve: Callable[..., Server]) -> None:
    pytest.importorskip("OpenSSL")
    from OpenSSL import SSL

    server = serve(str(FOLDER / "servers.py"), "pyopenssl")
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(str(CERTIFICATE))
    context.set_verify(SSL.VERIFY_PEER)
    sock = socket.create_connection((server.address, PORT), timeout=None)
    connection = SSL.Connection(context, sock)
    connection.set_connect_state()
    connection.do_handshake()
    connection.sendall(b"secret")
    assert connection.recv(100) == b"terces"
    connection.close()
