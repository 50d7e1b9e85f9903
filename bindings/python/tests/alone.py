"""Programs that are alone on a network of their own, so that they can end their session, and what they wait with."""

from __future__ import annotations


def alone(**options: object) -> str:
    """The beginning of such a program: its session has these options."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return f"""{HELPERS}
session = peersock.Session('ff0001ffff000000', interfaces='loopback'{given})
me = session.address
"""


HELPERS = '''\
import asyncio, errno, os, select, selectors, ssl, struct, sys, tempfile, threading, time
import peersock
from peersock import socket

def datagrams():
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); sock.bind((me, 0)); return sock

def pair(timeout=None):
    """Both ends of a connection."""
    server = socket.create_server((me, 0), family=socket.AF_INET6)
    client = socket.create_connection(server.getsockname()[:2]); other = server.accept()[0]
    server.close()
    for sock in (client, other): sock.settimeout(timeout)
    return client, other

def down(call, *arguments):
    """A call that fails because the session has ended."""
    try: got = call(*arguments)
    except OSError as error:
        assert error.errno == errno.ENETDOWN, (call, error)
        assert "node has ended" in error.strerror, (call, error)
    else: raise AssertionError((call, got))

def spun(seconds, clock=time.thread_time):
    """The processor time that a loop takes in which nothing waits, on this machine as it is now."""
    begun, used = time.monotonic(), clock()
    while time.monotonic() - begun < seconds: pass
    return clock() - used

def asleep():
    """For how long this thread has slept since some time: neither run, nor waited for a processor."""
    run, waited, _ = map(int, open('/proc/thread-self/schedstat').read().split())
    return time.monotonic() - (run + waited) / 1e9

class Waiting:
    """A call in a thread of its own."""

    def __init__(self, call):
        self.results = []
        def run():
            try: self.results.append(call())
            except OSError as error: self.results.append(error.errno)
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def sleep(self):
        """Waits until the thread has slept for half a second: it has not taken any processor time, not even to look."""
        clock = time.pthread_getcpuclockid(self.thread.ident)
        for _ in range(60):
            used = time.clock_gettime(clock); time.sleep(0.5)
            assert self.thread.is_alive(), self.results
            if time.clock_gettime(clock) == used: return
        raise AssertionError('the call does not wait')

    def result(self):
        """What became of it: what it has returned, or the number of its error."""
        self.thread.join(20)
        return self.results[0] if self.results else 'waits'

class Selector(selectors.DefaultSelector):
    """Counts how often the loop was woken."""

    woken = 0

    def select(self, timeout=None):
        ready = super().select(timeout)
        self.woken += 1
        return ready

def run(main):
    """Runs a coroutine, which is told of its selector."""
    selector = Selector()
    loop = asyncio.SelectorEventLoop(selector)
    try: return loop.run_until_complete(main(selector))
    finally: loop.close()

async def rest(selector):
    """Waits until the loop has rested for half a second, in which no more than the timer of that has woken it."""
    for _ in range(60):
        woken = selector.woken; await asyncio.sleep(0.5)
        # A timer may be a little early.
        if selector.woken - woken <= 2: return
    raise AssertionError('the loop does not rest')
'''
