"""The names of PyXAPI, for programs that were written for it.

``from peersock.pyxapi.socket_ext import *`` and ``from peersock.pyxapi.rfc3542 import *`` take the place of ``from
socket_ext import *`` and ``from rfc3542 import *``. They are a thin layer over `peersock.socket` and
`peersock.rfc3542`, which new programs should use. Data are ``bytes``; a ``str`` is encoded in UTF-8.
"""
