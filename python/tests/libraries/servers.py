"""Servers of the libraries under test: ``python servers.py NAME``."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PORT = 8080
CERTIFICATE = Path(__file__).parent.parent / "certificate.pem"


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI: the process's number, or what was sent."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Peer", environ.get("REMOTE_ADDR", ""))])
    return [body or str(os.getpid()).encode()]


def werkzeug() -> None:
    """Werkzeug's server for development, with threads."""
    from werkzeug.serving import run_simple

    run_simple("::", PORT, application, threaded=True)


def aiohttp() -> None:
    """An HTTP and WebSocket server of aiohttp."""
    from aiohttp import web

    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read(), headers={"X-Peer": request.remote or ""})

    async def chat(request: web.Request) -> web.StreamResponse:
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        async for message in connection:
            await connection.send_str(message.data.upper())
        return connection

    app = web.Application()
    app.router.add_post("/", echo)
    app.router.add_get("/chat", chat)
    web.run_app(app, host="::", port=PORT, print=None)


def fastapi() -> None:
    """FastAPI on uvicorn, with asyncio's own loop."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/square/{number}")
    async def square(number: int) -> dict[str, int]:
        return {"square": number * number}

    uvicorn.run(app, host="::", port=PORT, loop="asyncio", log_level="warning")


def pyopenssl() -> None:
    """One TLS connection after the other, which pyOpenSSL serves."""
    from OpenSSL import SSL

    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_file(str(CERTIFICATE))
    context.use_privatekey_file(str(CERTIFICATE))
    server = socket.create_server(("", PORT), family=socket.AF_INET6)
    while True:
        connection = SSL.Connection(context, server.accept()[0])
        connection.set_accept_state()
        try:
            connection.sendall(connection.recv(100)[::-1])
            connection.shutdown()
        except SSL.Error:
            # Somebody has only looked whether we are here.
            connection.close()


if __name__ == "__main__":
    {"werkzeug": werkzeug, "aiohttp": aiohttp, "fastapi": fastapi, "pyopenssl": pyopenssl}[sys.argv[1]]()
