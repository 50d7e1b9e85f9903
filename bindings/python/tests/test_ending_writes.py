"""The end of a session while something waits to write, because the peer does not read."""

from __future__ import annotations

import pytest

from .alone import alone
from .conftest import run_python
from .peer import CERTIFICATE

#: More than all buffers on the way hold.
PIECE, MUCH = "bytes(1 << 16)", "bytes(1 << 28)"

#: Calls that wait for room.
CALLS = {
    "send": f"while True: client.send({PIECE})",
    "sendall": f"client.sendall({MUCH})",
    "sendmsg": f"while True: client.sendmsg([{PIECE}, {PIECE}])",
    "sendto": f"while True: client.sendto({PIECE}, (me, 9))",
    "file": f"with client.makefile('wb') as file: file.write({MUCH})",
    "sendfile": "file = tempfile.TemporaryFile(); file.truncate(1 << 30); client.sendfile(file)",
    "tls": f"client = tls(client, other); client.sendall({MUCH})",
    "close": "fill(client); linger(client); client.close()",
}
#: Errors other than ENETDOWN: closing tells that something was lost, and asyncio's own calls do not ask the node.
ERRORS = {"close": "ECONNRESET", "sendfile of a writer": "EPIPE"}

#: Undelivered data is given up at once, because no program reads it.
PROGRAM = f"""{alone(linger=0)}
def fill(sock):
    timeout = sock.gettimeout(); sock.settimeout(0.5)
    try:
        while True: sock.send({PIECE})
    except TimeoutError: sock.settimeout(timeout)

def linger(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))

def tls(client, other):
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); theirs.load_cert_chain({str(CERTIFICATE)!r})
    ours = ssl.create_default_context(cafile={str(CERTIFICATE)!r})
    with peersock.patched():
        accepts = Waiting(lambda: kept.append(theirs.wrap_socket(other, server_side=True)))
        client = ours.wrap_socket(client, server_hostname='here')
        accepts.thread.join()
    return client

kept = []
"""


@pytest.mark.parametrize("timeout", ["None", "3600"])
@pytest.mark.parametrize("call", CALLS)
def test_what_waits_for_room_when_the_session_ends_fails_at_once(call: str, timeout: str) -> None:
    code = PROGRAM + (
        f"client, other = pair({timeout})\n"
        "def call():\n"
        "    global client\n"
        f"    {CALLS[call]}\n"
        "waiting = Waiting(call)\n"
        "waiting.sleep(); session.close()\n"
        f"print(waiting.result() == errno.{ERRORS.get(call, 'ENETDOWN')} or waiting.result())\n"
    )
    assert run_python(code) == "True\n"


#: Waits for room by other means: they end, and then the call fails.
POLLS = {
    "select": "select.select([], [client], [])",
    "poll": "known = select.poll(); known.register(client, select.POLLOUT); known.poll()",
    "epoll": "known = select.epoll(); known.register(client, select.EPOLLOUT); known.poll()",
    "edges": (
        "known = select.epoll(); known.register(client, select.EPOLLOUT | select.EPOLLET); known.poll(0); known.poll()"
    ),
    "selectors": "known = selectors.DefaultSelector(); known.register(client, selectors.EVENT_WRITE); known.select()",
}


@pytest.mark.parametrize("polls", POLLS)
def test_who_polls_for_room_is_woken_and_told(polls: str) -> None:
    code = PROGRAM + (
        "client, other = pair(0)\n"
        "woken = 0\n"
        "def call():\n"
        "    global woken\n"
        "    while True:\n"
        f"        try: client.send({PIECE})\n"
        "        except BlockingIOError:\n"
        f"            {POLLS[polls]}\n"
        "            woken += 1\n"
        "waiting = Waiting(call)\n"
        "waiting.sleep(); before = woken\n"
        "session.close()\n"
        "print(waiting.result() == errno.ENETDOWN or waiting.result())\n"
        # Room may come in the last moment, too.
        "assert 1 <= woken - before <= 3, woken - before\n"
    )
    assert run_python(code) == "True\n"


OPEN = "_, writer = await asyncio.open_connection(sock=client)"
#: Calls for which tasks of asyncio wait.
TASKS = {
    "sock_sendall": f"client.setblocking(False); await loop.sock_sendall(client, {MUCH})",
    "drain": f"{OPEN}; writer.write({MUCH}); await writer.drain()",
    "closing": f"{OPEN}; writer.write({MUCH}); writer.close(); await writer.wait_closed()",
    "sendfile of a writer": f"{OPEN}; await loop.sendfile(writer.transport, file)",
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_that_waits_for_room_fails_at_once_and_the_loop_rests(task: str) -> None:
    code = PROGRAM + (
        "file = tempfile.TemporaryFile(); file.truncate(1 << 30)\n"
        "async def main(selector):\n"
        "    loop = asyncio.get_running_loop()\n"
        "    client, other = pair()\n"
        "    async def wait():\n"
        f"        {TASKS[task]}\n"
        "    waiting = asyncio.ensure_future(wait())\n"
        "    await rest(selector)\n"
        "    assert not waiting.done(), waiting\n"
        "    await asyncio.to_thread(session.close)\n"
        "    try: print(await asyncio.wait_for(waiting, 20))\n"
        f"    except OSError as error: print(error.errno == errno.{ERRORS.get(task, 'ENETDOWN')} or repr(error))\n"
        "    await rest(selector)\n"
        "    used = time.process_time(); await asyncio.sleep(0.5); used = time.process_time() - used\n"
        "    assert used < spun(0.5) / 20, used\n"
        "run(main)\n"
    )
    assert run_python(code) == "True\n"
