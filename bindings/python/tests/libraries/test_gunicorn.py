"""gunicorn with its workers, and a reload that loses no request."""

from __future__ import annotations

import signal

import pytest

from tests.libraries.lab import Lab, Server

CONFIG = """
import json
def when_ready(server):
    print(json.dumps({"port": server.LISTENERS[0].sock.getsockname()[1]}), flush=True)
"""


def start(lab: Lab, worker: str, workers: int) -> Server:
    (lab.folder / "gunicorn.conf.py").write_text(CONFIG)
    (lab.folder / "version").write_text("one")
    options = ["--bind", "[::]:0", "--worker-class", worker, "--workers", str(workers), "--threads", "4"]
    command = lab.python("-m", "gunicorn", *options, "--graceful-timeout", "60", "--no-control-socket", "wsgi_app:app")
    return lab.start(command, APP_VERSION_FILE=str(lab.folder / "version"))


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn_serves_with_four_workers(lab: Lab, worker: str) -> None:
    server = start(lab, worker, 4)
    lab.client("http_client.py", "requests", server.url())
    lab.client("gunicorn_client.py", "workers", server.url(), "4")


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn_reloads_without_losing_a_request(lab: Lab, worker: str) -> None:
    server = start(lab, worker, 2)
    url = server.url()
    client = lab.start(lab.program("gunicorn_client.py", "until", url, "two"))
    client.wait_for("version one")
    (lab.folder / "version").write_text("two")
    server.process.send_signal(signal.SIGHUP)
    client.wait_for("ok")
