"""Sends a text to echo servers of its own in each network, and says where it came back as it was."""

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from peersock import net

PIECE = 1000
PATIENCE = 30


def stream(stack: ExitStack, network: str, address: str) -> Callable[[bytes], bytes]:
    listener: net.Listener[net.StreamConn] = stack.enter_context(net.listen(address, network))

    def serve() -> None:
        for server in listener:
            with server:
                for chunk in server.chunks():
                    server.write(chunk)

    threading.Thread(target=serve, daemon=True).start()
    client = stack.enter_context(net.dial(str(listener.addr()), network, timeout=PATIENCE))
    client.settimeout(PATIENCE)

    def exchange(data: bytes) -> bytes:
        client.write(data)
        received = b""
        while len(received) < len(data) and (chunk := client.read()):
            received += chunk
        return received

    return exchange


def answered(server: net.UDPConn | net.UnixConn) -> net.Addr:
    """Has a server answer datagrams. Gives its address."""

    def serve() -> None:
        try:
            while True:
                server.write_to(*server.read_from())
        except net.ClosedError:
            return

    threading.Thread(target=serve, daemon=True).start()
    return server.local_addr()


def udp(stack: ExitStack, network: str, address: str) -> Callable[[bytes], bytes]:
    server = stack.enter_context(net.listen_udp(net.resolve_udp_addr(address, network), network))
    client = stack.enter_context(net.dial(str(answered(server)), network))
    client.settimeout(PATIENCE)

    def exchange(data: bytes) -> bytes:
        client.write(data)
        return client.read()

    return exchange


def unixgram(stack: ExitStack, address: str, is_connected: bool) -> Callable[[bytes], bytes]:
    server = stack.enter_context(net.listen_unixgram(net.resolve_unixgram_addr(address)))
    server.set_unlink_on_close(True)
    there, own = answered(server), net.UnixAddr(f"{address}.client", "unixgram")
    assert isinstance(there, net.UnixAddr)
    client = stack.enter_context(net.dial_unix(own, there if is_connected else None, "unixgram"))
    client.set_unlink_on_close(True)
    client.settimeout(PATIENCE)

    def exchange(data: bytes) -> bytes:
        if is_connected:
            client.write(data)
            return client.read()
        client.write_to(data, there)
        return client.read_from()[0]

    return exchange


def opened(stack: ExitStack, name: str, address: str, path: str) -> Callable[[bytes], bytes]:
    """An exchange with an echo server."""
    if name.endswith("6"):
        host, port = net.split_host_port(address)
        address = net.join_host_port(host if ":" in host else "::1", port)
    if name.startswith("tcp"):
        return stream(stack, name, address)
    if name.startswith("udp"):
        return udp(stack, name, address)
    return stream(stack, name, path) if name == "unix" else unixgram(stack, path, name == "unix-connect")


def main() -> int:
    names = ["tcp", "tcp6", "udp", "udp6", "unix-client", "unix-connect", "unix"]
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("-n", nargs="+", choices=names, metavar="NETWORK", help=", ".join(names))
    which.add_argument("-all", dest="n", action="store_const", const=names, help="all of these")
    parser.add_argument("-a", default="127.0.0.1:0", metavar="IP:PORT", help="where servers listen (%(default)s)")
    parser.add_argument("-u", metavar="PATH", help="the path where they listen")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-t", default="hello", metavar="TEXT", help="what is sent (%(default)s)")
    what.add_argument("-f", type=Path, metavar="FILE", help="the file that is sent")
    options = parser.parse_args()
    data = options.f.read_bytes() if options.f else options.t.encode()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.n:
            try:
                with ExitStack() as stack:
                    exchange = opened(stack, name, options.a, options.u or os.path.join(folder, "socket"))
                    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
                    is_same = all(exchange(piece) == piece for piece in pieces)
                    outcome = f"{len(data)} bytes came back" if is_same else "something else came back"
            except net.SocketError as error:
                is_same, outcome = False, str(error)
            print(f"{name}: {outcome}", flush=True)
            failed += not is_same
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
