"""What a phase computes with: nothing crosses between host and device inside a call."""

import re

import jax
import numpy as np
import pytest
from fixtures_runs import TINY

from cnn import config as config_module
from cnn import epoch, evaluate, memory, metrics, progress, steps
from cnn.errors import UserError
from cnn.interrupt import Stop
from cnn.run import Run
from cnn.state import get_variables

HOST = re.compile(r'custom_call_target="[^"]*callback[^"]*"| (?:infeed|outfeed|send)\(')


@pytest.fixture
def run(tmp_path):
    """Return a tiny run before its first step."""
    preset = config_module.load_preset("digits")
    config = config_module.make_config(preset, TINY)
    made = Run(config, tmp_path / "run", progress.Terminal(), Stop())
    made.restore()
    return made


def fill(run, count=2):
    loader = run.loaders["train"]
    ids = np.arange(count * run.config.step.batch_size, dtype=np.int32)
    ids = ids.reshape(count, -1)
    return loader.fill(ids, ids=ids)


def test_training_transfers_nothing(run):
    chunk = fill(run)
    with jax.transfer_guard("disallow"):
        records = run.take_steps(chunk, 0, 1)
        run.take_steps(chunk, 1, 2)
    assert run.step == 2 and records["loss"].shape == (1,)


def test_evaluation_transfers_nothing(run):
    program, seen = epoch.make_eval_chunk(run.task), []

    def guarded(*arguments):
        with jax.transfer_guard("disallow"):
            seen.append(jax.block_until_ready(program(*arguments)))
        return seen[-1]

    variables, loader = get_variables(run.state), run.loaders["test"]
    found = evaluate.compute_metrics(guarded, variables, loader, 20, 10, Stop())
    assert found["count"] == 360 == seen[-1]["count"]


def test_numbers_of_the_host_would_be_seen(run):
    """Arguments that nobody placed make the guard raise."""
    chunk, program = fill(run), epoch.make_train_chunk(run.task)
    arguments = (run.state, run.sums, chunk, run.hyperparameters)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="host-to-dev"):
        program(*arguments, np.int32(0), np.int32(1))


def list_callbacks(run):
    """List what in the compiled chunks would call the host."""
    chunk = fill(run)
    numbers = run.hyperparameters, np.int32(0), np.int32(1)
    variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
    masked = chunk | {"mask": chunk["labels"] == 0}
    programs = [
        epoch.make_train_chunk(run.task).lower(run.state, run.sums, chunk, *numbers),
        epoch.make_eval_chunk(run.task).lower(
            variables, metrics.create_sums(10), masked, *numbers[1:]
        ),
    ]
    texts = [program.compile().as_text() for program in programs]
    return [found for text in texts for found in HOST.findall(text)]


def test_the_schedule_is_computed_once_a_step(run):
    """XLA would put its cosine into the update of every parameter."""
    numbers = run.hyperparameters, np.int32(0), np.int32(1)
    program = epoch.make_train_chunk(run.task)
    lowered = program.lower(run.state, run.sums, fill(run), *numbers)
    assert lowered.compile().as_text().count(" cosine(") == 1


def test_chunks_do_not_call_the_host(run):
    assert not list_callbacks(run)


@pytest.mark.parametrize("name", ["train_step", "eval_step"])
def test_a_read_by_the_host_would_be_seen(run, monkeypatch, name):
    step = getattr(steps, name)

    def spoilt(*arguments):
        result = step(*arguments)
        jax.debug.callback(lambda leaf: None, jax.tree.leaves(result)[0])
        return result

    monkeypatch.setattr(steps, name, spoilt)
    assert "callback" in list_callbacks(run)[0]


class Exhausted:
    """A program that the device has no memory for."""

    def __init__(self, program):
        self._program = program

    def __call__(self, *arguments):
        """Fail as XLA does."""
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

    def __getattr__(self, name):
        return getattr(self._program, name)


def test_lack_of_memory_names_what_would_fit(run, monkeypatch):
    monkeypatch.setattr(memory, "get_device_memory", lambda mesh: 2**60)
    chunk = fill(run)
    run.take_steps(chunk, 0, 1)
    run.program._compiled = Exhausted(run.program._compiled)
    monkeypatch.setattr(memory, "get_device_memory", lambda mesh: 2**20)
    with pytest.raises(UserError) as caught:
        run.take_steps(chunk, 1, 2)
    message = str(caught.value)
    assert message.startswith("--batch_size=20 takes about 0.00 GiB of memory")
    for flag in ("--accumulate_steps=2", "--remat=blocks", "--precision=bfloat16"):
        assert flag in message


def test_other_errors_of_xla_are_left_alone(run):
    chunk = fill(run)
    run.take_steps(chunk, 0, 1)

    def fail(*arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    run.program._compiled = fail
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run.take_steps(chunk, 1, 2)


def test_what_cannot_fit_is_not_compiled(run, monkeypatch):
    monkeypatch.setattr(memory, "get_device_memory", lambda mesh: 2**10)
    monkeypatch.setattr(
        jax.stages.Lowered, "compile", lambda *a: pytest.fail("compiled")
    )
    with pytest.raises(UserError, match="--batch_size=20 takes about"):
        run.take_steps(fill(run), 0, 1)
    assert run.step == 0


def test_evaluation_without_memory(run, monkeypatch):
    program = Exhausted(epoch.make_eval_chunk(run.task))
    variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
    monkeypatch.setattr(memory, "get_device_memory", lambda mesh: 2**60)
    with pytest.raises(UserError, match="--batch_size=40 takes about") as caught:
        evaluate.compute_metrics(
            program, variables, run.loaders["test"], 40, 10, Stop()
        )
    assert "--remat" not in str(caught.value)
