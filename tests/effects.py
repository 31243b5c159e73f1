"""What a program does under some choices, as parts that differ where it does.

Choices are options by flag name. Nothing is compiled but by `see_run`, which trains.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
import tempfile
import types
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures_runs import make_flags, patch_modes, run_main
from jax.interpreters import partial_eval

import main
from cnn import (
    average,
    describe,
    find_rate,
    models,
    option,
    predict,
    train,
)
from cnn.checkpoints import atomic, manifest
from cnn.config import Config, Numbers, make_config
from cnn.data import identity, load_dataset, order
from cnn.errors import UserError
from cnn.evaluation import evaluate, judge
from cnn.inspection import inspect
from cnn.ledger import list_runs
from cnn.models.variables import create_variables
from cnn.replay import replay
from cnn.runtime import background, tracking
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep import outcome, searches, session, study, sweep, worker
from cnn.training import (
    budget,
    classify_files,
    epoch,
    losses,
    rehearsal,
    same_data,
    steps,
    temperature,
)
from cnn.training import setup as training_setup
from cnn.training.setup import make_structure_of_model
from cnn.training.trained import Trained, load_trained
from cnn.transfer.features import cut_before_head
from cnn.visualize import visualize
from cnn.visualize.compute import coordinates
from cnn.visualize.draw import augmentation, picture, transformations
from cnn.weights import (
    convert,
    exchange,
    export,
    proposed_sizes,
    safetensors_file,
)

# Small, and in no condition.
SMALL = {
    "batch_size": 4,
    "epochs": 3,
    "widths": (4, 5),
    "mlp_widths": (4, 5),
    "milestones": (2.0,),
    "restart_epochs": 1.0,
    "plateau_patience": 0,
}
# An epoch's cost where --minutes asks for it.
TENTH_OF_A_MINUTE = budget.Cost(0, entry=0, epoch=6.0, evaluation=0, end=0, steps=1)
LINEAR = {"model": "logistic_regression", "batch_size": 4, "epochs": 2}


def digest(*arrays):
    """Return a text that differs where arrays or their shapes do."""
    parts = [np.asarray(x) for x in arrays]
    return " ".join(f"{x.dtype}{x.shape}{zlib.crc32(x.tobytes())}" for x in parts)


def trace(function, *arguments):
    """Trace a function; returns the text of what is not dead code, and which leaves
    of the arguments that uses.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    wanted = [True] * len(closed.jaxpr.outvars)
    jaxpr, used = partial_eval.dce_jaxpr(closed.jaxpr, wanted)
    kept = set(map(str, jaxpr.constvars))
    pairs = zip(closed.jaxpr.constvars, closed.consts, strict=True)
    constants = [array for variable, array in pairs if str(variable) in kept]
    text = re.sub(r" at 0x[0-9a-f]+", "", str(jaxpr))
    return f"{text}\n{digest(*constants)}", used


def see_training(choices):
    """See what a run computes: data, plan, state, steps and predictions."""
    config = make_config(SMALL, choices)
    if config.train.minutes:  # which decides how many there are
        config = config.change({"epochs": 7})
    key = config.make_program_key()
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _see_program(config)
    seen, used = _PROGRAMS[key]
    numbers = config.make_numbers()
    return seen | {
        "epochs": config.train.epochs,
        "numbers": {name: getattr(numbers, name).tolist() for name in used},
    }


# What `_see_program` has found, by program: numbers change nothing of it.
_PROGRAMS = {}


def _see_program(config):
    """See all but numbers; returns that, and which of the numbers are used."""
    options, make = [], epoch.make_train_chunk
    config = proposed_sizes.propose(config, Path("absent"), Terminal())

    def note_options(structure, mesh, compiler_options):
        options.append(compiler_options)
        return make(structure, mesh, compiler_options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(epoch, "make_train_chunk", note_options)
        patched.setattr(training_setup, "load_dataset", _load)
        setup = train.make_setup(config, {}, Terminal(), Stop())
    seen = {
        "classes": setup.dataset.class_names,
        "steps": (setup.structure.steps_per_epoch, setup.checkpoint_interval),
        "phases": [(one.views, one.structure.rule.phase) for one in setup.phases],
        "taken": (digest(*jax.tree.leaves(setup.plan.taken)), setup.plan.about),
        "mesh": dict(setup.mesh.shape),
        "compiler": options,
    }
    for split, loader in setup.loaders.items():
        seen[split] = _see_images(getattr(setup.dataset, split), loader)
    step, labels = config.step, setup.loaders["train"].labels
    how = step.batch_size, step.sampling, step.repeats_in_batch
    drawn = order.draw_epoch(0, 0, labels, *how)
    seen["order"] = digest(*drawn.values())
    numbers, used = setup.numbers, set()
    present = [n for n in sorted(vars(numbers)) if getattr(numbers, n) is not None]
    for number, phase in enumerate(setup.phases):
        for name, (text, inputs) in _trace_phase(setup, phase).items():
            seen[f"{name}{number}"] = text
            used |= {n for n, is_used in zip(present, inputs, strict=False) if is_used}
    return seen, sorted(used)


_load = functools.cache(load_dataset)


def _see_images(images, loader):
    pixels = images.read(np.arange(len(images)))
    return digest(pixels, loader.labels), loader.is_resident, images.decoded


def _trace_phase(setup, phase):
    """Trace what a phase computes: text, and which of the present numbers it uses."""
    numbers, structure = setup.numbers, phase.structure
    size, shape, dtype = (
        setup.config.step.batch_size,
        setup.dataset.train.shape,
        "uint8",
    )
    if structure.takes_features:
        shape = cut_before_head(setup.structure, setup.image_shape).shape
        dtype = "float32"
    images = np.zeros((size, *shape), dtype)
    ids = np.zeros(size, np.int32)
    labels = setup.loaders["train"].labels[:size]
    batch = {"images": images, "labels": labels, "ids": ids}
    create = functools.partial(phase.create, taken=setup.plan.taken)
    state = jax.eval_shape(create, numbers)
    state = state.replace(teacher=setup.teacher_variables)
    step = functools.partial(steps.train_step, structure)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    look = functools.partial(steps.predict_step, structure)
    return {
        "create": trace(create, numbers),
        "step": trace(lambda n, s, b: step(s, b, n), numbers, state, batch),
        "predict": (trace(look, variables, images)[0], []),
    }


def see_changed_data(choices, directory):
    """See whether a run is resumed whose data had another label."""
    config = make_config(choices)
    dataset = load_dataset(config.data)
    labels = dataset.train.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    train = dataclasses.replace(dataset.train, labels=labels)
    before = dataclasses.replace(dataset, train=train)
    stored = {"data": same_data.Seen(identity.make_record(before)).summarise()}
    found = same_data.compare(
        config.data, dataset, stored | {"step": 5}, directory, Terminal()
    )
    return {"changes": found.changes}


def see_run(choices, directory):
    """See what a run of a linear model writes, and when it is traced."""
    scalars, traced = [], []
    log = directory / "metrics.jsonl"
    tracker = types.SimpleNamespace(
        forgets=True,
        forget=lambda step: None,
        add=lambda step, values: scalars.append((step, *values)),
        add_result=lambda *args: None,
        close=lambda: None,
    )

    def start(where, **more):
        traced.append((str(where), len(log.read_text().splitlines())))

    config = make_config(LINEAR, {"checkpoint_every_epochs": 9.0}, choices)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tracking, "check", lambda name: None)
        for name in tracking.TRACKERS:
            patched.setitem(tracking.TRACKERS, name, lambda *given: tracker)
        patched.setattr(jax.profiler, "start_trace", start)
        patched.setattr(jax.profiler, "stop_trace", lambda: None)
        patched.setattr(rehearsal, "rehearse", lambda *args: [TENTH_OF_A_MINUTE])
        patched.setattr(budget, "clock", lambda: 0.0)
        result = train.train(config, directory, Terminal())
    newest, _ = manifest.find_newest(directory / "checkpoints")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {
        "files": sorted(path.name for path in directory.glob("*/*")),
        "lines": [(line["step"], sorted(line)) for line in lines],
        "state": result["state_sha256"],
        "best": manifest.read_description(newest)["records"]["best_value"],
        "scalars": scalars,
        "traced": traced,
    }


def see_command(choices, mode):
    """See what main.py sets in the process before it calls a mode, and with what."""
    seen, choices = [], {"compilation_cache": tempfile.gettempdir()} | choices
    with pytest.MonkeyPatch.context() as patched:
        patch_modes(
            patched,
            lambda config, *args: seen.append(
                (config.optimizer.learning_rate, config.naming.name)
            ),
        )
        patched.setattr(main.workdir, "read_config", lambda directory: {})
        patched.setattr(main.canary, "check", lambda device: seen.append(device.canary))
        patched.setattr(main.sweep, "read_trial", lambda text: {"learning_rate": 0.7})
        patched.setattr(jax.config, "update", lambda *args: seen.append(args))
        patched.setattr(jax.distributed, "initialize", lambda **x: seen.append(x))
        patched.setattr(background, "SILENT_SECONDS", None)
        patched.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
        code = run_main(f"--mode={mode}", "--workdir=none", *make_flags(choices))
        if code:
            return {"refused": code}
        flags, silent = os.environ["XLA_FLAGS"], background.SILENT_SECONDS
        return {"seen": seen, "flags": flags, "silent": silent}


SPLITS = "validation", "test"


def see_sweep(choices, directory):
    """See which trials a sweep has, how they are run, and where their study lies."""
    draws = choices.get("trials") or choices.get("minutes")
    drawn = "learning_rate=uniform(0.1,0.9)"
    # Without rows no round of --minutes is measured: all that may be are planned.
    base = {"sweep": drawn if draws else "learning_rate=0.1,0.2,0.3", "max_trials": 16}
    config = make_config(LINEAR, {"validation_fraction": 0.25}, base, choices)
    seen = {}

    def choose(name, setup, trials, width, *rest):
        return types.SimpleNamespace(name=name, width=width)

    failed = {"trial": 0, "options": {"learning_rate": 0.1}, "status": "failed"}
    numbers = {f"{x}_{y}": 1.0 for x in SPLITS for y in ("accuracy", "loss")}
    finished = [
        {"trial": n, "options": {"seed": n}, "status": "finished", **numbers}
        for n in range(2)
    ]
    home = directory / "home" / "sweep"
    if not draws:  # one trial has been run before, and failed
        home.mkdir(parents=True)
        (home / "trials.jsonl").write_text(json.dumps(failed) + "\n")

    def run(session, groups, rungs=()):
        made = [session.make_executor(group) for group in groups]
        seen["trials"] = [dict(one.options) for group in groups for one in group]
        seen["run"] = [(one.name, one.width) for one in made], rungs
        seen["ended"] = session.rows
        seen["kept"] = session.choose_kept(finished, ())

    def ask(self):
        number, options = self._study.ask(9)
        made = self._session.make_executor(
            worker.make_seeds(number, options, (None,), self._session.config), 9
        )
        seen["run"] = made.name, self._at_once, options, self._study._worker
        seen["study"] = self._study._study.study_name
        seen["pruner"] = type(self._study._study.pruner).__name__
        seen["kept"] = self._session.choose_kept(finished, ())
        raise UserError("enough")

    @contextlib.contextmanager
    def live(self, timeout):
        seen["timeout"] = timeout
        yield

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(session.choose, "choose_executor", choose)
        patched.setattr(searches, "run_grid", run)
        patched.setattr(searches, "run_halving", run)
        patched.setattr(outcome, "conclude", lambda *args: 0)
        patched.setattr(worker._Worker, "ask_batch", ask)
        patched.setattr(study.Study, "show_life", live)
        try:
            sweep.sweep(config, directory / "home", Terminal(), choices)
        except UserError as error:
            if str(error) != "enough":
                raise
    seen["files"] = sorted(path.name for path in directory.rglob("*.log"))
    return seen


def make_trained(dataset, image_shape):
    """Make a trained model of a data set, as if it had been loaded."""
    config = make_config({"widths": (3,)})
    structure = make_structure_of_model(config, len(dataset.class_names))
    shapes = jax.eval_shape(lambda: create_variables(structure.model, 0, image_shape))
    return Trained(
        structure=structure,
        variables=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes),
        class_names=dataset.class_names,
        classes_are_named=True,
        image_shape=image_shape,
        options=config.to_flat() | {"dataset": dataset.name},
        step=0,
        averaged=False,
    )


def see_evaluation(choices, directory):
    """See what is evaluated, with which weights, and in which batches."""
    config, seen = make_config(SMALL, choices), {}
    dataset = load_dataset(config.data)
    size = config.data.image_size or dataset.train.shape[0]
    shape = (size, config.data.image_size or dataset.train.shape[1], 3)
    trained = make_trained(dataset, (*shape[:2], dataset.train.shape[2]))
    keep_temperature(trained, directory)

    def compute(structure, variables, loader, batch_size, stop, examples=None, *rest):
        positions = np.arange(len(loader) // 2 * 2, dtype=np.int32)
        images = loader.fill(positions[None])["images"]
        look = functools.partial(steps.predict_step, structure, variables)
        seen["step"] = trace(look, images[0])[0]
        seen["images"] = digest(images, loader.labels), loader.is_resident
        seen["batches"] = batch_size, dict(loader.mesh.shape)
        logits = np.eye(len(trained.class_names))[loader.labels]
        logits[0] = np.roll(logits[0], 1)
        if examples is not None:
            examples |= {"logits": [logits], "loss": [logits[:, 0]]}
        names = "accuracy correct count top5 loss".split()
        return dict.fromkeys(names, 0)

    with pytest.MonkeyPatch.context() as patched:
        load = functools.partial(_note_which, seen, trained)
        patched.setattr(evaluate, "load_trained", load)
        patched.setattr(judge, "compute_metrics", compute)
        patched.setattr(main.workdir, "read_config", lambda x: trained.options)
        patched.setattr(evaluate.same_data, "describe_evaluated", lambda *args: {})
        result = evaluate.evaluate(config, directory, Terminal())
    seen["files"] = sorted(path.name for path in directory.glob("*.csv"))
    seen["temperature"] = result.get("temperature")
    return seen | {"classes": result["class_names"]}


def keep_temperature(trained, directory):
    """Keep a temperature for a model, as if it had been fitted."""
    trained = dataclasses.replace(trained, temperature=2.0)
    text = temperature.format_kept(trained, directory, {})
    (directory / temperature.CALIBRATION_FILE).write_text(text)


def _note_which(seen, trained, directory, which):
    seen["which"] = which
    return trained


def see_prediction(choices, directory):
    """See which images are classified, how, and in which batches."""
    config, seen = make_config({"batch_size": 4}, choices), {"batches": []}
    trained = make_trained(load_dataset(make_config().data), (8, 8, 3))
    keep_temperature(trained, directory)

    def make(trained, counts):
        seen["temperature"] = trained.temperature

        def classify(images):
            look = functools.partial(
                steps.predict_step, trained.structure, trained.variables
            )
            seen["step"] = trace(look, images)[0]
            seen["batches"].append(digest(images))
            return np.full((len(images), 10), 0.1)

        return classify

    with pytest.MonkeyPatch.context() as patched:
        load = functools.partial(_note_which, seen, trained)
        patched.setattr(predict, "load_trained", load)
        patched.setattr(classify_files, "make_classifier", make)
        path = predict.predict(config, directory, Terminal())
        return seen | {"written": path.read_text()}


def see_average(choices, directory):
    """See which weights are averaged, where to, and over how many batches."""
    config, seen = make_config({"widths": (3,)}, choices), {"batches": 0}
    trained = make_trained(load_dataset(config.data), (8, 8, 1))
    metrics = {"accuracy": 1.0, "balanced_accuracy": 1.0, "loss": 0.0}

    def measure(setup, structure, variables, step, stop):
        seen["batches"] = setup.config.train.recompute_statistics
        return variables["batch_stats"]

    def judge(weights):
        metrics["accuracy"] -= 0.1  # each worse than the one before
        return dict(metrics)

    with pytest.MonkeyPatch.context() as patched:
        load = functools.partial(_note_which, seen, trained)
        patched.setattr(average, "load_trained", load)
        patched.setattr(average, "_make_judge", lambda *args: judge)
        patched.setattr(average.statistics, "compute", measure)
        patched.setattr(average.convert, "write_run", lambda *args: None)
        found = average.average(config, [directory, directory], Terminal())
    written = sorted(path.parent.name for path in directory.glob("*/average.json"))
    return seen | {"kept": [run["kept"] for run in found["runs"]], "where": written}


def see_export(choices, directory):
    """See which weights are exported into which file."""
    config, seen = make_config(choices), {}
    trained = types.SimpleNamespace(
        options={"model": "mlp"}, image_shape=(8, 8, 1), variables={}
    )

    def make(trained, preprocessing):
        return b"%d" % preprocessing

    with pytest.MonkeyPatch.context() as patched:
        load = functools.partial(_note_which, seen, trained)
        patched.setattr(export, "load_trained", load)
        patched.setattr(export.card, "describe", lambda *args: {})
        patched.setattr(export.card, "check_free", lambda *args: None)
        patched.setattr(export.card, "write", lambda *args: None)
        patched.setattr(export, "make_tree", lambda trained: {"a": np.ones(1)})
        patched.setattr(export, "make_state_dict", lambda *args: {})
        patched.setattr(export, "make_artifact", make)
        patched.setattr(export, "check_artifact", lambda *args: 0.0)
        patched.setattr(export.onnx_file, "make_file", make)
        patched.setattr(export.onnx_file, "check_file", lambda *args: None)
        patched.setattr(export.torch_file, "make_source", lambda *args: "")
        patched.setattr(export.torch_file, "check_source", lambda *args: None)
        path = export.export(config, directory, Terminal())
        content = path.read_bytes() if path.is_file() else b""
        return seen | {"file": path.name, "content": content}


def see_conversion(choices, directory):
    """See what evaluation, prediction and export find in a converted run."""
    base = {"widths": (2,), "mlp_widths": (2,)}
    if not {"mean", "std", "scaling"} & choices.keys():
        base["scaling"] = "symmetric"  # for standardize both must be given
    config = make_config(base, choices)
    source = Path(config.convert.source or directory / "w.safetensors")
    if not config.convert.source:
        data, static = config.data, config.make_static().model
        model = models.create_model(static, data.num_classes or 10)
        size = data.image_size or 8
        shape = (size, size, data.channels or 1)
        save_weights(model, static.model, shape, source, 0.1)
    given = dataclasses.replace(config.convert, source=str(source))
    config = dataclasses.replace(config, convert=given)
    convert.convert(config, directory / "run", Terminal())
    trained = load_trained(directory / "run")
    images = np.zeros((2, *trained.image_shape), np.uint8)
    look = functools.partial(steps.predict_step, trained.structure)
    stored = json.loads((directory / "run" / "config.json").read_text())
    later = "evaluate", "predict", "visualize"
    again = make_config(stored)
    unread = set.intersection(*(set(again.find_unread(stored, x)) for x in later))
    return {
        "step": trace(look, trained.variables, images)[0],
        "weights": digest(*jax.tree.leaves(trained.variables)),
        "classes": trained.class_names,
        "loss": _see_loss(trained.structure),
        "options": {n: x for n, x in stored.items() if n not in unread},
    }


def _see_loss(structure):
    """See what evaluation computes of some logits."""
    compute = losses.make_loss(structure.loss, structure.loss_reduction)
    return digest(compute(np.float32([[1, -2, 0.5]]), np.float32([[0, 0, 1]])))


def see_inspection(choices, directory):
    """See what an inspection writes of the data."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inspect.page, "write_page", lambda *args: "")
        inspect.inspect(make_config(choices), directory / "home", Terminal())
    found = json.loads((directory / "home" / "dataset.json").read_text())
    return found | {"dataset": ""}


def see_description(choices, directory):
    """See what describe writes, and what it draws where that is asked for."""
    config = make_config({"model": "mlp"}, choices)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(describe.memory, "measure_temporary", lambda *args: 7)
        found = describe.describe(config, directory, Terminal())
    if "pictures" in choices:
        visualize.check_described(config.visualize.pictures)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(coordinates, "_measure_seeds", _measure_seeds)
            drawn = visualize.draw_described(config, found, directory, Terminal())
        found |= {"drawn": [digest(one.path.read_bytes()) for one in drawn]}
    return found


def _measure_seeds(setup, config):
    """Stand for the steps of a coordinate check, which test_mup.py takes."""
    sizes = np.full(coordinates.STEPS + 1, config.model.width_multiplier)
    return {"head": sizes}


def see_listing(choices, directory):
    """See what a list of two runs prints, writes and leaves."""
    home, terminal = directory / "runs", Terminal()
    for seed in (0, 1):
        options = Config().to_flat() | {"seed": seed}
        (home / str(seed)).mkdir(parents=True)
        atomic.write_json(home / str(seed) / "config.json", options)
    sweep_home = home / "swept" / "sweep"
    sweep_home.mkdir(parents=True)
    atomic.write_json(sweep_home / "config.json", Config().to_flat())
    rows = [{"trial": 0, "status": "failed", "options": {"seed": 3}, "reason": "x"}]
    (sweep_home / "trials.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with terminal.console.capture() as printed:
        list_runs.list_runs(make_config(choices), str(home), terminal)
    files = {str(x.relative_to(home)) for x in home.rglob("*")}
    shown = " ".join(printed.get().replace(str(directory), "").split())
    return {"printed": shown, "files": sorted(files)}


def see_range_test(choices, directory):
    """See which learning rates a range test tries."""

    def try_rates(setup, rates, stop):
        return np.linspace(2, 1, len(rates))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(find_rate, "_try_rates", try_rates)
        patched.setattr(
            find_rate.rate_range, "draw", lambda *args: picture.Picture(args[1], "", "")
        )
        return find_rate.find_rate(make_config(LINEAR, choices), directory, Terminal())


def see_replay(choices, directory):
    """See which step is taken again, on which devices, and where that is written."""
    seen = {}

    def take(setup, progress, stop):
        seen["mesh"] = dict(setup.mesh.shape)
        arrays = {name: np.zeros(1) for name in ("ids", "labels", "images", "losses")}
        return arrays, [], {choices["step"]: {"loss": 1.0}}

    def write(setup, output, found, *rest):
        seen["where"], seen["step"] = str(output), found["step"]

    with pytest.MonkeyPatch.context() as patched:
        start = types.SimpleNamespace(step=0)
        patched.setattr(replay.training_progress, "begin", lambda setup: start)
        patched.setattr(replay, "_advance", lambda *args: {})
        patched.setattr(replay, "_take_step", take)
        patched.setattr(replay.written, "write", write)
        replay.replay(make_config(LINEAR, choices), directory / "home", Terminal())
    seen["where"] = seen["where"].replace(str(directory), "")
    return seen


def save_weights(model, name, shape, path, value):
    """Save weights of a model, all of one value, as PyTorch's."""
    shapes = jax.eval_shape(lambda: create_variables(model, 0, shape))
    variables = jax.tree.map(lambda x: np.full(x.shape, value, x.dtype), shapes)
    arrays = exchange.export_state_dict(name, variables, 0)
    safetensors_file.save_safetensors(path, arrays)


class Reads:
    """Which options are read while pictures are drawn.

    What only copies, compares or checks all options of a group reads none.
    """

    def __init__(self, patched):
        """Watch the groups of options, and the traced numbers."""
        self.names, self._is_on = set(), False
        for group in [*(x.type for x in dataclasses.fields(Config)), Numbers]:
            patched.setattr(group, "__getattribute__", self._watch(group))
            for name in ("__hash__", "__eq__"):
                patched.setattr(group, name, self.hush(getattr(group, name)))
        for name in ("make_static", "make_numbers", "to_flat"):
            patched.setattr(Config, name, self.hush(getattr(Config, name)))
        patched.setattr(option, "check", self.hush(option.check))

    def _watch(self, group):
        names = {field.name for field in dataclasses.fields(group)}

        def get(group, name):
            if self._is_on and name in names:
                self.names.add(name)
            return object.__getattribute__(group, name)

        return get

    @contextlib.contextmanager
    def watching(self, is_on):
        """Watch inside, or do not."""
        before, self._is_on = self._is_on, is_on
        try:
            yield
        finally:
            self._is_on = before

    def hush(self, function):
        """Return a function whose reads do not count."""

        def call(*args):
            with self.watching(False):
                return function(*args)

        return call


def list_reads(directories, choices):
    """List the options that are read while pictures are drawn."""
    vary = augmentation._vary_batch.__wrapped__
    with pytest.MonkeyPatch.context() as patched:
        reads = Reads(patched)

        def look(options, size, scale, numbers, number, batch):
            def watched(*args):
                with reads.watching(True):
                    return vary(options, size, scale, *args)

            with reads.watching(False):
                return np.zeros(jax.eval_shape(watched, numbers, number, batch).shape)

        def draw(*args):
            with reads.watching(True):
                return really_draw(*args)

        really_draw = visualize._draw
        patched.setattr(visualize, "_draw", draw)
        patched.setattr(visualize.report, "write_report", lambda *args: "")
        patched.setattr(
            picture,
            "save",
            lambda figure, path, *rest, **more: picture.Picture(path, "", ""),
        )
        patched.setattr(augmentation, "_VERSIONS", 1)
        patched.setattr(augmentation, "_vary_batch", look)
        patched.setattr(
            transformations,
            "_vary_each",
            lambda config, examples: [("", np.zeros((1, 1, 1, 1)))],
        )
        patched.setattr(Terminal, "say", lambda self, text: None)
        config = make_config(choices)
        visualize.visualize(config, list(directories), Terminal())
    return reads.names
