"""Peers that go at every stage, and senders that ought to be told: peers.py serve ADDRESS FIRST-PORT | send ADDRESS FIRST-PORT"""
import os, select, signal, socket, struct, sys

SIZES = 1, 4000, 300_000, 5_000_000


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half(connection, size):
    left = (size + 1) // 2
    while left:
        left -= len(connection.recv(min(left, 65536)))


def everything(connection, size):
    while connection.recv(65536):
        pass


def arrived(connection):
    select.select([connection], [], [], 60)


# Each is run in a process of its own, which dies or exits after it. Whether everything was delivered.
PEERS = [
    ("reads all", lambda c, size: everything(c, size), True),
    ("closes at once", lambda c, size: None, False),
    ("closes with data unread", lambda c, size: arrived(c), False),
    ("closes after half", half, False),
    ("resets at once", lambda c, size: reset(c), False),
    ("resets after half", lambda c, size: (reset(c), half(c, size)), False),
    ("dies with data unread", lambda c, size: (arrived(c), os.kill(os.getpid(), signal.SIGKILL)), False),
    ("dies after half", lambda c, size: (half(c, size), os.kill(os.getpid(), signal.SIGKILL)), False),
]


def serve(address, port):
    listeners = []
    for number in range(len(PEERS) * len(SIZES)):
        listeners.append(socket.create_server((address, port + number), backlog=10))
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        for listener in select.select(listeners, [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                for other in listeners:
                    other.close()
                which, size = divmod(listeners.index(listener), len(SIZES))
                PEERS[which][1](connection, SIZES[size])
                connection.close()
                os._exit(0)
            connection.close()


def send(address, port, size):
    connection = socket.create_connection((address, port))
    try:
        connection.sendall(b"x" * size)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return os.strerror(error) if error else "delivered"
    except OSError as error:
        return error.strerror
    finally:
        connection.close()


if sys.argv[1] == "serve":
    serve(sys.argv[2], int(sys.argv[3]))
for which, (name, _, delivered) in enumerate(PEERS):
    for at, size in enumerate(SIZES):
        # Of half of one byte all is read.
        delivered_now = delivered or ("half" in name and size == 1)
        told = send(sys.argv[2], int(sys.argv[3]) + which * len(SIZES) + at, size)
        # One that resets may do so before or after the last byte was read, and its end looks like the
        # others'.
        if delivered_now and "half" not in name and told != "delivered" or not delivered_now and told == "delivered":
            print(f"{name}, {size} bytes: {told}")
print("done")
