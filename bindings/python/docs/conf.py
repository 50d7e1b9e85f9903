"""``python -m sphinx -W -b html bindings/python/docs OUTPUT``, with the package installed."""

import peersock

project = "peersock"
author = "the peersock authors"
copyright = author
release = version = peersock.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "literal"
exclude_patterns = ["_build"]
nitpicky = True
# Names of Python's own library; its inventory is not fetched, because the documentation is built offline.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!peersock).*"),
    (r"py:.*", r".*(\.A$|\.T$|\._C$|Opts|Octet|_Octet|_Header|_Options|_Socket|_HasOptions).*"),
]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_type_aliases = {"Address": "Address", "Buffer": "Buffer"}

html_theme = "alabaster"
html_theme_options = {"description": "Encrypted peer-to-peer sockets", "fixed_sidebar": True}
html_show_sourcelink = False
