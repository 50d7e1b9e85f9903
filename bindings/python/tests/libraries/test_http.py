"""HTTP libraries on both sides."""

from __future__ import annotations

import pytest

from tests.libraries.certificates import make_certificate
from tests.libraries.lab import Lab


@pytest.mark.parametrize("library", ["standard", "urllib3", "requests", "httplib2", "httpx"])
def test_clients_fetch_and_send(lab: Lab, library: str) -> None:
    server = lab.start(lab.program("http_server.py", "standard"))
    lab.client("http_client.py", library, server.url())


def test_https_with_a_certificate_that_is_checked(lab: Lab) -> None:
    certificate, key = make_certificate(lab.folder)
    server = lab.start(lab.program("http_server.py", "standard", certificate, key))
    lab.client("http_client.py", "urllib3_tls", server.url("https"), certificate)


@pytest.mark.parametrize("library", ["werkzeug", "werkzeug_threaded", "werkzeug_processes"])
def test_werkzeug_serves(lab: Lab, library: str) -> None:
    server = lab.start(lab.program("http_server.py", library))
    lab.client("http_client.py", "requests", server.url())


def test_aiohttp_on_both_sides(lab: Lab) -> None:
    server = lab.start(lab.program("http_server.py", "aiohttp"))
    lab.client("http_client.py", "aiohttp", server.url())


@pytest.mark.parametrize("library", ["aiohttp", "uvicorn"])
def test_websocket_client(lab: Lab, library: str) -> None:
    server = lab.start(lab.program("http_server.py", library))
    lab.client("http_client.py", "websocket", server.url())


def test_uvicorn_serves_fastapi(lab: Lab) -> None:
    server = lab.start(lab.program("http_server.py", "uvicorn"))
    lab.client("http_client.py", "httpx", server.url())
    lab.client("http_client.py", "aiohttp", server.url())
