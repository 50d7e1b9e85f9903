import sys

import peersock

with peersock.Session(sys.argv[1]) as session, session.socket(type=peersock.socket.SOCK_DGRAM) as sock:
    sock.settimeout(1)
    for _ in range(10):
        sock.sendto(b"hello", (sys.argv[2], 7000))
        try:
            print(sock.recv(1500).decode())
            break
        except TimeoutError:
            print("again", file=sys.stderr)
