"""What the system may lack: on Windows there are no fcntl, no SIGHUP, no os.pread.

Names of POSIX stand in one place of cnn/ each, behind a guard (`GUARDED`); the program
is imported, trains and evaluates in a process that has none of them.
"""

import ast
import subprocess
import sys

import jax
import pytest
from fixtures_runs import ROOT, TINY, make_flags

MODULES = {
    "fcntl",
    "grp",
    "posix",
    "pty",
    "pwd",
    "resource",
    "syslog",
    "termios",
    "tty",
}
SIGNALS = {"SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGPROF"}
SIGNALS |= {"SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "alarm"}
SIGNALS |= {"SIGXFSZ", "pause", "pthread_kill", "setitimer", "sigwait", "SIGWINCH"}
FUNCTIONS = {"chown", "chroot", "fchmod", "fork", "forkpty", "getegid", "geteuid"}
FUNCTIONS |= {"getgid", "getgroups", "getloadavg", "getpgid", "getpriority", "getuid"}
FUNCTIONS |= {"getxattr", "killpg", "lockf", "mkfifo", "mknod", "nice", "pathconf"}
FUNCTIONS |= {"posix_fadvise", "posix_fallocate", "posix_spawn", "pread", "preadv"}
FUNCTIONS |= {"pwrite", "sched_getaffinity", "sched_setaffinity", "sendfile", "setsid"}
FUNCTIONS |= {"setpgid", "statvfs", "sync", "sysconf", "ttyname", "wait4", "WNOHANG"}
FUNCTIONS |= {"O_CLOEXEC", "O_DIRECT", "O_DIRECTORY", "O_NOATIME", "O_NOFOLLOW"}
FUNCTIONS |= {"O_NONBLOCK", "O_SYNC", "uname"}
# Of the standard library, which asks for them itself once it is imported on Linux.
KEPT = {"O_CLOEXEC", "SIGCHLD", "SIGKILL", "SIGPIPE", "WNOHANG", "uname", "posix"}
# Where each of them is used; what stands in its place is said there.
GUARDED = {
    "fcntl": "cnn/checkpoints/atomic.py",
    "O_NOFOLLOW": "cnn/checkpoints/atomic.py",  # behind fcntl
    "O_NONBLOCK": "cnn/checkpoints/atomic.py",
    "O_DIRECTORY": "cnn/checkpoints/manifest.py",
    "getuid": "cnn/checkpoints/library.py",
    "posix_fallocate": "cnn/data/storage_cache.py",
    "sched_getaffinity": "cnn/data/decode.py",
    "resource": "cnn/runtime/mishaps.py",
    "sysconf": "cnn/runtime/machine.py",
}


def list_names(tree):
    """List the names of POSIX that a module uses."""
    of_modules = {"os": FUNCTIONS, "signal": SIGNALS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from MODULES & {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            yield from MODULES & {node.module}
            names = of_modules.get(node.module, set())
            yield from names & {alias.name for alias in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield from of_modules.get(node.value.id, set()) & {node.attr}


@pytest.mark.parametrize(
    "text",
    [
        "import fcntl",
        "from fcntl import flock",
        "os.fork()",
        "from os import fork",
        "signal.SIGHUP",
        "from signal import SIGHUP",
    ],
)
def test_names_of_posix_are_found(text):
    assert len(list(list_names(ast.parse(text)))) == 1


def test_names_of_posix_stand_in_one_place_each():
    found = {}
    for path in [ROOT / "main.py", *ROOT.glob("cnn/**/*.py")]:
        for name in list_names(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    assert found == {name: {place} for name, place in GUARDED.items()}, (
        "guard it, say what stands in its place, and list it above"
    )


# The libraries come first: on Linux they need what there is on Linux.
WITHOUT = """
import asyncio, os, pkgutil, signal, socket, sys
import absl.app, array_record, filelock, flax, jax, jinja2, matplotlib.pyplot
import optax, orbax.checkpoint, PIL.Image, psutil, rich.console, scipy, sklearn
import tensorflow_datasets
for module in {modules}:
    sys.modules[module] = None
for place, names in ((os, {functions}), (signal, {signals})):
    for name in names:
        if hasattr(place, name):
            delattr(place, name)
import cnn
for each in pkgutil.walk_packages(cnn.__path__, "cnn."):
    if each.name != "cnn.__main__":
        __import__(each.name)
from cnn.data import decode
from cnn.runtime import interrupt, machine, mishaps, streams
streams.keep_open()
interrupt.leave_on_signals()
mishaps.check_space()
assert machine.get_memory() > 0 and decode.count_cores() > 0
import main
for command in {commands}:
    main.FLAGS.unparse_flags()
    assert main.main(main.parse_flags(["main.py", *command])) == 0
"""


def test_the_program_works_where_the_system_has_none_of_them(tmp_path):
    """Ten seconds: it imports all of cnn and all libraries, and trains."""
    cache = jax.config.jax_compilation_cache_dir or "off"
    shared = f"--compilation_cache={cache}", f"--workdir={tmp_path}/run"
    train = [*shared, *make_flags(TINY | {"epochs": 1})]
    evaluate = [*shared, "--mode=evaluate"]
    code = WITHOUT.format(
        modules=sorted(MODULES - KEPT),
        functions=sorted(FUNCTIONS - KEPT),
        signals=sorted(SIGNALS - KEPT),
        commands=[train, evaluate],
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "run/result.json").is_file()
    assert (tmp_path / "run/evaluation.json").is_file()
