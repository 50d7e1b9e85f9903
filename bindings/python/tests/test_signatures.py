"""Nothing of CPython's module is missing, and nothing has another signature."""

from __future__ import annotations

import ast
import enum
import inspect
import socket as std
import ssl
import sys
from pathlib import Path

import mypy
import pytest

from peersock import socket

TYPESHED = Path(mypy.__file__).parent / "typeshed" / "stdlib"


def _signature(function: object) -> inspect.Signature | None:
    try:
        return inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        # Functions in C do not always have a signature.
        return None


def test_every_name_is_there() -> None:
    missing = [name for name in dir(std) if not hasattr(socket, name) and not name.startswith("__")]
    assert missing == []
    assert sorted(socket.__all__) == sorted(std.__all__)


def test_what_is_no_function_or_class_of_ours_is_the_standard_library_s() -> None:
    for name in std.__all__:
        own, theirs = getattr(socket, name), getattr(std, name)
        if isinstance(theirs, (int, str, enum.Enum)) or (isinstance(theirs, type) and name != "socket"):
            assert own is theirs, name


@pytest.mark.parametrize("name", [name for name in std.__all__ if callable(getattr(std, name))])
def test_functions_have_the_same_signature(name: str) -> None:
    wanted = _signature(getattr(std, name))
    if wanted is not None and name != "socket":
        own = _signature(getattr(socket, name))
        assert own is not None
        assert _plain(own) == _plain(wanted)


@pytest.mark.parametrize("name", [name for name in dir(std.socket) if not name.startswith("_")])
def test_methods_have_the_same_signature(name: str) -> None:
    wanted = _signature(getattr(std.socket, name))
    if wanted is not None:
        own = _signature(getattr(socket.socket, name))
        assert own is not None
        assert _plain(own) == _plain(wanted)


def _plain(signature: inspect.Signature) -> list[tuple[object, ...]]:
    """Names, kinds and defaults, without types, and without names that no caller can use."""
    plain: list[tuple[object, ...]] = []
    for own in signature.parameters.values():
        if own.name == "self":
            continue
        name = "" if own.kind is own.POSITIONAL_ONLY else own.name
        plain.append((name, own.kind, own.default))
    return plain


def test_the_class_is_a_socket() -> None:
    assert issubclass(socket.socket, std.socket)
    assert socket.socket.__qualname__ == "socket"
    assert _plain(inspect.signature(socket.socket.__init__)) == _plain(inspect.signature(std.socket.__init__))
    assert socket.error is OSError
    assert socket.timeout is TimeoutError
    assert issubclass(socket.gaierror, OSError)
    assert isinstance(ssl.SSLError(), socket.error)


def _holds(test: ast.expr) -> bool:
    """Returns true if a condition of a stub holds here."""
    return bool(eval(compile(ast.Expression(test), "stub", "eval"), {"sys": sys}))


def _names(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Returns a stub's definitions for this version of Python and this system."""
    found: dict[str, ast.stmt] = {}
    for statement in body:
        if isinstance(statement, ast.If):
            found |= _names(statement.body if _holds(statement.test) else statement.orelse)
        elif isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            found[statement.name] = statement
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = statement
        elif isinstance(statement, ast.ImportFrom):
            found |= {alias.asname or alias.name: statement for alias in statement.names if alias.asname}
    return found


def test_typeshed_knows_no_more() -> None:
    stub = _names(ast.parse((TYPESHED / "socket.pyi").read_text()).body)
    missing = [name for name in stub if hasattr(std, name) and not hasattr(socket, name)]
    assert missing == []
    native = _names(ast.parse((TYPESHED / "_socket.pyi").read_text()).body)["socket"]
    assert isinstance(native, ast.ClassDef)
    for name, method in _names(native.body).items():
        own = getattr(socket.socket, name, None)
        assert own is not None or not hasattr(std.socket, name)
        if not isinstance(method, ast.FunctionDef) or method.name.startswith("__") or not inspect.isfunction(own):
            continue
        wanted = [argument.arg for argument in (*method.args.posonlyargs, *method.args.args)]
        parameters = list(inspect.signature(own).parameters.values())
        if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
            # It has overloads that one signature cannot tell apart.
            continue
        assert len(parameters) >= len(wanted), name
        for parameter, argument in zip(parameters, method.args.args, strict=False):
            if not method.args.posonlyargs:
                assert parameter.name == argument.arg, name
