"""Sessions: the node, its networks, and what it says."""

from __future__ import annotations

import os
import stat
from dataclasses import asdict, fields
from ipaddress import ip_address
from pathlib import Path

import pytest

import peersock
from peersock import socket

from .conftest import PEER, ROOT, Network, Peer, run_python

ALONE = 'import peersock; from peersock import socket; AD_HOC = "ff0001ffff000000"\n'


def test_addresses_and_identity(session: peersock.Session, network: Network) -> None:
    assert session.networks == [0xFE00000000000001]
    assert session.address == session.addresses[0]
    assert socket.inet_pton(socket.AF_INET6, session.address)
    assert session.address4 == network.v4["here"]
    assert session.public_key == peersock.public_key(network.seeds["here"])
    assert len(session.id) == 64
    assert not session.closed
    assert "fe00000000000001" in repr(session)


def test_peers_and_status(session: peersock.Session, peer: Peer) -> None:
    # Tests that were before have perhaps not used the peer for minutes.
    assert session.wait_peer(peer.v6, 20)
    known = next(known for known in session.peers() if peer.v6 in known.addresses)
    assert known.connected
    assert known.path is not None
    # The first one follows from its key: it alone can have it.
    assert known.address == known.addresses[0] == peer.v6
    for address in (peer.v6, peer.v4, ip_address(peer.v6)):
        there = session.peer_at(address)
        assert there is not None and (there.name, there.machine) == ("there", there.node)
    own = session.peer_at(session.address)
    assert own is not None and own.node == session.id
    # A free address of the network, one of the kernel's, and one that leads nowhere.
    for nobody in ("10.66.0.250", "127.0.0.1", "::1", "2001:db8::1", "255.255.255.255", "ff02::1"):
        assert session.peer_at(nobody) is None
    with pytest.raises(ValueError):
        session.peer_at("there")
    status = session.status()
    assert status["node_id"] == session.id
    assert status["counters"]


def test_attempts_are_told_by_the_names_of_the_status(session: peersock.Session, peer: Peer) -> None:
    known = next(known for known in session.status()["peers"] if peer.v6 in known["addresses"])
    # There is a direct path.
    assert known["attempts"] == []
    assert peersock.Peer.from_json(known).attempts == ()
    names = [field.name for field in fields(peersock.Attempt)]
    assert names == ["address", "kind", "vouched", "sent", "tried_s", "answered", "outcome"]
    tried = [
        dict(zip(names, values, strict=True))
        for values in (
            ("192.0.2.1:7420", "mapped", True, 6, 0.5, False, "no answer"),
            ("[2001:db8::1]:0", "birthday", False, 0, None, False, "not tried"),
        )
    ]
    # A later node may tell more.
    told = peersock.Peer.from_json({**known, "attempts": [{**attempt, "more": 1} for attempt in tried]})
    assert [asdict(attempt) for attempt in told.attempts] == tried
    assert told == peersock.Peer.from_json({**known, "attempts": tried})
    assert hash(told.attempts[0])


def test_sockets_of_a_session(session: peersock.Session, peer: Peer) -> None:
    with session.socket() as sock:
        assert (sock.family, sock.type) == (socket.AF_INET6, socket.SOCK_STREAM)
        sock.settimeout(10)
        sock.connect((peer.v6, peer.port("silent")))


def test_networks_are_named_in_many_ways(tmp_path: Path) -> None:
    # An identity is one process's at a time.
    network = Network(tmp_path)
    code = ALONE + (
        "import pathlib, sys\n"
        "for name in (0xff0001ffff000000, AD_HOC, '0x' + AD_HOC, [AD_HOC], pathlib.Path(sys.argv[1])):\n"
        "    with peersock.Session(name, identity=bytes.fromhex(sys.argv[2]), interfaces='loopback') as session:\n"
        "        print(session.address)\n"
        "with peersock.Session(AD_HOC, static=sys.argv[1], identity=bytes.fromhex(sys.argv[2]),\n"
        "                      interfaces='loopback') as session:\n"
        "    print(*session.addresses)\n"
    )
    lines = run_python(code, str(network.path), network.seeds["here"].hex()).splitlines()
    assert len(set(lines[:4])) == 1
    assert lines[5].split() == [lines[0], lines[4], network.v4["here"]]


def test_a_secret_does_not_part_a_node_from_its_static_network(tmp_path: Path) -> None:
    network = Network(tmp_path)
    code = ALONE + (
        "import os, sys\n"
        "seed = bytes.fromhex(sys.argv[2])\n"
        "try: peersock.Session(sys.argv[1], secret='horse', identity=seed, interfaces='loopback')\n"
        "except ValueError as error: print('its own file' in str(error))\n"
        "with peersock.Session(sys.argv[1], identity=seed, interfaces='loopback'):\n"
        "    with peersock.Session([AD_HOC, sys.argv[1]], secret='horse') as both: print(len(both.networks))\n"
        # The tests' own session may be a parent here, and an empty passphrase is right in its children.
        "os.environ.pop('PEERSOCK_NODE', None)\n"
        "os.environ.update(PEERSOCK_NETWORK=AD_HOC, PEERSOCK_SECRET='')\n"
        "try: peersock.Session(interfaces='loopback')\n"
        "except ValueError as error: print('secret is empty' in str(error))\n"
    )
    assert run_python(code, str(network.path), network.seeds["here"].hex()) == "True\n2\nTrue\n"


@pytest.mark.parametrize(
    "wrong",
    [
        "'ff0001ffff00000'",
        "'fe00000000000001'",
        "None",
        "1 << 64",
        "AD_HOC, secret=''",
        "0x0123456789abcdef, secret='correct horse'",
        "AD_HOC, secret=b'short'",
        "AD_HOC, identity=b'short'",
        "AD_HOC, bind='elsewhere'",
        "AD_HOC, buffers=(0, 1)",
        "AD_HOC, interfaces=[]",
    ],
)
def test_what_makes_no_sense_is_a_value_error(wrong: str) -> None:
    code = ALONE + f"\ntry: peersock.Session({wrong})\nexcept ValueError as error: print(error)"
    assert run_python(code).strip()


def test_a_managed_network_that_nobody_lets_in_is_a_timeout_with_advice(tmp_path: Path) -> None:
    code = ALONE + (
        "begun = time.monotonic()\n"
        "try: peersock.Session(0x0123456789abcdef, interfaces='loopback', ready_timeout=0.2)\n"
        "except TimeoutError as error: print(error, time.monotonic() - begun < 20)"
    )
    said = run_python("import time; " + code, PEERSOCK_STATE="", XDG_STATE_HOME=str(tmp_path))
    assert said == "network 0123456789abcdef: no controller has answered this node True\n"
    # A member's identity is kept.
    assert (tmp_path / "peersock").is_dir()


def test_an_identity_is_kept_in_a_directory(tmp_path: Path) -> None:
    code = ALONE + "import sys; s = peersock.Session(AD_HOC, identity=sys.argv[1], interfaces='loopback'); print(s.id)"
    state = str(tmp_path / "state")
    assert run_python(code, state) == run_python(code, state)
    files = [path for path in (tmp_path / "state").iterdir() if path.is_file()]
    assert any(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    twice = (
        code + "\nimport subprocess; print(subprocess.run([sys.executable, '-c', sys.argv[2], sys.argv[1]]).returncode)"
    )
    refused = ALONE + (
        "import sys, errno\ntry: peersock.Session(AD_HOC, identity=sys.argv[1])\n"
        "except OSError as error: assert error.errno == errno.EBUSY, error"
    )
    assert run_python(twice, state, refused).splitlines()[1] == "0"


def test_sessions_share_the_process_s_node() -> None:
    code = ALONE + (
        "first = peersock.Session(AD_HOC, interfaces='loopback')\n"
        "second = peersock.Session('ff00500050000000')\n"
        "assert first.id == second.id and first.addresses != second.addresses\n"
        "same = peersock.Session(AD_HOC)\n"
        "assert same.address == first.address\n"
        "try: peersock.Session(AD_HOC, port=1)\n"
        "except ValueError: pass\n"
        "else: raise AssertionError\n"
        "name = first.id; first.close(); assert same.address; same.close(); assert second.id == name; second.close()\n"
        "assert second.closed\n"
        "kept = peersock.Session(AD_HOC, interfaces='loopback', keep=True); other = kept.id; assert other != name\n"
        "kept.close()\n"
        "again = peersock.Session(AD_HOC); assert again.id == other; again.close()\n"
        "assert peersock.stop()\n"
        "fresh = peersock.Session(AD_HOC, interfaces='loopback'); assert fresh.id not in (name, other)\n"
        "fresh.close(); fresh.close()\n"
        "try: fresh.address\n"
        "except ValueError: print('closed')\n"
    )
    assert run_python(code) == "closed\n"


def test_the_environment_names_the_network_where_nothing_else_does() -> None:
    code = ALONE + (
        "import os, sys\n"
        "os.environ['PEERSOCK_NETWORK'] = AD_HOC\n"
        "with peersock.Session(identity=bytes(range(32)), interfaces='loopback') as session:\n"
        "    print(session.networks == [int(AD_HOC, 16)])\n"
        "    with peersock.Session('ff00500050000000') as other: print(other.networks == [0xff00500050000000])\n"
        "    try: peersock.Session(AD_HOC, secret='horse')\n"
        "    except ValueError as error: print('secret' in str(error))\n"
        "os.environ['PEERSOCK_SECRET'] = 'horse'\n"
        "with peersock.Session(interfaces='loopback') as session:\n"
        "    peersock.Session(AD_HOC, secret='horse').close()\n"
        "    try: peersock.Session(AD_HOC, secret='donkey')\n"
        "    except ValueError as error: print('secret' in str(error))\n"
        "del os.environ['PEERSOCK_NETWORK']\n"
        "with peersock.Session(AD_HOC, interfaces='loopback') as session:\n"
        "    print(session.status()['networks'][0]['secret'])\n"
        "    with peersock.Session('ff00500050000000', secret='donkey') as other:\n"
        "        peersock.Session('ff00500050000000').close()\n"
        "os.environ['PEERSOCK_NETWORK'] = 'nowhere'\n"
        "try: peersock.Session()\n"
        "except ValueError as error: print('nowhere' in str(error))\n"
    )
    assert run_python(code) == "True\n" * 6


LOSES = ALONE + (
    "import asyncio\n"
    "def lose(session):\n"
    "    with session.socket() as server:\n"
    "        server.bind((session.address, 0)); server.listen()\n"
    "        sock = session.socket(); sock.connect(server.getsockname()[:2]); reader, _ = server.accept()\n"
    "        sock.settimeout(2)\n"
    "        try: sock.sendall(bytes(1 << 30))\n"
    "        except TimeoutError: return sock, reader\n"
    "    raise AssertionError\n"
)


def test_a_block_that_loses_something_raises() -> None:
    code = LOSES + (
        "try:\n"
        "    with peersock.Session(AD_HOC, interfaces='loopback', linger=0.1) as session: held = lose(session)\n"
        "except ConnectionError as error: print(error)\n"
        "async def main():\n"
        "    async with peersock.Session(AD_HOC, interfaces='loopback', linger=0.1) as session:\n"
        "        return lose(session)\n"
        "try: held = asyncio.run(main())\n"
        "except ConnectionError as error: print(error)\n"
        "try:\n"
        "    with peersock.Session(AD_HOC, interfaces='loopback', linger=0.1) as session:\n"
        "        held = lose(session); raise KeyError('first')\n"
        "except KeyError as error: print(error)\n"
        "with peersock.Session(AD_HOC, interfaces='loopback'): print('nothing')\n"
    )
    lost = "not everything that was sent was delivered before the session ended"
    assert run_python(code).splitlines() == [lost, lost, "'first'", "nothing"]


def test_only_refuses_what_is_not_the_overlay_s(session: peersock.Session) -> None:
    code = ALONE + (
        "import errno\n"
        "with peersock.Session(AD_HOC, interfaces='loopback', only=True):\n"
        "    for address in (('127.0.0.1', 9), ('192.0.2.1', 9), ('localhost', 9)):\n"
        "        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n"
        "            with socket.socket(socket.AF_INET, kind) as sock:\n"
        "                assert sock.connect_ex(address) == errno.ENETUNREACH\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
        "        try: sock.sendto(b'', ('192.0.2.1', 9))\n"
        "        except OSError as error: print(error.errno == errno.ENETUNREACH)\n"
    )
    assert run_python(code) == "True\n"


def test_a_wildcard_may_be_the_kernel_s() -> None:
    code = ALONE + (
        "with peersock.Session(AD_HOC, interfaces='loopback', bind='kernel') as session:\n"
        "    with socket.create_server(('', 0)) as server:\n"
        "        client = socket.create_connection(('127.0.0.1', server.getsockname()[1]), timeout=10)\n"
        "        server.accept()[0].sendall(b'x'); print(client.recv(1))\n"
    )
    assert run_python(code) == "b'x'\n"


def test_events_come_to_who_iterates(tmp_path: Path) -> None:
    network = Network(tmp_path)
    code = (
        "import sys, asyncio, peersock\n"
        "path, seed, peer, root = sys.argv[1:5]\n"
        "with peersock.Session(path, identity=bytes.fromhex(seed), interfaces='loopback') as session:\n"
        "    with session.events() as events:\n"
        "        import subprocess; other = subprocess.Popen([sys.executable, '-m', peer, path, sys.argv[5]],\n"
        "            cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\n"
        "        address = other.stdout.readline().strip(); assert session.wait_peer(address, 20)\n"
        "        event = next(event for event in events if event.kind == 'peer_reachable')\n"
        "        assert event.peer and event.relayed is False and event.turn is False\n"
        "        assert event.kind is peersock.EventKind.PEER_REACHABLE and str(event.kind) == 'peer_reachable'\n"
        "        assert session.peers()[0].root is None and session.peers()[0].turn is False\n"
        "        while events.next_timeout(0.01) is not None: pass\n"
        "        assert events.next_timeout(0) is None\n"
        "    async def main():\n"
        "        async with session:\n"
        "            events = session.events(); other.stdin.close(); other.wait()\n"
        "            async for event in events:\n"
        "                if event.kind == 'peer_lost': return event.kind\n"
        "    print(asyncio.run(asyncio.wait_for(main(), 30)))\n"
    )
    seeds = [network.seeds[name].hex() for name in ("here", "there")]
    arguments = (str(network.path), seeds[0], PEER, str(ROOT), seeds[1])
    assert run_python(code, *arguments) == "peer_lost\n"


@pytest.mark.parametrize("given", ["None", "'{root} {other}'", "['{root}', '@{file}']", "''"])
def test_roots_are_those_given_or_those_of_the_environment(given: str, tmp_path: Path) -> None:
    keys = [peersock.public_key(bytes([seed]) * 32) for seed in (1, 2)]
    root, other = (f"{key}@127.0.0.1:{port}" for key, port in zip(keys, (9, 11), strict=True))
    (tmp_path / "roots").write_text(f"# ours\n{other}\n")
    code = (
        "import os, peersock\n"
        f"os.environ['PEERSOCK_ROOTS'] = '{root}\\n{other}'\n"
        f"roots = {given.format(root=root, other=other, file=tmp_path / 'roots')}\n"
        "with peersock.Session('ff0001ffff000000', interfaces='loopback', discovery=False, roots=roots) as session:\n"
        "    print([root['endpoints'] for root in session.status()['roots']])\n"
    )
    expected = [] if given == "''" else [["127.0.0.1:9"], ["127.0.0.1:11"]]
    assert run_python(code) == f"{expected}\n"


@pytest.mark.parametrize("given", ["None", "'{one} {other}'", "['{one}', '@{file}']", "''"])
def test_turn_servers_are_those_given_or_those_of_the_environment(given: str, tmp_path: Path) -> None:
    root = f"{peersock.public_key(bytes(32))}@127.0.0.1:9"
    one, other = "turn:alice:sesame@127.0.0.1:9?transport=tcp", "turns:bob:sesame@127.0.0.1:9"
    file = tmp_path / "turn"
    file.write_text(f"{other}\n")
    file.chmod(0o600)
    expected = [] if given == "''" else ["turn:alice@127.0.0.1:9?transport=tcp", "turns:bob@127.0.0.1:9"]
    code = (
        "import os, time, peersock\n"
        f"os.environ['PEERSOCK_TURN'] = '{one}\\n{other}'\n"
        f"turn = {given.format(one=one, other=other, file=file)}\n"
        f"with peersock.Session('ff0001ffff000000', interfaces='loopback', discovery=False, roots='{root}',\n"
        "                      turn=turn) as session:\n"
        "    assert 'sesame' not in repr(session._running)\n"
        "    end = time.monotonic() + 20\n"
        f"    while not (states := session.status()['turn']) and {expected} and time.monotonic() < end:\n"
        "        time.sleep(0.01)\n"
        "    print([state['server'] for state in states if state['family'] == 'ipv4'])\n"
    )
    assert run_python(code) == f"{expected}\n"


def test_without_a_session_all_is_the_kernel_s() -> None:
    code = (
        "import os; os.environ.pop('PEERSOCK_NODE', None)\n"
        "from peersock import socket\n"
        "with socket.create_server(('', 0)) as server:\n"
        "    client = socket.create_connection(server.getsockname(), timeout=10)\n"
        "    server.accept()[0].sendall(b'x'); print(client.recv(1))\n"
    )
    assert run_python(code) == "b'x'\n"


def test_the_environment_is_as_before_when_a_session_has_ended() -> None:
    code = ALONE + (
        "import os; before = dict(os.environ)\n"
        "with peersock.Session(AD_HOC, interfaces='loopback'): assert 'PEERSOCK_NODE' in os.environ\n"
        "print(os.environ == before)\n"
    )
    assert run_python(code, PEERSOCK_NODE="") == "True\n"
    assert "PEERSOCK_NODE" not in os.environ or os.environ["PEERSOCK_NODE"]


def test_settings_of_another_node_are_named() -> None:
    code = (
        "import peersock\n"
        "first = peersock.Session('ff0001ffff000000', interfaces='loopback')\n"
        "try: peersock.Session('ff0001ffff000000', interfaces='loopback', identity=bytes(32), discovery=False)\n"
        "except ValueError as error: print(error)\n"
    )
    assert run_python(code) == "this process has a node already, with other settings: identity, discovery\n"
