"""Libraries and servers that make their own system calls: they are on the overlay by ``peersock run``, and libraries by
``python -m peersock run``, too. Their clients in Python need no launcher where the library leaves the socket to Python.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.libraries.lab import PROGRAMS, Lab


def test_redis_py_and_redis_server(lab: Lab) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    options = ["--bind", "::", "--port", "6379", "--protected-mode", "no", "--save", "", "--appendonly", "no"]
    address = lab.address("server")
    server = lab.start(lab.under_run("server", "redis-server", *options))
    server.wait_for("Ready to accept connections")
    lab.client("redis_client.py", address, "6379")


#: The command that preloads the library which takes their calls.
BOTH = pytest.mark.parametrize("by", ["peersock", "python"])


@BOTH
def test_psycopg_and_postgresql(lab: Lab, by: str) -> None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not versions:
        pytest.skip("PostgreSQL is not installed")
    if os.getuid() == 0 and shutil.which("runuser") is None:
        pytest.skip("runuser is missing, to become the user postgres")
    address = lab.address("server")
    server = lab.start(lab.under_run("server", *start_postgresql(lab.folder, versions[-1].parent)))
    server.wait_for("database system is ready to accept connections")
    lab.check(lab.python_of("client", by, str(PROGRAMS / "postgres_client.py"), address, "5432"))


def start_postgresql(folder: Path, programs: Path) -> list[str]:
    """The command that makes a database and serves it. The server refuses to be root."""
    # Only a user who knows the name gets through the folders above.
    for above in (folder, *folder.parents):
        if above == Path(tempfile.gettempdir()):
            break
        above.chmod(above.stat().st_mode | 0o011)
    data = folder / "data"
    data.mkdir(mode=0o700)
    script = folder / "start"
    script.write_text(
        f"cd {data} && {programs}/initdb -D {data} -A trust -U postgres --no-sync &&"
        f" echo 'host all all all trust' >> {data}/pg_hba.conf &&"
        f" exec {programs}/postgres -D {data} -F -c 'listen_addresses=*' -c unix_socket_directories=\n"
    )
    script.chmod(0o755)
    if os.getuid() != 0:
        return ["sh", str(script)]
    shutil.chown(data, "postgres")
    return ["runuser", "-u", "postgres", "--", "sh", str(script)]


@BOTH
def test_grpc_on_both_sides(lab: Lab, by: str) -> None:
    address, port = lab.address("server"), str(random.randrange(20_000, 30_000))
    lab.start(lab.python_of("server", by, str(PROGRAMS / "rpc.py"), "serve", port))
    lab.check(lab.python_of("client", by, str(PROGRAMS / "rpc.py"), "client", address, port))


@pytest.mark.parametrize(("library", "client"), [("uvicorn_uvloop", "aiohttp"), ("gevent", "httpx")])
@BOTH
def test_servers_with_loops_of_their_own(lab: Lab, library: str, client: str, by: str) -> None:
    address = lab.address("server")
    program = str(PROGRAMS / "http_server.py")
    server = lab.start(lab.python_of("server", by, program, library))
    lab.client("http_client.py", client, f"http://[{address}]:{server.port()}")
