"""What a session is given: checked at once, said by name, and after an error nothing is left behind."""

from __future__ import annotations

import gc
import inspect
import os
import re
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

import peersock
from peersock import _peersock, socket

from .conftest import Network, run_python

AD_HOC = "ff0001ffff000000"
ALONE = (
    f"import errno, os, peersock; from peersock import socket; AD_HOC = '{AD_HOC}'\n"
    "def open(*networks, **more): return peersock.Session(list(networks) or AD_HOC, interfaces='loopback', **more)\n"
    "def refused(kind, call, *words):\n"
    "    try: got = call()\n"
    "    except kind as error: assert all(word in str(error) for word in words), error\n"
    "    else: raise AssertionError(got)\n"
)

WRONG: list[tuple[type[Exception], dict[str, Any], str]] = [
    (TypeError, {"secret": 5}, "secret"),
    (TypeError, {"secret": object()}, "secret"),
    (TypeError, {"secret": ["a"]}, "secret"),
    (TypeError, {"secret": True}, "secret"),
    (ValueError, {"secret": bytearray(31)}, "32 bytes"),
    (ValueError, {"secret": memoryview(bytes(32))}, "zeros"),
    (ValueError, {"secret": ""}, "secret"),
    (TypeError, {"linger": "x"}, "linger"),
    (ValueError, {"linger": -1}, "linger"),
    (ValueError, {"linger": float("nan")}, "linger"),
    (TypeError, {"linger": None}, "linger"),
    (TypeError, {"ready_timeout": "1"}, "ready_timeout"),
    (ValueError, {"ready_timeout": -1}, "ready_timeout"),
    (ValueError, {"port": 70000}, "port is from 0 to 65535, not 70000"),
    (TypeError, {"port": "80"}, "port"),
    (TypeError, {"port": True}, "port"),
    (ValueError, {"discovery_port": 0}, "discovery_port"),
    (TypeError, {"discovery": "no"}, "discovery"),
    (TypeError, {"only": "no"}, "only"),
    (TypeError, {"keep": 1}, "keep"),
    (ValueError, {"bind": "elsewhere"}, "bind"),
    (ValueError, {"bind": "both", "only": True}, "only=True"),
    (ValueError, {"bind": "kernel", "only": True}, "only=True"),
    (TypeError, {"buffers": 5}, "buffers"),
    (ValueError, {"buffers": (0, 1)}, "buffer"),
    (TypeError, {"roots": 5}, "roots"),
    (TypeError, {"roots": [b"lan"]}, "roots"),
    (ValueError, {"roots": "nonsense"}, "peersock root"),
    (ValueError, {"roots": ["lan", "dns:a/b"]}, "dns:"),
    (FileNotFoundError, {"roots": "@/nowhere/roots"}, "/nowhere/roots"),
    (TypeError, {"turn": 5}, "TURN servers"),
    (TypeError, {"turn": [b"turn:u:p@h"]}, "TURN servers"),
    (ValueError, {"turn": "nonsense"}, "turn:USER:PASSWORD@HOST:PORT"),
    (ValueError, {"turn": ["turn:u:p@h", "turns:u:p@h?transport=udp"]}, "by turns: over TLS"),
    (FileNotFoundError, {"turn": "@/nowhere/turn"}, "/nowhere/turn"),
    (TypeError, {"stun": 5}, "STUN servers"),
    (ValueError, {"stun": ["192.0.2.1:3478", "nonsense"]}, "HOST:PORT"),
    (TypeError, {"dht": True}, "dht is"),
    (ValueError, {"dht": "somewhere"}, "IPV4:PORT"),
    (TypeError, {"port_mapping": 1}, "port_mapping"),
    (TypeError, {"birthday": "no"}, "birthday"),
    (TypeError, {"tcp_punch": None}, "tcp_punch"),
    (TypeError, {"introduce": "no"}, "introduce"),
    (TypeError, {"busy_poll": "often"}, "busy_poll"),
    (ValueError, {"busy_poll": 10_001}, "busy_poll is from 0 to 10000"),
    (TypeError, {"only_suite": 5}, "only_suite"),
    (ValueError, {"only_suite": "AES"}, "AES-256-GCM or ChaCha20-Poly1305"),
    (TypeError, {"identity": 5}, "identity"),
    (ValueError, {"identity": b"short"}, "32 bytes"),
    (TypeError, {"interfaces": [5]}, "interfaces"),
    (ValueError, {"interfaces": []}, "interfaces"),
    (FileNotFoundError, {"static": "/nowhere/network.toml"}, "/nowhere/network.toml"),
    (TypeError, {"net_id": b"ff0001ffff000000"}, "bytes"),
    (TypeError, {"net_id": True}, "bool"),
    (TypeError, {"net_id": 1.5}, "float"),
    (TypeError, {"net_id": [AD_HOC, b"x"]}, "bytes"),
    (ValueError, {"net_id": "zzz"}, "zzz"),
    (ValueError, {"net_id": -1}, "64 bits"),
]


#: The same in every process: without the addresses of objects.
NAMES = [re.sub(" at 0x[0-9a-f]+", "", str(wrong)) for _, wrong, _ in WRONG]


@pytest.mark.parametrize(("kind", "arguments", "says"), WRONG, ids=NAMES)
def test_wrong_arguments_are_refused_by_name(kind: type[Exception], arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(kind) as caught:
        peersock.Session(**{"net_id": AD_HOC, **arguments})
    assert says in str(caught.value)
    assert "Named(" not in str(caught.value)
    assert type(caught.value) is kind
    if isinstance(caught.value, OSError):
        assert caught.value.errno


def test_each_setting_of_a_node_is_a_keyword() -> None:
    renamed = {"state": "identity", "seed": "identity", "tcp_buffers": "buffers"}
    names = {renamed.get(name, name) for name in _peersock.setting_names()}
    assert names <= set(inspect.signature(peersock.Session).parameters)


def test_settings_reach_the_node() -> None:
    run_python(
        ALONE + "with open(identity=bytes(range(32)), port=0, discovery=False, discovery_port=7, introduce=False,\n"
        "          buffers=(1 << 16, 1 << 16), roots=(), turn=(), stun='127.0.0.1:9', dht='off', port_mapping=False,\n"
        "          birthday=False, tcp_punch=False, busy_poll=0, only_suite='ChaCha20-Poly1305') as session:\n"
        "    assert session.public_key == peersock.public_key(bytes(range(32)))\n"
        "    with socket.create_server((session.address, 0), family=socket.AF_INET6) as server:\n"
        "        client = socket.create_connection(server.getsockname()[:2], timeout=10)\n"
        "        accepted = server.accept()[0]; accepted.sendall(b'x'); assert client.recv(1) == b'x'\n"
        "        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 1 << 17\n"
    )


def test_an_interface_that_is_not_there_is_named() -> None:
    code = (
        f"import errno, peersock\ntry: peersock.Session('{AD_HOC}', interfaces='eth99')\n"
        "except OSError as error: print(error.errno == errno.ENODEV, error.strerror)\n"
    )
    said = run_python(code)
    assert said.startswith("True") and "eth99" in said and "lo" in said and "Named" not in said


def test_failures_leave_nothing_behind(tmp_path: Path) -> None:
    code = ALONE + (
        "before = dict(os.environ)\n"
        "for wrong in (dict(linger=-1), dict(linger='x'), dict(identity='/dev/null/state'), dict(secret=object())):\n"
        "    refused((TypeError, ValueError, OSError), lambda: open(**wrong))\n"
        "refused(FileNotFoundError, lambda: open(AD_HOC, '/nowhere/network.toml'))\n"
        "refused(TimeoutError, lambda: open(AD_HOC, '0123456789abcdef', ready_timeout=0.1), 'controller')\n"
        "assert dict(os.environ) == before\n"
        "with socket.create_server(('', 0)) as server:\n"
        "    client = socket.create_connection(server.getsockname(), timeout=10)\n"
        "    server.accept()[0].sendall(b'x'); assert client.recv(1) == b'x'\n"
        "with open(): pass\n"
        "assert dict(os.environ) == before\n"
        "with open() as outer:\n"
        "    refused(FileNotFoundError, lambda: peersock.Session(['ff00500050000000', '/nowhere/network.toml']))\n"
        "    assert len(outer.status()['networks']) == 1\n"
        "print('clean')\n"
    )
    said = run_python(code, PEERSOCK_NODE="", PEERSOCK_STATE="", XDG_STATE_HOME=str(tmp_path))
    assert said == "clean\n"


def test_a_network_is_used_with_the_secret_that_it_was_joined_with() -> None:
    code = ALONE + (
        "key = bytes(range(32))\n"
        "with open(secret=None):\n"
        "    for secret in ('abc', key): refused(ValueError, lambda: open(secret=secret), 'secret')\n"
        "for secret, others in (('abc', ('abd', key)), (key, ('abc', bytes(31) + b'x'))):\n"
        "    with open(secret=secret) as first:\n"
        "        for other in others: refused(ValueError, lambda: open(secret=other), 'secret')\n"
        "        for same in (secret, None):\n"
        "            with open(secret=same) as second: assert second.address == first.address\n"
        "        status = first.status(); assert len(status['networks']) == 1, status\n"
        "for form in (bytearray, memoryview):\n"
        "    with open(secret=form(key)):\n"
        "        refused(ValueError, lambda: open(secret='abc'), 'secret')\n"
        "        with open(secret=key): pass\n"
        "print('kept')\n"
    )
    assert run_python(code) == "kept\n"


def test_a_static_network_is_shared_if_its_file_says_the_same(network: Network, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(network.path.read_text().replace('name = "there"', 'name = "elsewhere"'))
    code = ALONE + (
        "import sys; path, other, seed = sys.argv[1:]\n"
        "with open(path, identity=bytes.fromhex(seed)) as first:\n"
        "    with open(path, identity=bytes.fromhex(seed)) as second: assert second.address == first.address\n"
        "    refused(ValueError, lambda: open(other, identity=bytes.fromhex(seed)), 'members')\n"
        "print('shared')\n"
    )
    assert run_python(code, str(network.path), str(other), network.spare().hex()) == "shared\n"


def test_inner_sessions_do_not_change_the_rules() -> None:
    code = ALONE + (
        "with open(only=True):\n"
        "    rules = os.environ['PEERSOCK_RULES']\n"
        "    refused(ValueError, lambda: open(only=False), 'only')\n"
        "    refused(ValueError, lambda: open(bind='kernel'), 'bind')\n"
        "    with open(), open(only=True), open(bind='overlay'): pass\n"
        "    assert os.environ['PEERSOCK_RULES'] == rules\n"
        "    sock = socket.socket(); assert sock.connect_ex(('127.0.0.1', 9)) == errno.ENETUNREACH\n"
        "with open(bind='kernel'):\n"
        "    refused(ValueError, lambda: open(bind='overlay'), 'bind')\n"
        "    refused(ValueError, lambda: open(only=True), 'only')\n"
        "    with open(): pass\n"
        "    assert os.environ['PEERSOCK_RULES'] == 'bind=kernel'\n"
        "print('kept')\n"
    )
    assert run_python(code) == "kept\n"


def test_sessions_come_and_go_in_many_threads() -> None:
    code = ALONE + (
        "import random, threading\n"
        "failures = []\n"
        "def work(number):\n"
        "    networks = [AD_HOC, 'ff00500050000000', 'ff00510051000000']\n"
        "    try:\n"
        "        for step in range(20):\n"
        "            two = networks[(number + step) % 3], networks[step % 3]\n"
        "            with open(*two, linger=1) as session: session.address\n"
        "    except BaseException as error: failures.append(repr(error))\n"
        "threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "assert not failures, failures\n"
        "assert 'PEERSOCK_NODE' not in os.environ\n"
        "print('done')\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PEERSOCK_")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert (run.stdout, run.stderr) == ("done\n", "")


def test_a_session_that_is_dropped_open_is_warned_of() -> None:
    code = ALONE + (
        "import gc, warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    session = open(); del session; gc.collect()\n"
        "    with open(): pass\n"
        "    kept = open(keep=True); del kept; gc.collect()\n"
        "assert [warning.category for warning in caught] == [ResourceWarning], caught\n"
        "print('unclosed' in str(caught[0].message))\n"
    )
    assert run_python(code) == "True\n"


def test_a_forked_child_knows_its_parent_s_addresses(session: peersock.Session) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = repr((session.address, session.addresses, session.address4, session.id, session.public_key))
        try:
            session.peers()
        except OSError as error:
            said += f" {error.strerror}"
        os.write(writer, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    own = repr((session.address, session.addresses, session.address4, session.id, session.public_key))
    assert said.startswith(own)
    assert "parent" in said


def test_everything_public_is_documented() -> None:
    gc.collect()
    undocumented = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in (peersock, socket):
            names = peersock.__all__ if module is peersock else ["socket"]
            for name in names:
                thing = getattr(module, name)
                if isinstance(thing, (str, types.ModuleType)):
                    continue
                if not inspect.getdoc(thing):
                    undocumented.append(name)
                if inspect.isclass(thing):
                    for member, value in vars(thing).items():
                        is_public = not member.startswith("_") and (callable(value) or isinstance(value, property))
                        if is_public and not value.__doc__:
                            undocumented.append(f"{name}.{member}")
    assert undocumented == []


def test_ports_that_are_not_allowed_are_named_with_those_that_are() -> None:
    code = ALONE + (
        "with open('ff13881393000000') as session:\n"
        "    words = ('port 80', 'ff13881393000000', '5000 to 5011')\n"
        "    with socket.socket(socket.AF_INET6) as sock:\n"
        "        refused(PermissionError, lambda: sock.bind((session.address, 80)), *words)\n"
        "        refused(PermissionError, lambda: sock.connect((session.address, 80)), *words)\n"
        "    for where in ('', '::', session.address):\n"
        "        refused(PermissionError, lambda: socket.create_server((where, 80), family=socket.AF_INET6), *words)\n"
        "    refused(PermissionError, lambda: socket.create_server(('', 80)), *words)\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        with socket.socket(socket.AF_INET6) as sock:\n"
        "            refused(PermissionError, lambda: sock.bind((session.address, 80)), *words)\n"
        "        os._exit(7)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert run_python(code) == "7\n"


def test_a_datagram_socket_that_nobody_reaches_is_told_of() -> None:
    code = ALONE + (
        "import warnings\n"
        "with open('ff13881393000000') as session, warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    for port in (5001, 0, 80):\n"
        "        for where in (session.address, '::'):\n"
        "            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:\n"
        "                sock.bind((where, port))\n"
        "    for warning in said: print(warning.category.__name__, warning.filename, warning.message)\n"
    )
    says = "no other member reaches UDP port 80: network ff13881393000000 allows ports 5000 to 5011"
    assert run_python(code).splitlines() == [f"RuntimeWarning <string> {says}"] * 2
