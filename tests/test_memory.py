import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn import epoch, liveness, memory, steps
from cnn.state import create_state


def count(function, *arguments):
    return liveness.count_temporary_bytes(
        jax.jit(function).trace(*arguments).jaxpr, "cpu"
    )


def test_what_is_computed_element_by_element_is_not_kept():
    x = jnp.ones((256, 256))
    kept = x.nbytes
    assert count(lambda x: jnp.tanh(x * 2 + 1), x) == kept
    assert count(lambda x: (jnp.tanh(x * 2) + jnp.exp(x)).sum(), x) == 4
    assert count(lambda x: sum(jnp.split(jnp.exp(x), 4)).sum(), x) == 4


def test_what_a_product_reads_and_makes_is_kept():
    x = jnp.ones((256, 256))
    # The operand 2x, the product, and the result, in place of the product.
    assert count(lambda x: (2 * x) @ x + 1, x) == 2 * x.nbytes
    assert count(lambda x: (x @ x) @ (x @ x), x) == 3 * x.nbytes


def test_the_backward_pass_keeps_what_the_forward_pass_made():
    x = jnp.ones((256, 256))

    def chain(x, length):
        for _ in range(length):
            x = jnp.tanh(x @ x)
        return x.sum()

    needed = [count(jax.grad(functools.partial(chain, length=n)), x) for n in (4, 8)]
    assert 4 * x.nbytes <= needed[1] - needed[0] <= 8 * x.nbytes


def test_a_loop_keeps_the_most_of_its_body():
    x = jnp.ones((256, 256))

    def loop(x, n):
        return jax.lax.fori_loop(0, n, lambda i, x: jnp.sin(x @ x) @ x, x)

    once, more = count(functools.partial(loop, n=1), x), count(loop, x, np.int32(5))
    assert once <= more == count(loop, x, np.int32(500)) <= 4 * x.nbytes


@pytest.mark.parametrize(
    "step, copies",
    [
        (lambda a, b: (a * b, b + 1), 0),  # a before b
        (lambda a, b: (a + 1, a * b), 0),  # b before a
        (lambda a, b: (a + b, a * b), 1),  # each needs the other's last
    ],
)
def test_a_loop_writes_in_place_where_it_can(step, copies):
    def loop(step, a, b):
        return jax.lax.fori_loop(0, 3, lambda i, pair: step(*pair), (a, b))

    x = jnp.ones((256, 256))
    needed, least = (
        count(functools.partial(loop, made), x, x)
        for made in (step, lambda a, b: (a, b))
    )
    assert round((needed - least) / x.nbytes) == copies


def test_the_platforms_own_branch_is_counted():
    x = jnp.ones((256, 256))

    def function(x):
        return jax.lax.platform_dependent(
            x, cpu=lambda x: x + 1, default=lambda x: (x @ x) @ (x @ x)
        )

    jaxpr = jax.jit(function).trace(x).jaxpr
    needed = [liveness.count_temporary_bytes(jaxpr, p) for p in ("cpu", "gpu")]
    assert needed[0] == x.nbytes < needed[1]


def test_batch_size_that_fits_is_the_largest():
    def predict(size):
        return 1000 + 10 * size

    assert memory.find_batch_size(predict, 128, 2000) == 100
    assert memory.find_batch_size(predict, 128, 2000, multiple=8) == 96
    assert memory.find_batch_size(predict, 128, 1005) == 0
    assert memory.find_batch_size(predict, 1, 10) == 0


def test_only_multiples_are_tried():
    tried = []

    def predict(size):
        tried.append(size)
        return 1000 + 10 * size

    assert memory.find_batch_size(predict, 36, 1300, multiple=12) == 24
    assert memory.find_batch_size(predict, 12, 1100, multiple=12) == 0
    assert all(size % 12 == 0 for size in tried)


def test_batch_size_that_fits_when_the_line_is_none():
    def predict(size):
        return size**2 if size < 64 else 64 * size

    size = memory.find_batch_size(predict, 128, 1000)
    assert 0 < predict(size) <= 1000


def predict_and_compile(
    make_task, make_numbers, name, size, batch, task=None, **options
):
    """Return predicted and XLA's bytes of activations and of the arguments."""
    numbers, shape = make_numbers(**options), (size, size, 3)
    task = make_task(task, model=name, **options)
    predicted = memory.predict(task, shape, shape, batch, numbers)
    create = functools.partial(create_state, task.model, shape, task.optimizer)
    ids = jax.ShapeDtypeStruct((1, batch), jnp.int32)
    images = jax.ShapeDtypeStruct((1, batch, *shape), jnp.uint8)
    arguments = (
        jax.eval_shape(create, numbers),
        jax.eval_shape(steps.create_train_sums),
        {"images": images, "labels": ids, "ids": ids},
        numbers,
    )
    bounds = np.int32(0), np.int32(1)
    with jax.debug_nans(False):  # under which jax donates nothing
        lowered = epoch.make_train_chunk(task).lower(*arguments, *bounds)
        analysis = lowered.compile().memory_analysis()
    state = sum(predicted[n] for n in list(predicted)[:4])
    return predicted["activations"], analysis.temp_size_in_bytes, state, analysis


@pytest.mark.parametrize(
    "name, size, batch, task, options",
    [
        ("simple_cnn", 16, 64, None, {"widths": (8, 16)}),
        ("resnet20", 8, 32, None, {"optimizer": "adam", "ema_decay": 0.9}),
        ("resnet20", 8, 64, {"accumulate_steps": 4}, {}),
    ],
)
def test_prediction_is_near_what_xla_says(
    make_task, make_numbers, name, size, batch, task, options
):
    predicted, said, state, analysis = predict_and_compile(
        make_task, make_numbers, name, size, batch, task, **options
    )
    assert predicted + state == pytest.approx(said + state, rel=memory.TOLERANCE)
    assert (
        state <= analysis.argument_size_in_bytes <= state + batch * size**2 * 3 + 9999
    )
    assert analysis.alias_size_in_bytes >= state


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, size, batch",
    [
        ("resnet20", 32, 128),
        ("wrn_16_4", 32, 32),
        ("resnet18", 64, 32),
        ("resnet50", 64, 16),
        ("vgg11_bn", 64, 32),
        ("alexnet", 128, 32),
        ("squeezenet1_1", 64, 32),
        ("mobilenet_v2", 64, 32),
        ("efficientnet_b0", 64, 16),
        ("densenet121", 64, 16),
        ("convnext_tiny", 64, 16),
    ],
)
@pytest.mark.parametrize("is_recomputed", [False, True])
def test_prediction_of_every_family(
    make_task, make_numbers, name, size, batch, is_recomputed
):
    predicted, said, state, _ = predict_and_compile(
        make_task, make_numbers, name, size, batch, {"remat": is_recomputed}
    )
    assert predicted + state == pytest.approx(said + state, rel=memory.TOLERANCE)


def test_bytes_of_shapes():
    tree = {"a": jnp.zeros((3, 4)), "b": jax.ShapeDtypeStruct((5,), jnp.bfloat16)}
    assert memory.count_bytes(tree) == 58
