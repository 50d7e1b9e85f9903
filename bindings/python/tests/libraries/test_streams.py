"""Libraries that speak their own protocols: socketserver, TLS, SSH."""

from __future__ import annotations

import pytest

from tests.libraries.certificates import make_certificate
from tests.libraries.lab import Lab


@pytest.mark.parametrize("kind", ["streams", "forking"])
def test_socketserver_serves_streams(lab: Lab, kind: str) -> None:
    host, port = lab.start(lab.program("http_server.py", f"socketserver_{kind}")).ready()
    lab.client("socketserver_client.py", "streams", host, str(port))


def test_socketserver_serves_datagrams(lab: Lab) -> None:
    host, port = lab.start(lab.program("http_server.py", "socketserver_datagrams")).ready()
    lab.client("socketserver_client.py", "datagrams", host, str(port))


def test_pyopenssl_on_both_sides(lab: Lab) -> None:
    certificate, key = make_certificate(lab.folder)
    host, port = lab.start(lab.program("tls_echo.py", "serve", certificate, key)).ready()
    lab.client("tls_echo.py", "client", host, str(port), certificate)


def test_paramiko_on_both_sides(lab: Lab) -> None:
    host, port = lab.start(lab.program("ssh.py", "serve")).ready()
    lab.client("ssh.py", "client", host, str(port))


def test_uvloop_with_sockets_of_python(lab: Lab) -> None:
    host, port = lab.start(lab.program("uvloop_streams.py", "serve")).ready()
    lab.client("uvloop_streams.py", "client", host, str(port))


def test_mail_by_smtplib(lab: Lab) -> None:
    host, port = lab.start(lab.program("mail.py", "serve")).ready()
    lab.client("mail.py", "client", host, str(port))
