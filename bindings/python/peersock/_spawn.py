"""Children of a program of ``python -m peersock run``, with whatever environment they are given.

Variables of its environment put a process on the overlay. A program that starts another one with a new environment
(``subprocess.run(..., env={})``) leaves them out. The functions here put them back for the children of Python, and the
preloaded library does so for the children of other programs.

The system preloads no library of ours into programs that change their user, nor into 32-bit ones. Those are refused,
and so are those with file capabilities, unless the launcher takes their calls.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

#: Variables that Python's launcher gives its programs.
_RUN = "PEERSOCK_RUN"
#: Variables that name the node and say how it is used.
_VARIABLES = ("PEERSOCK_NODE", "PEERSOCK_RULES", "PEERSOCK_NETWORKS", _RUN)
#: Lists with an entry of ours.
_LISTS = ("PYTHONPATH", "LD_PRELOAD")

_needed: dict[str, str] = {}


def keep() -> None:
    """Has all that this process starts from now on use the node that it uses itself.

    An environment that names another node is left as it is, because its maker has chosen that node.
    """
    first = not _needed
    _needed.update({name: os.environ[name] for name in _VARIABLES if name in os.environ})
    if os.environ.get("PYTHONPATH"):
        _needed["PYTHONPATH"] = os.environ["PYTHONPATH"].partition(":")[0]
    if library := own_library():
        _needed["LD_PRELOAD"] = library
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
            own = _needed[name]
            if name == "LD_PRELOAD":
                missing[name] = with_library(own, entries)
            else:
                missing[name] = f"{own}:{entries}" if entries else own
    return missing


def _sanitizers(libraries: str) -> list[str]:
    """Those of the libraries that end a program if another one is loaded before them: AddressSanitizer's."""
    prefixes = ("libasan.so", "libclang_rt.asan")
    return [entry for entry in libraries.split(":") if os.path.basename(entry).startswith(prefixes)]


def with_library(library: str, others: str) -> str:
    """LD_PRELOAD with our library: the first one, but behind a sanitizer's."""
    first = _sanitizers(others)
    return ":".join([*first, library, *(entry for entry in others.split(":") if entry and entry not in first)])


def own_library() -> str | None:
    """Our library, as LD_PRELOAD names it."""
    libraries = os.environ.get("LD_PRELOAD", "")
    first = _sanitizers(libraries)
    return next((entry for entry in libraries.split(":") if entry and entry not in first), None)


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
    # The names of replaced variables may be bytes.
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
    in_environment = _checking(_with_environment(execve, 2))

    @functools.wraps(execv)
    def in_own(path: Any, arguments: Any) -> Any:
        _refuse(path)
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
    for name, searches in (("posix_spawn", False), ("posix_spawnp", True)):
        if hasattr(os, name):
            setattr(os, name, _checking(_with_environment(getattr(os, name), 2), searches))
    _replace_fork_exec()


#: Index of `Popen`'s argument `env`.
_POPEN_ENV = 10
#: Indexes of `fork_exec`'s arguments: the candidate files, the folder, and the environment as a list of ``NAME=VALUE``.
#: It starts the first of the files that it can.
_FORK_EXEC_FILES, _FORK_EXEC_FOLDER, _FORK_EXEC_ENV = 1, 4, 5


def _replace_fork_exec() -> None:
    """Replaces `fork_exec`, because `multiprocessing` gives its children this process's environment."""
    import _posixsubprocess

    fork_exec = _posixsubprocess.fork_exec

    @functools.wraps(fork_exec)
    def replaced(*arguments: Any) -> Any:
        if len(arguments) > _FORK_EXEC_ENV:
            _refuse_first(arguments[_FORK_EXEC_FILES], arguments[_FORK_EXEC_FOLDER])
        if len(arguments) > _FORK_EXEC_ENV and arguments[_FORK_EXEC_ENV] is None and (own := _complete(None)):
            given = list(arguments)
            given[_FORK_EXEC_ENV] = [os.fsencode(f"{name}={value}") for name, value in own.items()]
            return fork_exec(*given)
        return fork_exec(*arguments)

    _posixsubprocess.fork_exec = replaced
    if hasattr(subprocess, "_fork_exec"):
        subprocess._fork_exec = replaced
    # By `posix_spawn` the library starts a static program under its path, whatever its first argument is.
    subprocess._USE_POSIX_SPAWN = False  # type: ignore[misc]


def _checking(function: Callable[..., Any], searches: bool = False) -> Callable[..., Any]:
    """A function that starts the program which its first argument names, unless that is refused."""

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        path = arguments[0] if arguments else named.get("path")
        if searches and isinstance(path, (str, bytes, os.PathLike)) and not os.path.dirname(path):
            _refuse_first([os.path.join(folder, os.fsdecode(path)) for folder in os.get_exec_path()], None)
        else:
            _refuse(path)
        return function(*arguments, **named)

    return checked


def _refuse_first(paths: Any, folder: Any) -> None:
    """As `_refuse`, of the first file that can be started."""
    for path in paths:
        place = path if folder is None else os.path.join(os.fsencode(folder), os.fsencode(path))
        if os.path.isfile(place) and os.access(place, os.X_OK):
            _refuse(place)
            return


def _refuse(path: Any) -> None:
    """Raises `PermissionError` if a program cannot be put on the overlay.

    This Python always is: what it starts by itself begins with `_child/sitecustomize.py`.
    """
    if _RUN not in _needed:
        # `peersock run` decides for itself.
        return
    file = f"/proc/self/fd/{path}" if isinstance(path, int) else path
    try:
        is_program = os.path.isfile(file) and os.access(file, os.X_OK)
        why = _why_not(file) if is_program and not _is_this_python(file) else None
    except (OSError, TypeError, ValueError):
        # The function itself says what is wrong with it.
        return
    if why is not None:
        text = f"{why}, and so it cannot be put on the overlay: run it outside of `python -m peersock run`"
        raise PermissionError(errno.EPERM, text, path if isinstance(path, int) else os.fsdecode(path))


def _is_this_python(path: Any) -> bool:
    return bool(sys.executable) and os.path.samefile(path, sys.executable)


def _why_not(path: Any) -> str | None:
    """Returns the reason why the system cannot preload our library into a program, if there is one."""
    try:
        with open(path, "rb") as file:
            head = file.read(5)
    except PermissionError:
        # It may be executed all the same, and is no script.
        head = b""
    if head == b"\x7fELF\x01":
        return "it is a 32-bit program"
    # Of scripts the bits have no effect.
    if not head.startswith(b"#!") and _gains_privileges(path):
        return "it gets another user, or privileges, when it starts (its setuid or setgid bit, or capabilities)"
    return None


def _is_admitted() -> bool:
    """Returns true if the launcher takes the calls of programs that the library does not reach."""
    return "admits" in _needed.get("PEERSOCK_RULES", "").split(",")


def _gains_privileges(path: Any) -> bool:
    info = os.stat(path)
    sets_user = info.st_mode & stat.S_ISUID and info.st_uid != os.geteuid()
    # Without the permission to execute, the bit means something else.
    group_bits = stat.S_ISGID | stat.S_IXGRP
    sets_group = info.st_mode & group_bits == group_bits and info.st_gid != os.getegid()
    # Root has them all.
    has_capabilities = not _is_admitted() and os.getuid() != 0 and "security.capability" in os.listxattr(path)
    return bool(sets_user or sets_group or has_capabilities) and not os.statvfs(path).f_flag & os.ST_NOSUID
