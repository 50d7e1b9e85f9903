"""``python -m peersock run``: what a program starts and no preloaded library reaches: static programs, those of Go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from .conftest import Place

#: Ways to start `words`: `busybox`, a static one, which asks a member and a server of the machine.
WAYS = {
    "subprocess": "subprocess.run(words, check=True)",
    "subprocess, by name": "subprocess.run(['busybox', *words[1:]], check=True, env={'PATH': folder})",
    "subprocess, argv[0]": "subprocess.run(['sh', *words[2:]], executable=busybox, check=True, close_fds=False)",
    "subprocess, in a folder": "subprocess.run(['./busybox', *words[1:]], cwd=folder, check=True)",
    "subprocess, env={}": "subprocess.run(words, check=True, env={})",
    "subprocess, posix_spawn": "subprocess.run(words, check=True, close_fds=False)",
    "subprocess, preexec_fn": "subprocess.run(words, check=True, preexec_fn=os.setsid)",
    "subprocess, in a thread": "it = threading.Thread(target=subprocess.run, args=[words]); it.start(); it.join()",
    "asyncio": "asyncio.run(wait())",
    "shell": "subprocess.run(shlex.join(words), shell=True, check=True)",
    "system": "os.system(shlex.join(words))",
    "popen": "print(os.popen(shlex.join(words)).read(), end='')",
    "script": "subprocess.run([script, *words[4:]], check=True)",
    "execv": "os.execv(busybox, words)",
    "execvp": "os.environ['PATH'] = folder; os.execvp('busybox', words)",
    "execve": "os.execve(busybox, words, {})",
    "execve of a descriptor": "os.execve(os.open(busybox, os.O_RDONLY), words, {})",
    "execl": "os.execl(busybox, *words)",
    "fork": "os.fork() or os.execv(busybox, words); os.wait()",
    "spawnv": "os.spawnv(os.P_WAIT, busybox, words)",
    "posix_spawn": "os.waitpid(os.posix_spawn(busybox, words, {}), 0)",
    "posix_spawnp": "os.environ['PATH'] = folder; os.waitpid(os.posix_spawnp('busybox', words, {}), 0)",
    "multiprocessing, spawn": "start('spawn')",
    "multiprocessing, forkserver": "start('forkserver')",
    "multiprocessing, fork": "start('fork')",
    "another Python": (
        "code = f'import os; os.execv({busybox!r}, {words!r})';subprocess.run([sys.executable, '-c', code], check=True)"
    ),
    "a Python without its environment": (
        "code = f'import subprocess; subprocess.run({words!r}, env={{}})';"
        "subprocess.run([sys.executable, '-I', '-S', '-c', code], check=True, env={})"
    ),
    "ctypes": "ctypes.CDLL(None).system(shlex.join(words).encode())",
}
STARTER = textwrap.dedent(
    """\
    import asyncio, ctypes, multiprocessing, os, shlex, subprocess, sys, threading
    busybox, *addresses = sys.argv[1:]
    folder = os.path.dirname(busybox)
    script = os.path.join(os.path.dirname(__file__), "script")
    ask = f'{busybox} nc "$1" "$2" </dev/null; {busybox} nc "$3" "$4" </dev/null'
    words = [busybox, "sh", "-c", ask, "sh", *addresses]
    async def wait():
        process = await asyncio.create_subprocess_exec(*words)
        await process.wait()
    def child(words):
        subprocess.run(words, check=True)
    def start(method):
        process = multiprocessing.get_context(method).Process(target=child, args=(words,))
        process.start(); process.join(); assert process.exitcode == 0
    if __name__ == "__main__":
        WAY
    """
)


def is_static(path: str) -> bool:
    return b"/ld-linux" not in Path(path).read_bytes()[:4096]


@pytest.fixture
def busybox(place: Place) -> str:
    """A static program, alone in a folder."""
    found = shutil.which("busybox")
    if found is None or not is_static(found):
        pytest.skip("there is no busybox that is linked statically (busybox-static)")
    folder = place.folder / "bin"
    folder.mkdir()
    copy = shutil.copy(found, folder / "busybox")
    script = place.write("script", f'#!{copy} sh\n{copy} nc "$2" "$3" </dev/null; {copy} nc "$4" "$5" </dev/null\n')
    os.chmod(script, 0o755)
    return str(copy)


@pytest.mark.parametrize("way", WAYS)
def test_static_programs_that_a_program_starts_are_on_the_overlay(
    place: Place, greeter: list[str], busybox: str, way: str
) -> None:
    starter = place.write("starter.py", STARTER.replace("WAY", WAYS[way]))
    done = place.ask(*place.run, starter, busybox, *greeter)
    assert (done.stdout, done.returncode) == ("overlaymachine", 0), done
    assert "warning" not in done.stderr, done


@pytest.mark.parametrize("way", ["subprocess", "shell", "execv", "posix_spawn", "multiprocessing, spawn", "ctypes"])
def test_with_only_static_programs_reach_nothing(place: Place, greeter: list[str], busybox: str, way: str) -> None:
    starter = place.write("starter.py", STARTER.replace("WAY", WAYS[way]))
    done = place.ask(*place.run, "--only", starter, busybox, *greeter)
    assert done.stdout == "", done
    assert "can't" in done.stderr or "not supported" in done.stderr, done


def test_static_programs_run_as_the_program_has_it(place: Place, busybox: str) -> None:
    program = place.write(
        "program.py",
        textwrap.dedent(
            """\
            import os, signal, subprocess, sys
            busybox = sys.argv[1]
            def sh(code, *arguments, **named):
                words = [busybox, "sh", "-c", code, *arguments]
                return subprocess.run(words, stdout=subprocess.PIPE, text=True, **named)
            assert sh("exit 7").returncode == 7
            assert sh("kill -KILL $$").returncode == -signal.SIGKILL
            assert sh("cat; pwd", input="sent\\n", cwd="/").stdout == "sent\\n/\\n"
            assert sh("echo $A:$B", env={"A": "1"}).stdout == "1:\\n"
            assert sh('echo "$0 $1"', "a b", "*").stdout == "a b *\\n"
            reader, writer = os.pipe()
            assert sh(f"echo passed >&{writer}", pass_fds=[writer]).returncode == 0
            assert os.read(reader, 100) == b"passed\\n"
            # The descriptors that are not passed, and none of ours.
            assert sh("ls /proc/self/fd", stdin=subprocess.DEVNULL).stdout.split() == ["0", "1", "2", "3"]
            child = subprocess.Popen([busybox, "sh", "-c", "echo $$"], stdout=subprocess.PIPE, text=True)
            assert child.communicate()[0] == f"{child.pid}\\n"
            child = subprocess.Popen([busybox, "sleep", "100"])
            child.terminate()
            assert child.wait() == -signal.SIGTERM
            read = subprocess.run(["readlink", "-f", "/x"], executable=busybox, stdout=subprocess.PIPE, text=True)
            assert read.stdout == "/x\\n", read
            own = os.getpid()
            print(own, flush=True)
            os.execv(busybox, [busybox, "sh", "-c", "echo $$; exit 5"])
            """
        ),
    )
    done = place.ask(*place.run, program, busybox)
    assert done.returncode == 5, done
    first, second = done.stdout.split()
    assert first == second


ERRORS = textwrap.dedent(
    """\
    import os, subprocess, sys
    busybox, folder = sys.argv[1], os.path.dirname(sys.argv[1])
    def attempt(what, function, *arguments, **named):
        try: print(what, function(*arguments, **named))
        except OSError as error: print(what, type(error).__name__, error.errno, error.filename)
    os.chmod(busybox, 0o644)
    for path in (busybox, folder + "/nowhere", folder):
        words = [path, "true"]
        attempt("run", subprocess.run, words)
        attempt("without a folder", subprocess.run, words, cwd="/nowhere")
        attempt("run, posix_spawn", subprocess.run, words, close_fds=False)
        attempt("execv", os.execv, path, words)
        attempt("execve", os.execve, path, words, {})
        attempt("posix_spawn", os.posix_spawn, path, words, {})
        attempt("spawnv", os.spawnv, os.P_WAIT, path, words)
    os.environ["PATH"] = folder
    attempt("by name", subprocess.run, ["busybox", "true"])
    attempt("execvp", os.execvp, "busybox", ["busybox", "true"])
    attempt("posix_spawnp", os.posix_spawnp, "busybox", ["busybox", "true"], {})
    """
)


def test_what_cannot_be_started_fails_as_without_run(place: Place, busybox: str) -> None:
    program = place.write("program.py", ERRORS)
    plain = place.ask(sys.executable, program, busybox)
    assert "PermissionError 13" in plain.stdout and "FileNotFoundError 2" in plain.stdout, plain
    done = place.ask(*place.run, program, busybox)
    assert done.stdout == plain.stdout, done


GO = """\
package main

import ("fmt"; "io"; "net"; "os")

func main() {
	for i := 1; i < len(os.Args); i += 2 {
		connection, err := net.Dial("tcp", net.JoinHostPort(os.Args[i], os.Args[i+1]))
		if err != nil { fmt.Fprintln(os.Stderr, err); continue }
		text, _ := io.ReadAll(connection)
		os.Stdout.Write(text)
	}
}
"""


@pytest.mark.parametrize("is_linked", [False, True])
def test_programs_of_go_are_on_the_overlay(place: Place, greeter: list[str], is_linked: bool) -> None:
    if shutil.which("go") is None or (is_linked and shutil.which("cc") is None):
        pytest.skip("there is no compiler of Go (golang)")
    source, program = place.write("ask.go", GO), str(place.folder / "ask")
    # The compiled library is kept for the next time.
    settings = {"GO111MODULE": "off", "CGO_ENABLED": str(int(is_linked)), "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    subprocess.run(["go", "build", "-o", program, source], check=True, env={**os.environ, **settings})
    assert is_linked != is_static(program)
    for way in ("subprocess.run(sys.argv[1:], check=True)", "os.execv(sys.argv[1], sys.argv[1:])"):
        starter = place.write("starter.py", f"import os, subprocess, sys\n{way}\n")
        assert place.ask(*place.run, starter, program, *greeter).stdout == "overlaymachine", way
        assert place.ask(*place.run, "--only", starter, program, *greeter).stdout == "", way


def test_programs_that_change_their_user_are_refused(place: Place, greeter: list[str], busybox: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    program = str(shutil.copy(bash, place.folder / "program"))
    for path in (program, busybox):
        os.chown(path, 65534, 65534)
        os.chmod(path, 0o4755)
    if os.statvfs(program).f_flag & os.ST_NOSUID:
        pytest.skip("the file system of temporary files knows no such bits")
    words = "[path, '-c', 'true']"
    ways = (
        f"subprocess.run({words})",
        f"subprocess.run({words}, close_fds=False)",
        "subprocess.run(['program', '-c', 'true'], env={'PATH': folder})",
        "subprocess.run(['./program'], cwd=folder)",
        f"os.execv(path, {words})",
        f"os.execve(os.open(path, os.O_RDONLY), {words}, dict(os.environ))",
        f"os.posix_spawn(path, {words}, dict(os.environ))",
        "os.environ.update(PATH=folder); os.posix_spawnp('program', ['program'], {})",
    )
    for way in ways:
        starter = place.write(
            "starter.py",
            "import os, subprocess, sys\npath = sys.argv[1]; folder = os.path.dirname(path)\n"
            f"try: {way}\n"
            "except PermissionError as error: print(error)\n",
        )
        done = place.ask(*place.run, starter, program)
        assert "cannot be put on the overlay" in done.stdout, (way, done)
    # A Python that has privileges may start itself, as `multiprocessing` does.
    itself = f"sys.executable = path = sys.argv[1]; subprocess.run({words}, check=True)"
    starter = place.write("starter.py", f"import subprocess, sys\n{itself}\n")
    assert place.ask(*place.run, starter, program).returncode == 0
    # A program that another one starts keeps its user, and is on the overlay.
    ask = "'cat < /dev/tcp/$1/$2; cat < /dev/tcp/$3/$4; stat -c %u /proc/self'"
    starter = place.write(
        "starter.py",
        "import subprocess, sys\n"
        f"subprocess.run(['sh', '-c', '\"$0\" -c \"$@\"', sys.argv[1], {ask}, *sys.argv[1:]])\n",
    )
    done = place.ask(*place.run, starter, program, *greeter)
    assert done.stdout == "overlaymachine0\n", done


def test_32_bit_programs_are_refused(place: Place, busybox: str) -> None:
    with open(busybox, "r+b") as file:
        file.seek(4)
        file.write(b"\1")
    starter = place.write(
        "starter.py",
        "import subprocess, sys\n"
        "try: subprocess.run([sys.argv[1], 'true'])\n"
        "except PermissionError as error: print(error, flush=True)\n"
        "print(subprocess.run(['sh', '-c', 'exec \"$0\" true', sys.argv[1]]).returncode)\n",
    )
    done = place.ask(*place.run, starter, busybox)
    first, second = done.stdout.splitlines()
    assert "32-bit program, and so it cannot be put on the overlay" in first, done
    assert second == "126", done
    assert "32-bit program" in done.stderr, done


def test_the_program_s_own_process_has_the_library(place: Place, greeter: list[str]) -> None:
    # A library in C that makes its own sockets.
    program = place.write(
        "program.py",
        textwrap.dedent(
            """\
            import ctypes, os, socket, struct, sys
            libc = ctypes.CDLL(None, use_errno=True)
            print(os.environ.get("PEERSOCK_AGAIN"), sys.argv[1:] == sys.orig_argv[-4:], end=" ")
            fd = libc.socket(socket.AF_INET6, socket.SOCK_STREAM, 0)
            address = struct.pack("=HHI16sI", socket.AF_INET6, socket.htons(int(sys.argv[2])), 0,
                                  socket.inet_pton(socket.AF_INET6, sys.argv[1]), 0)
            assert libc.connect(fd, address, len(address)) == 0, os.strerror(ctypes.get_errno())
            print(os.read(fd, 100).decode())
            """
        ),
    )
    for options in ([], ["--only"]):
        done = place.ask(*place.run, *options, program, *greeter)
        assert done.stdout == "None True overlay\n", done


def test_a_program_that_runs_the_command_itself_is_told_what_is_not_reached(place: Place, busybox: str) -> None:
    program = place.write("program.py", "import sys\nprint('ran', *sys.argv[1:])\n")
    # It cannot be started again: its own text has come through a pipe.
    text = f"from peersock.__main__ import main\nmain({[*place.run[3:], program, 'word']!r})\nprint('back')\n"
    for options, warnings in (([], 1), (["--only"], 0)):
        code = text.replace("['run',", f"['run', *{options!r},")
        done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=60)
        assert done.stdout == "ran word\nback\n", done
        assert done.stderr.count("are not on the overlay") == warnings, done


#: Has the kernel refuse pidfd_getfd(2), as containers do, and goes on as another program.
REFUSING = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
load, is_it, refuse, allow = (0x20, 0, 0, 0), (0x15, 0, 1, 438), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)
text = b"".join(struct.pack("=HBBI", *instruction) for instruction in (load, is_it, refuse, allow))
program = struct.pack("@HP", 4, ctypes.addressof(instructions := ctypes.create_string_buffer(text)))
long = ctypes.c_long
assert libc.prctl(38, long(1), long(0), long(0), long(0)) == 0
assert libc.prctl(22, long(2), program) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_where_the_system_lets_nobody_take_the_calls_a_line_says_so(place: Place, busybox: str) -> None:
    program = place.write(
        "program.py", "import subprocess, sys\nsubprocess.run([sys.argv[1], 'echo', 'started'], check=True)\n"
    )
    for options, warnings in (([], 1), (["--only"], 0)):
        done = place.ask(sys.executable, "-c", REFUSING, *place.run, *options, program, busybox)
        assert done.stdout == "started\n", done
        assert done.stderr.count("ptrace_scope") == warnings, done


def test_a_secret_comes_through_a_pipe_once(place: Place) -> None:
    pipe = str(place.folder / "secret")
    os.mkfifo(pipe, 0o600)
    writer = threading.Thread(target=lambda: Path(pipe).write_text("horse\n"))
    writer.start()
    done = place.ask(*place.run, "--secret-file", pipe, place.write("program.py", "print('ran')"))
    writer.join()
    assert (done.stdout, done.returncode) == ("ran\n", 0), done
