"""The whitened first convolution: against numpy, in a run, and for many seeds."""

import signal

import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import make_setup, run_main, train_run

from cnn.data.images import from_array
from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.ops import convolution
from cnn.runtime.interrupt import Interrupted, Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep.executors import Loop, Stacked
from cnn.transfer import whitening

SCALING = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
SMALL = {
    "model": "simple_cnn",
    "kernel_size": 2,
    "padding": "valid",
    "widths": (8, 6),
    "whitening_images": 60,
    "freeze": ("stage1_conv/kernel",),
    "train_until": ("stage1_norm/bias=1",),
    "alternating_flip": True,
    "ema_decay": 0.0,
    "dropout_rate": 0.0,
    "validation_fraction": 0.1,
    "decoupled_rates": True,
    "learning_rate": 2.0,
    "weight_decay": 0.01,
    "lookahead_decay": 0.95,
    "lookahead_every_steps": 2,
    "lookahead_start_epochs": 1.0,
    "train_examples": 100,
    "batch_size": 20,
    "epochs": 2,
}


def draw_images(count=30, channels=3):
    random = np.random.default_rng(0)
    noise = random.normal(size=(count, 9, 9, channels)).cumsum(1).cumsum(2)
    pixels = np.clip(128 + 12 * noise, 0, 255).astype(np.uint8)
    return from_array(pixels, np.zeros(count, int))


def list_patches(images, count):
    """List the scaled 2x2 patches, [n, 4 C], the plain way."""
    x = images.read(np.arange(count)) / 255
    x = (x - np.array(SCALING[0])) / np.array(SCALING[1])
    return np.array(
        [
            one[row : row + 2, column : column + 2].reshape(-1)
            for one in x
            for row in range(8)
            for column in range(8)
        ]
    )


def test_moments_equal_numpy(monkeypatch):
    monkeypatch.setattr(whitening, "_CHUNK", 7)
    images = draw_images()
    found = whitening.compute_moments(images, 20, SCALING, 2)
    patches = list_patches(images, 20)
    np.testing.assert_allclose(found, patches.T @ patches / len(patches), rtol=1e-4)


def test_outputs_are_white():
    """Through our convolution: second moments are the identity, then its negative."""
    images = draw_images()
    moments = whitening.compute_moments(images, 30, SCALING, 2)
    kernel = whitening.make_kernel(moments, (2, 2, 3, 24), 0.0)
    x = (images.read(np.arange(30)) / 255 - SCALING[0]) / SCALING[1]
    y = convolution.conv2d(jnp.asarray(x, jnp.float32), kernel, padding="valid")
    y = np.asarray(y).reshape(-1, 24)
    one = np.eye(12)
    expected = np.block([[one, -one], [-one, one]])
    np.testing.assert_allclose(y.T @ y / len(y), expected, atol=2e-3)


def test_few_filters_take_the_largest_directions_and_epsilon_tames():
    moments = np.diag([1.0, 16.0, 4.0, 0.25])
    kernel = whitening.make_kernel(moments, (2, 2, 1, 4), 9.0).reshape(4, 4)
    np.testing.assert_allclose(np.abs(kernel[:, 0]), [0, 0.2, 0, 0], atol=1e-7)
    np.testing.assert_allclose(np.abs(kernel[:, 1]), [0, 0, 13**-0.5, 0], atol=1e-7)
    np.testing.assert_array_equal(kernel[:, :2], -kernel[:, 2:])


def make(**changes):
    return make_setup(SMALL, changes)


def train(executor, configs):
    states = executor.create(configs)
    first = executor.take_states(states)
    states = executor.create(configs)
    for epoch in range(2):
        states, _ = executor.train_epoch(states, configs, epoch, [True] * len(configs))
    return first, executor.take_states(states)


def test_every_seed_has_the_kernel_and_its_own_rest():
    """In one program, mapped and side by side, as one after the other."""
    setup = make()
    configs = [setup.config.change({"seed": seed}) for seed in (0, 1)]
    kernel = setup.plan.taken["params"]["stage1_conv"]["kernel"]
    reference = train(Loop(setup, Stop(), 2), configs)
    for name in ("map", "vmap"):
        first, last = train(Stacked(setup, Stop(), name, 2), configs)
        for seed in (0, 1):
            before = flatten_paths(first[seed].params)
            after = flatten_paths(last[seed].params)
            other = flatten_paths(reference[1][seed].params)
            np.testing.assert_array_equal(before["stage1_conv/kernel"], kernel)
            np.testing.assert_array_equal(after["stage1_conv/kernel"], kernel)
            for path in after:
                np.testing.assert_allclose(
                    after[path], other[path], rtol=1e-3, atol=1e-4, err_msg=path
                )
        first, last = (flatten_paths(x.params)["head/kernel"] for x in first)
        assert np.any(first != last)


def test_a_leaf_trains_until_its_epoch_alone():
    setup = make(lookahead_decay=0.0)
    loop, configs = Loop(setup, Stop(), 1), [setup.config]
    states, found = loop.create(configs), []
    for epoch in range(2):
        states, _ = loop.train_epoch(states, configs, epoch, [True])
        found.append(flatten_paths(loop.take_states(states)[0].params))
    one, two = (x["stage1_norm/bias"] for x in found)
    assert np.all(one != 0)
    np.testing.assert_array_equal(one, two)
    assert np.any(found[0]["stage1_norm/scale"] != found[1]["stage1_norm/scale"])


class Stopper(Terminal):
    """A terminal at which somebody presses Ctrl-C after the seventh step."""

    def update_bar(self, step, *args):
        """Send the signal."""
        if step == 7:
            signal.raise_signal(signal.SIGINT)


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, no_pauses):
    whole = train_run(tmp_path / "whole", **SMALL)
    with pytest.raises(Interrupted):
        train_run(tmp_path / "stopped", Stopper(), **SMALL)
    assert not (tmp_path / "stopped" / "result.json").exists()
    resumed = train_run(tmp_path / "stopped", **SMALL)
    assert whole["state_sha256"] == resumed["state_sha256"]
    arguments = ["--mode=evaluate", f"--workdir={tmp_path / 'stopped'}", "--tta=shifts"]
    assert run_main(*arguments) == 0
    assert (tmp_path / "stopped" / "evaluation,tta=shifts.json").exists()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model": "mlp", "freeze": (), "train_until": ()}, "is no convolution"),
        ({"widths": (9, 6)}, "has 9 outputs"),
        ({"widths": (10, 6)}, "an even number of at most 8"),
        ({"whitening_epsilon": 0.0}, r"outside \(0, inf\)"),
        ({"init_from": "runs/elsewhere"}, "leave one of them out"),
        ({"ema_decay": 0.9}, "both average weights"),
        ({"optimizer": "adam"}, "is for sgd and muon_sgd, not --optimizer=adam"),
        (
            {"optimizer": "muon_sgd", "decoupled_rates": False},
            "muon_sgd needs --decoupled_rates",
        ),
        ({"train_until": ("nothing=1",)}, "--train_until=nothing matches nothing"),
    ],
)
def test_nonsense_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        make(**changes)


def test_the_command_line_refuses_too(tmp_path, capsys):
    flags = ["--whitening_images=-1", f"--workdir={tmp_path / 'run'}"]
    assert run_main(*flags) != 0
    assert "--whitening_images=-1 is outside" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
