import sys

import peersock

with peersock.Session(sys.argv[1]), peersock.socket.create_connection((sys.argv[2], 7000)) as connection:
    connection.sendall(b"hello")
    print(connection.recv(1024).decode())
