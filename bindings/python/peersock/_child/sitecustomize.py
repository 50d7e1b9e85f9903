"""Runs first in each Python that a program of ``python -m peersock run`` starts, and puts it on the overlay, too.

The launcher puts the folder of this file into PYTHONPATH. Whatever else is called ``sitecustomize`` runs afterwards.
"""

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec, spec_from_file_location

_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(_HERE)


def _load(name: str, spec: ModuleSpec | None) -> None:
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} cannot be loaded")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _install() -> None:
    if not (os.environ.get("PEERSOCK_RUN") and os.environ.get("PEERSOCK_NODE")):
        return
    try:
        # This Python may be another one, or of another environment, than the one that has the package.
        if "peersock" not in sys.modules:
            path = os.path.join(_PACKAGE, "__init__.py")
            _load("peersock", spec_from_file_location("peersock", path, submodule_search_locations=[_PACKAGE]))
        sys.modules["peersock"].install()
        import_module("peersock._spawn").keep()
        import_module("peersock._foreign").keep()
    except Exception as error:
        sys.stderr.write(f"peersock: {sys.executable} is not on the overlay: {error}\n")
        if "only" in os.environ.get("PEERSOCK_RULES", "").split(","):
            os._exit(1)


def _go_on() -> None:
    """The module that would have been found without this one."""
    others = [folder for folder in sys.path if os.path.abspath(folder or os.curdir) != _HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None:
        _load("sitecustomize", spec)


_install()
_go_on()
