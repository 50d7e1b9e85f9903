import sys

import peersock

with peersock.Session(sys.argv[1]) as session, peersock.socket.create_server(("", 7000)) as server:
    print(session.address, flush=True)
    connection, peer = server.accept()
    with connection:
        connection.sendall(connection.recv(1024).upper())
