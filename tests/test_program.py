"""Compiled chunks: nothing crosses between host and device inside a call."""

import contextlib
import re

import jax
import numpy as np
import pytest
from fixtures_runs import TINY, make_setup

from cnn.data.chunks import iterate_chunks
from cnn.errors import UserError
from cnn.runtime import devices, heap
from cnn.runtime.interrupt import Stop
from cnn.runtime.options import ProfileOptions
from cnn.runtime.profiling import Profiler
from cnn.training import epoch, memory, metrics, progress, steps
from cnn.training.epoch import Pace
from cnn.training.state import get_variables, get_weights

HOST = re.compile(r'custom_call_target="[^"]*callback[^"]*"| (?:infeed|outfeed|send)\(')


@pytest.fixture(scope="module")
def setup():
    """Return the setup of a tiny run."""
    return make_setup(TINY)


@pytest.fixture
def run(setup):
    """Return where that run stands before its first step."""
    return progress.begin(setup)


def fill(setup, count=2):
    loader = setup.loaders["train"]
    ids = np.arange(count * setup.config.step.batch_size, dtype=np.int32)
    ids = ids.reshape(count, -1)
    return loader.fill(ids, ids=ids)


def make_arguments(setup, run, first=0, count=1):
    bounds = epoch.make_bounds(first, count)
    everywhere = devices.replicated(setup.mesh)
    placed = devices.put(everywhere, (setup.numbers, bounds))
    return run.state, run.sums, fill(setup), *placed


def take_one(setup, run):
    """Take one step as a run does."""
    profiler = Profiler(ProfileOptions(), 0)
    return next(progress.take_epoch(setup, run, Stop(), Pace(), profiler, 1))


def test_training_transfers_nothing(setup, run):
    program = setup.phases[0].train_chunk
    arguments = make_arguments(setup, run)
    with jax.transfer_guard("disallow"):
        state, _, step_metrics = program(*arguments)
    assert state.step == 1 and np.all(step_metrics["loss"][:1] > 0)


def test_a_step_as_a_run_takes_it(setup, run):
    ids, step_metrics = take_one(setup, run)
    assert run.step == 1 and ids.shape == (1, TINY["batch_size"])
    assert step_metrics["loss"].shape == (1,)


def test_evaluation_transfers_nothing(setup, run):
    loader, everywhere = setup.loaders["test"], devices.replicated(setup.mesh)
    positions = np.zeros((1, 20), np.int32)
    chunk = loader.fill(positions, mask=np.ones((1, 20), bool))
    program = epoch.make_eval_chunk(setup.structure, setup.mesh)
    placed = devices.put(everywhere, (metrics.create_sums(10), epoch.make_bounds(0, 1)))
    with jax.transfer_guard("disallow"):
        found = program(get_variables(run.state), placed[0], chunk, placed[1])
    assert found["count"] == 20


def test_numbers_of_the_host_would_be_seen(setup, run):
    """Arguments that nobody placed make the guard raise."""
    arguments = (run.state, run.sums, fill(setup), setup.numbers)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="host-to-dev"):
        setup.phases[0].train_chunk(*arguments, epoch.make_bounds(0, 1))


def list_callbacks(setup, run):
    """List what in newly made chunks would call the host."""
    state, sums, chunk, numbers, bounds = make_arguments(setup, run)
    masked = chunk | {"mask": chunk["labels"] == 0}
    programs = [
        epoch.make_train_chunk.__wrapped__(setup.structure).lower(
            state, sums, chunk, numbers, bounds
        ),
        epoch.make_eval_chunk.__wrapped__(setup.structure).lower(
            get_weights(state), metrics.create_sums(10), masked, bounds
        ),
    ]
    texts = [program.compile().as_text() for program in programs]
    return [found for text in texts for found in HOST.findall(text)]


def test_the_schedule_is_computed_once_a_step(setup, run):
    """XLA would put its cosine into the update of every parameter."""
    lowered = setup.phases[0].train_chunk.lower(*make_arguments(setup, run))
    assert lowered.compile().as_text().count(" cosine(") == 1


def test_chunks_do_not_call_the_host(setup, run):
    assert not list_callbacks(setup, run)


@pytest.mark.parametrize("name", ["train_step", "eval_step"])
def test_a_read_by_the_host_would_be_seen(setup, run, monkeypatch, name):
    step = getattr(steps, name)

    def spoilt(*arguments):
        result = step(*arguments)
        jax.debug.callback(lambda leaf: None, jax.tree.leaves(result)[0])
        return result

    monkeypatch.setattr(steps, name, spoilt)
    assert "callback" in list_callbacks(setup, run)[0]


def test_equal_structures_share_their_programs(setup):
    """Two runs in one process are traced once."""
    other = make_setup(TINY, {"learning_rate": 0.3, "seed": 5}, like=setup)
    assert other.structure == setup.structure and other.numbers is not setup.numbers
    assert other.phases[0].train_chunk is setup.phases[0].train_chunk
    assert other.phases[0].create is setup.phases[0].create
    wider = make_setup(TINY, {"widths": (6,)}, like=setup)
    assert wider.phases[0].train_chunk is not setup.phases[0].train_chunk


class Exhausted:
    """A program that the device has no memory for."""

    def __init__(self, program, error="RESOURCE_EXHAUSTED: Out of memory allocating"):
        self._program, self._error = program, error

    def __call__(self, *arguments):
        """Fail as XLA does."""
        raise jax.errors.JaxRuntimeError(self._error)

    def __getattr__(self, name):
        return getattr(self._program, name)


def replace_program(setup, program):
    phase = steps.dataclasses.replace(setup.phases[0], train_chunk=program)
    return steps.dataclasses.replace(setup, phases=(phase,))


def test_lack_of_memory_names_what_would_fit(setup, run, monkeypatch):
    """Found by compiling; here everything but the batch takes the whole device."""
    broken = replace_program(setup, Exhausted(setup.phases[0].train_chunk))
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: 2**60)
    with pytest.raises(UserError) as caught:
        take_one(broken, run)
    message = str(caught.value)
    assert message.startswith("--batch_size=20 takes about 0.00 GiB of memory")
    for flag in ("--accumulate_steps=2", "--remat=blocks", "--precision=bfloat16"):
        assert flag in message
    assert run.step == 0


def test_other_errors_of_xla_are_left_alone(setup, run):
    program = Exhausted(setup.phases[0].train_chunk, "INTERNAL: something else")
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        take_one(replace_program(setup, program), run)


def test_a_batch_that_does_not_fit_is_refused_before_the_first_step(
    setup, run, monkeypatch
):
    arguments = make_arguments(setup, run)
    program = setup.phases[0].train_chunk
    fixed = memory.count_taken(arguments)
    needed = memory.measure_temporary(program, arguments)
    monkeypatch.setattr(
        devices, "get_device_memory", lambda mesh: fixed + needed * 3 // 4
    )
    with pytest.raises(UserError, match=r"--batch_size=(\d+) would fit") as caught:
        take_one(setup, run)
    assert run.step == 0
    size = int(re.search(r"--batch_size=(\d+) would", str(caught.value))[1])
    assert 0 < size < 20 and size % 2 == 0


def test_a_program_is_checked_once_in_a_phase(setup, run, monkeypatch):
    """Arrays that come later, as in a notebook, do not end a run that fits."""
    take_one(setup, run)
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: 1)
    take_one(setup, run)
    assert run.step == 2


def test_evaluation_without_memory(setup, run, monkeypatch):
    make = epoch.make_eval_chunk
    monkeypatch.setattr(epoch, "make_eval_chunk", lambda *args: Exhausted(make(*args)))
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: 2**60)
    with pytest.raises(UserError, match="--batch_size=20 takes about") as caught:
        progress.evaluate(setup, run, "test", Stop())
    assert "--remat" not in str(caught.value)


def test_calls_of_a_chunk_cover_it_once(setup, monkeypatch):
    """The one host loop: every step once, in order, cut where it must be.

    What compilation leaves in the heap is given back before the first.
    """
    loader = setup.loaders["train"]
    positions = np.arange(90, dtype=np.int32).reshape(9, 10)
    chunks = iterate_chunks(loader, 4, {"positions": positions}, first=2)
    pace, seen = Pace(), []
    pace.note(1e-9)
    monkeypatch.setattr(heap, "give_back", lambda: seen.append("gave back"))

    class Program:
        def lower(self, *args):
            return self

        def compile(self):
            seen.append("compiled")

        def __call__(self, chunk, first, last):
            assert seen
            return first, last

    calls = epoch.run_chunks(
        Program(),
        chunks,
        lambda *call: call,
        Stop(),
        pace,
        limit=lambda first, available: min(available, 3 - first % 3),
        around=lambda *call: contextlib.nullcontext(),
    )
    assert [(first, last) for first, last, *_ in calls] == [
        (2, 3),
        (3, 4),
        (4, 6),
        (6, 8),
        (8, 9),
    ]
    assert seen == ["compiled", "gave back"]
