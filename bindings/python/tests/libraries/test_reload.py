"""Servers that start themselves again when their code changes: they keep their address."""

from __future__ import annotations

import random
import time

import pytest

from tests.libraries.lab import PATIENCE, Lab

APP = """\
from werkzeug.serving import run_simple
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"version 1"]
if __name__ == "__main__":
    print("started", flush=True)
    run_simple("0.0.0.0", PORT, app, use_reloader=True, reloader_type="stat", reloader_interval=0.2)
"""

FETCH = """\
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())
except OSError as error:
    print(error)
"""


FLASK = """\
from flask import Flask
app = Flask(__name__)
print("started", flush=True)
@app.get("/")
def index(): return "version 1"
"""

DJANGO = """\
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path
settings.configure(DEBUG=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for this test")
urlpatterns = [path("", lambda request: HttpResponse("version 1"))]
if __name__ == "__main__":
    print("started", flush=True)
    execute_from_command_line(sys.argv)
"""


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("library", ["werkzeug", "flask", "django"])
def test_reloaders(lab: Lab, library: str, kept: bool) -> None:
    port = random.randrange(20_000, 30_000)
    text = {"werkzeug": APP, "flask": FLASK, "django": DJANGO}[library].replace("PORT", str(port))
    source = lab.folder / "app.py"
    source.write_text(text)
    program = {
        "werkzeug": [str(source)],
        "flask": ["-m", "flask", "--app", "app", "run", "--debug", "--host", "0.0.0.0", "--port", str(port)],
        "django": [str(source), "runserver", f"0.0.0.0:{port}"],
    }[library]
    fetch = lab.folder / "fetch.py"
    fetch.write_text(FETCH)
    options = ["--state", str(lab.folder / "state")] if kept else []
    server = lab.start(lab.python(*options, *program))
    address = server.wait_for("address: ").partition(": ")[2]
    client = lab.python(str(fetch), f"http://[{address}]:{port}/")
    # The process that watches the code has begun, and that which serves.
    times = 1 if library == "flask" else 2
    server.wait_for("started", times)
    answers(lab, client, "version 1")
    source.write_text(text.replace("version 1", "version 2"))
    server.wait_for("started", times + 1)
    answers(lab, client, "version 2")
    assert server.output.count("address: ") == 1


def answers(lab: Lab, client: list[str], wanted: str) -> None:
    """Asks until the server says so: it may not have begun to listen yet."""
    deadline = time.monotonic() + PATIENCE
    while lab.run(client) != wanted + "\n":
        assert time.monotonic() < deadline, lab.others()
