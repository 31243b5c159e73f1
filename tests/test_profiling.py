import gzip
import json

import pytest
from fixtures_runs import run_main, train_run

from cnn.errors import UserError
from cnn.runtime import profiling
from cnn.runtime.options import ProfileOptions
from cnn.runtime.profiling import Profiler


def make(tmp_path, steps, total=100):
    return Profiler(ProfileOptions(str(tmp_path / "trace"), steps), total)


def test_only_the_chosen_steps_are_traced(tmp_path, monkeypatch):
    seen = []
    start = monkeypatch.setattr
    start(profiling.jax.profiler, "start_trace", lambda *a, **k: seen.append("start"))
    start(profiling.jax.profiler, "stop_trace", lambda: seen.append("stop"))
    profiler, step = make(tmp_path, "4:9"), 0
    with profiler:
        for wanted in (2, 5, 4, 5, 5):
            count = profiler.cut(step, wanted)
            with profiler.watch(step, count):
                seen.append((step + 1, step + count))
            step += count
    assert seen == [(1, 2), (3, 3), "start", (4, 7), (8, 9), "stop", (10, 14)]


def test_open_trace_is_written_when_the_run_stops(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(profiling.jax.profiler, "start_trace", lambda *a, **k: None)
    monkeypatch.setattr(profiling.jax.profiler, "stop_trace", lambda: seen.append(1))
    profiler = make(tmp_path, "1:9")
    with pytest.raises(KeyboardInterrupt), profiler:
        with profiler.watch(0, 3):
            pass
        assert not seen
        raise KeyboardInterrupt
    assert seen == [1]


def test_only_the_first_process_traces(tmp_path, monkeypatch):
    monkeypatch.setattr(profiling.processes, "is_first", lambda: False)
    monkeypatch.setattr(profiling.jax.profiler, "start_trace", pytest.fail)
    profiler = make(tmp_path, "3:4")
    assert profiler.cut(0, 9) == 2 and profiler.is_missing
    with profiler, profiler.watch(2, 2):
        pass
    assert not profiler.is_missing


def test_without_a_directory_nothing_is_cut_or_traced():
    profiler = Profiler(ProfileOptions(), 5)
    assert profiler.cut(9, 30) == 30
    profiler.check_ahead(1000)
    with profiler, profiler.watch(10, 10):
        pass


@pytest.mark.parametrize(
    "steps, message",
    [
        ("5", "write first:last"),
        ("0:4", "write first:last"),
        ("9:4", "write first:last"),
        ("a:4", "write first:last"),
        ("90:101", "lie outside the run, which has 100 steps"),
    ],
)
def test_steps_that_cannot_be_traced(tmp_path, steps, message):
    with pytest.raises(UserError, match=f"--profile_steps={steps}.*{message}"):
        make(tmp_path, steps)
    assert not (tmp_path / "trace").exists()


def test_steps_already_taken_are_refused(tmp_path):
    profiler = make(tmp_path, "11:20")
    profiler.check_ahead(10)
    with pytest.raises(UserError, match="resumes after step 11"):
        profiler.check_ahead(11)


def test_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "trace").touch()
    with pytest.raises(UserError, match="--profile=.*trace: .*; give a directory"):
        make(tmp_path, "1:2")


def test_a_run_writes_a_trace_of_its_steps(tmp_path):
    directory = tmp_path / "trace"
    train_run(tmp_path / "run", epochs=2, profile=str(directory), profile_steps="3:4")
    (path,) = directory.glob("plugins/profile/*/*.trace.json.gz")
    assert list(directory.glob("plugins/profile/*/*.xplane.pb"))
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    names = " ".join(event.get("name", "") for event in events)
    assert "convolution" in names or "dot" in names or "fusion" in names
    assert "backend_compile" not in names


def test_sweeps_are_not_traced(tmp_path, capsys):
    code = run_main(
        "--mode=sweep",
        "--sweep=seed=0:2",
        "--validation_fraction=0.1",
        f"--profile={tmp_path / 'trace'}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 2 and "trace would have no effect" in capsys.readouterr().err
