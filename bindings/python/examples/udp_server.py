import sys

import peersock

with peersock.Session(sys.argv[1]) as session, session.socket(type=peersock.socket.SOCK_DGRAM) as sock:
    sock.bind(("::", 7000))
    print(session.address, flush=True)
    data, sender = sock.recvfrom(1500)
    sock.sendto(data.upper(), sender)
