"""The current directory for the members of a network, by Python's own HTTP server.

``python -m peersock run -n NETWORK -m http.server`` does the same.
"""

import http.server
import sys

import peersock

peersock.install()
with peersock.Session(sys.argv[1]) as session:
    print(f"http://[{session.address}]:8000/", flush=True)
    http.server.test(http.server.SimpleHTTPRequestHandler, http.server.ThreadingHTTPServer, port=8000)  # type: ignore[attr-defined]
