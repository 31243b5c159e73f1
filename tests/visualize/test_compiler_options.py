"""Logits, computed of many images, are compiled as the model asks for."""

import types

import numpy as np
import pytest
from jax.tree_util import Partial

from cnn.visualize import named_run
from cnn.visualize.compute import features

ASKED = (("xla_cpu_copy_insertion_use_region_analysis", False),)


class Doubling:
    """A model of one feature that says with what it is compiled."""

    compiler_options = ASKED

    def __call__(self, weight, images):
        return weight * images.mean((1, 2)), {"stage": weight * images}


@pytest.fixture
def seen(monkeypatch):
    found, compile_with = [], features.compile_with

    def note(compute, options):
        found.append(options)
        return compile_with(compute, options)

    monkeypatch.setattr(features, "compile_with", note)
    return found


def test_logits_are_compiled_as_the_model_asks(seen):
    function, images = Partial(Doubling(), np.float32(2)), np.ones((3, 4, 4, 2))
    logits = features.compute_logits(function, np.float32(images))
    np.testing.assert_array_equal(logits, 2)
    assert seen == [ASKED]


def test_a_model_that_asks_for_nothing_is_compiled_plainly(seen):
    function = Partial(lambda weight, images: (images.mean((1, 2)) * weight, {}), 1.0)
    features.compute_logits(function, np.zeros((1, 2, 2, 1), np.float32))
    assert seen == [()]


@pytest.mark.parametrize("given, expected", [("auto", "auto"), ("xla", "xla")])
def test_a_run_chooses_by_its_operations_and_asks_the_canary(
    trained, monkeypatch, given, expected
):
    run, asked = named_run.load_run(trained), []
    run.trained.options["cpu_kernels"] = given

    def choose(kernels, mesh, macs):
        asked.append((kernels, macs))
        return ASKED

    def check(options, mesh, chosen):
        asked.append(chosen)

    monkeypatch.setattr(
        named_run, "xla", types.SimpleNamespace(choose_compiler_options=choose)
    )
    monkeypatch.setattr(named_run.canary, "check_kernels", check)
    assert run.function.func.compiler_options == ASKED
    # 3×3 over 8×8 pixels to 4 channels, and 10 classes of these.
    macs = 9 * 64 * 4 + 4 * 10
    assert asked == [(expected, macs * named_run._MANY_IMAGES), ASKED]
