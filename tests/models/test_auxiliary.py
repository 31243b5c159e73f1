"""Auxiliary classifiers: their losses in the step, and what they mean elsewhere."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn import models
from cnn.models import auxiliary
from cnn.models.layers import Layers
from cnn.models.options import ModelOptions
from cnn.models.summary import describe_model
from cnn.models.variables import create_variables, flatten_paths
from cnn.ops import pooling
from cnn.optim import paths
from cnn.optim.freezing import Phase
from cnn.training import losses, steps
from cnn.transfer import merge

STEP = jax.jit(steps.train_step, static_argnums=0)


class Classifier(nn.Module):
    """One layer with normalisation, so that it has running statistics."""

    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, x, train):
        x = self.layers.norm(name="norm")(pooling.global_avg_pool(x), train)
        return self.layers.dense(self.num_classes, name="head")(x)


class Tiny(nn.Module):
    """Two convolutions, behind each of which a classifier hangs, and a head."""

    num_classes: int = 4
    layers: Layers = Layers()
    auxiliary_weight: float = 0.3

    @nn.compact
    def __call__(self, x, train=False, dropout_rate=None, stochastic_depth_rate=None):
        for number in (1, 2):
            x = nn.relu(self.layers.conv(3, 3, name=f"stage{number}_conv")(x))
            if auxiliary.is_computed(self, train):
                name = f"stage{number}_aux"
                head = Classifier(self.num_classes, self.layers, name=name)
                auxiliary.sow(self, name, head(x, train))
        x = pooling.global_avg_pool(x)
        return self.layers.dense(self.num_classes, name="head")(x)


PARAMS = flatten_paths(
    jax.eval_shape(lambda: create_variables(Tiny(), 0, (8, 8, 1)))["params"]
)


@pytest.fixture
def differentiate(make_structure, make_numbers, start, make_batch):
    """Return the gradients, statistics and sums of a batch of eight, and its loss.

    The loss is written out by hand, a function of the parameters.
    """

    def compute(structure=None, phase=None, **numbers):
        numbers = make_numbers(**numbers)
        base = make_structure(structure)
        rule = dataclasses.replace(base.rule, phase=phase)
        structure = dataclasses.replace(base, model=Tiny(), rule=rule)
        state = start(structure, numbers)
        batch = steps.prepare_batch(structure, 0, make_batch(8), numbers)
        found = jax.jit(steps.compute_gradients, static_argnums=0)(
            structure, state, batch, numbers
        )

        def compute_losses(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            collections = ["batch_stats", "auxiliary"]
            logits, updated = structure.model.apply(
                variables, batch["images"], train=True, mutable=collections
            )
            sown = updated["auxiliary"]
            names = "stage1_aux_out", "stage2_aux_out"
            each = [logits, *(sown[name][0] for name in names)]
            weights = jnp.ones(4)
            if structure.class_weights:
                weights = jnp.asarray(structure.class_weights)
            per_class = batch["targets"] * weights[None]
            total = jnp.sum(weights[batch["labels"]])
            return [-jnp.sum(per_class * jax.nn.log_softmax(x)) / total for x in each]

        return found, state.params, compute_losses

    return compute


def assert_equal_gradients(found, wanted):
    found, wanted = flatten_paths(found), flatten_paths(wanted)
    assert found.keys() <= wanted.keys()
    largest = max(np.abs(x).max() for x in found.values())
    for path, gradient in found.items():
        np.testing.assert_allclose(
            gradient, wanted[path], 1e-5, 1e-6 * largest, err_msg=path
        )


@pytest.mark.parametrize(
    ("given", "weight", "choices"),
    [
        (-1.0, 0.3, {}),
        (0.7, 0.7, {}),
        (0.0, 0.0, {}),
        (-1.0, 0.3, {"class_weights": (0.5, 2.0, 1.0, 0.25)}),
        (-1.0, 0.3, {"remat": True}),
    ],
    ids=str,
)
def test_their_losses_are_added(differentiate, given, weight, choices):
    (gradients, _, sums), params, compute = differentiate(
        choices, auxiliary_weight=given, label_smoothing=0.1
    )

    def total(params):
        main, first, second = compute(params)
        return main + weight * (first + second)

    assert_equal_gradients(gradients, jax.jit(jax.grad(total))(params))
    if not choices:  # what is reported is the model's own loss, not weighted
        np.testing.assert_allclose(sums["loss"] / 8, compute(params)[0], 1e-6)


def test_pieces_add_theirs_too(make_structure, make_numbers, start, make_batch):
    """Each piece has a batch normalisation of its own, so that images are repeated."""
    numbers, results = make_numbers(), []
    batch = {name: np.repeat(x, 4, axis=0) for name, x in make_batch(2).items()}
    for pieces in (1, 4):
        base = make_structure({"accumulate_steps": pieces})
        structure = dataclasses.replace(base, model=Tiny())
        before = start(structure, numbers)
        results.append(STEP(structure, before, batch, numbers)[0].params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-6), *results)
    assert np.any(results[0]["stage1_aux"]["head"]["bias"] != 0)


def test_a_frozen_classifier_adds_no_loss(differentiate):
    trained = frozenset(x for x in PARAMS if not x.startswith("stage1_aux"))
    phase = Phase(0, trained, frozenset({"stage2_aux/norm"}))
    (gradients, statistics, _), params, compute = differentiate(phase=phase)

    def total(params):
        main, _, second = compute(params)
        return main + 0.3 * second

    assert_equal_gradients(gradients, jax.jit(jax.grad(total))(params))
    assert "stage1_aux" not in gradients
    assert np.all(statistics["stage1_aux"]["norm"]["mean"] == 0)
    assert np.any(statistics["stage2_aux"]["norm"]["mean"] != 0)


def test_the_weight_is_swept_without_compiling_again(
    make_structure, make_numbers, start, make_batch
):
    structure = dataclasses.replace(make_structure(), model=Tiny())
    traced, results = [], []

    @jax.jit
    def step(state, batch, numbers):
        traced.append(1)
        return steps.train_step(structure, state, batch, numbers)[0].params

    for weight in (-1.0, 0.3, 0.5):
        numbers = make_numbers(auxiliary_weight=weight)
        results.append(step(start(structure, numbers), make_batch(8), numbers))
    leaves = [x["stage1_conv"]["kernel"] for x in results]
    assert len(traced) == 1
    np.testing.assert_array_equal(leaves[0], leaves[1])
    assert np.any(leaves[1] != leaves[2])


def test_evaluation_and_description_leave_them_out():
    variables = create_variables(Tiny(), 0, (8, 8, 1))
    images = jnp.ones((2, 8, 8, 1))
    _, updated = Tiny().apply(variables, images, mutable=["auxiliary"])
    assert not updated
    description = describe_model(Tiny(), (8, 8, 1))
    rows = {row["path"]: row for row in description["layers"]}
    order = paths.order_layers(rows, rows)
    assert order == ("stage1_conv", "stage1_aux", "stage2_conv", "stage2_aux", "head")
    assert rows["stage1_aux/head"]["macs"] == 0 < rows["stage1_aux/head"]["parameters"]
    assert description["macs"] == 64 * (9 * 3 + 27 * 3) + 12
    assert (
        sum(row["parameters"] for row in rows.values())
        == (description["num_parameters"])
    )


def test_a_classifier_has_the_rate_of_its_layer():
    layers = ["stem", "stage1_block1", "stage1_block1_aux", "stage1_block2", "head"]
    depths = paths.count_depths(layers)
    assert list(depths.values()) == [3, 2, 2, 1, 0]


@pytest.mark.parametrize(
    ("patterns", "default", "wanted"),
    [
        ((), "head", ("head", "stage1_aux/head", "stage2_aux/head")),
        (("head",), "", ("head", "stage1_aux/head", "stage2_aux/head")),
        (("stage1",), "", ("stage1_aux/head", "stage1_aux/norm", "stage1_conv")),
        (("none",), "head", ()),
        ((), "", ()),
    ],
    ids=str,
)
def test_heads_are_drawn_again_together(patterns, default, wanted):
    shapes = {f"params/{path}": x for path, x in PARAMS.items()}
    found = merge.find_resets(patterns, shapes, default, "head")
    assert {path.rpartition("/")[0] for path in found} == set(wanted)


def test_those_that_weights_lack_are_found_whole():
    without = [x for x in PARAMS if not x.startswith("stage2_aux")]
    absent = auxiliary.list_absent(PARAMS, without)
    assert absent == set(PARAMS) - set(without)
    # Part of one is no file without it: what lacks is a mistake.
    assert not auxiliary.list_absent(PARAMS, [*without, "stage2_aux/head/bias"])


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_initial_weights_are_torchvisions(name):
    """Their standard deviations and the biases of dense layers.

    torchvision truncates at 2, which is 20 of them or more.
    """
    model = models.create_model(ModelOptions(model=name), 1000)
    draw = jax.random.key(0)
    images = jax.ShapeDtypeStruct((1, 75, 75, 3), jnp.float32)
    found = {}

    def note(call, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and hasattr(module, "kernel_init"):
            found["/".join(module.path)] = module
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(model.init, draw, images)
    rest = {"googlenet": 0.01, "inception_v3": 0.1}[name]
    wanted = dict.fromkeys(found, rest)
    if name == "inception_v3":
        wanted["stage2_block5_aux/head"] = 0.001
    for path, module in found.items():
        kernel = module.kernel_init(draw, (100, 100), jnp.float32)
        assert np.std(kernel) == pytest.approx(wanted[path], rel=0.05), path
        assert getattr(module, "uniform_bias", True), path


def test_losses_are_those_of_the_loss_that_is_chosen(differentiate):
    (gradients, *_), params, _ = differentiate({"loss": "bce"})
    (others, *_), _, _ = differentiate()
    assert losses.LOSSES["bce"] is losses.bce
    one, other = (x["stage1_aux"]["head"]["bias"] for x in (gradients, others))
    assert not np.allclose(one, other)
