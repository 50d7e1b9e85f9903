"""An echo server (-l), or a client that sends it its input and prints what comes back (-d).

Over the overlay if PEERSOCK_NETWORK names a network, otherwise, and to all other addresses, by the kernel.
"""

import argparse
import contextlib
import os
import sys
import threading

import peersock
from peersock import net


def serve(network: str, address: str) -> None:
    if network.startswith("udp") or network == "unixgram":
        with listen_datagrams(network, address) as conn:
            print(conn.local_addr(), flush=True)
            while True:
                data, sender = conn.read_from()
                conn.write_to(data, sender)
    with net.listen(address, network) as listener:
        print(listener.addr(), flush=True)
        for stream in listener:
            threading.Thread(target=echo, args=(stream,), daemon=True).start()


def listen_datagrams(network: str, address: str) -> net.UDPConn | net.UnixConn:
    if network.startswith("udp"):
        return net.listen_udp(net.resolve_udp_addr(address, network), network)
    conn = net.listen_unixgram(net.resolve_unixgram_addr(address))
    conn.set_unlink_on_close(True)
    return conn


def echo(stream: net.Conn) -> None:
    with stream, contextlib.suppress(ConnectionError):
        while data := stream.read():
            stream.write(data)


def dial(network: str, address: str) -> None:
    with dialed(network, address) as conn:
        conn.settimeout(30)
        for line in sys.stdin.buffer:
            conn.write(line)
            left = len(line)
            while left:
                data = conn.read()
                if not data:
                    sys.exit("the server has closed the connection")
                sys.stdout.buffer.write(data)
                left -= len(data)
            sys.stdout.flush()


def dialed(network: str, address: str) -> net.Conn:
    if network != "unixgram":
        return net.dial(address, network, timeout=30)
    # A sender without a path gets no answer.
    own = net.UnixAddr(f"{address}.{os.getpid()}", "unixgram")
    conn = net.dial_unix(own, net.resolve_unixgram_addr(address), network)
    conn.set_unlink_on_close(True)
    return conn


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument("-l", dest="run", action="store_const", const=serve, help="listen")
    side.add_argument("-d", dest="run", action="store_const", const=dial, help="dial")
    networks = ["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixgram"]
    parser.add_argument("-n", default="tcp", choices=networks, metavar="NETWORK", help=", ".join(networks))
    parser.add_argument("-a", required=True, metavar="ADDRESS", help="HOST:PORT or a path")
    options = parser.parse_args()
    with peersock.Session() if os.environ.get("PEERSOCK_NETWORK") else contextlib.nullcontext() as session:
        if session is not None:
            print(session.address, file=sys.stderr, flush=True)
        try:
            options.run(options.n, options.a)
        except net.SocketError as error:
            sys.exit(f"{parser.prog}: {error}")
