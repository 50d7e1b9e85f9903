"""Children of a program of ``python -m peersock run``, with whatever environment they are given.

What a process needs to be on the overlay is in its environment. A program that starts another one with an environment
of its own (``subprocess.run(..., env={})``) leaves that out, so it is put back: by the functions here for what Python
starts, and by the preloaded library for what others start.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

#: What says which node there is, and how it is used.
_VARIABLES = ("PEERSOCK_NODE", "PEERSOCK_RULES", "PEERSOCK_NETWORKS", "PEERSOCK_RUN")
#: Lists with an entry of ours, which is the first.
_LISTS = ("PYTHONPATH", "LD_PRELOAD")

_needed: dict[str, str] = {}


def keep() -> None:
    """Has all that this process starts from now on use the node that it uses itself.

    An environment that names another node is left as it is: somebody else has seen to it.
    """
    first = not _needed
    _needed.update({name: os.environ[name] for name in _VARIABLES if name in os.environ})
    _needed.update({name: os.environ[name].partition(":")[0] for name in _LISTS if os.environ.get(name)})
    if first:
        _replace()


def _missing(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that an environment has to be given."""
    if environment.get("PEERSOCK_NODE", _needed["PEERSOCK_NODE"]) != _needed["PEERSOCK_NODE"]:
        return {}
    missing = {name: _needed[name] for name in _VARIABLES if name in _needed and name not in environment}
    for name in _LISTS:
        entries = environment.get(name) or ""
        if name in _needed and _needed[name] not in entries.split(":"):
            missing[name] = f"{_needed[name]}:{entries}" if entries else _needed[name]
    return missing


def _complete(environment: Any) -> Any:
    """The environment that a child gets in place of this one; `None` is that of this process."""
    if environment is None:
        return {**os.environ, **missing} if (missing := _missing(os.environ)) else None
    try:
        texts = {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}
    except (AttributeError, TypeError):
        # The function itself says what is wrong with it.
        return environment
    missing = _missing(texts)
    if not missing:
        return environment
    # What is replaced may be named by bytes.
    kept = {name: value for name, value in environment.items() if os.fsdecode(name) not in missing}
    return {**kept, **missing}


def _with_environment(function: Callable[..., Any], index: int) -> Callable[..., Any]:
    """A function whose argument at `index` is an environment, called `env` as well."""

    @functools.wraps(function)
    def replaced(*arguments: Any, **named: Any) -> Any:
        if len(arguments) > index:
            given = list(arguments)
            given[index] = _complete(given[index])
            return function(*given, **named)
        if "env" in named:
            named["env"] = _complete(named["env"])
        return function(*arguments, **named)

    return replaced


def _replace() -> None:
    # `exec*`, `spawn*` and `pty` end in these two, `asyncio` and `os.popen` in `Popen`.
    execve, execv, system = os.execve, os.execv, os.system
    in_environment = _with_environment(execve, 2)

    @functools.wraps(execv)
    def in_own(path: Any, arguments: Any) -> Any:
        return execve(path, arguments, _complete(None)) if _missing(os.environ) else execv(path, arguments)

    @functools.wraps(system)
    def by_shell(command: Any) -> Any:
        os.environ.update(_missing(os.environ))
        return system(command)

    @functools.wraps(subprocess.Popen.__init__)
    def begin(self: Any, *arguments: Any, **named: Any) -> None:
        if len(arguments) <= _POPEN_ENV:
            named.setdefault("env", None)
        _begin(self, *arguments, **named)

    _begin = _with_environment(subprocess.Popen.__init__, _POPEN_ENV + 1)
    if execve in os.supports_fd:
        os.supports_fd.add(in_environment)
    os.execve, os.execv, os.system = in_environment, in_own, by_shell
    subprocess.Popen.__init__ = begin  # type: ignore[method-assign]
    for name in ("posix_spawn", "posix_spawnp"):
        if hasattr(os, name):
            setattr(os, name, _with_environment(getattr(os, name), 2))
    _replace_fork_exec()


#: Which argument of `Popen` its `env` is.
_POPEN_ENV = 10
#: Which argument of `fork_exec` its environment is, as a list of ``NAME=VALUE``.
_FORK_EXEC_ENV = 5


def _replace_fork_exec() -> None:
    """What `multiprocessing` uses, which gives its children this process's environment."""
    import _posixsubprocess

    fork_exec = _posixsubprocess.fork_exec

    @functools.wraps(fork_exec)
    def replaced(*arguments: Any) -> Any:
        if len(arguments) > _FORK_EXEC_ENV and arguments[_FORK_EXEC_ENV] is None and (own := _complete(None)):
            given = list(arguments)
            given[_FORK_EXEC_ENV] = [os.fsencode(f"{name}={value}") for name, value in own.items()]
            return fork_exec(*given)
        return fork_exec(*arguments)

    _posixsubprocess.fork_exec = replaced
