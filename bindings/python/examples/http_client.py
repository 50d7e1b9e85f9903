"""Fetches a page from a member."""

import sys
import urllib.request

import peersock

with peersock.Session(sys.argv[1]), peersock.patched(), urllib.request.urlopen(sys.argv[2]) as response:
    sys.stdout.buffer.write(response.read())
