"""Contenders of the benchmarks of training: ours, a plain loop, and PyTorch.

Each is a function that runs one round and returns its seconds. The same model, batch,
optimizer (SGD, Nesterov momentum 0.9, weight decay 5e-4) and cores for all; images are
random and lie in memory.
"""

import dataclasses
import operator
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flags
import jax
import jax.numpy as jnp
import numpy as np
from clocks import CLOCKS, PASSIVE

from cnn import config
from cnn.errors import UserError
from cnn.models import summary
from cnn.runtime import devices, heap, xla
from cnn.training import epoch, metrics, steps
from cnn.training.kernels import choose_compiler_options
from cnn.training.setup import make_structure_of_model
from cnn.training.state import create_state, get_weights

Round = Callable[[], float]
NUM_CLASSES = 10
_PAUSE = 0.5  # idle threads of PyTorch's OpenMP keep spinning for 0.2 s
# As in CIFAR-10; by them --cpu_kernels=auto chooses.
EPOCH_IMAGES, TEST_IMAGES = 50_000, 10_000


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained: a model on images of one size, and the steps of a round.

    Attributes:
        clock: of `CLOCKS`, by which rounds are timed.
    """

    model: str
    size: int
    channels: int
    batch_size: int
    steps: int
    clock: str = "wall"

    def read_clock(self) -> float:
        """Return the seconds of the clock."""
        return CLOCKS[self.clock]()

    @property
    def images(self) -> int:
        """Images of a round."""
        return self.batch_size * self.steps

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image, (H, W, C)."""
        return (self.size, self.size, self.channels)

    def __str__(self) -> str:
        """Name the case in a table."""
        size = "x".join(map(str, self.shape))
        return f"{self.model}, {size}, batch {self.batch_size}"


class Ours:
    """Our step on random images, with a state that is kept from round to round."""

    def __init__(self, case: Case, **options) -> None:
        """Create the state and put the images on the devices."""
        given = {"model": case.model, "batch_size": case.batch_size}
        run = config.make_config(given | {"weight_decay": 5e-4} | options)
        self.case, mesh = case, devices.make_mesh(run.device.mesh)
        self.structure = dataclasses.replace(
            make_structure_of_model(run, NUM_CLASSES), steps_per_epoch=case.steps
        )
        everywhere = devices.replicated(mesh)
        self.numbers = jax.device_put(run.make_numbers(), everywhere)

        def create(numbers):
            structure = self.structure
            return create_state(structure.model, case.shape, structure.rule, numbers)

        self.state = jax.jit(create, out_shardings=everywhere)(self.numbers)
        self.sums = jax.device_put(steps.create_train_sums(), everywhere)
        images, labels = make_data(case)
        ids = np.arange(labels.size, dtype=np.int32).reshape(labels.shape)
        chunk = {"images": images, "labels": labels, "ids": ids}
        self.chunk = jax.device_put(chunk, devices.split_batches(mesh))
        self.compile_seconds, self.compiled = 0.0, None
        self.description = summary.describe_model(self.structure.model, case.shape)
        macs = EPOCH_IMAGES * self.description["macs"]
        kernels = run.device.cpu_kernels
        self._compiler_options = xla.choose_compiler_options(kernels, mesh, macs)
        self._options_of_evaluation = choose_compiler_options(
            self.structure, mesh, case.shape, TEST_IMAGES
        )

    def make_scanned(self) -> Round:
        """Make rounds of the epoch's program, all steps in one call."""
        bounds = epoch.make_bounds(0, self.case.steps)
        options = self._compiler_options
        program = epoch.make_train_chunk(self.structure, None, options)
        arguments = (self.state, self.sums, self.chunk, self.numbers, bounds)
        started = time.perf_counter()
        program = program.lower(*arguments).compile()
        self.compile_seconds = time.perf_counter() - started
        heap.give_back()
        self.compiled = program

        def run_round() -> float:
            started = self.case.read_clock()
            self.state, self.sums, step_metrics = program(
                self.state, self.sums, self.chunk, self.numbers, bounds
            )
            jax.block_until_ready(step_metrics)
            return self.case.read_clock() - started

        return run_round

    def make_loop(self) -> Round:
        """Make rounds of a Python loop that calls one jitted step after the other."""

        def step(state, batch, numbers):
            return steps.train_step(self.structure, state, batch, numbers)[::2]

        options = dict(self._compiler_options)
        program = jax.jit(step, donate_argnums=0, compiler_options=options)
        batches = [
            jax.tree.map(operator.itemgetter(i), self.chunk)
            for i in range(self.case.steps)
        ]

        def run_round() -> float:
            started = self.case.read_clock()
            for batch in batches:
                self.state, step_metrics = program(self.state, batch, self.numbers)
            jax.block_until_ready(step_metrics)
            return self.case.read_clock() - started

        return run_round

    def make_forward(self) -> Round:
        """Make rounds of evaluation, all batches in one call."""
        options = self._options_of_evaluation
        program = epoch.make_eval_chunk(self.structure, None, options)
        # A copy: the state will be donated.
        variables = jax.tree.map(jnp.copy, get_weights(self.state))
        labels = self.chunk["labels"]
        chunk = {"images": self.chunk["images"], "labels": labels}
        chunk["mask"] = jnp.ones_like(labels, bool)
        sums = metrics.create_sums(NUM_CLASSES)
        bounds = epoch.make_bounds(0, self.case.steps)

        def run_round() -> float:
            started = self.case.read_clock()
            jax.block_until_ready(program(variables, sums, chunk, bounds))
            return self.case.read_clock() - started

        return run_round


def make_torch(
    python: str,
    case: Case,
    what: str,
    layout: str,
    mode: str = "eager",
    precision: str = "float32",
) -> Round:
    """Make rounds in a PyTorch process.

    Args:
        python: an interpreter that has PyTorch.
        case: as ours.
        what: `train` or `forward`.
        layout: `default` or `channels_last`.
        mode: `eager` or `compiled`.
        precision: as `--precision`.
    """
    return make_torch_worker(python, case, what, layout, mode, precision)[0]


def make_torch_worker(
    python: str,
    case: Case,
    what: str,
    layout: str,
    mode: str = "eager",
    precision: str = "float32",
) -> tuple[Round, subprocess.Popen]:
    """Make such rounds, and return the process too, for `ask`."""
    arguments = (what, layout, mode, precision, *dataclasses.astuple(case))
    more = PASSIVE if case.clock == "cpu" else {}
    return start_worker(python, "torch_step.py", *arguments, environment=more)


def has_torch(python: str, model: str) -> bool:
    """Return whether the PyTorch process has a model of that name."""
    script = Path(__file__).with_name("torch_step.py")
    done = subprocess.run([python, str(script), "has", model], stdout=subprocess.PIPE)
    return done.stdout.strip() == b"True"


def start_worker(
    python: str,
    script: str,
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
) -> tuple[Round, subprocess.Popen]:
    """Start a script of this directory that runs a round for each line it reads.

    Args:
        python: an interpreter that has what the script needs.
        script: its name.
        arguments: of the script.
        environment: variables beside those of this process.

    Returns:
        What runs a round, and the process.
    """
    worker = subprocess.Popen(
        [python, str(Path(__file__).with_name(script)), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
    )

    return lambda: ask(worker, "round"), worker


def ask(worker: subprocess.Popen, what: str) -> float:
    """Write a line to a worker and return the number that it answers.

    Raises:
        UserError: it has ended.
    """
    try:
        worker.stdin.write(f"{what}\n")
        worker.stdin.flush()
    except BrokenPipeError:
        pass  # no line will come
    line = worker.stdout.readline()
    if not line:
        script, *rest = worker.args[1:]
        given = " ".join([Path(script).name, *rest])
        raise UserError(f"{given} ended; its error is above")
    return float(line)


def make_data(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Make uint8 images [steps, B, H, W, C] and labels; values do not matter here."""
    generator = np.random.default_rng(0)
    images = generator.integers(
        0, 256, (case.steps, case.batch_size, *case.shape), np.uint8
    )
    labels = generator.integers(0, NUM_CLASSES, images.shape[:2])
    return images, labels.astype(np.int32)


def take_turns(
    contenders: dict[str, Round], images: int, rounds: int
) -> dict[str, list[float]]:
    """Run the contenders in turns, a round each, after a warm-up round.

    Returns:
        Images a second of each contender's rounds.
    """
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run_round in contenders.items():
            flags.report(f"round {number} of {rounds}: {name}")
            time.sleep(_PAUSE)
            seconds = run_round()
            if number:
                speeds[name].append(images / seconds)
    return speeds


def compare_with(ours: list[float], values: list[float]) -> str:
    """Write the median of ours / theirs, with its range; neighbours in time."""
    ratios = [a / b for a, b in zip(ours, values, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
