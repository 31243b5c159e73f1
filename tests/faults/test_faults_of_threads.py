"""Faults of threads: they die, hang, or are slow; signals that come meanwhile.

What happens to a thread is put into the process by a `sitecustomize` of its
environment, which changes a function of a module once that is imported.
"""

import fcntl
import os
import shutil
import signal
import socket
import time

from faulty import fault, finish, read_run, run_undisturbed
from fixtures_folders import write_folder
from fixtures_runs import TINY, make_flags

from cnn.runtime import interrupt

STREAMED = TINY | {"resident": "never"}
FOLDER = {
    "model": "logistic_regression",
    "resident": "never",
    "train_examples": 0,
    "batch_size": 8,
    "epochs": 3,
}
HANGS = "open('reached', 'w').close(); import threading; threading.Event().wait()"
# Without the lock of Python, and on through every signal.
STUCK = (
    "open('reached', 'w').close(); import ctypes; lock = ctypes.create_string_buffer("
    "64); take = ctypes.CDLL(None).pthread_mutex_lock; take(lock); take(lock)"
)
STOPPED = f"{interrupt.describe_end(signal.SIGTERM)}\n"
READS = "cnn.data.chunks", "Loader.fill"
DECODES = "cnn.data.decode", "decode"
WRITES = "cnn.checkpoints.checkpoint", "_read_back"
ALL_DECODE_IN_THREADS = {"cnn.data.decode": "THREADS_PAY_BYTES = 0"}
BACKGROUND = "cnn/runtime/background.py"
UNSEEN_SIGNAL = (
    BACKGROUND,
    "            if number and _is_alone():\n",
    "            if False:\n",
)
NEVER_SILENT = (BACKGROUND, "        if waited < limit:\n", "        if True:\n")
_SITE = """
import importlib.abc, importlib.util, sys
patches = {patches!r}

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in patches:
            return None
        code, spec = patches.pop(name), importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            exec(code, vars(module))
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
_PATCH = """
import itertools as _itertools
_calls, _before = _itertools.count(), {name}
def _instead(*args, **kwargs):
    if next(_calls) == {number}:
        {what}
    return _before(*args, **kwargs)
{name} = _instead
"""


def inject(room, place=None, number=0, what="", also=None, stopping=None):
    """Let a call of a function do something else first.

    Args:
        place: module and name of the function.
        number: of the call, from 0.
        what: a statement.
        also: code to run in other modules, by their names.
        stopping: seconds for which a silent thread is waited for after a signal.

    Returns:
        The environment of a process with it.
    """
    patches = dict(also or {})
    if place:
        code = _PATCH.format(name=place[1], number=number, what=what)
        patches[place[0]] = patches.get(place[0], "") + code
    if stopping:
        patches["cnn.runtime.background"] = f"STOPPING_SECONDS = {stopping}"
    site = room.path / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_SITE.format(patches=patches))
    return {"PYTHONPATH": f"{site}{os.pathsep}{room.root}"}


def start_training(room, env, options=STREAMED):
    return room.start("--workdir=run", *make_flags(options), env=env)


def wait_until(process, holds):
    """Wait until something holds of a process that still runs."""
    while process.poll() is None:
        if holds():
            return
        time.sleep(0.005)
    raise AssertionError(finish(process))


def wait_until_reached(room, process):
    wait_until(process, (room.path / "reached").exists)


def list_checkpoints(room):
    """Return the steps of whole checkpoints."""
    found = (room.path / "run" / "checkpoints").iterdir()
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def check_resumes(room, options=STREAMED, flags=()):
    """Require that the same command resumes to the bits of a run left alone."""
    room.main("--workdir=run", *make_flags(options), *flags).check_done()
    assert read_run(room.path / "run") == undisturbed(room, options, flags)


def undisturbed(room, options, flags):
    if options is STREAMED:
        return run_undisturbed(resident="never")
    room.main("--workdir=alone", *make_flags(options), *flags).check_done()
    return read_run(room.path / "alone")


@fault(
    injected="it raises SystemExit, or MemoryError, in the second epoch",
    holds="one message with the cause, a checkpoint of the last step, exit code 2; "
    "the same command resumes to the same bits",
    without=[
        (
            BACKGROUND,
            "        if isinstance(self._error, UserError | OSError):",
            "        if self._error:",
        )
    ],
    n=2,
)
def test_the_thread_that_reads_images_dies(room):
    for what in ("SystemExit", "MemoryError"):
        ended = finish(start_training(room, inject(room, READS, 3, f"raise {what}")))
        ended.check_refused("the thread that reads images", what)
        assert "stopped at step 5; the same command resumes" in ended.out
        assert list_checkpoints(room)[-1] == 5
        check_resumes(room)
        shutil.rmtree(room.path / "run")


@fault(
    injected="it waits for ever in the second epoch; then SIGTERM",
    holds="the process ends with 143 and a checkpoint of the last step",
    without=[UNSEEN_SIGNAL],
)
def test_the_thread_that_reads_images_hangs_and_the_run_is_asked_to_stop(room):
    process = start_training(room, inject(room, READS, 3, HANGS))
    wait_until_reached(room, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    ended = finish(process, 30)
    assert ended.code == 143 and ended.err == "", ended
    assert list_checkpoints(room)[-1] == 5
    check_resumes(room)


@fault(
    injected="decoding a file waits for ever, for longer than the limit of silence",
    holds="one message that names the thread, the file and the time; exit code 2 and a "
    "checkpoint of the last step",
    without=[NEVER_SILENT],
)
def test_a_thread_that_decodes_images_hangs(room):
    write_folder(room.path / "images")
    flags = ["--dataset=folder:images"]
    env = inject(room, DECODES, 60, HANGS, ALL_DECODE_IN_THREADS)
    command = ["--workdir=run", *make_flags(FOLDER), *flags, "--stall_minutes=0.05"]
    process = room.start(*command, env=env)
    ended = finish(process, 90)
    ended.check_refused("no sign of life for 3 seconds", "images/", ".bmp")
    assert "stopped at step" in ended.out
    check_resumes(room, FOLDER, flags)


@fault(
    injected="decoding a file raises RecursionError",
    holds="one message that names the file, exit code 2 and a checkpoint of the last "
    "step, no traceback",
    without=[
        (
            "cnn/data/chunks.py",
            "            raise background.Failed(str(error)) from error",
            "            raise UserError(str(error)) from error",
        ),
        (
            BACKGROUND,
            "        if isinstance(self._error, UserError | OSError):",
            "        if self._error:",
        ),
    ],
)
def test_a_thread_that_decodes_images_raises_what_no_one_expects(room):
    write_folder(room.path / "images")
    flags = ["--dataset=folder:images"]
    env = inject(room, DECODES, 60, "raise RecursionError", ALL_DECODE_IN_THREADS)
    ended = finish(
        room.start("--workdir=run", *make_flags(FOLDER), *flags, env=env), 90
    )
    ended.check_refused("RecursionError", "images/", ".bmp")
    assert "stopped at step" in ended.out
    check_resumes(room, FOLDER, flags)


@fault(
    injected="a pass over the images leaves out its last batch",
    holds="the evaluation is refused, not computed of fewer images",
    without=[
        ("cnn/training/epoch.py", "    if until != total:\n", "    if False:\n"),
    ],
)
def test_the_images_end_early(room):
    code = (
        "_all = iterate_chunks\n"
        "def iterate_chunks(*args):\n"
        "    for first, last, chunk in _all(*args):\n"
        "        yield first, max(first, last - 1), chunk\n"
    )
    env = inject(room, also={"cnn.training.epoch": code})
    ended = finish(start_training(room, env))
    ended.check_refused("the images ended after batch")


@fault(
    injected="the thread that reads images works on, slowly; the process gets SIGSTOP "
    "for twice the limit of silence, then SIGCONT",
    holds="that is no silence: the run ends as if nothing had been",
    without=[
        (
            BACKGROUND,
            "        waited, signs, signalled = 0.0, self._signs, 0\n",
            "        waited, signs, signalled = 0.0, self._signs, 0\n"
            "        import time; begun = time.monotonic()\n",
        ),
        (
            BACKGROUND,
            "            waited += LOOK_SECONDS\n",
            "            waited = time.monotonic() - begun\n",
        ),
    ],
)
def test_the_process_is_stopped_for_longer_than_silence_is_allowed(room):
    slow = "open('reached', 'w'); import time; [time.sleep(0.1) for _ in range(20)]"
    options = STREAMED | {"stall_minutes": 4 / 60}
    process = start_training(room, inject(room, READS, 3, slow), options)
    wait_until_reached(room, process)
    time.sleep(0.3)
    process.send_signal(signal.SIGSTOP)
    time.sleep(8)
    process.send_signal(signal.SIGCONT)
    finish(process).check_done()
    assert read_run(room.path / "run") == run_undisturbed(resident="never")


@fault(
    injected="it waits for ever, as on a disk that no longer answers",
    holds="one message that says so, exit code 2; the checkpoints before are whole, "
    "the same command resumes",
    without=[NEVER_SILENT],
)
def test_the_thread_that_writes_checkpoints_hangs(room):
    options = STREAMED | {"stall_minutes": 0.05}
    process = start_training(room, inject(room, WRITES, 3, HANGS), options)
    ended = finish(process, 90)
    ended.check_refused("could not be written", "no sign of life for 3 seconds")
    assert list_checkpoints(room)
    check_resumes(room)


@fault(
    injected="likewise, then SIGTERM",
    holds="the process ends with 143 after the time that is left to it, and says what "
    "could not be saved",
    without=[
        (BACKGROUND, "        if number or has_deaths():\n", "        if False:\n"),
    ],
)
def test_the_run_is_asked_to_stop_while_a_checkpoint_hangs(room):
    env = inject(room, WRITES, 3, HANGS, stopping=2)
    process = start_training(room, env)
    wait_until_reached(room, process)
    process.send_signal(signal.SIGTERM)
    ended = finish(process, 40)
    assert ended.code == 143 and ended.err.count("\n") == 1, ended
    assert "error: the thread that writes checkpoints" in ended.err
    check_resumes(room)


@fault(
    injected="likewise, then Ctrl-C twice",
    holds="the process ends with 130 at once",
    without=[
        (
            "cnn/training/loop.py",
            "            is_waiting = False\n",
            "            pass\n",
        ),
        ("cnn/runtime/interrupt.py", "left = _LAST_SECONDS", "left = None"),
    ],
)
def test_ctrl_c_twice_while_a_checkpoint_hangs(room):
    env = inject(room, WRITES, 3, HANGS, stopping=60)
    process = start_training(room, env)
    wait_until_reached(room, process)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    ended = finish(process, 30)
    assert ended.code == 130 and "Traceback" not in ended.err, ended
    check_resumes(room)


@fault(
    injected="writing one takes seconds; SIGTERM meanwhile",
    holds="it is finished: exit code 143, a checkpoint of the last step",
    without=[
        (
            "cnn/checkpoints/checkpoint.py",
            "pending.result(patient=True)",
            "pending.result()",
        )
    ],
)
def test_the_run_is_asked_to_stop_while_a_slow_checkpoint_is_written(room):
    slow = "open('reached', 'w'); import time; time.sleep(4)"
    process = start_training(room, inject(room, WRITES, 3, slow))
    wait_until_reached(room, process)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.code == 143 and ended.err == "", ended
    assert "stopped at step" in ended.out, ended
    step = ended.out.partition("stopped at step ")[2].partition(";")[0]
    assert list_checkpoints(room)[-1] == int(step), ended
    check_resumes(room)


@fault(
    injected="a slow disk: what is written grows for twice the limit of silence",
    holds="growing is no silence: the checkpoint is waited for, and the run ends",
    without=[
        (
            "cnn/checkpoints/checkpoint.py",
            '                job.note(f"byte {size} of {new}")\n',
            "",
        )
    ],
)
def test_a_checkpoint_is_written_slowly(room):
    grows = (
        "import time; file = open(args[0] / 'description.json', 'w'); "
        "[(time.sleep(0.5), file.write(' '), file.flush()) for _ in range(20)]"
    )
    options = STREAMED | {"stall_minutes": 5 / 60}
    env = inject(room, WRITES, 3, grows)
    finish(start_training(room, env, options)).check_done()
    assert read_run(room.path / "run") == run_undisturbed(resident="never")


@fault(
    injected="a thread that a library has started raises what nobody catches",
    holds="one message with the cause, exit code 2 and a checkpoint of the last step; "
    "the same command goes on",
    without=[(BACKGROUND, '_deaths.append(f"', 'print(f"')],
)
def test_the_thread_of_a_library_dies(room):
    full = (
        "import threading, os; "
        "thread = threading.Thread(target=os.read, args=(-1, 1)); "
        "thread.start(); thread.join()"
    )
    place = "cnn.runtime.metrics_log", "MetricsLog.write"
    env = inject(room, place, 2, full)
    ended = finish(start_training(room, env, STREAMED), 90)
    ended.check_refused("has died", "Bad file descriptor")
    assert list_checkpoints(room)
    check_resumes(room)


@fault(
    injected="the main thread is inside a library that does not return, before there "
    "is something to save; SIGTERM",
    holds="the process ends with 143 at once, and says so",
    without=[
        (
            "cnn/runtime/interrupt.py",
            "            if since > _LAST_SECONDS:",
            "            if False:",
        )
    ],
)
def test_a_library_does_not_return_while_a_run_is_set_up(room):
    place = "cnn.data.chunks", "Loader.__init__"
    process = start_training(room, inject(room, place, 0, STUCK))
    wait_until_reached(room, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    ended = finish(process, 15)
    assert ended.code == 143 and ended.err == STOPPED, ended


@fault(
    injected="the main thread is inside a library that does not return, in training; "
    "Ctrl-C twice",
    holds="the process ends with 130; the checkpoints before are whole",
    without=[("cnn/runtime/interrupt.py", "left = _LAST_SECONDS", "left = None")],
)
def test_a_library_does_not_return_while_a_run_trains(room):
    place = "cnn.training.epoch", "check_whole"
    process = start_training(room, inject(room, place, 3, STUCK))
    wait_until_reached(room, process)
    for _ in range(2):
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    assert finish(process, 30).code == 130
    check_resumes(room)


@fault(
    injected="standard output is a small pipe, soon full; then SIGTERM",
    holds="the process ends with 143 and a checkpoint",
    without=[
        (
            "cnn/runtime/streams.py",
            "            self._is_left = self._is_left or bool("
            "interrupt.find_request())\n",
            "",
        )
    ],
)
def test_nobody_reads_what_is_printed(room):
    options = STREAMED | {"epochs": 400, "checkpoint_every_epochs": 100}
    process = start_training(room, inject(room), options)
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 8192)
    lines = room.path / "run" / "metrics.jsonl"
    sizes = [-1]

    def stands_still():
        if not lines.exists() or lines.read_text().count('"epoch"') < 20:
            return False
        time.sleep(3)
        sizes.append(lines.stat().st_size)
        return sizes[-1] == sizes[-2]

    wait_until(process, stands_still)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    process.communicate()
    assert list_checkpoints(room)[-1] > 0


@fault(
    injected="SIGXCPU, as of a limit of CPU time, and SIGUSR2, as of a batch system",
    holds="exit codes 152 and 140, a checkpoint of the last step; the same command "
    "resumes to the same bits",
    without=[("cnn/runtime/interrupt.py", ', "SIGUSR2", "SIGXCPU"', "")],
    n=2,
)
def test_a_batch_system_sends_other_signals(room):
    for number in (signal.SIGXCPU, signal.SIGUSR2):
        process = start_training(room, inject(room, READS, 3, HANGS))
        wait_until_reached(room, process)
        process.send_signal(number)
        ended = finish(process, 30)
        assert ended.code == 128 + number and ended.err == "", ended
        assert list_checkpoints(room)[-1] == 5
        check_resumes(room)
        (room.path / "reached").unlink()
        shutil.rmtree(room.path / "run")


@fault(
    injected="the process is stopped; SIGUSR1, then SIGTERM, then SIGCONT",
    holds="the first counts: exit code 138, so that Slurm runs the job again; a "
    "checkpoint of the last step",
    without=[
        (
            "cnn/runtime/interrupt.py",
            "        if self.signal is None:\n",
            "        if self.signal is None or number != signal.SIGINT:\n",
        )
    ],
)
def test_two_signals_arrive_at_once(room):
    process = start_training(room, inject(room, READS, 3, HANGS))
    wait_until_reached(room, process)
    for number in (signal.SIGSTOP, signal.SIGUSR1, signal.SIGTERM, signal.SIGCONT):
        process.send_signal(number)
    ended = finish(process, 30)
    assert ended.code == 128 + signal.SIGUSR1 and ended.err == "", ended
    assert list_checkpoints(room)[-1] == 5
    check_resumes(room)


@fault(
    injected="decoding a file waits for ever; SIGTERM",
    holds="the process ends with 143 and keeps the rows so far",
    without=[UNSEEN_SIGNAL],
)
def test_a_file_to_predict_hangs(room):
    room.train("run", epochs=1).check_done()
    write_folder(room.path / "images", each=20)
    command = ["--mode=predict", "--workdir=run", "--predict_images=images/*"]
    command += ["--predict_batch_size=4", "--image_size=8"]
    process = room.start(*command, env=inject(room, DECODES, 30, HANGS))
    wait_until_reached(room, process)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    ended = finish(process, 30)
    assert ended.code == 143 and ended.err == STOPPED, ended
    assert "what was computed is in" in ended.out, ended


@fault(
    injected="the thread that reads the images of a trial waits for ever; SIGTERM",
    holds="the process ends with 143; the same command takes up the trials that had "
    "ended",
    without=[UNSEEN_SIGNAL],
)
def test_the_images_of_a_sweep_hang(room):
    options = STREAMED | {"sweep": "learning_rate=0.01,0.1", "executor": "loop"}
    for name in ("checkpoint_every_epochs", "log_every_steps"):
        del options[name]
    flags = ["--mode=sweep", "--workdir=sweep", *make_flags(options)]
    process = room.start(*flags, env=inject(room, READS, 12, HANGS))
    wait_until_reached(room, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    ended = finish(process, 30)
    assert ended.code == 143 and ended.err == "", ended
    room.main(*flags).check_done()


@fault(
    injected="of two processes one's thread that reads images waits for ever",
    holds="it says so and ends; the other says that it has lost it, and ends too",
    without=[NEVER_SILENT],
)
def test_the_images_of_one_of_two_processes_hang(room):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
    flags = ["--workdir=run", *make_flags(STREAMED), "--stall_minutes=0.05"]
    env = inject(room, READS, 3, HANGS)
    plain = {"PYTHONPATH": str(room.root)}
    processes = [
        room.start(*flags, f"--distributed={address},2,{i}", env=(plain, env)[i])
        for i in range(2)
    ]
    first, second = (finish(process, 90) for process in processes)
    assert second.code == 2 and "no sign of life for 3 seconds" in second.err, second
    assert first.code not in (0, 137) and "another" in first.err, first
