"""The canary: known results that the devices must get right before a mode computes.

One small program runs on every local device of the mesh, with the compiler's settings
of training and within a loop as there, and is compared with numpy's float64. Its
numbers are small and whole: float32, TF32 and bfloat16 hold them exactly, and float32
their sums below 2^24, in any order. So sums are equal or wrong. Products may be off by
3 thousandths, for algorithms that transform what they multiply (Winograd, FFT), in
bfloat16 by 6, whose results are rounded by 2; functions by a ten-thousandth.

A machine that passed is not asked again by the same program, versions and settings.
"""

import functools
import hashlib
import platform
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from cnn.errors import UserError
from cnn.ops.convolution import conv2d
from cnn.runtime import devices, environment, kept
from cnn.runtime.options import DeviceOptions

# Images whose pixels are more than 32,768 rows, from which on the CPU backend of jax
# before 0.11.2 got sums wrong (jax issue 39103).
SHAPE = (33, 32, 32, 2)
_ROWS = SHAPE[0] * SHAPE[1] * SHAPE[2]
_FEW = 4  # images of the plain convolution
_DRAWS = 2
_PRODUCTS, _BFLOAT16, _FUNCTIONS, _EXACT = 3e-3, 6e-3, 1e-4, 0.0
# Of threefry, by seed; the first is what Random123 publishes for a key and a counter
# of zeros, 6b200159 and 99ba4efe, xored.
_BITS = {
    0: (4070199207, 4202968722, 1427181096, 2012915765),
    1: (1883912375, 2292451390, 1915204986, 1882898417),
}

Named = dict[str, jax.Array]


def check(options: DeviceOptions) -> None:
    """Refuse devices that compute wrong numbers, unless `--canary=off`.

    With several processes each of them checks its own devices.

    Raises:
        UserError: what differs, by how much, on which device, under which versions.
    """
    if options.canary == "on":
        _check_once(options.precision, devices.make_mesh(options.mesh), (), "")


def check_kernels(options: DeviceOptions, mesh: Mesh, compiler_options: tuple) -> None:
    """Refuse devices likewise for settings of training alone, if it has any.

    Args:
        compiler_options: of `xla.choose_compiler_options`.

    Raises:
        UserError: as of `check`.
    """
    if options.canary == "on" and compiler_options:
        hint = " (--cpu_kernels=xla does not use oneDNN)"
        _check_once(options.precision, mesh, compiler_options, hint)


@functools.cache
def _check_once(precision: str, mesh: Mesh, compiler_options: tuple, hint: str) -> None:
    """Check the devices, unless they passed before in this process or an earlier one.

    Args:
        compiler_options: of `xla.choose_compiler_options`.
        hint: what else would help, of these options.
    """
    has_bfloat16 = precision == "bfloat16"
    drawn = [draw(seed) for seed in range(_DRAWS)]
    inputs = jax.tree.map(lambda *x: np.stack(x), *drawn)
    here = environment.describe(mesh)
    try:
        traced = _make_program(mesh, has_bfloat16, compiler_options).trace(inputs)
        facts = {
            **here,
            "host": platform.node(),
            "platform": jax.local_devices()[0].client.platform_version,
            "devices": [x.id for x in mesh.local_devices],
            "compiler_options": [f"{name}={x}" for name, x in compiler_options],
            "program": _hash_text(str(traced.jaxpr)),
        }
        if kept.is_kept("canary", facts):
            return
        found = jax.device_get(traced.lower().compile()(inputs))
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        reason = (str(error).splitlines() or ["out of memory"])[0][:300]
        problem = f"cannot compute ({reason})"
    else:
        expected = [expect(x, has_bfloat16) for x in drawn]
        problem = next(_list_wrong(mesh, found, expected), "")
    if problem:
        raise UserError(_describe(problem, here, hint))
    kept.keep("canary", facts)


def draw(seed: int) -> dict[str, Any]:
    """Draw what the canary computes with: whole numbers from 1 to 4, and a seed."""
    random = np.random.default_rng(seed)
    shapes = {"images": SHAPE, "gradient": SHAPE, "kernel": (3, 3, 2, 2)}
    drawn = {n: random.integers(1, 5, x).astype(np.float32) for n, x in shapes.items()}
    return drawn | {"seed": np.uint32(seed)}


def compute(has_bfloat16: bool, inputs: dict[str, jax.Array]) -> Named:
    """Compute what must be right, by its name in messages; pure.

    Args:
        inputs: of `draw`.
    """
    images, kernel, gradient = (inputs[n] for n in ("images", "kernel", "gradient"))
    rows, others = images.reshape(_ROWS, -1), gradient.reshape(_ROWS, -1)
    whole = rows[:, 0].astype(jnp.int32)
    order = jnp.argsort(whole[:1024])
    found = {
        "a sum of rows": jnp.sum(images, (0, 1, 2)),
        "a mean of rows": jnp.mean(rows, 0),
        "a sum of squares": jnp.sum(jnp.square(rows), 0),
        "a sum of all": jnp.sum(rows),
        "a largest row": jnp.max(rows * others, 0),
        "a sum of whole numbers": jnp.sum(whole),
        "cumulative sums": jnp.cumsum(whole),
        "a sum in each row": jnp.sum(rows, 1),
        "a product of few columns": jnp.dot(rows, kernel[0, 0]),
        "a product over rows": jnp.dot(rows.T, others),
        "a logarithm of a softmax": jax.nn.log_softmax(rows),
        "an order": order,
        "chosen rows": rows[order],
        "a slice": jax.lax.dynamic_slice_in_dim(rows, whole[0], 64),
        "random bits": jax.random.bits(jax.random.key(inputs["seed"]), (4,)),
    }
    few, few_gradients = images[:_FEW], gradient[:_FEW]
    found |= _differentiate("auto", images, kernel, gradient)
    found |= _differentiate("plain", few, kernel, few_gradients, " of few images")
    if has_bfloat16:
        halves = [x.astype(jnp.bfloat16) for x in (few, kernel, few_gradients)]
        parts = _differentiate("auto", halves[0], halves[1], halves[2], " in bfloat16")
        found |= {name: x.astype(jnp.float32) for name, x in parts.items()}
    return found


def expect(inputs: dict[str, Any], has_bfloat16: bool) -> dict[str, tuple]:
    """Compute by numpy in float64: by name what is right, and what it may differ by.

    Args:
        inputs: of `draw`.
    """
    names = ("images", "kernel", "gradient")
    images, kernel, gradient = (inputs[name].astype(np.float64) for name in names)
    rows, others = images.reshape(_ROWS, -1), gradient.reshape(_ROWS, -1)
    order = np.argsort(rows[:1024, 0], kind="stable")
    right = {
        "a sum of rows": (rows.sum(0), _EXACT),
        "a mean of rows": (rows.mean(0), _FUNCTIONS),
        "a sum of squares": ((rows**2).sum(0), _EXACT),
        "a sum of all": (rows.sum(), _EXACT),
        "a largest row": ((rows * others).max(0), _EXACT),
        "a sum of whole numbers": (rows[:, 0].sum(), _EXACT),
        "cumulative sums": (rows[:, 0].cumsum(), _EXACT),
        "a sum in each row": (rows.sum(1), _EXACT),
        "a product of few columns": (rows @ kernel[0, 0], _PRODUCTS),
        "a product over rows": (rows.T @ others, _PRODUCTS),
        "a logarithm of a softmax": (
            rows - np.log(np.exp(rows).sum(1, keepdims=True)),
            _FUNCTIONS,
        ),
        "an order": (order, _EXACT),
        "chosen rows": (rows[order], _EXACT),
        "a slice": (rows[int(rows[0, 0]) :][:64], _EXACT),
        "random bits": (np.array(_BITS[int(inputs["seed"])]), _EXACT),
    }
    few, few_gradients = images[:_FEW], gradient[:_FEW]
    right |= _differentiate_plainly(images, kernel, gradient, "", _PRODUCTS)
    some = few, kernel, few_gradients
    right |= _differentiate_plainly(*some, " of few images", _PRODUCTS)
    if has_bfloat16:
        right |= _differentiate_plainly(*some, " in bfloat16", _BFLOAT16)
    return right


def _name_parts(suffix: str) -> list[str]:
    parts = "convolution", "convolution's input gradient", "convolution's gradient"
    return [f"a {part}{suffix}" for part in parts]


def _differentiate(
    formulation: str,
    images: jax.Array,
    kernel: jax.Array,
    gradient: jax.Array,
    suffix: str = "",
) -> Named:
    """Convolve, and compute both gradients; pure."""

    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv2d(images, kernel, padding="same", formulation=formulation)

    convolved, differentiate = jax.vjp(convolve, images, kernel)
    parts = [convolved, *differentiate(gradient)]
    return dict(zip(_name_parts(suffix), parts, strict=True))


def _differentiate_plainly(
    images: np.ndarray,
    kernel: np.ndarray,
    gradient: np.ndarray,
    suffix: str,
    allowed: float,
) -> dict[str, tuple]:
    """Do as `_differentiate` in float64, tap by tap."""
    high, wide = images.shape[1:3]
    around = ((0, 0), (1, 1), (1, 1), (0, 0))
    seen, by_tap = np.pad(images, around), np.zeros_like(kernel)
    convolved, spread = np.zeros_like(gradient), np.zeros_like(seen)
    for i, j in np.ndindex(kernel.shape[:2]):
        window = (slice(None), slice(i, i + high), slice(j, j + wide))
        convolved += seen[window] @ kernel[i, j]
        spread[window] += gradient @ kernel[i, j].T
        by_tap[i, j] = np.tensordot(seen[window], gradient, ([0, 1, 2], [0, 1, 2]))
    parts = convolved, spread[:, 1:-1, 1:-1], by_tap
    return {n: (x, allowed) for n, x in zip(_name_parts(suffix), parts, strict=True)}


def _make_program(mesh: Mesh, has_bfloat16: bool, compiler_options: tuple) -> Any:
    """Make the program: every device computes all draws, one after another."""
    local = Mesh(np.array(mesh.local_devices), ("device",))

    def run(inputs: dict[str, jax.Array]) -> Named:
        found = jax.lax.map(functools.partial(compute, has_bfloat16), inputs)
        return jax.tree.map(lambda x: x[None], found)

    everywhere, each = PartitionSpec(), PartitionSpec("device")
    run = jax.shard_map(
        run, mesh=local, in_specs=everywhere, out_specs=each, check_vma=False
    )
    return jax.jit(run, compiler_options=dict(compiler_options))


def _list_wrong(
    mesh: Mesh, found: dict[str, np.ndarray], expected: list[dict[str, tuple]]
) -> Iterator[str]:
    """Say what is wrong.

    Args:
        found: by name [devices, draws, …].
        expected: of each draw, of `expect`.
    """
    for i, device in enumerate(mesh.local_devices):
        for j, by_name in enumerate(expected):
            for name, (right, allowed) in by_name.items():
                got, right = found[name][i, j].astype(np.float64), np.asarray(right)
                # What is no number is wrong too.
                is_wrong = ~(abs(got - right) <= allowed * abs(right))
                if is_wrong.any():
                    first = tuple(np.argwhere(is_wrong)[0])
                    yield (
                        f"computes wrong numbers: on {device}, {name} is "
                        f"{got[first]:.9g} instead of {right[first]:.9g} "
                        f"({is_wrong.sum():,} of {right.size:,} numbers are wrong)"
                    )


def _describe(problem: str, here: dict[str, Any], hint: str) -> str:
    versions = {"jax": jax.__version__, "jaxlib": here["versions"]["jaxlib"]}
    own = ", ".join(f"{name} {x}" for name, x in versions.items())
    variables = [f"{n}={x}" for n, x in here["environment_variables"].items()]
    return (
        f"This machine {problem}; {own}, {here['device']}, {here['processor']}"
        f"{'; '.join(['', *variables])}. Install again with pip install -r "
        f"requirements.txt, unset what is set of the compiler{hint}, or take another "
        "device; --canary=off goes on without this check"
    )


def _hash_text(text: str) -> str:
    """Hash a program's text, without the addresses of objects in it."""
    return hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", text).encode()).hexdigest()
