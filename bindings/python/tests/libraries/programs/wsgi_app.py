"""An application for WSGI servers: the pages of ``common``, the worker's process, and the client's
address."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from common import answer

# Read when a worker starts: a reload brings another one.
VERSION = os.environ.get("APP_VERSION_FILE", "")
version = Path(VERSION).read_bytes() if VERSION else b""


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/pid":
        body: bytes | None = str(os.getpid()).encode()
    elif path == "/client":
        body = environ["REMOTE_ADDR"].encode()
    elif path == "/version":
        body = version
    else:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = answer(environ["REQUEST_METHOD"], path, environ["wsgi.input"].read(length))
    start_response("404 Not Found" if body is None else "200 OK", [("Content-Length", str(len(body or b"")))])
    return [body or b""]
