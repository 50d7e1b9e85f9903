"""An HTTP server by the library that is named first."""

from __future__ import annotations

import asyncio
import http.server
import socket
import socketserver
import ssl
import sys
from typing import Any

from common import answer, listener, ready


def standard(certificate: str = "", key: str = "") -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            body = answer(self.command, self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        do_GET = do_POST = reply

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6

    with Server(("::", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        ready(server.socket)
        server.serve_forever()


def werkzeug(**options: Any) -> None:
    from werkzeug.serving import make_server
    from wsgi_app import app

    server = make_server("::", 0, app, **options)
    ready(server.socket)
    server.serve_forever()


def werkzeug_threaded() -> None:
    werkzeug(threaded=True)


def werkzeug_processes() -> None:
    werkzeug(processes=4)


def aiohttp() -> None:
    from aiohttp import WSMsgType, web

    async def page(request: web.Request) -> web.Response:
        body = answer(request.method, request.path, await request.read())
        return web.Response(status=404) if body is None else web.Response(body=body)

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
        return socket

    async def main() -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/socket", echo)
        app.router.add_route("*", "/{path:.*}", page)
        runner = web.AppRunner(app)
        await runner.setup()
        sock = listener()
        await web.SockSite(runner, sock).start()
        ready(sock)
        await asyncio.Event().wait()

    asyncio.run(main())


def uvicorn(loop: str = "asyncio") -> None:
    import uvicorn
    from asgi_app import app

    sock = listener()
    ready(sock)
    uvicorn.Server(uvicorn.Config(app, loop=loop, log_level="warning")).run([sock])


def uvicorn_uvloop() -> None:
    uvicorn("uvloop")


def gevent() -> None:
    from gevent.pywsgi import WSGIServer
    from wsgi_app import app

    server = WSGIServer(("::", 0), app, log=None)
    server.start()
    ready(server.socket)
    server.serve_forever()


def socketserver_streams() -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            size = int(self.rfile.readline())
            self.wfile.write(self.rfile.read(size))

    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6
        request_queue_size = 64

    with Server(("::", 0), Handler) as server:
        ready(server.socket)
        server.serve_forever()


def socketserver_forking() -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            size = int(self.rfile.readline())
            self.wfile.write(self.rfile.read(size))

    class Server(socketserver.ForkingTCPServer):
        address_family = socket.AF_INET6
        request_queue_size = 64

    with Server(("::", 0), Handler) as server:
        ready(server.socket)
        server.serve_forever()


def socketserver_datagrams() -> None:
    class Handler(socketserver.DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.read()[::-1])

    class Server(socketserver.ThreadingUDPServer):
        address_family = socket.AF_INET6

    with Server(("::", 0), Handler) as server:
        ready(server.socket)
        server.serve_forever()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
