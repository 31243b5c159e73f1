"""Calls that fail at every one of their operations on files, one after the other.

A process calls `main` with a list of flags in a copy of a directory. Of its operations
on files there (those of Python: opening, writing, moving, removing, …) the k-th fails,
for k = 1, 1 + step, …, and the same call follows undisturbed. It fails by a signal, or
by what a system says, from then on as a full disk does: nothing is written, moved or
made any more. Of what is being written half is.
"""

import dataclasses
import json
import re
import signal
from pathlib import Path

import jax
from faulty import Room, hash_tree

_CALLS = """
import builtins, errno, io, json, os, shutil, signal, sys
from orbax.checkpoint import v1
import main
from cnn.runtime import interrupt

arguments, source, home = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
step, how = int(sys.argv[4]), sys.argv[5]
is_signal = how.startswith("SIG")
NAMES = "replace rename mkdir fsync unlink rmdir truncate chmod".split()
REFUSED = "open write replace rename mkdir fsync".split()  # by a full disk


def fail_at(last, report):
    count = [0]

    def is_own(path):
        path = os.path.abspath(path) if isinstance(path, (str, os.PathLike)) else ""
        return path.startswith(home)

    def note(name, path):
        count[0] += 1
        os.pwrite(report, str(count[0]).encode(), 0)
        if is_signal and count[0] == last:
            os.kill(os.getpid(), getattr(signal, how))
        if not is_signal and count[0] >= last and name in REFUSED:
            code = getattr(errno, how)
            names = [path] if isinstance(path, (str, os.PathLike)) else []
            raise OSError(code, os.strerror(code), *names)

    class Counted(io.FileIO):
        def write(self, data):
            data = memoryview(data).cast("B")
            if count[0] + 1 == last:
                written = super().write(data[: len(data) // 2])
                if written and not is_signal:
                    count[0] += 1
                    return written
            note("write", None)
            return super().write(data)

    def open_counted(path, mode, buffering=-1, encoding=None, errors=None,
                     newline=None, closefd=True, opener=None):
        raw = Counted(path, "".join(x for x in mode if x not in "bt"), closefd, opener)
        if buffering == 0:
            return raw
        file = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        if "b" in mode:
            return file
        return io.TextIOWrapper(file, encoding, errors, newline)

    def wrap(module, name):
        whole = getattr(module, name)

        def counted(*given, **named):
            mode = given[1] if len(given) > 1 else named.get("mode", "r")
            reads = name == "open" and (
                not set(mode) & set("wax+") if isinstance(mode, str) else not mode & 67
            )
            if name == "fsync" or (not reads and is_own(given[0])):
                note(name, given[0])
                if name == "open":
                    named.pop("mode", None)
                    return open_counted(given[0], mode, *given[2:], **named)
            return whole(*given, **named)

        setattr(module, name, counted)

    for name in NAMES:
        wrap(os, name)
    wrap(builtins, "open")
    wrap(io, "open")


def call(directory, last):
    found, told = os.memfd_create("count"), os.memfd_create("told")
    child = os.fork()
    if child == 0:
        os.chdir(directory)
        os.dup2(told, 2)
        interrupt.leave_on_signals()
        if last is not None:
            fail_at(last or 10**9, found)
        code = 1
        try:
            code = main.main(main.parse_flags(["main.py", *arguments]))
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = os.pread(told, 10**6, 0).decode(errors="replace")
    return code, text, int(os.pread(found, 9, 0) or 0)


k, most = 0, None
while most is None or k <= most:
    directory = f"{home}/{k}"
    shutil.copytree(source, directory)
    code, told, count = call(directory, k)
    again, most = code, count if most is None else most
    if k:
        shutil.copytree(directory, f"{directory}.failed", symlinks=True)
        again = call(directory, None)[0]
    print(json.dumps([k, code, told, again]), file=sys.stderr)
    k = k + step if k else 1
"""


@dataclasses.dataclass(frozen=True)
class Call:
    """A call that failed at one of its operations.

    Attributes:
        place: which, from 1.
        code: its exit code, or less a signal's number; `told`: its standard error.
        again: the exit code of the same call afterwards.
        failed: what the call left; `mended`: what the same call afterwards did.
    """

    place: int
    code: int
    told: str
    again: int
    failed: Path
    mended: Path


def fail_everywhere(
    room: Room, flags: list, source: Path, how: str, step: int = 1
) -> tuple[Path, list[Call]]:
    """Let a call fail at its operations on files; returns the whole and the failed.

    Args:
        source: the directory that the call is made in a copy of.
        how: the name of a signal, or of what a system says.
        step: 3: at every third operation.
    """
    home = room.path / how
    home.mkdir()
    cache = jax.config.jax_compilation_cache_dir or "off"
    arguments = [f"--compilation_cache={cache}", *map(str, flags)]
    given = json.dumps(arguments), source, home, step, how
    ended = room.python(_CALLS, *given, seconds=900)
    assert ended.code == 0, ended
    found = [json.loads(x) for x in ended.err.splitlines() if x.startswith("[")]
    assert found[0][1] == 0, ended
    calls = [
        Call(*each, home / f"{each[0]}.failed", home / str(each[0]))
        for each in found[1:]
    ]
    assert len(calls) > 1, ended
    return home / "0", calls


def kill_everywhere(
    room: Room, flags: list, source: Path, step: int = 1
) -> tuple[list[Path], list[int]]:
    """Kill a call at its operations on files, and repeat it.

    Returns:
        The directories, that of an undisturbed call first, and the exit codes of the
        calls that were repeated.
    """
    whole, calls = fail_everywhere(room, flags, source, "SIGKILL", step)
    # Threads of libraries write too, not equally often each time: the last may be 0.
    codes = [call.code for call in calls]
    assert codes.count(-signal.SIGKILL) > 4, codes
    assert set(codes) <= {0, -signal.SIGKILL}, codes
    return [whole, *(call.mended for call in calls)], [call.again for call in calls]


def list_names(directory: Path) -> set[str]:
    """List what lies in a directory, without names that are drawn at random."""
    return {re.sub(r"/d/\w{32}$", "/d/*", name) for name in hash_tree(directory)}


def check_same(directories: list[Path], files: list[str] = ()) -> None:
    """Require directories with the same names in them, and of some files the bits."""
    whole = directories[0]
    for other in directories[1:]:
        assert list_names(other) == list_names(whole), other
        for file in files:
            assert (other / file).read_bytes() == (whole / file).read_bytes(), other
